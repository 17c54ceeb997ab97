"""Stuart-Landau records and their reference spectra, against simulations of another kind and closed forms."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from kpm.datasets import stuart_landau, systems
from kpm.datasets.stuart_landau import StuartLandau


def measured_decay(angles, m, dt, early=10, late=50):
    """Decay per time of ``E exp(i m (theta(t + tau) - theta(t)))`` between two lags, angles (trial, time)."""
    sizes = [np.abs(np.exp(1j * m * (angles[:, lag:] - angles[:, :-lag])).mean()) for lag in (early, late)]
    return np.log(sizes[0] / sizes[1]) / ((late - early) * dt)


@pytest.mark.parametrize("convention", ["half", "full"])
def test_decay_of_the_harmonics_in_a_long_record(convention):
    config = StuartLandau(noise=0.05, convention=convention, trials=150, frames=2500, train_size=2500)
    record = stuart_landau.simulate(config)
    angles = torch.view_as_complex(record.states.contiguous()).angle().numpy()[:, 100:]
    m = torch.arange(1, 4)
    exact, published = (-stuart_landau.rates(m, config, kind).real for kind in ("exact", "published"))
    found = np.array([measured_decay(angles, k, config.dt) for k in m.tolist()])
    np.testing.assert_allclose(found, exact.numpy(), rtol=0.06)
    factor = {"half": 0.5, "full": 1.0}[convention]
    np.testing.assert_allclose(found, published.numpy() * factor, rtol=0.1)  # kappa 3.0, weak noise


def test_record_is_the_published_process_step_by_step():
    """Runge-Kutta on the drift, then the kick, in numpy, with the kicks read off the record."""
    config = StuartLandau(noise=0.05, trials=2, frames=400, train_size=300)
    z = torch.view_as_complex(stuart_landau.simulate(config).states.contiguous()).numpy()

    def drift(z):
        return (1.0 + 0.9j) * z - (1 + 0.3j) * abs(z) ** 2 * z

    a = drift(z)
    b = drift(z + 0.05 * a)
    c = drift(z + 0.05 * b)
    d = drift(z + 0.1 * c)
    kicks = (z + 0.1 / 6 * (a + 2 * b + 2 * c + d))[:, :-1] - z[:, 1:]
    assert np.var(kicks.real) == pytest.approx(0.05 * 0.1 / 2, rel=0.15)
    assert np.var(kicks.imag) == pytest.approx(0.05 * 0.1 / 2, rel=0.15)
    exact = systems.stuart_landau_flow(torch.from_numpy(z), 0.1).numpy()
    np.testing.assert_allclose(z + 0.1 / 6 * (a + 2 * b + 2 * c + d), exact, atol=2e-5)
    assert z[0, 0] == 0.1


def test_conventions_differ_by_the_root_of_two():
    half = StuartLandau(noise=0.02, convention="half", trials=2, frames=2, train_size=1)
    full = StuartLandau(noise=0.02, convention="full", trials=2, frames=2, train_size=1)
    first, second = (stuart_landau.simulate(c).states for c in (half, full))
    moved = systems.stuart_landau_flow(torch.tensor(0.1 + 0j, dtype=torch.complex128), 0.1)
    kicks = [torch.view_as_complex(s[:, 1].contiguous()) - moved for s in (first, second)]
    torch.testing.assert_close(kicks[1], 2**0.5 * kicks[0])
    rates = [stuart_landau.rates(torch.arange(4), c, "weak") for c in (half, full)]
    torch.testing.assert_close(rates[1].real, 2 * rates[0].real)


def test_without_noise_the_record_is_the_solution():
    config = StuartLandau(noise=0.0, observation_noise=0.0, trials=2, frames=200, train_size=100)
    record = stuart_landau.simulate(config)

    def slope(t, s):
        z = complex(*s)
        dz = (1.0 + 0.9j) * z - (1 + 0.3j) * abs(z) ** 2 * z
        return [dz.real, dz.imag]

    expected = solve_ivp(slope, (0, 19.9), (0.1, 0), "Radau", np.linspace(0, 19.9, 200), rtol=1e-10, atol=1e-12).y.T
    np.testing.assert_allclose(record.states[1].numpy(), expected, atol=1e-8)
    np.testing.assert_allclose(
        record.observations[0].numpy(), expected / np.hypot(*expected.T)[:, None], atol=1e-7
    )  # the angle alone
    torch.testing.assert_close(record.reference, torch.exp(0.06j * record.harmonics.double()))


def test_observations_are_the_angle_and_noise_of_the_stated_variance():
    record = stuart_landau.simulate(StuartLandau(noise=0.09, trials=20))
    assert record.observations.shape == record.states.shape == (20, 3500, 2)
    assert record.train.shape == (20, 3000, 2) and record.validation.shape == (20, 500, 2)
    z = torch.view_as_complex(record.states.contiguous())
    noise = record.observations - torch.stack([z.angle().cos(), z.angle().sin()], -1)
    assert noise.var().item() == pytest.approx(0.01, rel=0.02)
    assert abs(torch.corrcoef(noise.flatten(0, 1).T)[0, 1]) < 0.02
    kicks = z[:, 1:] - systems.stuart_landau_flow(z[:, :-1], 0.1)
    shared = (kicks.real * noise[:, 1:, 0]).mean() / (kicks.real.std() * noise[:, 1:, 0].std())
    assert abs(shared) < 0.02  # the two noises are not one


def test_weak_and_published_references():
    config = StuartLandau(noise=0.05)
    m = torch.arange(-6, 7)
    weak, published = (stuart_landau.rates(m, config, kind) for kind in ("weak", "published"))
    np.testing.assert_allclose(weak.numpy(), 0.6j * m.numpy() - 0.2725 * 0.05 * m.numpy() ** 2, atol=1e-12)
    np.testing.assert_allclose(published.numpy(), 0.6j * m.numpy() - 0.54 * 0.05 * m.numpy() ** 2, atol=1e-12)
    # The two references of the sixth harmonic are this far apart in modulus at dt = 0.1.
    sizes = [(0.1 * x[-1]).exp().abs().item() for x in (weak, published)]
    assert sizes[0] - sizes[1] == pytest.approx(0.045, abs=1e-3)


def test_exact_rates_have_the_measured_decay_at_noise_that_is_not_weak():
    """Decay over epsilon m^2 from long simulations: 0.541 and 0.574 with full noise; 0.280 with half of it."""
    m = torch.tensor([1])
    for noise, per_part, expected in ((0.05, 0.05, 0.574), (0.05, 0.025, 0.280), (0.01, 0.01, 0.541)):
        decay = -stuart_landau.exact_rates(m, noise=per_part).real.item() / noise
        assert decay == pytest.approx(expected, rel=0.02)


def test_the_reference_of_a_record_is_the_exact_one():
    record = stuart_landau.simulate(StuartLandau(noise=0.09, trials=1, frames=2, train_size=1))
    exact = stuart_landau.exact_rates(record.harmonics, noise=0.045)
    torch.testing.assert_close(record.reference, (0.1 * exact).exp())


def test_exact_rates_become_the_weak_ones():
    m = torch.tensor([-2, 1])
    gaps = []
    for noise in (0.008, 0.004):
        weak = systems.stuart_landau_rates(m, noise=noise)
        gaps.append((stuart_landau.exact_rates(m, noise=noise) - weak).abs().max().item())
    assert np.log2(gaps[0] / gaps[1]) == pytest.approx(2, abs=0.2)  # the next order
    assert torch.equal(stuart_landau.exact_rates(m), systems.stuart_landau_rates(m))


def test_exact_rates_by_polynomials():
    """Galerkin in ``z^m p(|z|^2)``, a basis that has nothing in common with finite volumes.

    For ``f = z^m p(u)``, ``u = |z|^2``, and the stationary density ``rho``, the part of the generator that is symmetric
    has the form ``-(noise / 2) integral rho grad f . grad g`` and the rest turns by ``m (gamma - beta u)``.
    """
    noise, m, degree = 0.08, 2, 28
    chebyshev = np.polynomial.chebyshev
    nodes, weights = np.polynomial.legendre.leggauss(600)
    u = 1.5 * (nodes + 1)
    density = weights * np.exp(-((u - 1) ** 2) / (2 * noise)) * u**m
    raw = chebyshev.chebvander(nodes, degree)
    slopes = chebyshev.chebval(nodes, chebyshev.chebder(np.eye(degree + 1)))  # by the node's coordinate, not by u
    triangle = np.linalg.qr(np.sqrt(density)[:, None] * raw)[1]
    p, q = (np.linalg.solve(triangle.T, x).T for x in (raw.T, slopes / 1.5))  # orthonormal, and their derivatives
    # |grad f|^2 = |z|^(2 m) (2 m^2 p^2 / u + 4 m p p' + 4 u p'^2), here of two functions.
    size = (2 * m**2 / u * density * p.T) @ p + 4 * u * density * q.T @ q
    size += (2 * m * density * p.T) @ q + (2 * m * density * q.T) @ p
    turn = 1j * m * ((0.9 - 0.3 * u) * density * p.T) @ p
    found = np.linalg.eigvals(turn - noise / 2 * size)
    exact = stuart_landau.exact_rates(torch.tensor([m]), noise=noise)[0].item()
    assert np.abs(found - exact).min() < 1e-6


def test_same_seed_same_record():
    first, again, other = (stuart_landau.simulate(StuartLandau.quick(seed=s)) for s in (1, 1, 9))
    assert torch.equal(first.observations, again.observations)
    assert not torch.equal(first.observations, other.observations)
    more = stuart_landau.simulate(StuartLandau.quick(seed=1, trials=5))
    torch.testing.assert_close(more.observations[:3], first.observations, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"convention": "quarter"}, "convention: expected one of full, half, got 'quarter'"),
        ({"reference": "wrong"}, "reference: expected one of weak, exact, published, got 'wrong'"),
        ({"noise": -0.1}, "noise: expected a finite number >= 0"),
        ({"observation_noise": float("nan")}, "observation_noise: expected a finite number >= 0"),
        ({"frames": 1}, "frames: expected a whole number from 2"),
        ({"train_size": 5000}, "train_size: expected a whole number from 1 to 3500"),
        ({"mu": -1.0}, "mu: expected a positive number"),
        ({"dt": 0.0}, "dt: expected a positive time"),
        ({"start": float("nan")}, "start: expected a finite number"),
    ],
)
def test_bad_input_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        stuart_landau.simulate(StuartLandau(**{"trials": 2, **changes}))

"""Van der Pol's oscillator against scipy's integrators, its cycle against Fourier fits and known expansions."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from kpm.datasets import van_der_pol
from kpm.datasets.van_der_pol import VanDerPol
from kpm.metrics.spectral_error import spectral_error


def slope(t, state, mu=2.0):
    x, v = state
    return [v, mu * (1 - x**2) * v - x]


def test_trajectory_agrees_with_scipy():
    starts = torch.tensor([[2.0, 0.0], [-0.5, 1.0]])
    found = van_der_pol.trajectory(starts, 101, 0.1, substeps=50)
    assert found.shape == (2, 101, 2) and torch.equal(found[:, 0], starts.double())
    for start, states in zip(starts, found):
        expected = solve_ivp(slope, (0, 10), start.numpy(), "Radau", np.linspace(0, 10, 101), rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(states.numpy(), expected.y.T, atol=1e-6)


def test_published_step_is_one_of_runge_kutta():
    """One step of 0.1 worked out by hand from (2, 0)."""
    x, v, h = 2.0, 0.0, 0.1
    k1 = slope(0, (x, v))
    k2 = slope(0, (x + h / 2 * k1[0], v + h / 2 * k1[1]))
    k3 = slope(0, (x + h / 2 * k2[0], v + h / 2 * k2[1]))
    k4 = slope(0, (x + h * k3[0], v + h * k3[1]))
    expected = [s + h / 6 * (a + 2 * b + 2 * c + d) for s, a, b, c, d in zip((x, v), k1, k2, k3, k4)]
    states = van_der_pol.trajectory(torch.tensor([x, v]), 2)
    np.testing.assert_allclose(states[1].numpy(), expected, rtol=1e-14)


@pytest.mark.parametrize("mu", [0.3, 2.0, 6.0])
def test_true_period_by_events_of_another_integrator(mu):
    def crossing(t, state):
        return state[1]  # the turning points, where `frequency` takes the zeros of the position

    crossing.direction = -1
    found = solve_ivp(
        lambda t, s: slope(t, s, mu), (0, 300), (2, 0.1), "LSODA", events=crossing, rtol=1e-11, atol=1e-12
    )
    period = np.diff(found.t_events[0])[-5:].mean()
    assert 2 * math.pi / van_der_pol.frequency(mu) == pytest.approx(period, rel=1e-7)


def test_frequency_has_the_known_values():
    assert van_der_pol.frequency(2.0) == pytest.approx(0.823498, abs=5e-7)
    assert 2 * math.pi / van_der_pol.frequency(2.0) == pytest.approx(7.62987, abs=6e-6)
    assert van_der_pol.frequency(2.0, 0.1) == pytest.approx(0.823431, abs=2e-6)
    # Expansion in a small mu: 1 - mu^2 / 16 + 17 mu^4 / 3072.
    assert van_der_pol.frequency(0.2) == pytest.approx(1 - 0.04 / 16 + 17 * 0.0016 / 3072, abs=1e-7)


def test_frequency_of_the_stepped_cycle_goes_to_the_true_one():
    true = van_der_pol.frequency(2.0)
    gaps = [abs(van_der_pol.frequency(2.0, step) - true) for step in (0.1, 0.05)]
    assert gaps[0] > 6e-5 and math.log2(gaps[0] / gaps[1]) == pytest.approx(4, abs=0.3)
    assert van_der_pol.frequency(2.0, 0.1, periods=60) == pytest.approx(van_der_pol.frequency(2.0, 0.1), abs=2e-8)


def test_reference_carries_the_cycle():
    """Harmonics of the reference, and no others, make up the noise-free record; those of the true cycle do not."""
    config = VanDerPol(noise=0.0, trials=1, harmonics=40)
    record = van_der_pol.simulate(config)
    x = record.observations[0, ::3, 0].numpy()[200:]
    steps = 3 * np.arange(200, 1167)

    def misfit(eigenvalues):
        basis = eigenvalues[None, :] ** steps[:, None]
        return np.abs(basis @ np.linalg.lstsq(basis, x, rcond=None)[0] - x).max()

    true = van_der_pol.reference(record.harmonics, 0.1, van_der_pol.frequency(2.0))
    assert misfit(record.reference.numpy()) < 1e-5 < 1e-2 < misfit(true.numpy())


def test_position_has_odd_harmonics_only_and_what_that_costs_a_linear_method():
    record = van_der_pol.simulate(VanDerPol(noise=0.0, trials=1, harmonics=40))
    basis = record.reference[None, :] ** torch.arange(500, 1500)[:, None]
    x = record.observations[0, 500:1500].to(basis.dtype)
    amplitude = torch.linalg.lstsq(basis, x).solution[:, 0].abs()
    odd = record.harmonics % 2 == 1
    assert amplitude[~odd].max() < 1e-7 and amplitude[odd & (record.harmonics.abs() <= 9)].min() > 1e-3
    kept = (record.harmonics.abs() <= 6) & odd
    within = record.harmonics.abs() <= 6
    for found, mean, low in ((kept, 0.044, 0.046), (kept | (record.harmonics == 0), 0.038, 0.037)):  # with a constant
        error = spectral_error(record.reference[within], record.reference[found], record.harmonics[within])
        assert error.mean.item() == pytest.approx(mean, abs=5e-4)
        assert error.mean_low.item() == pytest.approx(low, abs=5e-4)


def test_trials_are_one_trajectory_with_noise_of_the_stated_variance():
    record = van_der_pol.simulate(VanDerPol(noise=0.2, trials=20))
    assert record.observations.shape == (20, 3500, 1) and record.states.shape == (20, 3500, 2)
    assert record.train.shape == (20, 3000, 1) and record.validation.shape == (20, 500, 1) and len(record) == 20
    assert record.states[7, 0].tolist() == [2.0, 0.0] and torch.equal(record.states[3], record.states[12])
    noise = (record.observations - record.states[..., :1]).squeeze(-1)
    assert noise.var().item() == pytest.approx(0.2, rel=0.02) and abs(noise.mean().item()) < 0.01
    mixing = torch.corrcoef(noise) - torch.eye(20)
    assert mixing.abs().max() < 5 / 3500**0.5  # between trials
    assert abs((noise[:, 1:] * noise[:, :-1]).mean().item()) < 0.2 * 4 / 70000**0.5  # between frames
    assert record.reference.shape == (13,) and record.harmonics.tolist() == list(range(-6, 7))
    np.testing.assert_allclose(record.reference[7].numpy(), np.exp(0.0823431j), atol=2e-7)


def test_same_seed_same_record():
    first, again, other = (van_der_pol.simulate(VanDerPol.quick(seed=s)) for s in (1, 1, 9))
    assert torch.equal(first.observations, again.observations)
    assert not torch.equal(first.observations, other.observations)
    more = van_der_pol.simulate(VanDerPol.quick(seed=1, trials=5))
    assert torch.equal(more.observations[:3], first.observations)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: van_der_pol.simulate(VanDerPol(noise=-1.0)), "noise: expected a finite number >= 0"),
        (lambda: van_der_pol.simulate(VanDerPol(mu=0.0)), "mu: expected a positive number, got 0.0"),
        (
            lambda: van_der_pol.simulate(VanDerPol(train_size=4000)),
            "train_size: expected a whole number from 1 to 3500",
        ),
        (lambda: van_der_pol.simulate(VanDerPol(trials=0)), "trials: expected"),
        (lambda: van_der_pol.trajectory(torch.zeros(3), 5), r"start: expected \(\*batch, 2\), got shape \(3,\)"),
        (lambda: van_der_pol.trajectory(torch.tensor([math.nan, 0]), 5), r"start\[0\] is not finite"),
        (lambda: van_der_pol.trajectory(torch.tensor([2.0, 0]), 50, 3.0), "steps of 3 are too long"),
        (lambda: van_der_pol.frequency(-2.0), "mu: expected a positive number"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

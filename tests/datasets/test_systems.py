"""Simulators against closed forms, conserved quantities and an independent integrator."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import ellipj

from kpm.datasets import systems

STARTS = torch.tensor([[0.5, 0.0], [2.5, 0.0], [-1.0, 0.7]], dtype=torch.float64)
TIMES = torch.linspace(0, 20, 101, dtype=torch.float64)


def integrate(slope, start, times):
    return solve_ivp(slope, (times[0], times[-1]), start, "Radau", times, rtol=1e-10, atol=1e-12).y.T


@pytest.mark.parametrize("frequency", [1.0, 1.7])
@pytest.mark.parametrize("amplitude", [0.3, 2.5, 3.1])
def test_pendulum_is_the_elliptic_function(amplitude, frequency):
    found = systems.pendulum(torch.tensor([amplitude, 0.0], dtype=torch.float64), TIMES, frequency=frequency)
    _, cn, dn, _ = ellipj(frequency * TIMES.numpy(), math.sin(amplitude / 2) ** 2)
    expected = 2 * np.arcsin(math.sin(amplitude / 2) * cn / dn)
    np.testing.assert_allclose(found[:, 0].numpy(), expected, atol=1e-8)


def test_pendulum_keeps_its_energy_and_loses_it_with_friction():
    free = systems.pendulum_energy(systems.pendulum(STARTS, TIMES, frequency=1.3), 1.3)
    assert (free - free[:, :1]).abs().max() < 1e-8
    energy = systems.pendulum_energy(systems.pendulum(STARTS, TIMES, damping=0.2))
    assert (energy.diff() < 0).all()


def test_damped_small_swing_is_a_damped_cosine():
    gamma, w = 0.2, math.sqrt(1 - 0.01)
    found = systems.pendulum(torch.tensor([1e-4, 0.0]), TIMES, gamma)[:, 0]
    expected = 1e-4 * (-gamma / 2 * TIMES).exp() * ((w * TIMES).cos() + gamma / 2 / w * (w * TIMES).sin())
    assert (found - expected).abs().max() < 1e-4 * 1e-6


def test_pendulum_returns_after_its_period():
    for amplitude in (0.5, 2.0, 3.0):
        period = systems.pendulum_period(torch.tensor(amplitude, dtype=torch.float64), 1.3)
        start = torch.tensor([amplitude, 0.0], dtype=torch.float64)
        end = systems.pendulum(start, torch.tensor([0.0, period], dtype=torch.float64), frequency=1.3)[-1]
        assert (end - start).abs().max() < 1e-6
    assert systems.pendulum_period(torch.tensor(1e-5, dtype=torch.float64)).item() == pytest.approx(2 * math.pi)


def test_a_batch_is_its_members():
    for system in (systems.pendulum, systems.slow_manifold):
        batch = system(STARTS.reshape(3, 1, 2), TIMES)
        assert batch.shape == (3, 1, 101, 2) and batch.dtype == torch.float64
        torch.testing.assert_close(batch[1, 0], system(STARTS[1], TIMES), atol=1e-7, rtol=0)
        torch.testing.assert_close(batch[:, 0, 0], STARTS)


@pytest.mark.parametrize("fast", [-1.0, -0.3, -0.2, -0.2 + 1e-9])
def test_slow_manifold_solves_its_equation(fast):
    found = systems.slow_manifold(STARTS[2], TIMES, -0.1, fast)
    expected = integrate(lambda t, s: [-0.1 * s[0], fast * (s[1] - s[0] ** 2)], STARTS[2].numpy(), TIMES.numpy())
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-8)


def test_slow_manifold_has_the_stated_eigenfunctions():
    x, y = systems.slow_manifold(STARTS, TIMES, -0.1, -1.0).unbind(-1)
    phi = y - 1.25 * x**2
    torch.testing.assert_close(phi, phi[:, :1] * (-TIMES).exp(), atol=1e-12, rtol=0)
    torch.testing.assert_close(phi * x, (phi * x)[:, :1] * (-1.1 * TIMES).exp(), atol=1e-12, rtol=0)


def test_stuart_landau_solves_its_equation():
    mu, gamma, beta = 0.7, 1.1, 0.4

    def slope(t, s):
        z = complex(*s)
        dz = (mu + 1j * gamma) * z - (1 + 1j * beta) * abs(z) ** 2 * z
        return [dz.real, dz.imag]

    for start in (0.1 + 0.2j, -2.0 + 0j):
        found = systems.stuart_landau(torch.tensor(start), 80, 0.25, mu=mu, gamma=gamma, beta=beta).numpy()
        expected = integrate(slope, [start.real, start.imag], 0.25 * np.arange(81)) @ [1, 1j]
        np.testing.assert_allclose(found, expected, atol=1e-8)
    assert (systems.stuart_landau(torch.zeros(2), 5) == 0).all()


def test_a_small_start_grows_as_the_linear_equation():
    z = systems.stuart_landau(torch.tensor(1e-150, dtype=torch.float64), 3, 0.1)
    assert abs(z[1] / z[0] - np.exp((1 + 0.9j) * 0.1)) < 1e-12


def test_phase_of_the_noisy_cycle_turns_and_diffuses_at_the_stated_rates():
    noise, dt = 0.01, 0.05
    z = systems.stuart_landau(
        torch.ones(400), 800, dt, noise=noise, generator=torch.Generator().manual_seed(1)
    )[:, 200:]  # fmt: skip
    phase = torch.from_numpy(np.unwrap((z.angle() - 0.3 * z.abs().log()).numpy(), axis=1))
    step = 40
    turn = phase[:, step::step] - phase[:, :-step:step]
    rate = systems.stuart_landau_rates(torch.tensor([1.0, 2.0]), noise=noise)
    assert turn.mean() / (step * dt) == pytest.approx(rate[0].imag.item(), rel=0.01)
    # |E exp(i turn)| decays with the real part: half the variance per unit of time.
    assert turn.var() / 2 / (step * dt) == pytest.approx(-rate[0].real.item(), rel=0.07)
    assert rate[1].real == pytest.approx(4 * rate[0].real.item()) and rate[1].imag == pytest.approx(1.2)


def test_noise_comes_from_the_generator():
    def simulate(seed):
        return systems.stuart_landau(torch.ones(3), 10, noise=0.1, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(simulate(0), simulate(0)) and not torch.equal(simulate(0), simulate(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: systems.pendulum(torch.zeros(3), TIMES), r"start: expected \(\*batch, 2\), got shape \(3,\)"),
        (lambda: systems.pendulum(torch.zeros(0, 2), TIMES), "start: expected"),
        (lambda: systems.slow_manifold(torch.zeros(2), TIMES.flip(0)), "times: expected at least two increasing"),
        (lambda: systems.slow_manifold(torch.zeros(2), TIMES[:1]), "times: expected"),
        (lambda: systems.pendulum(torch.tensor([math.nan, 0]), TIMES), "start: not finite"),
        (lambda: systems.pendulum(torch.zeros(2), torch.tensor([0, math.inf])), "times: not finite"),
        (lambda: systems.pendulum_period(torch.tensor(3.2)), "amplitude: expected"),
        (lambda: systems.stuart_landau(torch.ones(2), 0), "steps >= 1"),
        (lambda: systems.stuart_landau(torch.ones(2), 5, mu=-1), "mu, dt > 0"),
        (lambda: systems.stuart_landau(torch.ones(2), 5, noise=0.1), "generator: noise needs one"),
        (lambda: systems.stuart_landau(torch.tensor([math.inf]), 5), "start: not finite"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

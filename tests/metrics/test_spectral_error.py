"""Errors of spectra made by hand, matching against scipy, and rates against logarithms."""

import cmath
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from kpm.metrics import spectral_error
from kpm.metrics.spectral_error import continuous, discrete, readings

M = torch.arange(-6, 7)
REFERENCE = torch.polar(torch.ones(13, dtype=torch.float64), 0.0823 * M.double())


def cloud(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed)) * 0.7


def test_readings_of_a_spectrum_made_by_hand():
    """Estimates on the same rays, further in by 0.001 (|m| + 1): each is nearest to its own reference."""
    gaps = 0.001 * (M.abs().double() + 1)
    error = spectral_error.spectral_error(REFERENCE, REFERENCE * (1 - gaps), M)
    np.testing.assert_allclose(error.per_harmonic.numpy(), gaps.numpy(), atol=1e-15)
    assert error.total.item() == pytest.approx(0.001 * (2 * (2 + 3 + 4 + 5 + 6 + 7) + 1))
    assert error.mean.item() == pytest.approx(0.055 / 13)
    assert error.mean_low.item() == pytest.approx(0.001 * (2 * (2 + 3 + 4 + 5) + 1) / 9)


def test_nearest_lets_one_estimate_serve_all_and_optimal_does_not():
    estimate = torch.cat([torch.ones(1), torch.full((12,), -9.0)])
    near = spectral_error.spectral_error(REFERENCE, estimate, M)
    best = spectral_error.spectral_error(REFERENCE, estimate, M, method="optimal")
    expected = 2 * np.sin(0.0823 * M.abs().numpy() / 2)  # chords from 1
    np.testing.assert_allclose(near.per_harmonic.numpy(), expected, atol=1e-12)
    assert (best.per_harmonic > 9).sum() == 12 and (best.total > near.total).all()


@pytest.mark.parametrize("seed", range(3))
def test_matching_agrees_with_scipy_over_trials(seed):
    estimate = cloud(5, 4, 30, seed=seed)
    near = spectral_error.spectral_error(REFERENCE, estimate, M)
    best = spectral_error.spectral_error(REFERENCE, estimate, M, method="optimal")
    assert near.per_harmonic.shape == best.per_harmonic.shape == (5, 4, 13) and near.total.shape == (5, 4)
    for index in np.ndindex(5, 4):
        costs = np.abs(REFERENCE.numpy()[:, None] - estimate[index].numpy()[None, :])
        np.testing.assert_allclose(near.per_harmonic[index].numpy(), costs.min(1), atol=1e-14)
        assert best.total[index].item() == pytest.approx(costs[linear_sum_assignment(costs)].sum())


def test_rates_and_factors():
    rates = torch.tensor([-0.2 + 0.6j, 3j, 0.0, -1.0 - 5j], dtype=torch.complex128)
    values = discrete(rates, 0.1)
    np.testing.assert_allclose(values.numpy(), np.exp(0.1 * rates.numpy()), atol=1e-15)
    np.testing.assert_allclose(continuous(values, 0.1).numpy(), rates.numpy(), atol=1e-13)
    assert continuous(torch.tensor([-1.0]), 0.5).item() == pytest.approx(2j * math.pi)
    zero = continuous(torch.zeros(1), 0.1)
    assert zero.real.item() == pytest.approx(math.log(1e-12) / 0.1)


def test_error_in_rates_is_per_time():
    reference, estimate = torch.tensor([0.9j, 0.5]), torch.tensor([0.8j, 0.6, 0.0])
    error = spectral_error.spectral_error(reference, estimate, torch.tensor([1, 0]), dt=0.1)
    expected = [abs(cmath.log(0.9j) - cmath.log(0.8j)) / 0.1, math.log(0.6 / 0.5) / 0.1]
    np.testing.assert_allclose(error.per_harmonic.numpy(), expected, rtol=1e-6)


def test_readings_are_those_of_costs_written_out():
    """Nearest and one to one, by scipy on the table of distances, trial by trial."""
    estimate = cloud(7, 20)
    found = readings(REFERENCE, estimate, M)
    costs = np.abs(REFERENCE.numpy()[:, None] - estimate.numpy()[:, None, :])
    nearest = costs.min(-1)
    matched = np.stack([c[linear_sum_assignment(c)] for c in costs])
    assert (matched.sum(1) > nearest.sum(1) + 0.1).all()  # the two differ here, or the names below could be mixed up
    expected = {}
    for before, each in (("", nearest), ("matched_", matched)):
        expected |= {
            f"{before}total": each.sum(1),
            f"{before}mean13": each.mean(1),
            f"{before}mean9": each[:, 2:11].mean(1),
        }
        expected |= {f"{before}m{m}": each[:, [6 - m, 6 + m]].mean(1) for m in range(7)}
    expected["matched"] = expected.pop("matched_mean13")
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].numpy(), values, atol=1e-12, err_msg=name)
    few = readings(REFERENCE, estimate[:, :9], M)  # nine estimates for thirteen harmonics
    assert "total" in few and not any(name.startswith("matched") for name in few)


def test_gradient_reaches_the_estimates():
    estimate = (REFERENCE * 0.97).requires_grad_()
    spectral_error.spectral_error(REFERENCE, estimate, M).total.backward()
    np.testing.assert_allclose(estimate.grad.numpy(), -REFERENCE.numpy(), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectral_error.spectral_error(REFERENCE, cloud(9), M, method="greedy"), "method: expected one of"),
        (
            lambda: spectral_error.spectral_error(REFERENCE, cloud(9), M[:5]),
            r"harmonics and reference: .*\(5,\) and \(13,\)",
        ),
        (lambda: spectral_error.spectral_error(REFERENCE, cloud(9), M, method="optimal"), "9 values cannot be matched"),
        (lambda: spectral_error.spectral_error(REFERENCE, cloud(9) * math.nan, M), "estimate.0. is not finite"),
        (lambda: spectral_error.spectral_error(REFERENCE, cloud(9) * math.nan, M, dt=0.1), r"estimate\[0\] is not fin"),
        (lambda: spectral_error.spectral_error(REFERENCE, cloud(2, 9), M, dt=0.0), "dt: expected a positive time step"),
        (
            lambda: spectral_error.spectral_error(REFERENCE[7:], cloud(9), M[7:], low=0),
            "low: no harmonic is as low as 0",
        ),
        (lambda: discrete(torch.zeros(2), -1.0), "dt: expected a positive time step"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Limit sets against an integrator: where starts go, and when."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from kpm.datasets import limit_sets
from kpm.errors import UserError


def slope(name: str, attractors: int):
    def of(_: float, s: np.ndarray) -> list[float]:
        x, y = s
        if name == "bistable":
            return [x - x**3, -y]
        if name == "ring":
            r, theta = math.hypot(x, y), math.atan2(y, x)
            dr, dtheta = r - r**3, -math.sin(attractors * theta)
            return [dr * x / r - y * dtheta, dr * y / r + x * dtheta]
        z = complex(x, y)
        dz = (1 + 0.9j) * z - (1 + 0.3j) * abs(z) ** 2 * z
        return [dz.real, dz.imag]

    return of


@pytest.mark.parametrize("name", limit_sets.NAMES)
def test_the_flow_is_what_an_integrator_finds(name):
    starts = torch.tensor([[0.7, 0.4], [-1.3, 0.2], [0.1, -1.1]], dtype=torch.float64)
    found = limit_sets.flow(name, starts, 0.9, 3)
    for start, state in zip(starts.numpy(), found.numpy()):
        expected = solve_ivp(slope(name, 3), (0, 0.9), start, rtol=1e-11, atol=1e-12).y[:, -1]
        np.testing.assert_allclose(state, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("made", [limit_sets.bistable(60), limit_sets.ring(60, 2), limit_sets.ring(60, 7)])
def test_starts_tend_to_their_attractors(made):
    late = limit_sets.flow(made.name, made.start, 40.0, len(made.attractors))
    assert (late - made.limit).abs().max() < 1e-9
    assert torch.equal(limit_sets.basins(made.start, made.attractors), made.basin)
    assert torch.equal(made.attractors[made.basin], made.limit) and len(made) == 60
    assert torch.bincount(made.basin).min() >= 60 // len(made.attractors)


def test_phases_are_those_that_starts_end_up_with():
    starts, time = limit_sets.cycle_starts(50), 30.0
    late = limit_sets.flow("cycle", starts, time)
    gap = torch.atan2(late[:, 1], late[:, 0]) - (limit_sets.asymptotic_phase(starts) + 0.6 * time)
    assert torch.atan2(gap.sin(), gap.cos()).abs().max() < 1e-9 and (late.norm(dim=1) - 1).abs().max() < 1e-9


def test_the_same_seed_gives_the_same_starts():
    assert torch.equal(limit_sets.ring(9, seed=3).start, limit_sets.ring(9, seed=3).start)
    assert not torch.equal(limit_sets.ring(9, seed=3).start, limit_sets.ring(9, seed=4).start)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: limit_sets.bistable(0), "count: expected a whole number from 1"),
        (lambda: limit_sets.ring(5, 1), "attractors: expected a whole number from 2"),
        (lambda: limit_sets.ring(5, margin=1.0), "margin: expected a share from 0 to below 1"),
        (lambda: limit_sets.flow("ring", torch.zeros(3), 1.0), r"start: expected \(n, 2\), got \(3,\)"),
    ],
)
def test_bad_input_is_one_clear_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_unknown_flow():
    with pytest.raises(UserError, match="unknown limit set 'circle'; did you mean 'cycle'"):
        limit_sets.flow("circle", torch.zeros(1, 2), 1.0)

"""Flows of the plane whose limit sets are known in closed form: two attractors, N on a ring, a limit cycle."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from kpm.datasets import systems
from kpm.errors import pick
from kpm.solvers import checks

NAMES = ("bistable", "ring", "cycle")


@dataclasses.dataclass(frozen=True, eq=False)
class LimitSet:
    """Points of the plane, and where the flow takes them.

    Attributes
    ----------
    name : str
        ``"bistable"`` or ``"ring"``.
    start : Tensor
        ``(n, 2)``, float64.
    limit : Tensor
        ``(n, 2)``: the attractor each start tends to.
    basin : Tensor
        int64 ``(n,)``, the number of that attractor.
    attractors : Tensor
        ``(k, 2)``.
    """

    name: str
    start: Tensor = dataclasses.field(repr=False)
    limit: Tensor = dataclasses.field(repr=False)
    basin: Tensor = dataclasses.field(repr=False)
    attractors: Tensor = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.start)


def bistable(count: int, seed: int = 7253, margin: float = 0.1) -> LimitSet:
    """Starts of ``x' = x - x^3, y' = -y``: those with ``x > 0`` tend to (1, 0), the others to (-1, 0).

    Parameters
    ----------
    count : int
        Starts, uniform on ``|x|, |y| <= 1.6`` but for the strip ``|x| < margin`` around the border.
    """
    draw = _drawn(count, margin, seed)
    u = torch.rand(count, 2, generator=draw, dtype=torch.float64)
    x = (margin + (1.6 - margin) * u[:, 0]) * torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0)
    start = torch.stack([x, 3.2 * u[:, 1] - 1.6], 1)
    attractors = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    return _of("bistable", start, (x < 0).long(), attractors)


def ring(count: int, attractors: int = 5, seed: int = 7253, margin: float = 0.1) -> LimitSet:
    """Starts of ``r' = r - r^3, theta' = -sin(N theta)``, which tends to the nearest of N points of the unit circle.

    Parameters
    ----------
    count : int
        Starts, uniform in the radius from 0.4 to 1.6 and in the angle, but for a share `margin` of each basin at its
        borders.
    attractors : int
        N, two or more, at the angles ``2 pi k / N``.
    """
    draw = _drawn(count, margin, seed)
    checks.count(attractors, "attractors", 2, 1000)
    u = torch.rand(count, 2, generator=draw, dtype=torch.float64)
    basin = torch.arange(count) % attractors
    theta = (basin + (1 - margin) * (u[:, 0] - 0.5)) * (2 * math.pi / attractors)
    radius = 0.4 + 1.2 * u[:, 1]
    start = radius[:, None] * torch.stack([theta.cos(), theta.sin()], 1)
    angle = torch.arange(attractors, dtype=torch.float64) * (2 * math.pi / attractors)
    return _of("ring", start, basin, torch.stack([angle.cos(), angle.sin()], 1))


def basins(start: Tensor, attractors: Tensor) -> Tensor:
    """Number of the attractor ``(k, 2)`` that each start ``(n, 2)`` of ``"bistable"`` or ``"ring"`` tends to, int64.

    In both that is the one whose direction from the origin is nearest to the start's.
    """
    return (start @ attractors.T).argmax(1)


def flow(name: str, start: Tensor, time: float, attractors: int = 5) -> Tensor:
    """Exact states ``(n, 2)`` of the flow a `time` after `start` ``(n, 2)``.

    The limit cycle is that of Stuart and Landau with the defaults of `kpm.datasets.systems.stuart_landau_flow`: radius
    1 and angular frequency 0.6.
    """
    pick("limit set", name, NAMES)
    start = torch.as_tensor(start, dtype=torch.float64)
    if start.ndim != 2 or start.shape[1] != 2:
        raise ValueError(f"start: expected (n, 2), got {tuple(start.shape)}")
    x, y = start.unbind(1)
    if name == "bistable":
        return torch.stack([_to_one(x, time), y * math.exp(-time)], 1)
    if name == "ring":
        radius, theta = _to_one(torch.hypot(x, y), time), torch.atan2(y, x)
        base = torch.round(theta * attractors / (2 * math.pi)) * (2 * math.pi / attractors)
        # tan(N phi / 2) decays as exp(-N t) for the angle phi to the attractor.
        part = torch.tan(attractors * (theta - base) / 2) * math.exp(-attractors * time)
        angle = base + 2 / attractors * torch.atan(part)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    return torch.view_as_real(systems.stuart_landau_flow(torch.complex(x, y), time))


def cycle_starts(count: int, seed: int = 7253) -> Tensor:
    """Starts ``(count, 2)`` around the limit cycle: radius from 0.5 to 1.5, any angle."""
    draw = _drawn(count, 0.0, seed)
    u = torch.rand(count, 2, generator=draw, dtype=torch.float64)
    theta, radius = 2 * math.pi * u[:, 0], 0.5 + u[:, 1]
    return radius[:, None] * torch.stack([theta.cos(), theta.sin()], 1)


def asymptotic_phase(start: Tensor, mu: float = 1.0, beta: float = 0.3) -> Tensor:
    """Phase on the limit cycle that a state of Stuart and Landau's oscillator ends up with, ``theta - beta ln(r / R)``.

    Two states of one asymptotic phase meet on the cycle, of radius ``R = sqrt(mu)``: `start` ``(n, 2)`` gives ``(n,)``.
    """
    x, y = torch.as_tensor(start, dtype=torch.float64).unbind(-1)
    return torch.atan2(y, x) - beta * torch.log(torch.hypot(x, y) / mu**0.5)


def _to_one(x: Tensor, time: float) -> Tensor:
    """Exact solution of ``x' = x - x^3``."""
    return x / (x * x + (1 - x * x) * math.exp(-2 * time)).sqrt()


def _drawn(count: int, margin: float, seed: int) -> torch.Generator:
    checks.count(count, "count", 1, 10**8)
    if not 0 <= margin < 1:
        raise ValueError(f"margin: expected a share from 0 to below 1, got {margin!r}")
    return torch.Generator().manual_seed(seed)


def _of(name: str, start: Tensor, basin: Tensor, attractors: Tensor) -> LimitSet:
    return LimitSet(name, start, attractors[basin], basin, attractors)

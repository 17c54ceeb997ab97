"""A limit cycle, where iteration never settles: what solvers do, and what a projector and rotations give instead.

Stuart and Landau's oscillator turns on the unit circle by 0.6 a unit of time. Its averages over time are known, 0 for
the position and 1 for the squared radius, and so is the phase that each start ends up with.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kpm.datasets import limit_sets
from kpm.models.sim import SIM, LowRankLimit, SIMConfig
from kpm.solvers.fixed_point import METHODS, FixedPoint, solve

OMEGA = 0.6
DT = 0.5
DEGREE = 12


def observables(states: Tensor, degree: int = DEGREE) -> Tensor:
    """``|z|^2k`` and real and imaginary part of ``z |z|^2k`` for k below `degree`: ``(n, 2) -> (n, 3 degree)``.

    The more of them, the nearer their span comes to one that the flow maps to itself.
    """
    square = states.square().sum(1, keepdim=True) ** torch.arange(degree, dtype=states.dtype)
    return torch.cat([square, states[:, :1] * square, states[:, 1:] * square], 1)


def operator(count: int = 2000, seed: int = 7253, dt: float = DT, degree: int = DEGREE) -> Tensor:
    """Koopman operator of the observables, by least squares over pairs `dt` apart, ``(3 degree, 3 degree)``."""
    starts = limit_sets.cycle_starts(count, seed)
    after = limit_sets.flow("cycle", starts, dt)
    return torch.linalg.lstsq(observables(starts, degree), observables(after, degree)).solution


def averages(limit: LowRankLimit, starts: Tensor) -> Tensor:
    """Averages over all time of position and squared radius, ``(n, 3)``, by a limit of rank 1."""
    degree = limit.size // 3
    with torch.no_grad():
        found = limit(observables(starts, degree))
    return torch.stack([found[:, degree], found[:, 2 * degree], found[:, 1]], 1)


def phase_after(limit: LowRankLimit, starts: Tensor, steps: float) -> Tensor:
    """Angle of the position after so many steps, ``(n,)``, by a limit with one rotation."""
    degree = limit.size // 3
    with torch.no_grad():
        found = limit(observables(starts, degree), steps)
    return torch.atan2(found[:, 2 * degree], found[:, degree])


def phase_errors(angle: Tensor, starts: Tensor, time: float) -> Tensor:
    """Distance to the analytic phase ``theta - beta ln r + omega t`` on the circle, ``(n,)``, radians."""
    gap = angle - (limit_sets.asymptotic_phase(starts) + OMEGA * time)
    return torch.atan2(gap.sin(), gap.cos()).abs()


def iterate(starts: Tensor, method: str, most: int = 200, dt: float = DT) -> FixedPoint:
    """Look for a fixed point of the flow over `dt`, as an equilibrium model would, by the absolute residual."""
    return solve(lambda z: limit_sets.flow("cycle", z, dt), starts, method, 1e-8, most, stop="absolute")


def learn_rotation(seed: int, steps: int = 1000, window: tuple[int, int] = (6, 16), dt: float = DT) -> SIM:
    """A SIM with one rotation, of learnt observables and angle, from states 6 to 16 steps after their starts."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = SIM(
            SIMConfig("deep", (2,), 64, 16, size=16, rank=3, mode="peripheral", rotations=1, inverse=0, outputs=2)
        )
    draw = torch.Generator().manual_seed(seed)
    starts = limit_sets.cycle_starts(1000, 2 * seed)
    first, last = window
    targets = torch.stack([limit_sets.flow("cycle", starts, n * dt) for n in range(first, last + 1)], 1).float()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rows, x = torch.arange(len(starts)), starts.float()
    for _ in range(steps):
        n = torch.randint(last - first + 1, (len(starts),), generator=draw)
        optimizer.zero_grad()
        ((model(x, (n + first).float()) - targets[rows, n]) ** 2).sum(1).mean().backward()
        optimizer.step()
        schedule.step()
    return model


def measure(seed: int, far: int = 1000) -> dict[str, float]:
    """Every figure of this module for one seed of starts and weights.

    Parameters
    ----------
    far : int
        Steps after which phases are compared.
    """
    starts = limit_sets.cycle_starts(500, 2 * seed + 1)
    metrics = {"cycle_far_turns": far * DT * OMEGA / (2 * math.pi)}
    for method in METHODS:
        found = iterate(starts, method)
        metrics[f"cycle_{method}_converged"] = float(found.converged.double().mean())
        metrics[f"cycle_{method}_radius"] = float(found.z.norm(dim=1).median())
        metrics[f"cycle_{method}_residual"] = float(found.residual.median())
    known = operator(seed=2 * seed)
    mean = averages(LowRankLimit.from_operator(known, 1), starts)
    metrics["cycle_average_error"] = float((mean - torch.tensor([0.0, 0.0, 1.0])).abs().max())
    turning = LowRankLimit.from_operator(known, 3, 1)
    model = learn_rotation(seed)
    for name, limit in (("", turning), ("learnt_", model.limit)):
        # A turn to the left or to the right: which one depends on the order of the coordinates.
        metrics[f"cycle_{name}omega_error"] = abs(abs(float(limit.angles.detach()[0])) / DT - OMEGA)
    for steps in (10, far):
        errors = phase_errors(phase_after(turning, starts, steps), starts, steps * DT)
        metrics[f"cycle_phase_error_{steps}"] = float(errors.mean())
        with torch.no_grad():
            x, y = model(starts.float(), float(steps)).double().unbind(1)
        errors = phase_errors(torch.atan2(y, x), starts, steps * DT)
        metrics[f"cycle_learnt_phase_error_{steps}"] = float(errors.mean())
    return metrics

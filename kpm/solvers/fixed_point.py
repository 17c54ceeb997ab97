"""Fixed points ``z = f(z)`` of a batch of maps: plain iteration, Anderson's and Broyden's methods.

Every sample of the batch is a problem of its own, with its own residual, its own number of steps and its own verdict.
Nothing is thrown away in silence: a sample that did not converge says so in the `FixedPoint` that comes back.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kpm.solvers import checks
from kpm.solvers.broyden import broyden

Map = Callable[[Tensor], Tensor]
METHODS = ("plain", "anderson", "broyden")
STOPS = ("relative", "absolute")


class NotConverged(ArithmeticError):
    """A fixed point was not found; the message names samples, steps and residuals."""


@dataclasses.dataclass(frozen=True)
class FixedPoint:
    """What a solver found for each of `b` samples.

    Attributes
    ----------
    z : Tensor
        ``(b, dim)``, the iterate of the smallest residual.
    residual : Tensor
        ``(b,)``, ``|f(z) - z|``, divided by ``|f(z)|`` if the solver's rule to stop is the relative one.
    steps : Tensor
        int64 ``(b,)``, evaluations of the map until a sample converged, or all of them if it did not.
    converged : Tensor
        bool ``(b,)``.
    trace : Tensor
        ``(evaluations, b)``, the residual at each evaluation.
    tol : float
        What the residual had to be below.
    """

    z: Tensor
    residual: Tensor
    steps: Tensor
    converged: Tensor
    trace: Tensor
    tol: float

    @property
    def failure(self) -> str:
        """What went wrong, in a line; empty if nothing did."""
        bad = (~self.converged).nonzero()[:, 0]
        if not len(bad):
            return ""
        worst = int(bad[self.residual[bad].argmax()])
        return (
            f"no fixed point for {len(bad)} of {len(self.converged)} samples after {int(self.steps[bad].max())} "
            f"evaluations (worst: sample {worst}, residual {float(self.residual[worst]):.2g}, "
            f"tolerance {self.tol:.2g})"
        )

    def check(self) -> FixedPoint:
        """Itself, or `NotConverged`."""
        if self.failure:
            raise NotConverged(self.failure)
        return self


@torch.no_grad()
def solve(
    f: Map,
    start: Tensor,
    method: str = "anderson",
    tol: float = 1e-6,
    most: int = 100,
    memory: int = 6,
    stop: str = "relative",
) -> FixedPoint:
    """Find ``z = f(z)`` for each sample of a batch.

    Parameters
    ----------
    f : callable
        ``(b, dim) -> (b, dim)``, each sample by itself.
    start : Tensor
        ``(b, dim)``, floating point.
    method : {"plain", "anderson", "broyden"}
        ``z <- f(z)``; Anderson's mixing of the last `memory` evaluations (Walker, Ni, SIAM J. Numer. Anal. 2011); or
        Broyden's "good" method on ``f(z) - z`` with a memory of `memory` rank-one updates, then begun anew.
    tol : float
        A sample has converged once its residual is below.
    most : int
        Evaluations of `f` at most.
    stop : {"relative", "absolute"}
        Whether the residual is divided by ``|f(z)|``. A fixed point at zero has no relative residual.

    Returns
    -------
    FixedPoint
        Without gradients; see `kpm.solvers.implicit` for those. Samples that did not converge are marked.

    Raises
    ------
    ValueError
        For a wrong shape, type or option, or a map that changes the shape.
    """
    if not isinstance(start, Tensor) or start.ndim != 2 or 0 in start.shape or not start.is_floating_point():
        have = f"{start.dtype} {tuple(start.shape)}" if isinstance(start, Tensor) else type(start).__name__
        raise ValueError(f"start: expected floats (b, dim), got {have}")
    for name, value, options in (("method", method, METHODS), ("stop", stop, STOPS)):
        if value not in options:
            raise ValueError(f"{name}: expected one of {', '.join(options)}, got {value!r}")
    if not tol > 0:
        raise ValueError(f"tol: expected a positive number, got {tol!r}")
    most = checks.count(most, "most", 1, 10**6)
    memory = checks.count(memory, "memory", 1, 10**3)
    checks.finite(start, "start")
    iterates = {"plain": _plain, "anderson": _anderson, "broyden": broyden}[method](f, start, memory)
    best, smallest = start, torch.full_like(start[:, 0], torch.inf)
    steps = torch.zeros(len(start), dtype=torch.int64, device=start.device)
    trace = []
    for z, value in iterates:
        if value.shape != start.shape:
            raise ValueError(f"f: expected to keep the shape {tuple(start.shape)}, got {tuple(value.shape)}")
        residual = (value - z).norm(dim=1)
        if stop == "relative":
            residual = residual / value.norm(dim=1).clamp_min(torch.finfo(z.dtype).tiny)
        residual = residual.nan_to_num(torch.inf, torch.inf)
        steps += smallest >= tol
        better = residual < smallest
        best, smallest = torch.where(better[:, None], z, best), torch.minimum(residual, smallest)
        trace.append(residual)
        if len(trace) == most or bool((smallest < tol).all()):
            break
    return FixedPoint(best, smallest, steps, smallest < tol, torch.stack(trace), tol)


def _plain(f: Map, z: Tensor, memory: int) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        value = f(z)
        yield z, value
        z = value


def _anderson(f: Map, z: Tensor, memory: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Mix the last values so that the same mixture of their residuals is as small as it can be.

    The products of residuals are kept: a new one costs `memory` products, not their square.
    """
    values = z.new_zeros(len(z), memory, z.shape[1])
    residuals = torch.zeros_like(values, dtype=torch.float64)
    gram = residuals.new_zeros(len(z), memory, memory)
    eye = torch.eye(memory, dtype=gram.dtype, device=gram.device)
    for count in itertools.count():
        value = f(z)
        yield z, value
        finite = torch.isfinite(value.sum(1, keepdim=True))
        slot, n = count % memory, min(count + 1, memory)  # the newest takes the place of the oldest
        values[:, slot] = torch.where(finite, value, 0)  # a sample that blew up begins anew
        residuals[:, slot] = torch.where(finite, value - z, 0)
        gram[:, slot] = (residuals * residuals[:, slot, None]).sum(2)
        gram[:, :, slot] = gram[:, slot]
        # Small and badly conditioned: float64, and a ridge in proportion, so that it is never singular.
        known = gram[:, :n, :n]
        scale = known.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-300)
        weights = torch.linalg.solve(known / scale[:, None, None] + 1e-12 * eye[:n, :n], torch.ones_like(known[:, 0]))
        weights = weights / weights.sum(1, keepdim=True)
        weights = torch.where(torch.isfinite(weights).all(1, keepdim=True), weights, eye[slot, :n])
        z = (weights[:, :, None].to(z.dtype) * values[:, :n]).sum(1)  # a batch of such small products is slower with @

"""Monotone equilibrium models: a layer built so that it has exactly one fixed point, and a solver that finds it.

``z = relu(z W + s(x))`` with ``W = (1 - m) 1 - A' A + B - B'`` for any A and B, so that the symmetric part of ``1 - W``
is at least m (Winston, Kolter, NeurIPS 2020, prop. 1): a strongly monotone inclusion, which Peaceman-Rachford splitting
solves from any start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from kpm.models import bases
from kpm.models.deq import FAILURES, tell
from kpm.solvers import once
from kpm.solvers.fixed_point import FixedPoint, solve
from kpm.solvers.implicit import BackwardReport

METHODS = ("plain", "anderson")


@dataclasses.dataclass(frozen=True)
class MonDEQConfig:
    """Sizes and solver; the defaults have 80902 parameters on MNIST.

    Attributes
    ----------
    stem, shape, width, size, outputs
        As of `kpm.models.deq.DEQConfig`. The published network for MNIST without convolutions has size 87.
    margin : float
        m, positive.
    method : {"plain", "anderson"}
        How the splitting is iterated: as it is, or with Anderson's mixing.
    tol : float
        Of the relative change in a step of the splitting.
    most : int
        Steps at most.
    on_failure : {"warn", "raise"}
    """

    stem: str = "linear"
    shape: tuple[int, ...] = (1, 28, 28)
    width: int = 0
    size: int = 84
    outputs: int = 10
    margin: float = 1.0
    method: Literal["plain", "anderson"] = "plain"
    tol: float = 1e-3
    most: int = 300
    on_failure: Literal["warn", "raise"] = "warn"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))  # of a checkpoint it is a list
        if not self.margin > 0:
            raise ValueError(f"margin: expected a positive number, got {self.margin!r}")
        for name, options in (("method", METHODS), ("on_failure", FAILURES)):
            if getattr(self, name) not in options:
                raise ValueError(f"{name}: expected one of {', '.join(options)}, got {getattr(self, name)!r}")


@torch.no_grad()
def split(
    weight: Tensor,
    drive: Tensor,
    proximal: Callable[[Tensor], Tensor],
    margin: float,
    method: str = "plain",
    tol: float = 1e-6,
    most: int = 300,
) -> FixedPoint:
    """Peaceman-Rachford splitting of ``z = proximal(z W + drive)``.

    Parameters
    ----------
    weight : Tensor
        W, ``(size, size)``; the symmetric part of ``1 - W`` is at least `margin`.
    drive : Tensor
        ``(b, size)``.
    proximal : callable
        Projection onto a convex set, or another proximal map that does not depend on its step: ReLU is one.
    method, tol, most
        See `kpm.solvers.fixed_point.solve`.

    Returns
    -------
    FixedPoint
        Its z is the variable u of the splitting; the solution is ``proximal(u)``.
    """
    eye = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    monotone = eye - weight
    # The best step for a linear part between m and its norm; any positive one converges.
    alpha = (margin * torch.linalg.matrix_norm(monotone, 2)) ** -0.5
    resolvent = torch.linalg.inv(eye + alpha * monotone)

    def step(u: Tensor) -> Tensor:
        mirrored = 2 * proximal(u) - u  # reflect at the proximal map, then at the linear part
        return 2 * (mirrored + alpha * drive) @ resolvent - mirrored

    return solve(step, torch.zeros_like(drive), method, tol, most)


class MonDEQ(nn.Module):
    """A stem, a monotone layer at its fixed point, a linear read-out.

    Attributes
    ----------
    report : FixedPoint or None
        What the splitting found for the last batch: its z is the variable of the splitting, before the ReLU.
    backward_report : BackwardReport or None
        The same of the last backward pass.
    lost, lost_backward : int
        As of `kpm.models.deq.DEQ`.
    """

    def __init__(self, config: MonDEQConfig | None = None):
        super().__init__()
        self.config = c = config or MonDEQConfig()
        self.stem = bases.make(c.stem, c.shape, c.width, c.size)
        self.symmetric = nn.Parameter(torch.randn(c.size, c.size) / c.size)
        self.skew = nn.Parameter(torch.randn(c.size, c.size) / c.size)
        self.readout = nn.Linear(c.size, c.outputs)
        self.report: FixedPoint | None = None
        self.backward_report: BackwardReport | None = None
        self.lost = self.lost_backward = 0

    def weight(self) -> Tensor:
        """W, ``(size, size)``."""
        a, b = self.symmetric, self.skew
        eye = torch.eye(self.config.size, dtype=a.dtype, device=a.device)
        return (1 - self.config.margin) * eye - a.T @ a + b - b.T

    def layer(self, z: Tensor, drive: Tensor) -> Tensor:
        """One application, ``(b, size)``."""
        return torch.relu(z @ self.weight() + drive)

    @torch.no_grad()
    def settle(self, drive: Tensor) -> Tensor:
        """The fixed point ``(b, size)``, without gradient; fills `report`."""
        c = self.config
        self.report = split(self.weight(), drive, torch.relu, c.margin, c.method, c.tol, c.most)
        self.lost = tell(self.report, c.on_failure, self.lost)
        return torch.relu(self.report.z)

    def equilibrium(self, drive: Tensor) -> Tensor:
        """The fixed point ``(b, size)`` with its gradient, differentiable once."""
        c, start = self.config, self.settle(drive)
        weight = self.weight()
        before = start @ weight + drive
        z = torch.relu(before)
        if z.requires_grad:
            on, fixed = (before > 0).to(z.dtype), weight.detach()
            report = self.backward_report = BackwardReport()

            def backward(grad: Tensor) -> Tensor:
                """``u = (u D) W' + g`` with D the units that are on: for ``u D`` a monotone problem as the forward one,
                with a projection onto the units that are on in the place of the ReLU."""
                report.found = split(fixed.T, grad, lambda v: v * on, c.margin, c.method, 0.1 * c.tol, c.most)
                self.lost_backward = tell(report.found, c.on_failure, self.lost_backward, "backward pass: ")
                return (report.found.z * on) @ fixed.T + grad

            z = once.replace(z, "the equilibrium of MonDEQ", backward)
        return z

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``(b, outputs)`` of inputs ``(b, *shape)``; `ValueError` for inputs of another shape."""
        x = bases.checked(x, self.config.shape, self.config.stem)
        return self.readout(self.equilibrium(self.stem(x)))

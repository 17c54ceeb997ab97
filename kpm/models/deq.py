"""Equilibrium models: one layer applied until nothing changes, or a fixed number of times.

``z = tanh(z W + s(x))`` with a network s of the input; the answer is read from z. A deep equilibrium model (Bai,
Kolter, Koltun, NeurIPS 2019) looks for the z where that holds and takes its gradient there; a weight-tied network
applies the layer so many times and takes the gradient through all of them. Both have the same weights.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Literal

import torch
from torch import Tensor, nn

from kpm.models import bases
from kpm.solvers.fixed_point import METHODS, FixedPoint, NotConverged, solve
from kpm.solvers.implicit import BackwardReport, implicit

GRADIENTS = ("implicit", "unrolled")
FAILURES = ("warn", "raise")
log = logging.getLogger("kpm")


@dataclasses.dataclass(frozen=True)
class DEQConfig:
    """Sizes and solver; the defaults have 81614 parameters on MNIST.

    Attributes
    ----------
    stem : str
        Network of the input, see `kpm.models.bases.make`.
    shape : tuple of int
        Of one input.
    width : int
        Channels or hidden units of the stem, where it has any.
    size : int
        Of z.
    outputs : int
    gradient : {"implicit", "unrolled"}
        Of the fixed point, or through `most` applications of the layer, from zero, without asking whether it settles.
    method, tol, most, memory
        Of the solver, see `kpm.solvers.fixed_point.solve`; the residual is the relative one.
    on_failure : {"warn", "raise"}
        What is done about samples without a fixed point, of the state or of its gradient; which they are is in
        `DEQ.report` and `DEQ.backward_report` in any case.
    """

    stem: str = "linear"
    shape: tuple[int, ...] = (1, 28, 28)
    width: int = 0
    size: int = 92
    outputs: int = 10
    gradient: Literal["implicit", "unrolled"] = "implicit"
    method: Literal["plain", "anderson", "broyden"] = "anderson"
    tol: float = 1e-3
    most: int = 40
    memory: int = 5
    on_failure: Literal["warn", "raise"] = "warn"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))  # of a checkpoint it is a list
        choices = (("gradient", GRADIENTS), ("method", METHODS), ("on_failure", FAILURES))
        for name, options in choices:
            if getattr(self, name) not in options:
                raise ValueError(f"{name}: expected one of {', '.join(options)}, got {getattr(self, name)!r}")


class DEQ(nn.Module):
    """A stem, one layer at its fixed point (or applied many times), a linear read-out.

    Attributes
    ----------
    report : FixedPoint or None
        What the solver found for the last batch; without one where the layer is unrolled.
    backward_report : BackwardReport or None
        The same of the last backward pass.
    lost : int
        Samples of all batches so far for which there was no fixed point; the first is told by a warning.
    lost_backward : int
        The same of the backward passes: samples whose gradient is not that of a fixed point.
    """

    def __init__(self, config: DEQConfig | None = None):
        super().__init__()
        self.config = c = config or DEQConfig()
        self.stem = bases.make(c.stem, c.shape, c.width, c.size)
        self.recurrent = nn.Linear(c.size, c.size, bias=False)
        nn.init.orthogonal_(self.recurrent.weight, 0.5)  # a contraction at first, so that there is one fixed point
        self.readout = nn.Linear(c.size, c.outputs)
        self.report: FixedPoint | None = None
        self.backward_report: BackwardReport | None = None
        self.lost = self.lost_backward = 0

    def layer(self, z: Tensor, drive: Tensor) -> Tensor:
        """One application, ``(b, size)``; `drive` is the stem's output."""
        return torch.tanh(self.recurrent(z) + drive)

    def equilibrium(self, drive: Tensor) -> Tensor:
        """The state ``(b, size)`` that is read out, with its gradient: differentiable once if that is implicit."""
        c = self.config
        z = torch.zeros_like(drive)
        if c.gradient == "unrolled":
            for _ in range(c.most):
                z = self.layer(z, drive)
            return z
        self.report = solve(lambda z: self.layer(z, drive), z, c.method, c.tol, c.most, c.memory)
        self.lost = tell(self.report, c.on_failure, self.lost)
        # The gradient is asked for ten times more exactly than the state: its errors add up over a training.
        z, self.backward_report = implicit(
            lambda z: self.layer(z, drive), self.report.z, c.method, 0.1 * c.tol, 2 * c.most, c.memory, self._backward
        )
        return z

    def _backward(self, found: FixedPoint) -> None:
        self.lost_backward = tell(found, self.config.on_failure, self.lost_backward, "backward pass: ")

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``(b, outputs)`` of inputs ``(b, *shape)``; `ValueError` for inputs of another shape."""
        x = bases.checked(x, self.config.shape, self.config.stem)
        return self.readout(self.equilibrium(self.stem(x)))


def tell(report: FixedPoint, on_failure: str, before: int = 0, where: str = "") -> int:
    """Log, or raise `kpm.solvers.fixed_point.NotConverged`, if there are samples without a fixed point `where`.

    The first time is a warning; where there were some `before`, a training would fill the screen, and it is only noted
    at level INFO. Returns how many there are by now.
    """
    if report.failure and on_failure == "raise":
        raise NotConverged(where + report.failure)
    if report.failure:
        log.log(logging.INFO if before else logging.WARNING, "%s", where + report.failure)
    return before + int((~report.converged).sum())

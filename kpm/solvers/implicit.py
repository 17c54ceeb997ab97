"""The gradient of a fixed point, without the path that led to it.

At ``z = f(z, w)`` the implicit function theorem gives ``dz = (I - J)^-1 (df/dw) dw`` with ``J = df/dz``. Backwards: a
gradient g of z becomes ``u = J' u + g``, a fixed point again, and u is sent on through one evaluation of f. Nothing
has to be kept of the iterations that found z (Bai, Kolter, Koltun, NeurIPS 2019).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from kpm.solvers import once
from kpm.solvers.fixed_point import FixedPoint, Map, solve


@dataclasses.dataclass
class BackwardReport:
    """What the solver of the backward pass found; `found` is `None` until there was one."""

    found: FixedPoint | None = None

    @property
    def failure(self) -> str:
        return "" if self.found is None else self.found.failure


def implicit(
    f: Map,
    z: Tensor,
    method: str = "anderson",
    tol: float = 1e-6,
    most: int = 100,
    memory: int = 6,
    told: Callable[[FixedPoint], None] | None = None,
) -> tuple[Tensor, BackwardReport]:
    """The fixed point again, now with its gradient to whatever `f` depends on.

    Parameters
    ----------
    f : callable
        ``(b, dim) -> (b, dim)``; tensors that need gradients are those it closes over.
    z : Tensor
        ``(b, dim)``, where ``z = f(z)`` up to a tolerance, from `kpm.solvers.fixed_point.solve`. Where it is not, the
        gradient is that of no fixed point: ask its `FixedPoint` first.
    method, tol, most, memory
        Of the solver of the backward pass, whose residual is relative.
    told : callable, optional
        Is given what that solver found, during the backward pass; what it raises stops that pass.

    Returns
    -------
    Tensor
        ``f(z)``, differentiable once: a second derivative raises `NotImplementedError`.
    BackwardReport
        Filled when the backward pass runs; ask it whether that converged.
    """
    report = BackwardReport()
    value = f(z.detach())
    if not value.requires_grad:
        return value, report
    at = z.detach().requires_grad_()
    with torch.enable_grad():
        again = f(at)

    def backward(grad: Tensor) -> Tensor:
        def step(u: Tensor) -> Tensor:
            with torch.enable_grad():
                return torch.autograd.grad(again, at, u, retain_graph=True)[0] + grad

        report.found = solve(step, grad, method, tol, most, memory)
        if told is not None:
            told(report.found)
        return report.found.z

    return once.replace(value, "an implicit fixed point", backward), report

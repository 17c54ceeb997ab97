"""Regularised inverses as filters on singular values, with gradients that do not mind repeated singular values.

Every least-squares operator here is ``V f(S) U^T`` for data ``U S V^T``: minimum norm (``f = 1/s`` above a cut-off),
truncated (``1/s`` for the first few) and ridge (``s / (s^2 + ridge)``). A derivative through the singular *vectors* has
``1 / (s_i - s_j)`` for every pair. The derivative of the filtered inverse has only divided differences of ``f``, which
are smooth between kept values; what must be apart is the smallest kept value and the largest dropped one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kpm.solvers import checks, once


class Svd(NamedTuple):
    """Thin singular value decomposition ``x = u @ diag(s) @ vh``, without a graph."""

    u: Tensor
    s: Tensor
    vh: Tensor


def svd(x: Tensor) -> Svd:
    """Thin SVD of ``(*batch, m, n)``. A batch of matrices goes to the CPU, where small ones are faster, and back."""
    x = x.detach()
    work = x.cpu() if x.ndim > 2 else x
    return Svd(*(part.to(x.device) for part in torch.linalg.svd(work, full_matrices=False)))


def above(parts: Svd, tolerance: float | None = None) -> Tensor:
    """Which singular values count as non-zero: those above `tolerance` times the largest.

    The default is float64's own rounding, ``eps * max(m, n)``, whatever the precision the data came in.
    """
    if tolerance is None:
        tolerance = torch.finfo(torch.float64).eps * max(parts.u.shape[-2], parts.vh.shape[-1])
    largest = parts.s[..., :1]
    return (parts.s > tolerance * largest) & (largest > 0)


def leading(parts: Svd, rank: int, tolerance: float | None = None, name: str = "z") -> Tensor:
    """The first `rank` singular values. Raises `ValueError` where the data has fewer than that."""
    found = above(parts, tolerance).sum(-1)
    if (found < rank).any():
        index = checks.where(found < rank)
        raise ValueError(f"rank: {rank} asked for, but {name}{index} has rank {int(found[found < rank][0])}")
    return (torch.arange(parts.s.shape[-1], device=parts.s.device) < rank).expand(parts.s.shape)


def inverse(x: Tensor, parts: Svd, keep: Tensor, ridge: float = 0.0) -> Tensor:
    """Filtered inverse of `x`: ``s / (s^2 + ridge)`` on the kept singular values, zero on the others.

    Parameters
    ----------
    x : Tensor
        float64 ``(*batch, m, n)``.
    parts : Svd
        Its decomposition.
    keep : Tensor
        bool ``(*batch, min(m, n))``.

    Returns
    -------
    Tensor
        ``(*batch, n, m)``; its gradient with respect to `x` is exact for a fixed number of kept values. Differentiable
        once: a second derivative raises `NotImplementedError`.

    Raises
    ------
    ValueError
        If the square of a kept singular value, plus the ridge, is out of float64's range.
    """
    _check_range(parts.s, keep, ridge)
    return _Filtered.apply(x, *parts, keep, ridge)


def _check_range(s: Tensor, keep: Tensor, ridge: float) -> None:
    """Squares of singular values are divided by: far from 1 they vanish or overflow, and the inverse with them."""
    size = torch.where(keep, s * s + ridge, 1)
    bad = (size < 1e-300) | (size > 1e300)
    if bad.any():
        raise ValueError(
            f"singular value{checks.where(bad)} of the data is {float(s[bad][0]):.1e}: its square is out of float64's "
            "range; scale the data"
        )


class _Filtered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, u: Tensor, s: Tensor, vh: Tensor, keep: Tensor, ridge: float) -> Tensor:
        ctx.save_for_backward(x, u, s, vh, keep)
        ctx.ridge = ridge
        slope = _slope(s, keep, ridge)
        return (vh.mT * (s * slope).unsqueeze(-2)) @ u.mT

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, u, s, vh, keep = ctx.saved_tensors
        slope = _slope(s, keep, ctx.ridge)
        f = s * slope
        # Divided differences (f_i -+ f_j) / (s_i -+ s_j): in closed form between kept values, as they stand otherwise.
        product = _outer(f, f)
        smooth = ctx.ridge * _outer(slope, slope) if ctx.ridge else 0.0  # the product of slopes may be out of range
        mixed = keep.unsqueeze(-1) != keep.unsqueeze(-2)
        column, row, f_column, f_row = s.unsqueeze(-1), s.unsqueeze(-2), f.unsqueeze(-1), f.unsqueeze(-2)
        even = torch.where(mixed, (f_column - f_row) / torch.where(mixed, column - row, 1), smooth - product)
        odd = torch.where(mixed, (f_column + f_row) / torch.where(mixed, column + row, 1), smooth + product)
        g = gradient.mT
        right = g @ vh.mT
        left = u.mT @ g
        core = u.mT @ right
        inside = (even * (core + core.mT) + odd * (core - core.mT)) / 2
        # Directions outside the thin factors meet singular values zero, where the divided difference is f_i / s_i.
        below = (right - u @ core) * slope.unsqueeze(-2)
        beside = slope.unsqueeze(-1) * (left - core @ vh)
        result = (u @ inside + below) @ vh + u @ beside
        return once.tie(result, "an operator from a filtered inverse (least squares, total, ...)", x), *[None] * 5


def _slope(s: Tensor, keep: Tensor, ridge: float) -> Tensor:
    """``f(s) / s``."""
    return torch.where(keep, 1 / torch.where(keep, s * s + ridge, 1), 0)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a.unsqueeze(-1) * b.unsqueeze(-2)

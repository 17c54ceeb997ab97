"""Koopman operators of sequences: the matrix ``K`` with ``z[t+1] ~ z[t] @ K``, shared by a batch or one per sequence.

A pair ``(z[t], z[t+1])`` is formed within a sequence only, and only if neither end is masked out. Everything is done in
float64; how well the data determines the operator is part of the result. Differentiable once: a second derivative
raises `NotImplementedError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from kpm.solvers import checks, filters
from kpm.solvers.square_root import square_root

Method = Literal["least_squares", "total", "forward_backward"]


@dataclass(frozen=True)
class Operator:
    """One operator, or one per sequence.

    Attributes
    ----------
    matrix : Tensor
        float64 ``(*batch, dim, dim)``, no batch axis for a shared operator: ``z[t+1] ~ z[t] @ matrix``.
    rank : Tensor
        int64 ``(*batch,)``: how many singular values of the past frames were used.
    condition : Tensor
        ``(*batch,)``: largest over smallest of these; infinite if there is none. An error in the frames can grow by
        this factor (its square for the residual's part) on its way into the matrix.
    residual : Tensor
        ``(*batch,)``: one-step error ``|future - past @ matrix| / |future|``, Frobenius norms over all pairs.
    """

    matrix: Tensor
    rank: Tensor
    condition: Tensor
    residual: Tensor

    @property
    def dim(self) -> int:
        return self.matrix.shape[-1]


def shared(
    z: Tensor,
    mask: Tensor | None = None,
    *,
    method: Method = "least_squares",
    ridge: float = 0.0,
    rank: int | None = None,
    tolerance: float | None = None,
) -> Operator:
    """One operator for all sequences.

    Parameters
    ----------
    z : Tensor
        ``(*batch, time, dim)``.
    mask : Tensor or array, optional
        bool ``(*batch, time)``, true where there is a frame.
    method, ridge, rank, tolerance
        See `from_pairs`.

    Raises
    ------
    ValueError
        For input `checks.sequences` or `from_pairs` refuses, or if no pair is left by the mask.
    """
    z, mask = checks.sequences(z, mask)
    pairs = mask[..., :-1] & mask[..., 1:]
    if not pairs.any():
        raise ValueError(f"mask: no two frames in a row are left (shape {tuple(mask.shape)})")
    past, future = z[..., :-1, :][pairs], z[..., 1:, :][pairs]
    return from_pairs(past, future, method=method, ridge=ridge, rank=rank, tolerance=tolerance)


def per_sequence(
    z: Tensor,
    mask: Tensor | None = None,
    *,
    method: Method = "least_squares",
    ridge: float = 0.0,
    rank: int | None = None,
    tolerance: float | None = None,
) -> Operator:
    """One operator for each sequence; of minimum norm where a sequence has fewer pairs than dimensions.

    Parameters
    ----------
    z : Tensor
        ``(*batch, time, dim)``.
    mask : Tensor or array, optional
        bool ``(*batch, time)``, true where there is a frame.
    method, ridge, rank, tolerance
        See `from_pairs`.

    Raises
    ------
    ValueError
        For input `checks.sequences` or `from_pairs` refuses, or if the mask leaves no pair of some sequence.
    """
    z, mask = checks.sequences(z, mask)
    pairs = mask[..., :-1] & mask[..., 1:]
    empty = ~pairs.any(-1)
    if empty.any():
        raise ValueError(f"mask{checks.where(empty)}: no two frames in a row are left (shape {tuple(mask.shape)})")
    # A pair of zeros adds nothing to any of the sums that are minimised.
    valid = pairs.unsqueeze(-1)
    past, future = torch.where(valid, z[..., :-1, :], 0), torch.where(valid, z[..., 1:, :], 0)
    return from_pairs(past, future, method=method, ridge=ridge, rank=rank, tolerance=tolerance)


def from_pairs(
    past: Tensor,
    future: Tensor,
    *,
    method: Method = "least_squares",
    ridge: float = 0.0,
    rank: int | None = None,
    tolerance: float | None = None,
) -> Operator:
    """The operator of given pairs of frames.

    Parameters
    ----------
    past, future : Tensor
        ``(*batch, pairs, dim)``; row i of `future` follows row i of `past`.
    method : {"least_squares", "total", "forward_backward"}
        Least squares takes `past` as exact and is biased inwards by noise on it; total least squares allows for equal
        noise on both; forward-backward is the geometric mean of the operator and of the inverse of the operator of the
        reversed sequences (Dawson et al. 2016). That cancels the bias where past and future have the same energy:
        eigenvalues on the unit circle, and no noise that drives the motion. Of a mode that decays the modulus comes
        out too large, by ``(1 / |lambda|^2 - 1) / 2`` times what least squares makes it too small; take "total" there.
    ridge : float
        Adds ``ridge * |K|^2`` to the sum of squares; 0 for none. For least squares only.
    rank : int, optional
        Use only this many leading directions of the data: of `past` (least squares), of `past` and `future` side by
        side (total), of all frames (forward-backward).
    tolerance : float, optional
        Singular values up to `tolerance` times the largest count as zero. Default ``eps * max(pairs, dim)`` of float64.

    Raises
    ------
    ValueError
        If `rank` is more than the data has, if `ridge` or `tolerance` is negative, if total least squares has no
        solution, if forward-backward finds no invertible operator or no real square root, or if singular values that
        are used are below 1e-150 or above 1e150: their squares are out of float64's range.

    Notes
    -----
    Gradients are exact as long as the number of singular values used does not change. They are large where a used
    singular value is near an unused one, and, for forward-backward, where the operator is near-defective.
    """
    past, future = _pairs(past, "past"), _pairs(future, "future")
    if past.shape != future.shape:
        raise ValueError(f"future: expected the shape of past, {tuple(past.shape)}, got {tuple(future.shape)}")
    if method not in get_args(Method):
        raise ValueError(f"method: expected one of {', '.join(get_args(Method))}, got {method!r}")
    ridge = checks.nonnegative(ridge, "ridge")
    if ridge and method != "least_squares":
        raise ValueError(f"ridge: goes with method 'least_squares', not {method!r}")
    if tolerance is not None:
        tolerance = checks.nonnegative(tolerance, "tolerance")
    if rank is not None:
        rank = checks.count(rank, "rank", 1, past.shape[-1])
    parts = filters.svd(past)
    used = filters.above(parts, tolerance) if rank is None else filters.leading(parts, rank, tolerance)
    if method == "least_squares":
        # A ridge lets every direction in, so that the objective is the one stated.
        keep = torch.ones_like(used) if ridge > 0 and rank is None and tolerance is None else used
        matrix = filters.inverse(past, parts, keep, ridge) @ future
    elif method == "total":
        matrix = _total(past, future, rank, tolerance)
    else:
        matrix = _forward_backward(past, future, rank, tolerance)
    return Operator(matrix, used.sum(-1), _condition(parts.s, used), _residual(past, future, matrix))


def _total(past: Tensor, future: Tensor, rank: int | None, tolerance: float | None) -> Tensor:
    """Total least squares: pairs ``[past future]`` are moved the least that puts them into `rank` dimensions.

    With the projector ``P`` onto that subspace in blocks, the operator is ``pinv(P11) P12``: a function of the
    subspace, not of the singular vectors that happen to span it.
    """
    dim = past.shape[-1]
    both = torch.cat([past, future], -1)
    parts = filters.svd(both)
    if rank is None:
        keep = filters.above(parts, tolerance) & (torch.arange(parts.s.shape[-1], device=both.device) < dim)
    else:
        keep = filters.leading(parts, rank, tolerance)
    projector = filters.inverse(both, parts, keep) @ both
    corner = projector[..., :dim, :dim]
    parts = filters.svd(corner)
    keep = torch.arange(dim, device=both.device) < keep.sum(-1, keepdim=True)
    vertical = (keep & (parts.s <= torch.finfo(torch.float64).eps * dim)).any(-1)
    if vertical.any():
        raise ValueError(
            f"past{checks.where(vertical)}: total least squares has no solution; the future varies in more directions "
            f"than the past (shape {tuple(past.shape)}); give a smaller rank"
        )
    return filters.inverse(corner, parts, keep) @ projector[..., :dim, dim:]


def _forward_backward(past: Tensor, future: Tensor, rank: int | None, tolerance: float | None) -> Tensor:
    """Geometric mean of the operator and the inverse of the one backwards, on the leading directions of all frames."""
    frames = torch.cat([past, future], -2)
    parts = filters.svd(frames)
    keep = filters.above(parts, tolerance) if rank is None else filters.leading(parts, rank, tolerance)
    projector = filters.inverse(frames, parts, keep) @ frames
    size = keep.sum(-1)
    forward = _within(past @ projector, size) @ future @ projector
    backward = _within(future @ projector, size) @ past @ projector
    return square_root(forward @ _within(backward, size), near=forward, rank=size)


def _within(x: Tensor, size: Tensor) -> Tensor:
    """Inverse of `x` on its `size` leading directions, which must be there."""
    parts = filters.svd(x)
    short = filters.above(parts).sum(-1) < size
    if short.any():
        raise ValueError(
            f"past{checks.where(short)}: forward-backward needs an operator that can be inverted on the frames it is "
            "given; give a smaller rank, or more frames than dimensions"
        )
    return filters.inverse(x, parts, torch.arange(parts.s.shape[-1], device=x.device) < size.unsqueeze(-1))


def _pairs(x: Tensor, name: str) -> Tensor:
    return checks.sequences(x, name=name, least=1)[0]


def _condition(s: Tensor, used: Tensor) -> Tensor:
    smallest = torch.where(used, s, torch.inf).amin(-1)
    return torch.where(used.any(-1), s[..., 0] / smallest, torch.inf)


def _residual(past: Tensor, future: Tensor, matrix: Tensor) -> Tensor:
    past, future, matrix = past.detach(), future.detach(), matrix.detach()
    size = torch.linalg.matrix_norm(future)
    return torch.linalg.matrix_norm(future - past @ matrix) / torch.where(size > 0, size, 1)

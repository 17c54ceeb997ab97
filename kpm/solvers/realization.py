"""Stochastic realization: states of a process from the correlation of its past with its future, in rows.

Past features ``P[t]`` and future features ``F[t]`` are centred and whitened; the singular value decomposition of what
is left of their covariance gives canonical correlations and directions. The state is the part of the past that matters
for the future (Akaike 1975; Katayama, Subspace Methods for System Identification, ch. 8; [DSE] sec. 4.1). With the raw
observations as features this is the classical linear method, `identification.identify`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kpm.solvers import checks, filters, once
from kpm.solvers.sketches import orient


@dataclass(frozen=True)
class HankelBlocks:
    """Windows around each time ``t = window .. time - window``, ``N = time - 2 window + 1`` of them.

    `past` ``(*batch, N, window, dim)`` holds ``y[t-1], y[t-2], ...``, most recent first, and `future` ``y[t], y[t+1],
    ...``. `mask` ``(*batch, N)`` is true where no masked frame is in either.
    """

    past: Tensor
    future: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Realization:
    """Canonical correlations of past and future features, and the map from past features to states.

    All float64, with the batch axes of the features if there is one realization per sequence, without if it is shared.

    Attributes
    ----------
    correlations : Tensor
        All ``min(p, f)`` canonical correlations, descending; differentiable once with respect to the features.
    past_mean, future_mean : Tensor
        ``(p,)`` and ``(f,)``.
    past_whitening, future_whitening : Tensor
        Symmetric inverse square roots of the loaded covariances, ``(p, p)`` and ``(f, f)``.
    past_directions, future_directions : Tensor
        ``(p, rank)`` and ``(f, rank)``. The largest entry of each past direction is positive.
    past_condition, future_condition : Tensor
        Condition numbers of the loaded covariances, before the floor.

    Notes
    -----
    Centring, whitening and directions stay those of the data they were found on, also for new data. They carry no
    gradient: that of singular vectors does not exist where two correlations meet. `transform` is differentiable with
    respect to the features it is given.
    """

    correlations: Tensor
    past_mean: Tensor
    future_mean: Tensor
    past_whitening: Tensor
    future_whitening: Tensor
    past_directions: Tensor
    future_directions: Tensor
    past_condition: Tensor
    future_condition: Tensor

    @property
    def rank(self) -> int:
        """Number of state coordinates."""
        return self.past_directions.shape[-1]

    @property
    def loss(self) -> Tensor:
        """Minus the sum of the leading `rank` correlations, ``(*batch,)``: smaller is better, differentiable once."""
        return -self.correlations[..., : self.rank].sum(-1)

    def transform(self, past: Tensor) -> Tensor:
        """States ``(*batch, time, rank)`` of past features ``(*batch, time, p)``.

        The coordinates of the features the realization was found on are uncorrelated (up to the loading), and the
        variance of each is its correlation.
        """
        return self._project(past, self.past_mean, self.past_directions, "past")

    def transform_future(self, future: Tensor) -> Tensor:
        """The same coordinates seen from the future, ``(*batch, time, rank)`` of ``(*batch, time, f)``."""
        return self._project(future, self.future_mean, self.future_directions, "future")

    def _project(self, x: Tensor, mean: Tensor, directions: Tensor, name: str) -> Tensor:
        if checks.tensor(x, name).ndim < 2 or x.shape[-1] != mean.shape[-1]:
            raise ValueError(f"{name}: expected (*batch, time, {mean.shape[-1]}), got shape {tuple(x.shape)}")
        root = self.correlations[..., : self.rank].detach().sqrt()
        return (x.double() - mean[..., None, :]) @ (directions * root[..., None, :])


def hankel_blocks(y: Tensor, window: int, mask: Tensor | None = None) -> HankelBlocks:
    """Past and future windows of every time that has both, never across the border of a sequence.

    Parameters
    ----------
    y : Tensor
        ``(*batch, time, dim)`` with ``time >= 2 window``; the windows are views where nothing is masked.
    mask : Tensor, optional
        bool ``(*batch, time)``, true where there is a frame.

    Raises
    ------
    ValueError
        For shapes that do not fit, a window out of range, or numbers that are not finite.
    """
    y, mask = checks.sequences(y, mask, name="y")
    window = checks.count(window, "window", 1, y.shape[-2] // 2)
    windows = y.unfold(-2, window, 1).mT
    whole = mask.unfold(-1, window, 1).all(-1)
    return HankelBlocks(
        past=windows[..., :-window, :, :].flip(-2),
        future=windows[..., window:, :, :],
        mask=whole[..., :-window] & whole[..., window:],
    )


def realize(
    past: Tensor,
    future: Tensor,
    rank: int,
    *,
    mask: Tensor | None = None,
    loading: float = 1e-3,
    floor: float = 1e-8,
    per_sequence: bool = False,
) -> Realization:
    """Canonical correlations and states of given past and future features.

    Parameters
    ----------
    past, future : Tensor
        ``(*batch, time, p)`` and ``(*batch, time, f)``.
    rank : int
        Number of state coordinates, at most ``min(p, f)``.
    mask : Tensor, optional
        bool ``(*batch, time)``, true where the features count.
    loading : float
        Added to the diagonal of both covariances, in their units.
    floor : float
        Eigenvalues of a covariance below this share of its largest are raised to it.
    per_sequence : bool
        One realization for each sequence instead of one for all.

    Raises
    ------
    ValueError
        For shapes that do not fit, numbers that are not finite, fewer than two times, constant features without
        loading, and fewer than `rank` correlations above zero; with the batch index.
    """
    past, mask = checks.sequences(past, mask, name="past")
    checks.same_frames(future, past, "future", "past")
    future, _ = checks.sequences(future, mask, name="future")
    rank = checks.count(rank, "rank", 1, min(past.shape[-1], future.shape[-1]))
    loading = checks.nonnegative(loading, "loading")
    floor = checks.nonnegative(floor, "floor")
    if not per_sequence:
        past, future, mask = past.flatten(0, -2), future.flatten(0, -2), mask.flatten()
    count = mask.sum(-1)
    if (count < 2).any():
        raise ValueError(f"mask{checks.where(count < 2)}: fewer than two times are left (shape {tuple(mask.shape)})")
    count = count[..., None, None]
    (past, past_mean), (future, future_mean) = _centre(past, mask, count), _centre(future, mask, count)
    past_white, past_condition = _whitening(past, count, loading, floor, "past")
    future_white, future_condition = _whitening(future, count, loading, floor, "future")
    core = past_white @ (past.mT @ future / count) @ future_white
    u, s, vh = filters.svd(core)
    short = s[..., rank - 1] <= 1e-12
    if short.any():
        raise ValueError(f"rank: {rank} asked for, but past{checks.where(short)} has fewer correlations above zero")
    # With its vectors held fixed, u' core v has the exact first derivative of the singular value.
    correlations = ((once.guard(core, "a realization").mT @ u).mT * vh).sum(-1)
    past_directions = past_white.detach() @ u[..., :rank]
    sign = orient(past_directions)[..., None, :]
    return Realization(
        correlations=correlations,
        past_mean=past_mean.detach().squeeze(-2),
        future_mean=future_mean.detach().squeeze(-2),
        past_whitening=past_white.detach(),
        future_whitening=future_white.detach(),
        past_directions=past_directions * sign,
        future_directions=future_white.detach() @ vh.mT[..., :rank] * sign,
        past_condition=past_condition,
        future_condition=future_condition,
    )


def _centre(x: Tensor, mask: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Features minus their mean, zero where masked, and the mean ``(*batch, 1, p)``."""
    mean = x.sum(-2, keepdim=True) / count
    return torch.where(mask[..., None], x - mean, 0), mean


def _whitening(x: Tensor, count: Tensor, loading: float, floor: float, name: str) -> tuple[Tensor, Tensor]:
    """Inverse square root of the loaded covariance of centred features, and its condition number."""
    covariance = x.mT @ x / count
    covariance = covariance + loading * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    values, vectors = _eigh(covariance.detach())
    constant = values[..., -1] <= 0
    if constant.any():
        raise ValueError(f"{name}{checks.where(constant)}: the features do not vary and there is no loading")
    condition = values[..., -1] / values[..., 0].clamp_min(0)
    return _InverseRoot.apply(covariance, values, vectors, floor), condition


class _InverseRoot(torch.autograd.Function):
    """Symmetric inverse square root from eigenpairs, the values raised to `floor` times the largest.

    Its gradient has divided differences of ``1 / sqrt`` only, so that repeated eigenvalues do no harm. The floor itself
    is taken as constant.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, values: Tensor, vectors: Tensor, floor: float) -> Tensor:
        raised = values.maximum(floor * values[..., -1:])
        if (raised <= 0).any():
            raise ValueError("floor: a singular covariance needs loading or a floor above zero")
        ctx.save_for_backward(matrix, values, raised, vectors)
        return (vectors * raised.rsqrt()[..., None, :]) @ vectors.mT

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        matrix, values, raised, vectors = ctx.saved_tensors
        root = raised.sqrt()
        column, row = root[..., :, None], root[..., None, :]
        slope = -1 / (column * row * (column + row))
        free = values >= raised
        apart = values[..., :, None] - values[..., None, :]
        mixed = (raised[..., :, None] - raised[..., None, :]) / torch.where(apart == 0, 1, apart)
        both, either = free[..., :, None] & free[..., None, :], free[..., :, None] | free[..., None, :]
        slope = slope * torch.where(both, 1, torch.where(either, mixed, 0))
        result = vectors @ (slope * (vectors.mT @ gradient @ vectors)) @ vectors.mT
        return once.tie(result, "a realization", matrix), None, None, None


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenpairs of symmetric matrices; a batch of small ones is faster on the CPU."""
    values, vectors = torch.linalg.eigh(matrix.cpu() if matrix.ndim > 2 else matrix)
    return values.to(matrix.device), vectors.to(matrix.device)

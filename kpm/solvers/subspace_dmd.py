"""Subspace DMD: an operator that noise on dynamics and frames leaves unbiased (Takeishi, Kawahara, Yairi 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from kpm.solvers import checks, filters
from kpm.solvers.operators import Operator, from_pairs


def subspace(z: Tensor, mask: Tensor | None = None, *, rank: int | None = None, tolerance: float = 1e-10) -> Operator:
    """One operator for all sequences, by subspace DMD.

    Each window of four frames ``(z0, z1, z2, z3)`` within a sequence has a past ``[z0 z1]`` and a future ``[z2 z3]``.
    The futures are replaced by their regression on the pasts, which takes away the noise that came in since; what is
    left are pairs ``(z2, z3)`` for total least squares.

    Parameters
    ----------
    z : Tensor
        ``(*batch, time, dim)``, at least 4 frames.
    mask : Tensor, optional
        bool ``(*batch, time)``, true where there is a frame.
    rank : int, optional
        Dimension of the subspace, at most `dim`; by default as many as there are, up to `dim`.
    tolerance : float
        Singular values up to `tolerance` times the largest count as zero.

    Returns
    -------
    Operator
        Shared. Rank, condition and residual are those of the regressed pairs. Differentiable once, as `from_pairs`.

    Raises
    ------
    ValueError
        For input `checks.sequences` or `from_pairs` refuses, or if the mask leaves no four frames in a row.
    """
    z, mask = checks.sequences(z, mask, least=4)
    tolerance = checks.nonnegative(tolerance, "tolerance")
    count = z.shape[-2] - 3
    frames = [z[..., i : i + count, :] for i in range(4)]
    valid = torch.stack([mask[..., i : i + count] for i in range(4)]).all(0)
    if not valid.any():
        raise ValueError(f"mask: no four frames in a row are left (shape {tuple(mask.shape)})")
    past = torch.cat(frames[:2], -1)[valid]
    future = torch.cat(frames[2:], -1)[valid]
    parts = filters.svd(past)
    expected = past @ (filters.inverse(past, parts, filters.above(parts, tolerance)) @ future)
    first, second = expected.tensor_split(2, -1)
    return from_pairs(first, second, method="total", rank=rank, tolerance=tolerance)

"""Ridge operators fitted on all blocks of a record but one, and applied to that one only ([DSE] eqs. 29, 32).

What is predicted for a block comes from an operator that has not seen it: read-outs and features that learn from such
predictions cannot learn to rely on an overfitted operator. Neighbouring rows of delay windows share frames, so rows
near a block are left out of its operator as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kpm.solvers import checks


@dataclass(frozen=True)
class Folds:
    """Contiguous blocks of rows, in the order of sequences and times.

    Attributes
    ----------
    sizes : list of int
        Rows of each block; longer ones first.
    keep : Tensor
        float64 ``(folds, rows)``: 1 where a row may enter the operator of the block, 0 in the block and near it.
    """

    sizes: list[int]
    keep: Tensor

    def __len__(self) -> int:
        return len(self.sizes)


def contiguous_folds(
    sequences: int, time: int, folds: int, purge: int = 0, device: torch.device | str = "cpu"
) -> Folds:
    """Blocks of nearly equal length of the ``sequences * time`` rows.

    Parameters
    ----------
    sequences, time : int
        Rows of different sequences have nothing in common.
    folds : int
        Number of blocks. With 1 there is no cross-fitting: the operator of the only block has seen it all.
    purge : int
        Rows before and after a block, in the same sequence, that its operator must not see.

    Raises
    ------
    ValueError
        For fewer rows than blocks, or if no row is left for the operator of some block.
    """
    folds = checks.count(folds, "folds", 1, sequences * time)
    purge = checks.count(purge, "purge", 0, 10**9)
    rows = torch.arange(sequences * time, device=device)
    if folds == 1:
        return Folds([len(rows)], torch.ones(1, len(rows), dtype=torch.float64, device=device))
    sizes = [len(part) for part in rows.tensor_split(folds)]
    stop = torch.tensor(sizes, device=device).cumsum(0)[:, None]
    start = stop - torch.tensor(sizes, device=device)[:, None]
    # A block may begin in one sequence and end in another; what it spoils ends with these.
    first, last = start // time * time, ((stop - 1) // time + 1) * time
    spoilt = (rows >= torch.maximum(start - purge, first)) & (rows < torch.minimum(stop + purge, last))
    if spoilt.all(-1).any():
        raise ValueError(
            f"folds: {folds} blocks of {sequences} x {time} rows, with {purge} more on both sides, leave no row for "
            f"block {checks.where(spoilt.all(-1))}"
        )
    return Folds(sizes, (~spoilt).double())


def ridge(x: Tensor, y: Tensor, penalty: float | Tensor, weights: Tensor | None = None) -> Tensor:
    """The operator that minimises ``|weights (x @ operator - y)|^2 + |sqrt(penalty) operator|^2``, sums not means.

    Parameters
    ----------
    x, y : Tensor
        float64 ``(rows, d)`` and ``(rows, p)``.
    penalty : float or Tensor
        One number, or one for each coordinate of `x`, ``(d,)``.
    weights : Tensor, optional
        0 or 1 ``(*batch, rows)``: an operator for each batch entry.

    Returns
    -------
    Tensor
        ``(*batch, d, p)``, differentiable.

    Raises
    ------
    ValueError
        Where the coordinates of `x` are linearly dependent and the penalty does not help.
    """
    weighted = x if weights is None else weights[..., None] * x
    gram, cross = (weighted.mT @ torch.cat([x, y], -1)).split([x.shape[-1], y.shape[-1]], -1)
    penalty = torch.as_tensor(penalty, dtype=x.dtype, device=x.device).expand(x.shape[-1])
    gram = gram + penalty.diag()
    factor, info = torch.linalg.cholesky_ex(gram)
    left, whole = factor.detach().diagonal(dim1=-2, dim2=-1).square(), gram.detach().diagonal(dim1=-2, dim2=-1)
    bad = (info > 0) | ~(left > 4 * x.shape[-1] * torch.finfo(x.dtype).eps * whole).all(-1)
    if bad.any():
        raise ValueError(f"x{checks.where(bad)}: coordinates are linearly dependent; give a larger ridge")
    return torch.cholesky_solve(cross, factor)


def instrumented(z: Tensor, x: Tensor, y: Tensor, penalty: float | Tensor, weights: Tensor | None = None) -> Tensor:
    """The operator whose residual `z` does not see: ``z' weights (y - x @ operator) = penalty operator``.

    Least squares takes noise in `x` for signal that is lost on the way to `y`, and gives an operator that is too
    small. Instruments `z` that go with `x` but not with its noise leave the noise out (two-stage regression: Hefny,
    Downey, Gordon 2015).

    Parameters
    ----------
    z, x, y : Tensor
        float64 ``(rows, d)``, ``(rows, d)`` and ``(rows, p)``.
    penalty, weights
        As for `ridge`.

    Returns
    -------
    Tensor
        ``(*batch, d, p)``, differentiable.

    Raises
    ------
    ValueError
        Where the instruments do not tell the coordinates of `x` apart and the penalty does not help.
    """
    weighted = z if weights is None else weights[..., None] * z
    gram, cross = (weighted.mT @ torch.cat([x, y], -1)).split([x.shape[-1], y.shape[-1]], -1)
    penalty = torch.as_tensor(penalty, dtype=x.dtype, device=x.device).expand(x.shape[-1])
    gram = gram + penalty.diag()
    factor, pivots, info = torch.linalg.lu_factor_ex(gram)
    left, whole = factor.detach().diagonal(dim1=-2, dim2=-1).abs(), gram.detach().abs().amax((-1, -2))
    bad = (info > 0) | ~(left > 4 * x.shape[-1] * torch.finfo(x.dtype).eps * whole[..., None]).all(-1)
    if bad.any():
        raise ValueError(f"z{checks.where(bad)}: instruments do not tell the coordinates apart; give a larger ridge")
    return torch.linalg.lu_solve(factor, pivots, cross)


def leave_one_out(x: Tensor, y: Tensor, penalty: float | Tensor, folds: Folds) -> Tensor:
    """The operator of each block, ``(folds, d, p)``, from rows that are neither in it nor near it."""
    return ridge(x, y, penalty, folds.keep)


def out_of_fold(x: Tensor, operators: Tensor, folds: Folds) -> Tensor:
    """Rows ``(rows, d)`` times the operator of the block each is in, ``(rows, p)``."""
    return torch.cat([part @ operator for part, operator in zip(x.split(folds.sizes), operators)])


def unexplained(residual: Tensor, target: Tensor, loading: float = 1e-4) -> Tensor:
    """Share of the variance of `target` ``(rows, p)`` that is left in `residual`, a mean over its whitened coordinates.

    No scaling or mixing of the coordinates changes it, so that features cannot lower it by getting small or alike.
    `loading`, in units of the mean variance, decides about directions in which the target hardly varies.
    """
    centred = target - target.mean(0)
    covariance = centred.mT @ centred / len(target)
    load = loading * covariance.diagonal().mean() + torch.finfo(covariance.dtype).tiny
    loaded = covariance + load * torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.solve(loaded, residual.mT @ residual / len(residual)).diagonal().mean()

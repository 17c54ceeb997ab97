"""The static eigenvector without an eigenvalue solver: shifted inverse iteration (thesis, sec. 8.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kpm.solvers import checks, once
from kpm.solvers.operators import Operator
from kpm.solvers.spectra import matrix_of


@dataclass(frozen=True)
class Eigenpair:
    """One real eigenvalue per operator with its eigenvectors; ``right @ left`` (an outer product) is its projector.

    Attributes
    ----------
    value : Tensor
        ``(*batch,)``.
    right, left : Tensor
        ``(*batch, dim)``: ``A right = value right``, ``left A = value left``; `right` has unit length, its largest
        entry is positive, and ``left . right = 1``.
    residual : Tensor
        ``(*batch,)``: the larger of ``|A right - value right|`` and ``|left A - value left| / |left|``, over ``|A|``.
    converged : Tensor
        bool ``(*batch,)``. Where false, the numbers are the last iterate and carry no gradient: a complex pair is
        nearer to the shift than any real eigenvalue, two real ones are equally near, or the eigenvalue is defective.
    """

    value: Tensor
    right: Tensor
    left: Tensor
    residual: Tensor
    converged: Tensor


def nearest_eigenpair(
    operator: Tensor | Operator, shift: float = 1.0, doublings: int = 20, tolerance: float = 1e-10
) -> Eigenpair:
    """Eigenvector of the real eigenvalue nearest to `shift`, and its gradient.

    The powers of ``(A - shift)^-1`` tend to the outer product of the wanted eigenvectors. Squaring ``k`` times takes
    ``2^k`` steps of the power iteration, so eigenvalues that are nearly as near are told apart in a few products.

    Parameters
    ----------
    operator : Tensor or Operator
        Real ``(*batch, dim, dim)``.
    shift : float
        1 for the static mode.
    doublings : int
        How often to square; fewer if all have converged.
    tolerance : float
        Largest residual of a converged pair.

    Returns
    -------
    Eigenpair
        Differentiable once: the last step is Newton's on ``A v = value v``, ``|v| = 1``, with its matrix held fixed, so
        the gradient is that of the implicit function. A second derivative raises `NotImplementedError`.
    """
    tolerance = checks.nonnegative(tolerance, "tolerance")
    doublings = checks.count(doublings, "doublings", 1, 60)
    matrix = matrix_of(operator)
    fixed = matrix.detach()
    dim = fixed.shape[-1]
    size = torch.linalg.matrix_norm(fixed, keepdim=True).clamp_min(torch.finfo(fixed.dtype).tiny)
    eye = torch.eye(dim, dtype=fixed.dtype, device=fixed.device)
    # A shift that is an eigenvalue to the last digit leaves nothing to invert: step aside by a rounding error or a few.
    aside = 16 * torch.finfo(fixed.dtype).eps * (abs(shift) + size)
    power = torch.linalg.inv(fixed - (shift + aside) * eye)
    for _ in range(doublings):
        power = power / torch.linalg.matrix_norm(power, keepdim=True)
        pair = _read(power, fixed)
        if (_residual(fixed, *pair, size) <= tolerance).all():
            break
        power = power @ power
    value, right, left = pair
    residual = _residual(fixed, *pair, size)
    matrix = once.guard(matrix, "nearest_eigenpair")
    change, right, fine = _newton(matrix, value, right, residual <= tolerance)
    _, left, fine = _newton(matrix.mT, value, left / left.norm(dim=-1, keepdim=True), fine)
    product = (left * right).sum(-1, keepdim=True)
    pair = value + change, right, left / torch.where(product == 0, 1, product)
    residual = _residual(fixed, *(part.detach() for part in pair), size)
    return Eigenpair(*pair, residual, fine)


def _read(power: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalue and vectors of a matrix that is nearly an outer product: its largest column and row."""
    column = power.norm(dim=-2).argmax(-1)[..., None, None].expand(*power.shape[:-1], 1)
    row = power.norm(dim=-1).argmax(-1)[..., None, None].expand(*power.shape[:-2], 1, power.shape[-1])
    right, left = power.gather(-1, column).squeeze(-1), power.gather(-2, row).squeeze(-2)
    largest = right.gather(-1, right.abs().argmax(-1, keepdim=True))
    right = right * largest.sign() / right.norm(dim=-1, keepdim=True)
    product = (left * right).sum(-1, keepdim=True)
    left = left / torch.where(product == 0, 1, product)
    return (left.unsqueeze(-2) @ matrix @ right.unsqueeze(-1))[..., 0, 0], right, left


def _residual(matrix: Tensor, value: Tensor, right: Tensor, left: Tensor, size: Tensor) -> Tensor:
    value = value.unsqueeze(-1)
    one = (matrix @ right.unsqueeze(-1)).squeeze(-1) - value * right
    other = (left.unsqueeze(-2) @ matrix).squeeze(-2) - value * left
    worst = torch.maximum(one.norm(dim=-1), other.norm(dim=-1) / left.norm(dim=-1))
    return worst / size[..., 0, 0]


def _newton(matrix: Tensor, value: Tensor, vector: Tensor, good: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One Newton step on ``(A - value) v = 0``, ``v . vector = 1``: change of value, new vector, where it was possible.

    The bordered matrix is held fixed, so that only the defect carries a gradient. It is singular if the eigenvalue is
    repeated; there, and where `good` is false, nothing is changed.
    """
    column = vector.unsqueeze(-1)
    with torch.no_grad():
        shifted = matrix - value[..., None, None] * torch.eye(
            matrix.shape[-1], dtype=matrix.dtype, device=matrix.device
        )
        corner = torch.zeros_like(value)[..., None, None]
        bordered = torch.cat([torch.cat([shifted, -column], -1), torch.cat([column.mT, corner], -1)], -2)
        eye = torch.eye(bordered.shape[-1], dtype=matrix.dtype, device=matrix.device)
        inverse, info = torch.linalg.inv_ex(torch.where(good[..., None, None], bordered, eye))
        size = torch.linalg.matrix_norm(bordered) * torch.linalg.matrix_norm(inverse)
        good = good & (info == 0) & (size < 1e12)
    defect = matrix @ column - value[..., None, None] * column
    step = inverse[..., :, :-1] @ torch.where(good[..., None, None], defect, 0)
    step = torch.where(good[..., None, None], step, 0).squeeze(-1)
    return -step[..., -1], vector - step[..., :-1], good

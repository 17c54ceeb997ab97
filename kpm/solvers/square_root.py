"""A real square root of a real matrix, the one nearest to a given matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kpm.solvers import checks, once


def square_root(matrix: Tensor, near: Tensor, rank: Tensor) -> Tensor:
    """``Q`` with ``Q @ Q = matrix``: of the two roots of each eigenvalue, the one that `near` has there.

    The principal root would turn every eigenvalue to the right half plane, where an operator that flips signs has none.

    Parameters
    ----------
    matrix, near : Tensor
        float64 ``(*batch, dim, dim)``.
    rank : Tensor
        ``(*batch,)``: all but the `rank` largest eigenvalues are zero.

    Returns
    -------
    Tensor
        ``(*batch, dim, dim)``. The gradient with respect to `matrix` is exact; it is computed in the eigenbasis, so it
        and the root lose as many digits as the eigenvectors are badly conditioned. Differentiable once: a second
        derivative raises `NotImplementedError`.

    Raises
    ------
    ValueError
        Where there is no real root (an eigenvalue on the negative axis) or no full set of eigenvectors.
    """
    return _SquareRoot.apply(matrix, near.detach(), rank)


class _SquareRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, near: Tensor, rank: Tensor) -> Tensor:
        device, given = matrix.device, matrix
        matrix, near, rank = matrix.cpu(), near.cpu(), rank.cpu()
        values, right = torch.linalg.eig(matrix)
        left, info = torch.linalg.inv_ex(right)
        if (info != 0).any():
            raise ValueError(f"matrix{checks.where(info != 0)} is defective: it has no full set of eigenvectors")
        place = values.abs().argsort(-1, descending=True).argsort(-1)
        values = torch.where(place < rank.unsqueeze(-1), values, 0)
        root = values.sqrt()
        # What `near` does along each eigenvector tells the sign.
        along = (left * (near.to(right.dtype) @ right).mT).sum(-1)
        root = torch.where((along * root.conj()).real < 0, -root, root)
        result = (right * root.unsqueeze(-2)) @ left
        size = torch.linalg.matrix_norm(result)
        unreal = torch.linalg.matrix_norm(result.imag) > 1e-6 * size
        if unreal.any():
            raise ValueError(
                f"matrix{checks.where(unreal)} has an eigenvalue on the negative axis and so no real square root: "
                "too noisy for forward-backward"
            )
        total = root.unsqueeze(-1) + root.unsqueeze(-2)
        ctx.save_for_backward(given, right, left, torch.where(total == 0, 0, 1 / torch.where(total == 0, 1, total)))
        return result.real.contiguous().to(device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        matrix, right, left, weight = ctx.saved_tensors
        inner = right.mH @ gradient.to("cpu", right.dtype) @ left.mH
        result = left.mH @ (weight.conj() * inner) @ right.mH
        return once.tie(result.real.to(gradient.device), "a forward-backward operator", matrix), None, None

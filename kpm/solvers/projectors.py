"""Spectral projectors: the part of an operator's space that belongs to a set of its eigenvalues.

A projector depends on the set only, not on phases, lengths or the choice of eigenvectors. It is computed from an
ordered Schur form and a Sylvester equation, and so is its derivative. Eigenvalues may coincide within the set, or
outside it, and may be defective there; all that must be apart is the set from the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import torch
from scipy.linalg import lapack
from torch import Tensor

from kpm.solvers import checks, matching, once


def projector(operator: Tensor, values: Tensor, chosen: Tensor) -> Tensor:
    """Projector ``P`` of a set of eigenvalues: ``P P = P``, ``P A = A P``, and ``A`` on its range has that set.

    In row convention ``z @ P`` is the part of `z` in these modes.

    Parameters
    ----------
    operator : Tensor
        Real ``(*batch, dim, dim)``.
    values : Tensor
        All its eigenvalues ``(*batch, dim)``, in any order (`spectra.eigenvalues`).
    chosen : Tensor
        bool ``(*batch, dim)``: which of `values` make the set.

    Returns
    -------
    Tensor
        complex128 ``(*batch, dim, dim)``, real up to rounding if the set holds the conjugate of each of its members.
        The gradient with respect to `operator` is exact. Differentiable once: a second derivative raises
        `NotImplementedError`.

    Raises
    ------
    ValueError
        For wrong shapes, or where an eigenvalue of the set coincides with one outside (the batch index is named).

    Notes
    -----
    Matrices are taken one by one, on the CPU: about 0.1 ms each at ``dim = 15``.
    """
    operator = checks.square(operator)
    if checks.eigenvalues(values).shape != operator.shape[:-1]:
        raise ValueError(f"values: expected shape {tuple(operator.shape[:-1])}, got {tuple(values.shape)}")
    chosen = checks.bools(chosen, "chosen", operator.shape[:-1])
    return _Projector.apply(operator, values.detach(), chosen)


class _Projector(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operator: Tensor, values: Tensor, chosen: Tensor) -> Tensor:
        ctx.save_for_backward(operator)
        dim = operator.shape[-1]
        flat = zip(
            operator.detach().cpu().reshape(-1, dim, dim).numpy(),
            values.cpu().reshape(-1, dim),
            chosen.cpu().reshape(-1, dim).numpy(),
            strict=True,
        )
        ctx.splits = []
        for index, (matrix, spectrum, pick) in enumerate(flat):
            try:
                ctx.splits.append(_split(matrix, spectrum, pick))
            except np.linalg.LinAlgError as error:
                place = [int(i) for i in np.unravel_index(index, operator.shape[:-2])] or ""
                raise ValueError(f"operator{place}: {error} (shape {tuple(operator.shape)})") from error
        result = np.stack([right @ left for _, _, right, left, _, _ in ctx.splits])
        return torch.from_numpy(result).reshape(operator.shape).to(operator.device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        dim = gradient.shape[-1]
        flat = gradient.detach().cpu().reshape(-1, dim, dim).numpy()
        result = np.stack([_pull_back(g, *split) for g, split in zip(flat, ctx.splits, strict=True)])
        result = torch.from_numpy(result).reshape(gradient.shape).to(gradient.device)
        return once.tie(result, "a spectral projector", *ctx.saved_tensors, gradient), None, None


def _split(matrix: np.ndarray, values: Tensor, chosen: np.ndarray) -> tuple[np.ndarray, ...]:
    """Block-diagonal form: blocks of the set and of the rest, each with its right (columns) and left (rows) basis.

    ``matrix @ right = right @ block``, ``left @ matrix = block @ left``, and the left bases are the inverse of the
    right.
    """
    triangle, vectors = scipy.linalg.schur(matrix, output="complex")
    found = torch.from_numpy(triangle.diagonal().copy())
    wanted = chosen[matching.optimal(found, values).index.numpy()]
    triangle, vectors, _, size, _, _, failed = lapack.ztrsen(wanted, triangle, vectors, job="N")
    inner, outer, corner = triangle[:size, :size], triangle[size:, size:], triangle[:size, size:]
    if failed:
        raise np.linalg.LinAlgError("eigenvalues of the set and of the rest cannot be told apart")
    coupling = _sylvester(inner, outer, -corner, "N")
    right, other = vectors[:, :size], vectors[:, size:]
    left = right.conj().T - coupling @ other.conj().T
    return inner, outer, right, left, right @ coupling + other, other.conj().T


def _pull_back(
    g: np.ndarray,
    inner: np.ndarray,
    outer: np.ndarray,
    right: np.ndarray,
    left: np.ndarray,
    other_right: np.ndarray,
    other_left: np.ndarray,
) -> np.ndarray:
    """Adjoint of ``dP``: its blocks solve ``inner E - E outer = left dA other_right``, and the same the other way."""
    forth = _sylvester(inner, outer, right.conj().T @ g @ other_left.conj().T, "C")
    back = _sylvester(outer, inner, other_right.conj().T @ g @ left.conj().T, "C")
    result = left.conj().T @ forth @ other_right.conj().T - other_left.conj().T @ back @ right.conj().T
    return result.real


def _sylvester(a: np.ndarray, b: np.ndarray, c: np.ndarray, form: str) -> np.ndarray:
    """Solve ``a x - x b = c`` for triangular `a` and `b`; with form "C", for their conjugate transposes."""
    if 0 in c.shape:
        return c
    x, scale, perturbed = lapack.ztrsyl(a, b, c, trana=form, tranb=form, isgn=-1)
    if perturbed or scale == 0:
        raise np.linalg.LinAlgError("an eigenvalue of the set coincides with one outside it")
    return x / scale

"""Per-sequence Koopman operators with no more steps than dimensions, through a companion matrix.

One sequence ``z[0..T-1]`` in ``R^K`` with ``n = T-1 <= K`` steps has the minimum-norm operator ``A = pinv(X0) X1``
(``X0 = z[:-1]``, ``X1 = z[1:]``), a ``K x K`` matrix with ``K - n`` zero eigenvalues. If the rows of ``X0`` are
independent, ``C = X1 pinv(X0)`` is an ``n x n`` companion matrix: ones above the diagonal and the last row
``c = z[T-1] pinv(X0)``. As ``X1 A = C X1``, and so ``X1 f(A) = f(C) X1``, the other eigenvalues of ``A`` are those of
``C``, the roots of ``lambda^n = sum_j c_j lambda^j``, and spectral parts of the sequence follow from ``c`` and the
roots, without ever looking at the cluster of zeros.

These functions want independent frames; `kpm.solvers.sequences` is for any sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kpm.solvers import checks, compiled, once


def coefficients(z: Tensor) -> Tensor:
    """Last row of the companion matrix: how the last frame is best written in terms of the frames before it.

    Parameters
    ----------
    z : Tensor
        Sequences ``(*batch, time, dim)`` with ``2 <= time <= dim + 1``, the first ``time - 1`` frames independent.

    Returns
    -------
    Tensor
        float64, ``(*batch, time - 1)``, differentiable once.

    Raises
    ------
    ValueError
        If the shape does not fit, or if frames of a sequence are linearly dependent (the batch index is named).
    """
    z, _ = checks.sequences(z)
    c, dependent = solve(z)
    if dependent.any():
        raise ValueError(
            f"z{checks.where(dependent)}: the first {z.shape[-2] - 1} frames are linearly dependent; no companion form "
            f"(shape {tuple(z.shape)})"
        )
    return c


def solve(z: Tensor) -> tuple[Tensor, Tensor]:
    """`coefficients` of checked float64 sequences, and which sequences have none (there, `c` is zero).

    Frames count as dependent where a diagonal entry of the triangular factor is at most ``eps * dim`` of the largest.
    """
    time, dim = z.shape[-2:]
    if time - 1 > dim:
        raise ValueError(f"z: {time} frames in {dim} dimensions; the companion form needs time - 1 <= dim")
    device, z = z.device, z.cpu()  # many small problems, in one transfer
    # X0 = r^T q^T, and the last column of the factor of [X0^T z[T-1]^T] is q^T z[T-1]^T: q itself is not needed.
    factor = torch.linalg.qr(z.detach().mT, mode="r").R[..., : time - 1, :]
    r = factor[..., :-1]
    diagonal = r.diagonal(dim1=-2, dim2=-1).abs()
    dependent = diagonal.amin(-1) <= diagonal.amax(-1) * torch.finfo(z.dtype).eps * dim
    if dependent.any():
        # Frames that make no trouble stand in for these, so that neither values nor gradients become NaN.
        stand_in = torch.eye(time, dim, dtype=z.dtype, device=z.device)
        c, _ = solve(torch.where(dependent[..., None, None], stand_in, z))
        return torch.where(dependent.unsqueeze(-1), 0, c).to(device), dependent.to(device)
    c = torch.linalg.solve_triangular(r, factor[..., -1:], upper=True).mT
    if z.requires_grad:
        # One step of Newton on the normal equations (z[T-1] - c X0) X0^T = 0, from their solution: adds nothing to the
        # value, and has the gradient of the implicit function.
        z = once.guard(z, "a companion form")
        past = z[..., :-1, :]
        slope = (z[..., -1:, :] - c @ past) @ past.mT
        back = torch.linalg.solve_triangular(r, slope - slope.detach(), upper=True, left=False)
        c = c + torch.linalg.solve_triangular(r.mT, back, upper=False, left=False)
    return c.squeeze(-2).to(device), dependent.to(device)


def matrix(c: Tensor) -> Tensor:
    """The companion matrix ``(*batch, n, n)`` of coefficients ``(*batch, n)``."""
    n = c.shape[-1]
    shift = torch.eye(n, dtype=c.dtype, device=c.device)[1:].expand(*c.shape[:-1], n - 1, n)
    return torch.cat([shift, c.unsqueeze(-2)], -2)


def roots(c: Tensor) -> Tensor:
    """Roots of ``lambda^n = sum_j c_j lambda^j``: the non-zero eigenvalues of the operator.

    The values are found on the CPU (`kpm.solvers.compiled`). The gradient is that of the implicit function,
    ``d lambda / d c_j = lambda^j / p'(lambda)``: no eigenvector is differentiated.

    Parameters
    ----------
    c : Tensor
        float64 ``(*batch, n)``.

    Returns
    -------
    Tensor
        complex128 ``(*batch, n)``, in no particular order. At a repeated root there is no gradient; where a root counts
        as one, by ``|p'|`` below 1e-8 of the sum of its terms, the gradient is zero. Differentiable once: a second
        derivative raises `NotImplementedError`.
    """
    fixed = c.detach()
    values = torch.from_numpy(compiled.roots(fixed.cpu().reshape(-1, c.shape[-1]).numpy())).view(c.shape).to(c.device)
    if not c.requires_grad:
        return values
    n = c.shape[-1]
    powers = vandermonde(values, n)
    j = torch.arange(1, n + 1, device=c.device, dtype=c.dtype)
    derivative = torch.cat([-fixed[..., 1:], torch.ones_like(fixed[..., :1])], -1) * j
    slope = _combine(derivative, powers)
    simple = slope.abs() > 1e-8 * _combine(derivative.abs(), powers.abs())
    inverse = torch.where(simple, 1 / torch.where(simple, slope, 1), 0)
    return values + _combine(once.guard(c, "the roots of a companion form") - fixed, powers) * inverse


def vandermonde(values: Tensor, n: int) -> Tensor:
    """Powers ``values^j`` for ``j = 0..n-1``, shape ``(*batch, n, m)`` for `values` of shape ``(*batch, m)``.

    By products only: a complex power goes through a logarithm, which is slow, inexact, and undefined at zero.
    """
    powers = torch.ones_like(values).unsqueeze(-2)
    top = values.unsqueeze(-2)
    while powers.shape[-2] < n:
        powers = torch.cat([powers, powers * top], -2)
        top = top * top
    return powers[..., :n, :]


def mode(z: Tensor, c: Tensor, value: Tensor) -> Tensor:
    """Spatial part ``p`` of one mode: the mode's share of ``z[t]`` is ``value^t p``.

    Parameters
    ----------
    z : Tensor
        Sequences ``(*batch, time, dim)``.
    c : Tensor
        Their companion coefficients ``(*batch, time - 1)``.
    value : Tensor
        One simple, non-zero root per sequence, complex ``(*batch,)``.

    Returns
    -------
    Tensor
        complex128 ``(*batch, dim)``.

    Raises
    ------
    ValueError
        Where `value` is zero or a repeated root, whose modes cannot be told apart (the batch index is named).

    See Also
    --------
    weights : `mode` is ``weights @ X1``.
    """
    parts = torch.view_as_real(weights(c, value)).mT @ z[..., 1:, :].double()
    return torch.complex(*parts.unbind(-2))


def weights(c: Tensor, value: Tensor) -> Tensor:
    """How the frames but the first combine to one mode: complex ``(*batch, n)``. Arguments and errors as for `mode`.

    The left eigenvector ``l`` of a companion matrix is the quotient of its polynomial by ``(x - value)``: one Horner
    pass. The right one is ``(1, value, value^2, ...)``, and their product is ``p'(value)``. So the weights are
    ``l / (value p'(value))``.
    """
    left = [torch.ones_like(value)]
    slope = left[0]
    for j in range(c.shape[-1] - 1, 0, -1):
        left.append(value * left[-1] - c[..., j])
        slope = value * slope + left[-1]
    scale = value * slope
    none = scale.detach() == 0
    if none.any():
        raise ValueError(f"value{checks.where(none)} is zero or a repeated root: it has no mode of its own")
    return torch.stack(left[::-1], -1) / scale.unsqueeze(-1)


def _combine(weights: Tensor, powers: Tensor) -> Tensor:
    """``sum_j weights_j powers_j``: ``(*batch, n)`` and ``(*batch, n, m)`` to ``(*batch, m)``."""
    return (weights.to(powers.dtype).unsqueeze(-2) @ powers).squeeze(-2)

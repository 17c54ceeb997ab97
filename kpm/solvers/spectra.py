"""Spectra of Koopman operators: eigenvalues, modes, the static/dynamic split, rates and memory.

Row convention: ``z[t+1] = z[t] @ A``. With ``A v = lambda v`` (a column) the amplitude ``z[t] @ v`` of a mode is
multiplied by lambda at every step; with ``u A = lambda u`` (a row) the mode itself is `u`, and ``z[t]`` is the sum of
amplitude times mode. Small eigenproblems are solved on the CPU, wherever the operator is, in one transfer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kpm.solvers import checks
from kpm.solvers.operators import Operator
from kpm.solvers.projectors import projector


@dataclass(frozen=True)
class Spectrum:
    """Non-zero eigenvalues with biorthogonal eigenvectors, ``left @ right = 1``; no gradient runs through the vectors.

    Attributes
    ----------
    eigenvalues : Tensor
        complex128 ``(*batch, m)``, largest modulus first. Operators of a batch with fewer than m of them have zeros at
        the end, with vectors of zeros.
    right : Tensor
        ``(*batch, dim, m)``: columns ``v`` of unit length; the largest entry of each is real and positive.
    left : Tensor
        ``(*batch, m, dim)``: rows ``u``, the modes; their scale follows from ``left @ right = 1``.
    condition : Tensor
        ``(*batch,)``: condition number of the eigenvector basis. Digits are lost by as much; large near a defective
        operator, whose modes cannot be told apart (`projector` still can tell sets of them apart).
    """

    eigenvalues: Tensor
    right: Tensor
    left: Tensor
    condition: Tensor

    def amplitudes(self, z: Tensor) -> Tensor:
        """Amplitude of each mode in each frame: ``(*batch, time, dim) -> (*batch, time, m)``, complex."""
        return z.to(self.right.dtype) @ self.right

    def frames(self, amplitudes: Tensor) -> Tensor:
        """The frames these amplitudes stand for: ``(*batch, time, m) -> (*batch, time, dim)``, real part."""
        return (amplitudes @ self.left).real


@dataclass(frozen=True)
class Split:
    """Sequences taken apart, ``static + dynamic == z``.

    Attributes
    ----------
    static, dynamic : Tensor
        float64 ``(*batch, time, dim)``.
    eigenvalues : Tensor
        complex128 ``(*batch, m)``, nearest to 1 first.
    condition : Tensor
        Frobenius norm of the spectral projector, ``(*batch,)``, no axes for a shared operator: at best the square root
        of the number of modes. Errors grow by as much; large where an eigenvalue outside the set is near.
    """

    static: Tensor
    dynamic: Tensor
    eigenvalues: Tensor
    condition: Tensor


@dataclass(frozen=True)
class ContinuousSpectrum:
    """Eigenvalues per unit of time.

    Attributes
    ----------
    rate : Tensor
        Growth rate, 1 / time; negative for decay, ``-inf`` for an eigenvalue 0.
    frequency : Tensor
        Cycles / time, between ``-1 / (2 dt)`` and ``1 / (2 dt)``.
    """

    rate: Tensor
    frequency: Tensor

    @property
    def values(self) -> Tensor:
        """``rate + 2 pi i frequency = log(lambda) / dt``."""
        return torch.complex(self.rate, 2 * math.pi * self.frequency)


def eigenvalues(operator: Tensor | Operator) -> Tensor:
    """Eigenvalues of real operators.

    Parameters
    ----------
    operator : Tensor or Operator
        Real ``(*batch, dim, dim)``.

    Returns
    -------
    Tensor
        complex128 ``(*batch, dim)``, in no particular order, conjugates exactly so. Differentiable where they are
        simple; the gradient grows without bound towards a defective operator, where there is none.
    """
    matrix = matrix_of(operator)
    return torch.linalg.eigvals(matrix.cpu()).to(matrix.device)


def decompose(operator: Tensor | Operator) -> Spectrum:
    """Non-zero eigenvalues with right and left eigenvectors.

    Raises
    ------
    ValueError
        Where the eigenvectors are linearly dependent to working precision (the batch index is named): the smallest
        singular value of the basis is at most ``eps * dim`` of the largest, and no digit of the modes would be right.
    """
    matrix = matrix_of(operator).detach()
    core, into, back, peeled = _without_zeros(matrix.cpu())
    values, inner = torch.linalg.eig(core)
    order = values.abs().argsort(dim=-1, descending=True, stable=True)
    values = values.gather(-1, order)
    inner = inner.gather(-1, order.unsqueeze(-2).expand(inner.shape))
    inverse, info = torch.linalg.inv_ex(inner)
    lengths = torch.linalg.svdvals(inner)
    flat = lengths[..., -1] <= torch.finfo(torch.float64).eps * inner.shape[-1] * lengths[..., 0]
    bad = flat | (info != 0) | ~torch.isfinite(inverse).all(-1).all(-1)
    if bad.any():
        raise ValueError(
            f"operator{checks.where(bad)}: its eigenvectors are linearly dependent (shape {tuple(matrix.shape)})"
        )
    scale = torch.where(values == 0, 0, 1 / torch.where(values == 0, 1, values)) ** peeled
    right, left = into.to(values.dtype) @ inner, scale.unsqueeze(-1) * (inverse @ back.to(values.dtype))
    factor = _unit(right)
    m = int((values != 0).sum(-1).max())
    right, left = right[..., :m] * factor[..., :m].unsqueeze(-2), (left / factor.unsqueeze(-1))[..., :m, :]
    condition = torch.linalg.matrix_norm(right, 2) * torch.linalg.matrix_norm(left, 2) if m else values.real.sum(-1)
    return Spectrum(*(part.to(matrix.device) for part in (values[..., :m], right, left, condition)))


def _without_zeros(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """An invertible core with the same non-zero eigenvalues.

    With the SVD ``A = u @ rows`` cut to the rank, ``rows @ u`` is smaller and has the same non-zero spectrum; its
    eigenvectors ``w`` (right) and ``y`` (left) give ``u @ w`` and ``y @ rows / lambda`` for `A`. Repeated until the
    core has full rank (once, unless zero is a defective eigenvalue).

    Returns
    -------
    core, into, back : Tensor
        ``(*batch, dim, dim)``, zero beyond the size of each core; products of the ``u`` and of the ``rows``.
    peeled : int
        How often; `back` wants a factor ``1 / lambda`` for each.
    """
    dim = matrix.shape[-1]
    tiny = torch.finfo(torch.float64).eps * dim * torch.linalg.matrix_norm(matrix, 2).unsqueeze(-1)
    core, into, back = matrix, torch.eye(dim, dtype=matrix.dtype), torch.eye(dim, dtype=matrix.dtype)
    size, peeled = torch.full(matrix.shape[:-2], dim), 0
    while True:
        u, s, vh = torch.linalg.svd(core)
        live = s > tiny
        if (live.sum(-1) == size).all():
            return core, into, back, peeled
        rows = torch.where(live, s, 0).unsqueeze(-1) * vh
        u = torch.where(live.unsqueeze(-2), u, 0)
        core, into, back = rows @ u, into @ u, rows @ back
        size, peeled = live.sum(-1), peeled + 1


def _unit(right: Tensor) -> Tensor:
    """What to multiply columns with so that they have unit length and their largest entry is real and positive."""
    largest = right.gather(-2, right.abs().argmax(-2, keepdim=True)).squeeze(-2)
    size = torch.linalg.vector_norm(right, dim=-2)
    known = size > 0
    return torch.where(known, largest.conj() / torch.where(known, largest.abs() * size, 1), 1)


def nearest_to_one(
    values: Tensor, size: int = 1, pairs: bool = False, rank: Tensor | None = None, *, name: str = "size"
) -> Tensor:
    """The static set: which `size` eigenvalues are nearest to 1.

    Parameters
    ----------
    values : Tensor
        ``(*batch, m)``.
    size : int
        s, from 1 to m.
    pairs : bool
        Add the conjugate of a chosen value if the cut would part the two (then a set can have ``size + 1`` members).
    rank : Tensor, optional
        int ``(*batch,)``: only the `rank` values of largest modulus can be chosen; the others are an operator's zeros.
    name : str
        What errors call `size`.

    Returns
    -------
    Tensor
        bool ``(*batch, m)``.
    """
    values = values.detach()
    size = checks.count(size, name, 1, values.shape[-1])
    distance = (values - 1).abs()
    if rank is not None:
        if (rank < size).any():
            index = checks.where(rank < size)
            raise ValueError(f"{name}: {size} static modes, but operator{index} has rank {int(rank[rank < size][0])}")
        place = values.abs().argsort(-1, descending=True).argsort(-1)
        distance = torch.where(place < rank.unsqueeze(-1), distance, torch.inf)
    chosen = distance.argsort(dim=-1, stable=True).argsort(-1) < size
    if not pairs:
        return chosen
    apart = (values.unsqueeze(-1) - values.conj().unsqueeze(-2)).abs()
    same = (apart <= 1e-12 * (1 + values.abs()).unsqueeze(-1)) & (values.imag != 0).unsqueeze(-1)
    return chosen | (same & chosen.unsqueeze(-2)).any(-1)


def by_distance_to_one(values: Tensor) -> Tensor:
    """Indices that sort `values` by their distance to 1; conjugates keep their order, exact zeros come last."""
    values = values.detach()
    distance = torch.where(values == 0, torch.inf, (values - 1).abs())
    return distance.argsort(dim=-1, stable=True)


def split(z: Tensor, operator: Tensor | Operator, size: int = 1, pairs: bool = False, *, name: str = "size") -> Split:
    """Static and dynamic parts of sequences under an operator ([SSM-SKD] sec. 4.1.3).

    Parameters
    ----------
    z : Tensor
        ``(*batch, time, dim)``.
    operator : Tensor or Operator
        ``(dim, dim)``, or one per sequence ``(*batch, dim, dim)``.
    size : int
        How many eigenvalues nearest to 1 make the static part. The zeros of an `Operator` beyond its rank do not count.
    pairs : bool
        Keep conjugate pairs together. If not, the set may hold one of a pair, and the static part is the real part of
        what it gives, as published.
    name : str
        What errors call `size`.

    Returns
    -------
    Split
        Differentiable once with respect to both `z` and `operator`.

    Raises
    ------
    ValueError
        For wrong shapes, or where the set cannot be told from the rest (see `projector`).

    See Also
    --------
    kpm.solvers.sequences.static_part : faster, for one operator per sequence.
    """
    z, _ = checks.sequences(z, least=1)
    matrix = matrix_of(operator)
    if matrix.shape[-1] != z.shape[-1] or matrix.shape[:-2] not in (torch.Size(), z.shape[:-2]):
        raise ValueError(f"operator: shape {tuple(matrix.shape)} does not fit z of shape {tuple(z.shape)}")
    values = eigenvalues(matrix)
    rank = operator.rank if isinstance(operator, Operator) else None
    projection = projector(matrix, values, nearest_to_one(values, size, pairs, rank, name=name))
    static = z @ projection.real
    condition = torch.linalg.matrix_norm(projection.detach())
    return Split(static, z - static, values.gather(-1, by_distance_to_one(values)), condition)


def continuous(values: Tensor, dt: float = 1.0) -> ContinuousSpectrum:
    """Growth rates and frequencies ``log(lambda) / dt`` of discrete eigenvalues.

    Parameters
    ----------
    values : Tensor
        Factors from one frame to the next, real or complex, any shape.
    dt : float
        Time between frames, positive.

    Returns
    -------
    ContinuousSpectrum
        float64, the shape of `values`, per unit of `dt`. Of the logarithm's branches that of frequencies up to
        ``1 / (2 dt)``: faster turns look like slower ones.

    Raises
    ------
    ValueError
        For values that are no tensor or not finite (the index is named), or a `dt` that is not positive and finite.
    """
    if not 0 < dt < math.inf:
        raise ValueError(f"dt: expected a positive time step, got {dt!r}")
    values = checks.eigenvalues(values).to(torch.complex128)
    return ContinuousSpectrum(values.abs().log() / dt, values.angle() / (2 * math.pi * dt))


def memory_horizon(values: Tensor, eps: float = 1e-2) -> Tensor:
    """Steps until a mode has faded to the fraction `eps`: ``ln(eps) / ln|lambda|`` ([KANN] eq. 9).

    Parameters
    ----------
    values : Tensor
        Discrete eigenvalues, real or complex, any shape.
    eps : float
        Between 0 and 1.

    Returns
    -------
    Tensor
        Steps, float64, the shape of `values`: infinite at modulus 1, and above it, where a mode never fades; 0 for an
        eigenvalue 0.

    Raises
    ------
    ValueError
        For values that are no tensor or not finite (the index is named), or an `eps` that is no such fraction.
    """
    if not 0 < eps < 1:
        raise ValueError(f"eps: expected a fraction between 0 and 1, got {eps!r}")
    size = checks.eigenvalues(values).abs().double()
    fades = size < 1
    return torch.where(fades, math.log(eps) / torch.where(fades, size, 0.5).log(), torch.inf)


def matrix_of(operator: Tensor | Operator) -> Tensor:
    """The checked float64 matrix of an operator."""
    return checks.square(operator.matrix if isinstance(operator, Operator) else operator)

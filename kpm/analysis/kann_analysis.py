"""The operator behind hidden states: basis, least-squares operator and eigenvectors, from moments of the states.

Hidden states are rows, ``h[t+1] ~ h[t] B C pinv(B)``: `B` is a basis of states, `C` the least-squares operator of their
coordinates, ``C V = V diag(lambda)`` and ``U = V^-1``. For the orthonormal bases of the paper ``pinv(B) = B^T``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kpm.solvers import checks, spectra
from kpm.solvers.operators import Operator
from kpm.solvers.streaming import Basis, Moments

PAIRS = ("real", "abs")


@dataclass(frozen=True)
class Analysis:
    """Basis ``(hidden, k)``, its pseudo-inverse `dual` ``(k, hidden)``, and the operator of coordinates.

    Methods take float64 states ``(*batch, hidden)`` on any device.
    """

    basis: Basis
    dual: Tensor
    operator: Operator

    @cached_property
    def spectrum(self) -> spectra.Spectrum:
        """Non-zero eigenvalues, largest modulus first, and eigenvectors, in coordinates."""
        return spectra.decompose(self.operator)

    @cached_property
    def pairs(self) -> tuple[tuple[int, ...], ...]:
        """Modes in conjugate pairs, real ones alone."""
        return conjugate_pairs(self.spectrum.eigenvalues)

    @property
    def eigenvectors(self) -> Tensor:
        """``B V``, complex ``(hidden, m)``: what is measured in a state."""
        return self.basis.vectors.to(torch.complex128) @ self.spectrum.right

    def coordinates(self, h: Tensor) -> Tensor:
        """``(h - mean) B``."""
        return (h - self.basis.mean.to(h.device)) @ self.basis.vectors.to(h.device)

    def states(self, z: Tensor) -> Tensor:
        """``z pinv(B) + mean``."""
        return z @ self.dual.to(z.device) + self.basis.mean.to(z.device)

    def amplitudes(self, h: Tensor) -> Tensor:
        """``(h - mean) B V``, complex."""
        return self.coordinates(h).to(torch.complex128) @ self.spectrum.right.to(h.device)

    def part(self, h: Tensor, modes: list[int], pair: Literal["real", "abs"]) -> Tensor:
        """Coordinates of the part of states in some modes, see `KANN.reconstruct`."""
        if pair not in PAIRS:
            raise ValueError(f"pair: expected 'real' or 'abs', got {pair!r}")
        if pair == "real":
            modes = [j for group in self.pairs if set(group) & set(modes) for j in group]
        product = self.spectrum.right[:, modes] @ self.spectrum.left[modes]
        return self.coordinates(h) @ (product.real if pair == "real" else product.abs()).to(h.device)


def analyse(moments: Moments, basis: Any = "svd", rank: int | str | None = None, ridge: float = 0.0) -> Analysis:
    """Basis and operator of all states that `moments` has read; parameters are those of `KANN`."""
    frame, dual = make_basis(moments, basis, rank)
    return Analysis(frame, dual, moments.project(frame).operator(ridge=ridge))


def make_basis(moments: Moments, basis: Any, rank: int | str | None) -> tuple[Basis, Tensor]:
    """The basis ``(dim, k)`` of states and its pseudo-inverse ``(k, dim)``; parameters are those of `KANN`."""
    dim, mean = moments.dim, moments.mean
    if isinstance(basis, str) and basis in ("svd", "pca"):
        if rank == "published":
            rank = min(moments.n_pairs, dim) - 1
        elif rank is not None and not isinstance(rank, int | np.integer):
            raise ValueError(f"rank: expected a whole number, None or 'published', got {rank!r}")
        frame = moments.basis(None if rank is None else checks.count(rank, "rank", 1, dim), centred=basis == "pca")
        return frame, frame.vectors.T
    if rank is not None:
        raise ValueError(f"rank: goes with basis 'svd' and 'pca', got {rank!r}; give a basis of fewer columns")
    vectors, shift = _own(basis, dim, mean)
    spread = moments.project(Basis(vectors, vectors[0], shift)).state_gram.diagonal().sqrt()
    return Basis(vectors, spread, shift), torch.linalg.pinv(vectors)


def _own(basis: Any, dim: int, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and shift of the identity or of a basis that was given."""
    shift = basis.mean.to(mean) if isinstance(basis, Basis) else torch.zeros_like(mean)
    if isinstance(basis, str):
        if basis != "identity":
            raise ValueError(f"basis: expected 'svd', 'pca', 'identity', an array or a Basis, got {basis!r}")
        return torch.eye(dim).to(mean), shift
    given = basis.vectors if isinstance(basis, Basis) else torch.as_tensor(basis)
    shape = tuple(given.shape)
    if given.ndim != 2 or given.is_complex() or shape[0] != dim or not 1 <= shape[1] <= dim:
        raise ValueError(f"basis: expected real ({dim}, k <= {dim}), got {given.dtype} of shape {shape}")
    vectors = given.to(mean)
    checks.finite(vectors, "basis")
    sizes = torch.linalg.svdvals(vectors)
    if sizes[-1] <= torch.finfo(torch.float64).eps * dim * sizes[0]:
        raise ValueError(f"basis: its columns are linearly dependent (shape {shape})")
    return vectors, shift


def conjugate_pairs(eigenvalues: Tensor) -> tuple[tuple[int, ...], ...]:
    """Modes in groups, first come first: a real eigenvalue alone, a complex one with its conjugate.

    Found by value, not by place: neighbours in a sorted list need not be conjugates. A complex eigenvalue without a
    conjugate stands alone.
    """
    values, free = eigenvalues.detach().cpu(), torch.ones(len(eigenvalues), dtype=torch.bool)
    groups = []
    for j, value in enumerate(values):
        if not free[j]:
            continue
        free[j] = False
        apart = torch.where(free, (values - value.conj()).abs(), torch.inf)
        if value.imag != 0 and free.any() and apart.min() <= 1e-9 * (1 + value.abs()):
            partner = int(apart.argmin())
            free[partner] = False
            groups.append((j, partner))
        else:
            groups.append((j,))
    return tuple(groups)


def mode_numbers(modes: int | Sequence[int], count: int) -> list[int]:
    """Checked mode numbers, from 0 to ``count - 1``."""
    try:
        numbers = np.atleast_1d(np.asarray(modes.cpu() if isinstance(modes, Tensor) else modes))
    except ValueError:  # sequences of different lengths
        numbers = np.empty(0)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers):
        raise ValueError(f"modes: expected whole numbers, got {modes!r}")
    bad = (numbers < 0) | (numbers >= count)
    if bad.any():
        raise ValueError(f"modes: {numbers[bad][0]} is not from 0 to {count - 1}; there are {count} modes")
    return numbers.tolist()

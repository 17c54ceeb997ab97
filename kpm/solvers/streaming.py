"""Koopman operators and bases of data that does not fit in memory, from moments of pairs ``(x[t], x[t+1])``.

`Moments` reads sequences piece by piece and keeps a few matrices of size ``dim x dim``. Moments of different pieces,
made by different workers, can be added. The result is that of all pairs in memory at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kpm.solvers import blocks, checks, operators
from kpm.solvers.sketches import Factor, Gram, orient

_ENTRIES = 2**20  # numbers turned to float64 at a time: 8 MB
_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Basis:
    """Directions of the states: `vectors` ``(dim, k)``, `singular_values` ``(k,)`` and `mean` ``(dim,)``.

    `mean` is zero for a basis that is not centred. The largest entry of each vector is positive.
    """

    vectors: Tensor
    singular_values: Tensor
    mean: Tensor

    def transform(self, x: Any) -> Any:
        """Coordinates ``(x - mean) @ vectors`` of `x` ``(*batch, dim)``, float64; numpy or torch as `x` is."""
        z = (torch.as_tensor(x).to(self.vectors) - self.mean) @ self.vectors
        return z if isinstance(x, Tensor) else z.cpu().numpy()

    def inverse_transform(self, z: Any) -> Any:
        """States ``z @ vectors.T + mean`` of coordinates ``(*batch, k)``, float64; numpy or torch as `z` is."""
        x = torch.as_tensor(z).to(self.vectors) @ self.vectors.T + self.mean
        return x if isinstance(z, Tensor) else x.cpu().numpy()


class Moments:
    """Second moments of pairs of frames and of states, accumulated in float64.

    Parameters
    ----------
    method : {"gram", "qr"}
        ``"gram"`` sums products. The relative error of an operator is then about ``1e-16 c^2`` for states of condition
        number ``c``: 1e-10 up to ``c = 1e3``, and nothing is left at ``c = 1e8``. ``"qr"`` updates a triangular factor;
        its error is that of the data in memory (about ``1e-16 c``), at about three times the work.

    Notes
    -----
    A pair has the weight of its first frame. No pair crosses the border of a sequence or touches a masked frame.
    States are all frames that count, the last of each sequence included. ``a + b`` and ``sum(parts)`` combine
    accumulators (for `map`, `functools.reduce`, dask); the order matters only in the last digits.
    """

    def __init__(self, method: Literal["gram", "qr"] = "gram") -> None:
        if method not in blocks.MAKE:
            raise ValueError(f"method: expected 'gram' or 'qr', got {method!r}")
        self.method = method
        self.n_pairs = 0
        self.n_states = 0
        self._pairs: Gram | Factor | None = None  # rows (x[t], x[t+1])
        self._ends: Gram | Factor | None = None  # rows x[t] of the states that begin no pair

    @torch.no_grad()
    def partial_fit(
        self, x: Any, mask: Any = None, lengths: Any = None, weights: Any = None, continued: bool = False
    ) -> Moments:
        """Add sequences. If this raises, nothing was added.

        Parameters
        ----------
        x : Tensor or array (memory maps too)
            ``(*batch, time, dim)``, real, at least two frames. Turned to float64 block by block.
        mask : bool ``(*batch, time)``, optional
            True for frames that count. The others may hold anything.
        lengths : int ``(*batch,)``, optional
            Number of leading frames that count; instead of `mask`.
        weights : ``(*batch,)`` or ``(*batch, time)``, optional
            Non-negative weights of sequences or frames.
        continued : bool
            The next piece of these sequences begins with the last frame given here. That frame then ends a pair here
            and is counted as a state there, so that pieces overlapping by one frame add up to the whole.

        Raises
        ------
        ValueError
            For a shape that does not fit, an empty batch, ``time < 2``, negative weights, NaN or infinity.
        """
        x = x if isinstance(x, Tensor) else np.asanyarray(x)
        shape = tuple(x.shape)
        if (isinstance(x, Tensor) and x.is_complex()) or (not isinstance(x, Tensor) and x.dtype.kind not in "fiub"):
            raise ValueError(f"x: expected real numbers, got {x.dtype}")
        if len(shape) < 2 or min(shape) < 1 or shape[-2] < 2:
            raise ValueError(f"x: expected (*batch, time >= 2, dim) without empty axes, got shape {shape}")
        if self._pairs is not None and shape[-1] != self.dim:
            raise ValueError(f"x: {shape[-1]} dimensions (shape {shape}), but {self.dim} in what was added before")
        pair, end = blocks.roles(shape, mask, lengths, weights, continued)
        make, rows = blocks.MAKE[self.method], _ENTRIES // shape[-1]
        if self.method == "qr":
            rows = max(rows // 2, 8 * shape[-1])  # adding a triangle costs as much as 4 dim rows of data
        pairs, ends = self._pairs, self._ends
        for block in blocks.cut(x.reshape(-1, *shape[-2:]), pair, end, rows, shape):
            new_pairs, new_ends = make(block)
            pairs, ends = (new_pairs, new_ends) if pairs is None else (pairs + new_pairs, ends + new_ends)
        if not all(torch.isfinite(part).all() for sketch in (pairs, ends) for part in sketch.state().values()):
            raise ValueError("x: numbers too large, their products overflow float64")
        self._pairs, self._ends = pairs, ends
        self.n_pairs += int((pair > 0).sum())
        self.n_states += int((pair > 0).sum() + (end > 0).sum())
        return self

    def merge(self, other: Moments) -> Moments:
        """A new accumulator of what both have read; `ValueError` if their methods or dimensions differ."""
        if not isinstance(other, Moments) or other.method != self.method:
            raise ValueError(f"other: expected Moments(method={self.method!r}), got {other!r}")
        new = Moments(self.method)
        new.n_pairs, new.n_states = self.n_pairs + other.n_pairs, self.n_states + other.n_states
        read = [part for part in (self, other) if part._pairs is not None]
        if len(read) == 2 and self.dim != other.dim:
            raise ValueError(f"other: {other.dim} dimensions, expected {self.dim}")
        for part in read:
            new._pairs = part._pairs if new._pairs is None else new._pairs + part._pairs
            new._ends = part._ends if new._ends is None else new._ends + part._ends
        return new

    def __add__(self, other: Moments) -> Moments:
        return self.merge(other)

    def __radd__(self, other: Any) -> Moments:
        """So that ``sum(parts)``, which begins with 0, works."""
        return self.merge(Moments(self.method)) if isinstance(other, int) and other == 0 else NotImplemented

    def __repr__(self) -> str:
        return f"Moments(method={self.method!r}, n_pairs={self.n_pairs}, n_states={self.n_states})"

    @property
    def dim(self) -> int:
        """Length of a state."""
        return self._read().mean.shape[0] // 2

    @property
    def weight(self) -> float:
        """Total weight of the pairs; their number if no weights were given."""
        return float(self._read().weight)

    @property
    def gram(self) -> Tensor:
        """``sum w x[t]^T x[t]`` over pairs, ``(dim, dim)`` float64."""
        return self._read().take(slice(0, self.dim)).second()

    @property
    def gram_next(self) -> Tensor:
        """``sum w x[t+1]^T x[t+1]`` over pairs."""
        return self._read().take(slice(self.dim, None)).second()

    @property
    def cross(self) -> Tensor:
        """``sum w x[t]^T x[t+1]`` over pairs."""
        return self._read().second()[: self.dim, self.dim :]

    @property
    def state_gram(self) -> Tensor:
        """``sum w x[t]^T x[t]`` over all states."""
        return self._states().second()

    @property
    def mean(self) -> Tensor:
        """Weighted mean of all states, ``(dim,)``."""
        return self._states().mean

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Few rows with the moments of all pairs: ``(x, y)`` of shape ``(2 dim (+ 1), dim)`` each.

        Any estimator that depends on second moments alone (least squares, total least squares, forward-backward) gives
        for these rows what it gives for all pairs.
        """
        rows = self._read().rows()
        return rows[:, : self.dim], rows[:, self.dim :]

    def operator(
        self,
        *,
        method: operators.Method = "least_squares",
        ridge: float = 0.0,
        rank: int | None = None,
        tolerance: float | None = None,
    ) -> operators.Operator:
        """The operator of all pairs; its condition number tells what to expect of ``"gram"``.

        Parameters are those of `operators.from_pairs`, but for the default `tolerance` (singular values of the states
        below this share of the largest count as zero): 1e-7 for ``"gram"``, because the rounding of the products hides
        anything below about 1e-8, and for ``"qr"`` what it is with all pairs in memory.
        """
        if self._read().weight == 0:
            raise ValueError(f"{self!r}: there is no pair to fit an operator to")
        if tolerance is None:
            tolerance = 1e-7 if self.method == "gram" else _EPS * max(self.n_pairs, self.dim)
        past, future = self.pairs()
        return operators.from_pairs(past, future, method=method, ridge=ridge, rank=rank, tolerance=tolerance)

    def basis(self, k: int | None = None, centred: bool = False) -> Basis:
        """The `k` leading right singular vectors of all states; principal axes if `centred`.

        From ``"gram"``, singular values below 1e-8 of the largest are rounding, and so are their vectors. Raises
        `ValueError` if `k` is not in ``1 .. dim``.
        """
        states = self._states()
        k = self.dim if k is None else checks.count(k, "k", 1, self.dim)
        values, vectors = states.spectrum(centred)
        vectors = vectors[:, :k]
        mean = states.mean if centred else torch.zeros_like(states.mean)
        return Basis(vectors * orient(vectors), values[:k], mean)

    def project(self, basis: Basis) -> Moments:
        """Moments of the coordinates in `basis`, as if ``basis.transform(x)`` had been read instead of ``x``."""
        if basis.vectors.shape[0] != self.dim:
            raise ValueError(f"basis: vectors of shape {tuple(basis.vectors.shape)}, expected ({self.dim}, k)")
        new = Moments(self.method)
        new.n_pairs, new.n_states = self.n_pairs, self.n_states
        both = torch.block_diag(basis.vectors, basis.vectors)
        new._pairs = self._read().affine(both, basis.mean.repeat(2))
        new._ends = self._ends.affine(basis.vectors, basis.mean)
        return new

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors to save (with safetensors, for example)."""
        saved = {"counts": torch.tensor([self.n_pairs, self.n_states])}
        for name, sketch in (("pairs", self._read()), ("ends", self._ends)):
            saved |= {f"{name}.{key}": value.contiguous() for key, value in sketch.state().items()}
        return saved

    @classmethod
    def from_state_dict(cls, saved: dict[str, Tensor]) -> Moments:
        """The accumulator that `state_dict` came from; reading can go on."""
        new = cls("qr" if "pairs.triangle" in saved else "gram")
        kind = Factor if new.method == "qr" else Gram
        parts = {}
        for name in ("pairs", "ends"):
            parts[name] = kind(**{key.split(".")[1]: value for key, value in saved.items() if key.startswith(name)})
        new._pairs, new._ends = parts["pairs"], parts["ends"]
        new.n_pairs, new.n_states = saved["counts"].tolist()
        return new

    def _read(self) -> Gram | Factor:
        if self._pairs is None:
            raise ValueError("Moments: nothing has been read yet; call partial_fit first")
        return self._pairs

    def _states(self) -> Gram | Factor:
        return self._read().take(slice(0, self.dim)) + self._ends

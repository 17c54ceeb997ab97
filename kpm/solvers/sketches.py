"""Second moments of rows in two forms: a scatter matrix (fast) and a triangular factor (accurate).

Both summarise weighted rows ``x`` of length ``p`` by ``p x p`` numbers or so, and both can be added: the sum of two
summaries is the summary of all rows together. A `Gram` forms products of the data, so a question that depends on the
condition number of the rows is answered with the square of it. A `Factor` keeps the triangle of a QR decomposition
(TSQR: a QR of stacked triangles) and is as good as the data in memory, at several times the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gram:
    """Total weight, weighted mean ``(p,)`` and scatter ``sum w (x - mean)^T (x - mean)`` of shape ``(p, p)``, float64.

    Keeping the mean apart means that neither adding nor centring ever subtracts two large numbers.
    """

    weight: Tensor
    mean: Tensor
    scatter: Tensor

    @classmethod
    def zero(cls, p: int, device: torch.device) -> Gram:
        """No rows yet."""
        new = torch.zeros(p, p, dtype=torch.float64, device=device)
        return cls(new[0, 0].clone(), new[0].clone(), new)

    @classmethod
    def from_shifted(cls, weight: Tensor, sums: Tensor, products: Tensor, shift: Tensor) -> Gram:
        """From sums and products of the rows minus `shift`, which should be near the mean."""
        offset = sums / weight.clamp_min(torch.finfo(sums.dtype).tiny)
        return cls(weight, torch.where(weight > 0, shift + offset, 0), products.addr(sums, offset, alpha=-1))

    def __add__(self, other: Gram) -> Gram:
        weight = self.weight + other.weight
        share = other.weight / weight.clamp_min(torch.finfo(weight.dtype).tiny)
        step = other.mean - self.mean
        scatter = (self.scatter + other.scatter).addr_(self.weight * share * step, step)
        return Gram(weight, self.mean + share * step, scatter)

    def affine(self, matrix: Tensor, shift: Tensor) -> Gram:
        """Summary of the rows ``(x - shift) @ matrix``."""
        return Gram(self.weight, (self.mean - shift) @ matrix, matrix.T @ self.scatter @ matrix)

    def take(self, columns: slice) -> Gram:
        """Summary of some of the columns."""
        return Gram(self.weight, self.mean[columns], self.scatter[columns, columns])

    def second(self, centred: bool = False) -> Tensor:
        """Second moments ``sum w x^T x``, about the mean if `centred`."""
        return self.scatter if centred else self.scatter + self.weight * torch.outer(self.mean, self.mean)

    def spectrum(self, centred: bool = False) -> tuple[Tensor, Tensor]:
        """Singular values, descending, and right singular vectors (columns) of the weighted rows."""
        values, vectors = torch.linalg.eigh(self.second(centred))
        return values.flip(0).clamp_min(0).sqrt(), vectors.flip(1)

    def rows(self) -> Tensor:
        """``(p, p)`` rows with the same second moments."""
        factor, info = torch.linalg.cholesky_ex(self.second())
        if info == 0:
            return factor.T
        values, vectors = self.spectrum()  # singular: slower, but always there
        return values[:, None] * vectors.T

    def state(self) -> dict[str, Tensor]:
        """The tensors to save."""
        return {"weight": self.weight, "mean": self.mean, "scatter": self.scatter}


@dataclass(frozen=True)
class Factor:
    """Triangle ``(1 + p, 1 + p)`` of a QR decomposition of the rows ``sqrt(w) (1, x)``, float64.

    Its first row holds the weight and the mean; what is below and to the right is the triangle of the centred rows.
    """

    triangle: Tensor

    @classmethod
    def zero(cls, p: int, device: torch.device) -> Factor:
        """No rows yet."""
        return cls(torch.zeros(1 + p, 1 + p, dtype=torch.float64, device=device))

    @classmethod
    def from_rows(cls, parts: Sequence[Tensor], weight: Tensor) -> Factor:
        """From rows given as column blocks ``(n, p_i)`` and their weights ``(n,)``."""
        root = weight.sqrt()[:, None]
        return _triangle(torch.cat([root, *(root * part for part in parts)], 1))

    @property
    def weight(self) -> Tensor:
        return self.triangle[0, 0] ** 2

    @property
    def mean(self) -> Tensor:
        first = self.triangle[0]
        return torch.where(first[0] == 0, 0, first[1:] / torch.where(first[0] == 0, 1, first[0]))

    def __add__(self, other: Factor) -> Factor:
        return _triangle(torch.cat([self.triangle, other.triangle]))

    def affine(self, matrix: Tensor, shift: Tensor) -> Factor:
        """Summary of the rows ``(x - shift) @ matrix``."""
        first, rest = self.triangle[:, :1], self.triangle[:, 1:]
        return _triangle(torch.cat([first, (rest - first * shift) @ matrix], 1))

    def take(self, columns: slice) -> Factor:
        """Summary of some of the columns."""
        return _triangle(torch.cat([self.triangle[:, :1], self.triangle[:, 1:][:, columns]], 1))

    def second(self, centred: bool = False) -> Tensor:
        """Second moments ``sum w x^T x``, about the mean if `centred`."""
        rows = self.triangle[int(centred) :, 1:]
        return rows.T @ rows

    def spectrum(self, centred: bool = False) -> tuple[Tensor, Tensor]:
        """Singular values, descending, and right singular vectors (columns) of the weighted rows."""
        _, values, vectors = torch.linalg.svd(self.triangle[int(centred) :, 1:], full_matrices=False)
        return values, vectors.T

    def rows(self) -> Tensor:
        """``(1 + p, p)`` rows with the same second moments."""
        return self.triangle[:, 1:]

    def state(self) -> dict[str, Tensor]:
        """The tensors to save."""
        return {"triangle": self.triangle}


def orient(vectors: Tensor) -> Tensor:
    """Signs ``(*batch, k)`` that make the largest entry, by magnitude, of each column ``(*batch, p, k)`` positive."""
    top = vectors.gather(-2, vectors.abs().argmax(-2, keepdim=True)).squeeze(-2)
    return torch.where(top < 0, -1.0, 1.0).to(vectors.dtype)


def _triangle(rows: Tensor) -> Factor:
    """Triangle of rows of any number; fewer rows than columns are filled up with zeros."""
    width = rows.shape[1]
    if len(rows) < width:
        rows = torch.cat([rows, rows.new_zeros(width - len(rows), width)])
    return Factor(torch.linalg.qr(rows, mode="r").R)

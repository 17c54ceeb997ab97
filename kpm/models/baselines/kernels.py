"""Finite coordinates for functions of a Gaussian (or linear) kernel: what reference points tell about a point.

With references ``r_1 ... r_n`` and their Gram matrix ``K``, the coordinates ``k(x, r) K^(-1/2)`` have the inner
products of the kernel for points in the span of the references (Nystroem). All that kernel methods do with Gram
matrices is then ordinary linear algebra of `n` numbers per point, whatever the length of the record.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kpm.solvers import checks

# Directions whose share of the largest eigenvalue of the Gram matrix is below this are rounding.
FLOOR = 1e-10


@dataclass(frozen=True)
class KernelFeatures:
    """Coordinates with respect to reference points.

    Attributes
    ----------
    points : Tensor
        float64 ``(n, dim)``.
    bandwidth : float or None
        Of the Gaussian ``exp(-|x - r|^2 / (2 bandwidth^2))``; None is the linear kernel ``x . r``.
    projection : Tensor
        ``(n, features)``: eigenvectors of the Gram matrix over the roots of their eigenvalues, largest first.
    """

    points: Tensor
    bandwidth: float | None
    projection: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Features ``(*batch, features)`` of points ``(*batch, dim)``, float64."""
        if x.shape[-1] != self.points.shape[-1]:
            raise ValueError(f"x: expected (*batch, {self.points.shape[-1]}), got shape {tuple(x.shape)}")
        return gram(x.double(), self.points, self.bandwidth) @ self.projection

    @property
    def size(self) -> int:
        return self.projection.shape[-1]


def kernel_features(points: Tensor, bandwidth: float | None, rank: int | None = None) -> KernelFeatures:
    """Features of reference points ``(n, dim)``: the `rank` leading ones, or all that are not rounding.

    Raises `ValueError` for a wrong shape, numbers that are not finite, or a bandwidth that is not positive.
    """
    points, _ = checks.sequences(points, name="points", least=1)
    if points.ndim != 2:
        raise ValueError(f"points: expected (n, dim), got shape {tuple(points.shape)}")
    if bandwidth is not None and not 0 < bandwidth < float("inf"):
        raise ValueError(f"bandwidth: expected a positive number, got {bandwidth!r}")
    values, vectors = torch.linalg.eigh(gram(points, points, bandwidth))
    values, vectors = values.flip(0), vectors.flip(1)
    keep = int((values > FLOOR * values[0]).sum())
    if keep == 0:
        raise ValueError("points: they are all zero, which the linear kernel cannot tell apart")
    keep = keep if rank is None else min(keep, checks.count(rank, "rank", 1, 10**6))
    return KernelFeatures(points, bandwidth, vectors[:, :keep] * values[:keep].rsqrt())


def gram(x: Tensor, y: Tensor, bandwidth: float | None) -> Tensor:
    """Kernel values ``(*batch, n)`` of points ``(*batch, dim)`` with points ``(n, dim)``."""
    if bandwidth is None:
        return x @ y.mT
    return (-(torch.cdist(x, y) ** 2) / (2 * bandwidth**2)).exp()


def median_distance(x: Tensor, most: int = 500) -> float:
    """Median distance of two different points of ``(n, dim)``, from at most `most` of them, evenly spaced."""
    distances = torch.pdist(evenly(x.double(), most))
    if not len(distances) or not distances.median() > 0:
        raise ValueError(f"x: half of the points or more are the same (shape {tuple(x.shape)}), there is no distance")
    return float(distances.median())


def evenly(x: Tensor, count: int) -> Tensor:
    """At most `count` rows of ``(n, dim)``, evenly spaced over all of them."""
    if len(x) <= count:
        return x
    return x[torch.linspace(0, len(x) - 1, count, dtype=torch.float64).round().long()]

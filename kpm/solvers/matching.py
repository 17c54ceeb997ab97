"""Matching two spectra: which estimated eigenvalue belongs to which reference eigenvalue, and how far off it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kpm.solvers import checks


@dataclass(frozen=True)
class Matching:
    """Partners of the reference values.

    Attributes
    ----------
    index : Tensor
        int64 ``(*batch, n)``: entry j says which estimate belongs to reference j.
    distance : Tensor
        ``(*batch, n)``: how far apart the two are; differentiable with respect to both.
    """

    index: Tensor
    distance: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean distance per reference value, ``(*batch,)``."""
        return self.distance.mean(-1)

    @property
    def total(self) -> Tensor:
        """Sum of the distances, ``(*batch,)``."""
        return self.distance.sum(-1)


def nearest(reference: Tensor, estimate: Tensor) -> Matching:
    """For each reference value the nearest estimate; one estimate may serve several.

    Parameters
    ----------
    reference, estimate : Tensor
        Real or complex, ``(*batch, n)`` and ``(*batch, m)``; batch axes broadcast.

    Raises
    ------
    ValueError
        If one of them is no tensor, empty or not finite, or if batch axes do not fit.
    """
    distance = _distances(reference, estimate)
    return _matching(distance, distance.detach().argmin(-1))


def optimal(reference: Tensor, estimate: Tensor) -> Matching:
    """One estimate for each reference value, none used twice, with the least total distance.

    Parameters
    ----------
    reference, estimate : Tensor
        Real or complex, ``(*batch, n)`` and ``(*batch, m)`` with ``m >= n``; batch axes broadcast.

    Raises
    ------
    ValueError
        As `nearest`, or if there are fewer estimates than reference values.
    """
    distance = _distances(reference, estimate)
    n, m = distance.shape[-2:]
    if m < n:
        raise ValueError(f"estimate: {m} values cannot be matched one to one with {n} reference values")
    costs = distance.detach().cpu().reshape(-1, n, m).numpy()
    chosen = torch.tensor([linear_sum_assignment(cost)[1].tolist() for cost in costs], dtype=torch.int64)
    return _matching(distance, chosen.reshape(distance.shape[:-1]).to(distance.device))


def _matching(distance: Tensor, index: Tensor) -> Matching:
    return Matching(index, distance.gather(-1, index.unsqueeze(-1)).squeeze(-1))


def _distances(reference: Tensor, estimate: Tensor) -> Tensor:
    for name, values in (("reference", reference), ("estimate", estimate)):
        if checks.tensor(values, name).ndim < 1 or 0 in values.shape:
            raise ValueError(f"{name}: expected (*batch, n) values, got shape {tuple(values.shape)}")
        checks.finite(values, name)
    try:
        torch.broadcast_shapes(reference.shape[:-1], estimate.shape[:-1])
    except RuntimeError as error:
        shapes = f"{tuple(reference.shape)} and {tuple(estimate.shape)}"
        raise ValueError(f"reference and estimate: batch axes do not fit, shapes {shapes}") from error
    return (reference.unsqueeze(-1) - estimate.unsqueeze(-2)).abs()

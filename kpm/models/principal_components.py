"""Principal components of films."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from kpm.solvers import checks


@dataclasses.dataclass(frozen=True)
class Components:
    """Principal components of frames: `mean` ``(2304,)`` and `axes` ``(2304, count)``, orthonormal; float64."""

    mean: Tensor
    axes: Tensor

    def encode(self, frames: Tensor) -> Tensor:
        """Coordinates ``(n, t, count)``, float64, of frames ``(n, t, 1, 48, 48)`` in [0, 1]."""
        return (frames.flatten(2).double() - self.mean) @ self.axes


def principal_components(frames: Tensor, count: int) -> Components:
    """The `count` leading principal components of frames ``(n, t, 1, 48, 48)`` in [0, 1]."""
    flat = frames.flatten(2).flatten(0, 1).double()
    checks.count(count, "count", 1, min(flat.shape))
    mean = flat.mean(0)
    centred = flat - mean
    if len(flat) >= flat.shape[1]:
        _, vectors = torch.linalg.eigh(centred.mT @ centred)
        return Components(mean, vectors[:, -count:].flip(1))
    values, vectors = torch.linalg.eigh(centred @ centred.mT)  # the smaller of the two problems
    if not values[-count] > 1e-10 * values[-1]:
        raise ValueError(f"count: {count} components asked for, but the frames vary in fewer directions")
    return Components(mean, (centred.mT @ vectors[:, -count:] / values[-count:].sqrt()).flip(1))

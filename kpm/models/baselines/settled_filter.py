"""A Kalman filter of a time-invariant model with gains computed once: they do not depend on what is observed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kpm.solvers import checks, kalman_filter
from kpm.solvers.linear_gaussian import LinearGaussian


@dataclass(frozen=True)
class SettledFilter:
    """Means of a filter.

    Attributes
    ----------
    model : LinearGaussian
    gains : Tensor
        ``(settle, p, d)``: of the first frames; the last one is kept for all later frames.
    """

    model: LinearGaussian
    gains: Tensor

    def predicted(self, z: Tensor) -> Tensor:
        """Mean of the state at each time, and one after, given all before: ``(*batch, time + 1, d)``.

        Parameters
        ----------
        z : Tensor
            float64 observations, ``(*batch, time, p)``.
        """
        if z.ndim < 2 or z.shape[-1] != self.model.output.shape[-1]:
            raise ValueError(f"z: expected (*batch, time, {self.model.output.shape[-1]}), got {tuple(z.shape)}")
        mean = self.model.initial_mean.expand(*z.shape[:-2], -1)
        means = [mean]
        for t in range(z.shape[-2]):
            gain = self.gains[min(t, len(self.gains) - 1)]
            mean = (mean + (z[..., t, :] - mean @ self.model.output) @ gain) @ self.model.transition
            means.append(mean)
        return torch.stack(means, -2)


def settled_filter(model: LinearGaussian, settle: int = 50) -> SettledFilter:
    """The filter of one model without batch axes, exact for `settle` frames, in which its covariances should settle."""
    checks.count(settle, "settle", 1, 10**6)
    nothing = torch.zeros(settle, model.output.shape[-1], dtype=torch.float64)
    return SettledFilter(model, kalman_filter(model, nothing).gains)

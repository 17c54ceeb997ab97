"""Filtering and forecasting with a fitted deep spectral encoder, by the Kalman filter of its features."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kpm.models import dse_published
from kpm.models.dse_networks import dtype_of
from kpm.models.dse_operators import CHUNK
from kpm.solvers import kalman
from kpm.solvers.linear_gaussian import LinearGaussian

if TYPE_CHECKING:
    from kpm.models.dse import DSE


@dataclasses.dataclass(frozen=True)
class DSEFiltered:
    """What the filter makes of observed sequences; entry t is about the window of frames ``t ... t + delays - 1``.

    Attributes
    ----------
    features : Filtered
        Moments of the state features, float64 (see `kpm.solvers.kalman`).
    states : Tensor
        State coordinates of the filtered features, ``(*batch, time, rank)``.
    predictions, stds : Tensor
        ``(*batch, time, *element)``: the newest frame of each window, ``t + delays - 1``, from all frames before it,
        and the standard deviation that follows from that of the features, to first order and without noise.
    """

    features: kalman.Filtered
    states: Tensor
    predictions: Tensor
    stds: Tensor


@dataclasses.dataclass(frozen=True)
class DSEForecast:
    """Frames ahead, ``(*batch, steps, *element)``: `predictions`, their `stds`, and moments of the `features`."""

    predictions: Tensor
    stds: Tensor
    features: kalman.Forecast


@torch.no_grad()
def filter_sequences(model: DSE, y: Tensor, mask: Tensor | None = None) -> DSEFiltered:
    """Filter sequences.

    Parameters
    ----------
    model : DSE
        Fitted.
    y : Tensor
        ``([n,] time, *element)``.
    mask : Tensor, optional
        bool ``([n,] time)``, true where there is a frame. A window with a masked frame counts as not observed.

    Returns
    -------
    DSEFiltered
        With the batch axis of `y`, if it has one.

    Raises
    ------
    ValueError
        For a model that is not fitted, wrong shapes, fewer than `delays` frames, or numbers that are not finite where
        the mask says observed.
    """
    _, features = _filtered(model, y, mask)
    frames, stds = _newest(model, features.predicted_means, features.predicted_covariances)
    states = model.state_readout(features.means.to(dtype_of(model.state_readout)))
    return _like(y, model, DSEFiltered(features, states, frames, stds))


@torch.no_grad()
def predict_sequences(model: DSE, y: Tensor, steps: int, mask: Tensor | None = None) -> DSEForecast:
    """Frames 1 to `steps` steps after the end of sequences; arguments and what is raised as by `filter_sequences`."""
    system, features = _filtered(model, y, mask)
    ahead = kalman.forecast(system, features.means[:, -1], features.covariances[:, -1], steps)
    return _like(y, model, DSEForecast(*_newest(model, ahead.means, ahead.covariances), ahead))


def _filtered(model: DSE, y: Tensor, mask: Tensor | None) -> tuple[LinearGaussian, kalman.Filtered]:
    model.eval()
    config = model.config
    frames = model.sequences(y, config.delays, mask)
    system = dse_published.system_of(model, frames) if config.is_published else model.system
    observed = model.observe(model.encode(frames, CHUNK))
    if mask is not None:
        mask = mask.reshape(frames.shape[:2]).unfold(1, config.delays, 1).all(-1)
    return system, kalman.kalman_filter(system, observed, mask)


def _newest(model: DSE, means: Tensor, covariances: Tensor) -> tuple[Tensor, Tensor]:
    """Decoded means ``(n, t, *element)``, and the deviations that the covariances lead to, to first order."""
    if covariances.stride(0) == 0:  # the sequences share them
        covariances = covariances[:1]
    if math.prod(model.config.element) < means.shape[-1]:
        spreads, spread = covariances, _backward
    else:
        values, vectors = torch.linalg.eigh(covariances)
        spreads, spread = vectors * values.clamp_min(0).sqrt()[..., None, :], _forward
    spreads = spreads.expand(*means.shape, -1).flatten(0, 1)
    parts = [spread(model, *part) for part in zip(means.flatten(0, 1).split(CHUNK), spreads.split(CHUNK))]
    frames, variances = (torch.cat(part).unflatten(0, means.shape[:2]) for part in zip(*parts))
    return frames, variances.sqrt()


def _backward(model: DSE, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Frames ``(n, channels)`` and ``J C J'`` on its diagonal, a row of the Jacobian at a time."""
    frames, pull = torch.func.vjp(model.decode, mean)
    rows = (
        pull(torch.eye(frames.shape[-1], dtype=frames.dtype, device=frames.device)[c].expand_as(frames))[0]
        for c in range(frames.shape[-1])
    )
    return frames, torch.stack([((row[:, None] @ covariance)[:, 0] * row).sum(-1) for row in rows], -1).clamp_min(0)


def _forward(model: DSE, mean: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """The same for frames with many numbers, a direction of the root of the covariance at a time."""
    variance = torch.zeros((), device=mean.device)
    for direction in root.unbind(-1):
        frames, change = torch.func.jvp(model.decode, (mean,), (direction,))
        variance = variance + change.square()
    return frames, variance


def _like(y: Tensor, model: DSE, result: Any) -> Any:
    """The result, without its batch axis if `y` has none."""
    return result if y.ndim == len(model.config.element) + 2 else _first(result)


def _first(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value[0]
    return type(value)(*(_first(getattr(value, field.name)) for field in dataclasses.fields(value)))

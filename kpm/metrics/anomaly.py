"""Anomalies by what an autoencoder of normal series cannot rebuild ([KANN] sec. 4.2)."""

from __future__ import annotations

import dataclasses

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from kpm.datasets.signals import Signals
from kpm.solvers import checks

PUBLISHED_THRESHOLD = 26.0


@dataclasses.dataclass(frozen=True)
class Detection:
    """How normal and anomalous series are told apart by a threshold of the rebuilding error.

    Attributes
    ----------
    threshold : float
        Series whose error is below it count as normal.
    normal_share : float
        Share of the normal series that do: the accuracy of [KANN], whose splits have no others.
    accuracy, auc : float or None
        Share of all series that are told rightly, and the area under the curve over all thresholds; None if the split
        has no anomalies.
    normal, anomalous : int
        Number of series.
    """

    threshold: float
    normal_share: float
    accuracy: float | None
    auc: float | None
    normal: int
    anomalous: int


@torch.no_grad()
def errors(model: nn.Module, values: Tensor, size: int = 256) -> Tensor:
    """How far series are from what a model makes of them: sums over time and channels of absolute differences.

    Parameters
    ----------
    model : nn.Module
        From series to series of the same shape.
    values : Tensor
        Floating point ``(n, t, channels)``.
    size : int
        Series at a time.

    Returns
    -------
    Tensor
        ``(n,)``, in the unit of `values`.

    Raises
    ------
    ValueError
        For another type or shape, a number that is not finite (its index is named), or a `size` below 1.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point() or values.ndim != 3:
        is_tensor = isinstance(values, Tensor)
        have = f"{values.dtype} of shape {tuple(values.shape)}" if is_tensor else type(values).__name__
        raise ValueError(f"values: expected floats (n, t, channels), got {have}")
    checks.finite(values, "values")
    checks.count(size, "size", 1, 10**9)
    model.eval()
    return torch.cat([(model(v) - v).abs().sum((1, 2)) for v in values.split(size)])


def best_threshold(normal: Tensor, anomalous: Tensor) -> float:
    """The threshold between errors that tells most series rightly, each class weighing the same; midway if several.

    Raises
    ------
    ValueError
        If one of the two has no series, or an error is not finite.
    """
    if not len(normal) or not len(anomalous):
        raise ValueError(f"normal, anomalous: both are needed, got {len(normal)} and {len(anomalous)}")
    checks.finite(normal, "normal")
    checks.finite(anomalous, "anomalous")
    places = torch.cat([normal, anomalous]).double().unique()
    edges = torch.cat([places[:1] - 1, (places[1:] + places[:-1]) / 2, places[-1:] + 1])
    kept = torch.searchsorted(normal.double().sort().values, edges) / len(normal)
    caught = 1 - torch.searchsorted(anomalous.double().sort().values, edges) / len(anomalous)
    score = kept + caught
    best = (score == score.max()).nonzero().flatten()
    return float(edges[best].mean()) if len(best) == 1 or bool((best.diff() == 1).all()) else float(edges[best[0]])


def detection(
    model: nn.Module, data: Signals, validation: Signals | None = None, threshold: float = PUBLISHED_THRESHOLD
) -> Detection:
    """Tell the series of `data` by `threshold`, or by the best one on `validation` if that has anomalies.

    Raises
    ------
    ValueError
        If `data` has no normal series.
    """
    if validation is not None and bool(validation.anomalous.any()):
        found = errors(model, validation.values)
        threshold = best_threshold(found[~validation.anomalous], found[validation.anomalous])
    found, odd = errors(model, data.values), data.anomalous
    if bool(odd.all()):
        raise ValueError(f"data: {data.name!r} ({data.split}) has no normal series")
    right = (found < threshold) != odd
    mixed = bool(odd.any())
    return Detection(
        threshold=threshold,
        normal_share=float(right[~odd].double().mean()),
        accuracy=float(right.double().mean()) if mixed else None,
        auc=float(roc_auc_score(odd.cpu().numpy(), found.cpu().numpy())) if mixed else None,
        normal=int((~odd).sum()),
        anomalous=int(odd.sum()),
    )

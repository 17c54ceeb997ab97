"""``kpm kann ecg``: what the encoder of heartbeats computes, from its states ([KANN] secs. 4.2 and 4.3)."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import torch
from torch import Tensor

from kpm.analysis.kann import KANN
from kpm.datasets.signals import Signals
from kpm.metrics.anomaly import PUBLISHED_THRESHOLD
from kpm.models.beat_autoencoder import BeatAutoencoder


@dataclasses.dataclass(frozen=True)
class EcgAnalysis:
    """What was found on the normal beats of a split.

    Attributes
    ----------
    kann : KANN
        Fitted.
    fitted_on : str
    e_rel, agreement : float
        One-step relative error of states ([KANN] eq. 12), and the share of beats on which the decision (rebuilt with an
        error below `threshold` or not) is the same from the predicted last state.
    losses, losses_predicted : Tensor
        Rebuilding errors ``(n,)`` from true and from predicted last states.
    dominant : tuple of int
        Modes by their mean magnitude, the largest first.
    threshold : float
    fit_s : float
    """

    kann: KANN
    fitted_on: str
    e_rel: float
    agreement: float
    losses: Tensor
    losses_predicted: Tensor
    dominant: tuple[int, ...]
    threshold: float
    fit_s: float


def normal(data: Signals) -> Tensor:
    """The normal beats of a split, ``(n, t, 1)``."""
    return data.values[~data.anomalous]


@torch.inference_mode()
def states_of(model: BeatAutoencoder, beats: Tensor, size: int = 256) -> Tensor:
    """Encoder states ``(n, t, hidden)``."""
    return torch.cat([model.states(b) for b in beats.split(size)])


@torch.inference_mode()
def loss_of(model: BeatAutoencoder, codes: Tensor, beats: Tensor) -> Tensor:
    """Sum of absolute errors ``(n,)`` of what codes ``(n, hidden)`` decode to."""
    return (model.decode(codes.to(beats.dtype), beats.shape[1]) - beats).abs().sum((1, 2))


def analyse(
    model: BeatAutoencoder,
    fit_on: Tensor,
    beats: Tensor,
    fitted_on: str = "train",
    threshold: float = PUBLISHED_THRESHOLD,
    kann: KANN | None = None,
) -> EcgAnalysis:
    """Fit a Koopman analysis to the states of some beats and try it on others.

    Parameters
    ----------
    model : BeatAutoencoder
    fit_on, beats : Tensor
        Normal beats ``(n, t, 1)``.
    kann : KANN, optional
        Not fitted; with its settings.
    """
    began = time.monotonic()
    kann = (kann or KANN()).fit(states_of(model, fit_on))
    kann.eigenvalues_  # noqa: B018 - worked out when asked for
    fit_s = time.monotonic() - began
    h = states_of(model, beats)
    predicted = torch.as_tensor(kann.predict(h[:, -2], 1))
    losses, after = loss_of(model, h[:, -1], beats), loss_of(model, predicted, beats)
    return EcgAnalysis(
        kann=kann,
        fitted_on=fitted_on,
        e_rel=kann.relative_error(h),
        agreement=float(((losses < threshold) == (after < threshold)).double().mean()),
        losses=losses,
        losses_predicted=after,
        dominant=tuple(int(j) for j in kann.dominant(h)),
        threshold=threshold,
        fit_s=fit_s,
    )


def dominant_pairs(found: EcgAnalysis, count: int = 4) -> list[tuple[int, ...]]:
    """The `count` conjugate pairs (or single real modes) of largest magnitude, each once."""
    of = {j: pair for pair in found.kann.pairs_ for j in pair}
    return list(dict.fromkeys(of[j] for j in found.dominant))[:count]


@torch.inference_mode()
def pair_beats(
    model: BeatAutoencoder, kann: KANN, beats: Tensor, pairs: list[tuple[int, ...]], pair: str = "real"
) -> Tensor:
    """What the last states' part in each pair decodes to, ``(pairs, n, t, 1)`` ([KANN] eq. 11)."""
    last = states_of(model, beats)[:, -1]
    parts = [torch.as_tensor(kann.reconstruct(last, list(p), pair)) for p in pairs]
    return torch.stack([model.decode(p.to(beats.dtype), beats.shape[1]) for p in parts])


@torch.inference_mode()
def truncation_errors(
    model: BeatAutoencoder, found: EcgAnalysis, beats: Tensor, counts: list[int]
) -> dict[str, np.ndarray]:
    """Mean rebuilding error from the last state's part in the first `counts` directions: Koopman modes against PCA.

    Modes are taken with their conjugates in the order of `EcgAnalysis.dominant`; principal axes are of the states the
    analysis was fitted to.
    """
    kann, last = found.kann, states_of(model, beats)[:, -1]
    pca = KANN(basis="pca").fit_moments(kann.moments_)
    axes, mean = torch.as_tensor(pca.basis_), torch.as_tensor(pca.mean_)
    groups = dominant_pairs(found, len(kann.pairs_))
    errors: dict[str, list[float]] = {"Koopman modes": [], "principal axes": []}
    for count in counts:
        modes: list[int] = []
        for group in groups:
            if len(modes) + len(group) > count:
                break
            modes += group
        code = torch.as_tensor(kann.reconstruct(last, modes, "real"))
        errors["Koopman modes"].append(float(loss_of(model, code, beats).mean()))
        centred = (last.double() - mean) @ axes[:, :count]
        errors["principal axes"].append(float(loss_of(model, centred @ axes[:, :count].T + mean, beats).mean()))
    return {k: np.array(v) for k, v in errors.items()}

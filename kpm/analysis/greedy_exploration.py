"""Greedy latent exploration: which static components carry which factor ([SSM-SKD] sec. 4.1.4).

Keep a single static component of each film and swap all others; the factor whose accuracy gains most over keeping
nothing gets the component. Each component is looked at by itself, so the cost is one measurement per component instead
of one per subset of components.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from kpm.datasets.base import SequenceDataset
from kpm.errors import pick
from kpm.metrics.swaps import Keep, SwapConfig, measure
from kpm.models.judge import Judge
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.models.parts import Parts, take_apart


@dataclasses.dataclass(frozen=True)
class Exploration:
    """What each static component does.

    Attributes
    ----------
    factors : tuple of str
        Static factors, the columns of the tables.
    reference, reference_se : ndarray
        ``(factors,)``, accuracies with nothing kept, and standard errors over repeats.
    gain, gain_se : ndarray
        ``(components, factors)``, what keeping a component adds to them.
    partition : dict of str to tuple of int
        Components of each factor.
    rest : tuple of int
        Components that add to none.
    """

    factors: tuple[str, ...]
    reference: np.ndarray
    reference_se: np.ndarray
    gain: np.ndarray
    gain_se: np.ndarray
    partition: dict[str, tuple[int, ...]]
    rest: tuple[int, ...]


def explore(
    model: KoopmanAutoencoder,
    judge: Judge,
    data: SequenceDataset,
    config: SwapConfig | None = None,
    dynamics: Literal["swapped", "kept"] = "swapped",
    parts: Parts | None = None,
    progress: bool = False,
) -> Exploration:
    """Assign each static component to the static factor that gains most from keeping it.

    Parameters
    ----------
    config : SwapConfig, optional
        ``partner="mixture"`` with `dynamics` swapped is how the published figures were made; ``partner="instance"``
        with `dynamics` kept is how the thesis's text describes it.
    parts : Parts, optional
        What `take_apart` gives for `model` and `data`.

    Raises
    ------
    UserError
        As `kpm.metrics.swaps.measure` does.
    """
    kept = pick("dynamics", dynamics, ("swapped", "kept")) == "kept"
    parts = take_apart(model, data) if parts is None else parts
    keeps = [Keep((), kept), *(Keep((c,), kept) for c in range(parts.components))]
    scores = measure(model, judge, data, keeps, config, parts, progress)
    static = [scores.factors.index(f) for f in data.static]
    return assign(data.static, scores.accuracy[0, static], scores.accuracy[1:, static])


def assign(factors: tuple[str, ...], reference: np.ndarray, single: np.ndarray) -> Exploration:
    """The greedy partition from accuracies.

    Parameters
    ----------
    reference : ndarray
        ``(factors, repeats)``, nothing kept.
    single : ndarray
        ``(components, factors, repeats)``, one component kept.
    """
    repeats = reference.shape[-1]
    difference = single - reference
    gain = difference.mean(-1)
    spread = [d.std(-1, ddof=1) / repeats**0.5 for d in (reference, difference)]
    best = gain.argmax(1)  # the first of equal factors
    owner = np.where(gain.max(1) > 0, best, -1)
    return Exploration(
        factors=tuple(factors),
        reference=reference.mean(-1),
        reference_se=spread[0],
        gain=gain,
        gain_se=spread[1],
        partition={f: tuple(np.flatnonzero(owner == i).tolist()) for i, f in enumerate(factors)},
        rest=tuple(np.flatnonzero(owner == -1).tolist()),
    )

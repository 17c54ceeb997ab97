"""Heartbeats drawn by our own code: a stand-in for ECG5000, for machines without it.

A beat is a sum of Gaussian waves P, Q, R, S, T over one cycle, as the vertical axis of the model of McSharry, Clifford,
Tarassenko, Smith (IEEE Trans. Biomed. Eng. 2003) has them, and a sixth between S and T, flat in a healthy heart. Every
beat has its own heights, places and widths. Results on these beats are results on these beats.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from kpm.datasets import ecg5000
from kpm.datasets.ecg5000 import SAMPLES, SPLITS
from kpm.datasets.signals import Signals
from kpm.errors import pick

WAVES = ("P", "Q", "R", "S", "ST", "T")
CLASS_NAMES = ("normal", "wide QRS", "ST change", "missing P", "inverted T", "early beat")
COUNTS = (2919, 417, 416, 416, 416, 416)  # as many normal beats and others as in ECG5000
SEED = 7253
# Height in mV, place and width (one standard deviation) in parts of the cycle.
_HEIGHTS = np.array([0.16, -0.12, 1.1, -0.25, 0.0, 0.32])
_PLACES = np.array([0.24, 0.372, 0.4, 0.43, 0.51, 0.64])
_WIDTHS = np.array([0.025, 0.009, 0.012, 0.011, 0.045, 0.045])
_NOISE, _WANDER = 0.012, 0.03  # mV


@dataclasses.dataclass(frozen=True)
class Morphology:
    """Waves of each beat: heights in mV, places and widths in parts of the cycle, float64 ``(n, 6)``; see `WAVES`."""

    heights: np.ndarray
    places: np.ndarray
    widths: np.ndarray


def morphology(labels: np.ndarray, stream: np.random.RandomState) -> Morphology:
    """Draw the waves of beats of given classes, ``(n,)``.

    A wide QRS complex is two to three times as wide and lower; an ST change lifts or sinks what follows S; a missing P
    wave has a height below 3 %; an inverted T wave points down; an early beat comes 0.1 to 0.18 of the cycle too soon,
    its P wave nearer to it and lower.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not np.isin(labels, range(len(CLASS_NAMES))).all():
        raise ValueError(f"labels: expected whole numbers from 0 to {len(CLASS_NAMES) - 1}, (n,), got {labels!r}")
    count = len(labels)
    heights = _HEIGHTS * np.exp(0.12 * stream.standard_normal((count, len(WAVES))))
    widths = _WIDTHS * np.exp(0.08 * stream.standard_normal((count, len(WAVES))))
    drift = 0.006 * stream.standard_normal((count, 1))  # of the whole beat
    places = (
        _PLACES
        + drift
        + np.array([0.008, 0.001, 0.0, 0.001, 0.005, 0.012]) * stream.standard_normal((count, len(WAVES)))
    )
    qrs = [WAVES.index(w) for w in ("Q", "R", "S")]
    r, st, p, t = (WAVES.index(w) for w in ("R", "ST", "P", "T"))
    u, sign = stream.random_sample((count, 2)), np.where(stream.random_sample(count) < 0.5, -1.0, 1.0)

    def of(name: str) -> np.ndarray:
        return labels == CLASS_NAMES.index(name)

    wide, factor = of("wide QRS"), 2.0 + u[:, :1]
    broad = places[:, [r]] + factor * (places[:, qrs] - places[:, [r]])
    places[:, qrs] = np.where(wide[:, None], broad, places[:, qrs])
    widths[:, qrs] *= np.where(wide[:, None], factor, 1.0)
    heights[:, r] *= np.where(wide, 0.7, 1.0)
    heights[:, st] = np.where(of("ST change"), sign * (0.18 + 0.17 * u[:, 0]), 0.02 * sign * u[:, 0])
    heights[:, p] *= np.where(of("missing P"), 0.03 * u[:, 0], 1.0)
    heights[:, t] *= np.where(of("inverted T"), -(0.6 + 0.6 * u[:, 0]), 1.0)
    early = of("early beat")
    places -= np.where(early, 0.1 + 0.08 * u[:, 0], 0.0)[:, None]
    places[:, p] += np.where(early, 0.05, 0.0)
    heights[:, p] *= np.where(early, 0.5, 1.0)
    return Morphology(heights, places, widths)


def draw(waves: Morphology, samples: int = SAMPLES) -> np.ndarray:
    """The sum of the waves at evenly spaced times of one cycle, mV, float64 ``(n, samples)``."""
    time = np.linspace(0, 1, samples)
    beats = np.zeros((len(waves.heights), samples))
    for height, place, width in zip(waves.heights.T, waves.places.T, waves.widths.T):
        beats += height[:, None] * np.exp(-0.5 * ((time - place[:, None]) / width[:, None]) ** 2)
    return beats


def simulate(labels: np.ndarray, seed: int) -> tuple[np.ndarray, Morphology]:
    """Beats of given classes and the waves they are made of; the same for the same arguments on every machine.

    Returns
    -------
    float32 array ``(n, 140)``
        With noise of 0.012 mV and a slow wander of 0.03 mV added, then mean 0 and standard deviation 1 (n - 1) each, as
        ECG5000.
    Morphology
    """
    stream = np.random.RandomState(seed)  # the legacy stream, the same for every version of numpy
    waves = morphology(labels, stream)
    count, time = len(labels), np.linspace(0, 1, SAMPLES)
    speed, phase = 0.2 + 0.4 * stream.random_sample((count, 1)), stream.random_sample((count, 1))
    wander = _WANDER * np.sin(2 * np.pi * (speed * time + phase))
    beats = draw(waves) + wander + _NOISE * stream.standard_normal((count, SAMPLES))
    beats -= beats.mean(1, keepdims=True)
    return (beats / beats.std(1, ddof=1, keepdims=True)).astype(np.float32), waves


@functools.lru_cache(maxsize=1)
def _all() -> tuple[np.ndarray, np.ndarray]:
    labels = np.random.RandomState(SEED).permutation(np.repeat(np.arange(len(COUNTS)), COUNTS))
    return simulate(labels, SEED)[0], labels


def load(split: str = "train") -> Signals:
    """Synthetic beats, with the splits of `kpm.datasets.ecg5000` by name and of the same sizes."""
    pick("split", split, SPLITS)
    text = "heartbeats drawn by kpm as sums of Gaussian waves, five kinds of anomaly, standardised"
    return ecg5000.dataset(*_all(), split, "beats", "synthetic", CLASS_NAMES, text)

"""Yin-Yang: points of a disc in three classes that no straight line parts (Kriener, Goeltz, Petrovici, NICE 2022).

The published draw is read from its files; `draw` makes points by the same rule from any seed. With the published seeds
both are the same numbers.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from kpm.datasets.points import Points
from kpm.errors import UserError, pick

CLASS_NAMES = ("yin", "yang", "dot")
LARGE, SMALL = 0.5, 0.1  # radii of the disc and of the dots


class Draw(NamedTuple):
    """Seed and number of points of a published split."""

    seed: int
    count: int


SPLITS = {"train": Draw(42, 5000), "validation": Draw(41, 1000), "test": Draw(40, 1000)}


def classes(points: np.ndarray) -> np.ndarray:
    """`class_of` each point, int64 ``(n,)``.

    Parameters
    ----------
    points : array ``(n, 2)``
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points: expected shape (n, 2), got {points.shape}")
    return np.array([class_of(x, y) for x, y in points.tolist()], np.int64)


def class_of(x: float, y: float) -> int:
    """Class of one point: 0 yin, 1 yang, 2 dot, -1 outside of the disc."""
    if (x - LARGE) ** 2 + (y - LARGE) ** 2 > LARGE**2:
        return -1
    left = ((x - LARGE / 2) ** 2 + (y - LARGE) ** 2) ** 0.5
    right = ((x - 3 * LARGE / 2) ** 2 + (y - LARGE) ** 2) ** 0.5
    if left < SMALL or right < SMALL:
        return 2
    return int(left <= LARGE / 2 or (y > LARGE and right > LARGE / 2))


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points by the published rule: float64 ``(count, 2)`` and their classes int64 ``(count,)``.

    For each point the class is drawn first, then points of the unit square until one is of that class: a third of the
    points is of each class on average, however small its area.

    Parameters
    ----------
    count : int
    seed : int
        Of numpy's legacy stream, as published.
    """
    if count < 1:
        raise ValueError(f"count: expected 1 or more, got {count}")
    stream = np.random.RandomState(seed)
    points, labels = np.empty((count, 2)), np.empty(count, np.int64)
    for i in range(count):
        labels[i] = stream.randint(3)
        # The stream is used up point by point, so how many are tried decides all that follow: no batches here.
        while class_of(*(point := stream.rand(2))) != labels[i]:
            pass
        points[i] = point
    return points, labels


def load(split: str = "train", root: Path | None = None) -> Points:
    """The published draw; its first two coordinates, the other two being ``1 - x`` and ``1 - y``."""
    from kpm.datasets import registry

    pick("split", split, SPLITS)
    folder = registry.fetch("yinyang", root)
    values, labels = (np.load(folder / f"{split}_{kind}.npy", allow_pickle=False) for kind in ("samples", "labels"))
    if values.ndim != 2 or values.shape[1] < 2 or labels.shape != values.shape[:1]:
        raise UserError(f"{folder}: expected samples (n, 4) and labels (n,), found {values.shape} and {labels.shape}")
    return _dataset(values[:, :2], labels, "yinyang", "real", split)


def load_drawn(split: str = "train") -> Points:
    """Points drawn here with the seeds and sizes of the published draw."""
    points, labels = _drawn(pick("split", split, SPLITS))
    return _dataset(points, labels, "yinyang_drawn", "synthetic", split)


@functools.lru_cache(maxsize=3)
def _drawn(split: str) -> tuple[np.ndarray, np.ndarray]:
    return draw(SPLITS[split].count, SPLITS[split].seed)


def _dataset(points: np.ndarray, labels: np.ndarray, name: str, source: str, split: str) -> Points:
    return Points(
        values=torch.from_numpy(points.astype(np.float64)),
        labels=torch.from_numpy(labels.astype(np.int64)),
        name=name,
        source=source,
        split=split,
        class_names=CLASS_NAMES,
        description="points of a disc: yin, yang and the two dots",
    )

"""Digits drawn by our own code: a stand-in for MNIST, for machines without it.

Each digit is a line through a few points of the unit square, bent, turned, slanted and scaled at random and drawn with
a pen of random width. Results on these digits are results on these digits: they are much easier than handwriting.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from kpm.datasets.images import Images
from kpm.datasets.mnist import SPLITS, held_out
from kpm.errors import pick

SIDE = 28
SEED = 7253
COUNTS = {"train": 8000, "test": 2000}
# Points of the pen, x to the right and y down, in the unit square.
_STROKES = (
    ((0.5, 0.0), (0.85, 0.2), (0.9, 0.5), (0.8, 0.85), (0.5, 1.0), (0.2, 0.85), (0.1, 0.5), (0.15, 0.2), (0.5, 0.0)),
    ((0.3, 0.2), (0.55, 0.0), (0.55, 0.5), (0.55, 1.0)),
    ((0.15, 0.25), (0.35, 0.0), (0.7, 0.0), (0.85, 0.25), (0.6, 0.6), (0.1, 1.0), (0.9, 1.0)),
    ((0.15, 0.1), (0.5, 0.0), (0.85, 0.2), (0.7, 0.42), (0.4, 0.48), (0.8, 0.58), (0.85, 0.85), (0.5, 1.0), (0.1, 0.9)),
    ((0.65, 1.0), (0.65, 0.5), (0.65, 0.0), (0.1, 0.65), (0.5, 0.65), (0.9, 0.65)),
    ((0.85, 0.0), (0.25, 0.0), (0.2, 0.45), (0.6, 0.4), (0.85, 0.65), (0.7, 0.95), (0.4, 1.0), (0.1, 0.9)),
    ((0.75, 0.0), (0.35, 0.2), (0.15, 0.6), (0.25, 0.95), (0.6, 1.0), (0.85, 0.8), (0.7, 0.55), (0.4, 0.5), (0.2, 0.7)),
    ((0.1, 0.0), (0.5, 0.0), (0.9, 0.0), (0.65, 0.4), (0.45, 0.75), (0.35, 1.0)),
    (
        (0.5, 0.47), (0.2, 0.3), (0.3, 0.05), (0.7, 0.05), (0.8, 0.3), (0.5, 0.47),
        (0.15, 0.7), (0.3, 0.98), (0.7, 0.98), (0.85, 0.7), (0.5, 0.47),
    ),
    ((0.8, 0.3), (0.5, 0.5), (0.2, 0.35), (0.3, 0.05), (0.65, 0.0), (0.8, 0.3), (0.75, 0.7), (0.6, 1.0)),
)  # fmt: skip


def draw(labels: np.ndarray, seed: int) -> np.ndarray:
    """Digits of given classes, uint8 ``(n, 28, 28)``; the same for the same arguments on every machine.

    Raises
    ------
    ValueError
        If `labels` is not ``(n,)`` with whole numbers from 0 to 9.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not np.isin(labels, range(10)).all():
        raise ValueError(f"labels: expected whole numbers from 0 to 9, (n,), got {labels.dtype} {labels.shape}")
    stream = np.random.RandomState(seed)  # the legacy stream, the same for every version of numpy
    images = np.empty((len(labels), SIDE, SIDE), np.uint8)
    for digit in range(10):
        rows = np.flatnonzero(labels == digit)
        for part in np.array_split(rows, -(-len(rows) // 500)) if len(rows) else ():
            images[part] = _ink(_bent(np.array(_STROKES[digit]), len(part), stream), stream)
    return images


def _bent(points: np.ndarray, count: int, stream: np.random.RandomState) -> np.ndarray:
    """Points of `count` digits in pixels, ``(count, points, 2)``."""
    shaken = points - 0.5 + 0.035 * stream.standard_normal((count, *points.shape))
    angle, slant = 0.16 * stream.standard_normal((2, count))
    width, height = 13 + 1.6 * stream.standard_normal(count), 18.5 + 1.4 * stream.standard_normal(count)
    shaken *= np.stack([width, height], -1)[:, None]
    x, y = shaken[..., 0] - slant[:, None] * shaken[..., 1], shaken[..., 1]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    turned = np.stack([cos * x - sin * y, sin * x + cos * y], -1)
    return turned + (SIDE - 1) / 2 + 0.8 * stream.standard_normal((count, 1, 2))


def _ink(points: np.ndarray, stream: np.random.RandomState) -> np.ndarray:
    """Draw lines through `points` ``(n, p, 2)``: black where the nearest one is further than the pen is wide."""
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).astype(np.float32)  # x, y of each pixel
    nearest = np.full((len(points), SIDE, SIDE), np.inf, np.float32)
    for start, end in zip(points[:, :-1].swapaxes(0, 1), points[:, 1:].swapaxes(0, 1)):
        start, along = (a.astype(np.float32)[:, None, None] for a in (start, end - start))
        offset = grid - start
        share = np.clip((offset * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-6), 0, 1)
        nearest = np.minimum(nearest, ((offset - share[..., None] * along) ** 2).sum(-1))
    pen = np.clip(1.15 + 0.25 * stream.standard_normal((len(points), 1, 1)), 0.7, 2).astype(np.float32)
    return np.round(255 * np.clip(pen + 0.5 - np.sqrt(nearest), 0, 1)).astype(np.uint8)


@functools.lru_cache(maxsize=2)
def _half(half: str) -> tuple[torch.Tensor, torch.Tensor]:
    seed = SEED + (half == "test")
    labels = np.random.RandomState(seed).permutation(np.arange(COUNTS[half]) % 10)
    return torch.from_numpy(draw(labels, seed)).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))


def load(split: str = "train") -> Images:
    """Drawn digits, with the splits of `kpm.datasets.mnist` by name: 7200, 800 and 2000 images."""
    pick("split", split, SPLITS)
    images, labels = _half("test" if split.endswith("test") else "train")
    if split in ("train", "validation"):
        rows = held_out(len(images), split)
        images, labels = images[rows], labels[rows]
    text = "digits drawn by kpm as lines through a few points, bent and turned at random"
    return Images(images, labels, "drawn_digits", "synthetic", split, description=text)

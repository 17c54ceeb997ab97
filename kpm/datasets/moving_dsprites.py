"""Moving dSprites: 6 colours x 3 shapes whose scale, x and y change, in 10, 8 and 8 ways; 8 frames.

The films of `kpm.datasets.dsprites` with shapes that also travel, x and y each along one of eight tracks
([SSM-SKD] sec. 4.2). From the published pictures, or under another name from our own.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kpm.datasets.base import SequenceDataset
from kpm.datasets.dsprites import SPLITS, Painter, class_names, pictures_of, published
from kpm.datasets.dsprites_renderer import SIZE
from kpm.datasets.trajectories import FRAMES, TRACKS, shuffled
from kpm.errors import pick

FACTOR_SIZES = {"color": 6, "shape": 3, "scale": 10, "x": 8, "y": 8}


def split_factors(split: str) -> dict[str, Tensor]:
    """Labels of a split's films, integer ``(n,)`` each.

    All 11520 films are shuffled and divided (`kpm.datasets.trajectories.shuffled`), so every combination of static
    factors is in every split.
    """
    sizes = tuple(FACTOR_SIZES.values())
    labels = np.unravel_index(shuffled(math.prod(sizes), split), sizes)
    return {name: torch.from_numpy(np.ascontiguousarray(v)).long() for name, v in zip(FACTOR_SIZES, labels)}


@functools.lru_cache(maxsize=2)
def _painter(path: Path | None) -> Painter:
    return Painter(pictures_of(path), tuple(TRACKS.values()))


def _dataset(path: Path | None, split: str) -> SequenceDataset:
    tracks = tuple(TRACKS)
    return SequenceDataset(
        name="moving_dsprites" if path else "moving_dsprites_rerender",
        source="real" if path else "re-render",
        split=split,
        factors=split_factors(split),
        factor_sizes=FACTOR_SIZES,
        static=("color", "shape"),
        dynamic=("scale", "x", "y"),
        shape=(FRAMES, 3, SIZE, SIZE),
        compose=_painter(path),
        class_names={**class_names(), "x": tracks, "y": tracks},
        description="a coloured shape that grows, shrinks and travels; ten scale trajectories, eight tracks"
        + ("" if path else "; pictures drawn by kpm after dSprites"),
    )


def load(split: str = "train", root: Path | None = None) -> SequenceDataset:
    """Films of the published pictures; `root` is a folder for downloads other than the usual cache."""
    pick("split", split, SPLITS)
    return _dataset(published(root), split)


def load_rerender(split: str = "train") -> SequenceDataset:
    """The same films of pictures drawn by `kpm.datasets.dsprites_renderer`."""
    pick("split", split, SPLITS)
    return _dataset(None, split)

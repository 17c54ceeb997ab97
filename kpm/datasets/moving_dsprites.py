"""Moving dSprites: 6 colours x 3 shapes whose scale, x and y change, in 10, 8 and 8 ways; 8 frames.

The films of `kpm.datasets.dsprites` with shapes that also travel, x and y each along one of eight tracks
([SSM-SKD] sec. 4.2). From the published pictures, or under another name from our own.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from kpm.datasets.dsprites import Films
from kpm.datasets.trajectories import TRACKS, shuffled

FACTOR_SIZES = {"color": 6, "shape": 3, "scale": 10, "x": 8, "y": 8}


def split_factors(split: str) -> dict[str, Tensor]:
    """Labels of a split's films, integer ``(n,)`` each.

    All 11520 films are shuffled and divided (`kpm.datasets.trajectories.shuffled`), so every combination of static
    factors is in every split.
    """
    sizes = tuple(FACTOR_SIZES.values())
    labels = np.unravel_index(shuffled(math.prod(sizes), split), sizes)
    return {name: torch.from_numpy(np.ascontiguousarray(v)).long() for name, v in zip(FACTOR_SIZES, labels)}


_FILMS = Films(
    name="moving_dsprites",
    description="a coloured shape that grows, shrinks and travels; ten scale trajectories, eight tracks",
    factor_sizes=FACTOR_SIZES,
    static=("color", "shape"),
    dynamic=("scale", "x", "y"),
    tracks=TRACKS,
    split_factors=split_factors,
)
load, load_rerender = _FILMS.load, _FILMS.load_rerender

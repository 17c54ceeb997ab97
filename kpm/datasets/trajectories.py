"""How the films of dSprites move and how they are split: ten scale trajectories, eight position tracks, eight frames.

The rules are those of the published generating scripts, restated, with Python's random numbers of seed 42. Those
scripts' order of drawing is not known to the last detail; where it is open the plainest reading is taken (trajectories
and splits each from a stream of their own), so both have the published form, not necessarily the published values.
"""

from __future__ import annotations

import functools
import random

import numpy as np

from kpm.errors import pick

SEED, FRAMES = 42, 8
_LEVELS = (0, 1, 2, 3, 4, 5, 4, 3, 2, 1)
_SPEEDS = (2, 1, 0, -1, -2, -1, 0, 1)
_COUNT = 10
# Classes of position, of 32, frame by frame; the same eight tracks for x and y.
TRACKS = {
    "to and fro": (31, 0, 31, 0, 31, 0, 31, 0),
    "back by 2": (19, 17, 15, 13, 11, 9, 7, 5),
    "on by 3": (0, 3, 6, 9, 12, 15, 18, 21),
    "on by 4": (2, 6, 10, 14, 18, 22, 26, 30),
    "back in steps": (27, 27, 19, 19, 11, 11, 3, 3),
    "back and on": (30, 20, 20, 10, 10, 20, 20, 30),
    "Fibonacci": (1, 1, 2, 3, 5, 8, 13, 21),
    "primes": (31, 29, 23, 19, 17, 13, 11, 7),
}


@functools.lru_cache(maxsize=64)
def scale_trajectories(seed: int = SEED) -> tuple[tuple[int, ...], ...]:
    """The ten trajectories of the scale, eight classes 0-5 each; they differ from one another.

    A trajectory reads the head of a list of levels, which is rolled after each frame by the head of a list of speeds,
    which is itself rolled by 0, 1 or -1 at random, 0 twice as often as either. Both lists are rolled at random before
    the first frame. Rolls by positive steps go to the right, as those of `numpy.roll`. Another `seed` than that of the
    datasets shows what hangs on the draw.
    """
    stream = random.Random(seed)
    return tuple(_trajectory(stream) for _ in range(_COUNT))


def _trajectory(stream: random.Random) -> tuple[int, ...]:
    level, speed = -stream.randint(0, 5), -stream.randint(0, 4)  # heads of the lists
    trajectory = []
    for _ in range(FRAMES):
        trajectory.append(_LEVELS[level % len(_LEVELS)])
        level -= _SPEEDS[speed % len(_SPEEDS)]
        speed -= stream.choice((0, 0, 1, -1))
    return tuple(trajectory)


def shuffled(count: int, split: str) -> np.ndarray:
    """Numbers of a split among `count` things shuffled, each split in its order.

    ``paper-train`` is the first 80 % and ``paper-test`` the rest, which is also ``test``; ``validation`` is the last
    tenth of ``paper-train`` and ``train`` the others of it; ``all`` is every number in order.
    """
    order = list(range(count))
    random.Random(SEED).shuffle(order)
    paper = count * 4 // 5
    honest = paper - paper // 10
    parts = {
        "train": order[:honest],
        "validation": order[honest:paper],
        "test": order[paper:],
        "paper-train": order[:paper],
        "paper-test": order[paper:],
        "all": list(range(count)),
    }
    return np.array(parts[pick("split", split, parts)])

"""Sprites: animated characters from the Liberated Pixel Cup artwork, 6^4 looks x 9 actions, 8 frames of 64x64x3.

The rules that turn sheets into sequences are those of Li and Mandt (Disentangled Sequential Autoencoder, ICML 2018),
with their train/test division of characters available by name.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kpm.datasets.base import SequenceDataset
from kpm.datasets.layers import LAYERS, Compositor
from kpm.errors import pick

TILE, COLUMNS = 64, 13
FOLDERS = {"skin": "body", "pants": "bottomwear", "top": "topwear", "hair": "hair"}
SHOES = 1
ACTIONS = ("walk", "spellcard", "slash")
DIRECTIONS = ("front", "left", "right")
# Sheet row of each direction and the sheet column of each of the eight frames.
ROWS = {
    "walk": {"left": 9, "front": 10, "right": 11},
    "spellcard": {"left": 1, "front": 2, "right": 3},
    "slash": {"left": 13, "front": 14, "right": 15},
}
FRAMES = {
    "walk": (8, 1, 2, 3, 4, 5, 6, 7),
    "spellcard": (0, 1, 2, 3, 4, 5, 4, 6),
    "slash": (0, 1, 2, 3, 4, 5, 4, 0),
}
FACTOR_SIZES = {"skin": 6, "pants": 6, "top": 6, "hair": 6, "action": 9}
CLASS_NAMES = {
    "skin": ("light", "tan", "dark grey", "lavender", "brown", "black"),
    "pants": ("white", "gold", "red", "grey", "teal", "dark green"),
    "top": ("dark red", "teal", "white", "plate", "leather", "tie"),
    "hair": ("green", "blue", "orange", "white", "red", "purple"),
    "action": tuple(f"{a} {d}" for a in ACTIONS for d in DIRECTIONS),
}
SPLITS = ("train", "validation", "test", "paper-train", "paper-test", "all")
_PAPER_TRAIN, _VALIDATION = 1000, 100


def tiles(sheet: Image.Image) -> np.ndarray:
    """Cut the nine actions out of a sheet: uint8 ``(9, 8, 64, 64, 4)``."""
    rgba = np.asarray(sheet.convert("RGBA"))
    grid = rgba.reshape(rgba.shape[0] // TILE, TILE, COLUMNS, TILE, 4).swapaxes(1, 2)
    return np.stack([grid[ROWS[a][d], list(FRAMES[a])] for a in ACTIONS for d in DIRECTIONS])


def compositor(folder: Path) -> Compositor:
    """Read the sheets below `folder` (``body/0.png`` ...)."""

    def read(kind: str, number: int) -> np.ndarray:
        with Image.open(folder / kind / f"{number}.png") as sheet:
            return tiles(sheet)

    layers = {f: np.stack([read(FOLDERS[f], i) for i in range(FACTOR_SIZES[f])]) for f in LAYERS}
    return Compositor(layers, read("shoes", SHOES))


@functools.lru_cache(maxsize=2)
def _cached(folder: Path) -> Compositor:
    return compositor(folder)


def split_characters(split: str) -> np.ndarray:
    """Numbers of the characters in a split; a character number is ``skin*216 + pants*36 + top*6 + hair``.

    ``paper-train`` and ``paper-test`` are the division of the Sprites authors (legacy seed 423, 1000 and 296
    characters). ``test`` is the same as ``paper-test``; ``validation`` is 100 characters taken out of ``paper-train``,
    so that a model can be chosen without looking at the test characters.
    """
    order = np.random.RandomState(423).permutation(6**4)  # the legacy stream the published split is made of
    parts = {
        "train": order[: _PAPER_TRAIN - _VALIDATION],
        "validation": order[_PAPER_TRAIN - _VALIDATION : _PAPER_TRAIN],
        "test": order[_PAPER_TRAIN:],
        "paper-train": order[:_PAPER_TRAIN],
        "paper-test": order[_PAPER_TRAIN:],
        "all": np.arange(6**4),
    }
    return parts[pick("split", split, parts)]


def split_factors(split: str) -> dict[str, Tensor]:
    """Labels of a split's sequences, in the order of the published arrays for the paper's split.

    Characters come action by action; the published loader then shuffles train and test with one legacy stream of
    seed 0, first the 9000, then the 2664.
    """
    characters = split_characters(split)
    number, action = np.tile(characters, 9), np.repeat(np.arange(9), len(characters))
    if split.startswith("paper-"):
        stream = np.random.RandomState(0)
        order = stream.permutation(9 * _PAPER_TRAIN)
        if split == "paper-test":
            order = stream.permutation(len(number))
        number, action = number[order], action[order]
    looks = np.unravel_index(number, (6, 6, 6, 6))
    labels = dict(zip(FACTOR_SIZES, (*looks, action)))
    return {name: torch.from_numpy(np.ascontiguousarray(v)).long() for name, v in labels.items()}


def dataset(
    compose: Compositor, split: str, name: str, source: str, class_names: dict, description: str
) -> SequenceDataset:
    """A dataset on the Sprites factor grid, whoever drew the artwork."""
    return SequenceDataset(
        name=name,
        source=source,
        split=split,
        factors=split_factors(split),
        factor_sizes=FACTOR_SIZES,
        static=("skin", "pants", "top", "hair"),
        dynamic=("action",),
        shape=(8, 3, TILE, TILE),
        compose=compose,
        scale=256.0,
        class_names=class_names,
        description=description,
    )


def load(split: str = "train", root: Path | None = None) -> SequenceDataset:
    """Sprites from the real LPC sheets; `root` is a folder for downloads other than the usual cache."""
    from kpm.datasets import registry

    pick("split", split, SPLITS)
    folder = registry.fetch("sprites", root)
    text = "LPC characters: four items of clothing and skin in six variants each, three actions seen from three sides"
    return dataset(_cached(folder), split, "sprites", "real", CLASS_NAMES, text)

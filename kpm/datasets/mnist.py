"""MNIST: 70000 handwritten digits of 28 x 28 pixels (LeCun, Bottou, Bengio, Haffner 1998)."""

from __future__ import annotations

import functools
import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

from kpm.datasets.images import Images
from kpm.errors import UserError, pick

SPLITS = ("train", "validation", "test", "paper-train", "paper-test")
SEED, HELD_OUT = 7253, 0.1
_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_LARGEST = 1 << 26  # bytes; the training images unpack to 47 million


def parse(path: Path, ndim: int) -> np.ndarray:
    """Read a gz file of the IDX layout with bytes in it: two zeros, type 8, `ndim`, the sizes big-endian, the bytes.

    Raises
    ------
    UserError
        If the file is of another layout, damaged or truncated.
    """
    try:
        with gzip.open(path) as file:
            content = file.read(_LARGEST)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read as gz: {error}") from error
    start = 4 + 4 * ndim
    if content[:4] != bytes([0, 0, 8, ndim]) or len(content) < start:
        raise UserError(f"{path}: expected an IDX file of bytes with {ndim} axes, it starts {content[:4].hex()!r}")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", ndim, 4))
    values = np.frombuffer(content, np.uint8, offset=start)
    if values.size != np.prod(shape):
        raise UserError(f"{path}: expected {shape} bytes after the header, found {values.size}")
    return values.reshape(shape).copy()


@functools.lru_cache(maxsize=2)
def _half(folder: Path, half: str, mark: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    names = _FILES[half]
    images, labels = parse(folder / names[0], 3), parse(folder / names[1], 1)
    if images.shape[1:] != (28, 28) or len(images) != len(labels) or labels.max(initial=0) > 9:
        raise UserError(f"{folder / names[0]}: expected 28 x 28 pixels and a class 0 to 9 for each image")
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))


def held_out(count: int, split: str) -> torch.Tensor:
    """Rows of ``train`` (nine tenths) or ``validation`` (one tenth) among `count` for training, shuffled once."""
    order = torch.from_numpy(np.random.RandomState(SEED).permutation(count))
    cut = round(HELD_OUT * count)
    return order[cut:] if split == "train" else order[:cut]


def load(split: str = "train", root: Path | None = None) -> Images:
    """MNIST from the published files.

    ``paper-train`` (60000) and ``paper-test`` (10000) are the published halves; ``train`` and ``validation`` share the
    first, 54000 to 6000, and ``test`` is the second.
    """
    from kpm.datasets import registry

    pick("split", split, SPLITS)
    folder = registry.fetch("mnist", root)
    half = "test" if split.endswith("test") else "train"
    images, labels = _half(folder, half, tuple((folder / name).stat().st_mtime_ns for name in _FILES[half]))
    if split in ("train", "validation"):
        rows = held_out(len(images), split)
        images, labels = images[rows], labels[rows]
    return Images(images, labels, "mnist", "real", split, description="handwritten digits, 28 x 28 pixels of grey")

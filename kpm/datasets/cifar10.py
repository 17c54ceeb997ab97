"""CIFAR-10: 60000 colour photographs of 32 x 32 pixels in ten classes (Krizhevsky 2009).

Read from the binary version of the published archive, of which nothing is run. The Python version holds pickles, which
can run anything; it is not read.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch

from kpm import paths
from kpm.datasets import archives, drawn_digits
from kpm.datasets.images import Images
from kpm.datasets.mnist import SPLITS, held_out
from kpm.errors import UserError, pick

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILE = "cifar-10-binary.tar.gz"
PICKLED = ("cifar-10-python.tar.gz", "cifar-10-batches-py")
MEMBERS = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_ROW = 1 + 3 * 32 * 32  # a class, then the red, green and blue pixels, row by row


def parse(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``(n, 3, 32, 32)`` and classes int64 ``(n,)`` of one file of the binary version.

    Raises
    ------
    UserError
        If it is not of the published layout.
    """
    rows = np.frombuffer(content, np.uint8)
    if not len(rows) or len(rows) % _ROW:
        raise UserError(f"{name}: expected rows of {_ROW} bytes, found {len(rows)} bytes")
    rows = rows.reshape(-1, _ROW)
    if rows[:, 0].max() > 9:
        raise UserError(f"{name}: expected classes 0 to 9, found {rows[:, 0].max()}")
    return rows[:, 1:].reshape(-1, 3, 32, 32).copy(), rows[:, 0].astype(np.int64)


@functools.lru_cache(maxsize=1)
def _all(archive: Path, mark: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found = {}
    for name, content in archives.read(archive, lambda n: n.rpartition("/")[2] in MEMBERS, 1 << 25):
        found[name.rpartition("/")[2]] = parse(content, name)
    if absent := [name for name in MEMBERS if name not in found]:
        raise UserError(f"{archive} has no member {absent[0]!r}")
    return found


def load(split: str = "train", root: Path | None = None) -> Images:
    """CIFAR-10 from the published binary archive.

    ``paper-train`` (50000) and ``paper-test`` (10000) are the published parts; ``train`` and ``validation`` share the
    first, 45000 to 5000, and ``test`` is the second.

    Raises
    ------
    UserError
        Also where only the Python version is there, which is not read.
    """
    from kpm.datasets import registry

    pick("split", split, SPLITS)
    try:
        folder = registry.fetch("cifar10", root)
    except registry.Unavailable as error:
        if pickled := _pickled(root):
            raise UserError(
                f"{pickled} is the Python version of CIFAR-10, which holds pickles and is not read; get {FILE}"
            ) from error
        raise
    archive = folder / FILE
    parts = _all(archive, archive.stat().st_mtime_ns)
    chosen = [parts[name] for name in (MEMBERS[5:] if split.endswith("test") else MEMBERS[:5])]
    images, labels = (torch.from_numpy(np.concatenate(part)) for part in zip(*chosen))
    if split in ("train", "validation"):
        rows = held_out(len(images), split)
        images, labels = images[rows], labels[rows]
    text = "photographs of animals and vehicles, 32 x 32 pixels in colour"
    return Images(images, labels, "cifar10", "real", split, CLASS_NAMES, description=text)


def _pickled(root: Path | None) -> Path | None:
    places = [p / "cifar10" for p in (Path(root) if root else paths.cache(), paths.mirror()) if p is not None]
    return next((place / name for place in places for name in PICKLED if (place / name).exists()), None)


def load_tinted(split: str = "train") -> Images:
    """A stand-in of the same shape: drawn digits in one colour on another, with their own name and classes."""
    grey = drawn_digits.load(split)
    stream = np.random.RandomState(len(grey))  # the legacy stream, the same for every version of numpy
    paper, ink = (torch.from_numpy(stream.randint(*range_, (len(grey), 3, 1, 1))) for range_ in ((0, 120), (136, 256)))
    share = torch.nn.functional.pad(grey.values, (2, 2, 2, 2)).double() / 255
    values = (paper + share * (ink - paper)).round().to(torch.uint8)
    text = "digits drawn by kpm in one colour on another, 32 x 32 pixels"
    return Images(values, grey.labels, "tinted_digits", "synthetic", split, description=text)

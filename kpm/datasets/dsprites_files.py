"""Pictures of orientation 0 out of the published dSprites files, without unpacking their 3 GB into memory.

Both forms hold ``imgs`` (737280, 64, 64) uint8 of 0 and 1, every combination of shape, scale, orientation, x and y
once, the last one running fastest. The npz also has a pickled member, which is never opened.
"""

from __future__ import annotations

import contextlib
import functools
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kpm.datasets.dsprites_renderer import GRID, SIZE, pack
from kpm.errors import UserError

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@functools.lru_cache(maxsize=1)
def table(path: Path) -> np.ndarray:
    """Every picture of orientation 0, in the form of `kpm.datasets.dsprites_renderer.table`.

    Parameters
    ----------
    path : Path
        The file, ``.npz`` or ``.hdf5``.

    Raises
    ------
    UserError
        If the file cannot be read or is not of the published layout.
    """
    shapes, scales, _, *positions = GRID
    blocks = []
    with _layout_errors(path):
        for block in (_from_npz if path.suffix == ".npz" else _from_hdf5)(path):
            if block.max() > 1:
                raise UserError(f"{path}: 'imgs' should hold 0 and 1 only, found {block.max()}")
            blocks.append(pack(block))
    return np.stack(blocks).reshape(shapes, scales, *positions, SIZE, SIZE // 8)


def check(path: Path) -> None:
    """Raise a `UserError` unless the file has ``imgs`` of the published shape and type; reads its first block only."""
    with _layout_errors(path):
        next((_from_npz if path.suffix == ".npz" else _from_hdf5)(path))


def _sizes() -> tuple[int, int]:
    """Pictures of one shape, scale and orientation, and of one shape and scale."""
    return math.prod(GRID[3:]), math.prod(GRID[2:])


def _check(path: Path, shape: tuple[int, ...], dtype: np.dtype, in_order: bool = True) -> None:
    expected = (math.prod(GRID), SIZE, SIZE)
    if shape != expected or dtype != np.uint8 or not in_order:
        order = "" if in_order else " in Fortran order"
        raise UserError(f"{path}: 'imgs' should be uint8 {expected}, found {dtype} {shape}{order}")


def _from_npz(path: Path) -> Iterator[np.ndarray]:
    """Pictures of orientation 0, a block per shape and scale; what lies between is unpacked and dropped."""
    wanted, stride = _sizes()
    with zipfile.ZipFile(path) as archive:
        if "imgs.npy" not in archive.namelist():
            raise UserError(f"{path}: no member 'imgs', which dSprites has; found {', '.join(archive.namelist())}")
        with archive.open("imgs.npy") as member:
            version = np.lib.format.read_magic(member)
            if version not in _HEADERS:
                raise UserError(f"{path}: 'imgs' is npy version {version}, which is not known")
            shape, fortran, dtype = _HEADERS[version](member)
            _check(path, shape, dtype, not fortran)
            for _ in range(GRID[0] * GRID[1]):
                content = member.read(wanted * SIZE * SIZE)
                yield np.frombuffer(content, np.uint8).reshape(wanted, SIZE, SIZE)
                member.seek((stride - wanted) * SIZE * SIZE, 1)


def _from_hdf5(path: Path) -> Iterator[np.ndarray]:
    """Pictures of orientation 0, a block per shape and scale."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"reading {path.name} needs h5py: pip install h5py") from error
    wanted, stride = _sizes()
    with h5py.File(path, "r") as file:
        if "imgs" not in file:
            raise UserError(f"{path}: no dataset 'imgs', which dSprites has; found {', '.join(file) or 'none'}")
        images = file["imgs"]
        if not isinstance(images, h5py.Dataset):
            raise UserError(f"{path}: 'imgs' should be a dataset, found a group")
        _check(path, images.shape, images.dtype)
        for start in range(0, len(images), stride):
            yield images[start : start + wanted]


@contextlib.contextmanager
def _layout_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from error

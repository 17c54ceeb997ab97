"""Pictures out of the published 3dshapes.h5, a batch at a time, never all of them in memory.

The file holds ``images`` (480000, 64, 64, 3) uint8 and ``labels`` (480000, 6) float64, every combination of six factors
once, the last one running fastest. Compressed HDF5 is read by whole chunks; where a chunk spans many pictures, as h5py
lays them out if it is not told otherwise, one picture costs the unpacking of thousands. Such a file is unpacked once
into a flat one beside it (5.9 GB), which is then mapped into memory.
"""

from __future__ import annotations

import functools
import logging
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from kpm.errors import UserError
from kpm.files import atomic

if TYPE_CHECKING:
    import h5py

# Factors in the order of the file, and how many values each has.
SIZES = {"floor": 10, "wall": 10, "object": 10, "scale": 8, "shape": 4, "orientation": 15}
PICTURE = (64, 64, 3)
UNPACKED = "3dshapes-images.npy"
_MOST_PER_CHUNK = 64  # pictures; beyond that a file is unpacked
_BLOCK = 256 * 2**20  # bytes unpacked at a time
log = logging.getLogger("kpm")


class Pictures:
    """Draws frames out of a file of the published layout.

    Parameters
    ----------
    path : Path
        The HDF5 file, or one made by `unpack` (``.npy``).
    sizes : dict of str to int
        Factors in the order of the file and their numbers of values.
    """

    def __init__(self, path: Path, sizes: dict[str, int] = SIZES):
        self.path, self.sizes = path, sizes

    def __call__(
        self, floor: Tensor, wall: Tensor, object: Tensor, scale: Tensor, shape: Tensor, orientation: Tensor
    ) -> Tensor:
        """Frames, uint8 ``(b, time, 3, 64, 64)`` on the labels' device, stored channels-last.

        Labels are integer ``(b,)``, `scale` and `orientation` ``(b, time)``.
        """
        per_film = (floor[:, None], wall[:, None], object[:, None], scale, shape[:, None], orientation)
        index = np.ravel_multi_index(
            np.broadcast_arrays(*(v.cpu().numpy() for v in per_film)), tuple(self.sizes.values())
        )
        wanted, where = np.unique(index, return_inverse=True)  # each once, in the order of the file
        frames = torch.from_numpy(self._read(wanted)[where.reshape(index.shape)])
        return frames.to(scale.device).movedim(-1, 2)

    def _read(self, wanted: np.ndarray) -> np.ndarray:
        """Pictures ``(n, 64, 64, 3)`` of increasing numbers."""
        # Opened anew every time, so that processes forked from this one share no file position.
        if self.path.suffix == ".npy":
            return np.load(self.path, mmap_mode="r")[wanted]
        with _open(self.path) as file:
            found = np.empty((len(wanted), *PICTURE), np.uint8)
            for picture, place in zip(found, wanted):  # h5py takes many times as long over a list of places
                picture[:] = file["images"][place]
            return found


@functools.lru_cache(maxsize=2)
def pictures(path: Path, sizes: tuple[tuple[str, int], ...] = tuple(SIZES.items())) -> Pictures:
    """Check a file and make ready to read from it, unpacking it first if its chunks span many pictures.

    Raises
    ------
    UserError
        If h5py is not installed, the file is not of the published layout, or there is no room to unpack it.
    """
    grid = dict(sizes)
    with _open(path) as file:
        check(file, grid, path)
        chunks = file["images"].chunks
        if chunks is None or chunks[0] <= _MOST_PER_CHUNK:
            return Pictures(path, grid)
        flat = path.with_name(UNPACKED)
        if not _is_unpacked(flat, file["images"]):
            unpack(file["images"], flat)
    return Pictures(flat, grid)


def _open(path: Path) -> h5py.File:
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"reading {path.name} needs h5py: pip install h5py") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"cannot read {path} as HDF5: {error}") from error


def check(file: h5py.File, sizes: dict[str, int], path: Path) -> None:
    """Raise a `UserError` unless `file` has the published layout: names, shapes, types and the order of the labels."""
    count = math.prod(sizes.values())
    layout = {"images": ((count, *PICTURE), np.uint8), "labels": ((count, len(sizes)), np.float64)}
    for name, (shape, dtype) in layout.items():
        if name not in file:
            raise UserError(f"{path}: no dataset {name!r}, which 3D Shapes has; found {', '.join(file) or 'none'}")
        found = file[name]
        if getattr(found, "shape", None) != shape or found.dtype != dtype:
            have = f"{found.dtype} {found.shape}" if hasattr(found, "dtype") else "a group"
            raise UserError(f"{path}: {name!r} should be {np.dtype(dtype)} {shape}, found {have}")
    labels = file["labels"][:].reshape(*sizes.values(), len(sizes))
    for axis, name in enumerate(sizes):
        values = np.moveaxis(labels[..., axis], axis, 0).reshape(sizes[name], -1)
        if np.abs(values - values[:, :1]).max() > 1e-6 or (np.diff(values[:, 0]) < 1e-6).any():
            raise UserError(f"{path}: label {axis} ({name}) is not {sizes[name]} values in the known order")


def unpack(images: h5py.Dataset, flat: Path) -> None:
    """Write `images` to `flat`, an npy file, block by block; it appears when it is whole."""
    room = shutil.disk_usage(flat.parent).free
    if room < images.nbytes * 1.01:
        raise UserError(
            f"unpacking {images.file.filename} takes {images.nbytes / 1e9:.1f} GB in {flat.parent}, "
            f"which has {room / 1e9:.1f} GB left"
        )
    log.info("unpacking %s once, %.1f GB", images.file.filename, images.nbytes / 1e9)
    depth, size = images.chunks[0], math.prod(images.shape[1:])
    step = max(1, _BLOCK // (depth * size)) * depth  # whole chunks: a part of one costs as much
    header = {"descr": np.lib.format.dtype_to_descr(images.dtype), "fortran_order": False, "shape": images.shape}
    try:
        with atomic(flat) as part, open(part, "wb") as out:
            np.lib.format.write_array_header_1_0(out, header)
            for start in tqdm(range(0, len(images), step), desc=f"unpacking {Path(images.file.filename).name}"):
                out.write(images[start : start + step].data)
    except OSError as error:
        raise UserError(f"cannot unpack {images.file.filename} to {flat}: {error}") from error


def _is_unpacked(flat: Path, images: h5py.Dataset) -> bool:
    """Whether `flat` is a whole npy file of the shape and type of `images`."""
    try:
        known = np.load(flat, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return known.shape == images.shape and known.dtype == images.dtype

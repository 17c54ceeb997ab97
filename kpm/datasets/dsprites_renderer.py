"""Draws the pictures of dSprites: binary 64x64 images of a square, an ellipse or a heart.

The published pictures were drawn as polygons without anti-aliasing. Everything is in units of a side of 19.2 px at
scale 1: a square of side 1; a circle of diameter 1 stretched 1.33 times along one axis and shrunk as much along the
other; the curve ``16 sin^3 t, 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t`` over 32 across and 29 down. Vertices are placed
to 1/256 px, as graphics cards do, and a pixel is filled if its centre lies inside; a centre on a left or upper edge
does, one on a right or lower edge does not.

The form and its round numbers were found by fitting published frames; the pictures are a re-render all the same.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike

SHAPES = ("square", "ellipse", "heart")
# Classes of shape, scale, orientation, position x, position y: the order of the published file, the last one fastest.
GRID = (3, 6, 40, 32, 32)
SIZE = 64
_NAMES = ("shape", "scale", "orientation", "x", "y")
_SIDE = 0.3 * SIZE
_SCALES = np.linspace(0.5, 1, GRID[1])
_ANGLES = np.linspace(0, 2 * np.pi, GRID[2])
_CENTRES = np.linspace(SIZE / 4, 3 * SIZE / 4, GRID[3])
_UNIT = 256  # vertices lie on a grid of 1/256 px
_STRETCH, _ELLIPSE_VERTICES = 1.33, 100
_HEART_RISE, _HEART_VERTICES = 0.075, 150


def outlines() -> tuple[np.ndarray, ...]:
    """Vertices of the three shapes at scale 1, centred and upright: px, ``(n, 2)`` each, x right and y down."""
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    t = np.arange(_ELLIPSE_VERTICES) * 2 * np.pi / _ELLIPSE_VERTICES
    ellipse = np.stack([_STRETCH * np.cos(t), np.sin(t) / _STRETCH], -1) / 2
    t = np.arange(_HEART_VERTICES) * 2 * np.pi / _HEART_VERTICES
    up = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    heart = np.stack([np.sin(t) ** 3 / 2, -up / 29 - _HEART_RISE], -1)
    return tuple(_SIDE * v for v in (square, ellipse, heart))


def render(shape: ArrayLike, scale: ArrayLike, orientation: ArrayLike, x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Draw pictures from their latent classes.

    Parameters
    ----------
    shape, scale, orientation, x, y : array of int
        Classes 0-2, 0-5, 0-39, 0-31, 0-31, of shape ``(b,)`` or scalars for all.

    Returns
    -------
    array
        bool ``(b, 64, 64)``, rows from the top.

    Raises
    ------
    ValueError
        If a class is no integer or out of range, naming argument, place and value.
    """
    latents = np.broadcast_arrays(*(_classes(*given) for given in zip(_NAMES, (shape, scale, orientation, x, y), GRID)))
    rows = _rows(*(np.atleast_1d(v) for v in latents))
    return np.unpackbits(rows, axis=-1, bitorder="little").astype(bool)


@functools.lru_cache(maxsize=1)
def table() -> np.ndarray:
    """Every picture of orientation 0, uint8 ``(3, 6, 32, 32, 64, 8)``: shape, scale, x, y, row, 8 pixels to a byte.

    The leftmost of the eight is the lowest bit. Drawn once per process.
    """
    grid = np.indices((*GRID[:2], 1, *GRID[3:])).reshape(5, -1)
    return _rows(*grid).reshape(*GRID[:2], *GRID[3:], SIZE, SIZE // 8)


def pack(pictures: np.ndarray) -> np.ndarray:
    """Pictures of 0 and 1, ``(..., 64, 64)``, as rows of bits like those of `table`."""
    return np.packbits(pictures, axis=-1, bitorder="little")


def _classes(name: str, given: ArrayLike, size: int) -> np.ndarray:
    values = np.asarray(given)
    if values.dtype.kind not in "iu" or values.ndim > 1:
        raise ValueError(f"{name}: expected integers of shape (b,), got {values.dtype} of shape {values.shape}")
    if (wrong := (values < 0) | (values >= size)).any():
        place = int(np.argmax(wrong))
        raise ValueError(f"{name}: expected 0 to {size - 1}, got {values.flat[place]} at index {place}")
    return values.astype(np.int64)


def _rows(shape: np.ndarray, scale: np.ndarray, orientation: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pictures as rows of bits, uint8 ``(b, 64, 8)``."""
    rows = np.empty((len(shape), SIZE), np.uint64)
    for kind, outline in enumerate(outlines()):
        mine = shape == kind
        turned = _turned(outline, _ANGLES[orientation[mine]]) * _SCALES[scale[mine], None, None]
        placed = turned + np.stack([_CENTRES[x[mine]], _CENTRES[y[mine]]], -1)[:, None]
        rows[mine] = _filled(np.rint(placed * _UNIT).astype(np.int64))
    return rows.astype("<u8").view(np.uint8).reshape(len(shape), SIZE, SIZE // 8)


def _turned(outline: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """The outline turned anti-clockwise as seen, ``(b, n, 2)``."""
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    u, v = outline.T
    return np.stack([cos * u + sin * v, cos * v - sin * u], -1)


def _filled(vertices: np.ndarray) -> np.ndarray:
    """Fill polygons, their vertices int64 ``(b, n, 2)`` in 1/256 px: a word of 64 pixels per row, uint64 ``(b, 64)``.

    All in integers, hence exact. An edge that crosses the centre line of a row flips every pixel to the right of the
    crossing; what is flipped an odd number of times is inside.
    """
    start, end = vertices, np.roll(vertices, -1, axis=1)
    upper = np.where((start[..., 1] <= end[..., 1])[..., None], start, end).reshape(-1, 2)
    lower = np.where((start[..., 1] <= end[..., 1])[..., None], end, start).reshape(-1, 2)
    first, stop = _after(upper[:, 1]), _after(lower[:, 1])  # rows whose centre lies in [upper, lower)
    count = stop - first
    edge = np.repeat(np.arange(len(count)), count)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    (x0, y0), (wide, high) = upper[edge].T, (lower - upper)[edge].T
    # Ceiling of the crossing minus half a pixel, in px: the first pixel whose centre is not left of the crossing.
    across = (x0 - _UNIT // 2) * high + (row * _UNIT + _UNIT // 2 - y0) * wide
    column = -(-across // (high * _UNIT))
    words = np.zeros(len(vertices) * SIZE, np.uint64)
    flips = np.uint64(2**64 - 1) << column.astype(np.uint64)
    np.bitwise_xor.at(words, edge // vertices.shape[1] * SIZE + row, flips)
    return words.reshape(-1, SIZE)


def _after(y: np.ndarray) -> np.ndarray:
    """First row whose centre is not above `y` (1/256 px)."""
    return -((_UNIT // 2 - y) // _UNIT)

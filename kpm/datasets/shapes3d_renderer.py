"""Pictures of the 3D Shapes stand-in for any colours, a batch at a time, on the device.

Seen from one angle, the picture of one solid at one scale (a *view*; there are 480) is linear in the three colours: a
pixel is the sum of floor, wall and solid colour, each weighted by how much of the pixel it covers and how brightly it
is lit, plus what has no hue: sky and gloss. The weights are drawn once per process from `kpm.datasets.shapes3d_scene`,
and a frame is composed of them by a look-up and three products. Nothing is stored per colour.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from torch import Tensor

from kpm.datasets import shapes3d_scene as scene

HUES = 10
VIEWS = (len(scene.SCALES), len(scene.SHAPES), len(scene.ANGLES))
PARTS = ("floor", "wall", "object")
SAMPLES = 4  # per side of a pixel
# A fully saturated hue k/10 has red, green and blue in fifths. With a pixel's weight in 1/13056 the sum over parts
# stays below 2^16, and its upper byte is the pixel's value: 13056 * 5 = 255 * 256.
FIFTHS, WEIGHT = 5, 13056


def hues() -> np.ndarray:
    """Red, green and blue of the hues 0, 0.1, ..., 0.9 at full saturation and value, in fifths, ``(10, 3)``."""
    k = 3 * np.arange(HUES)
    return np.stack([np.abs(k - 15) - FIFTHS, 10 - np.abs(k - 10), 10 - np.abs(k - 20)], 1).clip(0, FIFTHS)


def view(angle: float, samples: int = SAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """Draw every solid at every scale, seen from one angle.

    Parameters
    ----------
    angle : float
        Degrees.
    samples : int
        Rays per pixel and side.

    Returns
    -------
    weights : array
        Share of floor, wall and solid colour in each pixel, ``(8, 4, 3, 64, 64)``.
    plain : array
        Red, green and blue of what has no hue, of the same shape. A pixel's shares and any of these sum to at most 1.
    """
    grid = (np.arange(scene.SIZE * samples) + 0.5) / samples
    # The rays of a pixel lie side by side, and each asks another spot of the lamp whether it is in the shadow.
    corners = grid.reshape(scene.SIZE, 1, samples, 1), grid.reshape(1, scene.SIZE, 1, samples)
    rows, columns = (a.ravel() for a in np.broadcast_arrays(*corners))
    lamp = np.tile(scene.lamps(samples).reshape(3, -1), scene.SIZE**2).astype(np.float32)
    origin, direction = (a.astype(np.float32) for a in scene.rays(angle, rows, columns))
    region, shade, distance = scene.room(origin, direction)
    empty = np.zeros((6, len(rows)), np.float32)  # floor, wall, solid; red, green, blue
    empty[0], empty[1] = shade * (region == 0), shade * (region == 1)
    empty[3:] = scene.sky(shade) * (region == 2)
    eye, point = origin[:, None], origin[:, None] + distance * direction
    by_floor = np.flatnonzero((region == 0) & scene.near_solids(point))
    by_solid = np.flatnonzero(scene.may_meet_solids(eye, direction))
    near, lamp, towards = point[:, by_floor], lamp[:, by_floor], direction[:, by_solid]
    mean = np.full(samples**2, samples**-2, np.float32)
    pictures = np.empty((len(scene.SCALES), len(scene.SHAPES), 6, scene.SIZE, scene.SIZE), np.float32)
    for (i, scale), (j, shape) in itertools.product(enumerate(scene.SCALES), enumerate(scene.SHAPES)):
        parts = empty.copy()
        parts[0, by_floor] *= scene.floor_under(near, lamp, shape, scale)
        enter, leave = scene.solid(eye, towards, shape, scale)
        met = np.flatnonzero(enter < leave)
        at, ahead = by_solid[met], towards[:, met]
        brightness, gloss = scene.surface(eye + enter[met] * ahead, ahead, shape, scale)
        parts[:, at] = 0.0
        parts[2, at], parts[3:, at] = brightness, gloss
        pictures[i, j] = parts.reshape(6, scene.SIZE, scene.SIZE, -1) @ mean
    return pictures[:, :, :3], pictures[:, :, 3:]


def _tables(samples: int) -> tuple[Tensor, dict[str, Tensor], dict[str, tuple[slice, slice]]]:
    """The weights as integers, a row per view, and for each part the box of the picture it is ever seen in.

    Every colour channel has its copy of a weight, so that composing is plain arithmetic on rows of a picture.
    """
    by_angle = [view(angle, samples) for angle in scene.ANGLES]
    weights, plain = (np.stack([v[k] for v in by_angle], axis=2).reshape(-1, *by_angle[0][k].shape[2:]) for k in (0, 1))
    # Half a grey level is added here, so that the upper byte of a sum is its rounded value.
    base = np.rint(plain.transpose(0, 2, 3, 1) * (WEIGHT * FIFTHS) + 128)
    shares, boxes = {}, {}
    for k, part in enumerate(PARTS):
        seen = weights[:, k].any(0)
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        boxes[part] = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        share = np.rint(weights[:, k, boxes[part][0], boxes[part][1]] * WEIGHT)
        shares[part] = _rows(np.broadcast_to(share[..., None], (*share.shape, 3)))
    return _rows(base), shares, boxes


def _rows(pictures: np.ndarray) -> Tensor:
    """Pictures ``(views, height, width, 3)`` in 16 bits, the channels along the width: ``(views, height, width*3)``."""
    bits = pictures.astype(np.uint16).view(np.int16)
    return torch.from_numpy(np.ascontiguousarray(bits).reshape(*bits.shape[:2], -1))


class Renderer:
    """Turns colours and views into frames.

    Parameters
    ----------
    samples : int
        Rays per pixel and side.

    Notes
    -----
    The arithmetic is that of unsigned 16-bit integers. Torch calculates in signed ones, whose sums and products are the
    same bits.
    """

    def __init__(self, samples: int = SAMPLES):
        base, shares, self.boxes = _tables(samples)
        colours = torch.from_numpy(hues()).to(torch.int16)
        self._tables = {torch.device("cpu"): (base, shares, colours)}

    def _on(self, device: torch.device) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        if device not in self._tables:
            base, shares, colours = self._tables[torch.device("cpu")]
            self._tables[device] = base.to(device), {k: t.to(device) for k, t in shares.items()}, colours.to(device)
        return self._tables[device]

    def __call__(
        self, floor: Tensor, wall: Tensor, object: Tensor, scale: Tensor, shape: Tensor, orientation: Tensor
    ) -> Tensor:
        """Frames, uint8 ``(b, time, 3, 64, 64)``, stored channels-last so that convolutions need not copy.

        Parameters
        ----------
        floor, wall, object : Tensor
            Hues 0-9, integer ``(b,)``.
        scale, orientation : Tensor
            Indices into the scene's scales and angles for each frame, integer ``(b, time)``.
        shape : Tensor
            Index of the solid, integer ``(b,)``.
        """
        base, shares, colours = self._on(floor.device)
        row = ((scale * VIEWS[1] + shape[:, None]) * VIEWS[2] + orientation).flatten()
        frames = base.index_select(0, row).unflatten(0, scale.shape)
        for part, hue in zip(PARTS, (floor, wall, object)):
            rows, columns = self.boxes[part]
            width = columns.stop - columns.start
            share = shares[part].index_select(0, row).unflatten(0, scale.shape)
            share.mul_(colours[hue].repeat(1, width)[:, None, None])
            frames[..., rows, 3 * columns.start : 3 * columns.stop] += share
        pixels = frames.bitwise_right_shift_(8).to(torch.uint8)
        return pixels.unflatten(-1, (-1, 3)).movedim(-1, 2)


@functools.lru_cache(maxsize=1)
def renderer() -> Renderer:
    """The renderer, its views drawn once per process."""
    return Renderer()

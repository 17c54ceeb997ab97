"""Films of the quad-link pendulum, 48 x 48 pixels, clean and behind noise that comes and goes.

The drawing and the noise follow the published generator of these images (of Becker et al. 2019), with two of its
ways kept: the links are drawn at their *relative* angles as if these were absolute, so that the pictures show the state
but not the chain as it hangs; and values are cut off, not rounded, to whole numbers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from kpm.datasets import quad_link
from kpm.errors import UserError, pick
from kpm.solvers import checks

IMAGE, CANVAS, WIDTH = 48, 128, 6
_LINK = CANVAS / (2 * quad_link.LINKS)  # pixels; the stretched chain just reaches the edge
_REACH = int(_LINK) + 1  # an endpoint cut to whole pixels is at most so far from the other one, in x or in y
_MARGIN = _REACH + WIDTH  # room around a canvas for a link that starts at its edge
SPLITS = ("train", "validation", "test")
SIZES = {"1.5k": (1, 1500), "15k": (10, 1500)}


@dataclass(frozen=True)
class Corruption:
    """Noise that hides the images for a while ([DSE] section 5, table 8; the generator of Becker et al. 2019).

    A factor does a random walk between 0 and 1, in steps uniform in ``[-spread, spread]``; what lies between two
    thresholds drawn per sequence is stretched to the visibility, 0 to 1.

    Attributes
    ----------
    spread : float
    lower, upper : tuple of float
        The thresholds are uniform on these intervals. The pendulum of the same paper has (0.1, 0.4) and (0.6, 0.9).
    clean_frames : int
        Frames at the start that are left as they are.
    """

    spread: float = 0.2
    lower: tuple[float, float] = (0.0, 0.25)
    upper: tuple[float, float] = (0.75, 1.0)
    clean_frames: int = 5

    def __post_init__(self) -> None:
        checks.nonnegative(self.spread, "spread")
        checks.count(self.clean_frames, "clean_frames", 0, 10**9)
        if not 0 <= self.lower[0] <= self.lower[1] < self.upper[0] <= self.upper[1] <= 1:
            raise ValueError(f"lower, upper: expected 0 <= l <= l < u <= u <= 1, got {self.lower} and {self.upper}")


@dataclass(frozen=True)
class QuadLinkFilms:
    """Films of one split, with all that is known about them.

    Attributes
    ----------
    split, size : str
    seed : int
    dt : float
        Time between frames, seconds.
    states : Tensor
        float64 ``(n, time, 8)`` (see `quad_link`).
    clean : Tensor
        uint8 ``(n, time, 1, 48, 48)``.
    corrupted : Tensor or None
        The same behind noise, if that was asked for.
    visibility : Tensor or None
        float32 ``(n, time)``: how much of each clean frame is left, 1 all, 0 nothing.
    """

    split: str
    size: str
    seed: int
    dt: float
    states: Tensor
    clean: Tensor
    corrupted: Tensor | None = None
    visibility: Tensor | None = None

    scale = 255.0  # frames are uint8 / scale as floats

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def frames(self) -> Tensor:
        """What a model is given: the corrupted films if there are any, else the clean ones."""
        return self.clean if self.corrupted is None else self.corrupted

    @property
    def joints(self) -> Tensor:
        """Sines and cosines of the joint angles, float64 ``(n, time, 8)``."""
        return quad_link.joints(self.states)


def load(
    split: str = "train",
    size: str = "1.5k",
    corrupted: bool = False,
    seed: int = 0,
    *,
    trajectories: int | None = None,
    pendulum: quad_link.QuadLink = quad_link.QuadLink(),  # noqa: B008
    corruption: Corruption = Corruption(),
) -> QuadLinkFilms:
    """Simulate and draw the films of a split.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        All have the same size, and trajectories of their own. (The published validation frames are training frames.)
    size : {"1.5k", "15k"}
        Number of frames: one trajectory of 1500, or ten.
    corrupted : bool
        Whether to add films behind noise. The clean ones are the same either way.
    seed : int
        The published five repeats are five seeds.
    trajectories : int, optional
        Into how many of equal length the frames go. One of 15000 is the published "15k"; by friction it comes to rest
        within about the first 1500, and the rest is nearly a still.
    pendulum : QuadLink
    corruption : Corruption

    Raises
    ------
    UserError
        For an unknown split or size, a negative seed, or trajectories the frames cannot be divided into.
    """
    pick("split", split, SPLITS)
    count, frames = SIZES[pick("size", size, SIZES)]
    if seed < 0:
        raise UserError(f"seed: expected a whole number >= 0, got {seed}")
    if trajectories is not None:
        if trajectories < 1 or count * frames % trajectories or count * frames == trajectories:
            raise UserError(f"trajectories: {count * frames} frames cannot be divided into {trajectories}")
        count, frames = trajectories, count * frames // trajectories
    # Two streams, so that noise changes no trajectory.
    words = np.random.SeedSequence([seed, SPLITS.index(split)]).generate_state(2)
    motion, noise = (torch.Generator().manual_seed(int(word)) for word in words)
    states = quad_link.simulate(quad_link.random_starts(count, motion), frames, pendulum)
    clean = render(states[..., ::2])
    films = QuadLinkFilms(split, size, seed, pendulum.dt, states, clean)
    if not corrupted:
        return films
    seen = visibility(count, frames, noise, corruption)
    return QuadLinkFilms(split, size, seed, pendulum.dt, states, clean, corrupt(clean, seen, noise), seen)


def render(angles: Tensor, chunk: int = 512) -> Tensor:
    """Draw the pendulum.

    On a canvas of 128 x 128 the chain starts at the centre. The first link goes 16 pixels along ``(sin, cos)`` of its
    angle (x to the right, y downwards), each other one along *minus* that of its own joint angle. Lines are six pixels
    wide, with ends cut to whole pixels; the canvas is then made smaller by a Lanczos filter, as PIL does both.

    Parameters
    ----------
    angles : Tensor
        ``(*batch, 4)``, relative joint angles, radians.
    chunk : int
        Frames drawn at a time.

    Returns
    -------
    Tensor
        uint8 ``(*batch, 1, 48, 48)``, on the device of `angles`.

    Raises
    ------
    ValueError
        For a wrong shape or angles that are not finite.
    """
    if angles.ndim < 1 or angles.shape[-1] != quad_link.LINKS or angles.numel() == 0:
        raise ValueError(f"angles: expected (*batch, 4), got shape {tuple(angles.shape)}")
    checks.finite(angles, "angles")
    stamps, shrink = (part.to(angles.device) for part in _drawing())
    flat = angles.reshape(-1, quad_link.LINKS)
    images = torch.empty(len(flat), IMAGE, IMAGE, dtype=torch.uint8, device=angles.device)
    for part, out in zip(flat.split(chunk), images.split(chunk)):
        canvas = _lines(part.double(), stamps).float()
        out.copy_((shrink @ canvas @ shrink.mT).clamp(0, 1) * 255)
    return images.reshape(*angles.shape[:-1], 1, IMAGE, IMAGE)


def visibility(count: int, frames: int, generator: torch.Generator, corruption: Corruption = Corruption()) -> Tensor:
    """How much is seen of each frame, ``(count, frames)``, float32 in [0, 1]."""
    checks.count(count, "count", 1, 10**9)
    checks.count(frames, "frames", 1, 10**9)
    start = torch.rand(count, generator=generator)
    steps = corruption.spread * (2 * torch.rand(frames - 1, count, generator=generator) - 1)
    walk = [start]
    for step in steps:
        walk.append((walk[-1] + step).clamp(0, 1))
    low, high = (
        a + (b - a) * torch.rand(count, 1, generator=generator) for a, b in (corruption.lower, corruption.upper)
    )
    seen = ((torch.stack(walk, 1) - low) / (high - low)).clamp(0, 1)
    seen[:, : corruption.clean_frames] = 1
    return seen


def corrupt(images: Tensor, seen: Tensor, generator: torch.Generator) -> Tensor:
    """Blend frames with uniform noise of each pixel, ``seen * image + (1 - seen) * noise``.

    Parameters
    ----------
    images : Tensor
        uint8 or float ``(n, time, *image)``. Noise goes from 0 to 255 or, for floats, from 0 to 1.1, as published.
    seen : Tensor
        ``(n, time)``, from `visibility`.
    generator : Generator
        On the CPU, whatever the device of the images.

    Returns
    -------
    Tensor
        Like `images`; whole numbers are cut off, not rounded.

    Raises
    ------
    ValueError
        For shapes that do not fit.
    """
    if images.ndim < 3 or seen.shape != images.shape[:2]:
        raise ValueError(f"seen: expected the (n, time) of images {tuple(images.shape)}, got {tuple(seen.shape)}")
    highest = 1.1 if images.is_floating_point() else 255.0
    result = torch.empty_like(images)
    for image, factor, out in zip(images, seen, result):  # floats of one film at a time
        factor = factor.to(image.device).reshape(-1, *[1] * (image.ndim - 1))
        noise = highest * torch.rand(image.shape, generator=generator).to(image.device)
        out.copy_(torch.lerp(noise, image.to(noise.dtype), factor.to(noise.dtype)))
    return result


def _lines(angles: Tensor, stamps: Tensor) -> Tensor:
    """Canvases ``(b, 128, 128)`` with 1 where a link is, uint8."""
    signs = angles.new_tensor([1.0, -1.0, -1.0, -1.0])
    ends = _LINK * (signs * torch.stack([angles.sin(), angles.cos()], -1).movedim(-1, 0)).cumsum(-1) + CANVAS / 2
    ends = torch.cat([torch.full_like(ends[..., :1], CANVAS / 2), ends], -1).long()  # x and y, cut to whole pixels
    gap = ends.diff() + _REACH
    links = stamps[gap[1], gap[0]]
    side = CANVAS + 2 * _MARGIN
    canvas = torch.zeros(len(angles), side, side, dtype=torch.uint8, device=angles.device)
    span = torch.arange(links.shape[-1], device=angles.device)
    frame = torch.arange(len(angles), device=angles.device)[:, None, None]
    for k in range(quad_link.LINKS):
        rows, columns = ends[1, :, k, None, None] + span[:, None], ends[0, :, k, None, None] + span
        canvas[frame, rows, columns] |= links[:, k]
    return canvas[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]


@functools.cache
def _drawing() -> tuple[Tensor, Tensor]:
    """Pictures of all links there are, and the filter that makes a canvas smaller.

    The ends of a link are whole pixels, so that it is one of few pictures: uint8 ``(down, right, height, width)`` by
    how far its end is below and to the right of its start, which is at the middle. The filter is ``(48, 128)``.
    """
    side, offsets = 2 * _MARGIN + 1, range(-_REACH, _REACH + 1)
    stamps = np.zeros((len(offsets), len(offsets), side, side), np.uint8)
    for i, down in enumerate(offsets):
        for j, right in enumerate(offsets):
            picture = Image.new("L", (side, side))
            ImageDraw.Draw(picture).line([_MARGIN, _MARGIN, _MARGIN + right, _MARGIN + down], 1, WIDTH)
            stamps[i, j] = picture
    units = Image.fromarray(np.eye(CANVAS, dtype=np.float32))
    shrink = np.asarray(units.resize((IMAGE, CANVAS), Image.Resampling.LANCZOS)).T
    return torch.from_numpy(stamps), torch.from_numpy(shrink.copy())

"""3D Shapes: films of a solid in a room, from the published pictures or from our own renderer.

Ten frames each. Floor, wall and solid keep their hue and the solid its shape; its scale and the camera's angle change
([SSM-SKD] sec. 4.2; how is not published, the choices below are ours):

- **scale** runs through eight values. It starts at one of the six that are neither smallest nor largest
  (``initial_scale``) and goes one step per frame, turning round at the ends. Its class says which way it goes first.
  Where it starts is an augmentation and no factor of the metrics.
- **orientation** runs through fifteen angles from -30 to 30 degrees. The classes are a steady sweep from -21 to 17
  degrees, the middle angle throughout, and the mirror image of the first, from 21 to -17. A sweep is one step per
  frame, nine in all, about the middle: so a film is smooth (fifteen angles visited with a wrap-around would tear it at
  the jump from 30 to -30), both directions show nearly the same angles, only in another order, and the three classes
  have nearly the same mean, which leaves the class to be read from the motion.

All 10 * 10 * 10 * 4 * 6 * 2 * 3 = 144000 films are split 80/20 by a shuffle (``RandomState(42)``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kpm.datasets.base import SequenceDataset
from kpm.errors import pick

FACTOR_SIZES = {
    "floor": 10,
    "wall": 10,
    "object": 10,
    "shape": 4,
    "initial_scale": 6,
    "scale": 2,
    "orientation": 3,
}
STATIC, DYNAMIC = ("floor", "wall", "object", "shape"), ("scale", "orientation")
TIME, SIZE = 10, 64
SCALES, ANGLES = 8, 15
_HUES = ("red", "orange", "lime", "green", "mint", "cyan", "azure", "blue", "violet", "pink")
CLASS_NAMES = {
    "floor": _HUES,
    "wall": _HUES,
    "object": _HUES,
    "shape": ("cube", "cylinder", "sphere", "capsule"),
    "initial_scale": tuple(f"{s:.2f}" for s in np.linspace(0.75, 1.25, SCALES)[1:-1]),
    "scale": ("grow first", "shrink first"),
    "orientation": ("angle increasing", "angle constant", "angle decreasing"),
}
SPLITS = ("train", "validation", "test", "paper-train", "paper-test", "all")
_FILMS = int(np.prod(list(FACTOR_SIZES.values())))
_PAPER_TRAIN = _FILMS * 4 // 5
_VALIDATION = _PAPER_TRAIN // 20

Draw = Callable[..., Tensor]
"""Frames ``(b, time, 3, 64, 64)`` from floor, wall, object ``(b,)``, scale ``(b, time)``, shape, orientation."""


def scale_track(initial: Tensor, direction: Tensor) -> Tensor:
    """Index of the scale at each frame, ``(b, 10)``.

    Parameters
    ----------
    initial : Tensor
        Class of ``initial_scale``, integer ``(b,)``; the film starts at index ``initial + 1`` of 0-7.
    direction : Tensor
        Class of ``scale``, integer ``(b,)``: 0 grows first, 1 shrinks first.
    """
    top = SCALES - 1
    start = (initial + 1) * (1 - 2 * direction)
    phase = (start[:, None] + torch.arange(TIME, device=initial.device)) % (2 * top)
    return top - (phase - top).abs()


def orientation_track(motion: Tensor) -> Tensor:
    """Index of the angle at each frame, ``(b, 10)``, from the class of ``orientation``: 2-11, 7 throughout, 12-3."""
    step = torch.arange(TIME, device=motion.device) - TIME // 2
    return ANGLES // 2 + (1 - motion)[:, None] * step


def composed(draw: Draw) -> Callable[[dict[str, Tensor]], Tensor]:
    """A dataset's `compose`: labels to frames, uint8 ``(b, 10, 3, 64, 64)``, drawn by `draw`."""

    def compose(labels: dict[str, Tensor]) -> Tensor:
        _check(labels)
        still = {name: labels[name].long() for name in FACTOR_SIZES}
        scale = scale_track(still["initial_scale"], still["scale"])
        orientation = orientation_track(still["orientation"])
        return draw(still["floor"], still["wall"], still["object"], scale, still["shape"], orientation)

    return compose


def _check(labels: dict[str, Tensor]) -> None:
    """Raise a ValueError for labels that are missing, of unlike shapes or, on the CPU, out of range."""
    if missing := [name for name in FACTOR_SIZES if name not in labels]:
        raise ValueError(f"labels: missing {', '.join(missing)}")
    for name, size in FACTOR_SIZES.items():
        values = labels[name]
        if values.shape != labels["floor"].shape or values.ndim != 1:
            raise ValueError(f"labels[{name!r}]: expected shape (b,) as the others, got {tuple(values.shape)}")
        # Looking at values on an accelerator would wait for all its work.
        if values.device.type == "cpu" and len(values) and not (values.min() >= 0 and values.max() < size):
            wrong = values[(values < 0) | (values >= size)][0]
            raise ValueError(f"labels[{name!r}]: expected 0 to {size - 1}, got {int(wrong)}")


@functools.lru_cache(maxsize=1)
def _order() -> np.ndarray:
    return np.random.RandomState(42).permutation(_FILMS)  # the legacy stream, the same for every version of numpy


def split_factors(split: str) -> dict[str, Tensor]:
    """Labels of a split's films, integer ``(n,)`` each.

    ``paper-train`` and ``paper-test`` are the first 80 % and the last 20 % of all films shuffled; ``test`` is the same
    as ``paper-test``. ``validation`` is the last 5 % of ``paper-train`` and ``train`` the rest of it. ``all`` is every
    film in order, the last factor running fastest.
    """
    order, honest = _order(), _PAPER_TRAIN - _VALIDATION
    parts = {
        "train": order[:honest],
        "validation": order[honest:_PAPER_TRAIN],
        "test": order[_PAPER_TRAIN:],
        "paper-train": order[:_PAPER_TRAIN],
        "paper-test": order[_PAPER_TRAIN:],
        "all": np.arange(_FILMS),
    }
    labels = np.unravel_index(parts[pick("split", split, parts)], tuple(FACTOR_SIZES.values()))
    return {name: torch.from_numpy(np.ascontiguousarray(v)).long() for name, v in zip(FACTOR_SIZES, labels)}


def dataset(draw: Draw, split: str, name: str, source: str, description: str) -> SequenceDataset:
    """The films of a split, whoever draws them."""
    return SequenceDataset(
        name=name,
        source=source,
        split=split,
        factors=split_factors(split),
        factor_sizes=FACTOR_SIZES,
        static=STATIC,
        dynamic=DYNAMIC,
        shape=(TIME, 3, SIZE, SIZE),
        compose=composed(draw),
        class_names=CLASS_NAMES,
        description=description,
    )


def load(split: str = "train", root: Path | None = None) -> SequenceDataset:
    """3D Shapes from the published pictures; `root` is a folder for downloads other than the usual cache."""
    from kpm.datasets import registry, shapes3d_files

    pick("split", split, SPLITS)
    pictures = shapes3d_files.pictures(registry.fetch("shapes3d", root) / "3dshapes.h5")
    text = "films made of 3D Shapes pictures: four solids, hues of solid, floor and wall; size and view change"
    return dataset(pictures, split, "shapes3d", "real", text)


def load_rerender(split: str = "train") -> SequenceDataset:
    """The same films of a room drawn by our own renderer, modelled on the published pictures and not fitted to them."""
    from kpm.datasets import shapes3d_renderer

    pick("split", split, SPLITS)
    text = "films of a room drawn by kpm: four solids, hues of solid, floor and wall; size and view change"
    return dataset(shapes3d_renderer.renderer(), split, "shapes3d_rerender", "re-render", text)

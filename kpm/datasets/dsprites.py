"""dSprites as films: 6 colours x 3 shapes x 8 x 8 places, of which only the scale changes, in ten ways; 8 frames.

Films are composed from the published pictures of orientation 0, or from those that `kpm.datasets.dsprites_renderer`
draws, which is another dataset under another name ([SSM-SKD] sec. 4.2; Matthey et al., dSprites, 2017).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kpm.datasets import dsprites_files, dsprites_renderer
from kpm.datasets.base import SequenceDataset
from kpm.datasets.dsprites_renderer import SHAPES, SIZE
from kpm.datasets.trajectories import FRAMES, scale_trajectories, shuffled
from kpm.errors import pick

FACTOR_SIZES = {"color": 6, "shape": 3, "x": 8, "y": 8, "scale": 10}
PALETTE = {
    "aquamarine": (102, 205, 170),
    "orange": (255, 165, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "sky blue": (30, 144, 255),
    "pink": (255, 20, 147),
}
PLACES = tuple(range(2, 32, 4))  # of 32
SPLITS = ("train", "validation", "test", "paper-train", "paper-test", "all")
_FORMS = ("dsprites", "dsprites-hdf5")


def class_names() -> dict[str, tuple[str, ...]]:
    """Names of colours, shapes and scale trajectories; a trajectory is named by its eight classes of scale."""
    scale = tuple("".join(map(str, trajectory)) for trajectory in scale_trajectories())
    return {"color": tuple(PALETTE), "shape": SHAPES, "scale": scale}


class Painter:
    """Turns factor labels into frames by looking up pictures and colouring them.

    Parameters
    ----------
    pictures : callable
        Gives the bits of every picture, uint8 ``(3, 6, 32, 32, 64, 8)``; called when the first frame is needed.
    tracks : sequence of sequences of int
        Positions, of 32, at each of the eight frames, for each class of x and of y.
    """

    def __init__(self, pictures: Callable[[], np.ndarray], tracks: Sequence[Sequence[int]]):
        self.pictures, self.tracks = pictures, tracks
        self._tables: dict[torch.device, tuple[Tensor, ...]] = {}

    def _on(self, device: torch.device) -> tuple[Tensor, ...]:
        if device not in self._tables:
            # A byte of eight pixels becomes 24 bytes, three words, that let a colour through or not.
            bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=-1, bitorder="little")
            through = (np.repeat(bits, 3, axis=-1) * np.uint8(255)).view(np.int64)
            colours = np.tile(np.array(list(PALETTE.values()), np.uint8), 8).view(np.int64)
            tables = (self.pictures(), np.array(scale_trajectories()), np.array(self.tracks), through, colours)
            self._tables[device] = tuple(torch.from_numpy(t).to(device) for t in tables)
        return self._tables[device]

    def __call__(self, labels: Mapping[str, Tensor]) -> Tensor:
        """Frames, uint8 ``(b, 8, 3, 64, 64)`` on the labels' device, stored channels-last.

        Raises
        ------
        ValueError
            For labels that are missing, of unlike shapes or, on the CPU, out of range.
        """
        check_labels(labels)
        pictures, scale, track, through, colours = self._on(labels["shape"].device)
        color, shape, x, y, trajectory = (labels[name].long() for name in FACTOR_SIZES)
        rows = pictures[shape[:, None], scale[trajectory], track[x], track[y]]
        frames = through.index_select(0, rows.flatten().int()).view(len(shape), FRAMES * SIZE * SIZE // 8, 3)
        frames &= colours[color][:, None]
        return frames.view(torch.uint8).view(len(shape), FRAMES, SIZE, SIZE, 3).movedim(-1, 2)


def check_labels(labels: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless every factor has integer labels ``(b,)`` in its range; ranges only on the CPU."""
    if missing := [name for name in FACTOR_SIZES if name not in labels]:
        raise ValueError(f"labels: missing {', '.join(missing)}")
    for name, size in FACTOR_SIZES.items():
        values = labels[name]
        if values.ndim != 1 or values.shape != labels["shape"].shape or values.is_floating_point():
            raise ValueError(f"labels[{name!r}]: expected integers (b,), got {values.dtype} {tuple(values.shape)}")
        # Looking at values on an accelerator would wait for all its work.
        if values.device.type == "cpu" and ((values < 0) | (values >= size)).any():
            place = int(((values < 0) | (values >= size)).nonzero()[0])
            raise ValueError(f"labels[{name!r}]: expected 0 to {size - 1}, got {int(values[place])} at index {place}")


def split_factors(split: str) -> dict[str, Tensor]:
    """Labels of a split's films, integer ``(n,)`` each.

    The 1152 combinations of static factors are shuffled and divided (`kpm.datasets.trajectories.shuffled`); each comes
    with all ten trajectories, one after the other. No combination is in two of ``train``, ``validation``, ``test``.
    """
    static = {name: size for name, size in FACTOR_SIZES.items() if name != "scale"}
    number = np.repeat(shuffled(math.prod(static.values()), split), FACTOR_SIZES["scale"])
    labels = dict(zip(static, np.unravel_index(number, tuple(static.values()))))
    labels["scale"] = np.arange(len(number)) % FACTOR_SIZES["scale"]
    return {name: torch.from_numpy(np.ascontiguousarray(v)).long() for name, v in labels.items()}


def published(root: Path | None = None) -> Path:
    """The published file, npz or hdf5, whichever can be had, its layout checked."""
    from kpm.datasets import registry

    form, folder = registry.fetch_any(_FORMS, root)
    path = folder / registry.ENTRIES[form].files[0].path
    dsprites_files.check(path)
    return path


@dataclasses.dataclass(frozen=True)
class Films:
    """What tells dSprites and Moving dSprites apart, and the datasets of it.

    Attributes
    ----------
    name, description : str
        Of the films from published pictures; those from our own are called NAME_rerender.
    factor_sizes : dict of str to int
    static, dynamic : tuple of str
    tracks : dict of str to sequence of int
        Positions, of 32, at each of the eight frames, for each class of x and of y.
    split_factors : callable
        Labels of a split's films.
    """

    name: str
    description: str
    factor_sizes: dict[str, int]
    static: tuple[str, ...]
    dynamic: tuple[str, ...]
    tracks: dict[str, Sequence[int]]
    split_factors: Callable[[str], dict[str, Tensor]]

    def load(self, split: str = "train", root: Path | None = None) -> SequenceDataset:
        """Films of the published pictures; `root` is a folder for downloads other than the usual cache."""
        pick("split", split, SPLITS)
        path = published(root)
        pictures = functools.partial(dsprites_files.table, path)
        return self._dataset(split, self.name, "real", pictures, self.description)

    def load_rerender(self, split: str = "train") -> SequenceDataset:
        """The same films of pictures drawn by `kpm.datasets.dsprites_renderer`."""
        pick("split", split, SPLITS)
        text = self.description + "; pictures drawn by kpm after dSprites"
        return self._dataset(split, f"{self.name}_rerender", "re-render", dsprites_renderer.table, text)

    def _dataset(
        self, split: str, name: str, source: str, pictures: Callable[[], np.ndarray], description: str
    ) -> SequenceDataset:
        tracks = tuple(self.tracks)
        return SequenceDataset(
            name=name,
            source=source,
            split=split,
            factors=self.split_factors(split),
            factor_sizes=self.factor_sizes,
            static=self.static,
            dynamic=self.dynamic,
            shape=(FRAMES, 3, SIZE, SIZE),
            compose=Painter(pictures, tuple(self.tracks.values())),
            class_names={**class_names(), "x": tracks, "y": tracks},
            description=description,
        )


_FILMS = Films(
    name="dsprites",
    description="a coloured shape that grows and shrinks in one place; ten scale trajectories",
    factor_sizes=FACTOR_SIZES,
    static=("color", "shape", "x", "y"),
    dynamic=("scale",),
    tracks={str(place): (place,) * FRAMES for place in PLACES},
    split_factors=split_factors,
)
load, load_rerender = _FILMS.load, _FILMS.load_rerender

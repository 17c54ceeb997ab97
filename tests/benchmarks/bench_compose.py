"""Composing a batch of 32 sequences on the CPU, against a plain loop over frames.

Sprites: the reference has the sheets decoded beforehand and lays PIL images over one another. dSprites: a mask times a
colour in NumPy. 3D Shapes: the renderer asked for one frame at a time. Frames per second are 256 (3D Shapes: 320) over
the time of a batch.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from PIL import Image

from kpm import datasets
from kpm.datasets import dsprites_renderer, registry
from kpm.datasets.base import SequenceDataset
from kpm.datasets.dsprites import PALETTE, PLACES
from kpm.datasets.shapes3d import orientation_track, scale_track
from kpm.datasets.shapes3d_renderer import renderer
from kpm.datasets.sprites import ACTIONS, DIRECTIONS, FOLDERS, FRAMES, ROWS, SHOES, TILE
from kpm.datasets.trajectories import TRACKS, scale_trajectories
from kpm.workbook.bench import Benchmark, Case

BATCH = 32


def benchmark() -> Benchmark:
    data = datasets.load("sprites", "train", "real")
    folder = registry.fetch("sprites")

    def sheet(kind: str, number: int) -> Image.Image:
        with Image.open(folder / kind / f"{number}.png") as image:
            return image.convert("RGBA")

    sheets = {factor: [sheet(kind, n) for n in range(6)] for factor, kind in FOLDERS.items()}
    shoes = sheet("shoes", SHOES)
    index = torch.randint(len(data), (BATCH,), generator=torch.Generator().manual_seed(0))

    def reference() -> np.ndarray:
        labels = {k: v.tolist() for k, v in data.labels(index).items()}
        batch = np.empty((BATCH, 8, TILE, TILE, 3), np.uint8)
        for b in range(BATCH):
            action, direction = divmod(labels["action"][b], 3)
            row = ROWS[ACTIONS[action]][DIRECTIONS[direction]]
            layers = [sheets[f][labels[f][b]] for f in FOLDERS] + [shoes]
            for t, column in enumerate(FRAMES[ACTIONS[action]]):
                box = (column * TILE, row * TILE, (column + 1) * TILE, (row + 1) * TILE)
                frame = Image.new("RGBA", (TILE, TILE), (0, 0, 0, 255))
                for layer in layers:
                    frame = Image.alpha_composite(frame, layer.crop(box))
                batch[b, t] = np.asarray(frame)[..., :3]
        return batch

    def ours() -> torch.Tensor:
        return data[index]

    def check(mine: torch.Tensor, theirs: np.ndarray) -> None:
        np.testing.assert_array_equal(mine.movedim(2, -1).numpy(), theirs)

    cases = [Case("sprites_32", ours, reference, "loop over PIL images", check)]
    for name, loop in (
        ("dsprites_rerender", dsprites_loop),
        ("moving_dsprites_rerender", dsprites_loop),
        ("shapes3d_rerender", shapes_loop),
    ):
        other = datasets.load(name, "train")
        chosen = torch.randint(len(other), (BATCH,), generator=torch.Generator().manual_seed(0))
        pair = (functools.partial(other.__getitem__, chosen), functools.partial(loop, other, other.labels(chosen)))
        cases.append(Case(f"{name}_32", *pair, "loop over frames", check))
    return Benchmark(
        "compose", tuple(cases), notes=f"{BATCH} sequences, 64 x 64 x 3, uint8; 8 frames each, 3D Shapes 10"
    )


def dsprites_loop(data: SequenceDataset, labels: dict[str, torch.Tensor]) -> np.ndarray:
    """Frames ``(b, 8, 64, 64, 3)``, each a mask times a colour."""
    moving = data.name.startswith("moving")
    tracks = list(TRACKS.values()) if moving else [(place,) * 8 for place in PLACES]
    scales, palette, pictures = scale_trajectories(), list(PALETTE.values()), dsprites_renderer.table()
    batch = np.empty((BATCH, 8, TILE, TILE, 3), np.uint8)
    for b in range(BATCH):
        one = {f: int(v[b]) for f, v in labels.items()}
        for t in range(8):
            scale = scales[one["scale"]][t]
            rows = pictures[one["shape"], scale, tracks[one["x"]][t], tracks[one["y"]][t]]
            mask = np.unpackbits(rows, axis=-1, bitorder="little")
            batch[b, t] = mask[..., None] * np.array(palette[one["color"]], np.uint8)
    return batch


def shapes_loop(data: SequenceDataset, labels: dict[str, torch.Tensor]) -> np.ndarray:
    """Frames ``(b, 10, 64, 64, 3)``, one at a time."""
    scales = scale_track(labels["initial_scale"], labels["scale"])
    angles = orientation_track(labels["orientation"])
    draw = renderer()
    batch = np.empty((BATCH, 10, TILE, TILE, 3), np.uint8)
    for b in range(BATCH):
        hues = [labels[f][b : b + 1] for f in ("floor", "wall", "object")]
        for t in range(10):
            shape, scale, angle = labels["shape"][b : b + 1], scales[b : b + 1, t : t + 1], angles[b : b + 1, t : t + 1]
            batch[b, t] = draw(*hues, scale, shape, angle)[0, 0].movedim(0, -1).numpy()
    return batch

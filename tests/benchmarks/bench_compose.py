"""Composing a batch of 32 real Sprites sequences on the CPU, against a plain loop over PIL images.

The reference has the sheets decoded beforehand and composes only the tiles it needs, frame by frame, layer by layer.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from kpm import datasets
from kpm.datasets import registry
from kpm.datasets.sprites import ACTIONS, DIRECTIONS, FOLDERS, FRAMES, ROWS, SHOES, TILE
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

    case = Case("batch_32", ours, reference, "loop over PIL images", check)
    return Benchmark("compose", (case,), notes=f"{BATCH} sequences of 8 frames, 64 x 64 x 3, uint8")

"""A dataset and a config small enough to train in a second."""

import dataclasses
from pathlib import Path

import pytest
import torch

from kpm.datasets.base import SequenceDataset
from kpm.training import checkpoint
from kpm.training.config import preset
from kpm.training.loop import train


def moving_squares(split: str, n: int) -> SequenceDataset:
    """Squares of eight colours that move right: drawn from their labels, like every dataset."""
    labels = torch.arange(n)

    def compose(chosen):
        level = (30 * (1 + chosen["colour"])).to(torch.uint8)
        frames = torch.zeros(len(level), 8, 3, 64, 64, dtype=torch.uint8, device=level.device)
        for t in range(8):
            frames[:, t, :, 20:40, 6 * t : 6 * t + 16] = level[:, None, None, None]
        return frames

    return SequenceDataset(
        name="squares",
        source="synthetic",
        split=split,
        factors={"colour": labels % 8, "number": labels},
        factor_sizes={"colour": 8, "number": n},
        static=("colour",),
        dynamic=(),
        shape=(8, 3, 64, 64),
        compose=compose,
    )


def with_mirror_images(data: SequenceDataset, n: int) -> SequenceDataset:
    """The films of `data` and the mirror images of the first `n`."""
    frames = data[torch.arange(len(data))]
    return SequenceDataset.from_frames(torch.cat([frames, frames[:n].flip(-1)]), data.name, data.split)


@pytest.fixture
def data():
    return moving_squares("train", 21), moving_squares("validation", 5)


@pytest.fixture(params=["ssm-skd", "skd"])
def config(request):
    return small(request.param)


def small(method="ssm-skd", **changes):
    sizes = {"latent_dim": 9, "hidden_dim": 10, "static_size": 1 if method == "ssm-skd" else 3, "width": 4}
    small = {"batch_size": 4, "steps": 12, "precision": "32-true", "validate_every": 1, "warmup_steps": 4, "ema": 0.9}
    return dataclasses.replace(preset(method), **(sizes | small | changes))


def run(config, folder, data, **options):
    return train(config, folder, data=data, device="cpu", progress_bar=False, **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(folder / "last.safetensors")[0]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name

from __future__ import annotations

import pytest
import torch

from kpm.errors import UserError
from kpm.models.baselines.lstm import LSTMConfig, LSTMPredictor
from kpm.training.films import FilmsTask, FilmsTrainConfig
from kpm.training.fit import fit

ABOUT = {"train": {"name": "blink"}, "validation": {"name": "blink"}}


def blinking(films=2, frames=24):
    """A square that comes and goes every other frame."""
    x = torch.zeros(films, frames, 1, 48, 48, dtype=torch.uint8)
    x[:, ::2, :, 12:36, 12:36] = 255
    return x


def task(config, frames=None):
    torch.manual_seed(0)
    frames = blinking() if frames is None else frames
    return FilmsTask(LSTMPredictor(LSTMConfig(code=8, hidden=16)), frames, frames[:1], config, ABOUT)


def test_pieces_lie_within_films():
    config = FilmsTrainConfig(length=20, pieces=50, batch_size=8)
    made = task(config)
    batches = made.batches(8, torch.Generator().manual_seed(0))
    assert sum(map(len, batches)) == 50 and int(max(b.max() for b in batches)) < 2 * 5
    seen = []
    made.model.loss = lambda frames: seen.append(frames) or {}
    made.loss(torch.tensor([0, 4, 5, 9]))
    frames = made.frames
    for piece, (film, start) in zip(seen[0], ((0, 0), (0, 4), (1, 0), (1, 4))):
        assert torch.equal(piece, frames[film, start : start + 20])


def test_a_fit_learns_the_next_frame(tmp_path):
    config = FilmsTrainConfig(epochs=12, length=8, pieces=16, batch_size=8, learning_rate=1e-2)
    result = fit(task(config), config, tmp_path / "run", progress_bar=False)
    losses = [event["loss"] for event in result.history]
    assert result.finished and losses[-1] < 0.6 * losses[0]


def test_films_shorter_than_a_piece():
    with pytest.raises(UserError, match="length: 30 frames asked for, but films have 24"):
        task(FilmsTrainConfig(length=30))
    with pytest.raises(UserError, match="length, pieces"):
        FilmsTrainConfig(length=1)

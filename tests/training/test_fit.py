"""The plain loop: it learns, stops, goes on exactly, keeps the best, and says what is wrong."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import math
import os
import signal

import pytest
import torch
from torch import nn

from kpm.errors import UserError
from kpm.training import checkpoint
from kpm.training.fit import FitConfig, fit
from kpm.training.losses import NonFiniteLoss
from kpm.training.tasks import TASKS
from tests.training.conftest import moving_squares

CONFIG = FitConfig(epochs=6, batch_size=8, learning_rate=0.3)


@dataclasses.dataclass(frozen=True)
class Sizes:
    inputs: int = 5


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.config = Sizes()
        self.line, self.drop = nn.Linear(5, 1), nn.Dropout(0.1)


class Regression:
    """A task with a known answer; `at` calls a function when a step is reached."""

    def __init__(self, at: dict | None = None):
        draw = torch.Generator().manual_seed(0)
        self.x = torch.randn(50, 5, generator=draw)
        self.y = self.x @ torch.arange(5.0) + 1
        torch.manual_seed(1)
        self.model, self.steps, self.at = Line(), 0, at or {}
        self.about = {"train": {"name": "toy"}, "validation": {"name": "toy"}}

    def batches(self, size, draw):
        return torch.randperm(len(self.x), generator=draw).split(size)

    def loss(self, index):
        self.steps += 1
        if self.steps in self.at:
            self.at[self.steps]()
        error = (self.model.line(self.model.drop(self.x[index])).squeeze(-1) - self.y[index]).square().mean()
        return {"square": error * self.scale() if self.model.training else error}

    def scale(self):
        return 1.0

    def validate(self):
        assert not self.model.training
        return {"loss": float((self.model.line(self.x).squeeze(-1) - self.y).square().mean()), "twice": 2.0}


def weights(folder) -> torch.Tensor:
    return checkpoint.read(folder / "last.safetensors")[0]["model.line.weight"]


def test_it_learns_and_keeps_the_best(tmp_path):
    task = Regression()
    with torch.no_grad():
        before = task.model.eval() and task.validate()["loss"]
    result = fit(task, CONFIG, tmp_path / "run", progress_bar=False)
    assert result.finished and result.steps == 6 * 7 and len(result.history) == 6
    assert result.best["loss"] == min(h["loss"] for h in result.history) < before / 3
    tensors, meta = checkpoint.read(tmp_path / "run" / "best.safetensors")
    task.model.load_state_dict(tensors)
    with torch.no_grad():
        assert task.model.eval() and task.validate()["loss"] == pytest.approx(result.best["loss"])
    assert meta["model"] == "Line" and meta["progress"]["best"]["step"] == result.best["step"]


@pytest.mark.parametrize("step", [3, 7, 20])
def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(tmp_path, step):
    fit(Regression(), CONFIG, tmp_path / "whole", progress_bar=False)
    stopped = fit(
        Regression({step: lambda: os.kill(os.getpid(), signal.SIGTERM)}), CONFIG, tmp_path / "run", progress_bar=False
    )
    assert (stopped.steps, stopped.finished, stopped.signal) == (step, False, signal.SIGTERM)
    with pytest.raises(UserError, match="use --resume"):
        fit(Regression(), CONFIG, tmp_path / "run", progress_bar=False)
    result = fit(Regression(), CONFIG, tmp_path / "run", resume=True, progress_bar=False)
    assert result.finished and torch.equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert [h["step"] for h in result.history] == [7, 14, 21, 28, 35, 42]


def test_other_parameters_or_data_are_refused(tmp_path):
    fit(Regression(), CONFIG, tmp_path / "run", progress_bar=False)
    with pytest.raises(UserError, match=r"other parameters \(learning_rate 0.3 -> 0.1\)"):
        other = dataclasses.replace(CONFIG, learning_rate=0.1)
        fit(Regression(), other, tmp_path / "run", resume=True, progress_bar=False)
    task = Regression()
    task.about = {"train": {"name": "other"}, "validation": {"name": "toy"}}
    with pytest.raises(UserError, match=r"other parameters .*'other'"):
        fit(task, CONFIG, tmp_path / "run", resume=True, progress_bar=False)


def test_a_run_without_its_note_is_known_by_its_weights(tmp_path):
    folder, other = tmp_path / "run", dataclasses.replace(CONFIG, learning_rate=0.1, seed=3)
    fit(Regression(), CONFIG, folder, progress_bar=False)
    (folder / "config.json").unlink()
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(UserError, match=r"other parameters \(learning_rate 0.3 -> 0.1, seed \d+ -> 3\)"):
        fit(Regression(), other, folder, resume=True, progress_bar=False)
    with pytest.raises(UserError, match="use --resume"):
        fit(Regression(), CONFIG, folder, progress_bar=False)
    task = Regression()
    task.about = {"train": {"name": "other"}, "validation": {"name": "toy"}}
    with pytest.raises(UserError, match=r"other parameters .*'other'"):
        fit(task, CONFIG, folder, resume=True, progress_bar=False)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    (folder / "last.safetensors").unlink()
    with pytest.raises(UserError, match=r"last.safetensors is gone"):
        fit(Regression(), CONFIG, folder, resume=True, progress_bar=False)


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refused(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(UserError, match=r"run folder .*run: its file system has no locks \(No locks available\)"):
        fit(Regression(), CONFIG, tmp_path / "run", progress_bar=False)


def test_a_loss_that_is_not_finite_is_named_and_nothing_is_overwritten(tmp_path):
    class Broken(Regression):
        def scale(self):
            return math.nan if self.steps == 9 else 1.0

    with pytest.raises(NonFiniteLoss, match="step 8: loss term 'square'"):
        fit(Broken(), CONFIG, tmp_path / "run", progress_bar=False)
    assert checkpoint.read(tmp_path / "run" / "best.safetensors")[1]["progress"]["step"] == 7


def test_the_learning_rate_rises_and_falls():
    config = FitConfig(learning_rate=0.5, warmup=0.1)
    rates = [config.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.05) and max(rates) == pytest.approx(0.5, rel=0.03) and rates[-1] < 1e-3
    assert rates.index(max(rates)) in (9, 10) and all(a > b for a, b in zip(rates[10:], rates[11:]))
    constant = dataclasses.replace(config, schedule="constant")
    assert [constant.rate(s, 100) for s in (10, 50, 99)] == [0.5] * 3


@pytest.mark.parametrize(
    ("field", "value"), [("epochs", 0), ("clip", 0.0), ("warmup", 1.0), ("schedule", "steps"), ("learning_rate", -1.0)]
)
def test_parameters_out_of_range_are_named(field, value):
    with pytest.raises(UserError, match=field):
        FitConfig(**{field: value})


@pytest.mark.parametrize(("name", "wanted"), [("sentiment", "reviews"), ("ecg", "series")])
def test_data_of_another_kind_are_refused(name, wanted):
    entry, squares = TASKS[name], moving_squares("train", 4)
    with pytest.raises(UserError, match=f"^dataset: expected {wanted}, 'squares' has none"):
        entry.task(entry.config(), squares, squares, torch.device("cpu"))

"""Training on drawn sequences: fresh ones at each step, the same held-out ones, a run by the command line."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from kpm.cli import main
from kpm.errors import UserError
from kpm.models.copy_memory import CopyMemoryConfig, CopyMemoryNet, memoryless_loss, sequences
from kpm.training import checkpoint, copy_memory
from kpm.training.copy_memory import CopyTask, CopyTrainConfig, copy_scores
from kpm.training.fit import fit
from kpm.training.tasks import TASKS, load

SMALL = CopyTrainConfig(epochs=2, hidden=24, length=2, delay=3, sequences=640, validation_sequences=50)


def task(config: CopyTrainConfig = SMALL) -> CopyTask:
    return CopyTask(config, *copy_memory.data(config), torch.device("cpu"))


def test_it_learns_to_copy(tmp_path):
    config = dataclasses.replace(SMALL, epochs=3, sequences=1280, learning_rate=1e-2)
    result = fit(task(config), config, tmp_path / "run", progress_bar=False)
    assert result.best["loss"] < 0.3 * result.best["memoryless"] and result.best["accuracy"] > 0.9


def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(tmp_path):
    fit(task(), SMALL, tmp_path / "whole", progress_bar=False)
    stopped = fit(task(), SMALL, tmp_path / "run", progress_bar=False, max_hours=1e-9)
    assert stopped.steps == 1 and not stopped.finished
    fit(task(), SMALL, tmp_path / "run", resume=True, progress_bar=False)
    whole, run = (checkpoint.read(tmp_path / name / "last.safetensors")[0] for name in ("whole", "run"))
    assert all(torch.equal(whole[k], run[k]) for k in whole)


def test_sequences_are_drawn_anew_and_held_out_ones_are_not():
    one, same = task(), task()
    draw = [torch.cat(list(one.batches(64, torch.Generator().manual_seed(s)))) for s in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])
    assert draw[0].shape == (640, 2) and [len(b) for b in one.batches(300, torch.Generator())] == [300, 300, 40]
    assert torch.equal(one.held_out, same.held_out) and one.held_out.shape == (50, 2)
    other = task(dataclasses.replace(SMALL, seed=1))
    assert not torch.equal(one.held_out, other.held_out)
    assert one.about["train"] == {"name": "copy", "source": "synthetic", "split": "train", "sequences": 640}
    assert one.about["validation"]["split"] == "validation"


def test_scores_are_those_of_a_network_that_knows():
    """A network made to answer rightly, and one that says the same always."""
    symbols = torch.randint(8, (600, 2), generator=torch.Generator().manual_seed(0))

    class Oracle(CopyMemoryNet):
        def forward(self, ids):
            answers = sequences(ids[:, :2], 3, self.config)[1]
            return 40.0 * torch.nn.functional.one_hot(answers, 9).float()

    class Guess(CopyMemoryNet):
        def forward(self, ids):
            logits = torch.full((*ids.shape, 9), -40.0)
            logits[:, :-2, 8] = 40.0
            logits[:, -2:, :8] = 0.0
            logits[:, -2:, 3] = 1e-4
            return logits

    right = copy_scores(Oracle(CopyMemoryConfig("gru", 4)), symbols, 3)
    assert right["loss"] < 1e-6 and right["accuracy"] == right["whole"] == 1
    wrong = copy_scores(Guess(CopyMemoryConfig("gru", 4)), symbols, 3)
    assert wrong["loss"] == pytest.approx(wrong["memoryless"], rel=1e-3)
    assert wrong["memoryless"] == memoryless_loss(2, 3)
    assert wrong["accuracy"] == pytest.approx(float((symbols == 3).float().mean()))
    assert wrong["whole"] == pytest.approx(float((symbols == 3).all(1).float().mean()))


def test_the_command_trains_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("kpm.paths.runs", lambda: tmp_path)
    flags = "--epochs 1 --sequences 128 --hidden 8 --length 2 --delay 2 --cell gru --validation-sequences 10"
    assert main(["train", "copy", *flags.split(), "--no-progress", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "copy on copy (synthetic), 128 sequences" in said and "finished after 2 steps" in said
    net, meta = checkpoint.load_as(CopyMemoryNet, tmp_path / "copy" / "best.safetensors")
    assert net.config.hidden == 8 and meta["data"]["train"]["name"] == "copy" and meta["train"]["delay"] == 2
    assert main(["train", "copy", "--cell", "lstm"]) == 2
    assert "lstm" in capsys.readouterr().err
    assert main(["train", "copy", "--delay", "0"]) == 2
    assert "delay must be at least 1, got 0" in capsys.readouterr().err


def test_other_tasks_load_the_dataset_their_config_names(monkeypatch):
    asked = []
    monkeypatch.setattr("kpm.datasets.load", lambda *args: asked.append(args) or args[1])
    entry = TASKS["ecg"]
    assert entry.data is load and entry.data(entry.config()) == ("train", "validation")
    assert asked == [("ecg5000", "train", "auto"), ("ecg5000", "validation", "auto")]


@pytest.mark.parametrize(("field", "value"), [("length", 0), ("symbols", 1), ("cell", "rnn"), ("activation", "relu")])
def test_parameters_out_of_range_are_named(field, value):
    with pytest.raises(UserError, match=field):
        CopyTrainConfig(**{field: value})

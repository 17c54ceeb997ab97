"""`kpm ablate`: what is trained, what is kept, what the table and the results file say."""

from __future__ import annotations

import json
import statistics

import pytest
import torch

from kpm import cli, datasets, paths
from kpm.errors import UserError
from kpm.training import checkpoint
from kpm.workbook import ablations, results
from tests.metrics.toys import judge

CLASSES = {"skin": 6, "pants": 6, "top": 6, "hair": 6, "action": 9}
ASKED = ["--dataset", "puppets", "--steps", "2", "--films-per-repeat", "32", "--repeats", "2", "--no-progress"]
ASKED += ["--variants", "published", "no_lstm"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An untrained judge, the first 64 puppets of each split, and a model small enough to train in a second."""
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    about = {"name": "puppets", "source": "synthetic", "split": "train", "sequences": 64}
    checkpoint.save_model(
        paths.checkpoints() / "judge_puppets.safetensors", judge(CLASSES), {"data": {"train": about}, "progress": {}}
    )
    load = datasets.load

    def few(*args, **kwargs):
        data = load(*args, **kwargs)
        return data.subset(torch.linspace(0, len(data) - 1, 64).long())

    monkeypatch.setattr(datasets, "load", few)
    monkeypatch.setattr(ablations, "SHORT", {"width": 4, "hidden_dim": 8, "batch_size": 8, "precision": "32-true"})
    return tmp_path


def test_each_variant_is_trained_with_each_seed_and_judged(home, capsys):
    assert cli.main(["ablate", *ASKED, "--seeds", "1", "2", "--save"]) == 0
    said = capsys.readouterr().out
    folder = home / "runs" / "ablations_puppets"
    records = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/scores.json")}
    assert sorted(records) == ["no_lstm_1", "no_lstm_2", "published_1", "published_2"]
    for name, record in records.items():
        config = json.loads((folder / name / "config.json").read_text())
        assert (config["recurrent"], config["seed"], config["steps"]) == (
            record["variant"] == "published", record["seed"], 2
        )  # fmt: skip
        assert record["films"] == 32 and record["repeats"] == 2
        still = [record["rows"]["static swap"][f] for f in CLASSES]
        assert all(0 <= v <= 1 for v in still)
    assert records["published_1"]["parameters"] > records["no_lstm_1"]["parameters"]
    assert records["published_1"]["metrics"]["mse"] != records["published_2"]["metrics"]["mse"]
    saved = results.load("ablations_puppets")
    both = [records[f"no_lstm_{seed}"]["metrics"]["D_sd"] for seed in (1, 2)]
    assert saved.metrics["D_sd_no_lstm"] == pytest.approx(statistics.fmean(both))
    assert saved.metrics["D_sd_no_lstm_std"] == pytest.approx(statistics.stdev(both))
    assert saved.seeds == (1, 2) and saved.steps == 2 and "D_sd_swap_losses" not in saved.metrics
    assert saved.command == (
        "kpm ablate --variants published no_lstm --seeds 1 2 --dataset puppets --steps 2 "
        "--repeats 2 --films-per-repeat 32 --save"
    )
    assert f"{saved.metrics['D_sd_no_lstm']:.4f} +- {saved.metrics['D_sd_no_lstm_std']:.4f}" in said


def test_what_is_done_is_kept_and_lengths_are_not_mixed(home, capsys, monkeypatch):
    assert cli.main(["ablate", *ASKED, "--seeds", "1"]) == 0
    kept = {p: p.stat().st_mtime_ns for p in home.glob("runs/*/*/scores.json")}
    monkeypatch.setattr(ablations, "train", lambda *_, **__: pytest.fail("trained again"))
    assert cli.main(["ablate", *ASKED, "--seeds", "1", "--save"]) == 0
    assert len(kept) == 2 and all(p.stat().st_mtime_ns == t for p, t in kept.items())
    assert "D_sd_published_std" not in results.load("ablations_puppets").metrics  # one seed has no deviation
    path = next(iter(kept))
    path.write_text(json.dumps({**json.loads(path.read_text()), "steps": 3}))
    with pytest.raises(UserError, match="steps: the trainings are not of one length, 2, 3"):
        ablations.ablate_command(dataset="puppets", run=False, save=True)


def test_mistakes_are_found_before_anything_is_trained(home, monkeypatch):
    with pytest.raises(UserError, match="variant"):
        ablations.ablate_command(variants=("no_lstms",), dataset="puppets")
    with pytest.raises(UserError, match="no training is finished yet"):
        ablations.ablate_command(dataset="puppets", run=False)
    (paths.checkpoints() / "judge_puppets.safetensors").unlink()
    with pytest.raises(UserError, match="no checkpoint 'judge_puppets'"):
        ablations.ablate_command(dataset="puppets")
    assert not (home / "runs").exists()

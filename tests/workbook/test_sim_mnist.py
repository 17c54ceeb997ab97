"""``kpm train sim`` and ``kpm sim mnist`` on few drawn digits: resumed, told, saved."""

from __future__ import annotations

import json

import pytest
import torch

from kpm import cli, datasets
from kpm.errors import UserError
from kpm.models.sim import SIM
from kpm.training import checkpoint
from kpm.training.sim import SIMTask, SIMTrainConfig, scores
from kpm.workbook import results, sim_mnist


@pytest.fixture(scope="module")
def data():
    parts = {s: datasets.load("small_digits", s) for s in ("train", "validation", "test")}
    return parts | {"train": parts["train"].subset(slice(600))}


def config(model: str, **changes) -> SIMTrainConfig:
    return SIMTrainConfig(model=model, dataset="small_digits", epochs=6, batch_size=50, sigma=3.0, **changes)


@pytest.fixture(autouse=True)
def _few_timings(monkeypatch):
    monkeypatch.setattr(sim_mnist, "_TIMED", 4)


@pytest.mark.parametrize("model", ["sim-one-oblique", "sim-two-free", "mondeq"])
def test_models_learn_digits(model, data, tmp_path):
    record = sim_mnist.learn(config(model, learning_rate=5e-3), data, tmp_path / "run")
    assert record["accuracy_test"] > 0.6 and record["steps"] == 72 and record["step_ms"] > 0
    assert record["step_ms_fresh"] > 0 and ("lost_backward" in record) is (model == "mondeq")
    assert ("limit" in record) is model.startswith("sim") and ("solver_steps_test" in record) is (model == "mondeq")
    if model == "sim-one-oblique":
        assert record["limit"]["idempotency"] < 1e-9 and record["limit"]["drift"] < 1e-4


def test_a_deq_is_timed_with_both_of_its_solvers_and_a_step_changes_nothing(data, tmp_path):
    chosen = SIMTrainConfig(model="deq", dataset="small_digits", epochs=1, batch_size=300, learning_rate=5e-3)
    record = sim_mnist.learn(chosen, data, tmp_path / "run")
    assert record["plain"]["solver_steps_test"] != record["solver_steps_test"] and record["plain"]["answer_ms"] > 0
    assert abs(record["plain"]["accuracy_test"] - record["accuracy_test"]) < 0.01 and record["lost_backward"] >= 0
    row = sim_mnist.summary([record])[0]
    assert row["train_s_estimate"] == (record["step_ms"] + record["step_ms_fresh"]) / 2 * record["steps"] / 1e3
    assert "by plain iteration" in sim_mnist.table([record])
    chosen = config("sim-one-free", stem="conv")
    task = SIMTask(chosen, data["train"], data["validation"], torch.device("cpu"))
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    assert any("running_mean" in k for k in before)
    sim_mnist._step_seconds(task, chosen)
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())


def test_inputs_have_mean_0_and_deviation_1_and_batches_are_whole(data):
    task = SIMTask(config("sim-one-free"), data["train"], data["validation"], torch.device("cpu"))
    x = task.inputs(data["train"].values)
    assert abs(float(x.mean())) < 1e-4 and abs(float(x.std()) - 1) < 1e-4
    batches = task.batches(64, torch.Generator().manual_seed(0))
    assert [len(b) for b in batches] == [64] * 9 and len(torch.cat(list(batches)).unique()) == 576
    assert 0 <= scores(task, data["test"])["accuracy"] <= 0.4  # not learnt yet


def test_a_run_goes_on_and_its_model_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    command = ["train", "sim", "--model", "sim-two-oblique", "--dataset", "small_digits", "--images", "300"]
    command += ["--batch-size", "100", "--out", str(tmp_path / "run"), "--no-progress"]
    assert cli.main([*command, "--epochs", "1"]) == 0
    assert cli.main([*command, "--epochs", "2", "--resume"]) == 0
    model, meta = checkpoint.load_as(SIM, tmp_path / "run" / "best.safetensors")
    assert meta["progress"]["step"] in (3, 6) and model.config.shape == (1, 8, 8) and model.config.mode == "oblique"
    again, _ = checkpoint.load_any(tmp_path / "run" / "best.safetensors")
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(model(x), again(x))


def test_the_command_skips_what_is_there_and_saves(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    command = ["sim", "mnist", "--dataset", "small_digits", "--epochs", "1", "--models", "sim-one-free", "mondeq"]
    assert cli.main([*command, "--seeds", "1", "2", "--save"]) == 0
    out = capsys.readouterr().out
    assert "dense sim-one-free seed 2: accuracy" in out and "model (dense)" in out
    saved = results.load("sim_mnist")
    assert (
        saved.dataset == "small_digits" and saved.seeds == (1, 2) and "accuracy_test_dense_mondeq_std" in saved.metrics
    )
    rows = {row["model"]: row for row in saved.details["rows"]}
    assert (
        rows["mondeq"]["solver_steps"] > 1 and rows["sim-one-free"]["drift"] > 0 and rows["mondeq"]["seeds"] == [1, 2]
    )
    kept = tmp_path / "runs" / "sim_small_digits" / "dense_mondeq_1.json"
    before = kept.stat().st_mtime_ns
    assert cli.main([*command, "--seeds", "1"]) == 0 and kept.stat().st_mtime_ns == before
    assert json.loads(kept.read_text())["settings"]["epochs"] == 1
    assert saved.command == (
        "kpm sim mnist --stem dense --epochs 1 --learning-rate 0.005 --models sim-one-free mondeq --seeds 1 2 "
        "--dataset small_digits --save"
    )
    first = json.loads(kept.read_text())
    kept.write_text(json.dumps(first | {"step_ms": None}))
    assert cli.main([*command, "--seeds", "1", "2", "--no-run", "--again"]) == 0
    second = json.loads(kept.read_text())
    assert second["step_ms"] > 0 and second["loss_test"] == first["loss_test"]
    assert cli.main([*command, "--seeds", "1", "--learning-rate", "0.1"]) == 2
    assert "was run with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SIMTrainConfig(model="sim"), "unknown model 'sim'"),
        (lambda: SIMTrainConfig(stem="cnn"), "unknown stem 'cnn'"),
        (lambda: SIMTrainConfig(images=-1), "images must be 0 or more, got -1"),
        (lambda: SIMTrainConfig(sigma=0.0), "sigma must be positive"),
    ],
)
def test_bad_parameters_are_one_clear_error(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_bad_data_are_one_clear_error(data):
    where, points = torch.device("cpu"), datasets.load("beats", "validation")
    with pytest.raises(UserError, match="dataset: expected images, 'beats' has none"):
        SIMTask(config("deq"), points, points, where)
    with pytest.raises(UserError, match="images: 'small_digits' has 600 to learn from, got 700"):
        SIMTask(config("deq", images=700), data["train"], data["validation"], where)
    task = SIMTask(config("feed-forward"), data["train"], data["validation"], where)
    with pytest.raises(UserError, match="batch_size: 601 is more than the 600 images"):
        task.batches(601, torch.Generator())
    with pytest.raises(UserError, match="save: no run is there yet"):
        sim_mnist.result([], data["test"])


def test_nothing_to_show_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    assert cli.main(["sim", "mnist", "--dataset", "small_digits", "--no-run"]) == 2
    assert capsys.readouterr().err == "kpm: sim_small_digits: no run is there yet\n"
    assert cli.main(["sim", "mnist", "--dataset", "small_digits", "--models"]) == 2
    assert cli.main(["sim", "mnist", "--dataset", "beats", "--no-run"]) == 2
    assert "dataset: expected images, 'beats' has none" in capsys.readouterr().err


def test_comparison_tells_gaps_from_chance():
    def row(model, accuracy, spread, step):
        times = {"step_ms": step, "answer_ms": 2 * step}
        return {"model": model, "stem": "conv", "accuracy_test": accuracy, "accuracy_test_std": spread, **times}

    rows = [row("sim-one-free", 0.98, 0.001, 4.0), row("sim-one-oblique", 0.97, 0.001, 2.0)]
    rows += [row("mondeq", 0.9815, 0.001, 6.0), row("feed-forward", 0.975, 0.002, 1.0)]
    lines = sim_mnist.comparison(rows)
    assert lines[0] == "conv stems: sim-one-free 98.00 %, sim-one-oblique 97.00 %"
    assert lines[1] == (
        "  beside feed-forward: above: sim-one-free (+0.50 ± 0.30); below: sim-one-oblique (-0.50 ± 0.30)"
    )
    assert "not distinguishable: sim-one-free (-0.15 ± 0.20)" in lines[2]
    assert lines[3:] == [
        "  mondeq, times of sim-one-oblique's: 3.00 a step, 3.00 to answer",
        "  sim-one-free, times of feed-forward's: 4.00 a step, 4.00 to answer",
        "  sim-one-oblique, times of feed-forward's: 2.00 a step, 2.00 to answer",
    ]

"""From a run to a shipped checkpoint and a results file that can be checked again."""

import dataclasses
import json
import types

import pytest
import torch

from kpm import cli, datasets, paths
from kpm.errors import UserError
from kpm.training import checkpoint
from kpm.training.config import command, preset
from kpm.training.run_folder import Log
from kpm.workbook import publish, results, stages


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def trained(home):
    flags = "--dataset puppets --width 4 --batch-size 4 --validation-sequences 8 --precision 32-true --steps 3"
    assert cli.main(["train", "ssm-skd", *flags.split(), "--no-progress", "--out", str(home / "runs/a")]) == 0
    return home / "runs/a"


def test_published_result_names_its_data_and_checkpoint(trained):
    assert publish.publish_command(trained, name="try") == 0
    result = results.load("try")
    assert result.dataset == "puppets" and result.source == "synthetic" and result.split == "test"
    assert result.checkpoint.file == "data/checkpoints/try.safetensors" and result.checkpoint.status() == "ok"
    assert result.steps <= 3 and result.seeds == (7253,)
    assert 0 < result.metrics["mse"] < 1
    assert result.command.startswith("kpm train ssm-skd --dataset puppets") and "--width 4" in result.command
    with (paths.checkpoints() / "try.safetensors").open("r+b") as f:
        f.seek(-1, 2)
        f.write(b"\x55")
    assert result.checkpoint.status() == "changed"


def test_films_that_weights_were_chosen_on_are_named_where_they_are_judged_as_well(trained):
    publish.publish_command(trained, name="try")
    assert "chosen on" not in results.load("try").notes
    publish.publish_command(trained, name="seen", split="validation")
    judged = len(datasets.load("puppets", "validation", "synthetic"))
    assert results.load("seen").notes.endswith(f"; chosen on a split with {judged} of the films it is judged on")


def test_the_curve_begins_with_the_runs_it_went_on_from(trained, home):
    def go_on(before, name, steps):
        flags = "--dataset puppets --width 4 --batch-size 4 --validation-sequences 8 --precision 32-true --no-progress"
        flags += f" --init {home / 'runs' / before / 'last.safetensors'} --steps {steps} --out {home / 'runs' / name}"
        assert cli.main(["train", "ssm-skd", *flags.split()]) == 0

    go_on("a", "b", 2)
    go_on("b", "c", 4)
    runs = [home / "runs" / name for name in "abc"]
    assert publish.publish_command(runs[2], name="try", after=(runs[0], runs[1])) == 0
    result = results.load("try")
    own = [results_log(run) for run in runs]
    offsets = (0, 3, 5)
    assert [p["step"] for p in result.curve] == [e["step"] + o for log, o in zip(own, offsets) for e in log]
    assert [p["mse"] for p in result.curve] == [e["mse"] for log in own for e in log]
    assert all(a["wall_s"] < b["wall_s"] for a, b in zip(result.curve, result.curve[1:]))
    publish.publish_command(runs[0], name="again")
    shipped = results.load("again")
    assert publish.publish_command(runs[2], name="again", after=(runs[1],), replace=True) == 0
    assert shipped.steps == 3 and results.load("again").curve == result.curve
    for wrong in ((runs[1], runs[0]), (runs[0],), (runs[0], runs[0], runs[1])):
        with pytest.raises(UserError, match="is not the run that this one, or the one behind it, went on from"):
            publish.publish_command(runs[2], name="other", after=wrong)
    assert not (paths.results() / "other.json").exists()
    assert not (paths.checkpoints() / "other.safetensors").exists()


def test_the_command_of_a_run_that_went_on_runs_again(trained, home, monkeypatch):
    """Replacing the weights it began with, a result says how these were made too: nothing of it is here any more."""
    publish.publish_command(trained, name="try")
    single = results.load("try").command
    assert "&&" not in single and "--out" not in single

    def go_on(init, name):
        flags = "--dataset puppets --width 4 --batch-size 4 --validation-sequences 8 --precision 32-true --no-progress"
        flags += f" --init {init} --steps 2 --out {home / 'runs' / name}"
        assert cli.main(["train", "ssm-skd", *flags.split()]) == 0

    go_on("try", "b")
    go_on(home / "runs" / "b" / "last.safetensors", "c")
    publish.publish_command(home / "runs" / "c", name="try", replace=True, after=(home / "runs" / "b",))
    result = results.load("try")
    found = stages.parts(result.command)
    assert [stages.flag(s, "out") for s in found] == ["runs/try_1", "runs/try_2", "runs/try_3"]
    inits = [stages.flag(s, "init") for s in found]
    assert inits == ["", "runs/try_1/best.safetensors", "runs/try_2/last.safetensors"]
    assert str(home) not in result.command and "not on record" not in result.notes
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for stage in found:
        assert cli.main([*stage.split()[1:], "--no-progress"]) == 0
    _, meta = checkpoint.read(elsewhere / "runs" / "try_3" / "best.safetensors")
    assert meta["progress"]["best"]["step"] + meta["progress"]["before_steps"] == result.steps


def test_weights_whose_making_is_forgotten_are_looked_up_in_the_shipped_result(home, monkeypatch):
    train = dataclasses.asdict(dataclasses.replace(preset("ssm-skd"), init="try"))
    progress = {"before_commands": [], "before_steps": 3, "best": {"step": 2}}
    shipped = types.SimpleNamespace(command="kpm train ssm-skd --dataset sprites --steps 3", steps=3)
    own = ["kpm train ssm-skd --dataset sprites --init try --steps 2"]
    assert publish._stages("try", train, progress) == own
    paths.results().mkdir(parents=True)
    (paths.results() / "try.json").touch()
    monkeypatch.setattr(results, "load", lambda name: shipped)
    assert publish._stages("try", train, progress) == [shipped.command, *own]
    shipped.steps = 4
    assert publish._stages("try", train, progress) == own


def test_a_curve_keeps_no_points_of_a_branch_that_was_left():
    points = [{"step": s, "mse": i} for i, s in enumerate((100, 200, 300, 400, 250, 400, 400, 500))]
    kept = publish.increasing(points)
    assert [(p["step"], p["mse"]) for p in kept] == [(100, 0), (200, 1), (250, 4), (400, 6), (500, 7)]
    assert publish.increasing(kept) == kept and publish.increasing([]) == []


def test_shipped_curves_only_go_forward():
    for path in paths.results().glob("*.json"):
        curve = json.loads(path.read_text(encoding="utf-8")).get("curve") or []
        steps = [p["step"] for p in curve if "step" in p]
        assert all(a < b for a, b in zip(steps, steps[1:])), path.name


def results_log(run):
    return Log(run / "log.jsonl").read("validation")


def test_what_is_shipped_is_not_replaced_by_mistake(trained):
    publish.publish_command(trained, name="try")
    with pytest.raises(UserError, match="shipped already; give --replace"):
        publish.publish_command(trained, name="try")
    assert publish.publish_command(trained, name="try", replace=True) == 0


def test_a_run_of_another_version_replaces_nothing(trained):
    assert publish.publish_command(trained, name="try") == 0
    before = (paths.checkpoints() / "try.safetensors").read_bytes()
    tensors, meta = checkpoint.read(trained / "best.safetensors")
    meta["train"]["whirl"] = 0.5
    checkpoint.save(trained / "best.safetensors", tensors, meta)
    with pytest.raises(UserError, match="the run is of another version of kpm: no whirl is known here"):
        publish.publish_command(trained, name="try", replace=True)
    assert (paths.checkpoints() / "try.safetensors").read_bytes() == before


def test_a_stand_in_does_not_pass_for_the_real_data(home, sprites_folder, monkeypatch):
    """Asked for sprites, trained on puppets: whatever can be had later, the result is one on puppets."""
    flags = "--dataset sprites --width 4 --batch-size 4 --validation-sequences 8 --precision 32-true --steps 2"
    assert cli.main(["train", "ssm-skd", *flags.split(), "--no-progress", "--out", str(home / "runs/b")]) == 0
    monkeypatch.setenv("KPM_CACHE", str(sprites_folder.parent))  # now the real data are there
    assert publish.publish_command(home / "runs/b") == 0
    result = results.load("ssm_skd_puppets")
    assert (result.dataset, result.source) == ("puppets", "synthetic")
    assert not (paths.results() / "ssm_skd_sprites.json").exists()


def test_a_re_render_is_shipped_under_its_own_name(home, monkeypatch):
    from kpm import datasets

    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda *args: load(*args).subset(torch.arange(8)))
    flags = "--dataset dsprites_rerender --width 4 --batch-size 4 --precision 32-true --steps 2"
    assert cli.main(["train", "ssm-skd", *flags.split(), "--no-progress", "--out", str(home / "runs/d")]) == 0
    assert publish.publish_command(home / "runs/d") == 0
    result = results.load("ssm_skd_dsprites_rerender")
    assert (result.dataset, result.source, result.split) == ("dsprites_rerender", "re-render", "test")


def test_command_has_the_flags_that_differ_and_the_steps():
    plain = dataclasses.asdict(dataclasses.replace(preset("skd"), seed=5, ema=0.5))
    assert command(plain, 70) == "kpm train skd --dataset sprites --ema 0.5 --seed 5 --steps 70"
    without = dataclasses.asdict(dataclasses.replace(preset("ssm-skd", "dsprites"), recurrent=False))
    assert command(without, 3) == "kpm train ssm-skd --dataset dsprites --no-recurrent --steps 3"


def test_a_judge_is_shipped_with_what_it_gets_right(home):
    flags = "--dataset puppets --steps 2 --batch-size 4 --width 2 --no-progress"
    run = home / "runs" / "judge.safetensors"
    assert cli.main(["train", "judge", *flags.split(), "--out", str(run)]) == 0
    assert cli.main(["publish", str(run), "--split", "validation"]) == 0
    result = results.load("judge_puppets")
    assert result.checkpoint.status() == "ok" and result.steps == 2 and result.dataset == "puppets"
    each = [
        v
        for k, v in result.metrics.items()
        if k.removeprefix("accuracy_test_") in ("skin", "pants", "top", "hair", "action")
    ]
    assert result.metrics["accuracy_test"] == min(each) < 0.5  # two steps teach nothing
    of_frames = {k.removeprefix("frame_"): v for k, v in result.metrics.items() if k.startswith("frame_")}
    assert of_frames.keys() == {k for k in result.metrics if not k.startswith("frame_")}
    spoilt = of_frames.pop("accuracy_test_spoilt")
    assert of_frames.pop("accuracy_test") == min(of_frames.values()) and 0 <= spoilt < 0.5
    assert result.command == "kpm train judge --dataset puppets --width 2 --steps 2 --batch-size 4"
    with pytest.raises(UserError, match="shipped already; give --replace"):
        publish.publish_command(run, split="validation")


def test_the_curve_of_weights_that_went_on_goes_on(trained, home):
    publish.publish_command(trained, name="try")
    first = results.load("try")
    flags = "--dataset puppets --width 4 --batch-size 4 --validation-sequences 8 --precision 32-true --steps 2"
    again = home / "runs" / "again"
    assert cli.main(["train", "ssm-skd", *flags.split(), "--init", "try", "--no-progress", "--out", str(again)]) == 0
    publish.publish_command(again, name="try", replace=True)
    second = results.load("try")
    assert list(second.curve[: len(first.curve)]) == list(first.curve)
    steps = [p["step"] for p in second.curve[len(first.curve) :]]
    assert steps and min(steps) > first.steps and second.steps >= first.steps + 1

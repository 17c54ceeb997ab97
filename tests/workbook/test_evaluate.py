"""`kpm evaluate`: what it prints and writes, what it refuses, what it puts into a results file."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from kpm import cli, datasets, paths
from kpm.errors import UserError
from kpm.metrics import thesis_tables
from kpm.training import checkpoint
from kpm.workbook import evaluate, results
from kpm.workbook.results import Checkpoint, Result
from tests.metrics.toys import autoencoder, judge

FLAGS = "--repeats 2 --exploration-repeats 2 --precision 32-true --no-progress".split()  # noqa: SIM905
CLASSES = {"skin": 6, "pants": 6, "top": 6, "hair": 6, "action": 9}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A shipped model and its judge, both untrained, on the first 64 puppets of each split."""
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    about = {"name": "puppets", "source": "synthetic", "split": "train", "sequences": 64}
    meta = {"data": {"train": about}, "progress": {}}
    checkpoint.save_model(paths.checkpoints() / "ssm_skd_puppets.safetensors", autoencoder(), meta)
    checkpoint.save_model(paths.checkpoints() / "judge_puppets.safetensors", judge(CLASSES), meta)
    load = datasets.load

    def few(*args, **kwargs):
        data = load(*args, **kwargs)
        return data.subset(torch.linspace(0, len(data) - 1, 64).long())

    monkeypatch.setattr(datasets, "load", few)
    return tmp_path


def test_it_writes_what_it_prints_and_the_scores_are_those_of_the_table(home, capsys):
    assert cli.main(["evaluate", "ssm_skd_puppets", "--batch-size", "32", *FLAGS]) == 0
    said = capsys.readouterr().out
    found = json.loads((home / "out" / "evaluate_ssm_skd_puppets.json").read_text())
    assert (found["dataset"], found["source"], found["split"], found["films"]) == ("puppets", "synthetic", "test", 64)
    rows = found["rows"]
    off = [abs(rows["static swap"][f] - (1 if f == "action" else 1 / 6)) for f in CLASSES]
    off += [abs(rows["dynamic swap"][f] - (1 / 9 if f == "action" else 1)) for f in CLASSES]
    assert found["d_sd"] == pytest.approx(1 - sum(off) / 10)
    static = [f for f in CLASSES if f != "action"]
    off = [abs(rows[f"retain {f}"][g] - (1 if f == g else 1 / CLASSES[g])) for f in static for g in CLASSES]
    assert found["d_mf"] == pytest.approx(1 - sum(off) / 20)
    assert f"D_sd {found['d_sd']:.4f} (se {found['d_sd_se']:.4f})" in said and "thesis" not in said
    assert f"{rows['retain hair']['top']:.4f}" in said
    taken = [c for part in found["partition"].values() for c in part]
    assert "everything destroyed 0.5778, a perfect model " in said and "with 128 films" in said
    assert found["how"]["command"] == (
        "kpm evaluate ssm_skd_puppets --repeats 2 --exploration-repeats 2 --batch-size 32 --precision 32-true"
    )
    assert sorted(taken + found["exploration"]["rest"]) == list(range(9)) and found["explored_on"] == "validation"


def test_its_scores_go_into_the_results_file_beside_what_is_there(home, capsys, environment_stub):
    path = paths.checkpoints() / "ssm_skd_puppets.safetensors"
    results.save(dataclasses.replace(environment_stub, checkpoint=Checkpoint.of(path)))
    assert cli.main(["evaluate", "ssm_skd_puppets", "--save", "--batch-size", "32", *FLAGS]) == 0
    result = results.load("ssm_skd_puppets")
    assert result.metrics["mse"] == 0.5 and {"D_sd", "D_sd_se", "D_mf", "D_mf_se"} < set(result.metrics)
    assert result.details["prediction"]["latent_one_step"] < 1e-9 < result.details["prediction"]["latent_scale"]
    assert result.paper == {}  # the thesis has no puppets
    assert set(result.details["rows"]) >= {"static swap", "dynamic swap", "retain nothing", "retain skin"}
    assert result.details["how"]["judge"]["file"] == "judge_puppets.safetensors"
    assert not any(k.startswith("ambient") for k in result.metrics)  # of one operator per film: the reconstruction
    with pytest.raises(UserError, match=r"ssm_skd_puppets.json is on puppets \(synthetic\), test"):
        evaluate.evaluate_command("ssm_skd_puppets", split="validation", save=True)
    with pytest.raises(UserError, match="only the published procedure"):
        evaluate.evaluate_command("ssm_skd_puppets", fast=True, save=True)
    checkpoint.save_model(path, autoencoder(seed=5), checkpoint.read(path)[1])
    with pytest.raises(UserError, match="is of other weights"):
        evaluate.evaluate_command("ssm_skd_puppets", save=True)


def twice_as_many_to_learn_from(monkeypatch) -> list[str]:
    """Training films come twice from now on; a list of the splits that are asked for."""
    few, asked = datasets.load, []

    def load(name, split, source):
        asked.append(split)
        data = few(name, split, source)
        return data.subset(torch.arange(len(data)).repeat(2)) if split == "train" else data

    monkeypatch.setattr(datasets, "load", load)
    return asked


@pytest.mark.parametrize(("scope", "axes"), [("sequence", 9), ("batch", 4)])
def test_independent_axes_come_from_training_films_and_have_a_score_of_their_own(
    home, environment_stub, monkeypatch, capsys, scope, axes
):
    path = paths.checkpoints() / "ssm_skd_puppets.safetensors"
    model = autoencoder(scope, latent_dim=9, static_size=4 if scope == "batch" else 1)
    checkpoint.save_model(path, model, checkpoint.read(path)[1])
    results.save(dataclasses.replace(environment_stub, checkpoint=Checkpoint.of(path)))
    argv = ["evaluate", "ssm_skd_puppets", "--components", "independent", "--batch-size", "32", *FLAGS]
    if axes == 9:
        assert cli.main(argv) == 2
        assert "parts: 64 films are too few for 9 x 9 axes" in capsys.readouterr().err
    asked = twice_as_many_to_learn_from(monkeypatch)
    assert cli.main([*argv, "--save"]) == 0
    assert "train" in asked
    result = results.load("ssm_skd_puppets")
    assert result.metrics["mse"] == 0.5 and "D_sd" not in result.metrics
    found = result.details["independent"]
    off = [
        abs(found["rows"][f"retain {f}"][g] - (1 if f == g else 1 / n))
        for f in CLASSES
        for g, n in CLASSES.items()
        if f != "action"
    ]
    assert result.metrics["D_mf_independent"] == pytest.approx(1 - sum(off) / 20, abs=1e-6)
    # as many as channels; one operator for all keeps four modes, and a fifth where one of them is half of a pair
    assert torch.tensor(found["analysis"]).shape in [(9, axes), (9, axes + (scope == "batch"))]
    assert found["how"]["components"] == "independent" and found["explored_on"] == "validation"


@pytest.mark.parametrize("scope", ["sequence", "batch"])
def test_kinds_of_motion_come_from_training_films_and_have_scores_of_their_own(
    home, environment_stub, monkeypatch, capsys, scope
):
    path = paths.checkpoints() / "ssm_skd_puppets.safetensors"
    model = autoencoder(scope, latent_dim=9, static_size=4 if scope == "batch" else 1)
    checkpoint.save_model(path, model, checkpoint.read(path)[1])
    results.save(dataclasses.replace(environment_stub, checkpoint=Checkpoint.of(path)))
    argv = ["evaluate", "ssm_skd_puppets", "--resplit", "--batch-size", "32", *FLAGS]
    assert cli.main(argv) == 2
    assert "at least 100 films, got channels of 64" in capsys.readouterr().err
    asked = twice_as_many_to_learn_from(monkeypatch)
    assert cli.main([*argv, "--save"]) == 0
    assert "train" in asked
    result, said = results.load("ssm_skd_puppets"), capsys.readouterr().out
    assert result.metrics["mse"] == 0.5 and not {"D_sd", "D_mf"} & set(result.metrics)
    found = result.details["resplit"]
    off = [abs(found["rows"]["static swap"][f] - (1 if f == "action" else 1 / 6)) for f in CLASSES]
    off += [abs(found["rows"]["dynamic swap"][f] - (1 / 9 if f == "action" else 1)) for f in CLASSES]
    assert result.metrics["D_sd_resplit"] == pytest.approx(1 - sum(off) / 10, abs=1e-6)
    kinds = found["how"]["kinds"]
    assert max(found["silhouettes"], key=found["silhouettes"].get) == str(kinds)
    assert f"{kinds} kinds of motion" in said and len(found["explained"]) == 9
    from kpm.workbook import evaluators

    again = evaluators.autoencoder(result)  # by its own, as many films and repeats as there were
    assert again["D_sd_resplit"] == pytest.approx(result.metrics["D_sd_resplit"], abs=0.02)
    with pytest.raises(UserError, match="is for channels, not for components 'modes'"):
        evaluate.evaluate_command("ssm_skd_puppets", components="modes", resplit=True)


def test_channels_of_skd_are_an_ablation_with_a_score_of_its_own(home, environment_stub):
    """SKD's operator, SSM-SKD's extraction ([SSM-SKD] sec. 8.2)."""
    path = paths.checkpoints() / "ssm_skd_puppets.safetensors"
    checkpoint.save_model(path, autoencoder("batch", latent_dim=9, static_size=4), checkpoint.read(path)[1])
    results.save(dataclasses.replace(environment_stub, checkpoint=Checkpoint.of(path)))
    argv = ["evaluate", "ssm_skd_puppets", "--batch-size", "32", "--save", *FLAGS]
    assert cli.main(argv) == 0
    assert cli.main([*argv, "--components", "channels"]) == 0
    result = results.load("ssm_skd_puppets")
    found = result.details["channels"]
    off = [
        abs(found["rows"][f"retain {f}"][g] - (1 if f == g else 1 / n))
        for f in CLASSES
        if f != "action"
        for g, n in CLASSES.items()
    ]
    assert result.metrics["D_mf_channels"] == pytest.approx(1 - sum(off) / 20, abs=1e-6)
    assert max(c for part in found["partition"].values() for c in part) < 9
    assert max(c for part in result.details["partition"].values() for c in part) < 4  # modes
    assert result.metrics["D_mf"] != result.metrics["D_mf_channels"]


@pytest.fixture
def environment_stub():
    from kpm import environment

    machine = environment.report()
    return Result(
        name="ssm_skd_puppets",
        dataset="puppets",
        source="synthetic",
        split="test",
        metrics={"mse": 0.5},
        paper={},
        seeds=[1],
        steps=1,
        wall_s=1.0,
        hardware="none",
        checkpoint=None,
        command="kpm train",
        commit=None,
        environment=machine,
    )


def test_what_does_not_fit_is_refused_in_one_line(home, capsys):
    def complaint(*words):
        assert cli.main(["evaluate", *words, *FLAGS]) == 2
        return capsys.readouterr().err

    assert "no checkpoint 'nothing'; shipped are ssm_skd_puppets, or" in complaint("nothing")
    text = complaint("ssm_skd_puppets", "--judge", "nothing")
    assert "no checkpoint 'nothing'; shipped are judge_puppets, or" in text
    assert "holds a 'Judge', expected a KoopmanAutoencoder" in complaint("judge_puppets")
    other = {"data": {"train": {"name": "shapes3d_rerender", "source": "re-render"}}, "progress": {}}
    checkpoint.save_model(home / "other.safetensors", judge(CLASSES), other)
    text = complaint("ssm_skd_puppets", "--judge", str(home / "other.safetensors"))
    assert "the judge has learnt 'shapes3d_rerender', the films are 'puppets'" in text
    none = dict(checkpoint_file="nothing")  # the numbers are looked at first, by the names of the flags
    with pytest.raises(UserError, match=r"^exploration-repeats: expected at least 2"):
        evaluate.evaluate_command(**none, exploration_repeats=1)
    with pytest.raises(UserError, match=r"^films-per-repeat: expected at least the 256 of a batch, got 5"):
        evaluate.evaluate_command(**none, films_per_repeat=5)
    with pytest.raises(UserError, match=r"^batch-size: expected at least 2"):
        evaluate.evaluate_command(**none, batch_size=1)
    assert "swaps need 65 films at a time" in complaint("ssm_skd_puppets", "--batch-size", "65")


def test_a_model_of_real_films_is_not_judged_on_a_stand_in(home):
    meta = {"data": {"train": {"name": "sprites", "source": "real"}}}
    with pytest.raises(UserError, match="dataset 'sprites' is not here"):
        evaluate.films(meta, "test")


def test_of_the_largest_splits_a_part_is_measured_and_always_the_same(home, monkeypatch):
    data = datasets.load("puppets", "test", "synthetic")
    assert evaluate.fewer(data) is data
    monkeypatch.setattr(evaluate, "_MOST", 16)
    one, two = evaluate.fewer(data), evaluate.fewer(data)
    assert len(one) == 16 and one.split == "test, 16 films"
    for f, labels in one.factors.items():
        assert labels.tolist() == two.factors[f].tolist() != data.factors[f][:16].tolist()


def test_thesis_rows_stand_beside_a_re_render():
    rows = evaluate.thesis_rows("shapes3d_rerender")
    assert rows["retain floor"] == thesis_tables.FACTORIAL["shapes3d"]["floor"]
    assert evaluate.thesis_rows("puppets") == {} and evaluate.thesis_scores("puppets", "ssm_skd") == {}


def test_skd_is_not_compared_with_the_numbers_of_ssm_skd():
    assert evaluate.thesis_rows("sprites", "skd") == {}
    assert evaluate.thesis_scores("sprites", "skd") == {"D_sd": 0.9981, "D_mf": 0.9276}
    assert evaluate.thesis_scores("dsprites_rerender", "skd") == {}
    assert evaluate.thesis_scores("dsprites_rerender", "ssm_skd") == {"D_sd": 0.9491, "D_mf": 0.9142}


def test_every_shipped_model_is_measured_again_by_check():
    from kpm.workbook import evaluators  # noqa: F401 - registers

    shipped = [r.name for r in results.load_all() if r.checkpoint]
    assert shipped and set(shipped) <= set(results.EVALUATORS)


def test_skd_is_evaluated_by_modes_found_on_the_films_themselves():
    from kpm.metrics.evaluation import evaluate as judge_it
    from kpm.metrics.swaps import SwapConfig
    from tests.metrics.toys import Binning, films

    model, data = autoencoder("batch", latent_dim=6, static_size=3), films(24)
    found = judge_it(model, Binning({"colour": 3, "way": 2}), data, films(12), SwapConfig(repeats=2, batch_size=6))
    assert found.explored_on == "test" and 0 <= found.d_sd <= 1 and 0 <= found.d_mf <= 1
    assert len(found.exploration.gain) == len(found.partition["colour"]) + len(found.exploration.rest) <= 3
    with pytest.raises(ValueError, match="partition: expected the factors colour, got none"):
        judge_it(model, Binning({"colour": 3, "way": 2}), data, partition={})

"""The chapter on representations: the command from training to the table, its figures, the explorer."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from kpm import cli, datasets, environment
from kpm.analysis.unlearning import TARGETS, forget, rows_of, unlearning_report
from kpm.models.surrogate import Surrogate, SurrogateConfig
from kpm.training import checkpoint
from kpm.workbook import kae_command, kae_experiment, kae_plots, kae_seeds, results
from kpm.workbook.kae_explorer import Forgetting
from kpm.workbook.kae_seeds import Found
from tests.training.test_kae import AUTOENCODER, NETWORK, blobs

TINY = kae_experiment.Experiment(
    "blobs", NETWORK, AUTOENCODER, forgotten=2, variants={"free": {"distance_weight": 0.0}}
)
SPLITS = {"train": 120, "validation": 60, "test": 60}


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(kae_command.EXPERIMENTS, "yinyang", TINY)
    monkeypatch.setattr(datasets, "load", lambda name, split: blobs(split, SPLITS[split]))
    monkeypatch.setattr(kae_command, "PIECES_OF", 40)


def test_from_training_to_the_table(tiny, tmp_path, capsys):
    assert cli.main(["kae", "yinyang", "--out", str(tmp_path / "run"), "--no-progress"]) == 0
    text = capsys.readouterr().out
    assert "blobs (synthetic)" in text and "trained without it" in text and "direction taken out" in text
    found = json.loads((tmp_path / "run" / "kae_yinyang.json").read_text())
    metrics, details = found["metrics"], found["details"]
    assert len(details["edits"]) == 3 * len(TARGETS) * 3
    row = next(r for r in details["edits"] if (r["forgotten"], r["target"], r["rho"]) == (2, "shared", 0.1))
    assert metrics["forget_accuracy"] == row["forget_after"] == row["after"][2]
    assert metrics["retain_accuracy"] == pytest.approx((row["after"][0] + row["after"][1]) / 2)
    assert [b["method"] for b in details["baselines"]] == [
        "edit, nearest",
        "edit, shared",
        "edit, centroid",
        "masked logit",
        "direction taken out",
        "trained without it",
    ]
    masked, retrained = details["baselines"][3], details["baselines"][5]
    assert masked["forget_after"] == 0 == retrained["forget_after"]  # neither can answer with the class
    assert set(details["probes"]) == {"before", *TARGETS, "without", "pixels"} and len(details["by_row"]) == 20
    assert details["by_row"][0][:2] == [
        row["forget_after"],
        row["retain_after"],
    ]  # the first row, as published
    assert metrics["centroid_probe_forgotten"] == details["probes"]["centroid"][-1]["forgotten"]
    assert "shuffled" not in details  # edits come from the training samples themselves
    assert len(details["pieces"]["network"]) == 3 and details["pieces"]["network"][-1] == 3
    assert len(details["pieces"]["surrogate"]) == 6 and set(details["variants"]) == {"free"}
    written = {p: p.stat().st_mtime_ns for p in tmp_path.glob("run/*/best.safetensors")}
    assert len(written) == 4
    assert cli.main(["kae", "yinyang", "--out", str(tmp_path / "run"), "--no-progress", "--classes", "1"]) == 0
    assert written == {p: p.stat().st_mtime_ns for p in written}  # nothing is trained again
    again = json.loads((tmp_path / "run" / "kae_yinyang.json").read_text())
    assert {r["forgotten"] for r in again["details"]["edits"]} == {1} and "forget_accuracy" not in again["metrics"]
    made, other = tmp_path / "run" / "kae" / "best.safetensors", tmp_path / "other"
    argv = ["kae", "yinyang", "--checkpoint-file", str(made), "--out", str(other), "--no-progress", "--classes", "1"]
    assert cli.main(argv) == 0
    assert f"written to {other / 'kae_yinyang.json'}" in capsys.readouterr().out.splitlines()
    assert [p.name for p in other.iterdir()] == ["kae_yinyang.json"]
    shown = json.loads((other / "kae_yinyang.json").read_text())
    assert shown["metrics"]["accuracy_test"] == again["metrics"]["accuracy_test"]


def test_mistakes_are_named(tiny, tmp_path, capsys):
    assert cli.main(["kae", "yinyang", "--classes", "3"]) == 2
    assert "classes: 3 is no class, expected 0 to 2" in capsys.readouterr().err
    assert cli.main(["kae", "yinyang", "--save", "--checkpoint-file", "x"]) == 2
    assert "save: a surrogate that is shipped is trained here" in capsys.readouterr().err
    assert cli.main(["kae", "yinyang", "--save", "--classes", "1"]) == 2
    assert "save: means of the results file are over all classes" in capsys.readouterr().err
    assert cli.main(["kae", "yinyang", "--checkpoint-file", "x"]) == 2
    assert (
        "no checkpoint 'x'; shipped are kae_mnist, kae_yinyang, or give a .safetensors file" in capsys.readouterr().err
    )
    for argv, message in (
        (["yinyang", "--checkpoint-file", "kae_mnist"], "kae_mnist was trained on 'mnist', found 'blobs'"),
        (["mnist", "--wide", "--checkpoint-file", "kae_mnist"], "wide: the layers of a checkpoint"),
        (["yinyang", "--out", "/proc/x"], "out: cannot write /proc/x/kae_yinyang.json"),
    ):
        assert cli.main(["kae", *argv]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    with pytest.raises(results.UserError, match="blobs is a stand-in"):
        kae_command._save("yinyang", blobs("test"), [Found(tmp_path, {}, {}, {}, 0.0)], True)
    assert cli.main(["kae", "mnist", "--seeds", "1", "1"]) == 2
    assert "seeds: expected at least one and none twice, got [1, 1]" in capsys.readouterr().err
    assert cli.main(["kae", "mnist", "--seeds", "1", "2", "--save"]) == 2
    assert "save: one surrogate is shipped" in capsys.readouterr().err


def test_several_seeds_give_means_and_deviations():
    found = kae_seeds.means([{"a": 1.0, "forgotten": 4}, {"a": 4.0, "forgotten": 4}])
    assert found == {"a": 2.5, "a_std": pytest.approx(4.5**0.5), "forgotten": 4}
    assert kae_seeds.means([{"a": 1.0}]) == {"a": 1.0}


@pytest.fixture
def surrogate():
    torch.manual_seed(0)
    model = Surrogate(SurrogateConfig(2, 3, width=6, blocks=2, components=4, hidden=7, lifted=8, steps=3)).eval()
    data = blobs("train")
    with torch.no_grad():
        first = model.network.first(data.to_float())
        model.alignment.fit(torch.stack([first, torch.randn(len(first), 6)], 1))
    return model


def test_what_is_measured_of_a_surrogate(surrogate):
    data = blobs("test", 60)
    found = kae_experiment.fidelity(surrogate, data.to_float(), data.labels)
    answers = surrogate(data.to_float()).argmax(1) == data.labels
    by_class = [float(answers[data.labels == c].double().mean()) for c in range(3)]
    assert found["accuracy_test"] == pytest.approx(np.mean(by_class)) and 0 <= found["agreement"] <= 1
    assert found["fvu_state"] > 0.5 and abs(found["distance_r_last"]) <= 1  # it was never trained


def test_the_order_of_the_rows_chooses_the_shared_target(surrogate):
    """Edits come from the rows that are given, in their order; the same edit from the training order stands beside."""
    data = [blobs("train"), blobs("validation", 60), blobs("test", 60)]
    order = torch.arange(len(data[0])).flip(0)
    turned = dataclasses.replace(data[0], values=data[0].values[order], labels=data[0].labels[order])
    plan = dataclasses.replace(TINY, variants={})
    metrics, details = kae_command.measure(plan, surrogate, data, [2], rows=turned)
    plain, _ = kae_command.measure(plan, surrogate, data, [2])
    assert metrics["shuffled_forget_accuracy"] == plain["forget_accuracy"] == details["shuffled"]["forget_after"]
    assert metrics["shuffled_retain_accuracy"] == plain["retain_accuracy"]
    z, z_test = (kae_experiment.observe(surrogate, d.to_float()) for d in (turned, data[-1]))
    edit = forget(rows_of(z, turned.labels, 2), surrogate.kae.power())
    assert metrics["forget_accuracy"] == unlearning_report(surrogate, z_test, data[-1].labels, edit).forget_after
    one = next(r for r in details["edits"] if (r["target"], r["rho"]) == ("shared", 0.1))
    assert one["change"] == pytest.approx(edit.change) and abs(one["change"] - details["shuffled"]["change"]) > 1e-6
    assert "without" not in details["probes"] and len(details["probes"]["pixels"]) == 3


def test_publish_says_how_a_surrogate_is_shipped(surrogate, tmp_path, capsys):
    checkpoint.save_model(tmp_path / "best.safetensors", surrogate, {})
    assert cli.main(["publish", str(tmp_path)]) == 2
    assert "holds a Surrogate, which is shipped with --save by the command" in capsys.readouterr().err


def test_clouds_are_compared_at_one_size():
    x = torch.randn(30, 3, 4) * torch.tensor([1.0, 5, 9])[:, None] + 7
    same = kae_experiment.unit(x)
    assert same.mean(0).abs().max() < 1e-12
    torch.testing.assert_close(same.square().sum(-1).mean(0), torch.ones(3, dtype=torch.float64))


def test_pictures_of_the_explorer(surrogate):
    train, test = blobs("train"), blobs("test", 60)
    explorer = Forgetting(surrogate, train, test, side=12)
    figure = explorer.figure(1, "centroid", 0.3)
    assert len(figure.axes) == 6 and "Forget b (centroid target, ρ = 0.3)" in figure.get_suptitle()
    region = figure.axes[1].images[0].get_array()
    places = (torch.arange(12) + 0.5) / 12
    with torch.no_grad():
        answer = surrogate(torch.stack([places[10], places[3]])[None]).argmax()
    assert region[3, 10] == int(answer)  # rows are y, columns are x
    box = explorer.widget()
    box.children[0].children[0].value = 2
    assert box.children[2].value[:4] == b"\x89PNG" and not box.children[1].value


def test_other_figures():
    rows = {"shared": [(1, 0, 0.9, 0.8), (0.9, 0.1, 1, 1)]}
    axes = kae_plots.plot_unlearning(rows, ("a", "b")).axes
    assert axes[0].lines[1].get_ydata().tolist() == [0, 10]
    pieces = kae_plots.plot_pieces(
        0.3, {"network": np.array([9, 1])}, np.linspace(0, 1, 4), {"network": np.array([[9, 5, 2, 1], [9, 2, 1, 1]])}
    )
    assert pieces.axes[0].lines[0].get_ydata().tolist() == [9, 1]
    clouds = kae_plots.plot_clouds({"first": np.zeros((4, 2)), "last": np.ones((4, 2))}, np.arange(4) % 2, ("a", "b"))
    assert len(clouds.axes) == 2
    distances = kae_plots.plot_distances({"λ = 1": (np.arange(3.0), np.arange(3.0))})
    assert distances.axes[0].get_title() == "λ = 1"


def test_runs_name_their_network_from_the_workbooks_folder():
    folder = kae_experiment.paths.root() / "runs" / "kae_mnist"
    config = kae_experiment.kae_config(kae_experiment.EXPERIMENTS["yinyang"], folder, "distance_0")
    assert config.network == "runs/kae_mnist/network/best.safetensors" and config.distance_weight == 0
    assert dataclasses.replace(config, distance_weight=1.0).weights["distance"] == 1


def test_a_result_says_with_what_it_was_made(tmp_path, monkeypatch):
    def found(seed, accuracy):
        progress = {"best": {"step": 5 + seed}, "wall_s": 1.5}
        meta = {"environment": environment.report().to_dict(), "train": {"seed": seed}, "progress": progress}
        return Found(tmp_path / "kae" / "best.safetensors", meta, {"accuracy_test": accuracy}, {"edits": [seed]}, 2.0)

    saved = []
    monkeypatch.setattr(results, "save", lambda result: saved.append(result) or tmp_path)
    real = dataclasses.replace(blobs("test"), source="real")
    kae_command._save("mnist_wide", real, [found(21, 0.5), found(53, 0.75)], False)
    kae_command._save("mnist_wide", real, [found(21, 0.5)], True)
    both, one = saved
    assert both.command == "kpm kae mnist --wide --seeds 21 53 --no-retrain --save" and both.checkpoint is None
    assert one.command == "kpm kae mnist --wide --seeds 21 --save" and one.seeds == (21,)
    assert both.metrics["accuracy_test"] == 0.625 and "accuracy_test_std" in both.metrics
    assert both.details == {"seeds": {"21": {"edits": [21]}, "53": {"edits": [53]}}} and one.details == {"edits": [21]}
    assert (both.steps, both.wall_s) == (58, 3.0) and "one seed" in one.notes and "deviation" in both.notes

from __future__ import annotations

import json
import statistics

import pytest

from kpm import paths
from kpm.cli import main
from kpm.datasets import quad_link_images
from kpm.errors import UserError
from kpm.workbook import dse_quadlink, quad_link_table, results


@pytest.fixture
def short(monkeypatch):
    """Two films of 90 frames in place of one of 1500."""
    monkeypatch.setattr(quad_link_images, "SIZES", {"1.5k": (2, 90)})


def test_trials_are_run_once_and_saved(short, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "results", lambda: tmp_path / "results")
    ask = [
        "dse",
        "quadlink",
        "--quick",
        "--frames",
        "180",
        "--corrupted",
        "--methods",
        "linear",
        "lstm",
        "--folder",
        str(tmp_path / "q"),
    ]
    assert main([*ask, "--trials", "2"]) == 0
    assert "linear trial 1" in (first := capsys.readouterr().out)
    assert main([*ask, "--trials", "2", "--save"]) == 0
    again = capsys.readouterr().out
    assert "trial 1" not in again and "against the clean frames" in again and "0.3167 ± 0.0223" in again
    assert first.strip() in again or first.split("\n\n")[1] in again
    record = json.loads((tmp_path / "q" / "1.5k_corrupted" / "lstm_1.json").read_text())
    assert record["settings"]["films"]["epochs"] == 2 and list(record["errors"]) == ["observed", "clean"]
    saved = results.load("dse_quadlink", tmp_path / "results")
    values = [
        json.loads((tmp_path / "q" / "1.5k_corrupted" / f"linear_{k}.json").read_text())["errors"] for k in (0, 1)
    ]
    mean = sum(v["observed"]["1"] for v in values) / 2
    assert saved.metrics["mse_corrupted_linear_h1"] == pytest.approx(mean)
    spread = abs(values[0]["observed"]["1"] - values[1]["observed"]["1"]) / 2**0.5
    assert saved.metrics["mse_corrupted_linear_h1_std"] == pytest.approx(spread)
    assert saved.command == "kpm dse quadlink --frames 1500 --corrupted --methods linear lstm --trials 2 --save"
    assert saved.paper["mse_corrupted_lstm_h1"] == 0.3167 and saved.seeds == (0, 1)
    assert saved.metrics["mse_corrupted_noise_floor_h1"] < mean < saved.metrics["mse_corrupted_black_h1"]


def test_variants_of_dse_change_what_they_say(short, tmp_path):
    names = ("dse", "dse_plain", "dse_joint", "dse_learned", "dse_codes")
    ask = {"frames": 180, "methods": names, "trials": 1, "folder": tmp_path}
    dse_quadlink.quadlink_command(quick=True, **ask)
    kept = {n: json.loads((tmp_path / "1.5k_clean" / f"{n}_0.json").read_text()) for n in names}
    own = kept["dse"]["settings"]

    def changed(name):
        return {
            key: value
            for part, values in kept[name]["settings"].items()
            for key, value in values.items()
            if value != own[part][key]
        }

    assert changed("dse_plain") == {"components": 0, "heads": 1}
    assert changed("dse_joint") == {"schedule": "joint"}
    assert changed("dse_learned") == {"closed_form": False}
    codes = {"realized": False, "window": 1, "heads": 1, "stage_one": 0, "stage_two": 3}
    assert changed("dse_codes") == codes
    assert len({record["errors"]["clean"]["1"] for record in kept.values()}) == 5


def test_trials_of_other_settings_are_not_mixed(short, tmp_path):
    ask = {"frames": 180, "methods": ("linear",), "trials": 1, "folder": tmp_path}
    dse_quadlink.quadlink_command(quick=True, **ask)
    with pytest.raises(UserError, match=r"linear_0\.json: was run with other settings"):
        dse_quadlink.quadlink_command(**ask)


def test_bad_arguments(capsys):
    assert main(["dse", "quadlink", "--frames", "1000"]) == 2
    assert "frames: expected 1500 or 15000, got 1000" in capsys.readouterr().err
    assert main(["dse", "quadlink", "--methods", "rnk"]) == 2
    assert "did you mean 'rkn'" in capsys.readouterr().err
    assert main(["dse", "quadlink", "--trials", "-1"]) == 2


def keep(folder, films, method, errors):
    """Trials of a method, ``{trial: error}``, the same at all horizons."""
    for trial, error in errors.items():
        path = quad_link_table.path(folder, "1.5k", films == "corrupted", method, trial)
        path.parent.mkdir(exist_ok=True)
        by_target = {
            target: {h: error for h in quad_link_table.HORIZONS}
            for target in (["observed", "clean"] if films == "corrupted" else ["clean"])
        }
        path.write_text(json.dumps({"method": method, "trial": trial, "errors": by_target}))


def test_methods_are_compared_on_the_trials_that_all_have(tmp_path):
    keep(tmp_path, "clean", "linear", {0: 1.0, 1: 2.0, 2: 6.0, 3: 11.0})
    keep(tmp_path, "clean", "dse", {0: 3.0, 2: 5.0, 3: 7.0})
    keep(tmp_path, "corrupted", "linear", {0: 10.0, 1: 20.0, 2: 30.0})
    found = quad_link_table.result(tmp_path, "1.5k")
    assert found.seeds == (0, 2) and "all methods have (0, 2)" in found.notes and "linear clean 4" in found.notes
    expected = {"clean_linear": [1.0, 6.0], "clean_dse": [3.0, 5.0], "corrupted_linear": [10.0, 30.0]}
    expected |= {"clean_linear_4": [1.0, 2.0, 6.0, 11.0], "clean_dse_3": [3.0, 5.0, 7.0]}
    expected |= {"corrupted_linear_3": [10.0, 20.0, 30.0]}
    for name, values in expected.items():
        films, method, *of = name.split("_")
        name = f"mse_{films}_{method}_h1" + "".join(f"_mean_of_{n}" for n in of)
        assert found.metrics[name] == statistics.mean(values), name
        assert found.metrics[f"{name}_std"] == pytest.approx(statistics.stdev(values)), name
    assert "mse_clean_dse_h1_mean_of_2" not in found.metrics
    assert found.details["clean"]["errors"]["linear"]["clean"]["1"] == [1.0, 2.0, 6.0, 11.0]
    keep(tmp_path, "clean", "lstm", {2: 4.0})
    one = quad_link_table.result(tmp_path, "1.5k")
    assert one.seeds == (2,) and one.metrics["mse_clean_linear_h1"] == 6 and one.metrics["mse_clean_dse_h1"] == 5
    assert "mse_clean_linear_h1_std" not in one.metrics and one.metrics["mse_clean_linear_h1_mean_of_4"] == 5
    keep(tmp_path, "corrupted", "rkn", {1: 4.0})
    with pytest.raises(UserError, match="no trial that all methods have"):
        quad_link_table.result(tmp_path, "1.5k")


def test_the_shipped_figures_are_of_the_trials_that_all_methods_have():
    stored = results.load("dse_quadlink")
    for films in ("clean", "corrupted"):
        target = "observed" if films == "corrupted" else "clean"
        for method, errors in stored.details[films]["errors"].items():
            values, name = errors[target]["1"], f"mse_{films}_{method}_h1"
            assert stored.metrics[name] == statistics.mean(values[: len(stored.seeds)])
            if len(values) > len(stored.seeds):
                name = f"{name}_mean_of_{len(values)}"
                assert stored.metrics[name] == statistics.mean(values)
                assert stored.metrics[f"{name}_std"] == pytest.approx(statistics.stdev(values))


def test_nothing_to_save(tmp_path):
    with pytest.raises(UserError, match="holds no trial"):
        quad_link_table.result(tmp_path / "empty", "1.5k")


def test_methods_of_command_and_table_are_the_same():
    assert tuple(dse_quadlink.METHODS) == quad_link_table.METHODS


def test_the_encoder_of_the_first_trial_is_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "root", lambda: tmp_path / "home")
    assert dse_quadlink.shipped(tmp_path, "1.5k") is None
    weights = tmp_path / "1.5k_corrupted" / "dse_0" / "best.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    found = dse_quadlink.shipped(tmp_path, "1.5k")
    assert found.file == "data/checkpoints/dse_quadlink.safetensors" and found.status() == "ok"
    assert (tmp_path / "home" / found.file).read_bytes() == b"weights"
    weights.unlink()
    assert dse_quadlink.shipped(tmp_path, "1.5k") == found

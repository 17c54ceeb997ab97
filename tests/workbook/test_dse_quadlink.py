from __future__ import annotations

import json

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

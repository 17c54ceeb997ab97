"""The command line: what it does with what it is given, good and bad."""

import json
import subprocess
import sys

import pytest

from kpm import __version__, cli, datasets


def run(capsys, *argv):
    status = cli.main(argv)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_no_arguments_lists_every_command(capsys):
    status, out, _ = run(capsys)
    assert status == 0
    for name in cli.COMMANDS:
        assert name in out


def test_a_group_lists_its_commands(capsys):
    status, out, _ = run(capsys, "data")
    assert status == 0 and "data list" in out and "train" not in out


def test_version(capsys):
    assert run(capsys, "--version")[1].strip() == __version__


@pytest.mark.parametrize(
    ("argv", "near"),
    [
        (["trian"], "train"),
        (["data", "lst"], "list"),
        (["train", "ssmskd"], "ssm-skd"),
        (["train", "skd", "--method", "ssm-skd"], "without --method"),
        (["train", "ssm-skd", "--dataset", "sprite"], "sprites"),
        (["train", "judge", "--dataset", "sprite"], "did you mean 'sprites'"),
        (["train", "judge", "--dataset", "imdb"], "unknown dataset 'imdb'; choose one of dsprites, dsprites_rerender"),
        (["train", "classifier", "--dataset", "puppets"], "dataset: expected images, points or series, 'puppets'"),
        (["train", "kae", "--network", "nosuch"], "network: no checkpoint 'nosuch'"),
        (["train", "ssm-skd", "--latentdim", "3"], "--latent-dim"),
        (["run", "--profil", "quick"], "--profile"),
        (["data", "show", "puppet"], "puppets"),
        (["report", "--jsn"], "--json"),
    ],
)
def test_mistakes_are_one_line_with_the_nearest_name(capsys, argv, near):
    status, _, err = run(capsys, *argv)
    assert status == 2
    assert err.startswith("kpm: ") and err.count("\n") == 1
    assert near in err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--latent-dim", "0"], "latent_dim must be at least 1, got 0"),
        (["--learning-rate", "-1"], "learning_rate must be positive"),
        (["--dropout", "1.5"], r"dropout must lie in [0, 1)"),
        (["--warmup-steps", "-5"], "warmup_steps must be at least 0"),
        (["--prediction-share", "0"], "prediction_share must be above 0 and at most 1, got 0.0"),
        (["--prediction-share", "0.5", "--accumulate", "2"], "prediction_share below 1 does not go with accumulate"),
        (["--swap-share", "1.5"], "swap_share must be above 0 and at most 1, got 1.5"),
        (["--w-swap", "1", "--batch-size", "1"], "w_swap: a swap needs two films"),
        (["--w-between", "1", "--batch-size", "1"], "w_between: a swap needs two films"),
        (["--w-looks", "1", "--accumulate", "2"], "w_looks: a swap needs two films, and the whole batch at once"),
        (["--looks-steps", "0"], "looks_steps must be at least 1, got 0"),
        (["--looks-spoil", "0.5"], "looks_spoil: nothing looks at swaps without w_looks"),
        (["--looks-spoil", "-1"], "looks_spoil must lie in [0, 1], got -1.0"),
        (["--looks-colour-blind", "2"], "looks_colour_blind must lie in [0, 1], got 2.0"),
        (["--decoder-only"], "decoder_only: without init there is no encoder to keep"),
        (["--between-middle", "0.5"], "between_middle: there are no points between without w_between"),
        (["--w-mirror", "1", "--accumulate", "2"], "w_mirror: looks at the whole batch at once"),
        (["--between-pixels", "0.5"], "between_pixels: there are no points between without w_between"),
        (["--between-middle", "2"], "between_middle must lie in [0, 1], got 2.0"),
        (["--swap-motion", "-1"], "swap_motion must lie in [0, 1], got -1.0"),
        (["--max-hours", "-1"], "max_hours must be at least 0, got -1.0"),
        (["--w-borrowed", "1", "--accumulate", "2"], "w_borrowed: looks at the whole batch at once"),
        (["--mirror-share", "0"], "mirror_share must be above 0 and at most 1, got 0.0"),
        (["--axes", "--turn-axes"], "turn_axes: there is nothing to turn without axes and init"),
        (["--lr-factor", "2"], "lr_factor must lie between 0 and 1"),
        (["--validation-sequences", "0"], "validation_sequences must be at least 1"),
        (["--w-prediction", "nan"], "w_prediction must be finite"),
        (["--w-prediction", "-1"], "w_prediction must be at least 0"),
        (["--seed", "99999999999999999999"], "seed must be below 2^63"),
        (["--latent-dim", "abc"], "--latent-dim"),
        (["--static-size", "2"], "static_size: ssm-skd has one static mode"),
        (["--steps", "0"], "steps must be at least 1"),
    ],
)
def test_bad_values_name_the_field(capsys, tmp_path, flags, words):
    status, _, err = run(capsys, "train", "ssm-skd", "--out", str(tmp_path / "x"), *flags)
    assert status == 2 and words in err and err.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("device", ["gpu0", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(capsys, tmp_path, device):
    flags = ["--dataset", "puppets", "--out", str(tmp_path / "x"), "--device", device]
    status, _, err = run(capsys, "train", "ssm-skd", *flags)
    assert status == 2 and device in err and err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_an_output_that_cannot_be_written_is_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    flags = ["--dataset", "puppets", "--out", str(tmp_path / "file"), "--device", "cpu", "--no-progress"]
    status, _, err = run(capsys, "train", "ssm-skd", *flags)
    assert status == 2 and "run folder" in err and err.count("\n") == 1


def test_train_needs_a_method(capsys):
    status, _, err = run(capsys, "train", "--quick")
    assert status == 2 and "skd, ssm-skd" in err


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--dataset", "sprites", "--help"]])
def test_help_of_train_lists_its_methods(capsys, argv):
    status, out, _ = run(capsys, "train", *argv)
    assert status == 0 and out.startswith("usage: kpm train METHOD")
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert sorted(listed) == ["classifier", "copy", "ecg", "judge", "kae", "sentiment", "sim", "skd", "ssm-skd"]
    assert "--latent-dim" not in out


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["train", "copy"], "usage: kpm train copy [-h]"),
        (["train", "skd", "--quick"], "usage: kpm train skd [-h]"),
        (["search", "skd", "sprites"], "usage: kpm search skd sprites [-h]"),
    ],
)
def test_usage_names_what_was_asked_for(capsys, words, usage):
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--help"])
    assert not end.value.code and capsys.readouterr().out.startswith(usage)
    status, _, err = run(capsys, *words, "--zzz", "1")
    assert status == 2 and usage.removeprefix("usage: ").removesuffix("[-h]") + "--help" in err


def test_every_method_of_train_is_listed():
    from kpm.training import command, config, tasks

    assert set(command.LISTED) == {*config.METHODS, "judge", *tasks.TASKS}


def test_every_command_has_help_and_every_config_field_a_flag():
    import dataclasses

    from kpm.training.config import TrainConfig

    shown = subprocess.run([sys.executable, "-m", "kpm.cli", "train", "skd", "--help"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    for field in dataclasses.fields(TrainConfig):
        if field.name != "method":
            assert f"--{field.name.replace('_', '-')}" in shown.stdout
    assert "(default: 40)" in shown.stdout  # the defaults are those of the method asked for


def test_training_by_the_command_line_and_resuming(capsys, tmp_path):
    flags = ["--dataset", "puppets", "--width", "4", "--batch-size", "4", "--validation-sequences", "8"]
    flags += ["--precision", "32-true", "--out", str(tmp_path / "run"), "--device", "cpu", "--no-progress"]
    status, out, _ = run(capsys, "train", "ssm-skd", *flags, "--steps", "3")
    assert status == 0 and "finished after 3 steps" in out and "puppets (synthetic)" in out
    status, out, _ = run(capsys, "train", "ssm-skd", *flags, "--steps", "5", "--resume")
    assert status == 0 and "finished after 5 steps" in out
    status, _, err = run(capsys, "train", "ssm-skd", *flags, "--steps", "5", "--resume", "--seed", "1")
    assert status == 2 and "other parameters (seed 7253 -> 1)" in err


def test_a_slip_in_init_is_told_before_the_films_are_composed(capsys, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda *_: pytest.fail("films were composed"))
    status, _, err = run(capsys, "train", "skd", "--init", "skd_sprite")
    assert status == 2 and "init: no checkpoint 'skd_sprite'; shipped are" in err


def test_report_is_json(capsys):
    status, out, _ = run(capsys, "report", "--json")
    assert status == 0 and json.loads(out)["packages"]["torch"]

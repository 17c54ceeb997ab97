"""Trainings that start from weights: what they take over, what they change, what they count."""

import dataclasses

import pytest
import torch

from kpm.errors import UserError
from kpm.training import checkpoint
from kpm.training.config import command as config_command
from tests.training.conftest import run, small, weights


def test_a_run_can_start_from_weights_and_counts_what_made_them(data, tmp_path):
    first = run(small(steps=10), tmp_path / "first", data)
    start = str(tmp_path / "first/best.safetensors")
    second = run(small(steps=1, init=start, learning_rate=1e-12, warmup_steps=0, ema=0.0), tmp_path / "second", data)
    a, b = (checkpoint.read(tmp_path / f"{n}/best.safetensors") for n in ("first", "second"))
    for name, value in a[0].items():
        if "running" not in name and "num_batches" not in name:  # one step moves the statistics
            torch.testing.assert_close(b[0][name], value, rtol=0, atol=1e-9)
    assert b[1]["progress"]["before_steps"] == first.best["step"] > 0
    assert b[1]["progress"]["before_wall_s"] == pytest.approx(a[1]["progress"]["wall_s"])
    assert second.steps == 1
    assert b[1]["progress"]["before_commands"] == [config_command(a[1]["train"], first.best["step"])]
    with pytest.raises(UserError, match=r"init: best.safetensors is a model of other sizes"):
        run(small(init=start, latent_dim=10), tmp_path / "third", data)
    with pytest.raises(UserError, match=r"^init: no checkpoint 'nothing'; "):
        run(small(init="nothing"), tmp_path / "fourth", data)


def test_weights_of_a_decoder_with_fewer_units_are_widened(data, tmp_path):
    run(small(steps=3), tmp_path / "first", data)
    start = str(tmp_path / "first/last.safetensors")
    wide = small(steps=1, init=start, hidden_dim=14, learning_rate=1e-12, warmup_steps=0, ema=0.0)
    run(wide, tmp_path / "wide", data)
    a, b = (checkpoint.load_model(tmp_path / f"{n}/last.safetensors")[0] for n in ("first", "wide"))
    z = torch.randn(2, 8, 9)
    hidden = [m.decoder.lstm(z)[0] for m in (a, b)]  # statistics of the convolutions moved with the step
    assert hidden[1].shape[-1] == 14
    torch.testing.assert_close(hidden[1][..., :10], hidden[0])
    with pytest.raises(UserError, match=r"init: last.safetensors is a model of other sizes"):
        run(small(init=start, hidden_dim=9), tmp_path / "narrow", data)


def test_a_run_on_films_of_ones_own_can_be_gone_on_from(data, tmp_path):
    config = small(steps=2, dataset="squares")
    run(config, tmp_path / "first", data)
    run(dataclasses.replace(config, init=str(tmp_path / "first/last.safetensors")), tmp_path / "second", data)
    progress = checkpoint.read(tmp_path / "second/last.safetensors")[1]["progress"]
    (line,) = progress["before_commands"]
    assert line.startswith("kpm train ssm-skd --dataset squares ") and "--width 4" in line and "--steps 2" in line


def test_weights_get_axes_and_have_them_turned_again_if_asked(data, tmp_path, monkeypatch):
    from kpm.models.channel_basis import ChannelBasis
    from kpm.training import loop

    draw = torch.Generator().manual_seed(1)
    matrix = torch.randn(9, 9, generator=draw, dtype=torch.float64)
    monkeypatch.setattr(loop, "independent_basis", lambda model, films: ChannelBasis.of(matrix))
    still = dict(steps=1, learning_rate=1e-12, warmup_steps=0, ema=0.0, axes=True)
    run(small(steps=2), tmp_path / "plain", data)
    start = "plain"
    for name, options, wanted in (
        ("given", {}, matrix.T),
        ("kept", {}, matrix.T),
        ("turned", {"turn_axes": True}, matrix.T @ matrix.T),
    ):
        init = str(tmp_path / start / "last.safetensors")
        run(small(init=init, **still, **options), tmp_path / name, data)
        found = weights(tmp_path / name)["model.encoder.axes.weight"]
        torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-4)
        start = name

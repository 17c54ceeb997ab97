"""``kpm data list | fetch | show``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from kpm import datasets
from kpm.datasets import command, registry
from kpm.datasets.show import plot_samples
from kpm.errors import UserError


def test_list_names_every_dataset(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("KPM_CACHE", str(tmp_path))
    assert command.data_list() == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert {*registry.ENTRIES, *datasets.names()} < set(lines)
    assert "CC BY-SA 3.0 or GPL 3.0" in lines["sprites"] and "267.6 MB" in lines["shapes3d"]
    assert str(tmp_path) in lines["cache"] and "none" in lines["mirror"]


@pytest.mark.real
def test_fetch_puts_the_files_into_the_cache(capsys, tmp_path, monkeypatch, mirror, sprites_folder):
    monkeypatch.setenv("KPM_CACHE", str(tmp_path))
    monkeypatch.setenv("KPM_MIRROR", str(mirror))
    assert tyro.cli(command.data_fetch, args=["sprites"]) == 0
    assert "25 files" in capsys.readouterr().out
    assert (tmp_path / "sprites" / "shoes" / "1.png").is_file()
    monkeypatch.delenv("KPM_MIRROR")
    command.data_list()
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("sprites "))
    assert "yes" in line and "no " in line


def test_fetch_of_what_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("KPM_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="KPM_MIRROR"):
        command.data_fetch("shapes3d")
    with pytest.raises(UserError, match="did you mean 'mnist'"):
        command.data_fetch("mnits")


def test_show_writes_a_picture(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    assert tyro.cli(command.data_show, args=["sprites", "--split", "test", "--source", "synthetic"]) == 0
    target = tmp_path / "figures" / "data_puppets.png"
    assert f"puppets (synthetic): {target}" in capsys.readouterr().out
    with Image.open(target) as picture:
        assert picture.format == "PNG" and picture.width > 1000
    assert tyro.cli(command.data_show, args=["puppets", "--out", str(tmp_path / "p.pdf")]) == 0
    assert (tmp_path / "p.pdf").read_bytes().startswith(b"%PDF")


def test_picture_shows_every_class_of_every_factor():
    dataset = datasets.load("puppets", "validation")
    figure = plot_samples(dataset)
    stills, strips = figure.axes[:4], figure.axes[4:]
    assert [axes.get_title(loc="left") for axes in stills] == list(dataset.static)
    for axes, factor in zip(stills, dataset.static):
        labels = [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()]
        assert labels == list(dataset.class_names[factor])
        assert axes.images[0].get_interpolation() == "nearest"
    assert [axes.get_ylabel().replace("\n", " ") for axes in strips] == list(dataset.class_names["action"])
    # The fourth strip is the fourth action of one character, frame after frame.
    one = {"skin": 0, "pants": 3, "top": 0, "hair": 3, "action": 3}
    clip = dataset.compose({f: torch.tensor([label]) for f, label in one.items()})
    shown = np.asarray(strips[3].images[0].get_array())
    assert np.array_equal(shown, np.concatenate(list(clip[0].permute(0, 2, 3, 1).numpy()), axis=1))


def test_strips_of_several_dynamic_factors_stand_under_their_names():
    figure = plot_samples(datasets.load("moving_dsprites_rerender", "validation"))
    assert [t.get_text() for t in figure.texts if t.get_text() in ("scale", "x", "y")] == ["scale", "x", "y"]

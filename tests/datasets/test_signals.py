"""The face of datasets of time series, and the picture of one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from kpm.datasets import command
from kpm.datasets.show_signals import plot_signals
from kpm.datasets.signals import Signals

LABELS = [0, 2, 0, 1, 2, 2, 0]


@pytest.fixture
def few() -> Signals:
    return Signals(
        values=torch.arange(7 * 5 * 2.0).reshape(7, 5, 2),
        labels=torch.tensor(LABELS),
        name="own",
        class_names=("calm", "spike", "step", "absent"),
    )


def test_face(few):
    assert len(few) == 7 and few[-1].shape == (5, 2) and few[2:4].shape == (2, 5, 2)
    assert torch.equal(few[torch.tensor([6, 0])], few.values[[6, 0]])
    assert few.anomalous.tolist() == [label != 0 for label in LABELS]
    plain = few.describe()
    assert plain["classes"] == {"calm": 3, "spike": 1, "step": 3, "absent": 0} and plain["shape"] == [5, 2]
    assert plain["sequences"] == 7 and "tensor" not in repr(few)
    with pytest.raises(IndexError, match="index 7 is out of range for 7 series"):
        few[7]


def test_subset(few):
    some = few.subset(few.anomalous, "odd")
    assert some.labels.tolist() == [2, 1, 2, 2] and some.split == "odd" and torch.equal(some[1], few[3])


def test_batches_bring_every_series_once(few):
    plain = list(few.batches(3))
    assert [len(v) for v, _ in plain] == [3, 3, 1] and torch.equal(torch.cat([v for v, _ in plain]), few.values)
    shuffled = list(few.batches(3, torch.Generator().manual_seed(0)))
    rows = torch.cat([v for v, _ in shuffled])[:, 0, 0].long() // 10
    assert sorted(rows.tolist()) == list(range(7)) != rows.tolist()
    assert torch.equal(torch.cat([y for _, y in shuffled]), few.labels[rows])


def test_picture_has_a_panel_for_each_class_that_is_there(few):
    figure = plot_signals(few, channel=1)
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in panels] == ["calm (3)", "spike (1)", "step (3)"]
    median = panels[2].get_lines()[-1].get_ydata()
    assert np.array_equal(median, np.median(few.values[[1, 4, 5], :, 1].numpy(), axis=0))
    four = Signals(few.values[:4], torch.arange(4), "own", class_names=few.class_names)
    assert [axes.axison for axes in plot_signals(four).axes] == [True] * 4 + [False] * 2


def test_show_draws_a_picture(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    assert tyro.cli(command.data_show, args=["ecg5000", "--split", "validation", "--source", "synthetic"]) == 0
    target = tmp_path / "figures" / "data_beats.png"
    assert f"beats (synthetic): {target}" in capsys.readouterr().out
    with Image.open(target) as picture:
        assert picture.format == "PNG" and picture.width > 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": torch.zeros(7, 5)}, r"values: expected floats \(n, time, channels\), got torch.float32 \(7, 5\)"),
        ({"values": torch.zeros(7, 5, 2, dtype=torch.int64)}, "values: expected floats"),
        ({"values": torch.zeros(0, 5, 2), "labels": torch.zeros(0, dtype=torch.int64)}, "values: expected floats"),
        ({"labels": torch.zeros(6, dtype=torch.int64)}, r"labels: expected int64 \(7,\), got torch.int64 \(6,\)"),
        ({"labels": torch.zeros(7)}, r"labels: expected int64 \(7,\), got torch.float32"),
        ({"labels": torch.full((7,), 4)}, "labels: expected 0 to 3"),
        ({"labels": torch.full((7,), -1)}, "labels: expected 0 to 3"),
    ],
)
def test_bad_input_is_named(few, change, message):
    given = {"values": few.values, "labels": few.labels, "name": "own", "class_names": few.class_names}
    with pytest.raises(ValueError, match=message):
        Signals(**{**given, **change})
    with pytest.raises(ValueError, match="size: expected 1 or more, got 0"):
        next(few.batches(0))

"""Yin-Yang: the rule and the order of draws against an independent reading of them, and the published files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kpm import datasets
from kpm.datasets import yin_yang
from kpm.datasets.points import Points
from kpm.datasets.show_points import plot_points
from kpm.errors import UserError


def picture_class(x, y):
    """The same figure, said another way: two half discs of the large circle, each with a smaller one of the other."""
    if np.hypot(x - 0.5, y - 0.5) > 0.5:
        return -1
    left, right = np.hypot(x - 0.25, y - 0.5), np.hypot(x - 0.75, y - 0.5)
    if min(left, right) < 0.1:
        return 2
    if left <= 0.25:  # the left bulge belongs to yang, the right one to yin
        return 1
    return 0 if right <= 0.25 else int(y > 0.5)


def test_classes_of_a_grid():
    grid = np.stack(np.meshgrid(np.linspace(0.003, 0.997, 71), np.linspace(0.001, 0.999, 73)), -1).reshape(-1, 2)
    found = yin_yang.classes(grid)
    assert found.tolist() == [picture_class(x, y) for x, y in grid]
    assert set(found) == {-1, 0, 1, 2}
    with pytest.raises(ValueError, match=r"points: expected shape \(n, 2\), got \(2, 3\)"):
        yin_yang.classes(np.zeros((2, 3)))


def test_the_class_is_drawn_before_the_point():
    points, labels = yin_yang.draw(60, 7)
    stream, expected = np.random.RandomState(7), []
    for _ in range(60):
        wanted = stream.randint(3)
        point = stream.rand(2)
        while picture_class(*point) != wanted:
            point = stream.rand(2)
        expected.append((*point, wanted))
    assert [(*p, c) for p, c in zip(points.tolist(), labels.tolist(), strict=True)] == expected
    with pytest.raises(ValueError, match="count: expected 1 or more, got 0"):
        yin_yang.draw(0, 1)


def test_classes_are_balanced_although_the_dots_are_small():
    data = datasets.load("yinyang_drawn", "train")
    share = torch.bincount(data.labels) / len(data)
    assert (share - 1 / 3).abs().max() < 4 * (2 / 9 / len(data)) ** 0.5  # four standard deviations
    assert (len(data), data.source, data.class_names) == (5000, "synthetic", ("yin", "yang", "dot"))
    assert data.describe()["sequences"] == 5000 and data.values.dtype == torch.float64
    other = datasets.load("yinyang", "test", "synthetic")
    assert other.name == "yinyang_drawn" and len(other) == 1000


@pytest.mark.real
@pytest.mark.parametrize("split", yin_yang.SPLITS)
def test_our_draw_is_the_published_one(split, mirror, base, monkeypatch):
    if not (mirror / "yinyang").is_dir():
        pytest.skip(f"the mirror {mirror} has no yinyang")
    monkeypatch.setenv("KPM_MIRROR", str(mirror))
    published, ours = datasets.load("yinyang", split, "real"), datasets.load("yinyang_drawn", split)
    assert published.name == "yinyang" and published.source == "real"
    assert torch.equal(published.values, ours.values) and torch.equal(published.labels, ours.labels)


def test_unknown_split():
    with pytest.raises(UserError, match="unknown split 'tets'; did you mean 'test'"):
        datasets.load("yinyang_drawn", "tets")


def test_points_are_a_dataset():
    data = Points(torch.arange(8.0).view(4, 2), torch.tensor([0, 1, 1, 0]), "mine")
    assert len(data) == 4 and data[-1].tolist() == [6, 7] and data.subset(slice(1, 3)).labels.tolist() == [1, 1]
    assert data.to_float().dtype == torch.float32 and data.describe()["classes"] == {"0": 2, "1": 2}
    with pytest.raises(IndexError, match="index 4 is out of range for 4 points"):
        data[4]
    for values, labels, message in (
        (torch.zeros(4, 2, 1), data.labels, r"values: expected floats \(n, dimensions\)"),
        (data.values, data.labels[:2], r"labels: expected int64 \(4,\)"),
        (data.values, data.labels + 1, "labels: expected 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Points(values, labels, "mine")
    assert "mine" in plot_points(data).axes[0].get_title()


def test_small_digits_come_with_a_package():
    parts = [datasets.load("small_digits", s) for s in ("train", "validation", "test")]
    assert [len(p) for p in parts] == [1100, 200, 497] and {p.source for p in parts} == {"real"}
    assert torch.cat([p.labels for p in parts]).bincount(minlength=10).min() > 170
    assert float(parts[0].to_float().max()) == 1.0 and datasets.comes_with("small_digits") == "scikit-learn"
    assert datasets.load("small_digits", "test", "real").name == "small_digits"
    with pytest.raises(UserError, match="comes with scikit-learn and has no stand-in"):
        datasets.load("small_digits", "test", "synthetic")

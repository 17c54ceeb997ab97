"""Figures of swaps show the numbers they are given."""

from __future__ import annotations

import numpy as np
import pytest

from kpm.metrics import thesis_tables
from kpm.metrics.disentanglement import d_mf, d_sd
from kpm.metrics.evaluation import targets
from kpm.workbook.disentanglement_plots import (
    plot_accuracies,
    plot_gains,
    plot_kinds,
    plot_losses_by_factor,
    plot_trade_off,
)

CLASSES, STATIC, DYNAMIC = thesis_tables.CLASSES["sprites"], ("skin", "pants", "top", "hair"), ("action",)


def rows():
    static, dynamic = thesis_tables.STATIC_SWAP["sprites"], thesis_tables.DYNAMIC_SWAP["sprites"]
    factorial = {f"retain {f}": row for f, row in thesis_tables.FACTORIAL["sprites"].items()}
    return {"static swap": static, "dynamic swap": dynamic, **factorial}


def test_targets_are_those_of_the_scores():
    """One minus the mean distance from the targets is the score itself."""
    aims = targets(CLASSES, STATIC, DYNAMIC)
    off = {r: np.mean([abs(row[f] - aims[r][f]) for f in row]) for r, row in rows().items()}
    kinds = {"classes": CLASSES, "static": STATIC, "dynamic": DYNAMIC}
    expected = d_sd(rows()["static swap"], rows()["dynamic swap"], **kinds)
    assert 1 - (off["static swap"] + off["dynamic swap"]) / 2 == pytest.approx(expected)
    expected = d_mf(thesis_tables.FACTORIAL["sprites"], **kinds)
    assert 1 - np.mean([off[f"retain {f}"] for f in STATIC]) == pytest.approx(expected)


def test_every_accuracy_is_written_and_what_should_be_one_is_framed():
    figure = plot_accuracies(rows(), targets(CLASSES, STATIC, DYNAMIC), {"static swap": {"skin": 0.5}}, "title")
    ax = figure.axes[0]
    texts = [t.get_text() for t in ax.texts]
    assert texts[0] == "0.186\n(0.500)" and texts[1] == "0.165" and len(texts) == 30
    frames = {(round(p.get_x() + 0.47), round(p.get_y() + 0.46)) for p in ax.patches}
    assert frames == {(4, 0), (0, 1), (1, 1), (2, 1), (3, 1), (0, 2), (1, 3), (2, 4), (3, 5)}
    shown = ax.images[0].get_array()
    assert shown[0, 0] == pytest.approx(abs(0.1861 - 1 / 6)) and shown[1, 3] == 0


def test_components_stand_together_by_factor_the_strongest_first():
    gain = np.array([[0.0, 0.2], [0.3, 0.1], [-0.1, -0.2], [0.5, 0.0]])
    ax = plot_gains(gain, {"skin": (1, 3), "hair": (0,)}).axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["3", "1", "0", "2"]
    np.testing.assert_array_equal(ax.images[0].get_array(), gain[[3, 1, 0, 2]].T)
    assert len(ax.patches) == 3


def test_both_kinds_of_points_are_there():
    ax = plot_trade_off({"a": (0.9, 0.8)}, {"b": (0.95, 0.9), "c": (0.99, 0.97)}).axes[0]
    assert [c.get_offsets().tolist() for c in ax.collections] == [[[0.9, 0.8]], [[0.95, 0.9], [0.99, 0.97]]]
    assert {t.get_text() for t in ax.texts} == {"a", "b", "c"}


def test_names_of_points_close_together_do_not_cover_each_other():
    ours = {f"model {i}": (0.95 + 0.002 * i, 0.93 + 0.001 * i) for i in range(3)}
    figure = plot_trade_off(ours, {"theirs": (0.9, 0.93), "far away": (0.8, 0.8)})
    figure.draw_without_rendering()
    ax = figure.axes[0]
    boxes = [t.get_window_extent() for t in ax.texts]
    frame = ax.get_window_extent()
    assert len(boxes) == 5 and all(frame.x0 <= b.x0 and b.x1 <= frame.x1 for b in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_number_of_kinds_is_marked_and_channels_stand_in_order():
    left, right = plot_kinds({2: 0.1, 3: 0.4, 4: -0.2}, [0.1, 0.9, -0.2, 0.6]).axes
    curve, mark = left.lines
    assert curve.get_xydata().tolist() == [[2, 0.1], [3, 0.4], [4, -0.2]]
    assert mark.get_xydata().tolist() == [[3, 0.4]] and left.get_ylim()[0] < -0.2
    assert [text.get_text() for text in right.get_xticklabels()] == ["1", "3", "0", "2"]
    assert [b.get_height() for b in right.containers[0]] == [0.9, 0.6, 0.1, 0.0]


def test_bars_are_distances_from_the_target_and_their_mean_is_what_the_score_lacks():
    aims = targets(CLASSES, STATIC, DYNAMIC)
    figure = plot_losses_by_factor({"thesis": rows(), "perfect": aims}, aims, "title")
    heights = np.array([[bar.get_height() for bar in ax.patches] for ax in figure.axes])
    assert heights.shape == (2, 10)
    assert heights[0, 4] == pytest.approx(1 - rows()["static swap"]["action"])
    assert not heights[:, 5:].any()
    kinds = {"classes": CLASSES, "static": STATIC, "dynamic": DYNAMIC}
    expected = d_sd(rows()["static swap"], rows()["dynamic swap"], **kinds)
    assert 1 - heights[:, :5].mean() == pytest.approx(expected)

"""Figures of notebook 02 show the numbers they are given."""

from __future__ import annotations

import numpy as np
import pytest

from kpm.workbook.skd_plots import plot_counts, plot_laws, plot_places, plot_runs, plot_selection


def test_every_place_names_its_frame_and_part():
    places = np.array([[[0, 0], [0, 1], [1, 0], [1, 1]]])
    ax = plot_places({"as coded": places}, "ab").axes[0]
    assert [t.get_text() for t in ax.texts] == ["0a", "0b", "1a", "1b"]


def test_bars_are_shares():
    numbers = np.array([8, 8, 9, 12])
    ax = plot_counts({"p": {"training": numbers}}, "size", "share", 9).axes[0]
    heights = {round(b.get_x() + b.get_width() / 2): b.get_height() for b in ax.patches}
    assert heights[8] == 0.5 and heights[9] == 0.25 and heights[12] == 0.25 and sum(heights.values()) == 1


def test_the_broad_line_is_the_median_of_the_thin_ones():
    y = np.array([[1.0, 2.0], [3.0, 8.0], [9.0, 4.0]])
    lines = plot_runs({"fixed": ([0, 1], y)}, "step", "loss").axes[0].get_lines()
    broad = max(lines, key=lambda line: line.get_linewidth())
    np.testing.assert_array_equal(broad.get_ydata(), [3.0, 4.0])
    assert len(lines) == 4


def test_measured_points_are_where_they_belong():
    ax = plot_laws({"p": {"float64": ([1e-3, 1.0], [10.0, 1e-4])}}, ["x"], ["y"]).axes[0]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert any(np.array_equal(line.get_ydata(), [10.0, 1e-4]) for line in ax.get_lines())


def test_selection_counts_what_the_loss_counts():
    values = np.array([1.0, 0.95, 0.8, 0.3, -0.7])
    figure = plot_selection(values, 2, 0.5)
    legends = [legend for legend in (*figure.legends, figure.axes[0].get_legend()) if legend]
    labels = {t.get_text() for legend in legends for t in legend.get_texts()}
    assert {"static: 2", "penalised: 1", "free: 2"} <= labels
    with pytest.raises(ValueError, match="size: expected 1 to 4 for 5 values, got 5"):
        plot_selection(values, 5, 0.5)

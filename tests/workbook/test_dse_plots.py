"""The figures on DSE show the numbers they are given."""

import io

import numpy as np
from PIL import Image

from kpm.workbook import dse_plots
from kpm.workbook.session import render


def drawn(figure):
    """Size of the picture: layout and labels work out."""
    return Image.open(io.BytesIO(render(figure))).size


def test_clouds_have_found_points_and_the_same_rings_in_each_panel():
    rng = np.random.default_rng(0)
    panels = {name: rng.normal(size=(3, 4)) + 1j * rng.normal(size=(3, 4)) for name in ("a", "b")}
    reference = np.exp(0.1j * np.arange(3))
    figure = dse_plots.plot_clouds(panels, reference)
    for ax, (name, values) in zip(figure.axes, panels.items()):
        found, rings = (line.get_xydata() for line in ax.lines)
        np.testing.assert_array_equal(found @ [1, 1j], values.ravel())
        np.testing.assert_array_equal(rings @ [1, 1j], reference)
        assert ax.get_title() == name
    drawn(figure)


def test_errors_by_noise_keep_bars_off_zero():
    levels, errors = (0.1, 0.2), {name: np.array([0.1, 0.2]) * k for k, name in enumerate("abcdefg", start=1)}
    figure = dse_plots.plot_error_by_noise(levels, errors, {name: 5 * e for name, e in errors.items()}, "noise")
    (ax,) = figure.axes
    assert ax.get_yscale() == "log" and len(ax.containers) == 7
    for container, values in zip(ax.containers, errors.values()):
        line, _, (bars,) = container
        np.testing.assert_array_equal(line.get_ydata(), values)
        feet = [segment[:, 1].min() for segment in bars.get_segments()]
        np.testing.assert_allclose(feet, 0.1 * values)
    looks = {(c[0].get_color(), c[0].get_linestyle(), c[0].get_marker()) for c in ax.containers}
    assert len(looks) == 7 and len({look[2] for look in looks}) == 7
    drawn(figure)


def test_errors_by_harmonic_end_at_the_foot():
    figure = dse_plots.plot_error_by_harmonic({"a": [0.0, 0.1]})
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [1e-5, 0.1])
    drawn(figure)


def test_records_and_correlations():
    t = np.arange(5.0)
    figure = dse_plots.plot_records(t, {"p": (t, t + 1), "q": (-t, t)})
    seen, truth = (line.get_ydata() for line in figure.axes[0].lines)
    np.testing.assert_array_equal(seen, t + 1)
    np.testing.assert_array_equal(truth, t)
    drawn(figure)
    figure = dse_plots.plot_correlations({"learned": np.array([0.9, 0.5])}, kept=1)
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xydata(), [[1, 0.9], [2, 0.5]])
    assert set(figure.axes[0].lines[1].get_xdata()) == {1.5}
    drawn(figure)


def test_conditional_mean_and_frames():
    grid = np.linspace(0, 1, 5)
    figure = dse_plots.plot_conditional(grid, grid + 1, grid, 2 * grid, 0 * grid + 0.5, 3 * grid)
    pairs, mean, truth = (line.get_ydata() for line in figure.axes[0].lines)
    for found, wanted in ((pairs, grid + 1), (mean, 2 * grid), (truth, 3 * grid)):
        np.testing.assert_array_equal(found, wanted)
    (band,) = figure.axes[0].collections
    corners = band.get_paths()[0].vertices[:, 1]
    assert corners.min() == -0.5 and corners.max() == 2.5
    drawn(figure)
    figure = dse_plots.plot_frame({"a": np.eye(4), "b": np.eye(4)}, {"b": 0.5})
    assert [ax.images[0].get_clim() for ax in figure.axes] == [(0, 1), (0, 0.5)]
    assert [ax.get_title() for ax in figure.axes] == ["a", "b"]
    drawn(figure)

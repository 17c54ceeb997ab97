"""The theory figures show the numbers they are given, in the right place."""

import io

import numpy as np
import pytest
from PIL import Image

from kpm.workbook import theory_plots as tp
from kpm.workbook.session import render


def lines(ax) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in ax.lines}


def drawn(figure) -> tuple[int, int]:
    """Size of the picture: layout and labels work out."""
    return Image.open(io.BytesIO(render(figure))).size


def test_orbits_begin_with_a_dot():
    orbits = np.random.default_rng(0).normal(size=(2, 5, 2))
    figure = tp.plot_orbits({"a": orbits, "b": orbits[:1]}, "x", "y", "t")
    data = [line.get_xydata() for line in figure.axes[0].lines]
    np.testing.assert_array_equal(data[0], orbits[0])
    np.testing.assert_array_equal(data[1], orbits[0, :1])
    assert [len(ax.lines) for ax in figure.axes] == [4, 2]
    assert drawn(figure) == (700, 270)


def test_series_have_a_panel_each():
    t = np.arange(4.0)
    figure = tp.plot_series(t, {"p": {"truth": t, "guess": t + 1}, "q": {"truth": -t}}, "t", "y")
    np.testing.assert_array_equal(lines(figure.axes[0])["guess"], np.stack([t, t + 1], 1))
    assert [ax.get_title() for ax in figure.axes] == ["p", "q"]
    drawn(figure)


def test_rates_lie_in_the_complex_plane():
    figure = tp.plot_rates({"a": [-0.1], "b": [-1 + 1j, -1 - 1j], "c": [0]}, [-0.1], (-2, 0.2, -2, 2))
    np.testing.assert_array_equal(lines(figure.axes[1])["found"], [[-1, 1], [-1, -1]])
    np.testing.assert_array_equal(lines(figure.axes[1])["theory"], [[-0.1, 0]])
    assert not figure.axes[3].axison
    drawn(figure)


def test_fields_have_their_zero_set_in_black():
    x = np.linspace(-1, 1, 21)
    figure = tp.plot_fields(x, x, {"a": np.tile(x - 0.5, (21, 1))}, np.zeros((1, 3, 2)))
    zero = figure.axes[0].collections[1].get_paths()[0].vertices
    np.testing.assert_allclose(zero[:, 0], 0.5)
    drawn(figure)


def test_bias_shows_estimates_beside_theory():
    figure = tp.plot_bias(
        [0.1, 0.2], {"ls": ([0.9, 0.8], [0.1, 0.1]), "tls": ([1, 1], [0, 0])}, 1.0, [0.9, 0.7], "x", "y"
    )
    shown = lines(figure.axes[0])
    np.testing.assert_array_equal(shown["theory of the bias"], [[0.1, 0.9], [0.2, 0.7]])
    bars = {c.get_label(): c.lines[0].get_xydata() for c in figure.axes[0].containers}
    np.testing.assert_array_equal(bars["ls"], [[0.1, 0.9], [0.2, 0.8]])
    drawn(figure)


def test_harmonics_show_each_estimator():
    figure = tp.plot_harmonics(np.arange(1, 4), np.arange(3), {"a": np.ones(3)}, "m", "rate")
    np.testing.assert_array_equal(lines(figure.axes[0])["a"][:, 1], 1)
    drawn(figure)


def test_ranks_and_spectra():
    figure = tp.plot_ranks([2, 4, 9], [1, 3, 5], 5, np.array([[0.5j, 1]]), np.array([1.0]))
    np.testing.assert_array_equal(lines(figure.axes[0])["found"], [[2, 1], [4, 3], [9, 5]])
    assert lines(figure.axes[0])["min(T − 1, K)"][-1].tolist() == [9, 5]
    np.testing.assert_array_equal(lines(figure.axes[1])["one per sequence"], [[0, 0.5], [1, 0]])
    drawn(figure)


def test_horizon_marks_where_a_hundredth_is_left():
    figure = tp.plot_horizon({"a": 0.9}, 0.01)
    gap, horizon = lines(figure.axes[0])["a"][0]
    assert gap == pytest.approx(0.1) and 0.9**horizon == pytest.approx(0.01)
    drawn(figure)


def test_mode_shows_the_eigenvalue_its_powers_and_the_motion():
    figure = tp.plot_mode(0.5, np.pi / 2, 1.0, steps=10)
    plane, series, shape, film = figure.axes[:4]
    np.testing.assert_allclose(lines(plane)["λ and its conjugate"], [[0, 0.5], [0, -0.5]], atol=1e-12)
    np.testing.assert_allclose(lines(series)["Re λᵗ"][:5, 1], [1, 0, -0.25, 0, 1 / 16], atol=1e-12)
    assert lines(series)["1 % left"][0, 0] == pytest.approx(np.log(0.01) / np.log(0.5))
    motion = film.images[0].get_array()
    np.testing.assert_allclose(motion[:, 2], -0.25 * lines(shape)["Re u"][:, 1], atol=1e-12)
    drawn(figure)


@pytest.mark.parametrize("modulus", [0.8, 1.0, 1.02])
@pytest.mark.parametrize("angle", [0.0, np.pi])
def test_mode_at_the_ends_of_its_sliders(modulus, angle):
    drawn(tp.plot_mode(modulus, angle, -12.0))


def test_mode_refuses_a_modulus_that_is_none():
    with pytest.raises(ValueError, match="modulus: expected a positive number, got 0"):
        tp.plot_mode(0, 1.0)


def test_a_phase_of_zero_is_a_standing_wave():
    assert np.all(tp.mode_shape(0.0).imag == 0) and np.abs(tp.mode_shape(2.0).imag).max() > 0.5

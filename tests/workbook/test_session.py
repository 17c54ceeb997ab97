"""What notebooks start and end with, the figures and the widgets."""

import io
import json

import ipywidgets
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from kpm.datasets import load
from kpm.errors import UserError
from kpm.workbook import plots, session
from kpm.workbook.widgets import explorer


def picture(figure: Figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(session.render(figure))).convert("RGB"))


def test_results_hold_numbers_parameters_and_the_environment(tmp_path):
    run = session.start("00_x", "quick", 3, "cpu", str(tmp_path))
    run.write_results({"a": 1.5, "b": [1, 2]}, {"noise": 0.1})
    value = json.loads((tmp_path / "results.json").read_text())
    assert value["numbers"] == {"a": 1.5, "b": [1, 2]} and value["parameters"] == {"noise": 0.1}
    assert value["environment"]["seeds"] == {"notebook": 3} and value["profile"] == "quick"
    with pytest.raises(ValueError, match="finite"):
        run.write_results({"a": float("nan")})


def test_a_folder_is_fresh_in_the_quick_profile_only(tmp_path):
    for profile, kept in (("quick", False), ("paper", True)):
        run = session.start("x", profile, 0, "cpu", str(tmp_path / profile))
        (run.folder("live") / "old").write_text("")
        assert (run.folder("live") / "old").exists() == kept


def test_unknown_profile_is_refused(tmp_path):
    with pytest.raises(UserError, match="did you mean 'quick'"):
        session.start("x", "quik", 0, "cpu", str(tmp_path))


def test_figures_are_saved_and_shown(tmp_path, capsys):
    run = session.start("x", "quick", 0, "cpu", str(tmp_path))
    run.show(plots.plot_curves({"a": ([1, 2], [3, 4])}, "x", "y"), "curve", "a line")
    assert Image.open(tmp_path / "curve.png").size == (640, 360)


def test_spectrum_draws_points_where_they_are():
    empty = picture(plots.plot_spectrum({}))
    figure = plots.plot_spectrum({"a": np.array([0.5 + 0.5j])}, threshold=0.75, static={"s": np.array([1.0])})
    assert (picture(figure) != empty).any()
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert lines["a"] == [[0.5, 0.5]] and lines["s"] == [[1.0, 0.0]]


def test_spectrum_draws_every_entry():
    many = {str(i): np.array([0.1 * i]) for i in range(8)}
    figure = plots.plot_spectrum(many, static={f"s{i}": np.array([-0.1 * i]) for i in range(8)})
    lines = [line for line in figure.axes[0].lines if line.get_marker() in ("o", "x")]
    shown = [(line.get_label(), *line.get_xdata()) for line in lines]
    assert shown == [*((str(i), 0.1 * i) for i in range(8)), *((f"s{i}", -0.1 * i) for i in range(8))]
    colours = [line.get_color() for line in lines]
    assert colours[:3] == [plots.BLUE, plots.ORANGE, plots.GREEN] and colours[8:10] == [plots.RED, plots.PINK]
    assert len(set(colours[:6])) == len(set(colours[8:14])) == 6 and colours[6] == colours[0]


def test_films_show_every_frame_in_order():
    frames = np.zeros((3, 3, 8, 8), dtype=np.float32)
    for t in range(3):
        frames[t] = t / 2
    figure = plots.plot_films({"grey": frames})
    strip = figure.axes[0].images[0].get_array()
    assert [float(strip[0, 8 * t + 4, 0]) for t in range(3)] == [0.0, 0.5, 1.0]


def test_swap_grid_puts_rows_and_columns_in_place():
    top, left = np.full((2, 3, 4, 4), 0.2), np.full((3, 3, 4, 4), 0.4)
    grid = np.arange(6, dtype=np.float32).reshape(3, 2, 1, 1, 1) / 10 * np.ones((3, 2, 3, 4, 4), np.float32)
    figure = plots.plot_swaps(top, left, grid, "t", "top", "left")
    values = [[float(a.images[0].get_array()[0, 0, 0]) if a.images else None for a in row] for row in
              np.array(figure.axes).reshape(4, 3)]  # fmt: skip
    assert values[0][1:] == pytest.approx([0.2, 0.2])
    assert [row[0] for row in values[1:]] == pytest.approx([0.4] * 3)
    assert np.array([row[1:] for row in values[1:]]).ravel().tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_style_does_not_leak():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plots.plot_curves({"a": ([1, 2], [3, 4])}, "x", "y")
    assert dict(mpl.rcParams) == before


def test_explorer_redraws_when_a_control_changes():
    seen = []

    def plot(level: int) -> Figure:
        seen.append(level)
        return plots.plot_curves({"a": ([0, 1], [0, level])}, "x", "y")

    slider = ipywidgets.IntSlider(1, 0, 9)
    box = explorer(plot, level=slider)
    image = box.children[2]
    first = image.value
    slider.value = 5
    assert seen == [1, 5] and image.value != first
    assert Image.open(io.BytesIO(image.value)).size == (640, 360)


def test_explorer_shows_what_went_wrong_and_recovers():
    def plot(level: int) -> Figure:
        if level == 2:
            raise ValueError("two is not allowed")
        return plots.plot_curves({"a": ([0, 1], [0, level])}, "x", "y")

    slider = ipywidgets.IntSlider(1, 0, 9)
    box = explorer(plot, level=slider)
    slider.value = 2
    assert "two is not allowed" in box.children[1].value
    slider.value = 3
    assert box.children[1].value == ""


def test_tables_read_as_markdown():
    table = session.table([["a", 0.123456], ["b", None]], ["name", "value"])
    assert table.data.splitlines() == ["| name | value |", "| --- | --- |", "| a | 0.1235 |", "| b | – |"]


def test_reconstruction_figures_against_plain_arithmetic():
    import torch

    from kpm.metrics.reconstruction import reconstruction
    from kpm.models.koopman_autoencoder import KoopmanAutoencoder, KoopmanAutoencoderConfig

    torch.manual_seed(0)
    model = KoopmanAutoencoder(KoopmanAutoencoderConfig(width=4)).eval()
    data = load("puppets", "test").subset(torch.arange(10))
    got = reconstruction(model, data, batch_size=4)
    frames = data.data.numpy() / 256.0
    with torch.no_grad():
        redrawn = model.decode(model.encode(torch.from_numpy(frames).float())).numpy()
    assert got.mse == pytest.approx(((redrawn - frames) ** 2).mean(), rel=1e-5)
    assert got.mse_black == pytest.approx((frames**2).mean(), rel=1e-6)
    assert got.mse_mean == pytest.approx(((frames - frames.mean((0, 1))) ** 2).mean(), rel=1e-6)
    assert got.mse_mean < got.mse_black

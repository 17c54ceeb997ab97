"""The explorers' figures show what they are given, and their controls change the picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon, Rectangle
from matplotlib.text import Text
from PIL import Image

from kpm.workbook import explorer_overviews, explorer_plots, explorers, exploring, plots
from kpm.workbook.explorer_plots import PLANE, Window
from kpm.workbook.explorer_timing import control, time_moves
from kpm.workbook.film_sheets import Page
from kpm.workbook.gallery import Reading, View, gather
from kpm.workbook.widgets import explorer, png
from tests.metrics import toys


@pytest.fixture(scope="module")
def gallery():
    return gather(toys.autoencoder(), toys.films(12), toys.judge(), {"colour": (1, 4, 5)}, 5)


@pytest.fixture(scope="module")
def shared():
    """One operator for all films."""
    return gather(toys.autoencoder("batch", 6, 3), toys.films(12), toys.judge(), {"colour": (0,)}, 4)


def picture(figure: Figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png(figure))).convert("RGB")).astype(int)


def view(level: float, right: bool | None = True, frames: int = 8) -> View:
    film = np.full((frames, 3, 64, 64), level, dtype=np.float32)
    return View(film, {"hair": Reading("red", 0.873, ("red",), right), "top": Reading("tie", 1.0, (), None)})


def of(figure: Figure, kind: type) -> list:
    return [artist for artist in figure.artists if isinstance(artist, kind)]


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in of(figure, Text)]


def find(box, kind):
    """All widgets of a kind below a box."""
    below = [w for child in getattr(box, "children", ()) for w in find(child, kind)]
    return [box, *below] if isinstance(box, kind) else below


# Figures


def test_strips_stand_one_below_the_other_in_their_own_shades():
    shown = picture(explorer_plots.plot_swap({"a": view(0.2), "b": view(0.4), "c": view(0.6)}, title="t"))
    rows = [38 + 96 * i + 45 for i in range(3)]
    for row, level in zip(rows, (0.2, 0.4, 0.6)):
        assert abs(shown[row, 180:890] - round(255 * level)).max() <= 4
    assert (shown[rows[0] + 48, 200:890] >= 250).all()  # white between them


def test_a_frame_keeps_its_place_and_its_colours():
    film = np.zeros((4, 3, 64, 64), dtype=np.float32)
    film[2, 0, :32] = 1  # the upper half of the third frame is red
    shown = picture(explorer_plots.plot_swap({"a": View(film, {})}))
    top = 6
    assert (abs(shown[top + 20, 175 + 2 * 90 + 45] - (255, 0, 0)) <= 6).all()
    assert shown[top + 70, 175 + 2 * 90 + 45].max() <= 6 and shown[top + 20, 175 + 90 + 45].max() <= 6


def test_long_films_show_every_so_many_frames():
    film = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None, None] / 20, (20, 3, 64, 64))
    shown = picture(explorer_plots.plot_swap({"a": View(film, {})}))
    assert shown.shape[1] == 175 + 7 * 90 + 10
    assert abs(shown[40, 175 + 45 :: 90][:7, 0] - 255 * np.arange(0, 20, 3) / 20).max() <= 4


def test_right_and_wrong_differ_by_sign_weight_and_frame():
    figure = explorer_plots.plot_swap({"a": view(0.2), "b": view(0.2, False)})
    assert texts(figure).count("✓ red 87%") == 1 and texts(figure).count("✗ red 87%") == 1
    assert texts(figure).count("· tie 100%") == 2
    weights = {t.get_text(): t.get_weight() for t in of(figure, Text)}
    assert weights["✗ red 87%"] == "bold" and weights["✓ red 87%"] == "normal"
    framed = [p for p in of(figure, Rectangle) if not p.get_fill()]
    assert len(framed) == 1 and framed[0].get_x() > 5


def test_what_is_exchanged_is_shaded_in_the_swapped_films_only():
    views = {name: view(0.2) for name in "abcd"}
    figure = explorer_plots.plot_swap(views, ["hair"])
    shades = [p for p in of(figure, Rectangle) if p.get_alpha() == 0.13]
    assert len(shades) == 2 and all(p.get_x() > 5 for p in shades)


def test_long_class_names_are_written_smaller():
    long = View(view(0.2).frames, {"hair": Reading("a very long name of a class indeed", 1.0, (), None)})
    figure = explorer_plots.plot_swap({name: long for name in "abcd"})
    size = {t.get_text(): t.get_fontsize() for t in of(figure, Text)}
    assert size["· a very long name of a class indeed 100%"] < 8


def test_the_difference_is_drawn_as_ink():
    after = View(view(0.2).frames.copy(), view(0.2).readings)
    after.frames[3, :, 16:48, 16:48] += 0.5
    figure = explorer_plots.plot_channel({"a": view(0.2), "b": after}, np.array([0.1, 0.5, 0.9]), 0.1, 0.5, "value")
    shown = picture(figure)
    row = 6 + 2 * 96 + 45
    assert shown[row, 175 + 3 * 90 + 45].max() <= 6 and shown[row, 175 + 2 * 90 + 45].min() >= 250
    assert any("up to 0.50" in t for t in texts(figure))
    left, right = (line.get_xdata()[0] for line in of(figure, Line2D)[1:])
    floor = of(figure, Line2D)[0].get_xdata()
    assert left == floor[0] and right == pytest.approx((floor[0] + floor[1]) / 2) and "value" in texts(figure)
    bars = [p for p in of(figure, Rectangle) if p.get_facecolor()[:3] == to_rgb("#c9c9c9")]
    tall = np.array([p.get_height() for p in bars])
    np.testing.assert_allclose(tall / tall.max(), np.histogram([0.1, 0.5, 0.9], 12)[0])


def test_the_point_of_the_triangle_is_that_of_the_weights():
    views = {name: view(0.2) for name in "abcd"}
    for weights in ((1, 0, 0), (0, 1, 0), (0.5, 0, 0.5), (0.2, 0.3, 0.5)):
        figure = explorer_plots.plot_hull(views, weights)
        corners = of(figure, Polygon)[0].get_xy()[:3]
        assert of(figure, Circle)[0].center == pytest.approx(np.average(corners, 0, weights))
        assert corners[0, 1] < corners[1, 1] == corners[2, 1] and corners[1, 0] < corners[2, 0]  # inches from the top


@pytest.mark.parametrize("text", ["✓ spellcard front 100%", "two\nlines", "g"])
@pytest.mark.parametrize("ha", ["left", "right", "center"])
def test_words_are_where_matplotlib_itself_would_write_them(text, ha):
    for again in range(2):  # drawn, then from memory
        page = Page(5, 1)
        page.text(2.5, 0.5, text, 11, ha=ha, color=plots.RED)
        plain = Page(5, 1)
        plain.figure.text(0.5, 0.5, text, fontsize=11, ha=ha, va="center", color=plots.RED)
        np.testing.assert_allclose(rgb(page.figure), rgb(plain.figure), atol=3, err_msg=str(again))


def rgb(figure: Figure) -> np.ndarray:
    """Pixels, before they are brought to a palette."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


VALUES = np.array([1.0, 0.3 + 0.6j, -0.5])


@pytest.mark.parametrize("window", [Window.whole(VALUES), Window(0.2 + 0.5j, 0.8)])
def test_eigenvalues_are_where_the_buttons_are_put(window):
    shown = picture(explorer_plots.plot_plane(VALUES, np.array([True, False, False]), 0, window))
    assert shown.shape == (PLANE, PLANE, 3)
    blue, red = (255 * np.array(to_rgb(c)) for c in (plots.BLUE, plots.RED))
    for value, colour in ((0.3 + 0.6j, blue), (0.3 - 0.6j, blue), (-0.5 + 0j, blue), (1 + 0j, red)):
        x, y = (int(p) for p in window.pixel(value))
        if 8 < x < PLANE - 8 and 8 < y < PLANE - 8:
            assert abs(shown[y, x] - colour).max() < 70, value
    x, y = window.pixel(-0.5j + 0.5)
    if 0 < y < PLANE:
        assert shown[int(y), int(x)].min() > 250


def test_the_window_holds_all_it_is_made_for():
    assert Window.whole(np.array([2.0, -1j])).half == pytest.approx(2.2)
    near = Window.near_one(np.array([1.01, 0.99 + 0.02j]))
    for value in (1.01, 0.99 + 0.02j, 0.99 - 0.02j):
        assert all(8 < p < PLANE - 8 for p in near.pixel(value))


def test_the_grid_of_a_hull_is_one_of_weights():
    weights = explorer_plots.hull_grid(4)
    assert len(weights) == 15 and np.allclose(np.sum(weights, 1), 1) and np.min(weights) == 0
    assert weights[0] == (1, 0, 0) and weights[10] == (0, 1, 0) and weights[14] == (0, 0, 1)


def test_the_hull_is_drawn_row_by_row():
    levels = np.arange(6) / 6
    frames = np.broadcast_to(levels[:, None, None, None], (6, 3, 64, 64)).astype(np.float32)
    figure = explorer_plots.plot_hull_grid(frames, 2, ["A", "B", "C"])
    sheets = [np.asarray(ax.images[0].get_array()) for ax in figure.axes]
    found = [[int(sheet[32, 64 * k + 32, 0]) for k in range(i + 1)] for i, sheet in enumerate(sheets)]
    assert found == [[0], [42, 85], [128, 170, 212]]


def test_components_of_a_factor_stand_under_one_heading():
    frames = np.zeros((3, 5, 3, 64, 64), dtype=np.float32)
    frames[1, 4] = 1
    ax = explorer_plots.plot_traversal(frames, ["4", "1", "0"], ["hair", "hair", "top"]).axes[0]
    assert [t.get_text() for t in ax.texts] == ["hair", "top"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["4", "1", "0"]
    sheet = np.asarray(ax.images[0].get_array())
    assert sheet.shape == (320, 192, 3) and sheet[300, 96].min() == 255 and sheet[20, 96].max() == 0


def test_overviews_hold_the_films_they_name(gallery, shared):
    grid = explorer_overviews.swaps(gallery, (0, 1, 2), frame=3)
    cells = np.array(grid.axes).reshape(4, 4)
    mixed, _ = exploring.swapped(gallery, 1, 2, "static")
    with torch.no_grad():
        expected = toys.autoencoder().decode(mixed)[0, 3].permute(1, 2, 0)
    np.testing.assert_allclose(cells[2, 3].images[0].get_array(), expected, atol=1e-4)
    for each in (gallery, shared):
        assert len(explorer_overviews.components(each, 1).axes[0].get_xticks()) == each.parts.components
        assert len(explorer_overviews.hull(each, steps=2).axes) == 3
        static = explorer_overviews.eigenvalues(each).axes[0].lines[-1]
        assert static.get_label() == "static" and len(static.get_xdata()) >= 1
    with pytest.raises(ValueError, match="frame: expected 0 to 7, got 8"):
        explorer_overviews.swaps(gallery, frame=8)


# Widgets


@pytest.mark.parametrize("kind", ["gallery", "shared"])
@pytest.mark.parametrize("name", ["swap", "channel", "hull", "eigenvalue"])
def test_every_control_changes_the_picture(name, kind, request):
    films = request.getfixturevalue(kind)
    box = getattr(explorers, f"{name}_explorer")(films)
    image = find(box, explorers.ipywidgets.Image)[-1]
    assert Image.open(io.BytesIO(image.value)).width == 905
    for widget in box.children[0].children:
        before = image.value
        if hasattr(widget, "min"):
            widget.value = 0.3 * widget.min + 0.7 * widget.max
        elif widget.description == "mix":
            widget.value = "both"
        else:
            other = [v for _, v in widget._options_full if v != widget.value]
            widget.value = other[-1]
        assert image.value != before, widget.description
        assert box.children[1].value == ""


def test_the_slider_follows_film_and_component(gallery):
    box = explorers.channel_explorer(gallery)
    film, component, value = (control(box, name) for name in ("film", "component", "value"))
    image = find(box, explorers.ipywidgets.Image)[0]
    for i, c in ((1, 0), (1, 7), (3, 7)):
        film.value, component.value = i, c
        assert (value.min, value.max) == exploring.value_range(gallery, c)
        assert value.value == pytest.approx(float(gallery.values[i, c]))
        assert image.value == png(explorers.draw_channel(gallery, i, c))
    value.value = value.max
    assert image.value == png(explorers.draw_channel(gallery, 3, 7, value.max))


def test_an_eigenvalue_is_chosen_by_a_click_on_the_plane(gallery):
    box = explorers.eigenvalue_explorer(gallery)
    mode, (plane, strips) = control(box, "eigenvalue"), find(box, explorers.ipywidgets.Image)
    found = exploring.modes(gallery, 0)
    buttons = find(box, explorers.ipywidgets.Button)
    assert len(buttons) == sum(2 if v.imag else 1 for v in found.eigenvalues.tolist())
    last = buttons[-1]
    x, y = Window.whole(found.eigenvalues.numpy()).pixel(complex(found.eigenvalues[-1].conj()))
    assert last.layout.margin == f"{y - 9:.0f}px 0 0 {x - 9:.0f}px"
    before = plane.value, strips.value
    last.click()
    assert mode.value == len(found.eigenvalues) - 1
    assert plane.value != before[0] and strips.value == png(explorers.draw_mode(gallery, 0, mode.value))


def test_another_film_has_buttons_of_its_own(gallery):
    box = explorers.eigenvalue_explorer(gallery)
    old = find(box, explorers.ipywidgets.Button)
    mode = control(box, "eigenvalue")
    mode.value = 1
    control(box, "film").value = 2
    found = exploring.modes(gallery, 2)
    assert mode.value == 0 and len(mode.options) == len(found.eigenvalues)
    new = find(box, explorers.ipywidgets.Button)
    assert len(new) == sum(2 if v.imag else 1 for v in found.eigenvalues.tolist()) and not set(new) & set(old)
    assert all(button.comm is None for button in old)


def test_near_one_only_what_is_there_can_be_clicked(shared):
    box = explorers.eigenvalue_explorer(shared)
    zoom = find(box, explorers.ipywidgets.ToggleButtons)[-1]
    plane = find(box, explorers.ipywidgets.Image)[0]
    before, all_of_them = plane.value, len(find(box, explorers.ipywidgets.Button))
    zoom.value = "near 1"
    found = exploring.modes(shared, 0)
    static = found.eigenvalues[found.static].tolist()
    assert plane.value != before
    assert sum(2 if v.imag else 1 for v in static) <= len(find(box, explorers.ipywidgets.Button)) <= all_of_them


def test_a_control_that_sets_another_draws_once():
    seen = []

    def plot(level: int, half: float) -> Figure:
        seen.append((level, half))
        return plots.plot_curves({"a": ([0, 1], [0, level])}, "x", "y")

    level, half = explorers.FloatSlider(2, min=0, max=9), explorers.FloatSlider(1, min=0, max=9)
    level.observe(lambda change: setattr(half, "value", change["new"] / 2), "value")
    explorer(plot, level=level, half=half)
    level.value = 6
    assert seen == [(2, 1), (6, 3)]


def test_what_goes_wrong_is_text_not_markup():
    def plot(level: float) -> Figure:
        raise ValueError("<b>no</b>")

    box = explorer(plot, level=explorers.FloatSlider(1))
    assert "&lt;b&gt;no&lt;/b&gt;" in box.children[1].value


def test_moves_are_timed(gallery):
    moves = time_moves(gallery, repeats=2)
    assert {m.explorer for m in moves} == {"swap", "channel", "hull", "eigenvalue"}
    assert all(0 < m.median <= m.worst for m in moves)

"""Figures of the explorers: what has become of the films, and maps of where one is.

Pure functions of `kpm.workbook.gallery.View` and arrays.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon

from kpm.workbook.film_sheets import DPI, FREE, GAP, RIGHT, WRONG, Page, mosaic, sheet
from kpm.workbook.gallery import View
from kpm.workbook.plots import BLUE, GREY, RED, _bare, style

PLANE = 340  # pixels: the sides of the square that stands for the complex plane
_CORNERS = np.array([[0.5, math.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])


def plot_swap(views: Mapping[str, View], exchanged: Collection[str] = (), title: str = "") -> Figure:
    """Two films and what becomes of them when they exchange something, with the judge's readings.

    Parameters
    ----------
    views : dict of str to View
        The two films as they are, then any number of swaps.
    exchanged : collection of str
        Factors that come from the other film; their cells of the swaps are shaded.
    """
    shaded = {(name, factor) for name in list(views)[2:] for factor in exchanged}
    note = f"{RIGHT} as it should be   {WRONG} something else" + ("   shaded: from the other film" if exchanged else "")
    return sheet({k: v.frames for k, v in views.items()}, views, title, note, shaded)[0].figure


def plot_channel(
    views: Mapping[str, View], values: np.ndarray, own: float, value: float, label: str, title: str = ""
) -> Figure:
    """A film before and after a static component was moved, the difference, and where its value lies.

    Parameters
    ----------
    views : dict of str to View
        Before and after.
    values : array
        ``(n,)``, the component's values in all films.
    own, value : float
        What the film had and has now.
    label : str
        What the values are of.
    """
    (_, before), (_, after) = views.items()
    change = np.abs(after.frames - before.frames).mean(1, keepdims=True)
    ink = 1 - change / max(float(change.max()), 1e-6)
    strips = {k: v.frames for k, v in views.items()} | {f"difference\n(up to {change.max():.2f})": ink}
    note = f"{RIGHT} as it was   {WRONG} changed   {FREE} may change"
    page, below = sheet(strips, views, title, note, spare=3.0, least=1.75)
    _histogram(page, page.width - 2.8, below + 0.35, 2.6, page.height - below - 0.85, values, own, value)
    page.text(page.width - 1.5, below + 0.15, "films (grey), as it was (dashed), now", 10, ha="center")
    page.text(page.width - 1.5, page.height - 0.12, label, 11, ha="center")
    return page.figure


def plot_hull(views: Mapping[str, View], weights: Sequence[float], title: str = "") -> Figure:
    """Three films and a point of the triangle between them.

    Parameters
    ----------
    views : dict of str to View
        The corners, then the mixture.
    weights : sequence of float
        Of the corners.
    """
    note = f"{RIGHT} mixture: as one of the corners that have a weight   {WRONG} as none of them"
    page, below = sheet({k: v.frames for k, v in views.items()}, views, title, note)
    side, low = 0.55, below - 0.1 - GAP - 0.2
    corners = np.array([0.22, low]) + side * _CORNERS * [1, -1]
    page.put(Polygon(corners, closed=True, fill=False, ec=GREY, lw=1.2))
    middle = corners.mean(0)
    for letter, corner in zip("ABC", corners):
        page.text(*(middle + 1.35 * (corner - middle)), letter, 11, ha="center")
    page.put(Circle(np.asarray(weights) @ corners, 0.06, color=BLUE, lw=0, zorder=3))
    return page.figure


def plot_mode(views: Mapping[str, View], title: str = "") -> Figure:
    """A film, one of its modes on some ground, and the film without that mode, with the judge's readings."""
    note = f"{RIGHT} as in the film   {WRONG} something else"
    return sheet({k: v.frames for k, v in views.items()}, views, title, note)[0].figure


def _histogram(
    page: Page, left: float, top: float, width: float, height: float, values: np.ndarray, own: float, value: float
) -> None:
    """How often values occur, and two of them, between the least and the largest of all."""
    low, high = min(*values, own, value), max(*values, own, value)
    span = max(high - low, 1e-9)
    counts, edges = np.histogram(values, bins=12, range=(low, low + span))
    for count, edge in zip(counts, edges):
        tall = height * count / max(counts)
        page.box(left + width * (edge - low) / span, top + height - tall, width / 12, tall, color="#c9c9c9", lw=0)
    page.line([left, left + width], [top + height] * 2, color=GREY, lw=1)
    for x, look in ((own, {"color": GREY, "ls": "--", "lw": 1.5}), (value, {"color": BLUE, "lw": 3})):
        page.line([left + width * (x - low) / span] * 2, [top, top + height], **look)
    for x in (low, low + span / 2, low + span):
        page.text(left + width * (x - low) / span, top + height + 0.13, f"{x:.2f}", 10, ha="center")


@dataclasses.dataclass(frozen=True)
class Window:
    """A square of the complex plane: its middle and half its side."""

    centre: complex
    half: float

    @classmethod
    def whole(cls, values: np.ndarray) -> Window:
        """The unit circle and all of `values`."""
        return cls(0, max(1.25, 1.1 * max(np.abs(np.real(values)).max(), np.abs(np.imag(values)).max())))

    @classmethod
    def near_one(cls, values: np.ndarray) -> Window:
        """Around 1, just large enough for `values`."""
        return cls(1, max(1.3 * float(np.abs(np.asarray(values) - 1).max()), 1e-3))

    def pixel(self, value: Any) -> tuple[Any, Any]:
        """Where `plot_plane` shows a complex value (or an array of them): pixels from the left and from the top."""
        place, scale = value - self.centre, PLANE / (2 * self.half)
        return PLANE / 2 + place.real * scale, PLANE / 2 - place.imag * scale


def plot_plane(eigenvalues: np.ndarray, static: np.ndarray, chosen: int, window: Window | None = None) -> Figure:
    """Eigenvalues in the complex plane, `PLANE` pixels square, one of them (and its conjugate) ringed.

    Parameters
    ----------
    eigenvalues : complex array
        ``(m,)``, of each conjugate pair one.
    static : bool array
        ``(m,)``: which make the static part (crosses; the others are dots).
    chosen : int
    window : Window, optional
        What part of the plane; all of it by default.
    """
    values, static = np.asarray(eigenvalues), np.asarray(static, dtype=bool)
    window = window or Window.whole(values)
    side = PLANE / DPI
    page = Page(side, side)

    def put(points: np.ndarray, **look: Any) -> None:
        x, y = window.pixel(np.concatenate([points, points.conj()]))
        page.line(x / DPI, y / DPI, ls="none", **look)

    (x, y), radius = window.pixel(0), PLANE / (2 * window.half)
    page.put(Circle((x / DPI, y / DPI), radius / DPI, fill=False, ec=GREY, lw=1.2))
    for xs, ys in (([0, side], [side / 2] * 2), ([side / 2] * 2, [0, side])):
        page.line(xs, ys, color=GREY, lw=0.6)
    centre, half = complex(window.centre), window.half
    page.text(0.06, side / 2 + 0.12, f"Re λ = {centre.real - half:.4g}", 9, color=GREY)
    page.text(side - 0.06, side / 2 + 0.12, f"{centre.real + half:.4g}", 9, color=GREY, ha="right")
    page.text(side / 2 + 0.06, 0.12, f"Im λ = {centre.imag + half:.2g}", 9, color=GREY)
    page.text(side / 2 + 0.06, side - 0.12, f"{centre.imag - half:.2g}", 9, color=GREY)
    dot, cross = {"marker": "o", "ms": 8, "mew": 0, "color": BLUE}, {"marker": "x", "ms": 9, "mew": 2.4, "color": RED}
    put(values[~static], alpha=0.8, **dot)
    put(values[static], **cross)
    put(values[[chosen]], marker="o", ms=18, mfc="none", mec="black", mew=2)
    for name, height, mark in (("dynamic", 0.4, dot), ("static", 0.18, cross)):
        page.line([0.18], [side - height], ls="none", **mark)
        page.text(0.32, side - height, name, 10)
    return page.figure


def plot_traversal(frames: np.ndarray, names: Sequence[str], groups: Sequence[str], title: str = "") -> Figure:
    """One frame at several values of each static component: a column each, the smallest value at the top.

    Parameters
    ----------
    frames : array
        ``(components, values, channels, height, width)``.
    names, groups : sequence of str
        Of each component, and of the factor it belongs to; neighbours of one group get one heading.
    """
    columns, rows = frames.shape[:2]
    size = min(0.75, 9.2 / columns)
    width, height = size * columns + 0.5, size * rows + 1.0
    with style():
        figure = Figure(figsize=(width, height))
        ax = figure.add_axes((0.42 / width, 0.34 / height, size * columns / width, size * rows / height))
        ax.imshow(mosaic(frames.swapaxes(0, 1)), aspect="auto", extent=(0, columns, rows, 0))
        _bare(ax)
        ax.set_xticks(np.arange(columns) + 0.5, names)
        ax.tick_params(length=0)
        ax.set_ylabel("largest ← smallest value" if rows > 3 else "")
        start = 0
        for stop in range(1, columns + 1):
            if stop == columns or groups[stop] != groups[start]:
                ax.plot([start + 0.08, stop - 0.08], [-0.08, -0.08], color="black", lw=1.5, clip_on=False)
                ax.text((start + stop) / 2, -0.15, groups[start], ha="center", va="bottom")
                start = stop
        figure.suptitle(title, fontsize=11, y=1 - 0.06 / height, va="top")
    return figure


def plot_hull_grid(frames: np.ndarray, steps: int, names: Sequence[str], title: str = "") -> Figure:
    """One frame at every point of a triangular grid of weights, the first corner on top, the second at the left.

    Parameters
    ----------
    frames : array
        ``(points, channels, height, width)``: row by row from the top, each from left to right; see `hull_grid`.
    steps : int
        Intervals of each side.
    names : sequence of str
        Of the corners.
    """
    size = 0.95
    side = size * (steps + 1)
    width, height = side + 2.2, size * (steps + 1) + 0.75
    with style():
        figure = Figure(figsize=(width, height))
        number = 0
        for row in range(steps + 1):
            left = (width - (row + 1) * size) / 2
            bottom = height - 0.4 - (row + 1) * size
            ax = figure.add_axes((left / width, bottom / height, (row + 1) * size / width, 0.97 * size / height))
            strip = frames[number : number + row + 1]
            ax.imshow(mosaic(strip[None]), aspect="auto")
            _bare(ax)
            number += row + 1
        figure.text((width + size) / 2 / width + 0.01, 1 - 0.9 / height, names[0], va="center")
        for x, align, name in ((0.08, "left", names[1]), (width - 0.08, "right", names[2])):
            figure.text(x / width, 0.12 / height, name, ha=align, va="bottom")
        figure.suptitle(title, fontsize=11, y=1 - 0.06 / height, va="top")
    return figure


def hull_grid(steps: int) -> list[tuple[float, float, float]]:
    """Weights of three corners at the points of a triangular grid, in the order of `plot_hull_grid`."""
    return [((steps - i) / steps, (i - j) / steps, j / steps) for i in range(steps + 1) for j in range(i + 1)]

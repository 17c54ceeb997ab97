"""Sheets of film strips with the judge's readings below them, drawn fast enough to be drawn anew at every move.

There are no axes on a sheet, which cost more than all the rest; films are put on it pixel for pixel, and words that
have been drawn before are put there again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Affine2D
from PIL import Image

from kpm.workbook.gallery import Reading, View
from kpm.workbook.plots import BLUE, GREY, ORANGE, STYLE, style

FRAMES = 8  # shown of a film at most
RIGHT, WRONG, FREE = "✓", "✗", "·"
DPI = STYLE["figure.dpi"]
# Inches: the names' column, a frame and the space below it, the title, and the table's rows.
NAMES, FRAME, GAP = 1.75, 0.9, 0.06
TITLE, ROW, HEAD, NOTE = 0.38, 0.29, 0.44, 0.3


class Page:
    """A bare figure to put things on, in inches from the left and from the top."""

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        with style():
            self.figure = Figure(figsize=(width, height))
        self.inches = Affine2D().scale(1, -1).translate(0, height) + self.figure.dpi_scale_trans

    def put(self, artist: Artist) -> None:
        artist.set_transform(self.inches)
        self.figure.add_artist(artist)

    def text(self, x: float, y: float, text: str, size: float, **look: Any) -> None:
        self.put(Label(x, y, text, **{"fontsize": size, "va": "center", "ha": "left", **look}))

    def box(self, left: float, top: float, width: float, height: float, **look: Any) -> None:
        self.put(Rectangle((left, top), width, height, **look))

    def line(self, xs: Sequence[float], ys: Sequence[float], **look: Any) -> None:
        self.put(Line2D(xs, ys, **look))

    def patch(self, patch: Patch) -> None:
        self.put(patch)


class Pixels(Artist):
    """A uint8 picture ``(h, w, 3)`` put pixel for pixel, so at the style's resolution, `left` and `top` in pixels."""

    def __init__(self, picture: np.ndarray, left: int, top: int):
        super().__init__()
        self.picture, self.left, self.top = picture, left, top

    def draw(self, renderer: RendererBase) -> None:
        opaque = np.dstack([self.picture, np.full(self.picture.shape[:2], 255, np.uint8)])
        _blit(renderer, opaque, self.left, renderer.height - self.top - len(opaque))


class Label(Text):
    """Text in one colour and without rotation, whose picture is kept for the next figure that has it."""

    def draw(self, renderer: RendererBase) -> None:
        if not self.get_text():
            return
        look = (self.get_fontsize(), self.get_weight(), self.get_ha(), self.get_va())
        opacity, right, up = _written(self.get_text(), *look)
        ink = np.empty((*opacity.shape, 4), dtype=np.uint8)
        ink[..., :3] = np.rint(255 * np.array(to_rgb(self.get_color())))
        ink[..., 3] = opacity
        x, y = self.get_transform().transform(self.get_position())
        _blit(renderer, ink, math.floor(x) + right, math.floor(y) + up)  # round would turn halves up and down


@functools.lru_cache(maxsize=4096)
def _written(text: str, size: float, weight: Any, ha: str, va: str) -> tuple[np.ndarray, int, int]:
    """Opacity ``(h, w)`` of a text, and how far right and up of its position the lower left corner is, in pixels."""
    figure, renderer = _slate()
    renderer.clear()
    x = {"left": 10, "center": figure.bbox.width // 2, "right": figure.bbox.width - 10}[ha]
    y = figure.bbox.height // 2
    words = figure.text(x, y, text, fontsize=size, weight=weight, ha=ha, va=va, transform=None)
    words.draw(renderer)
    words.remove()
    opacity = np.asarray(renderer.buffer_rgba())[..., 3]
    rows, columns = (np.flatnonzero(opacity.any(axis)) for axis in (1, 0))
    if not len(rows):
        return np.zeros((1, 1), np.uint8), 0, 0
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return opacity[top:bottom, left:right].copy(), int(left - x), int(len(opacity) - bottom - y)


@functools.cache
def _slate() -> tuple[Figure, RendererAgg]:
    """Where words are written first: room for three lines as wide as the widest sheet."""
    figure = Figure(figsize=(12, 0.8), dpi=DPI)
    return figure, FigureCanvasAgg(figure).get_renderer()


def _blit(renderer: RendererBase, picture: np.ndarray, left: int, bottom: int) -> None:
    renderer.draw_image(renderer.new_gc(), left, bottom, np.ascontiguousarray(picture[::-1]))


def sheet(
    strips: Mapping[str, np.ndarray],
    views: Mapping[str, View],
    title: str = "",
    note: str = "",
    shaded: Collection[tuple[str, str]] = (),
    spare: float = 0.0,
    least: float = 0.0,
) -> tuple[Page, float]:
    """Strips with their names, below them the readings of `views`; and how far down the readings begin, in inches.

    Parameters
    ----------
    strips : dict of str to array
        Films ``(time, channels, height, width)`` in [0, 1], of one shape; long ones are thinned out.
    shaded : collection of (str, str)
        View and factor of the cells that are shaded.
    spare : float
        Width of the place that is left free beside the readings.
    least : float
        Height that readings and free place have at least.
    """
    films = [np.asarray(film)[:: math.ceil(len(film) / FRAMES)] for film in strips.values()]
    factors = list(dict.fromkeys(f for view in views.values() for f in view.readings))
    strip = FRAME * max(map(len, films))
    top = TITLE if title else GAP
    below = top + (FRAME + GAP) * len(films) + 0.1
    table = HEAD + ROW * len(factors) + NOTE if factors else 0.0
    page = Page(NAMES + strip + 0.1, below + max(table, least))
    pixels = mosaic(films, round(FRAME * DPI), round(GAP * DPI))
    page.figure.add_artist(Pixels(pixels, round(NAMES * DPI), round(top * DPI)))
    for i, name in enumerate(strips):
        page.text(NAMES - 0.1, top + (i + 0.5) * (FRAME + GAP) - GAP / 2, name, 12, ha="right")
    page.text(NAMES, top / 2, title, 12)
    if factors:
        _readings(page, views, factors, shaded, below, strip - spare, note)
    return page, below


def _readings(
    page: Page,
    views: Mapping[str, View],
    factors: Sequence[str],
    shaded: Collection[tuple[str, str]],
    top: float,
    width: float,
    note: str,
) -> None:
    """The judge's table: a column per film, a row per factor."""
    column = width / len(views)
    cells = {(name, f): reading_text(view.readings[f]) for name, view in views.items() for f in factors}
    size = min(11.0, 0.95 * 130 * column / max(map(len, cells.values())))
    page.text(NAMES - 0.1, top + HEAD / 2, "judge reads", 11, ha="right", color=GREY)
    page.box(0.1, top + HEAD - 0.01, NAMES + width - 0.1, 0.01, color=GREY, lw=0)
    for i, factor in enumerate(factors):
        page.text(NAMES - 0.1, top + HEAD + (i + 0.5) * ROW, factor, 12, ha="right")
    for j, (name, view) in enumerate(views.items()):
        left = NAMES + j * column
        page.text(left + 0.05, top + HEAD / 2, name, 11, weight="bold")
        for i, factor in enumerate(factors):
            upper = top + HEAD + i * ROW
            if (name, factor) in shaded:
                page.box(left, upper, column - 0.04, ROW, color=BLUE, alpha=0.13, lw=0)
            wrong = view.readings[factor].right is False
            if wrong:
                page.box(left + 0.01, upper + 0.02, column - 0.06, ROW - 0.04, fill=False, ec=ORANGE, lw=2)
            weight = "bold" if wrong else "normal"
            page.text(left + 0.05, upper + ROW / 2, cells[name, factor], size, weight=weight)
    page.text(NAMES, top + HEAD + len(factors) * ROW + NOTE / 2 + 0.03, note, 10, color=GREY)


def reading_text(reading: Reading) -> str:
    """Mark, class and confidence of a reading."""
    mark = FREE if reading.right is None else RIGHT if reading.right else WRONG
    return f"{mark} {reading.name} {100 * reading.confidence:.0f}%"


def mosaic(rows: Sequence[np.ndarray] | np.ndarray, size: int | None = None, gap: int = 0) -> np.ndarray:
    """Rows of pictures ``(columns, channels, height, width)`` as one uint8 ``(h, w, 3)``; white where a row is short.

    Parameters
    ----------
    size : int, optional
        Pixels that the height of a picture is brought to.
    gap : int
        White pixels below each row.
    """
    most = max(len(row) for row in rows)
    lines = []
    for row in rows:
        row = np.rint(255 * np.clip(row, 0, 1)).astype(np.uint8)
        n, _, h, w = row.shape
        line = np.full((h, most * w, 3), 255, dtype=np.uint8)
        line[:, : n * w] = row.transpose(2, 0, 3, 1).reshape(h, n * w, -1)
        if size is not None:
            line = np.asarray(Image.fromarray(line).resize((most * w * size // h, size), Image.Resampling.NEAREST))
        lines.append(np.pad(line, ((0, gap), (0, 0), (0, 0)), constant_values=255))
    return np.concatenate(lines)

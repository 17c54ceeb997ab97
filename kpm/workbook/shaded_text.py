"""Texts with every word shaded by a number ([KANN] fig. 1): as HTML, as a `Figure`, and as a widget around them.

Blue is positive and vermilion negative, told apart with any colour vision. Shades in HTML are translucent and keep the
page's ink, but for the darkest, so that they can be read on a light and on a dark page.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any, Literal

import ipywidgets
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kpm.workbook.plots import BLUE, RED, style

Kind = Literal["signed", "magnitude"]
_FAINT = 0.03  # shades below this are left out
_STRONG = 0.6  # words from here on are bold too, for pages that take colours away
_OWN_INK = 0.8  # from here on ink of its own has more contrast than the page's, light or dark
_SWATCHES = 9
_ROW, _CHARACTER, _POINTS = 0.27, 0.0817, 10  # inches per line, inches per character of 10 point monospace


def shade(values: Any, limit: float | None = None, kind: Kind = "signed") -> np.ndarray:
    """Shares of the darkest shade: -1 to 1 for ``"signed"``, 0 to 1 for ``"magnitude"``, float64 of the same shape.

    Parameters
    ----------
    values : array
    limit : float, optional
        The value of the darkest shade, beyond which all are as dark; the largest modulus by default.
    kind : {"signed", "magnitude"}

    Raises
    ------
    ValueError
        For numbers that are not finite, negative magnitudes, or a limit that is not positive.
    """
    x = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64)
    if kind not in ("signed", "magnitude"):
        raise ValueError(f"kind: expected 'signed' or 'magnitude', got {kind!r}")
    if not np.isfinite(x).all():
        raise ValueError(f"values{np.argwhere(~np.isfinite(x))[0].tolist()} is not finite (shape {x.shape})")
    if kind == "magnitude" and x.size and x.min() < 0:
        raise ValueError(f"values{np.argwhere(x < 0)[0].tolist()} is negative, which no magnitude is")
    if limit is not None and not limit > 0:
        raise ValueError(f"limit: expected a positive number, got {limit}")
    top = (np.abs(x).max(initial=0) or 1.0) if limit is None else limit
    return np.clip(x / top, -1, 1)


def colour(share: float) -> tuple[str, str]:
    """Background and ink of a share from -1 to 1, as ``#rrggbb``; the ink is black or white, whichever stands out."""
    background = _mixed(share)
    return _hex(background), "#ffffff" if _luminance(background) < 0.179 else "#000000"


def shaded_text(
    words: Sequence[str],
    values: Any,
    *,
    kind: Kind = "signed",
    limit: float | None = None,
    title: str = "",
    label: str = "",
) -> str:
    """One text as static HTML, with its title and a legend.

    Parameters
    ----------
    words : sequence of str
        Any text; it is escaped.
    values : array
        One number per word.
    kind, limit
        As for `shade`.
    title, label : str
        Line above the text, and what the numbers are, for the legend.
    """
    shares, numbers = _checked(words, values, limit, kind)
    top = _limit(numbers, limit)
    text = " ".join(_word(word, share, number) for word, share, number in zip(words, shares, numbers))
    head = f'<div style="font-weight:bold;margin-bottom:4px">{html.escape(title)}</div>' if title else ""
    steps = np.linspace(-1 if kind == "signed" else 0, 1, _SWATCHES)
    swatches = "".join(_span("&nbsp;&nbsp;", share, force=True) for share in steps)
    low = f"{-top:.3g}" if kind == "signed" else "0"
    name = f" {html.escape(label)}" if label else ""
    legend = f'<div style="margin-top:6px;font-size:85%">{low} {swatches} {top:.3g}{name}</div>'
    return f'<div style="line-height:1.9;max-width:60em;overflow-wrap:anywhere">{head}<div>{text}</div>{legend}</div>'


def plot_shaded_text(
    words: Sequence[str],
    values: Any,
    *,
    kind: Kind = "signed",
    limit: float | None = None,
    title: str = "",
    label: str = "",
    columns: int = 96,
    most: int = 400,
) -> Figure:
    """The same as a picture.

    Parameters
    ----------
    columns : int
        Characters of a line.
    most : int
        Words shown; the rest is left out and counted.
    """
    shares, numbers = _checked(words, values, limit, kind)
    left_out = max(0, len(words) - most)
    cells, rows = _wrapped(words[:most], columns)
    width, bar = columns * _CHARACTER + 0.3, 0.55
    head = 0.3 if title else 0.05
    height = head + rows * _ROW + bar + (_ROW if left_out else 0)
    with style():
        figure = Figure(figsize=(width, height))
        ax = figure.add_axes((0.15 / width, bar / height, 1 - 0.3 / width, (height - head - bar) / height))
        ax.set(xlim=(0, columns), ylim=(rows + bool(left_out), 0))
        ax.set_axis_off()
        for (row, start, word), share in zip(cells, shares):
            background, ink = colour(share)
            if abs(share) >= _FAINT:
                ax.add_patch(Rectangle((start - 0.3, row + 0.06), len(word) + 0.6, 0.88, color=background, lw=0))
            ax.text(
                start, row + 0.5, word, color=ink, fontsize=_POINTS, family="DejaVu Sans Mono", va="center_baseline",
                parse_math=False,
            )  # fmt: skip
        if left_out:
            ax.text(0, rows + 0.5, f"… and {left_out} words more", va="center", style="italic")
        if title:
            figure.text(0.15 / width, 1 - 0.06 / height, title, va="top", weight="bold", parse_math=False)
        low = -1 if kind == "signed" else 0
        colours = ListedColormap([_mixed(share) for share in np.linspace(low, 1, 256)])
        top = _limit(numbers, limit)
        place = figure.add_axes((0.45 / width, 0.34 / height, 2.4 / width, 0.13 / height))
        scale = figure.colorbar(ScalarMappable(Normalize(low * top, top), colours), cax=place, orientation="horizontal")
        ends = [low * top, 0, top] if low else [0, top]
        scale.set_ticks(ends, labels=[f"{end:.2g}" for end in ends])
        scale.ax.tick_params(labelsize=9)
        if label:
            figure.text(3.2 / width, 0.4 / height, label, va="center", fontsize=10, parse_math=False)
    return figure


def text_explorer(
    texts: Sequence[Sequence[str]],
    look: Callable[[int, tuple[int, ...], Kind], Any],
    modes: Sequence[str],
    titles: Sequence[str] | None = None,
    limit: Callable[[tuple[int, ...], Kind], float] | None = None,
    review: int = 0,
    mode: int = 0,
) -> ipywidgets.VBox:
    """Choose a text, modes, and what shades its words.

    Parameters
    ----------
    texts : sequence of sequence of str
        Words of each text.
    look : callable
        From the number of a text, the numbers of the chosen modes and ``"signed"`` or ``"magnitude"`` to one number per
        word.
    modes : sequence of str
        Their names.
    titles : sequence of str, optional
        One per text.
    limit : callable, optional
        From modes and kind to the value of the darkest shade, to compare texts; each text's own largest by default.
    review, mode : int
        What is chosen at first.
    """
    names = [f"{i}: {t}" for i, t in enumerate(titles or [" ".join(text[:6]) for text in texts])]
    choice = ipywidgets.Dropdown(options=[(name, i) for i, name in enumerate(names)], value=review, description="text")
    chosen = ipywidgets.SelectMultiple(
        options=[(name, i) for i, name in enumerate(modes)], value=(mode,), description="modes", rows=min(6, len(modes))
    )
    kind = ipywidgets.ToggleButtons(options=[("jump", "signed"), ("magnitude", "magnitude")], description="shade by")
    page = ipywidgets.HTML()

    def draw(_: object = None) -> None:
        what = tuple(chosen.value)
        if not what:
            page.value = "<i>no mode is chosen</i>"
            return
        try:
            top = None if limit is None else limit(what, kind.value)
            label = f"{'jump' if kind.value == 'signed' else 'magnitude'} in {', '.join(modes[j] for j in what)}"
            words, values = texts[choice.value], look(choice.value, what, kind.value)
            page.value = shaded_text(words, values, kind=kind.value, limit=top, title=names[choice.value], label=label)
        except (ValueError, ArithmeticError, IndexError) as error:
            page.value = f"<pre>{type(error).__name__}: {html.escape(str(error))}</pre>"

    for control in (choice, chosen, kind):
        control.observe(draw, "value")
    draw()
    row = ipywidgets.Box([choice, chosen, kind], layout=ipywidgets.Layout(flex_flow="row wrap"))
    return ipywidgets.VBox([row, page])


def _checked(words: Sequence[str], values: Any, limit: float | None, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Shares and numbers, one per word."""
    shares = shade(values, limit, kind)
    if shares.shape != (len(words),):
        raise ValueError(f"values: expected one per word, ({len(words)},), got shape {shares.shape}")
    return shares, np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64)


def _limit(numbers: np.ndarray, limit: float | None) -> float:
    return float(np.abs(numbers).max(initial=0) or 1.0) if limit is None else limit


def _word(word: str, share: float, number: float) -> str:
    text = html.escape(word)
    return _span(f"<b>{text}</b>" if abs(share) >= _STRONG else text, share, hint=f"{number:.3g}")


def _span(inside: str, share: float, hint: str = "", force: bool = False) -> str:
    """Text with its background, without one if that would be too faint to see."""
    title = f' title="{hint}"' if hint else ""
    if abs(share) < _FAINT and not force:
        return f"<span{title}>{inside}</span>"
    red, green, blue = (round(255 * c) for c in to_rgb(BLUE if share > 0 else RED))
    look = f"background-color:rgba({red},{green},{blue},{abs(share):.2f});padding:1px 2px;border-radius:3px"
    if abs(share) >= _OWN_INK:
        look += f";color:{'#ffffff' if share > 0 else '#000000'}"
    return f'<span style="{look}"{title}>{inside}</span>'


def _mixed(share: float) -> tuple[float, float, float]:
    """White turned to blue (up to 1) or vermilion (down to -1)."""
    part = abs(share)
    return tuple((1 - part) + part * c for c in to_rgb(BLUE if share > 0 else RED))


def _luminance(rgb: tuple[float, float, float]) -> float:
    """Relative luminance (WCAG 2); white ink has the higher contrast below 0.179."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _hex(rgb: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * c):02x}" for c in rgb)


def _wrapped(words: Sequence[str], columns: int) -> tuple[list[tuple[int, int, str]], int]:
    """Row and column of each word, words longer than a line being cut; and how many rows there are."""
    if columns < 10:
        raise ValueError(f"columns: expected 10 or more, got {columns}")
    cells, row, place = [], 0, 0
    for word in words:
        word = word if len(word) <= columns else word[: columns - 1] + "…"
        if place and place + len(word) > columns:
            row, place = row + 1, 0
        cells.append((row, place, word))
        place += len(word) + 1
    return cells, row + 1

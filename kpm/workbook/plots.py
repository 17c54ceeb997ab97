"""The workbook's figures: one style, and pure functions from arrays to a `Figure`.

Widgets and notebooks call these; nothing here reads files or keeps state.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours: told apart with any colour vision. Blue is ours, orange the contrast, grey the context.
BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#777777",
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED)

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "image.interpolation": "nearest",
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The workbook's style within the block; nothing outside it changes."""
    with mpl.rc_context(STYLE):
        yield


def use_style() -> None:
    """The workbook's style from here on; for notebooks."""
    mpl.rcParams.update(STYLE)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **kwargs) -> tuple[Figure, np.ndarray]:
    # A bare Figure, not pyplot's: nothing is registered globally, so a slider can make thousands without a leak.
    with style():
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    return figure, axes


def plot_spectrum(
    eigenvalues: Mapping[str, np.ndarray],
    threshold: float | None = None,
    static: Mapping[str, np.ndarray] | None = None,
    title: str = "",
    limits: tuple[float, float, float, float] = (-1.45, 1.55, -1.3, 1.3),
) -> Figure:
    """Eigenvalues in the complex plane with the unit circle and circles of equal distance to 1.

    Parameters
    ----------
    eigenvalues : dict of str to complex array
        Any shape per entry; drawn as points of one colour, which come round again after six entries.
    threshold : float, optional
        alpha: a vertical line, right of which dynamic eigenvalues are penalised.
    static : dict, optional
        As `eigenvalues`, drawn as crosses: those that make the static part.
    limits : tuple of float
        Smallest and largest real part, smallest and largest imaginary part. Values outside are not shown.
    """
    figure, axes = _figure(6.0, 5.6)
    ax: Axes = axes[0, 0]
    left, right, bottom, top = limits
    with style():
        ax.add_patch(Circle((0, 0), 1, fill=False, color=GREY, lw=1.2))
        for radius in (0.25, 0.5):
            if radius < top and radius / 2 < right - 1:  # else there is no room for what it says
                ax.add_patch(Circle((1, 0), radius, fill=False, color=GREY, lw=0.8, ls=":"))
                ax.annotate(
                    f"|λ−1| = {radius}", (1, radius), (2, 3), textcoords="offset points", color=GREY, fontsize=9
                )
        for colour, (name, values) in zip(itertools.cycle(COLOURS), eigenvalues.items()):
            values = np.asarray(values).ravel()
            few = values.size < 30
            ax.plot(
                values.real, values.imag, "o", ms=9 if few else 3.5, alpha=0.8 if few else 0.45, mew=0,
                color=colour, label=name,
            )  # fmt: skip
        for colour, (name, values) in zip(itertools.cycle((RED, PINK, *COLOURS[:3], SKY)), (static or {}).items()):
            values = np.asarray(values).ravel()
            ax.plot(values.real, values.imag, "x", ms=7, mew=1.6, color=colour, label=name)
        if threshold is not None:
            ax.axvline(threshold, color=GREY, lw=1, ls="--")
            ax.annotate(
                f"α = {threshold:g}", (threshold, bottom), (-4, 4), textcoords="offset points", color=GREY, fontsize=9,
                ha="right",
            )  # fmt: skip
        ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xlabel="Re λ", ylabel="Im λ", title=title)
        if eigenvalues or static:
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, markerscale=1.2)
    return figure


def plot_films(rows: Mapping[str, np.ndarray], title: str = "", every: int = 1) -> Figure:
    """Film strips, one per row.

    Parameters
    ----------
    rows : dict of str to array
        Frames ``(time, channels, height, width)`` in [0, 1], all of one shape.
    every : int
        Show every so many frames.
    """
    films = {k: np.clip(np.asarray(v, dtype=np.float32)[::every], 0, 1) for k, v in rows.items()}
    # Inches, placed by hand: strips of one size, and as much room for names as the longest one needs.
    high, gap, names = 0.92, 0.06, 0.2 + 0.085 * max(map(len, films))
    strip = high * max(len(film) for film in films.values())
    width, height = names + strip + gap, (high + gap) * len(films) + gap + (0.35 if title else 0)
    with style():
        figure = Figure(figsize=(width, height))
        for i, (name, film) in enumerate(films.items()):
            bottom = (high + gap) * (len(films) - 1 - i) + gap
            ax = figure.add_axes((names / width, bottom / height, high * len(film) / width, high / height))
            ax.imshow(np.concatenate(list(film.transpose(0, 2, 3, 1)), axis=1).squeeze(), cmap="gray", vmin=0, vmax=1)
            ax.set_ylabel(name, rotation=0, ha="right", va="center")
            _bare(ax)
        if title:
            figure.suptitle(title, fontsize=11, y=1 - 0.08 / height, va="top")
    return figure


def plot_swaps(
    top: np.ndarray, left: np.ndarray, swapped: np.ndarray, title: str, top_name: str, left_name: str
) -> Figure:
    """A grid of pictures: row i, column j has one part from `left[i]` and the other from `top[j]`.

    Parameters
    ----------
    top : array
        ``(m, channels, height, width)``.
    left : array
        ``(n, channels, height, width)``.
    swapped : array
        ``(n, m, channels, height, width)``.
    """
    n, m = swapped.shape[:2]
    figure, axes = _figure(1.05 * (m + 1) + 0.5, 1.05 * (n + 1) + 0.6, n + 1, m + 1)
    with style():
        for i in range(n + 1):
            for j in range(m + 1):
                ax = axes[i, j]
                _bare(ax)
                picture = (
                    None if i == j == 0 else top[j - 1] if i == 0 else left[i - 1] if j == 0 else swapped[i - 1, j - 1]
                )
                if picture is None:
                    ax.text(0.5, 0.5, f"{top_name} →\n{left_name} ↓", ha="center", va="center", fontsize=10)
                    ax.set(xlim=(0, 1), ylim=(0, 1))
                    continue
                ax.imshow(
                    np.clip(np.asarray(picture, dtype=np.float32), 0, 1).transpose(1, 2, 0).squeeze(), cmap="gray"
                )
                if i == 0 or j == 0:
                    for spine in ax.spines.values():
                        spine.set(visible=True, color=BLUE, linewidth=2)
        figure.suptitle(title, fontsize=11)
    return figure


def plot_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    log: bool = False,
    title: str = "",
) -> Figure:
    """Lines with their names at a legend; `log` for a logarithmic y axis."""
    figure, axes = _figure(6.4, 3.6)
    ax: Axes = axes[0, 0]
    with style():
        for name, (x, y) in curves.items():
            ax.plot(x, y, label=name)
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if log:
            ax.set_yscale("log")
        if len(curves) > 1:
            ax.legend()
    return figure


def plot_each(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str) -> Figure:
    """Lines of different scales, each in a panel of its own under its name, side by side."""
    figure, axes = _figure(3.6 * len(curves), 2.8, 1, len(curves))
    with style():
        for ax, colour, (name, (x, y)) in zip(axes[0], COLOURS, curves.items()):
            ax.plot(x, y, color=colour, marker="o" if len(x) < 20 else None)
            ax.set_title(name)
            ax.set(xlabel=xlabel)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def plot_forecast(t: np.ndarray, series: Mapping[str, np.ndarray], xlabel: str, ylabel: str) -> Figure:
    """A measured series as dots, everything after it as lines over the same times `t`."""
    figure, axes = _figure(7.2, 3.4)
    ax: Axes = axes[0, 0]
    with style():
        for i, (colour, (name, values)) in enumerate(zip((GREY, ORANGE, BLUE, GREEN), series.items())):
            look = {"ls": "none", "marker": ".", "ms": 5} if i == 0 else {"ls": "-" if i == 1 else "--"}
            ax.plot(t, values, color=colour, label=name, **look)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        ax.legend(loc="upper right", ncols=3)
    return figure


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)

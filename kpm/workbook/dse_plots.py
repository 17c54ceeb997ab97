"""Figures of the notebook on DSE: clouds of eigenvalues over trials, error against noise and harmonic by harmonic.

Pure functions from arrays to a `Figure`, in the style of `kpm.workbook.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from kpm.workbook.plots import BLUE, COLOURS, GREY, STYLE, _figure, style

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


def plot_clouds(
    panels: Mapping[str, np.ndarray],
    reference: np.ndarray,
    limits: tuple[float, float, float, float] = (0.72, 1.03, -0.03, 0.56),
) -> Figure:
    """Eigenvalues of many trials in the upper half of the complex plane, a panel for each method.

    Parameters
    ----------
    panels : dict of str to complex array
        All eigenvalues a method found, any shape.
    reference : complex array
        Those it should find, drawn as rings.
    limits : tuple of float
        Smallest and largest real part, smallest and largest imaginary part shown.
    """
    left, right, bottom, top = limits
    figure, axes = _figure(2.6 * len(panels) + 0.5, 4.6, 1, len(panels), sharex=True, sharey=True)
    reference = np.asarray(reference)
    with style():
        for ax, (name, values) in zip(axes[0], panels.items()):
            values = np.asarray(values).ravel()
            ax.add_patch(Circle((0, 0), 1, fill=False, color=GREY, lw=1.0))
            ax.plot(values.real, values.imag, "o", ms=3.5, mew=0, alpha=0.5, color=BLUE, label="found")
            ax.plot(reference.real, reference.imag, "o", ms=10, mfc="none", mec="k", mew=1.2, label="reference")
            ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xlabel="Re λ", title=name)
        axes[0, 0].set_ylabel("Im λ")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def plot_error_by_noise(
    levels: Sequence[float],
    errors: Mapping[str, Sequence[float]],
    stds: Mapping[str, Sequence[float]],
    xlabel: str,
    ylabel: str = "mean error over 13 harmonics",
    title: str = "",
) -> Figure:
    """Errors on a logarithmic axis against the level of noise, a line per method.

    Bars are deviations over trials; if all are 0 there are none. Methods are told apart by marker as well as by colour.
    """
    figure, axes = _figure(7.4, 4.2)
    ax = axes[0, 0]
    levels = np.asarray(levels)
    bars = any(np.any(stds[name]) for name in errors)
    with style():
        for i, (name, values) in enumerate(errors.items()):
            values, spread = np.asarray(values), np.asarray(stds[name])
            low = np.minimum(spread, 0.9 * values)  # a logarithmic axis has no zero
            ax.errorbar(
                levels, values, [low, spread] if bars else None, marker=MARKERS[i % len(MARKERS)], ms=6, capsize=2,
                elinewidth=0.8, color=COLOURS[i % len(COLOURS)], ls="-" if i < len(COLOURS) else "--", label=name,
            )  # fmt: skip
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title, yscale="log", xticks=levels)
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def plot_error_by_harmonic(errors: Mapping[str, Sequence[float]], title: str = "") -> Figure:
    """Error of each harmonic ``m = 0, 1, ...`` (mean over m and -m) on a logarithmic axis, a line per method."""
    figure, axes = _figure(7.4, 3.8)
    ax = axes[0, 0]
    with style():
        for i, (name, values) in enumerate(errors.items()):
            values = np.maximum(np.asarray(values), 1e-5)
            ax.plot(
                np.arange(len(values)), values, marker=MARKERS[i % len(MARKERS)], ms=6,
                color=COLOURS[i % len(COLOURS)], ls="-" if i < len(COLOURS) else "--", label=name,
            )  # fmt: skip
        ax.set(xlabel="harmonic m", ylabel="error of λ (1e-5 or less at the foot)", title=title, yscale="log")
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def plot_records(t: np.ndarray, panels: Mapping[str, tuple[np.ndarray, np.ndarray]], xlabel: str = "time") -> Figure:
    """What is observed (dots) over what it is made from (line), one panel below the other."""
    with style():
        figure, axes = _figure(7.0, 0.6 + 1.7 * len(panels), len(panels), 1, sharex=True)
        for ax, (name, (truth, seen)) in zip(axes[:, 0], panels.items()):
            ax.plot(t, seen, "o", ms=2.5, mew=0, color=GREY, label="observed")
            ax.plot(t, truth, color=BLUE, label="without noise of observation")
            ax.set_title(name, fontsize=STYLE["axes.titlesize"])
        axes[-1, 0].set_xlabel(xlabel)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=2)
    return figure


def plot_correlations(panels: Mapping[str, np.ndarray], kept: int) -> Figure:
    """Canonical correlations of past and future, descending; a line after the `kept` ones, which make the state."""
    figure, axes = _figure(6.4, 3.4)
    ax = axes[0, 0]
    with style():
        for i, (name, values) in enumerate(panels.items()):
            ax.plot(np.arange(1, len(values) + 1), values, marker=MARKERS[i], ms=4, color=COLOURS[i], label=name)
        ax.axvline(kept + 0.5, color=GREY, ls=":", lw=1.2)
        ax.annotate(f"rank {kept}", (kept + 0.5, 0.02), (4, 0), textcoords="offset points", color=GREY)
        ax.set(xlabel="number of the canonical correlation", ylabel="correlation", ylim=(0, 1.03))
        ax.legend()
    return figure


def plot_conditional(
    x: np.ndarray, y: np.ndarray, grid: np.ndarray, mean: np.ndarray, deviation: np.ndarray, truth: np.ndarray
) -> Figure:
    """Pairs ``(x, y)`` as points, what is expected of y given x on a `grid` with its deviation as a band, the truth."""
    figure, axes = _figure(6.4, 3.6)
    ax = axes[0, 0]
    with style():
        ax.plot(x, y, "o", ms=2.5, mew=0, color=GREY, label="pairs")
        ax.fill_between(grid, mean - deviation, mean + deviation, color=BLUE, alpha=0.25, lw=0, label="± deviation")
        ax.plot(grid, mean, color=BLUE, label="by an operator on features")
        ax.plot(grid, truth, "--", color="k", lw=1.2, label="true mean")
        ax.set(xlabel="x now", ylabel="x one step on")
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def plot_frame(pictures: Mapping[str, np.ndarray], highest: Mapping[str, float] | None = None) -> Figure:
    """Pictures ``(height, width)`` beside each other; grey from 0 to 1, or to what `highest` says of a name."""
    figure, axes = _figure(0.3 + 2.0 * len(pictures), 2.5, 1, len(pictures))
    with style():
        for ax, (name, picture) in zip(axes[0], pictures.items()):
            ax.imshow(np.asarray(picture).squeeze(), cmap="gray", vmin=0, vmax=(highest or {}).get(name, 1.0))
            ax.set_title(name, fontsize=10)
            ax.set_axis_off()
    return figure

"""Figures of the SKD notebook: what a reshape does to time, counts, small trainings, error laws, the static set.

Pure functions from arrays to a `Figure`, in the style of `kpm.workbook.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import LogLocator, NullFormatter

from kpm.models import koopman
from kpm.workbook.plots import BLUE, COLOURS, GREEN, GREY, ORANGE, RED, _figure, style

DASHES = ("-", "--", "-.", ":", (0, (1, 3)))


def plot_places(panels: Mapping[str, np.ndarray], parts: Sequence[str]) -> Figure:
    """Where the parts of frames stand: one row per sequence, one column per step, colour by the frame's number.

    Parameters
    ----------
    panels : dict of str to array
        Integers ``(sequences, steps, 2)`` each: frame and part.
    parts : sequence of str
        Short names of the parts of a frame.
    """
    rows, steps, _ = np.asarray(next(iter(panels.values()))).shape
    figure, axes = _figure(6.4, 0.4 + (0.42 * rows + 0.55) * len(panels), len(panels), 1)
    colours = colormaps["cividis"]
    with style():
        for ax, (name, places) in zip(axes[:, 0], panels.items()):
            frame, part = np.moveaxis(np.asarray(places), -1, 0)
            ax.imshow(frame, cmap=colours, vmin=0, vmax=frame.max(), aspect="auto")
            for i, j in np.ndindex(rows, steps):
                ink = "white" if sum(colours(frame[i, j] / max(frame.max(), 1))[:3]) < 1.4 else "black"
                ax.text(j, i, f"{frame[i, j]}{parts[part[i, j]]}", ha="center", va="center", fontsize=13, color=ink)
            ax.set(title=name, ylabel="sequence", xticks=range(steps), yticks=range(rows))
            ax.set_xticks(np.arange(1, steps) - 0.5, minor=True)
            ax.set_yticks(np.arange(1, rows) - 0.5, minor=True)
            ax.grid(False)
            ax.grid(which="minor", color="white", lw=2, alpha=1)
            ax.tick_params(which="both", length=0)
        axes[-1, 0].set_xlabel("step of the sequence")
    return figure


def plot_counts(panels: Mapping[str, Mapping[str, np.ndarray]], xlabel: str, ylabel: str, fixed: float) -> Figure:
    """Shares of whole numbers as bars, one panel per set, with a line at the number that `fixed` stands for.

    Parameters
    ----------
    panels : dict of str to dict of str to int array
        The numbers of each series, any shape.
    """
    figure, axes = _figure(3.7 * len(panels), 3.0, 1, len(panels), sharex=True, sharey=True)
    most = max(np.max(values) for series in panels.values() for values in series.values())
    least = min(np.min(values) for series in panels.values() for values in series.values())
    places = np.arange(least, most + 1)
    with style():
        for ax, (name, series) in zip(axes[0], panels.items()):
            width = 0.8 / len(series)
            for i, (label, values) in enumerate(series.items()):
                share = [(np.asarray(values) == k).mean() for k in places]
                ax.bar(places + (i - (len(series) - 1) / 2) * width, share, width, color=COLOURS[i], label=label)
            ax.axvline(fixed, color=GREY, ls="--", lw=1.4, label=f"fixed: {fixed:g}")
            ax.set(xlabel=xlabel, title=name, xticks=places)
        axes[0, 0].set_ylabel(ylabel)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(series) + 1)
    return figure


def plot_runs(
    runs: Mapping[str, tuple[Sequence[float], np.ndarray]], xlabel: str, ylabel: str, title: str = ""
) -> Figure:
    """Trainings on a logarithmic axis: a thin line per seed and a broad one for their median.

    Parameters
    ----------
    runs : dict of str to (x, y)
        ``y`` is ``(seeds, points)``, or ``(points,)`` for a single one.
    """
    figure, axes = _figure(6.8, 2.9)
    ax: Axes = axes[0, 0]
    with style():
        for colour, dash, (name, (x, y)) in zip(COLOURS, DASHES, runs.items()):
            y = np.atleast_2d(y)
            if len(y) > 1:
                ax.plot(x, y.T, color=colour, lw=0.7, alpha=0.5)
            ax.plot(x, np.median(y, 0), color=colour, ls=dash, lw=2.2, label=name)
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title, yscale="log")
        _plain_ticks(ax.yaxis)
        figure.legend(loc="outside right upper")
    return figure


def plot_laws(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    xlabels: Sequence[str],
    ylabels: Sequence[str],
    laws: Sequence[str] = (),
    shade: tuple[str, float, float] | None = None,
) -> Figure:
    """Measured points on doubly logarithmic axes, one panel per quantity.

    Parameters
    ----------
    panels : dict of str to dict of str to (x, y)
    laws : sequence of str
        Names of series drawn as broad grey lines.
    shade : (name, x, x), optional
        A grey band in all panels.
    """
    figure, axes = _figure(3.9 * len(panels), 3.1, 1, len(panels))
    with style():
        for i, (ax, (title, series)) in enumerate(zip(axes[0], panels.items())):
            ax.set(xscale="log", yscale="log", title=title, xlabel=xlabels[i], ylabel=ylabels[i])
            for name in (n for n in series if n in laws):
                ax.plot(*series[name], color="#c9c9c9", lw=6, label=name)
            measured = [n for n in series if n not in laws]
            for colour, marker, size, name in zip((BLUE, RED, GREEN), ("o", "s", "^"), (8, 4.5, 5), measured):
                ax.plot(*series[name], color=colour, marker=marker, ms=size, lw=1.2, label=name)
            if shade:
                ax.axvspan(*shade[1:], color=GREY, alpha=0.2, lw=0, label=shade[0])
            for axis in (ax.xaxis, ax.yaxis):
                _plain_ticks(axis)
        names = [ax.get_legend_handles_labels()[1] for ax in axes[0]]
        if all(n == names[0] for n in names):
            figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names[0]))
        else:
            for ax in axes[0]:
                ax.legend()
    return figure


def _plain_ticks(axis: Axis) -> None:
    """A logarithmic axis of less than two decades gets numbers written out, where powers of ten would be too few."""
    low, high = axis.get_view_interval()
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())


def plot_selection(values: np.ndarray, size: int, threshold: float) -> Figure:
    """Which eigenvalues the spectral loss holds at 1, which it penalises and which it leaves alone.

    Parameters
    ----------
    values : complex array
        ``(m,)``, the whole spectrum of one operator.
    size : int
        s, from 1 to ``m - 1``.
    threshold : float
        alpha.
    """
    spectrum = torch.as_tensor(np.asarray(values)).to(torch.complex128).ravel()
    if not 1 <= size < len(spectrum):
        raise ValueError(f"size: expected 1 to {len(spectrum) - 1} for {len(spectrum)} values, got {size}")
    static, dynamic = (float(x) for x in koopman.spectral_loss(spectrum, size, threshold, len(spectrum)))
    order = (spectrum - 1).abs().argsort()
    near, rest = spectrum[order[:size]].numpy(), spectrum[order[size:]].numpy()
    high = rest.real > threshold
    figure, axes = _figure(5.0, 4.7)
    ax: Axes = axes[0, 0]
    with style():
        ax.add_patch(Circle((0, 0), 1, fill=False, color=GREY, lw=1.2))
        ax.add_patch(Circle((1, 0), abs(near[-1] - 1), fill=False, color=BLUE, lw=0.9, ls=":"))
        ax.axvline(threshold, color=GREY, lw=1, ls="--")
        ax.annotate(
            f"α = {threshold:g}", (threshold, -1.2), (-4, 4), textcoords="offset points", ha="right", color=GREY
        )
        ax.plot(rest.real[~high], rest.imag[~high], "o", ms=6, mfc="none", color=GREY, label=f"free: {(~high).sum()}")
        ax.plot(rest.real[high], rest.imag[high], "s", ms=6.5, mew=0, color=ORANGE, label=f"penalised: {high.sum()}")
        ax.plot(near.real, near.imag, "x", ms=8, mew=2, color=BLUE, label=f"static: {size}")
        ax.set(xlim=(-1.25, 1.4), ylim=(-1.2, 1.2), aspect="equal", xlabel="Re λ", ylabel="Im λ")
        ax.set_title(f"static part {static:.2g}, dynamic part {dynamic:.2g}")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
    return figure

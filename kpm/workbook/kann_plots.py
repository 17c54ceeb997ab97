"""Figures of the KANN chapters: words against modes, scores against chance, beats and their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kpm.workbook.plots import BLUE, COLOURS, GREY, ORANGE, RED, _figure, style


def plot_word_jumps(
    jumps: np.ndarray,
    target: np.ndarray,
    words: Sequence[str],
    counts: np.ndarray,
    xlabel: str,
    ylabel: str,
    title: str = "",
    named: int = 8,
) -> Figure:
    """One dot per word: what it stands for against its mean jump; the words of the largest jumps by name.

    Parameters
    ----------
    jumps, target, counts : array ``(words,)``
        Mean jump, the number it is compared with, and how often the word was seen (the dot's size).
    named : int
        Words named at each end.
    """
    figure, axes = _figure(7.2, 4.6)
    ax: Axes = axes[0, 0]
    with style():
        size = 4 + 60 * np.sqrt(counts / counts.max())
        ax.scatter(target, jumps, s=size, color=BLUE, alpha=0.35, lw=0)
        order = np.argsort(jumps)
        step, right = 0.045 * np.ptp(jumps), 0.015 * np.ptp(target)
        for chosen, colour, sign in ((order[:named], RED, 1), (order[::-1][:named], BLUE, -1)):
            # From the outermost inwards, each name at least a line away from the one before.
            places = sign * np.maximum.accumulate(sign * jumps[chosen] - step * np.arange(named))
            places = places + sign * step * np.arange(named)
            for i, y in zip(chosen, places):
                ax.annotate(words[i], (target[i] + right, y), fontsize=9, color=colour, va="center")
        ax.axhline(0, color=GREY, lw=0.8)
        ax.axvline(0, color=GREY, lw=0.8)
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return figure


def plot_null(values: Mapping[str, float], null: np.ndarray, xlabel: str, title: str = "") -> Figure:
    """A score's distribution by chance and where the scores of interest lie."""
    figure, axes = _figure(6.4, 3.0)
    ax: Axes = axes[0, 0]
    with style():
        ax.hist(null, bins=40, color=GREY, alpha=0.5, label="random directions", density=True)
        for colour, (name, value) in zip(COLOURS, values.items()):
            ax.axvline(value, color=colour, lw=2, label=name)
        ax.set(xlabel=xlabel, ylabel="density", title=title)
        ax.legend(loc="upper right")
    return figure


def plot_beat_parts(
    time: np.ndarray,
    signal: np.ndarray,
    rebuilt: np.ndarray,
    parts: Mapping[str, np.ndarray],
    xlabel: str = "sample",
) -> Figure:
    """Median and median absolute deviation of beats, of what is rebuilt of them, and of their part in single modes.

    Parameters
    ----------
    time : array ``(t,)``
    signal, rebuilt : array ``(n, t)``
    parts : dict of str to array ``(n, t)``
        A panel each.
    """
    columns = 2
    rows = -(-len(parts) // columns)
    figure, axes = _figure(8.6, 2.5 * rows, rows, columns, sharex=True, sharey=True)
    with style():
        for ax, (name, part) in zip(axes.flat, parts.items()):
            for values, colour, label in ((signal, GREY, "beat"), (rebuilt, BLUE, "rebuilt"), (part, ORANGE, "part")):
                middle = np.median(values, 0)
                spread = np.median(np.abs(values - middle), 0)
                ax.plot(time, middle, color=colour, label=label)
                ax.fill_between(time, middle - spread, middle + spread, color=colour, alpha=0.2, lw=0)
            ax.set_title(name)
        for ax in axes.flat[len(parts) :]:
            ax.set_visible(False)
        for ax in axes[-1]:
            ax.set_xlabel(xlabel)
        axes[0, 0].legend(loc="lower left", ncols=3)
        for ax in axes[:, 0]:
            ax.set_ylabel("signal")
    return figure


def plot_losses(groups: Mapping[str, np.ndarray], threshold: float, xlabel: str, title: str = "") -> Figure:
    """Histograms of rebuilding errors over each other, and the threshold."""
    figure, axes = _figure(6.4, 3.2)
    ax: Axes = axes[0, 0]
    top = float(np.quantile(np.concatenate(list(groups.values())), 0.995))
    edges = np.linspace(0, top, 50)
    with style():
        for (name, values), colour in zip(groups.items(), (BLUE, ORANGE, GREY)):
            share = np.full(len(values), 1 / len(values))
            ax.hist(
                np.minimum(values, top),
                edges,
                weights=share,
                histtype="stepfilled",
                alpha=0.45,
                color=colour,
                label=name,
            )
        ax.axvline(threshold, color=RED, ls="--", lw=1.4, label=f"threshold {threshold:.3g}")
        ax.set(xlabel=xlabel, ylabel="share of beats", title=title)
        ax.legend()
    return figure

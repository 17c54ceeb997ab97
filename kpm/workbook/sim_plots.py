"""Figures of the notebook on stable invariant models: basins and ranks, phases, memory.

Pure functions from arrays to a `Figure`, in the style of `kpm.workbook.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from kpm.workbook.plots import BLUE, COLOURS, GREEN, GREY, ORANGE, RED, _bare, _figure, style

_MARKERS = ("o", "s", "^", "D", "v", "P")


def plot_basins(
    nearest: np.ndarray,
    error: np.ndarray,
    attractors: np.ndarray,
    errors: Sequence[float],
    bounds: Sequence[float],
    rank: int,
    reach: float = 1.6,
) -> Figure:
    """Which attractor each start of a square is taken to, how wrong the limit is there, and how that depends on rank.

    Parameters
    ----------
    nearest : int array
        ``(n, n)``, number of the attractor whose observables are nearest to the limit; rows go up.
    error : array
        ``(n, n)``, relative squared error of the limit of observables.
    attractors : array
        ``(k, 2)``.
    errors, bounds : sequence of float
        For ranks 1, 2, ...: the mean error on fresh starts, and what no matrix of that rank is below.
    rank : int
        The one shown.
    reach : float
        The square goes from ``-reach`` to ``reach``.
    """
    nearest, error, attractors = np.asarray(nearest), np.asarray(error), np.asarray(attractors)
    if not 1 <= rank <= len(errors):
        raise ValueError(f"rank: expected 1 to {len(errors)}, got {rank}")
    figure, axes = _figure(12.6, 4.3, 1, 3)
    extent = (-reach, reach, -reach, reach)
    k = len(attractors)
    with style():
        left, middle, right = axes[0]
        colours = ListedColormap((*COLOURS, GREY)[:k])
        left.imshow(nearest, origin="lower", extent=extent, cmap=colours, vmin=0, vmax=k - 1, alpha=0.55)
        left.set_title(f"nearest attractor, rank {rank}")
        picture = middle.imshow(error, origin="lower", extent=extent, cmap="Greys", vmin=0, vmax=1)
        middle.set_title("relative error of the limit")
        figure.colorbar(picture, ax=middle, shrink=0.85)
        for ax in (left, middle):
            ax.plot(attractors[:, 0], attractors[:, 1], "o", ms=9, mfc="white", mec="black", mew=1.6)
            ax.set(xlabel="first coordinate", ylabel="second coordinate", aspect="equal")
            ax.grid(False)
        ranks = np.arange(1, len(errors) + 1)
        right.semilogy(ranks, errors, "o-", color=BLUE, label="learnt limit")
        known = np.asarray(bounds) > 1e-12
        right.semilogy(ranks[known], np.asarray(bounds)[known], "k--", label="least possible")
        right.semilogy([rank], [errors[rank - 1]], "o", ms=13, mfc="none", mec=RED, mew=2)
        right.axvline(k, color=GREY, ls=":", lw=1.2)
        right.annotate(f"{k} attractors", (k, max(errors)), (-4, 0), textcoords="offset points", ha="right", color=GREY)
        right.set(xlabel="rank of the limit", ylabel="relative error, fresh starts", xticks=ranks)
        right.legend(loc="lower left")
    return figure


def plot_ranks(curves: Mapping[str, Sequence[tuple[float, float, float]]], attractors: Mapping[str, int]) -> Figure:
    """Error against rank, a panel per toy.

    Parameters
    ----------
    curves : dict
        For each toy, for ranks 1, 2, ...: errors of a free and of an oblique limit, and the least possible.
    attractors : dict
        How many each toy has.
    """
    figure, axes = _figure(3.6 * len(curves) + 0.6, 3.7, 1, len(curves), sharey=True)
    with style():
        for ax, (name, rows) in zip(axes[0], curves.items()):
            free, oblique, least = np.asarray(rows).T
            ranks = np.arange(1, len(rows) + 1)
            ax.semilogy(ranks, free, "s-", color=ORANGE, label="free")
            ax.semilogy(ranks, oblique, "o--", color=BLUE, label="oblique")
            ax.semilogy(ranks[least > 1e-12], least[least > 1e-12], "k:", label="least possible")
            ax.axvline(attractors[name], color=GREY, lw=1)
            ax.set(title=f"{name}: {attractors[name]} attractors", xlabel="rank", xticks=ranks)
        axes[0, 0].set_ylabel("relative error of the limit")
        axes[0, -1].legend(loc="upper right")
    return figure


def plot_phases(truth: np.ndarray, found: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Found phase against the analytic one, both in radians in ``(-pi, pi]``, a panel per method."""
    figure, axes = _figure(4.2 * len(found), 4.0, 1, len(found), sharex=True, sharey=True)
    ticks, names = [-np.pi, 0, np.pi], ["-π", "0", "π"]
    with style():
        for ax, (name, values) in zip(axes[0], found.items()):
            ax.plot(ticks, ticks, color=GREY, lw=1)
            ax.plot(truth, values, ".", ms=4, color=BLUE)
            ax.set(title=name, xlabel="analytic phase", xticks=ticks, yticks=ticks, aspect="equal")
            ax.set_xticklabels(names)
            ax.set_yticklabels(names)
        axes[0, 0].set_ylabel("phase found")
        figure.suptitle(title, fontsize=11)
    return figure


def plot_memory(layers: Sequence[int], kept: Mapping[str, Sequence[int]]) -> Figure:
    """Megabytes kept for the backward pass against how often the layer is applied."""
    figure, axes = _figure(6.4, 3.6)
    ax = axes[0, 0]
    with style():
        looks = zip((ORANGE, BLUE, GREEN), _MARKERS, ("-", "-", "--"))
        for (name, values), (colour, marker, line) in zip(kept.items(), looks):
            face = colour if line == "-" else "white"
            ax.plot(layers, np.asarray(values) / 1e6, line, marker=marker, ms=6, mfc=face, color=colour, label=name)
        ax.set(xlabel="applications of the layer", ylabel="kept for the gradient (MB)", ylim=(0, None))
        ax.legend()
    return figure


def plot_accuracy(rows: Sequence[Mapping[str, float]], time: str, xlabel: str) -> Figure:
    """Test accuracy against a time of each model, with deviations over seeds where there are several."""
    figure, axes = _figure(7.6, 4.2)
    ax = axes[0, 0]
    with style():
        for i, row in enumerate(rows):
            colour = BLUE if row["model"].startswith("sim") else ORANGE
            spread = row.get("accuracy_test_std")
            ax.errorbar(
                row[time], 100 * row["accuracy_test"], None if spread is None else 100 * spread, color=colour,
                marker=_MARKERS[i % len(_MARKERS)], ms=7, capsize=3, ls="none", label=row["model"],
            )  # fmt: skip
        ax.set(xlabel=xlabel, ylabel="test accuracy (%)", xscale="log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def plot_images(images: Mapping[str, np.ndarray]) -> Figure:
    """Pictures ``(height, width, 3)`` in [0, 1] side by side, their names above them."""
    figure, axes = _figure(2.9 * len(images), 3.2, 1, len(images))
    with style():
        for ax, (name, image) in zip(axes[0], images.items()):
            ax.imshow(np.clip(image, 0, 1))
            ax.set_title(name)
            _bare(ax)
    return figure

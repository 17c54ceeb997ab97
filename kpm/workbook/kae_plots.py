"""Figures of the chapter on representations: layers in a plane, decision regions, what was forgotten, pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from kpm.workbook.plots import BLUE, COLOURS, GREY, ORANGE, RED, _figure, style

_MARKERS = "o^sDvP*X<>"
# Ten classes need more than the six colours that are told apart: colours and marks differ in different rhythms.
_MANY = (*COLOURS, GREY, "#000000", "#A6960A", "#8C564B")


def plot_clouds(
    clouds: Mapping[str, np.ndarray], labels: np.ndarray, class_names: Sequence[str], title: str = ""
) -> Figure:
    """Clouds of points of a plane side by side, a colour and a mark for each class.

    Parameters
    ----------
    clouds : dict of str to array ``(n, 2)``
    labels : int array ``(n,)``
    """
    figure, axes = _figure(2.9 * len(clouds) + 0.3, 3.6, 1, len(clouds))
    with style():
        for ax, (name, points) in zip(axes[0], clouds.items()):
            for c, class_name in enumerate(class_names):
                x = points[labels == c]
                ax.scatter(
                    x[:, 0], x[:, 1], s=10, color=_MANY[c], marker=_MARKERS[c], lw=0, alpha=0.6, label=class_name
                )
            ax.set_title(name)
            ax.set(xticks=[], yticks=[])
        axes[0, 0].set_ylabel("second direction")
        for ax in axes[0]:
            ax.set_xlabel("first direction")
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(class_names), markerscale=2)
        if title:
            figure.suptitle(title, fontsize=11)
    return figure


def plot_forgetting(
    regions: Mapping[str, np.ndarray],
    points: np.ndarray,
    labels: np.ndarray,
    clouds: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    title: str = "",
) -> Figure:
    """Above, decision regions of the unit square with labelled points on them; below, layers in a plane.

    Parameters
    ----------
    regions : dict of str to int array ``(rows, columns)``
        Class answered at each place of the unit square, the first row at the bottom.
    points, labels : array ``(n, 2)``, int ``(n,)``
        What is drawn on the regions.
    clouds : dict of str to array ``(n, 2)``
        As many as regions and one before them: the first layer, then the last one of each region's operator.
    """
    figure, axes = _figure(9.2, 6.6, 2, 3)
    colours = ListedColormap(COLOURS[: len(class_names)])
    with style():
        truth, *others = axes[0]
        for c, name in enumerate(class_names):
            here = points[labels == c]
            truth.scatter(here[:, 0], here[:, 1], s=10, color=COLOURS[c], marker=_MARKERS[c], lw=0, label=name)
        truth.set_title("the classes")
        for ax, (name, region) in zip(others, regions.items()):
            ax.imshow(
                region, origin="lower", extent=(0, 1, 0, 1), cmap=colours, vmin=-0.5, vmax=len(class_names) - 0.5,
                alpha=0.75,
            )  # fmt: skip
            ax.add_patch(_circle())
            ax.set_title(name)
        for ax in axes[0]:
            ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel="x")
            ax.grid(False)
        axes[0, 0].set_ylabel("y")
        both = np.concatenate(list(clouds.values())[1:])  # the last layers in one frame, so that moves are seen
        low, high = both.min(0), both.max(0)
        room = 0.05 * (high - low)
        for i, (ax, (name, cloud)) in enumerate(zip(axes[1], clouds.items())):
            for c in range(len(class_names)):
                here = cloud[labels == c]
                ax.scatter(here[:, 0], here[:, 1], s=10, color=COLOURS[c], marker=_MARKERS[c], lw=0, alpha=0.7)
            ax.set_title(name)
            ax.set(xticks=[], yticks=[], xlabel="first direction")
            if i:
                ax.set(xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))
        axes[1, 0].set_ylabel("second direction")
        handles, names = truth.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(class_names), markerscale=2)
        if title:
            figure.suptitle(title, fontsize=11)
    return figure


def _circle():
    from matplotlib.patches import Circle

    return Circle((0.5, 0.5), 0.5, fill=False, color="black", lw=1)


def plot_unlearning(
    rows: Mapping[str, Sequence[tuple[float, float, float, float]]], class_names: Sequence[str]
) -> Figure:
    """Shares of right answers before and after each class was forgotten, a panel for each kind of target.

    Parameters
    ----------
    rows : dict of str to sequence of (forget before, forget after, retain before, retain after)
        One entry a class, in order.
    """
    figure, axes = _figure(3.3 * len(rows) + 0.4, 3.5, 1, len(rows), sharey=True)
    with style():
        for ax, (name, every) in zip(axes[0], rows.items()):
            values, x = 100 * np.asarray(every, dtype=float), np.arange(len(class_names))
            ax.plot(x, values[:, 0], "o", mfc="none", color=RED, label="the class, before")
            ax.plot(x, values[:, 1], "o", color=RED, label="the class, after")
            ax.vlines(x, values[:, 1], values[:, 0], color=RED, lw=0.8, alpha=0.5)
            ax.plot(x, values[:, 2], "s", mfc="none", color=BLUE, ms=5, label="the others, before")
            ax.plot(x, values[:, 3], "s", color=BLUE, ms=4, label="the others, after")
            ax.set_xticks(x, class_names)
            ax.set(xlabel="class forgotten", title=name, ylim=(-4, 104))
        axes[0, 0].set_ylabel("right answers, %")
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def plot_pieces(
    scale: float,
    at_scale: Mapping[str, np.ndarray],
    scales: np.ndarray,
    curves: Mapping[str, np.ndarray],
    title: str = "",
) -> Figure:
    """Left, pieces along the depth at one scale; right, pieces of the first, a middle and the last cloud at all scales.

    Parameters
    ----------
    at_scale : dict of str to int array ``(layers,)``
    curves : dict of str to int array ``(layers, scales)``
    """
    figure, axes = _figure(9.2, 3.7, 1, 2)
    with style():
        for colour, mark, (name, counts) in zip((ORANGE, BLUE), "so", at_scale.items()):
            axes[0, 0].plot(np.linspace(0, 1, len(counts)), counts, marker=mark, color=colour, ms=5, label=name)
        axes[0, 0].set(
            xlabel="depth (0 first layer, 1 last layer)", ylabel="number of pieces", yscale="log",
            title=f"at scale {scale:.3g}",
        )  # fmt: skip
        axes[0, 0].yaxis.set_minor_formatter(NullFormatter())
        axes[0, 0].legend()
        for colour, (name, every) in zip((ORANGE, BLUE), curves.items()):
            shown = {"first": 0, "middle": len(every) // 2, "last": -1}
            for look, (place, i) in zip((":", "--", "-"), shown.items()):
                axes[0, 1].plot(scales, every[i], ls=look, color=colour, label=f"{name}, {place}")
        axes[0, 1].axvline(scale, color=GREY, lw=1)
        axes[0, 1].set(xlabel="scale (1: root-mean-square radius)", yscale="log", title="at all scales")
        axes[0, 1].legend(fontsize=9)
        if title:
            figure.suptitle(title, fontsize=11)
    return figure


def plot_distances(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str = "") -> Figure:
    """Distances of pairs of samples after lifting against those before, a panel each, with the diagonal.

    Parameters
    ----------
    pairs : dict of str to (array ``(m,)``, array ``(m,)``)
        Distances before and after.
    """
    figure, axes = _figure(3.1 * len(pairs) + 0.3, 3.4, 1, len(pairs))
    with style():
        for ax, (name, (before, after)) in zip(axes[0], pairs.items()):
            ax.plot(before[::3], after[::3], ".", ms=3, alpha=0.3, color=BLUE, mew=0)  # enough to see the cloud
            top = float(max(before.max(), after.max()))
            ax.plot([0, top], [0, top], color=GREY, lw=1)
            ax.set(title=name, xlabel="distance of states")
        axes[0, 0].set_ylabel("distance of observables")
        if title:
            figure.suptitle(title, fontsize=11)
    return figure

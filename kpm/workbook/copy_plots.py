"""Figures of the copy chapter: what is recalled, how long modes last, how many of them are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from kpm.workbook.plots import BLUE, COLOURS, GREY, ORANGE, RED, SKY, _bare, _figure, style


def plot_recall(truth: np.ndarray, said: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """A panel per method: a row per sequence, the symbols said in order; wrong ones dark, with a frame.

    Parameters
    ----------
    truth : int array ``(n, s)``
    said : dict of str to int array ``(n, s)``
    """
    n, s = truth.shape
    figure, axes = _figure(max(1.8, 0.27 * s + 0.4) * len(said), 0.27 * n + 1.2, 1, len(said))
    with style():
        for ax, (name, symbols) in zip(axes[0], said.items()):
            wrong = symbols != truth
            _bare(ax)
            ax.set(xlim=(-0.5, s - 0.5), ylim=(n - 0.5, -0.5), xlabel="position")
            for i, j in np.ndindex(n, s):
                look = {"facecolor": ORANGE, "edgecolor": "black"} if wrong[i, j] else {"facecolor": SKY, "alpha": 0.25}
                ax.add_patch(Circle((j, i), 0.42, lw=0.9 if wrong[i, j] else 0, **look))
                ax.text(j, i, str(symbols[i, j]), ha="center", va="center", fontsize=8)
            ax.set_title(f"{name}\n{1 - wrong.mean():.0%} right")
            ax.set_aspect("equal")
        axes[0, 0].set_ylabel("sequence")
        if title:
            figure.suptitle(title, fontsize=11)
    return figure


def plot_planes(panels: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Eigenvalues in the complex plane: a panel per network, in it a marker per method.

    Parameters
    ----------
    panels : dict of str to dict of str to complex array
        By network and method.
    """
    figure, axes = _figure(3.5 * len(panels), 4.5, 1, len(panels))
    with style():
        for ax, (network, methods) in zip(axes[0], panels.items()):
            ax.add_patch(Circle((0, 0), 1, fill=False, color=GREY, lw=1.0))
            looks = ({"marker": "o", "ms": 4.5, "alpha": 0.7, "mew": 0}, {"marker": "x", "ms": 5, "mew": 1.0})
            for (name, values), colour, look in zip(methods.items(), (BLUE, RED), looks):
                ax.plot(values.real, values.imag, ls="none", color=colour, label=name, **look)
            ax.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal", xlabel="Re λ", title=network)
            ax.set_xticks([-1, 0, 1])
            ax.set_yticks([-1, 0, 1])
        axes[0, 0].set_ylabel("Im λ")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def plot_errors(panels: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Relative error of the state against the steps since the last symbol: a panel per network, a line per method.

    Parameters
    ----------
    panels : dict of str to dict of str to array ``(delay,)``
    """
    figure, axes = _figure(3.5 * len(panels), 3.4, 1, len(panels), sharey=True)
    methods = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    looks = dict(zip(methods, zip(COLOURS, ("-", "--", ":", "-."))))
    drawn = {}
    with style():
        for ax, (network, lines) in zip(axes[0], panels.items()):
            for name, values in lines.items():
                colour, dash = looks[name]
                (drawn[name],) = ax.plot(np.arange(1, len(values) + 1), values, color=colour, ls=dash)
            ax.set(yscale="log", xlabel="blanks read", title=network)
            ax.xaxis.get_major_locator().set_params(integer=True)
        axes[0, 0].set_ylabel("relative error of the state")
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=len(drawn))
    return figure


def plot_horizons(delays: Sequence[int], moduli: Mapping[str, Sequence[np.ndarray]], eps: float = 1e-2) -> Figure:
    """Memory horizons of all modes against the delay a network was trained for, and where the two are equal.

    From left to right the modes of a group are ordered by modulus. Horizons above 24 times the longest delay are drawn
    there, as arrows.

    Parameters
    ----------
    delays : sequence of int
    moduli : dict of str to sequence of arrays
        By method, for each delay the moduli of its eigenvalues.
    eps : float
        The fraction left at the horizon.
    """
    figure, axes = _figure(7.2, 4.2)
    ax: Axes = axes[0, 0]
    top, edge, bottom = 40.0 * max(delays), 24.0 * max(delays), 0.5
    width = 0.8 / len(moduli)
    places = np.arange(len(delays))
    with style():
        for m, (colour, marker, (name, values)) in enumerate(zip(COLOURS, "os^", moduli.items())):
            for i, sizes in enumerate(values):
                sizes = np.sort(np.asarray(sizes))[::-1]
                fades = sizes < 1
                horizon = np.where(fades, np.log(eps) / np.log(np.where(fades, np.maximum(sizes, 1e-12), 0.5)), np.inf)
                centre = places[i] + (m - (len(moduli) - 1) / 2) * width
                x = centre + width * np.linspace(-0.35, 0.35, len(sizes))
                inside = horizon <= edge
                ax.plot(
                    x[inside], np.maximum(horizon[inside], bottom), marker, ms=4, color=colour, alpha=0.7, mew=0,
                    label=name if i == 0 else None,
                )  # fmt: skip
                beyond = np.full((~inside).sum(), edge)
                ax.plot(x[~inside], beyond, ls="none", marker="$\\uparrow$", ms=7, color=colour, mew=0)
                ax.text(centre, top, f"{(horizon >= delays[i]).sum()}", color=colour, ha="center", va="bottom")
        for i, delay in enumerate(delays):
            line = ax.hlines(delay, i - 0.45, i + 0.45, color=RED, lw=1.6, ls="--")
        line.set_label("the delay itself")
        ax.set(yscale="log", ylim=(bottom, top), xlabel="delay the network was trained for, steps")
        ax.set_ylabel(f"steps until a mode is at {eps:g}")
        ax.set_xticks(places, [str(d) for d in delays])
        ax.set_title("Number of modes that outlast the delay, above each group", pad=20)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    return figure


def plot_kept_modes(
    eigenvalues: np.ndarray, kept: int, counts: Sequence[int], recall: np.ndarray, chance: float, delay: int
) -> Figure:
    """Which eigenvalues are kept, and the recall after the delay with so many.

    Parameters
    ----------
    eigenvalues : complex array ``(m,)``
        Largest modulus first.
    kept : int
        So many of them are kept.
    counts, recall : sequences
        Numbers of modes, and the share of right symbols with each.
    chance : float
        Of guessing.
    """
    figure, axes = _figure(8.8, 4.0, 1, 2)
    left, right = axes[0]
    with style():
        left.add_patch(Circle((0, 0), 1, fill=False, color=GREY, lw=1.2))
        rest, chosen = eigenvalues[kept:], eigenvalues[:kept]
        left.plot(rest.real, rest.imag, "o", ms=5, mfc="none", mec=GREY, label="left out")
        left.plot(chosen.real, chosen.imag, "o", ms=6, color=BLUE, alpha=0.8, mew=0, label=f"kept: {kept}")
        reach = 1.1 * max(1.0, float(np.abs(eigenvalues).max()))
        left.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="Re λ", ylabel="Im λ")
        left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        right.plot(counts, recall, color=BLUE)
        right.axhline(chance, color=GREY, ls=":", lw=1.2)
        right.annotate("guessing", (counts[-1], chance), (0, 3), textcoords="offset points", ha="right", color=GREY)
        right.plot([kept], [np.interp(kept, counts, recall)], "o", ms=8, color=RED)
        right.set(xlabel="modes kept, largest modulus first", ylabel="symbols recalled right", ylim=(0, 1.04))
        right.set_title(f"{np.interp(kept, counts, recall):.0%} right after {delay} steps")
    return figure

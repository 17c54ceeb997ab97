"""Figures of swaps that a judge has looked at: accuracies, what each component carries, the two scores together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

from kpm.workbook.plots import BLUE, GREY, ORANGE, _figure, style


def plot_accuracies(
    rows: Mapping[str, Mapping[str, float]],
    targets: Mapping[str, Mapping[str, float]],
    beside: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "",
) -> Figure:
    """A table of accuracies as colours: how far each is from where it should be.

    Parameters
    ----------
    rows : dict of str to dict of str to float
        ``rows[swap][factor]``, written into the cells.
    targets : same
        1 where the swap should leave the factor alone (these cells are framed), chance where it should change it.
    beside : same, optional
        The paper's numbers, written below in brackets; entries may be missing.
    """
    names, factors = list(rows), list(next(iter(rows.values())))
    values = np.array([[rows[r][f] for f in factors] for r in names])
    aims = np.array([[targets[r][f] for f in factors] for r in names])
    figure, axes = _figure(1.25 * len(factors) + 2.4, 0.62 * len(names) + 1.0)
    ax = axes[0, 0]
    image = ax.imshow(abs(values - aims), cmap="Oranges", vmin=0, vmax=1, aspect="auto")
    for i, row in enumerate(names):
        for j, factor in enumerate(factors):
            text = f"{values[i, j]:.3f}"
            if beside and factor in beside.get(row, {}):
                text += f"\n({beside[row][factor]:.3f})"
            dark = abs(values[i, j] - aims[i, j]) > 0.5
            ax.text(j, i, text, ha="center", va="center", fontsize=10, color="white" if dark else "black")
            if aims[i, j] == 1:
                ax.add_patch(Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, fill=False, lw=2, ec=BLUE))
    ax.set_xticks(range(len(factors)), factors)
    ax.set_yticks(range(len(names)), names)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(False)
    ax.set_frame_on(False)
    ax.set_title(title, loc="left", pad=24)
    figure.colorbar(image, ax=ax, label="distance from target", shrink=0.9)
    return figure


def plot_gains(gain: np.ndarray, partition: Mapping[str, Sequence[int]], title: str = "") -> Figure:
    """What keeping each static component adds to the accuracy of each factor.

    Parameters
    ----------
    gain : ndarray
        ``(components, factors)``, factors in the order of `partition`.
    partition : dict of str to sequence of int
        Components of each factor; they are framed, and stand together.
    """
    gain = np.asarray(gain)
    factors = list(partition)
    taken = [c for f in factors for c in sorted(partition[f], key=lambda c: -gain[c, factors.index(f)])]
    order = [*taken, *(c for c in range(len(gain)) if c not in taken)]
    owner = {c: i for i, f in enumerate(factors) for c in partition[f]}
    figure, axes = _figure(0.52 * len(gain) + 2.6, 0.5 * len(factors) + 1.5)
    ax = axes[0, 0]
    most = max(abs(gain).max(), 1e-6)
    image = ax.imshow(gain[order].T, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto")
    for x, c in enumerate(order):
        if c in owner:
            ax.add_patch(Rectangle((x - 0.46, owner[c] - 0.46), 0.92, 0.92, fill=False, lw=2, ec="black"))
    ax.set_xticks(range(len(order)), order)
    ax.set_yticks(range(len(factors)), factors)
    ax.set_xlabel("static component")
    ax.tick_params(length=0)
    ax.grid(False)
    ax.set_frame_on(False)
    ax.set_title(title, loc="left")
    figure.colorbar(image, ax=ax, label="gain of accuracy", shrink=0.9)
    return figure


def plot_trade_off(
    ours: Mapping[str, tuple[float, float]],
    paper: Mapping[str, tuple[float, float]],
    title: str = "",
) -> Figure:
    """The two scores against each other; up and right is better.

    Parameters
    ----------
    ours, paper : dict of str to (D_sd, D_mf)
        Ours as circles, the paper's as diamonds.
    """
    figure, axes = _figure(6.4, 4.2)
    ax = axes[0, 0]
    with style():
        labels = []
        for points, marker, colour, text, label in (
            (ours, "o", BLUE, BLUE, "ours"),
            (paper, "D", ORANGE, "black", "thesis"),
        ):
            if points:
                x, y = zip(*points.values())
                ax.scatter(x, y, marker=marker, color=colour, s=52, label=label, zorder=3)
            labels += [(name, at, text) for name, at in points.items()]
        ax.set(xlabel=r"$D_\mathrm{sd}$ (static against dynamic)", ylabel=r"$D_\mathrm{mf}$ (factor against factor)")
        ax.set_title(title, loc="left")
        ax.margins(0.3, 0.2)
        ax.legend(loc="upper left")
        _label(ax, labels)
    return figure


def _label(ax: Axes, labels: Sequence[tuple[str, tuple[float, float], str]]) -> None:
    """Names beside points, each on the side where it covers least of other names, of points and of the frame."""
    figure = ax.get_figure()
    figure.draw_without_rendering()  # the layout, in pixels
    frame, size = ax.get_window_extent(), figure.dpi * 11 / 72
    taken = [ax.get_legend().get_window_extent()] if labels else []
    for _, at, _ in labels:
        x, y = ax.transData.transform(at)
        taken.append(Bbox.from_bounds(x - size / 2, y - size / 2, size, size))
    sides = (((9, 0), "left", "center"), ((-9, 0), "right", "center"), ((0, 9), "center", "bottom"))
    sides += (((0, -9), "center", "top"), ((7, -7), "left", "top"), ((-7, -7), "right", "top"))
    for name, at, colour in labels:
        tried = []
        for offset, ha, va in sides:
            place = {"xytext": offset, "textcoords": "offset points", "ha": ha, "va": va}
            note = ax.annotate(name, at, fontsize=9.5, color=colour, **place)
            box = note.get_window_extent()
            inside = _shared_area(box, frame)
            covered = box.width * box.height - inside + sum(_shared_area(box, other) for other in taken)
            tried.append((covered, len(tried), note, box))
        best = min(tried, key=lambda one: one[:2])
        taken.append(best[3])
        for _, number, note, _ in tried:
            if number != best[1]:
                note.remove()


def _shared_area(a: Bbox, b: Bbox) -> float:
    both = Bbox.intersection(a, b)
    return 0.0 if both is None else both.width * both.height


def plot_kinds(silhouettes: Mapping[int, float], explained: Sequence[float], title: str = "") -> Figure:
    """How many kinds of motion there are, and how much of each channel's average they explain (`kpm.models.resplit`).

    Parameters
    ----------
    silhouettes : mapping of int to float
        For each number of kinds; the largest is marked.
    explained : sequence of float
        Share of each channel's variance.
    """
    counts, order = sorted(silhouettes), np.argsort(explained)[::-1]
    best = max(counts, key=silhouettes.__getitem__)
    figure, axes = _figure(7.0, 2.2, columns=2)
    left, right = axes[0]
    with style():
        left.plot(counts, [silhouettes[c] for c in counts], color=BLUE, marker="o", ms=4)
        left.plot(best, silhouettes[best], color=ORANGE, marker="o", ms=9, ls="none", label=f"{best} kinds")
        left.set(xlabel="kinds of motion", ylabel="mean silhouette")
        left.margins(y=0.15)
        if min(silhouettes.values()) > 0:
            left.set_ylim(bottom=0)
        left.set_xticks(range(2, counts[-1] + 1, 3))
        left.legend(loc="lower right")
        left.set_title(title, loc="left")
        right.bar(range(len(order)), [max(0.0, explained[c]) for c in order], color=BLUE, width=0.7)
        right.set_xticks(range(len(order)), order, fontsize=7.5)
        right.set(xlabel="channel", ylabel="share explained", ylim=(0, 1))
        right.set_title("of each channel, by the kind", loc="left")
    return figure


def plot_losses_by_factor(
    series: Mapping[str, Mapping[str, Mapping[str, float]]],
    targets: Mapping[str, Mapping[str, float]],
    title: str = "",
) -> Figure:
    """How far each factor is from its target after the static and the dynamic swap: what `D_sd` is the mean of.

    Parameters
    ----------
    series : dict of str to rows
        ``series[name][swap][factor]``, accuracies, of up to three names; each factor has a bar of each.
    targets : rows
        ``targets[swap][factor]``.
    """
    if not 1 <= len(series) <= 3:
        raise ValueError(f"series: expected 1 to 3, got {len(series)}")
    names = ("static swap", "dynamic swap")
    figure, axes = _figure(8.4, 3.0, 1, 2, sharey=True)
    width = 0.8 / len(series)
    for ax, swap in zip(axes[0], names):
        factors = list(targets[swap])
        for i, ((name, rows), colour) in enumerate(zip(series.items(), (ORANGE, GREY, BLUE))):
            x = np.arange(len(factors)) + (i - (len(series) - 1) / 2) * width
            loss = [abs(rows[swap][f] - targets[swap][f]) for f in factors]
            ax.bar(x, loss, width * 0.92, color=colour, label=name)
        ax.set_xticks(range(len(factors)), factors, fontsize=9 if len(factors) > 5 else 10)
        ax.tick_params(axis="x", length=0)
        ax.set_title(swap, loc="left")
        ax.grid(axis="x", visible=False)
    axes[0, 0].set_ylabel("distance from target")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(series))
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure

"""A picture of the classes of a dataset of time series."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from kpm.datasets.signals import Signals

_BLUE, _GREY = "#0072B2", "#555555"
_DRAWN, _COLUMNS = 25, 3


def plot_signals(dataset: Signals, channel: int = 0) -> Figure:
    """Show a panel per class: some of its series, and the median of all with the quartiles.

    Parameters
    ----------
    dataset : Signals
    channel : int
        Which channel is drawn.

    Returns
    -------
    Figure
        Classes the split has not are left out.
    """
    values, labels = dataset.values[..., channel].cpu().numpy(), dataset.labels.cpu().numpy()
    classes = [c for c in range(len(dataset.class_names)) if (labels == c).any()]
    columns = min(_COLUMNS, len(classes))
    rows = -(-len(classes) // columns)
    figure = Figure(figsize=(0.6 + 4.1 * columns if columns > 1 else 7.0, 0.9 + 2.9 * rows), layout="constrained")
    title = f"{dataset.name} ({dataset.source}), split {dataset.split}: {len(dataset)} series"
    figure.suptitle(title, fontsize=15)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    low, high = np.quantile(values, (0.0005, 0.9995))
    room = 0.06 * (high - low)
    for c, axes in zip(classes, panels):  # the panels that are left are cleared below
        mine = values[labels == c]
        axes.plot(mine[:_DRAWN].T, color=_GREY, alpha=0.25, linewidth=0.8)
        quarter, median, rest = np.quantile(mine, (0.25, 0.5, 0.75), axis=0)
        axes.fill_between(np.arange(len(median)), quarter, rest, color=_BLUE, alpha=0.3, linewidth=0, label="quartiles")
        axes.plot(median, color=_BLUE, linewidth=2.2, label="median")
        axes.set_title(f"{dataset.class_names[c]} ({len(mine)})", fontsize=14)
        axes.set(xlim=(0, len(median) - 1), ylim=(low - room, high + room))
        axes.tick_params(labelsize=12)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels:
        axes.set_axis_off()
    figure.axes[0].legend(fontsize=11, frameon=False, loc="best")
    figure.supxlabel("sample", fontsize=14)
    figure.supylabel("value", fontsize=14)
    return figure

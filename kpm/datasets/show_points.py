"""A picture of labelled points."""

from __future__ import annotations

from matplotlib.figure import Figure

from kpm.datasets.points import Points

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_MARKERS = "o^s"


def plot_points(dataset: Points) -> Figure:
    """Show the first two coordinates of all points, a colour and a mark for each class."""
    values, labels = dataset.values.cpu().numpy(), dataset.labels.cpu().numpy()
    figure = Figure(figsize=(6.4, 6.2), layout="constrained")
    axes = figure.subplots()
    for c, name in enumerate(dataset.class_names):
        x = values[labels == c]
        axes.scatter(x[:, 0], x[:, 1], s=9, color=_COLOURS[c % 6], marker=_MARKERS[c % 3], lw=0, alpha=0.7, label=name)
    axes.set(xlabel="x", ylabel="y", aspect="equal")
    axes.set_title(f"{dataset.name} ({dataset.source}), split {dataset.split}: {len(dataset)} points")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=len(dataset.class_names), frameon=False)
    return figure

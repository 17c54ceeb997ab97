"""A picture of the classes of a dataset of images."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from kpm.datasets.images import Images

_ACROSS = 12


def plot_images(dataset: Images) -> Figure:
    """Show a row of images per class, the first of the split; classes the split has not are left out."""
    labels = dataset.labels.cpu().numpy()
    classes = [c for c in range(len(dataset.class_names)) if (labels == c).any()]
    figure = Figure(figsize=(9.5, 0.7 + 0.72 * len(classes)), layout="constrained")
    figure.suptitle(f"{dataset.name} ({dataset.source}), split {dataset.split}: {len(dataset)} images", fontsize=14)
    panels = figure.subplots(len(classes), 1, squeeze=False)[:, 0]
    for c, axes in zip(classes, panels):
        rows = np.flatnonzero(labels == c)[:_ACROSS]
        chosen = dataset.values[rows].movedim(1, -1).cpu().numpy()
        blank = np.full((_ACROSS - len(chosen), *chosen.shape[1:]), 255, np.uint8)
        strip = np.concatenate([*chosen, *blank], axis=1).squeeze()
        axes.imshow(strip, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_ylabel(dataset.class_names[c], rotation=0, ha="right", va="center", fontsize=13)
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
    return figure

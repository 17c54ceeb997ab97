"""A picture of what a dataset's factors are."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kpm.datasets.base import SequenceDataset

_MOST = 9  # classes shown of a factor; more are thinned out evenly
# Inches: pictures of the two halves, room for labels below a still and left of a strip, gaps, title.
_STILL, _STRIP, _BELOW, _LEFT, _GAP, _TITLE, _HEADING = 0.98, 0.78, 0.62, 1.35, 0.06, 0.55, 0.36
_STRIDE = 3  # between the classes at which neighbouring factors are fixed


def plot_samples(dataset: SequenceDataset) -> Figure:
    """Show every factor's classes, the other factors fixed at one class each, not the same number for all.

    Parameters
    ----------
    dataset : SequenceDataset

    Returns
    -------
    Figure
        On the left a row of stills per static factor, on the right a film strip per class of each dynamic factor.
    """
    strips = [(f, c, c == 0) for f in dataset.dynamic for c in _classes(dataset, f)]
    stills = [(f, _classes(dataset, f)) for f in dataset.static]
    steps, across = dataset.shape[0], max((len(c) for _, c in stills), default=0)
    row = 0.32 + _STILL + _BELOW
    headings = len(dataset.dynamic) * _HEADING if len(dataset.dynamic) > 1 else 0
    height = max(len(strips) * (_STRIP + _GAP) + headings, len(stills) * row) + _TITLE + _GAP
    width = 2 * _GAP + across * _STILL + _LEFT + steps * _STRIP
    figure = Figure(figsize=(width, height))
    title = f"{dataset.name} ({dataset.source}), split {dataset.split}: {len(dataset)} sequences of {steps} frames"
    figure.suptitle(title, fontsize=14, y=1 - 0.12 / height, va="top")

    def place(left: float, below_top: float, wide: float, high: float):
        return figure.add_axes((left / width, 1 - (below_top + high) / height, wide / width, high / height))

    for i, (factor, chosen) in enumerate(stills):
        axes = place(_GAP, _TITLE + i * row + 0.3, len(chosen) * _STILL, _STILL)
        size = _show(axes, _compose(dataset, factor, chosen)[:, steps // 2])
        axes.set_title(factor, loc="left", fontsize=14, fontweight="bold", pad=4)
        labels = [_name(dataset, factor, c) for c in chosen]
        axes.set_xticks([(k + 0.5) * size for k in range(len(chosen))], labels, fontsize=11.5)
        axes.tick_params(length=0, pad=2)
    below = _TITLE
    left = _GAP + across * _STILL + _LEFT
    for factor, label, first in strips:
        if first and headings:
            y = 1 - (below + _HEADING - 0.08) / height
            figure.text(left / width, y, factor, fontsize=14, fontweight="bold", va="bottom")
            below += _HEADING
        axes = place(left, below, steps * _STRIP, _STRIP)
        below += _STRIP + _GAP
        _show(axes, _compose(dataset, factor, [label])[0])
        name = _name(dataset, factor, label)
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=12.5, labelpad=6)
    return figure


def _classes(dataset: SequenceDataset, factor: str) -> list[int]:
    size = dataset.factor_sizes[factor]
    return sorted({round(c) for c in np.linspace(0, size - 1, min(size, _MOST))})


def _name(dataset: SequenceDataset, factor: str, label: int) -> str:
    known = dataset.class_names.get(factor)
    return known[label].replace(" ", "\n", 1) if known else str(label)


def _compose(dataset: SequenceDataset, factor: str, chosen: list[int]) -> torch.Tensor:
    """Frames ``(classes, time, channels, height, width)``."""
    # The same number for all would paint floor, wall and object of 3D Shapes in one colour.
    fixed = {f: (_STRIDE * i) % size for i, (f, size) in enumerate(dataset.factor_sizes.items())}
    labels = {f: torch.full((len(chosen),), c) for f, c in fixed.items()}
    labels[factor] = torch.tensor(chosen)
    return dataset.compose(labels)


def _show(axes: Axes, frames: torch.Tensor) -> int:
    """Draw frames ``(n, channels, height, width)`` side by side; returns the width of one."""
    pictures = list(frames.movedim(1, -1).cpu().numpy())
    picture, width = np.concatenate(pictures, axis=1), pictures[0].shape[1]
    axes.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.set_frame_on(False)
    for x in range(width, picture.shape[1], width):
        axes.axvline(x - 0.5, color="0.45", linewidth=0.6)
    return width

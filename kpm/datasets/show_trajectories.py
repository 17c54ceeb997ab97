"""Pictures of how scale, position and angle move in the films of dSprites and 3D Shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure, FigureBase

from kpm.datasets import shapes3d
from kpm.datasets.shapes3d import orientation_track, scale_track
from kpm.datasets.trajectories import FRAMES, TRACKS, scale_trajectories
from kpm.errors import pick

_BLUE = "#0072B2"
_COLOURS = (_BLUE, "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")


def plot_trajectories(name: str = "moving_dsprites") -> Figure:
    """Draw every trajectory of a dataset's dynamic factors over its frames.

    Parameters
    ----------
    name : {"dsprites", "moving_dsprites", "shapes3d"}
        Of the first only the scale moves.
    """
    if pick("dataset", name, ("dsprites", "moving_dsprites", "shapes3d")) == "shapes3d":
        return _of_shapes3d()
    moving = name == "moving_dsprites"
    figure = Figure(figsize=(11, 8.6 if moving else 4.4), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=(1.0, 0.95), squeeze=False)[:, 0] if moving else [figure]
    scale = {str(i): trajectory for i, trajectory in enumerate(scale_trajectories())}
    _panels(parts[0], scale, 5, "scale (class 0-5)", 5, "Scale trajectories")
    if moving:
        _panels(parts[1], TRACKS, 4, "position (0-31)", 31, "Position tracks, the same for x and y")
    return figure


def _of_shapes3d() -> Figure:
    """Tracks of one direction lie in one plot: they are the same but for where they start."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    sizes = [scale_track(torch.arange(6), torch.full((6,), way)).tolist() for way in (0, 1)]
    angles = orientation_track(torch.arange(3)).tolist()
    for ax, tracks, title, ylabel, top in (
        (axes[0], sizes[0], "size grows first, six starts", "size (0-7)", shapes3d.SCALES - 1),
        (axes[1], sizes[1], "size shrinks first", "size (0-7)", shapes3d.SCALES - 1),
        (axes[2], angles, "camera, three ways", "angle (0-14)", shapes3d.ANGLES - 1),
    ):
        for track, colour in zip(tracks, _COLOURS):
            ax.plot(range(1, len(track) + 1), track, "o-", color=colour, linewidth=2, markersize=5)
        ax.set_title(title, fontsize=14)
        ax.set(ylim=(-0.09 * top, 1.09 * top), xticks=(1, 5, 10), yticks=(0, top // 2, top))
        ax.set_xlabel("frame", fontsize=13)
        ax.set_ylabel(ylabel, fontsize=13)
        ax.tick_params(labelsize=12)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _panels(
    figure: FigureBase, trajectories: Mapping[str, Sequence[int]], columns: int, ylabel: str, top: int, title: str
) -> None:
    """A small plot per trajectory, all on the same axes."""
    axes = figure.subplots(-(-len(trajectories) // columns), columns, sharex=True, sharey=True, squeeze=False)
    figure.suptitle(title, fontsize=17)
    for ax, (name, trajectory) in zip(axes.flat, trajectories.items()):
        ax.plot(range(1, FRAMES + 1), trajectory, "o-", color=_BLUE, linewidth=2.4, markersize=7)
        ax.set_title(name, fontsize=15, pad=4)
        ax.set(xlim=(0.5, FRAMES + 0.5), ylim=(-0.09 * top, 1.09 * top), xticks=(1, 4, 8))
        ax.set_yticks((0, top // 2, top) if top > 5 else range(0, top + 1))
        ax.tick_params(labelsize=13)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("frame", fontsize=15)
    figure.supylabel(ylabel, fontsize=15)

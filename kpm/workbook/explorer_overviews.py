"""The static figure above each explorer: what it can show, at a glance and without a kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from kpm.workbook import explorer_plots, exploring, plots
from kpm.workbook.gallery import REST, Gallery, look


def swaps(gallery: Gallery, films: Sequence[int] = (0, 1, 2, 3), frame: int | None = None) -> Figure:
    """One frame (the middle one by default) of all pairs of `films`: static part of the column, dynamics of the row."""
    films = [i for i in films if i < len(gallery)]
    shown = _frame(gallery, frame)
    moves = [exploring.swapped(gallery, i, j, "static") for i in films for j in films]
    grid = _frames(gallery, moves, shown).reshape(len(films), len(films), *gallery.data.shape[1:])
    own = np.stack([gallery.redrawn[i].frames[shown] for i in films])
    title = f"{_name(gallery)}: static part of the column, dynamics of the row (frame {shown})"
    return plots.plot_swaps(own, own, grid, title, "static", "dynamic")


def components(gallery: Gallery, i: int = 0, steps: int = 5, frame: int | None = None) -> Figure:
    """One frame of film `i` with each static component in turn moved over the range it has in the gallery."""
    shown, order = _frame(gallery, frame), by_owner(gallery)
    moves = []
    for c in order:
        moves += [exploring.changed(gallery, i, c, v) for v in np.linspace(*exploring.value_range(gallery, c), steps)]
    frames = _frames(gallery, moves, shown).reshape(len(order), steps, *gallery.data.shape[1:])
    groups = [("" if gallery.owner(c) == REST else gallery.owner(c)) for c in order]
    title = f"{_name(gallery)}: each static {gallery.kind} of {gallery.name(i)} moved over its range (frame {shown})"
    return explorer_plots.plot_traversal(frames, [str(c) for c in order], groups, title)


def hull(
    gallery: Gallery, corners: Sequence[int] = (0, 1, 2), steps: int = 4, what: str = "static", frame: int | None = None
) -> Figure:
    """One frame at every point of a grid between three films."""
    shown = _frame(gallery, frame)
    moves = [exploring.mixed(gallery, corners, w, what) for w in explorer_plots.hull_grid(steps)]
    names = [f"{letter}: {gallery.name(i)}" for letter, i in zip("ABC", corners)]
    title = f"{_name(gallery)}: mixtures of the {what} parts of three films (frame {shown})"
    return explorer_plots.plot_hull_grid(_frames(gallery, moves, shown), steps, names, title)


def eigenvalues(gallery: Gallery) -> Figure:
    """Eigenvalues of all films' operators, or of the one they share."""
    found = [exploring.modes(gallery, i) for i in range(len(gallery) if gallery.spectrum is None else 1)]
    values = [np.concatenate([m.eigenvalues.numpy(), m.eigenvalues.numpy().conj()]) for m in found]
    static = [np.tile(m.static.numpy(), 2) for m in found]
    both, which = np.concatenate(values), np.concatenate(static)
    operators = f"of {len(gallery)} films' operators" if gallery.spectrum is None else "of the operator of all films"
    title = f"{_name(gallery)}: eigenvalues {operators}"
    return plots.plot_spectrum({"dynamic": both[~which]}, static={"static": both[which]}, title=title)


def by_owner(gallery: Gallery) -> list[int]:
    """Static components, those of a factor together."""
    return [c for part in gallery.partition.values() for c in part] + list(gallery.rest)


def _frames(gallery: Gallery, moves: Sequence[tuple[torch.Tensor, exploring.Aim]], shown: int) -> np.ndarray:
    """One frame of each of many films."""
    latents, aims = zip(*moves)
    return np.stack([view.frames[shown] for view in look(gallery, torch.cat(latents), aims)])


def _frame(gallery: Gallery, frame: int | None) -> int:
    count = gallery.data.shape[0]
    if frame is None:
        return count // 2
    if not 0 <= frame < count:
        raise ValueError(f"frame: expected 0 to {count - 1}, got {frame}")
    return frame


def _name(gallery: Gallery) -> str:
    return f"{gallery.data.name} ({gallery.data.source})"

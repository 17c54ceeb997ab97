"""Betti numbers of point clouds at a scale: pieces (0) by single linkage, loops (1) by an optional library.

Two points are joined if they are no further apart than the scale. The number of pieces is one more than the number of
edges of the minimum spanning tree that are longer than the scale, so one tree gives the whole curve.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist

from kpm.errors import UserError


def _points(points) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or not points.size or not np.isfinite(points).all():
        raise ValueError(f"points: expected finite numbers (n, d), got shape {points.shape}")
    return points


def tree_edges(points) -> np.ndarray:
    """Lengths of the edges of the minimum spanning tree of `points` ``(n, d)``, rising, ``(n - 1,)``.

    They are the heights at which single linkage joins clusters. Takes ``n^2 / 2`` distances: 100 MB for 5000 points.
    """
    points = _points(points)
    if len(points) < 2:
        return np.empty(0)
    return np.sort(linkage(pdist(points), "single")[:, 2])


def betti_0(edges, scales) -> np.ndarray:
    """Number of pieces at each of `scales`, int64, from `tree_edges`."""
    edges = np.asarray(edges)
    return 1 + len(edges) - np.searchsorted(edges, np.asarray(scales, dtype=np.float64), side="right")


def layer_betti_0(states, scales) -> np.ndarray:
    """Number of pieces ``(layers, scales)`` of each layer of `states` ``(n, layers, d)``."""
    if np.ndim(states) != 3:
        raise ValueError(f"states: expected (n, layers, d), got shape {np.shape(states)}")
    return np.stack([betti_0(tree_edges(layer), scales) for layer in np.moveaxis(np.asarray(states), 1, 0)])


def scale_of(edges, pieces: int) -> float:
    """The middle of the range of scales at which there are so many pieces.

    Raises
    ------
    ValueError
        If there are fewer points than that, or fewer than two pieces are asked for.
    """
    edges = np.asarray(edges)
    if not 2 <= pieces <= len(edges):
        raise ValueError(f"pieces: expected 2 to {len(edges)}, got {pieces}")
    # With the edges rising, the last (pieces - 1) of them are cut.
    return float((edges[len(edges) - pieces] + edges[len(edges) - pieces + 1]) / 2)


def landmarks(points, count: int) -> np.ndarray:
    """Rows of `points` ``(n, d)`` that are far from each other: the first, then always the farthest, int64."""
    points = _points(points)
    if not 1 <= count <= len(points):
        raise ValueError(f"count: expected 1 to {len(points)}, got {count}")
    chosen = [0]
    nearest = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.array(chosen)


def has_loops() -> bool:
    """Whether gudhi is installed, which `loops` needs."""
    return importlib.util.find_spec("gudhi") is not None


def loops(points, largest: float = np.inf) -> np.ndarray:
    """Birth and death ``(loops, 2)`` of the loops of the Vietoris-Rips complex of `points` ``(n, d)``, by gudhi.

    Parameters
    ----------
    largest : float
        Scales above are not looked at; a loop that is still there has death infinity.

    Raises
    ------
    UserError
        If gudhi is not installed.
    """
    points = _points(points)
    if not has_loops():
        raise UserError("Betti number 1 needs gudhi: pip install gudhi")
    import gudhi

    complex_ = gudhi.RipsComplex(points=points, max_edge_length=largest)
    tree = complex_.create_simplex_tree(max_dimension=2)
    tree.persistence()
    return np.asarray(tree.persistence_intervals_in_dimension(1), dtype=np.float64).reshape(-1, 2)


def betti_1(found, scales: Sequence[float]) -> np.ndarray:
    """Number of loops at each of `scales`, int64, from `loops`."""
    found, scales = np.asarray(found).reshape(-1, 2), np.asarray(scales, dtype=np.float64)
    return ((found[:, :1] <= scales) & (scales < found[:, 1:])).sum(0)

"""Betti numbers: pieces against union-find, loops of a circle."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from kpm.analysis import topology
from kpm.analysis.topology import betti_0, betti_1, landmarks, layer_betti_0, loops, scale_of, tree_edges
from kpm.errors import UserError


def pieces(points, scale):
    """Brute force: union-find over all pairs."""
    root = list(range(len(points)))

    def find(i):
        while root[i] != i:
            i = root[i]
        return i

    for i, j in itertools.combinations(range(len(points)), 2):
        if math.dist(points[i], points[j]) <= scale:
            root[find(i)] = find(j)
    return len({find(i) for i in range(len(points))})


@pytest.mark.parametrize("seed", range(4))
def test_pieces_are_those_of_union_find(seed):
    points = np.random.default_rng(seed).normal(size=(40, 3))
    points[5] = points[6]  # two that are equal are one piece at any scale
    scales = np.linspace(0, 2.5, 26)
    assert betti_0(tree_edges(points), scales).tolist() == [pieces(points, s) for s in scales]


def test_both_ends_of_the_curve():
    points = np.random.default_rng(0).normal(size=(30, 2))
    assert betti_0(tree_edges(points), [0, np.inf]).tolist() == [30, 1]
    assert tree_edges(points[:1]).size == 0 and betti_0([], [0.0]).tolist() == [1]


def test_layers_one_by_one():
    states = np.random.default_rng(0).normal(size=(20, 3, 2)) * np.array([1, 2, 4])[:, None]
    found = layer_betti_0(states, [0.5, 1.0])
    assert found.shape == (3, 2)
    assert found[2].tolist() == betti_0(tree_edges(states[:, 2]), [0.5, 1.0]).tolist()
    with pytest.raises(ValueError, match=r"states: expected \(n, layers, d\), got shape \(20, 2\)"):
        layer_betti_0(states[:, 0], [1.0])


@pytest.mark.parametrize("wanted", [2, 5, 19])
def test_scale_of_so_many_pieces(wanted):
    edges = tree_edges(np.random.default_rng(1).normal(size=(20, 2)))
    assert betti_0(edges, [scale_of(edges, wanted)]).tolist() == [wanted]
    with pytest.raises(ValueError, match="pieces: expected 2 to 19, got 20"):
        scale_of(edges, 20)


def test_landmarks_are_far_apart():
    points = np.array([[0.0, 0], [0.1, 0], [10, 0], [5, 0], [9.9, 0]])
    assert landmarks(points, 3).tolist() == [0, 2, 3]
    with pytest.raises(ValueError, match="count: expected 1 to 5, got 6"):
        landmarks(points, 6)


def test_bad_points_are_named():
    with pytest.raises(ValueError, match=r"points: expected finite numbers \(n, d\), got shape \(3,\)"):
        tree_edges(np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        tree_edges(np.array([[0.0, np.nan]]))


def test_loops_at_scales():
    found = np.array([[0.5, 2.0], [1.0, np.inf]])
    assert betti_1(found, [0.4, 0.5, 1.0, 1.9, 2.0]).tolist() == [0, 1, 2, 2, 1]


def test_without_a_library_loops_say_what_to_install(monkeypatch):
    monkeypatch.setattr(topology, "has_loops", lambda: False)
    with pytest.raises(UserError, match="needs gudhi: pip install gudhi"):
        loops(np.zeros((4, 2)))


@pytest.mark.skipif(not topology.has_loops(), reason="gudhi is not installed")
def test_a_circle_has_one_loop():
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    found = loops(np.stack([np.cos(angle), np.sin(angle)], 1))
    assert betti_1(found, [0.1, 0.5, 1.0]).tolist() == [0, 1, 1]

"""Tables of accuracies to search through in place of a model."""

from __future__ import annotations

import itertools

import numpy as np

from kpm.analysis.factorial_swaps import FactorialSwaps

NAMES = ("skin", "hair", "top")
JOINT = {(): (0.2, 0.2), (0,): (0.2, 0.3), (1,): (0.2, 0.3), (0, 1): (1.0, 0.4)}


class Table:
    """Accuracies by a function of the kept set; notes what it was asked for."""

    def __init__(self, accuracy):
        self.accuracy, self.asked = accuracy, []

    def __call__(self, keeps):
        assert not any(k.dynamic for k in keeps)
        self.asked += [k.static for k in keeps]
        return np.stack([self.accuracy(k.static) for k in keeps])


def swaps_of(accuracy, components, factors=2, dynamic=("way",), classes=5):
    table = Table(accuracy)
    explored = NAMES[:factors]
    return FactorialSwaps(table, dict.fromkeys((*explored, *dynamic), classes), explored, components), table


def random_swaps(seed, components, factors, repeats=2):
    """Any accuracy for any set, the dynamic factor's among them."""

    def accuracy(chosen):
        draw = np.random.default_rng((seed, *(c + 1 for c in chosen)))
        return draw.integers(0, 65, (factors + 1, repeats)) / 64

    return swaps_of(accuracy, components, factors)


def joint(chosen):
    """Components 0 and 1 carry the skin only together; each alone helps the hair a little. No other does anything."""
    skin, hair = JOINT[tuple(c for c in chosen if c < 2)]
    return np.array([[skin] * 2, [hair] * 2, [0.2] * 2])


def by_hand(accuracy, partition, explored, factors, chance):
    """D_mf by a loop over rows and columns."""
    off = 0.0
    for f in explored:
        row = accuracy(tuple(sorted(partition[f]))).mean(-1)
        off += sum(abs(row[i] - (1 if g == f else chance)) for i, g in enumerate(factors))
    return 1 - off / (len(explored) * len(factors))


def all_partitions(components, factors):
    for owners in itertools.product(range(-1, factors), repeat=components):
        yield [tuple(c for c, o in enumerate(owners) if o == f) for f in range(factors)]

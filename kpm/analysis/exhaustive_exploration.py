"""All subsets of a few components measured: what the greedy exploration is held against.

`n` components have ``2 ** n`` subsets. In every table here row number ``r`` keeps component ``i`` of those looked at
where bit ``i`` of ``r`` is 1, so row 0 keeps nothing and row ``2 ** i`` the i-th alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from kpm.analysis.factorial_swaps import Components, FactorialSwaps
from kpm.analysis.greedy_exploration import assign
from kpm.errors import UserError

_MOST = 12


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A partition and what it is worth on the films it was looked at with.

    Attributes
    ----------
    partition : dict of str to tuple of int
    accuracy : float
        Sum over the factors of each one's accuracy with its own set kept: what the thesis's claim is about.
    d_mf : float
        [SSM-SKD] eq. 7, which also counts what the sets carry of other factors.
    """

    partition: dict[str, Components]
    accuracy: float
    d_mf: float


@dataclasses.dataclass(frozen=True)
class Exhaustive:
    """All subsets of some components, the best partition into disjoint ones and the greedy one.

    Attributes
    ----------
    components : tuple of int
        Those looked at; all others are swapped throughout.
    accuracy : ndarray
        ``(2 ** n, factors, repeats)``, explored factors only.
    best, best_d_mf, greedy : Assignment
        With the largest sum of accuracies, with the largest `D_mf`, and by single components.
    gap, gap_se : float
        Sum of accuracies of `best` minus that of `greedy`, and its standard error over repeats. The best is found on
        the same measurements, so noise makes the gap larger, never smaller.
    additivity_max, additivity_rms : float
        How far a set's gain is from the sum of its components' gains, over all sets of two or more and all factors.
    evaluations, greedy_evaluations : int
        Sets that had to be measured, and those the greedy partition needs.
    """

    components: Components
    accuracy: np.ndarray
    best: Assignment
    best_d_mf: Assignment
    greedy: Assignment
    gap: float
    gap_se: float
    additivity_max: float
    additivity_rms: float
    evaluations: int
    greedy_evaluations: int


@dataclasses.dataclass(frozen=True)
class PowerSet:
    """The set that fits each factor best, by itself.

    Attributes
    ----------
    components : tuple of int
    sets : dict of str to tuple of int
        They may share components.
    scores : dict of str to float
        1 if keeping the set keeps its factor and nothing else, see `FactorialSwaps.scores`.
    d_mf : float
        Their mean. No partition of these components has more.
    evaluations, greedy_evaluations : int
        As in `Exhaustive`.
    """

    components: Components
    sets: dict[str, Components]
    scores: dict[str, float]
    d_mf: float
    evaluations: int
    greedy_evaluations: int


def exhaustive(swaps: FactorialSwaps, components: Sequence[int]) -> Exhaustive:
    """The best and the greedy partition of some components, from the accuracies of all their subsets.

    Parameters
    ----------
    swaps : FactorialSwaps
    components : sequence of int
        At most 12; 8 take 256 measurements.

    Raises
    ------
    UserError
        For more components, for one that does not exist or comes twice.
    """
    sets = subsets(_checked(components, swaps.components))
    own = swaps.accuracy(sets)[:, [swaps.factors.index(f) for f in swaps.explored]]
    pooled, scores = own.mean(-1), swaps.scores(sets)
    columns = np.arange(len(swaps.explored))
    singles = 1 << np.arange(len(components))
    found = assign(swaps.explored, own[0], own[singles]).partition
    greedy = np.array([singles[list(found[f])].sum() for f in swaps.explored], dtype=int)
    best = best_partition(pooled)
    gap = (own[best, columns] - own[greedy, columns]).sum(0)

    def worth(rows: np.ndarray) -> Assignment:
        partition = {f: sets[r] for f, r in zip(swaps.explored, rows)}
        return Assignment(partition, float(pooled[rows, columns].sum()), float(scores[rows, columns].mean()))

    error = additivity_error(pooled)[np.bitwise_count(np.arange(len(sets))) > 1]
    return Exhaustive(
        components=tuple(components),
        accuracy=own,
        best=worth(best),
        best_d_mf=worth(best_partition(scores)),
        greedy=worth(greedy),
        gap=float(gap.mean()),
        gap_se=float(gap.std(ddof=1) / len(gap) ** 0.5),
        additivity_max=float(np.abs(error).max(initial=0.0)),
        additivity_rms=float(np.sqrt(np.square(error).mean())) if len(error) else 0.0,
        evaluations=len(sets),
        greedy_evaluations=len(components) + 1,
    )


def power_set(swaps: FactorialSwaps, components: Sequence[int] | None = None) -> PowerSet:
    """For each factor, the subset of components that keeps it and nothing else, by brute force as for SKD.

    [SSM-SKD] sec. 4.1.4 describes this search and its cost; one measurement of a set serves all factors. Of sets that
    do equally well the one with the lowest number is taken.

    Parameters
    ----------
    swaps : FactorialSwaps
    components : sequence of int, optional
        At most 12; all by default. 12 take 4096 measurements.

    Raises
    ------
    UserError
        As `exhaustive` does.
    """
    components = _checked(range(swaps.components) if components is None else components, swaps.components)
    sets = subsets(components)
    scores = swaps.scores(sets)
    best = scores.argmax(0)
    return PowerSet(
        components=components,
        sets={f: sets[r] for f, r in zip(swaps.explored, best)},
        scores=dict(zip(swaps.explored, scores.max(0).tolist())),
        d_mf=float(scores.max(0).mean()),
        evaluations=len(sets),
        greedy_evaluations=len(components) + 1,
    )


def subsets(components: Sequence[int]) -> list[Components]:
    """All subsets of some components, in the order of the tables' rows."""
    return [tuple(c for i, c in enumerate(components) if r >> i & 1) for r in range(1 << len(components))]


def best_partition(table: np.ndarray) -> np.ndarray:
    """Disjoint subsets, one for each factor, whose values have the largest sum.

    A dynamic programme over the subsets left for the factors so far; ``factors * 3 ** n`` sums, not
    ``(factors + 1) ** n``.

    Parameters
    ----------
    table : ndarray
        ``(2 ** n, factors)``, the value of each subset for each factor.

    Returns
    -------
    ndarray
        Row of each factor's subset, ``(factors,)``. Of equally good ones the lower number, the last factor first.

    Raises
    ------
    ValueError
        If the table's length is no power of 2.
    """
    size, factors = table.shape
    if size & (size - 1) or not size:
        raise ValueError(f"table: expected 2 ** n rows, got shape {table.shape}")
    rows = np.arange(size)
    inside = [rows[rows & ~r == 0] for r in rows]  # the subsets of each subset
    best, choice = np.zeros(size), np.empty((factors, size), dtype=int)
    for f in range(factors):
        sums = [table[s, f] + best[r ^ s] for r, s in zip(rows, inside)]
        choice[f] = [s[v.argmax()] for s, v in zip(inside, sums)]
        best = np.array([v.max() for v in sums])
    taken, left = np.empty(factors, dtype=int), size - 1
    for f in reversed(range(factors)):
        taken[f] = choice[f, left]
        left ^= taken[f]
    return taken


def additivity_error(table: np.ndarray) -> np.ndarray:
    """Each subset's gain over the empty one less the sum of its components' gains; shape of `table`, 0 for singles."""
    gain = table - table[0]
    size = len(table)
    members = np.arange(size)[:, None] >> np.arange(size.bit_length() - 1) & 1
    return gain - members @ gain[1 << np.arange(members.shape[1])]


def _checked(components: Sequence[int], available: int) -> Components:
    components = tuple(components)
    if not 1 <= len(components) <= _MOST:
        raise UserError(f"components: from 1 to {_MOST} can be searched through, got {len(components)}; choose some")
    wrong = [c for c in components if not 0 <= c < available]
    if wrong or len(set(components)) < len(components):
        raise UserError(f"components: expected different ones from 0 to {available - 1}, got {components}")
    return components

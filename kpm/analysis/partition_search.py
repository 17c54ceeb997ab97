"""Searches for a partition of the components that measure whole sets: hill climbing and a beam.

The greedy exploration looks at single components and at what each adds to its own factor. Here sets are measured
together, and what they carry of other factors counts: the aim is `D_mf` itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from kpm.analysis.factorial_swaps import Components, FactorialSwaps, greedy
from kpm.errors import UserError


@dataclasses.dataclass(frozen=True)
class Step:
    """A component given to a factor or to none, and what came of it.

    Attributes
    ----------
    component : int
    source, target : str, optional
        The factor it leaves and the one it goes to; none is `None`.
    d_mf : float
        Of the whole partition after the step.
    evaluations : int
        Sets measured until then.
    """

    component: int
    source: str | None
    target: str | None
    d_mf: float
    evaluations: int


@dataclasses.dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes
    ----------
    partition : dict of str to tuple of int
        Components of each factor.
    rest : tuple of int
        Components of none.
    d_mf : float
        On the films searched with, whose noise it fits: measure it anew on others.
    start_d_mf : float
        Of the partition it began with: the given one, the greedy one or, for a beam, the empty one.
    evaluations : int
        Sets measured for it; those known before cost nothing.
    trace : tuple of Step
        The steps from the start to `partition`, in order.
    """

    partition: dict[str, Components]
    rest: Components
    d_mf: float
    start_d_mf: float
    evaluations: int
    trace: tuple[Step, ...]


def refine(swaps: FactorialSwaps, partition: Mapping[str, Iterable[int]] | None = None, least: float = 0.0) -> Search:
    """Improve a partition one component at a time until no move of a single component raises `D_mf`.

    Each component in turn goes to the factor, or to none, where it does best with the others as they are; every such
    move is measured. A move changes two sets, so only those are new. The result is never worse than the start.

    Parameters
    ----------
    swaps : FactorialSwaps
    partition : dict of str to tuple of int, optional
        Where to start; the greedy partition by default.
    least : float
        Smallest gain of `D_mf` worth a move. Gains below the noise of the draws fit that noise.

    Raises
    ------
    ValueError
        If `partition` is none of these components and factors, or `least` is negative.
    """
    if not least >= 0:
        raise ValueError(f"least: expected a number from 0, got {least}")
    before, names = swaps.evaluations, (*swaps.explored, None)
    owners = swaps.owners(greedy(swaps).partition if partition is None else partition)
    value = start = float(swaps.d_mf(owners[None])[0])
    trace, settled, component = [], 0, 0
    while settled < swaps.components:
        moved = _placed(owners, component, len(swaps.explored))
        values = swaps.d_mf(moved)
        best = int(values.argmax())
        settled += 1
        if values[best] > value + least:
            step = (component, names[owners[component]], names[moved[best][component]])
            owners, value, settled = moved[best], float(values[best]), 1  # in its best place by now
            trace.append(Step(*step, value, swaps.evaluations - before))
        component = (component + 1) % swaps.components
    return _search(swaps, owners, value, start, before, trace)


def beam(swaps: FactorialSwaps, width: int = 4) -> Search:
    """Build partitions one component after the other, keeping the `width` best at each step.

    Components come in the order of what the best factor makes of them alone. Each is added to each factor's set or left
    out, and the new sets are measured: at most ``width + 1`` times factors of them per component. The greedy
    partition's beginning is kept beside the best, so the result is never worse than it.

    Parameters
    ----------
    swaps : FactorialSwaps
    width : int
        From 1. A width of ``(factors + 1) ** components`` is an exhaustive search.

    Raises
    ------
    UserError
        If `width` is less than 1.
    """
    if width < 1:
        raise UserError(f"width must be at least 1, got {width}")
    before, count, names = swaps.evaluations, len(swaps.explored), (*swaps.explored, None)
    known = swaps.owners(greedy(swaps).partition)
    alone = swaps.scores([(), *((c,) for c in range(swaps.components))])
    order = np.argsort(-(alone[1:] - alone[0]).max(1), kind="stable")
    states, used = np.full((1, swaps.components), -1), []
    start = float(swaps.d_mf(states)[0])
    for i, component in enumerate(order):
        wider = np.concatenate([states, *(_placed(s, component, count) for s in states)])
        best = wider[np.argsort(-swaps.d_mf(wider), kind="stable")[:width]]
        states = np.unique(np.concatenate([best, _beginnings(known, order)[i : i + 1]]), axis=0)
        used.append(swaps.evaluations - before)
    owners = states[swaps.d_mf(states).argmax()]
    values = swaps.d_mf(_beginnings(owners, order)).tolist()
    steps = zip(order.tolist(), values, used)
    trace = [Step(c, None, names[owners[c]], value, sets) for c, value, sets in steps]
    return _search(swaps, owners, values[-1], start, before, trace)


def _beginnings(owners: np.ndarray, order: np.ndarray) -> np.ndarray:
    """A partition ``(n, components)`` with its first component placed, its first two, ... in this order."""
    placed = order.argsort() <= np.arange(len(order))[:, None]
    return np.where(placed, owners, -1)


def _placed(owners: np.ndarray, component: int, factors: int) -> np.ndarray:
    """The partitions ``(factors, components)`` that differ from one in the place of a component."""
    places = np.setdiff1d(np.arange(-1, factors), owners[component])
    moved = np.repeat(owners[None], factors, 0)
    moved[:, component] = places
    return moved


def _search(
    swaps: FactorialSwaps, owners: np.ndarray, value: float, start: float, before: int, trace: list[Step]
) -> Search:
    return Search(
        partition=dict(zip(swaps.explored, swaps.sets(owners))),
        rest=tuple(np.flatnonzero(owners == -1).tolist()),
        d_mf=value,
        start_d_mf=start,
        evaluations=swaps.evaluations - before,
        trace=tuple(trace),
    )

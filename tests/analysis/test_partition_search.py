"""Hill climbing and beams against every single move and every partition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpm.analysis.exhaustive_exploration import exhaustive
from kpm.analysis.factorial_swaps import greedy
from kpm.analysis.partition_search import beam, refine
from kpm.errors import UserError
from tests.analysis.tables import NAMES, by_hand, joint, random_swaps, swaps_of


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 3), st.sampled_from([0.0, 0.02]))
def test_refining_climbs_until_no_single_move_helps(seed, n, factors, least):
    swaps, table = random_swaps(seed, n, factors)
    explored = NAMES[:factors]

    def value(p):
        return by_hand(table.accuracy, p, explored, swaps.factors, 0.2)

    found = refine(swaps, least=least)
    assert len(set(table.asked)) == len(table.asked) == found.evaluations == swaps.evaluations
    assert found.start_d_mf == pytest.approx(value(greedy(swaps).partition))
    assert found.d_mf == pytest.approx(value(found.partition))
    heights = [found.start_d_mf, *(s.d_mf for s in found.trace)]
    assert all(b > a + least for a, b in itertools.pairwise(heights)) and heights[-1] == found.d_mf
    owner = {c: f for f, p in found.partition.items() for c in p}
    assert found.rest == tuple(c for c in range(n) if c not in owner)
    for c, f in itertools.product(range(n), (*explored, None)):
        moved = {g: tuple(x for x in p if x != c) for g, p in found.partition.items()}
        if f is not None:
            moved[f] = (*moved[f], c)
        assert value(moved) <= found.d_mf + least + 1e-12
    again = refine(swaps, found.partition, least)
    assert again.trace == () and again.partition == found.partition and again.evaluations == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 3))
def test_a_beam_is_no_worse_than_greedy_and_a_wide_one_is_exhaustive(seed, n, factors):
    swaps, table = random_swaps(seed, n, factors)
    known = swaps.owners(greedy(swaps).partition)
    for width in (1, 2):
        found = beam(random_swaps(seed, n, factors)[0], width)
        assert found.d_mf >= swaps.d_mf(known[None])[0]
        assert found.evaluations <= n + 1 + (width + 1) * factors * n
        assert found.d_mf == pytest.approx(
            by_hand(table.accuracy, found.partition, NAMES[:factors], swaps.factors, 0.2)
        )
    wide = beam(swaps, (factors + 1) ** n)
    assert wide.d_mf == pytest.approx(exhaustive(swaps, range(n)).best_d_mf.d_mf)
    assert sorted(s.component for s in wide.trace) == list(range(n))
    so_far = dict.fromkeys(NAMES[:factors], ())
    for step in wide.trace:  # each step's score is that of what is placed by then
        if step.target is not None:
            so_far[step.target] = tuple(sorted((*so_far[step.target], step.component)))
        assert step.d_mf == pytest.approx(by_hand(table.accuracy, so_far, NAMES[:factors], swaps.factors, 0.2))
    assert so_far == wide.partition and wide.trace[-1].d_mf == wide.d_mf


def test_what_only_two_components_carry_a_beam_finds_and_single_moves_do_not():
    alone = refine(swaps_of(joint, 3)[0])
    assert alone.partition == {"skin": (), "hair": (1,)} and alone.rest == (0, 2)  # one of them leaks less than both
    assert alone.d_mf == pytest.approx(1 - (0.8 + 0.7) / 6)
    found = beam(swaps_of(joint, 3)[0], 4)
    assert found.partition == {"skin": (0, 1), "hair": ()} and found.rest == (2,)
    assert found.d_mf == pytest.approx(1 - (0.2 + 0.8) / 6)


def test_a_narrow_beam_keeps_to_the_greedy_partition_where_that_is_the_best():
    """Each component alone brings a little of the skin and more of the way; together they bring the skin only."""

    def accuracy(chosen):
        skin, way = [(0.2, 0.2), (0.3, 0.5), (1.0, 0.2)][len(chosen)]
        return np.array([[skin] * 2, [0.2] * 2, [way] * 2])

    swaps, _ = swaps_of(accuracy, 2)
    found = beam(swaps, 1)
    assert found.partition == greedy(swaps).partition == {"skin": (0, 1), "hair": ()}
    assert found.start_d_mf == pytest.approx(1 - (0.8 + 0.8) / 6)
    assert found.trace[0].d_mf == pytest.approx(1 - (0.7 + 0.3 + 0.8) / 6)  # less than without the component
    assert found.d_mf == pytest.approx(1 - 0.8 / 6)


def test_a_component_that_leaks_more_than_it_brings_is_given_up():
    """Greedy takes any gain: component 1 alone brings 0.5 of the skin, but component 0 has 0.4 of that already."""

    def accuracy(chosen):
        skin = min(1.0, 0.2 + 0.7 * (0 in chosen) + 0.5 * (1 in chosen))
        return np.array([[skin] * 2, [0.2 + 0.4 * (1 in chosen)] * 2, [0.2] * 2])

    swaps, _ = swaps_of(accuracy, 2)
    assert greedy(swaps).partition == {"skin": (0, 1), "hair": ()}
    found = refine(swaps)
    (step,) = found.trace
    assert (step.component, step.source, step.target) == (1, "skin", None)
    assert found.partition == {"skin": (0,), "hair": ()} and found.rest == (1,)
    assert found.start_d_mf == pytest.approx(1 - (0.4 + 0.8) / 6)  # skin's set leaks hair, hair's has none
    assert found.d_mf == step.d_mf == pytest.approx(1 - (0.1 + 0.8) / 6)


def test_what_cannot_be_searched_is_refused_in_one_line():
    swaps, _ = random_swaps(0, 14, 2)
    with pytest.raises(UserError, match="width must be at least 1, got 0"):
        beam(swaps, 0)
    with pytest.raises(ValueError, match="least: expected a number from 0, got nan"):
        refine(swaps, least=float("nan"))
    with pytest.raises(ValueError, match="partition: 'hat' is no explored factor, only skin, hair"):
        refine(swaps, {"hat": (1,)})
    with pytest.raises(ValueError, match=r"partition\['hair'\]: component 2 is given twice"):
        refine(swaps, {"skin": (2,), "hair": (1, 2)})
    with pytest.raises(ValueError, match=r"partition\['skin'\]: component 14 of 14"):
        refine(swaps, {"skin": (14,)})
    assert swaps.evaluations == 0

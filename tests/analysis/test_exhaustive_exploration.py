"""Exhaustive searches against plain enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpm.analysis.exhaustive_exploration import additivity_error, best_partition, exhaustive, power_set, subsets
from kpm.analysis.factorial_swaps import greedy
from kpm.errors import UserError
from tests.analysis.tables import NAMES, all_partitions, by_hand, joint, random_swaps, swaps_of


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(1, 3))
def test_the_best_partition_is_that_of_a_plain_search(seed, n, factors):
    table = np.random.default_rng(seed).integers(-8, 9, (2**n, factors)) / 8  # many ties
    rows = best_partition(table)
    number = {s: i for i, s in enumerate(subsets(range(n)))}
    expected = max(sum(table[number[s], f] for f, s in enumerate(p)) for p in all_partitions(n, factors))
    assert table[rows, np.arange(factors)].sum() == expected
    assert all(a & b == 0 for a, b in itertools.combinations(rows.tolist(), 2))


def test_a_table_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"table: expected 2 \*\* n rows, got shape \(6, 2\)"):
        best_partition(np.zeros((6, 2)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 3))
def test_where_gains_add_up_greedy_is_the_best_sum_of_accuracies(seed, n, factors):
    gain = np.random.default_rng(seed).integers(-16, 17, (n + 2, factors + 1, 1)) / 256
    swaps, _ = swaps_of(lambda s: 0.5 + gain[list(s)].sum(0).repeat(2, -1), n + 2, factors)
    found = exhaustive(swaps, range(1, n + 1))
    assert found.gap == 0 and found.gap_se == 0 and found.greedy.accuracy == found.best.accuracy
    assert found.additivity_max == found.additivity_rms == 0
    assert found.evaluations == swaps.evaluations == 2**n and found.greedy_evaluations == n + 1
    singles = greedy(swaps).partition  # over all components; the same owners for those looked at
    assert found.greedy.partition == {f: tuple(c for c in p if 1 <= c <= n) for f, p in singles.items()}


def test_where_they_do_not_greedy_misses_it_and_the_gap_says_by_how_much():
    found = exhaustive(swaps_of(joint, 3)[0], (1, 0))
    assert found.greedy.partition == {"skin": (), "hair": (1, 0)}
    assert found.best.partition == found.best_d_mf.partition == {"skin": (1, 0), "hair": ()}
    assert found.greedy.accuracy == pytest.approx(0.6) and found.best.accuracy == pytest.approx(1.2)
    assert found.gap == pytest.approx(0.6) and found.gap_se == pytest.approx(0)
    # Distances from the targets: skin's set lacks the skin; hair's lacks much of the hair and has all of the skin.
    assert found.greedy.d_mf == pytest.approx(1 - (0.8 + 0.6 + 0.8) / 6)
    assert found.best.d_mf == pytest.approx(1 - (0.2 + 0.8) / 6)
    # Only the pair has more than one component: 0.8 of skin comes from nowhere, hair's 0.2 is the sum of its parts.
    assert found.additivity_max == pytest.approx(0.8) and found.additivity_rms == pytest.approx(0.8 / 2**0.5)


def test_the_error_of_adding_up_is_what_a_loop_over_members_gives():
    table = np.random.default_rng(3).random((16, 2))
    error = additivity_error(table)
    for r, chosen in enumerate(subsets(range(4))):
        expected = table[r] - table[0] - sum(table[2**i] - table[0] for i in chosen)
        np.testing.assert_allclose(error[r], expected, atol=1e-12)


def test_the_gap_has_the_standard_error_of_its_repeats():
    draw = np.random.default_rng(11).random((4, 3, 5))
    swaps, _ = swaps_of(lambda s: draw[sum(1 << c for c in s)], 2)
    found = exhaustive(swaps, (0, 1))
    number = {s: i for i, s in enumerate(subsets((0, 1)))}
    best, ours = (
        sum(draw[number[p.partition[f]], i] for i, f in enumerate(NAMES[:2])) for p in (found.best, found.greedy)
    )
    assert found.gap == pytest.approx((best - ours).mean()) and found.gap > 0.1
    assert found.gap_se == pytest.approx(np.std(best - ours, ddof=1) / 5**0.5)
    assert found.accuracy.shape == (4, 2, 5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 3))
def test_the_power_set_bounds_every_partition(seed, n, factors):
    swaps, table = random_swaps(seed, n, factors)
    found, explored = power_set(swaps), NAMES[:factors]
    assert found.evaluations == len(table.asked) == 2**n and found.greedy_evaluations == n + 1
    for f in explored:

        def score(chosen, f=f):
            return by_hand(table.accuracy, {f: chosen}, (f,), swaps.factors, 0.2)

        assert found.scores[f] == pytest.approx(max(map(score, subsets(range(n)))))
        assert found.scores[f] == pytest.approx(score(found.sets[f]))
    best = exhaustive(swaps, range(n)).best_d_mf
    partitions = [dict(zip(explored, p)) for p in all_partitions(n, factors)]
    values = [by_hand(table.accuracy, p, explored, swaps.factors, 0.2) for p in partitions]
    assert best.d_mf == pytest.approx(max(values))
    assert best.d_mf == pytest.approx(by_hand(table.accuracy, best.partition, explored, swaps.factors, 0.2))
    assert found.d_mf >= best.d_mf - 1e-12
    assert len(table.asked) == 2**n  # all of it from memory


def test_what_cannot_be_searched_through_is_refused_in_one_line():
    swaps, _ = random_swaps(0, 14, 2)
    with pytest.raises(UserError, match="components: from 1 to 12 can be searched through, got 14; choose some"):
        power_set(swaps)
    for wrong in ((0, 14), (3, 3)):
        with pytest.raises(UserError, match="components: expected different ones from 0 to 13, got"):
            exhaustive(swaps, wrong)
    assert swaps.evaluations == 0

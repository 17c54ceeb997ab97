"""The greedy partition against exhaustive search, and what it needs to be the best."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kpm.analysis.greedy_exploration import assign, explore
from kpm.metrics.swaps import Keep, SwapConfig, measure
from kpm.models.parts import take_apart
from tests.metrics.toys import Binning, autoencoder, films

FACTORS = ("skin", "hair", "top")


def best_by_search(value, components, factors):
    """Largest sum of accuracies over all ways to give each component to one factor or to none."""
    owners = itertools.product(range(-1, factors), repeat=components)
    return max(sum(value(f, [c for c in range(components) if o[c] == f]) for f in range(factors)) for o in owners)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 3))
def test_where_gains_add_up_no_partition_is_better(seed, components, factors):
    """Dyadic gains, so that sums are exact."""
    gain = np.random.default_rng(seed).integers(-16, 17, (components, factors)) / 256
    found = assign(FACTORS[:factors], np.full((factors, 2), 0.25), 0.25 + gain[..., None].repeat(2, -1))
    np.testing.assert_array_equal(found.gain, gain)

    def value(f, chosen):
        return 0.25 + gain[list(chosen), f].sum()

    ours = sum(value(i, found.partition[f]) for i, f in enumerate(found.factors))
    assert ours == best_by_search(value, components, factors)
    taken = [c for part in (*found.partition.values(), found.rest) for c in part]
    assert sorted(taken) == list(range(components))


def test_where_two_components_carry_a_factor_only_together_greedy_can_miss_it():
    """The claim of optimality needs gains that add up: here each alone helps the wrong factor a little."""
    accuracy = {(): (0.2, 0.2), (0,): (0.2, 0.3), (1,): (0.2, 0.3), (0, 1): (1.0, 0.4)}
    single = np.array([accuracy[(c,)] for c in (0, 1)])[..., None].repeat(2, -1)
    found = assign(("skin", "hair"), np.full((2, 2), 0.2), single)

    def value(f, chosen):
        return accuracy[tuple(chosen)][f]

    greedy = sum(value(i, found.partition[f]) for i, f in enumerate(found.factors))
    assert found.partition == {"skin": (), "hair": (0, 1)}
    assert greedy == pytest.approx(0.6) and best_by_search(value, 2, 2) == pytest.approx(1.2)


def test_ties_go_to_the_first_factor_and_what_helps_nobody_is_left():
    single = np.array([[0.5, 0.5], [0.1, 0.2], [0.3, 0.4]])[..., None] + np.array([0.0, 0.02])
    found = assign(("skin", "hair"), np.array([[0.2, 0.22], [0.2, 0.22]]), single)
    assert found.partition == {"skin": (0,), "hair": (2,)} and found.rest == (1,)
    np.testing.assert_allclose(found.reference, 0.21)
    np.testing.assert_allclose(found.reference_se, 0.01)  # s = 0.02 / sqrt(2), n = 2
    np.testing.assert_allclose(found.gain_se, 0, atol=1e-12)  # the draws are shared, so their noise cancels


@pytest.mark.parametrize("dynamics", ["swapped", "kept"])
def test_exploration_is_the_measurement_of_every_component_by_itself(dynamics):
    model, judge, data = autoencoder(latent_dim=8), Binning({"colour": 3, "way": 2}), films()
    config = SwapConfig(repeats=2, batch_size=6)
    found = explore(model, judge, data, config, dynamics)
    parts = take_apart(model, data)
    for c in range(8):  # one at a time, each with draws of its own, which are the same
        keep = [Keep((), dynamics == "kept"), Keep((c,), dynamics == "kept")]
        scores = measure(model, judge, data, keep, config, parts)
        gain = (scores.accuracy[1, 0] - scores.accuracy[0, 0]).mean()
        np.testing.assert_allclose(found.gain[c], [gain], atol=1e-12)
    assert found.factors == ("colour",) and set(found.partition) == {"colour"}
    again = explore(model, judge, data, config, dynamics)
    assert again.partition == found.partition and torch.equal(torch.tensor(again.gain), torch.tensor(found.gain))

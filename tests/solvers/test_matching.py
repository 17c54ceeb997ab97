from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kpm.solvers import matching


def values(*shape, seed):
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def test_nearest_and_optimal_differ_where_one_estimate_would_serve_two():
    reference, estimate = torch.tensor([0.0, 1.0]), torch.tensor([0.4, 3.0])
    near, best = matching.nearest(reference, estimate), matching.optimal(reference, estimate)
    assert near.index.tolist() == [0, 0] and near.distance.tolist() == pytest.approx([0.4, 0.6])
    assert best.index.tolist() == [0, 1] and best.total == pytest.approx(2.4) and best.mean == pytest.approx(1.2)


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_optimal_is_the_best_of_all_assignments(seed, n, more):
    reference, estimate = values(3, n, seed=seed), values(3, n + more, seed=seed + 1)
    found = matching.optimal(reference, estimate)
    for i in range(3):
        sums = [
            sum(abs(reference[i, j] - estimate[i, p[j]]).item() for j in range(n))
            for p in permutations(range(n + more), n)
        ]
        assert found.total[i].item() == pytest.approx(min(sums))
        assert len(set(found.index[i].tolist())) == n
    assert (matching.nearest(reference, estimate).total <= found.total + 1e-12).all()


def test_a_permutation_is_found_and_batches_broadcast():
    reference = values(5, seed=0)
    order = torch.tensor([3, 1, 4, 0, 2])
    estimate = torch.stack([reference[order], reference])
    found = matching.optimal(reference, estimate)
    assert found.distance.max() == 0
    assert found.index[0].tolist() == order.argsort().tolist() and found.index[1].tolist() == list(range(5))


def test_distances_are_differentiable():
    reference, estimate = values(2, 3, seed=0), values(2, 4, seed=1).requires_grad_()
    for match in (matching.nearest, matching.optimal):
        assert torch.autograd.gradcheck(lambda e, m=match: m(reference, e).distance, estimate)


def test_bad_input():
    with pytest.raises(ValueError, match="estimate: 2 values cannot be matched one to one with 3"):
        matching.optimal(values(3, seed=0), values(2, seed=1))
    with pytest.raises(ValueError, match=r"estimate: expected .* got shape \(0,\)"):
        matching.nearest(values(3, seed=0), values(0, seed=1))
    with pytest.raises(ValueError, match=r"reference\[0\] is not finite but NaN"):
        matching.nearest(torch.tensor([torch.nan]), values(1, seed=1))
    with pytest.raises(ValueError, match="estimate: expected a torch tensor, got ndarray"):
        matching.optimal(values(3, seed=0), values(3, seed=1).numpy())
    with pytest.raises(ValueError, match="reference: expected a torch tensor, got list"):
        matching.nearest([0.0, 1.0], values(3, seed=0))
    with pytest.raises(ValueError, match=r"batch axes do not fit, shapes \(2, 3\) and \(4, 3\)"):
        matching.optimal(values(2, 3, seed=0), values(4, 3, seed=1))

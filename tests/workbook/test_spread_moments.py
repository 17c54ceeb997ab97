"""Moments of parts that are read apart, against one process that reads everything. On a cluster: test_fan_out.py."""

import numpy as np
import pytest
import torch

from kpm.analysis.kann import KANN
from kpm.solvers.streaming import Moments
from kpm.workbook.spread_moments import spread_moments
from tests.workbook.spread_tasks import states


def everything(method, parts):
    moments = Moments(method)
    for part in parts:
        for x, lengths in states(part):
            moments.partial_fit(x, lengths=lengths)
    return moments


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_parts_add_up_to_the_whole(method):
    whole, parts = everything(method, range(5)), spread_moments(states, range(5), method)
    assert (parts.n_pairs, parts.n_states) == (whole.n_pairs, whole.n_states)
    torch.testing.assert_close(parts.cross, whole.cross, rtol=1e-10, atol=1e-10)
    found, expected = KANN().fit_moments(parts), KANN().fit_moments(whole)
    assert np.abs(found.eigenvalues_ - expected.eigenvalues_).max() < 1e-10


def test_no_part_and_parts_of_other_sizes():
    assert spread_moments(states, []).n_pairs == 0
    with pytest.raises(ValueError, match="dimensions"):
        spread_moments(lambda dim: [(torch.randn(2, 3, dim), None)], [4, 5])

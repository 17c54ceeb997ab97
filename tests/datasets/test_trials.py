"""Seeds, noise and delay windows of the trials."""

import numpy as np
import pytest
import torch

from kpm.datasets import trials


def test_seeds_are_the_published_ones_and_levels_share_none():
    assert list(trials.published_seeds(42, 0.05, 2)) == [42 + 500 + 1, 42 + 500 + 2]
    levels = [set(trials.published_seeds(42, k / 100, 50)) for k in range(1, 21)]
    assert len(set.union(*levels)) == 20 * 50


def test_a_trial_does_not_depend_on_the_others():
    few, many = trials.normal([3, 4], 50, 2), trials.normal([1, 4, 3, 9], 50, 2)
    assert torch.equal(few[0], many[2]) and torch.equal(few[1], many[1])
    assert many.shape == (4, 50, 2) and many.dtype == torch.float64
    assert len({row[0, 0].item() for row in many}) == 4


def test_windows_are_slices():
    y = torch.randn(3, 12, 2, generator=torch.Generator().manual_seed(0))
    found = trials.windows(y, 5)
    assert found.shape == (3, 8, 10)
    for k in range(8):
        np.testing.assert_array_equal(found[:, k].numpy(), y[:, k : k + 5].reshape(3, 10).double().numpy())
    assert torch.equal(trials.windows(y, 12)[:, 0], y.flatten(1).double())


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="length: expected a whole number from 1 to 12, got 13"):
        trials.windows(torch.zeros(2, 12, 1), 13)
    with pytest.raises(ValueError, match=r"y: expected real \(\*batch, time, dim\)"):
        trials.windows(torch.zeros(12), 3)
    with pytest.raises(ValueError, match="trials: expected a whole number"):
        trials.published_seeds(42, 0.1, 0)

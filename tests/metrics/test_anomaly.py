"""Thresholds and shares against counting by hand, on a model whose errors are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kpm.datasets.signals import Signals
from kpm.metrics import anomaly


class Zero(nn.Module):
    """Rebuilds nothing, so the error of a series is the sum of its absolute values."""

    def forward(self, x):
        return torch.zeros_like(x)


def signals(sizes, labels, split="test") -> Signals:
    values = torch.tensor(sizes, dtype=torch.float32)[:, None, None].expand(-1, 4, 1) / 4
    return Signals(values.contiguous(), torch.tensor(labels), "toy", split=split)


def test_errors_are_sums_over_time():
    x = torch.randn(300, 7, 2)
    np.testing.assert_allclose(anomaly.errors(Zero(), x, size=64), x.abs().numpy().sum((1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: anomaly.errors(Zero(), x[..., 0]), r"values: expected floats \(n, t, channels\), got .* \(3, 4\)"),
        (lambda x: anomaly.errors(Zero(), x.int()), r"values: .*, got torch.int32 of shape \(3, 4, 2\)"),
        (lambda x: anomaly.errors(Zero(), x.numpy()), "values: expected floats .*, got ndarray"),
        (lambda x: anomaly.errors(Zero(), x / 0), r"values\[0, 0, 0\] is not finite but inf \(shape \(3, 4, 2\)\)"),
        (lambda x: anomaly.errors(Zero(), x, size=0), "size: expected a whole number from 1"),
        (lambda x: anomaly.best_threshold(x[0, 0], x[0, 0] * torch.nan), r"anomalous\[0\] is not finite but NaN"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.ones(3, 4, 2))


def test_the_published_threshold_counts_normal_series_below_it():
    found = anomaly.detection(Zero(), signals([10, 25, 27, 50, 20], [0, 0, 0, 1, 1]))
    assert found.normal_share == pytest.approx(2 / 3) and found.accuracy == pytest.approx(3 / 5)
    assert found.auc == pytest.approx((3 + 1) / 6)  # pairs (normal, anomalous) in the right order
    alone = anomaly.detection(Zero(), signals([10, 30], [0, 0]))
    assert (alone.normal_share, alone.accuracy, alone.auc) == (0.5, None, None)
    with pytest.raises(ValueError, match="no normal series"):
        anomaly.detection(Zero(), signals([10, 30], [1, 1]))


def test_the_best_threshold_is_no_worse_than_any_other():
    rng = np.random.default_rng(0)
    for _ in range(20):
        normal, odd = rng.normal(5, 2, rng.integers(1, 30)), rng.normal(8, 2, rng.integers(1, 30))
        t = anomaly.best_threshold(torch.tensor(normal), torch.tensor(odd))

        def score(t, normal=normal, odd=odd):
            return (normal < t).mean() + (odd >= t).mean()

        assert score(t) >= max(score(u) for u in np.linspace(-5, 20, 2001)) - 1e-12


def test_a_validation_split_with_anomalies_chooses_the_threshold():
    validation = signals([1, 2, 8, 9], [0, 0, 1, 1], "validation")
    found = anomaly.detection(Zero(), signals([3, 4, 6, 7], [0, 0, 1, 1]), validation)
    assert found.threshold == pytest.approx(5) and found.accuracy == 1
    only_normal = signals([1, 2], [0, 0], "validation")
    assert anomaly.detection(Zero(), signals([3], [0]), only_normal).threshold == 26

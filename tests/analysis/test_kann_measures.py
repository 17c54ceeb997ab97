"""Relative error and agreement against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kpm.analysis import kann_measures
from kpm.analysis.kann import KANN
from kpm.analysis.kann_measures import Tally, agreements, relative_errors
from tests.analysis.test_kann import network_states


@pytest.mark.parametrize("steps", [1, 4])
def test_relative_error_is_a_mean_over_frames_and_adds_up(steps):
    states, lengths = network_states(n=9), np.array([40, 1, 5, 6, 4, 20, 2, 33, 40])
    kann = KANN(rank=3).fit(states)
    power = kann.basis_ @ np.linalg.matrix_power(kann.operator_, steps) @ kann.basis_.T
    plain = [
        np.sum((h[t - steps] @ power - h[t]) ** 2) / np.sum(h[t] ** 2)
        for h, length in zip(states, lengths, strict=True)
        for t in range(steps, length)
    ]
    np.testing.assert_allclose(kann.relative_error(states, steps, lengths), np.mean(plain), rtol=1e-10)
    tallies = [relative_errors(kann, states[b : b + 4], steps, lengths[b : b + 4]) for b in range(0, 9, 4)]
    assert sum(tallies).count == len(plain)
    np.testing.assert_allclose(sum(tallies).mean, np.mean(plain), rtol=1e-10)
    blocks = list(kann_measures.read(states, lengths, None, 8, entries=2 * 40 * 8))
    assert [len(x) for x, _ in blocks] == [2, 2, 2, 2, 1]
    states[0, 2] = 0  # a state of zero has no relative error
    assert np.isfinite(kann.relative_error(states, steps, lengths))
    assert relative_errors(kann, states, steps, lengths).count == len(plain) - (steps <= 2)
    with pytest.raises(ValueError, match="nothing was counted"):
        kann.relative_error(states[:1], steps, [steps])


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("how", [{}, {"steps": 3}, {"modes": [0, 1]}, {"modes": [0, 1], "pair": "abs"}])
def test_agreement_is_a_share_of_equal_decisions(classes, how):
    states, lengths = network_states(n=40, time=8), np.random.default_rng(3).integers(1, 9, 40)
    weights = np.random.default_rng(4).normal(size=(8, classes))
    kann = KANN(rank=4).fit(states, lengths)
    lag = 0 if "modes" in how else how.get("steps", 1)

    def approximate(h):
        return kann.predict(h, lag) if lag else kann.reconstruct(h, **how)

    def decide(h):
        logits = h @ weights
        return logits.argmax(-1) if classes > 1 else logits[..., 0] > 0.1

    def share(pairs):
        return np.mean([decide(approximate(early)) == decide(late) for early, late in pairs])

    last = [(h[k - 1 - lag], h[k - 1]) for h, k in zip(states, lengths, strict=True) if k > lag]
    every = [(h[t - lag], h[t]) for h, k in zip(states, lengths, strict=True) for t in range(lag, k)]
    options = {"lengths": lengths, "threshold": 0.1, **how}
    got = kann.agreement(lambda h: h @ weights, states, **options)
    assert got == pytest.approx(share(last)) and got > 0
    assert kann.agreement(lambda h: h @ weights, states, at="all", **options) == pytest.approx(share(every))
    assert kann.agreement(decide, states, **options) == pytest.approx(share(last))  # decisions instead of logits
    halves = [agreements(kann, decide, states[b : b + 20], lengths=lengths[b : b + 20], **how) for b in (0, 20)]
    assert sum(halves).mean == pytest.approx(share(last)) and sum(halves).count == len(last)
    short = [agreements(kann, decide, states, at=at, lengths=np.full(40, lag), **how) for at in ("last", "all")]
    assert [tally.count for tally in short] == [0, 0]


def test_agreement_on_whole_sequences():
    states, lengths = network_states(n=30, time=8), np.full(30, 6)
    kann = KANN(rank=3).fit(states, lengths)
    seen = []

    def mean_is_high(h):
        seen.append(h)
        return h[..., 0].mean(1) - 0.1

    got = kann.agreement(mean_is_high, states, lengths=lengths, at="sequence")
    true = np.where(np.arange(8)[:, None] < 6, states, 0)
    ours = true.copy()
    ours[:, 1:6] = kann.predict(true[:, :5])
    np.testing.assert_allclose(seen[0], true)
    np.testing.assert_allclose(seen[1], ours)
    assert got == np.mean((mean_is_high(true) > 0) == (mean_is_high(ours) > 0)) and 0.5 < got < 1


def test_a_torch_readout_gets_states_in_their_dtype():
    states = torch.from_numpy(network_states()).float()
    head = torch.nn.Linear(8, 2)
    assert KANN().fit(states).agreement(head, states) > 0.5
    seen = []
    KANN().fit(states.numpy()).agreement(lambda h: seen.append(h) or h[:, 0], states.numpy())
    assert all(isinstance(h, np.ndarray) and h.dtype == np.float32 for h in seen)
    with pytest.raises(ValueError, match=r"readout.*not finite"):
        KANN().fit(states).agreement(lambda h: h[:, 0] * torch.nan, states)
    with pytest.raises(ValueError, match=r"readout: expected 12 rows .* got \(3, 8\)"):
        KANN().fit(states).agreement(lambda h: h[:3], states)
    with pytest.raises(ValueError, match="give one of them"):
        KANN().fit(states).agreement(head, states, steps=1, modes=[0])
    with pytest.raises(ValueError, match="at: expected"):
        KANN().fit(states).agreement(head, states, at="end")


def test_a_tally_of_nothing_has_no_mean():
    with pytest.raises(ValueError, match="nothing was counted"):
        _ = Tally(0, 0).mean
    assert sum([Tally(1.0, 2), Tally(2.0, 4)]) == Tally(3.0, 6)
    with pytest.raises(TypeError):
        1 + Tally(1.0, 2)

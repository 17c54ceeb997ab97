"""What edits are compared with."""

from __future__ import annotations

import pytest
import torch

from kpm.analysis.unlearning_baselines import direction_projection, masking, probe, report


@pytest.fixture
def clouds():
    """Three classes around corners of a cube, 60 points each."""
    labels = torch.arange(3).repeat(60)
    noise = torch.randn(180, 3, generator=torch.Generator().manual_seed(0))
    return 4 * torch.nn.functional.one_hot(labels, 3).float() + 0.3 * noise, labels


def test_a_masked_class_is_never_the_answer(clouds):
    logits, labels = clouds
    found = masking(logits, labels, 1)
    assert found.before == (1, 1, 1) and found.after == (1, 0, 1)
    assert torch.isfinite(logits).all()  # what was given is as it was


def test_without_its_direction_a_class_is_where_the_others_are(clouds):
    x, labels = clouds
    seen = {}

    def read(states):
        seen["mean"] = states[labels == 1].mean(0)
        return states

    found = direction_projection(x, labels, 1, x, labels, read)
    assert found.before == (1, 1, 1) and found.forget_after < 0.5
    assert (seen["mean"] - x[labels != 1].mean(0)).norm() < 1e-4
    with pytest.raises(ValueError, match="0 of 180 rows are of class 5"):
        direction_projection(x, labels, 5, x, labels, read)


def test_probe_finds_what_is_there_and_only_that(clouds):
    x, labels = clouds
    train, test = slice(0, 120), slice(120, None)
    there = probe(x[train], labels[train], x[test], labels[test], 1, (5, 100))
    assert [p.per_class for p in there] == [5, 100] and min(p.forgotten for p in there) > 0.95
    gone = x.clone()
    gone[labels == 1] = x[labels == 0]  # class 1 looks like class 0
    blind = probe(gone[train], labels[train], gone[test], labels[test], 1, (40,))[0]
    assert blind.forgotten < 0.9 and blind.forgotten + blind.retained < 1.5


def test_report_by_class():
    logits = torch.eye(3)
    found = report("x", logits, logits.roll(1, 0), torch.arange(3), 0)
    assert found.before == (1, 1, 1) and found.after == (0, 0, 0) and found.method == "x"

"""Edits of an operator: identities, against the published dense form, and what they do to a made classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kpm.analysis import unlearning
from kpm.analysis.unlearning import apart, edit_operator, forget, rows_of, targets
from kpm.errors import UserError


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def parts():
    """Operator, clean rows, harmful rows, targets: p = 7, with fewer harmful rows than columns."""
    return draw(7, 7), draw(40, 7, seed=1), draw(4, 7, seed=2), draw(4, 7, seed=3)


def dense(a, c, h, t, rho):
    """The published form: a matrix with as many rows as there are harmful ones."""
    a, c, h, t = (x.numpy() for x in (a, c, h, t))
    held = np.linalg.inv(c.T @ c + rho * np.eye(len(a)))
    return a + held @ h.T @ np.linalg.inv(h @ held @ h.T + rho * np.eye(len(h))) @ (t - h @ a)


@pytest.mark.parametrize("rho", [1e-2, 0.1, 3.0])
@pytest.mark.parametrize("harmful", [1, 4, 30])
def test_small_form_is_the_published_dense_one(parts, rho, harmful):
    a, c, _, _ = parts
    h, t = draw(harmful, 7, seed=4), draw(harmful, 7, seed=5)
    np.testing.assert_allclose(edit_operator(a, c, h, t, rho).numpy(), dense(a, c, h, t, rho), rtol=0, atol=1e-9)


def test_edit_minimises_what_it_is_said_to(parts):
    a, c, h, t = parts
    rho = 0.2
    b = edit_operator(a, c, h, t, rho).requires_grad_()
    value = (h @ b - t).square().sum() + rho * (c @ (b - a)).square().sum() + rho**2 * (b - a).square().sum()
    value.backward()
    assert b.grad.abs().max() < 1e-9
    assert value < (h @ a - t).square().sum()


def test_nothing_changes_where_targets_are_met_already(parts):
    a, c, h, _ = parts
    assert (edit_operator(a, c, h, h @ a) - a).abs().max() < 1e-12


def test_limits_of_rho(parts):
    a, c, h, t = parts
    held = edit_operator(a, c, h, t, 1e9)
    assert (c @ held - c @ a).abs().max() < 1e-6
    moved = edit_operator(a, c, h, t, 1e-9)
    assert (h @ moved - t).abs().max() < 1e-6 < (h @ a - t).abs().max()


def test_one_target_stands_for_all_rows(parts):
    a, c, h, t = parts
    one = edit_operator(a, c, h, t[:1])
    assert torch.equal(one, edit_operator(a, c, h, t[:1].expand(4, 7)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, c, h, t: (a[:3], c, h, t), r"operator, clean: expected \(p, p\), \(n, p\), got \(3, 7\)"),
        (lambda a, c, h, t: (a, c[:, :5], h, t), r"operator, clean: .* got \(7, 7\), \(40, 5\)"),
        (lambda a, c, h, t: (a, c, h[:0], t), r"harmful: expected \(m, 7\), m 1 or more, got \(0, 7\)"),
        (lambda a, c, h, t: (a, c, h, t[:2]), r"targets: expected \(4, 7\) or \(1, 7\), got \(2, 7\)"),
        (lambda a, c, h, t: (a, c, h, t, 0.0), "rho: expected more than 0, got 0.0"),
    ],
)
def test_bad_input_is_named(parts, change, message):
    with pytest.raises(ValueError, match=message):
        edit_operator(*change(*parts))


def test_targets_of_each_kind():
    operator = torch.diag(torch.tensor([2.0, 3.0], dtype=torch.float64))
    clean = torch.tensor([[0.0, 0], [2, 0], [10, 10], [12, 10]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 2, 2])
    harmful = torch.tensor([[2.0, 1], [9, 9]], dtype=torch.float64)
    found = {kind: targets(operator, clean, labels, harmful, kind).tolist() for kind in unlearning.TARGETS}
    assert found == {"nearest": [[4, 0], [20, 30]], "shared": [[4, 0]], "centroid": [[2, 0]]}
    with pytest.raises(UserError, match="unknown target 'neerest'; did you mean 'nearest'"):
        targets(operator, clean, labels, harmful, "neerest")


def test_rows_that_are_as_good_as_equal_are_not_held():
    z = torch.tensor([[0.0, 0], [1, 1], [1, 1.0005], [5, 5]])
    rows = rows_of(z, torch.tensor([0, 1, 0, 2]), 1)
    assert rows.harmful.tolist() == [[1, 1]] and rows.clean.tolist() == [[0, 0], [5, 5]]
    assert rows.labels.tolist() == [0, 2]
    assert apart(z[:2], z[:0]).all()
    with pytest.raises(ValueError, match="0 of 4 rows are of class 7"):
        rows_of(z, torch.tensor([0, 1, 0, 2]), 7)
    with pytest.raises(ValueError, match="every row is within 10 of one of class 1"):
        rows_of(z, torch.tensor([0, 1, 0, 2]), 1, 10)


@pytest.mark.parametrize("kind", unlearning.TARGETS)
def test_a_class_that_lies_apart_is_forgotten_and_the_others_are_held(kind):
    # Four classes on axes of their own; the read-out takes the largest coordinate.
    labels = torch.arange(4).repeat(50)
    z = torch.nn.functional.one_hot(labels, 4).double() + 0.05 * draw(200, 4)
    edit = forget(rows_of(z, labels, 2), torch.eye(4), kind)
    answers = (z @ edit.operator).argmax(1)
    assert not (answers[labels == 2] == 2).any()
    assert (answers == labels)[labels != 2].all()
    assert (edit.harmful, edit.clean, edit.forgotten, edit.target) == (50, 150, 2, kind) and edit.change > 0


def test_report_takes_the_mean_over_the_other_classes():
    found = unlearning.Unlearning("x", 1, (0.9, 0.8, 0.7), (0.6, 0.0, 0.8))
    assert (found.forget_before, found.forget_after) == (0.8, 0.0)
    assert found.retain_before == pytest.approx(0.8) and found.retain_after == pytest.approx(0.7)

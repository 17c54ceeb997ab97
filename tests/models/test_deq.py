"""Equilibrium models: their gradients against unrolled ones, and failures that are told."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
from torch import nn

from kpm.models import equal_sizes
from kpm.models.deq import DEQ, DEQConfig
from kpm.models.feedforward import FeedForward, FeedForwardConfig
from kpm.models.mondeq import MonDEQ, MonDEQConfig, split
from kpm.models.sim import SIM, SIMConfig, parameters
from kpm.solvers.fixed_point import NotConverged

TINY = {"shape": (5,), "size": 8, "outputs": 3}
X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.double) * 2


def gradients(model: nn.Module) -> list[torch.Tensor]:
    model.zero_grad()
    (model(X) ** 2).sum().backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("method", ["plain", "anderson", "broyden"])
def test_the_implicit_gradient_equals_the_unrolled_one(method):
    torch.manual_seed(1)
    config = DEQConfig(**TINY, method=method, tol=1e-12, most=300)
    model = DEQ(config).double()
    unrolled = DEQ(dataclasses.replace(config, gradient="unrolled", most=300)).double()
    unrolled.load_state_dict(model.state_dict())
    worst = max(float((a - b).abs().max()) for a, b in zip(gradients(model), gradients(unrolled)))
    assert worst < 1e-5  # and far below: what is promised
    assert worst < 1e-10 and model.report.converged.all() and model.backward_report.found.converged.all()


def test_the_monotone_gradient_equals_the_unrolled_one():
    torch.manual_seed(2)
    model = MonDEQ(MonDEQConfig(**TINY, tol=1e-13)).double()
    ours = gradients(model)
    assert model.report.converged.all() and model.backward_report.found.converged.all()

    drive = model.stem(X)
    z = torch.zeros_like(drive)
    for _ in range(500):
        z = model.layer(z, drive)
    assert (z - model.settle(drive)).abs().max() < 1e-10
    model.zero_grad()
    (model.readout(z) ** 2).sum().backward()
    assert max(float((a - p.grad).abs().max()) for a, p in zip(ours, model.parameters())) < 1e-9


@pytest.mark.parametrize("margin", [0.1, 1.0])
def test_a_monotone_layer_has_its_fixed_point_where_iteration_does_not_find_it(margin):
    torch.manual_seed(3)
    model = MonDEQ(MonDEQConfig(**TINY, margin=margin, tol=1e-12, most=3000)).double()
    with torch.no_grad():
        model.symmetric *= 8
        model.skew *= 20
        symmetric = torch.eye(8) - (model.weight() + model.weight().T) / 2
        assert torch.linalg.eigvalsh(symmetric).min() > margin - 1e-9
        drive = model.stem(X)
        z = model.settle(drive)
        assert model.report.converged.all() and (model.layer(z, drive) - z).abs().max() < 1e-8
        w = torch.zeros_like(drive)
        for _ in range(200):
            w = model.layer(w, drive)
        assert not (model.layer(w, drive) - w).abs().max() < 1e-3
    numeric = split(model.weight().detach(), drive, torch.relu, margin, "anderson", 1e-12, 3000)
    assert (torch.relu(numeric.z) - z).abs().max() < 1e-8


def expanding(**options) -> DEQ:
    """A layer that turns on and on: ``tanh(z W)`` with a large rotation."""
    model = DEQ(DEQConfig(shape=(2,), size=2, outputs=1, stem="identity", method="plain", most=12, **options)).double()
    with torch.no_grad():
        model.recurrent.weight.copy_(4 * torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    return model


def test_a_solver_that_fails_is_reported(caplog):
    model, x = expanding(), torch.full((3, 2), 0.2, dtype=torch.double)
    with caplog.at_level(logging.WARNING, "kpm"):
        model(x)
    assert model.lost == 3 and "no fixed point for 3 of 3 samples after 12 evaluations" in caplog.text
    assert not model.report.converged.any() and model.report.steps.tolist() == [12] * 3
    caplog.clear()
    model(x)  # told once, counted always
    assert not caplog.text and model.lost == 6
    with pytest.raises(NotConverged, match="no fixed point for 3 of 3"):
        expanding(on_failure="raise")(x)


def steep(**options) -> DEQ:
    """A layer with a fixed point at 0 that repels: norm 8, and no input."""
    model = DEQ(DEQConfig(shape=(4,), size=4, outputs=1, stem="identity", method="plain", most=12, **options)).double()
    with torch.no_grad():
        model.recurrent.weight.copy_(8 * torch.eye(4))
    return model


def hasty(**options) -> MonDEQ:
    """A monotone layer at a known state, whose backward splitting is allowed one step."""
    torch.manual_seed(6)
    model = MonDEQ(MonDEQConfig(shape=(4,), size=4, outputs=1, stem="identity", most=1, **options)).double()
    model.settle = lambda drive: drive
    return model


@pytest.mark.parametrize(("make", "drive", "steps"), [(steep, 0.0, 24), (hasty, 1.0, 1)])
def test_a_backward_pass_that_fails_is_told_counted_and_raised(make, drive, steps, caplog):
    model, x = make(), torch.full((8, 4), drive, dtype=torch.double)
    with caplog.at_level(logging.WARNING, "kpm"):
        model(x).sum().backward()
    assert model.lost == 0 and model.lost_backward == 8 and not model.backward_report.found.converged.any()
    assert f"backward pass: no fixed point for 8 of 8 samples after {steps} evaluations" in caplog.text
    caplog.clear()
    model(x).sum().backward()  # told once, counted always
    assert not caplog.text and model.lost_backward == 16
    answer = make(on_failure="raise")(x)  # the forward pass is well
    with pytest.raises(NotConverged, match="backward pass: no fixed point for 8 of 8"):
        answer.sum().backward()


def test_an_unrolled_layer_is_applied_as_often_as_asked():
    torch.manual_seed(4)
    model = DEQ(DEQConfig(**TINY, gradient="unrolled", most=2)).double()
    drive = model.stem(X)
    expected = torch.tanh(torch.tanh(drive) @ model.recurrent.weight.T + drive)
    torch.testing.assert_close(model.equilibrium(drive), expected)
    assert model.report is None


@pytest.mark.parametrize("stem", equal_sizes.STEMS)
@pytest.mark.parametrize("name", equal_sizes.MODELS)
def test_models_to_compare_have_one_size_and_answer(name, stem):
    torch.manual_seed(5)
    model = equal_sizes.build(equal_sizes.config(name, stem, (1, 28, 28), 10))
    assert 80000 < parameters(model) < 82000
    assert model.eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DEQConfig(gradient="none"), "gradient: expected one of implicit, unrolled, got 'none'"),
        (lambda: DEQConfig(method="newton"), "method: expected one of plain, anderson, broyden"),
        (lambda: DEQConfig(on_failure="hide"), "on_failure: expected one of warn, raise, got 'hide'"),
        (lambda: MonDEQConfig(margin=0.0), "margin: expected a positive number"),
        (lambda: MonDEQConfig(method="broyden"), "method: expected one of plain, anderson"),
        (lambda: FeedForward(FeedForwardConfig(stem="dense")), "kind: expected one of identity, linear"),
        (lambda: DEQ(DEQConfig(**TINY))(X[:, :4].float()), r"x: expected \(b, 5\), got \(6, 4\)"),
        (lambda: DEQ(DEQConfig(**TINY))(X[0].float()), r"x: expected \(b, 5\), got \(5,\)"),
        (lambda: DEQ(DEQConfig(**TINY))(X.numpy()), "x: expected a torch tensor, got ndarray"),
        (lambda: MonDEQ(MonDEQConfig(**TINY))(X[:, :4].float()), r"x: expected \(b, 5\), got \(6, 4\)"),
        (lambda: FeedForward(FeedForwardConfig(**TINY))(X[:, :4].float()), r"x: expected \(b, 5\), got \(6, 4\)"),
        (lambda: SIM(SIMConfig("causal", (9, 2)))(torch.zeros(3, 7, 1)), r"x: expected \(b, 9, 2\), got \(3, 7, 1\)"),
        (lambda: equal_sizes.config("dqe", "dense", (1, 28, 28), 10), "unknown model 'dqe'; did you mean 'deq'"),
    ],
)
def test_bad_input_is_one_clear_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()

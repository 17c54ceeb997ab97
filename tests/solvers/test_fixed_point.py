"""Fixed points against closed forms; failures are told for each sample."""

from __future__ import annotations

import pytest
import torch

from kpm.solvers.fixed_point import METHODS, NotConverged, solve
from kpm.solvers.implicit import implicit


def affine(radius: float, batch: int = 5, dim: int = 6, seed: int = 0):
    """A map ``z A + b`` per sample, its fixed points, with spectral radius `radius` of the shared A."""
    draw = torch.Generator().manual_seed(seed)
    a = torch.randn(dim, dim, generator=draw, dtype=torch.double)
    a *= radius / torch.linalg.eigvals(a).abs().max()
    b = torch.randn(batch, dim, generator=draw, dtype=torch.double)
    return a, b, torch.linalg.solve(torch.eye(dim, dtype=torch.double) - a, b, left=False)


@pytest.mark.parametrize("method", METHODS)
def test_linear_fixed_points_are_those_of_a_linear_solve(method):
    a, b, expected = affine(0.8)
    found = solve(lambda z: z @ a + b, torch.zeros_like(b), method, tol=1e-12, most=400, memory=8)
    assert found.converged.all() and found.failure == "" and found.check() is found
    torch.testing.assert_close(found.z, expected, rtol=0, atol=1e-9)
    assert found.trace.shape == (int(found.steps.max()), 5) and (found.residual < 1e-12).all()


@pytest.mark.parametrize("method", ["anderson", "broyden"])
def test_acceleration_needs_fewer_evaluations_and_also_solves_what_iteration_cannot(method):
    a, b, expected = affine(0.95)
    counts = {m: solve(lambda z: z @ a + b, torch.zeros_like(b), m, 1e-10, 2000, 8) for m in (method, "plain")}
    assert int(counts[method].steps.max()) < int(counts["plain"].steps.max()) / 2
    a, b, expected = affine(1.5)
    assert not solve(lambda z: z @ a + b, torch.zeros_like(b), "plain", 1e-8, 50).converged.any()
    found = solve(lambda z: z @ a + b, torch.zeros_like(b), method, 1e-10, 60, 8).check()
    torch.testing.assert_close(found.z, expected, rtol=1e-6, atol=1e-6)


def test_each_sample_has_its_own_verdict_and_steps():
    """``z -> rate z + 1``: one sample is there at once, one is slow, one never arrives."""
    rate = torch.tensor([[0.0], [0.5], [-1.0]], dtype=torch.double)
    found = solve(lambda z: rate * z + 1, torch.zeros(3, 1, dtype=torch.double), "plain", 1e-6, 30)
    assert found.converged.tolist() == [True, True, False]
    assert found.steps[0] == 2 and 15 < found.steps[1] < 25 and found.steps[2] == 30
    assert "1 of 3 samples after 30 evaluations (worst: sample 2, residual 1" in found.failure
    with pytest.raises(NotConverged, match="no fixed point for 1 of 3"):
        found.check()


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_that_blows_up_is_reported_and_does_not_spoil_the_others(method):
    def f(z):
        return torch.where(torch.arange(2)[:, None] == 0, torch.cos(z), z * z + 1e3)

    found = solve(f, torch.zeros(2, 1, dtype=torch.double), method, 1e-10, 60)
    assert found.converged.tolist() == [True, False] and torch.isfinite(found.z).all()
    assert abs(float(found.z[0]) - 0.7390851332151607) < 1e-9


def test_absolute_residual_for_a_fixed_point_at_zero():
    half = solve(lambda z: 0.5 * z, torch.ones(1, 2), "plain", 1e-4, 60, stop="absolute")
    assert half.converged.all() and half.z.abs().max() < 3e-4
    assert not solve(lambda z: 0.5 * z, torch.ones(1, 2), "plain", 1e-4, 60).converged.any()  # always |f - z| = |f|


@pytest.mark.parametrize("forward", METHODS)
def test_implicit_gradient_is_that_of_the_unrolled_iteration(forward):
    draw = torch.Generator().manual_seed(1)
    weight = torch.randn(6, 6, generator=draw, dtype=torch.double) * 0.25
    drive = torch.randn(4, 6, generator=draw, dtype=torch.double)
    target = torch.randn(4, 6, generator=draw, dtype=torch.double)
    grads = []
    for way in ("implicit", "unrolled"):
        w, x = weight.clone().requires_grad_(), drive.clone().requires_grad_()

        def layer(z, w=w, x=x):
            return torch.tanh(z @ w + x)

        if way == "implicit":
            z = solve(layer, torch.zeros_like(x), forward, 1e-13, 200).check().z
            z, report = implicit(layer, z, forward, 1e-12, 200)
            assert report.found is None and report.failure == ""
        else:
            z = torch.zeros_like(x)
            for _ in range(300):
                z = layer(z)
        ((z - target) ** 2).sum().backward()
        grads.append((w.grad, x.grad))
    assert report.found.converged.all()
    for ours, unrolled in zip(*grads):
        assert (ours - unrolled).abs().max() < 1e-9


def test_a_backward_pass_that_fails_says_so():
    weight = (2.0 * torch.eye(3, dtype=torch.double)).requires_grad_()
    z, report = implicit(lambda z: z @ weight, torch.ones(2, 3, dtype=torch.double), "plain", 1e-8, 10)
    z.sum().backward()
    assert "no fixed point for 2 of 2 samples after 10 evaluations" in report.failure


def test_without_anything_to_learn_there_is_no_graph():
    z, report = implicit(lambda z: 0.5 * z, torch.ones(1, 2))
    assert not z.requires_grad and report.found is None


@pytest.mark.parametrize(
    ("start", "options", "message"),
    [
        (torch.zeros(3), {}, r"start: expected floats \(b, dim\), got torch.float32 \(3,\)"),
        (torch.zeros(2, 3, dtype=torch.int64), {}, "start: expected floats"),
        (torch.tensor([[0.0, float("nan")]]), {}, r"start\[0, 1\] is not finite but NaN"),
        (torch.zeros(1, 2), {"method": "newton"}, "method: expected one of plain, anderson, broyden, got 'newton'"),
        (torch.zeros(1, 2), {"stop": "never"}, "stop: expected one of relative, absolute"),
        (torch.zeros(1, 2), {"tol": 0.0}, "tol: expected a positive number"),
        (torch.zeros(1, 2), {"most": 0}, "most: expected a whole number from 1"),
        (torch.zeros(1, 2), {"memory": 0}, "memory: expected a whole number from 1"),
    ],
)
def test_bad_input_is_one_clear_error(start, options, message):
    with pytest.raises(ValueError, match=message):
        solve(lambda z: 0.5 * z, start, **options)


def test_a_map_must_keep_the_shape():
    with pytest.raises(ValueError, match=r"f: expected to keep the shape \(1, 2\), got \(1, 3\)"):
        solve(lambda z: torch.zeros(1, 3), torch.zeros(1, 2), "plain")

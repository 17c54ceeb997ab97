from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kpm.solvers import eigenvalues, from_pairs, per_sequence, shared
from tests.solvers.case import OperatorCase, RankDeficientCase, noisy_system, pairs


class LeastSquares:
    def dense(self, past, future):
        return np.linalg.lstsq(past, future, rcond=np.finfo(float).eps * max(past.shape))[0]


class TestShared(LeastSquares, RankDeficientCase, OperatorCase):
    def solve(self, z, mask=None):
        return shared(z, mask)


class TestPerSequence(LeastSquares, RankDeficientCase, OperatorCase):
    shared = False

    def solve(self, z, mask=None):
        return per_sequence(z, mask)


class TestFewerPairsThanDimensions(LeastSquares, OperatorCase):
    """Minimum norm, as in SSM-SKD."""

    shared = False
    time, dim = 8, 15

    def solve(self, z, mask=None):
        return per_sequence(z, mask)


class Ridge:
    ridge = 0.3

    def dense(self, past, future):
        return np.linalg.solve(past.T @ past + self.ridge * np.eye(past.shape[1]), past.T @ future)


class TestSharedRidge(Ridge, OperatorCase):
    def solve(self, z, mask=None):
        return shared(z, mask, ridge=self.ridge)


class TestPerSequenceRidge(Ridge, RankDeficientCase, OperatorCase):
    shared = False

    def solve(self, z, mask=None):
        return per_sequence(z, mask, ridge=self.ridge)


class Truncated:
    rank = 2

    def dense(self, past, future):
        u, s, vh = np.linalg.svd(past, full_matrices=False)
        return vh[: self.rank].T @ np.diag(1 / s[: self.rank]) @ u[:, : self.rank].T @ future


class TestSharedTruncated(Truncated, OperatorCase):
    def solve(self, z, mask=None):
        return shared(z, mask, rank=self.rank)


class TestPerSequenceTruncated(Truncated, OperatorCase):
    shared = False

    def solve(self, z, mask=None):
        return per_sequence(z, mask, rank=self.rank)


class Total:
    def dense(self, past, future):
        dim = past.shape[1]
        _, _, vh = np.linalg.svd(np.hstack([past, future]))
        v = vh.T
        return -v[:dim, dim:] @ np.linalg.inv(v[dim:, dim:])


class TestSharedTotal(Total, OperatorCase):
    def solve(self, z, mask=None):
        return shared(z, mask, method="total")


class TestPerSequenceTotal(Total, OperatorCase):
    shared = False

    def solve(self, z, mask=None):
        return per_sequence(z, mask, method="total")


class ForwardBackward:
    digits = 1e-9

    def dense(self, past, future):
        forward, backward = np.linalg.pinv(past) @ future, np.linalg.pinv(future) @ past
        return scipy.linalg.sqrtm(forward @ np.linalg.inv(backward)).real


class TestSharedForwardBackward(ForwardBackward, OperatorCase):
    def solve(self, z, mask=None):
        return shared(z, mask, method="forward_backward")


class TestPerSequenceForwardBackward(ForwardBackward, OperatorCase):
    shared = False

    def solve(self, z, mask=None):
        return per_sequence(z, mask, method="forward_backward")


BOTH = ("least_squares", "forward_backward")


@pytest.mark.parametrize("method", ["least_squares", "total", "forward_backward"])
def test_exact_data_gives_the_exact_operator(method):
    """A reflection among the eigenvalues: the principal square root would not find it."""
    matrix = torch.diag(torch.tensor([0.9, -0.7, 0.5])).double()
    matrix[0, 1] = 0.4
    z = [torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))]
    for _ in range(6):
        z.append(z[-1] @ matrix)
    operator = shared(torch.stack(z, 1), method=method)
    torch.testing.assert_close(operator.matrix, matrix, rtol=0, atol=1e-12)
    assert operator.residual < 1e-13


@pytest.mark.parametrize("method", ["total", "forward_backward"])
def test_truncated_variants_use_the_leading_directions(method):
    """A plane of motion in 5 dimensions with a little noise: rank 2 finds the two eigenvalues, and three zeros."""
    angle = torch.tensor(0.3, dtype=torch.float64)
    plane = torch.stack([(angle * torch.arange(60)).cos(), (angle * torch.arange(60)).sin()], -1)
    generator = torch.Generator().manual_seed(0)
    z = plane @ torch.randn(2, 5, dtype=torch.float64, generator=generator)
    z = z + 1e-4 * torch.randn(60, 5, dtype=torch.float64, generator=generator)
    values = eigenvalues(shared(z, method=method, rank=2))
    values = values[values.abs().argsort(descending=True)]
    assert values[2:].abs().max() < 1e-12
    assert (values[:2].angle().abs() - 0.3).abs().max() < 1e-4 and (values[:2].abs() - 1).abs().max() < 1e-4
    z = z[:12].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: shared(z, method=method, rank=2).matrix, z)


def test_noise_bias_and_its_cures():
    """Noise on the frames pulls least squares inwards; the two other methods undo most of it."""
    z = noisy_system(40, time=30, dim=4, noise=0.0, seed=1)
    exact = eigenvalues(shared(z)).abs().mean()
    noisy = z + 0.15 * torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(1))
    bias = {
        m: float(eigenvalues(shared(noisy, method=m)).abs().mean() - exact)
        for m in ("least_squares", "total", "forward_backward")
    }
    assert bias["least_squares"] < -0.01
    assert max(abs(bias["total"]), abs(bias["forward_backward"])) < 0.2 * abs(bias["least_squares"])


def test_forward_backward_cancels_the_bias_of_a_motion_that_lasts():
    """A rotation in noise: past and future have the same energy."""
    generator = torch.Generator().manual_seed(0)
    angles = 2 * torch.pi * torch.rand(5000, 1, generator=generator).double() + 0.3 * torch.arange(10)
    z = torch.stack([angles.cos(), angles.sin()], -1)
    z = z + 0.2 * torch.randn(z.shape, generator=generator).double()
    size = {method: float(eigenvalues(shared(z, method=method)).abs().mean()) for method in BOTH}
    assert size["least_squares"] == pytest.approx(0.5 / (0.5 + 0.04), abs=2e-3)
    assert size["forward_backward"] == pytest.approx(1, abs=1e-3)


def test_forward_backward_has_a_bias_of_its_own_where_motion_decays():
    """Against the second moments of one mode, p of the past: ``sqrt((lambda^2 p + noise) / (p + noise))``."""
    generator = torch.Generator().manual_seed(0)
    rates, noise = torch.tensor([0.9, 0.5]).double(), 0.01
    z = torch.randn(20000, 1, 2, generator=generator).double() * rates ** torch.arange(10)[:, None]
    z = z + noise**0.5 * torch.randn(z.shape, generator=generator).double()
    energy = (rates ** (2 * torch.arange(9)[:, None])).mean(0)
    found = {method: shared(z, method=method).matrix.diagonal() for method in (*BOTH, "total")}
    wanted = ((rates**2 * energy + noise) / (energy + noise)).sqrt()
    torch.testing.assert_close(found["forward_backward"], wanted, rtol=0, atol=2e-3)
    torch.testing.assert_close(found["total"], rates, rtol=0, atol=2e-3)
    ours, least = float(found["forward_backward"][1]) - 0.5, 0.5 - float(found["least_squares"][1])
    assert ours > 0.04 and ours == pytest.approx(1.5 * least, rel=0.1)


def test_numbers_out_of_range_are_an_error_and_not_a_wrong_operator():
    z = noisy_system(3, time=8, dim=4, noise=0.3)
    for power in (-140, 140):
        far = (z * 10.0**power).requires_grad_()
        torch.testing.assert_close(shared(far).matrix, shared(z).matrix, rtol=0, atol=1e-12)
        (ours,) = torch.autograd.grad(shared(far).matrix.square().sum(), far)
        (theirs,) = torch.autograd.grad(shared(z.requires_grad_()).matrix.square().sum(), z)
        torch.testing.assert_close(ours * 10.0**power, theirs, rtol=1e-9, atol=1e-12)
    z = z.detach()
    for power in (-155, 154):
        with pytest.raises(ValueError, match=r"singular value\[0\] of the data is .*e[-+]15.: .* scale the data"):
            shared(z * 10.0**power)
    z[1] *= 1e-160
    with pytest.raises(ValueError, match=r"singular value\[1, 0\] of the data"):
        per_sequence(z)


def test_numpy_numbers_and_masks_are_as_good_as_python_ones():
    z = noisy_system(3, time=8, dim=4)
    mask = np.ones((3, 8), dtype=bool)
    mask[1, 5:] = False
    ours = shared(z, mask, rank=np.int64(3), ridge=np.float32(0.5))
    theirs = shared(z, torch.from_numpy(mask), rank=3, ridge=0.5)
    assert torch.equal(ours.matrix, theirs.matrix) and torch.equal(shared(z, mask.tolist()).rank, shared(z, mask).rank)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((3, 8)), r"mask: expected bool of shape \(3, 8\), got torch.float64 of shape \(3, 8\)"),
        ([[1] * 8] * 3, r"mask: expected bool of shape \(3, 8\), got torch.int64 of shape \(3, 8\)"),
        ([[True], [True, False]], r"mask: expected bool of shape \(3, 8\), got list"),
        ("all", r"mask: expected bool of shape \(3, 8\), got str"),
        (np.ones((3, 9), dtype=bool), r"mask: expected bool of shape \(3, 8\), got torch.bool of shape \(3, 9\)"),
    ],
)
def test_masks_that_are_none(mask, message):
    with pytest.raises(ValueError, match=message):
        shared(noisy_system(3, time=8, dim=4), mask)


def test_tolerance_is_a_cut_off_relative_to_the_largest():
    past = torch.diag(torch.tensor([1.0, 1e-3, 1e-6])).double()
    operator = from_pairs(past, past, tolerance=1e-4)
    assert operator.rank == 2 and operator.condition == pytest.approx(1e3)
    torch.testing.assert_close(operator.matrix, torch.diag(torch.tensor([1.0, 1, 0])).double())
    assert from_pairs(past, past).condition == pytest.approx(1e6)


def test_gradient_of_minimum_norm_with_repeated_singular_values():
    """Orthonormal frames: a derivative through singular vectors would divide by zero."""
    past = torch.eye(3, 5, dtype=torch.float64).requires_grad_()
    future = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for rank in (None, 3):
        assert torch.autograd.gradcheck(lambda x, y, r=rank: from_pairs(x, y, rank=r).matrix, (past, future))
    tall = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tall = (tall @ torch.diag(torch.tensor([1.0, 1.0, 0.0]).double())).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: from_pairs(x, future[:, :3].detach().repeat(2, 1), ridge=0.1).matrix, tall
    )


def test_gradient_of_a_truncation():
    past = torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    future = torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: from_pairs(x, y, rank=2).matrix, (past, future))
    assert torch.autograd.gradcheck(lambda x, y: from_pairs(x, y, rank=2, ridge=0.2).matrix, (past, future))


@given(st.integers(0, 10**6), st.integers(2, 7), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_an_operator_of_few_steps_reproduces_its_sequence(seed, time, dim):
    z = torch.randn(3, time, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    operator = per_sequence(z)
    if time - 1 <= dim:
        error = (z[:, :-1] @ operator.matrix - z[:, 1:]).abs().amax((1, 2))
        assert (error < 1e-12 * operator.condition).all() and (operator.rank == time - 1).all()
        # Of all that do, the one of least norm: nothing outside the span of the frames.
        extra = torch.linalg.svd(z[:, :-1]).Vh[:, time - 1 :]
        assert extra.numel() == 0 or (extra @ operator.matrix).abs().max() < 1e-11
    else:
        residual = z[:, 1:] - z[:, :-1] @ operator.matrix
        assert (z[:, :-1].mT @ residual).abs().max() < 1e-11


def test_residual_and_condition():
    z = noisy_system(2, time=10, dim=3)
    operator = per_sequence(z)
    for i in range(2):
        past, future = pairs([z[i].numpy()])
        matrix = operator.matrix[i].numpy()
        assert operator.residual[i] == pytest.approx(np.linalg.norm(future - past @ matrix) / np.linalg.norm(future))
        assert operator.condition[i] == pytest.approx(np.linalg.cond(past))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": -1.0}, "ridge: expected a finite number >= 0, got -1.0"),
        ({"ridge": float("nan")}, "ridge: expected"),
        ({"ridge": 0.1, "method": "total"}, "ridge: goes with"),
        ({"tolerance": -1e-3}, "tolerance: expected"),
        ({"method": "exact"}, "method: expected one of least_squares, total, forward_backward, got 'exact'"),
        ({"rank": 0}, "rank: expected a whole number from 1 to 4, got 0"),
        ({"rank": 5}, "rank: expected a whole number from 1 to 4, got 5"),
        ({"rank": 2.0}, "rank: expected a whole number"),
        ({"rank": np.float64(2)}, "rank: expected a whole number"),
        ({"rank": True}, "rank: expected a whole number from 1 to 4, got True"),
        ({"rank": np.True_}, "rank: expected a whole number"),
        ({"rank": torch.tensor(True)}, "rank: expected a whole number"),
        ({"rank": torch.tensor([2])}, "rank: expected a whole number"),
        ({"ridge": "0.1"}, "ridge: expected a finite number >= 0, got '0.1'"),
        ({"ridge": True}, "ridge: expected a finite number >= 0, got True"),
        ({"rank": 3}, r"rank: 3 asked for, but z\[1\] has rank 2"),
    ],
)
def test_bad_options(options, message):
    z = noisy_system(3, time=8, dim=4)
    z[1, :, 2:] = z[1, :, :2]
    with pytest.raises(ValueError, match=message):
        per_sequence(z, **options)


def test_methods_that_have_no_answer_say_where():
    z = noisy_system(3, time=4, dim=6)
    with pytest.raises(ValueError, match=r"past\[0\]: forward-backward needs an operator that can be inverted"):
        per_sequence(z, method="forward_backward")
    past = torch.zeros(2, 4, 2, dtype=torch.float64)
    past[0], past[1, :, 0] = torch.randn(4, 2), 1e-30
    future = torch.randn(2, 4, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"past\[1\]: total least squares has no solution"):
        from_pairs(past, future, method="total")
    with pytest.raises(ValueError, match=r"future: expected the shape of past, \(2, 4, 2\), got \(2, 3, 2\)"):
        from_pairs(past, future[:, :3])

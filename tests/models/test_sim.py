"""Limits: projector identities, operators whose limit is known, published sizes, bad input."""

from __future__ import annotations

import math

import pytest
import torch

from kpm.models import bases
from kpm.models.sim import SIM, LowRankLimit, SIMConfig, diagnose, parameters


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (SIMConfig(), 81480),
        (SIMConfig(width=21, features="fourier", size=104), 80466),
        (SIMConfig(shape=(3, 32, 32), width=38), 168694),
        (SIMConfig(shape=(3, 32, 32), width=36, features="fourier", size=104), 168264),
        (SIMConfig("causal", (1,), 10, 32, size=32), 17294),
        (SIMConfig("causal", (1,), 10, 32, "fourier", 32), 17294),
    ],
)
def test_published_sizes(config, count):
    assert parameters(SIM(config)) == count


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_an_oblique_limit_is_a_projector_whatever_its_weights_are(rank):
    torch.manual_seed(rank)
    limit = LowRankLimit(8, rank, "oblique").double()
    with torch.no_grad():
        limit.into.copy_(torch.randn(8, rank))
        limit.out.copy_(torch.randn(rank, 8))
    p = limit.matrix().detach()
    torch.testing.assert_close(p @ p, p, rtol=1e-9, atol=1e-9 * float(p.norm()))
    found = diagnose(limit)
    assert found.idempotency < 1e-9 and abs(float(p.trace()) - rank) < 1e-9 and torch.linalg.matrix_rank(p) == rank
    torch.testing.assert_close(found.eigenvalues, torch.ones(rank, dtype=torch.cdouble), rtol=1e-9, atol=1e-9)
    z = torch.randn(5, 8, dtype=torch.double)
    torch.testing.assert_close(limit(limit(z)), limit(z), rtol=1e-9, atol=1e-9)


def test_a_free_limit_is_the_product_of_its_weights_and_no_projector():
    torch.manual_seed(0)
    limit = LowRankLimit(8, 4, "free")
    torch.testing.assert_close(limit.matrix().float(), limit.into @ limit.out)
    found = diagnose(limit)
    assert found.idempotency > 0.1 and found.eigenvalues.shape == (4,) and 1 < found.effective_rank <= 4


def test_rotations_turn_by_their_angles_and_add_up():
    torch.manual_seed(1)
    limit = LowRankLimit(7, 5, "peripheral", 2).double()
    with torch.no_grad():
        limit.into += torch.randn(7, 5)
        limit.angles.copy_(torch.tensor([0.7, -1.9]))
    three, four, seven = (limit.matrix(n).detach() for n in (3, 4, 7))
    torch.testing.assert_close(three @ four, seven, rtol=1e-8, atol=1e-8)
    values = torch.linalg.eigvals(limit.matrix(1).detach())
    expected = torch.tensor([1, *(torch.polar(torch.ones(2), torch.tensor([0.7, 1.9])).tolist())], dtype=torch.cdouble)
    for value in torch.cat([expected, expected.conj()]):
        assert (values - value).abs().min() < 1e-7
    still = limit.matrix(0).detach()
    assert (still @ still - still).norm() < 1e-8 * still.norm()
    z, n = torch.randn(3, 7, dtype=torch.double), torch.tensor([0.0, 3.0, 7.0], dtype=torch.double)
    expected = torch.stack([z[0] @ still, z[1] @ three, z[2] @ seven])
    torch.testing.assert_close(limit(z, n), expected, rtol=1e-8, atol=1e-8)  # a number of steps for each sample


@pytest.fixture
def known():
    """An operator in some basis: twice the eigenvalue 1, a turn by 0.3, and two that fade; its powers."""
    draw = torch.Generator().manual_seed(2)
    basis = torch.randn(6, 6, generator=draw, dtype=torch.double)
    turn = torch.tensor([[math.cos(0.3), math.sin(0.3)], [-math.sin(0.3), math.cos(0.3)]], dtype=torch.double)
    core = torch.block_diag(torch.eye(2, dtype=torch.double), turn, torch.diag(torch.tensor([0.5, -0.4]).double()))
    return torch.linalg.solve(basis, core @ basis)


def test_the_limit_of_an_operator_is_that_of_its_powers(known):
    limit = LowRankLimit.from_operator(known, 4, 1)
    for n in (120, 200):
        expected = torch.linalg.matrix_power(known, n)
        torch.testing.assert_close(limit.matrix(n).detach(), expected, rtol=1e-8, atol=1e-8)
    assert abs(float(limit.angles.detach()[0])) == pytest.approx(0.3, abs=1e-9)


def test_the_projector_of_eigenvalue_one_is_the_mean_of_the_powers(known):
    powers, total, count = torch.eye(6, dtype=torch.double), torch.zeros(6, 6, dtype=torch.double), 4000
    for _ in range(count):
        total += powers
        powers = powers @ known
    projector = LowRankLimit.from_operator(known, 2).matrix().detach()
    assert (projector - total / count).norm() < 20 / count * projector.norm()  # what turns leaves O(1 / count)
    assert diagnose(LowRankLimit.from_operator(known, 2)).idempotency < 1e-10


def test_what_an_operator_does_not_have_is_refused(known):
    with pytest.raises(ValueError, match="rank: the 3 eigenvalues nearest to 1 take a conjugate pair apart"):
        LowRankLimit.from_operator(known, 3)
    with pytest.raises(ValueError, match="rotations: expected at most 1 complex pairs, got 2"):
        LowRankLimit.from_operator(known, 6, 2)


def test_only_what_is_near_one_is_held_as_one():
    """The powers of diag(1, -.99, .6) come to diag(1, 0, 0); .6 in their limit would be an error that nobody sees."""
    fading = torch.diag(torch.tensor([1.0, -0.99, 0.6], dtype=torch.double))
    expected = torch.linalg.matrix_power(fading, 4000)
    torch.testing.assert_close(LowRankLimit.from_operator(fading, 1).matrix().detach(), expected)
    with pytest.raises(ValueError, match=r"rank: 2 eigenvalues are to be held as 1, but only 1 are within 0.1 of it"):
        LowRankLimit.from_operator(fading, 2)
    held = LowRankLimit.from_operator(fading, 2, tolerance=0.5).matrix().detach()
    torch.testing.assert_close(held, torch.diag(torch.tensor([1.0, 0, 1], dtype=torch.double)))
    with pytest.raises(ValueError, match=r"operator: its powers grow, by 1.3 a step"):
        LowRankLimit.from_operator(torch.diag(torch.tensor([1.0, 1.3])), 1)
    with pytest.raises(ValueError, match="rotations: expected at most 0 complex pairs, got 1"):
        LowRankLimit.from_operator(0.5 * torch.tensor([[0.0, 1], [-1, 0]]), 2, 1)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("turned", [False, True])
def test_jordan_blocks_are_refused(rank, turned):
    """The powers of [[1, 1], [0, 1]] are [[1, n], [0, 1]]."""
    block = torch.block_diag(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.tensor([[1.0, 0], [0, 0.3]])).double()
    if turned:
        basis = torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.double)
        block = torch.linalg.solve(basis, block @ basis)
    with pytest.raises(ValueError, match=r"is defective|dependent|take a repeated one apart"):
        LowRankLimit.from_operator(block, rank)
    with pytest.raises(ValueError, match=r"defective \(a Jordan block, shape \(2, 2\)\)|linearly dependent"):
        LowRankLimit.from_operator(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), 2)


def test_fourier_features_are_those_of_the_gaussian_kernel_and_frozen():
    torch.manual_seed(0)
    features = bases.FourierFeatures(3, 20000, 0.8).double()
    x, y = torch.randn(2, 4, 3, dtype=torch.double) * 0.5
    kernel = torch.exp(-(torch.cdist(x, y) ** 2) / (2 * 0.8**2))
    assert (features(x) @ features(y).T - kernel).abs().max() < 0.03
    assert not list(features.parameters()) and "frequencies" in features.state_dict()


def test_applying_a_projector_twice_changes_no_answer_but_a_free_limit_does():
    x = torch.randn(9, 1, 8, 8)
    for mode, drifts in (("oblique", False), ("free", True)):
        torch.manual_seed(3)
        model = SIM(SIMConfig("mlp", (1, 8, 8), 16, 12, size=12, mode=mode)).eval()
        drift = diagnose(model, x).drift
        assert (drift > 1e-3) is drifts and (drifts or drift < 1e-5)


def test_a_causal_basis_does_not_look_ahead():
    torch.manual_seed(0)
    net = bases.CausalNet(1, 4, channels=3, levels=3, kernel=2)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    x = torch.randn(1, 20, 1)
    later = x.clone()
    later[:, 12:] += 1
    changed = (net(x) - net(later)).abs().amax((0, 2)) > 1e-6
    assert not changed[:12].any() and changed[12]
    far = x.clone()
    far[:, 0] += 1  # seen for 1 + 2 (kernel - 1) (2^levels - 1) = 15 steps
    assert not ((net(x) - net(far)).abs().amax((0, 2)) > 1e-7)[15:].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LowRankLimit(4, 5), "rank: expected a whole number from 1 to 4, got 5"),
        (lambda: LowRankLimit(4, 2, "normal"), "mode: expected one of free, oblique, peripheral, got 'normal'"),
        (lambda: LowRankLimit(4, 3, "peripheral", 2), "rotations: expected a whole number from 1 to 1, got 2"),
        (lambda: LowRankLimit(4, 3, "oblique", 1), "rotations: expected a whole number from 0 to 0, got 1"),
        (lambda: SIMConfig(size=60), "size: without a second tier it is observables, 50, got 60"),
        (lambda: SIMConfig(features="cosine"), "features: expected one of none, fourier"),
        (lambda: bases.make("cnn", (1, 8, 8), 4, 3), "kind: expected one of identity, linear"),
        (lambda: bases.make("conv", (64,), 4, 3), r"shape: convolutions take \(channels, height, width\)"),
        (lambda: bases.make("identity", (3,), 0, 4), r"outputs: an identity of shape \(3,\) has 3, got 4"),
        (lambda: bases.FourierFeatures(2, 5, 1.0), "outputs, sigma: expected an even number"),
        (lambda: SIM(SIMConfig("mlp"))(torch.zeros(2, 784)), r"x: expected \(b, 1, 28, 28\), got \(2, 784\)"),
        (lambda: LowRankLimit.from_operator(torch.zeros(2, 3), 1), "operator: expected real"),
        (lambda: LowRankLimit.from_operator(torch.eye(5), 9), "rank: expected a whole number from 1 to 5, got 9"),
        (lambda: LowRankLimit.from_operator(torch.eye(5), 0), "rank: expected a whole number from 1 to 5, got 0"),
        (lambda: LowRankLimit.from_operator(torch.eye(3), 2), "rank: the 2 .* take a repeated one apart"),
        (lambda: LowRankLimit.from_operator(torch.eye(3).repeat(2, 1, 1), 1), r"one matrix .* shape \(2, 3, 3\)"),
        (lambda: LowRankLimit.from_operator(torch.eye(3), 3, 2), "rotations: expected a whole number from 0 to 1"),
        (lambda: SIMConfig(basis="foo"), "basis: expected one of identity, linear, .*, got 'foo'"),
        (
            lambda: LowRankLimit(6, 4, "oblique")(torch.arange(18).reshape(3, 6)),
            r"z: expected floating-point numbers \(..., 6\), got torch.int64 of shape \(3, 6\)",
        ),
        (lambda: LowRankLimit(6, 4)(torch.zeros(3, 5)), r"z: .* \(..., 6\), got torch.float32 of shape \(3, 5\)"),
    ],
)
def test_bad_input_is_one_clear_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_weights_that_make_no_projector_are_an_error():
    limit = LowRankLimit(3, 2, "oblique").double()
    with torch.no_grad():
        limit.out.zero_()
    with pytest.raises(ArithmeticError, match=r"U V of shape \(2, 2\) has become singular"):
        limit(torch.ones(1, 3, dtype=torch.double))

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kpm.solvers import companion, eigenvalues, matching, per_sequence, sequence_eigenvalues, split, static_part
from tests.solvers.case import noisy_system


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def from_values(values, dim, seed=0):
    """A sequence with these eigenvalues, one more frame than there are values: ``z[t] = sum_j values_j^t p_j``."""
    values = np.asarray(values, dtype=complex)
    rng = np.random.default_rng(seed)
    shapes = (
        rng.normal(size=(len(values), dim)) + 1j * rng.normal(size=(len(values), dim)) * (values.imag != 0)[:, None]
    )
    for i, v in enumerate(values):
        for j in range(i):
            if v.imag and np.isclose(values[j], v.conj()):
                shapes[i] = shapes[j].conj()
    powers = values[:, None] ** np.arange(len(values) + 1)
    return torch.from_numpy(np.einsum("jt,jk->tk", powers, shapes).real.copy()), torch.from_numpy(shapes)


def test_coefficients_write_the_last_frame():
    z = normal(4, 6, 9)
    c = companion.coefficients(z)
    wanted = np.stack([s[-1] @ np.linalg.pinv(s[:-1]) for s in z.numpy()])
    np.testing.assert_allclose(c.numpy(), wanted, atol=1e-12)
    past, future = z[:, :-1], z[:, 1:]
    torch.testing.assert_close(companion.matrix(c), future @ torch.linalg.pinv(past), rtol=0, atol=1e-12)
    assert companion.coefficients(z.float()).dtype == torch.float64


@pytest.mark.parametrize("shape", [(8, 15), (10, 28), (8, 40), (2, 1), (5, 4), (3, 2, 6, 7)])
def test_roots_are_the_nonzero_spectrum_of_the_operator(shape):
    z = normal(*shape, seed=sum(shape))
    n, dim = z.shape[-2] - 1, z.shape[-1]
    operator = torch.linalg.pinv(z[..., :-1, :]) @ z[..., 1:, :]
    dense = torch.from_numpy(np.linalg.eigvals(operator.numpy())).to(torch.complex128)
    found = companion.roots(companion.coefficients(z))
    padded = torch.cat([found, found.new_zeros(*found.shape[:-1], dim - n)], -1)
    assert matching.optimal(padded, dense).distance.max() < 1e-10
    torch.testing.assert_close(found.imag.sum(-1), torch.zeros(shape[:-2], dtype=torch.float64), rtol=0, atol=1e-13)


def test_gradients():
    z = normal(3, 5, 6, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(companion.coefficients, z)
    c = companion.coefficients(z).detach().requires_grad_()
    assert torch.autograd.gradcheck(companion.roots, c)

    def first_mode(z):
        c = companion.coefficients(z)
        return torch.view_as_real(companion.mode(z, c, companion.roots(c)[..., 0]))

    assert torch.autograd.gradcheck(first_mode, z)


def test_small_roots_have_a_gradient():
    """Roots of size 0.01: ``p'`` is of size 1e-6 there, but not because of a repeated root."""
    c = torch.from_numpy(-np.poly([0.01, 0.012, -0.011, 0.02])[1:][::-1].copy()).requires_grad_()
    companion.roots(c).real.sum().backward()
    np.testing.assert_allclose(c.grad.numpy(), [0, 0, 0, 1], atol=1e-6)  # their sum is c_3


def test_repeated_roots():
    """A double root: its values are right to the square root of rounding, and its gradient is zero, not infinite."""
    c = torch.from_numpy(-np.poly([1.0, 1.0, 0.5])[1:][::-1].copy()).requires_grad_()
    found = companion.roots(c)
    assert matching.optimal(torch.tensor([1.0, 1.0, 0.5]), found).distance.max() < 1e-7
    found.abs().sum().backward()
    assert torch.isfinite(c.grad).all()


@pytest.mark.parametrize("time", [3, 8])
def test_mode_is_the_spectral_projection(time):
    z = normal(4, time, 15, seed=time)
    c = companion.coefficients(z)
    value = companion.roots(c)[..., 0]
    p = companion.mode(z, c, value)
    operator = (torch.linalg.pinv(z[:, :-1]) @ z[:, 1:]).numpy()
    for i in range(4):
        values, right = np.linalg.eig(operator[i])
        left = np.linalg.pinv(right, rcond=1e-8)
        j = np.abs(values - value[i].item()).argmin()
        share = z[i].numpy() @ right[:, [j]] @ left[[j]]
        wanted = value[i].item() ** np.arange(time)[:, None] * p[i].numpy()
        np.testing.assert_allclose(share, wanted, atol=1e-7)


def test_known_modes_are_recovered():
    values = [1.0, 0.9, 0.4 + 0.5j, 0.4 - 0.5j]
    z, shapes = from_values(values, 7)
    c = companion.coefficients(z)
    for value, shape in zip(values, shapes, strict=True):
        found = companion.mode(z, c, torch.tensor(value, dtype=torch.complex128))
        torch.testing.assert_close(found, shape, rtol=0, atol=1e-10)


def test_static_part_of_a_known_sequence():
    z, shapes = from_values([1.0, 0.9, 0.4 + 0.5j, 0.4 - 0.5j], 7)
    parts = static_part(z)
    torch.testing.assert_close(parts.static, shapes[0].real.expand(5, 7).contiguous(), rtol=0, atol=1e-10)
    torch.testing.assert_close(parts.static + parts.dynamic, z, rtol=0, atol=1e-13)
    two = static_part(z, size=2)
    powers = torch.stack([torch.ones(5), torch.tensor(0.9, dtype=torch.float64) ** torch.arange(5)], -1).double()
    torch.testing.assert_close(two.static, powers @ shapes[:2].real, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("dim", [7, 15])
def test_static_part_is_that_of_the_dense_operator(size, pairs, dim):
    """Against the projector of the ``dim x dim`` operator; at full size, all but what the zeros hold."""
    z = normal(6, 8, dim, seed=size + dim)
    parts, dense = static_part(z, size, pairs), split(z, per_sequence(z), size, pairs)
    torch.testing.assert_close(parts.static, dense.static, rtol=0, atol=1e-8)
    torch.testing.assert_close(parts.static + parts.dynamic, z)
    assert parts.eigenvalues.shape == (6, 7) and (parts.eigenvalues - 1).abs().diff().min() >= 0


def test_static_part_gradcheck():
    z = normal(2, 5, 6, seed=5).requires_grad_()
    for size, pairs in ((1, False), (1, True), (2, True)):
        assert torch.autograd.gradcheck(lambda z, s=size, p=pairs: static_part(z, s, p).static, z)
    assert torch.autograd.gradcheck(lambda z: sequence_eigenvalues(z).abs().sort().values, z)


def test_dependent_frames_are_refused_here_and_routed_there():
    z = normal(4, 6, 9)
    z[1] = z[1, :1]  # constant: rank 1
    z[2, 3] = z[2, 0] - z[2, 1]  # rank 4
    with pytest.raises(ValueError, match=r"z\[1\]: the first 5 frames are linearly dependent"):
        companion.coefficients(z)
    operator = per_sequence(z)
    assert operator.rank.tolist() == [5, 1, 4, 5]
    dense = eigenvalues(operator)
    values = sequence_eigenvalues(z)
    assert ((values == 0).sum(-1) == torch.tensor([0, 4, 1, 0])).all()
    padded = torch.cat([values, values.new_zeros(4, 4)], -1)
    assert matching.optimal(padded, dense).distance.max() < 1e-8
    parts = static_part(z)
    torch.testing.assert_close(parts.static, split(z, operator).static, rtol=0, atol=1e-9)
    assert parts.dynamic[1].abs().max() < 1e-12
    torch.testing.assert_close(parts.eigenvalues, values)
    torch.testing.assert_close(parts.static[::3], static_part(z[::3]).static)
    z.requires_grad_()
    (static_part(z).static.square().sum() + sequence_eigenvalues(z).abs().sum()).backward()
    assert torch.isfinite(z.grad).all() and (z.grad.abs().sum((1, 2)) > 0).all()


def test_zeros_are_no_static_modes():
    """An alternating sequence has rank 1 and eigenvalue -1, farther from 1 than the zeros of its operator."""
    z = normal(6) * torch.tensor([1.0, -1, 1, -1]).unsqueeze(-1)
    parts = static_part(z)
    torch.testing.assert_close(parts.eigenvalues.real, torch.tensor([-1.0, 0, 0]).double())
    torch.testing.assert_close(parts.static, z)
    z = normal(4, 6)
    z[3] = z[1]  # z[3] needs no z[0]: one root is 0
    assert (sequence_eigenvalues(z).abs().sort().values[:2] < 1e-12).tolist() == [True, False]
    torch.testing.assert_close(static_part(z, 1).static, split(z, per_sequence(z)).static)


def test_more_steps_than_dimensions_are_routed():
    z = noisy_system(3, time=12, dim=4)
    with pytest.raises(ValueError, match="12 frames in 4 dimensions"):
        companion.coefficients(z)
    operator = per_sequence(z)
    assert matching.optimal(sequence_eigenvalues(z), eigenvalues(operator)).distance.max() < 1e-12
    torch.testing.assert_close(static_part(z, pairs=True).static, split(z, operator, pairs=True).static)
    z = z[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: static_part(z, 2, True).static, z)
    assert torch.autograd.gradcheck(lambda z: sequence_eigenvalues(z).abs(), z)


def test_a_trend_has_a_defective_static_pair():
    """``z[t] = a + b t``: eigenvalue 1 twice, with one eigenvector. The pair is taken together or not at all."""
    t = torch.arange(4, dtype=torch.float64)
    z = normal(5) + t.unsqueeze(-1) * normal(5, seed=1) + (0.5**t).unsqueeze(-1) * normal(5, seed=2)
    parts = static_part(z, size=2)
    torch.testing.assert_close(parts.dynamic, (0.5**t).unsqueeze(-1) * normal(5, seed=2), rtol=0, atol=1e-9)
    assert parts.condition < 20
    try:  # rounding decides whether the two are equal
        assert static_part(z, size=1).condition > 1e6
    except ValueError as error:
        assert "repeated root" in str(error)


def test_more_modes_than_there_are():
    with pytest.raises(ValueError, match="size: expected a whole number from 1 to 5, got 6"):
        static_part(normal(2, 6, 9), size=6)
    z = normal(2, 6, 9)
    z[1] = z[1, :1]
    with pytest.raises(ValueError, match=r"z\[1\]: size: 2 static modes, but operator has rank 1"):
        static_part(z, size=2)


@pytest.mark.parametrize("function", [companion.coefficients, sequence_eigenvalues, static_part])
def test_bad_input(function):
    for shape in ((3, 1, 4), (0, 5, 6), (4,)):
        with pytest.raises(ValueError, match=r"z: "):
            function(torch.zeros(shape))
    z = normal(2, 3, 4)
    z[1, 2, 0] = torch.nan
    with pytest.raises(ValueError, match=r"z\[1, 2, 0\] is not finite"):
        function(z)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("shape", [(2, 1), (2, 3), (3, 17), (5, 4), (8, 15)])
def test_no_number_that_is_not_finite_is_missed(shape, value):
    for place in np.ndindex(shape):
        z = normal(3, *shape)
        z[(1, *place)] = value
        with pytest.raises(ValueError, match=r"z\[1, \d+, \d+\] is not finite"):
            static_part(z)


def test_any_kind_of_number():
    z = (4 * normal(3, 5, 6)).round()
    wanted = static_part(z)
    for kind in (torch.float32, torch.float16, torch.int64):
        assert torch.equal(static_part(z.to(kind)).static, wanted.static)


def test_mode_of_a_repeated_root_is_refused():
    c = torch.tensor([[-1.0, 2.0], [-0.25, 1.0]]).double()  # (x - 1)^2 and (x - 0.5)^2
    value = torch.tensor([1.0, 0.5], dtype=torch.complex128)
    with pytest.raises(ValueError, match=r"value\[0\] is zero or a repeated root"):
        companion.mode(normal(2, 3, 4), c, value)


@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_properties(seed, time, more):
    """Conjugates come together; a change of coordinates moves the parts along and leaves the spectrum alone."""
    dim = time - 1 + more
    z = normal(2, time, dim, seed=seed)
    values = sequence_eigenvalues(z)
    assert matching.optimal(values, values.conj()).distance.max() < 1e-12
    rotation = torch.linalg.qr(normal(dim, dim, seed=seed + 1)).Q
    condition = float(per_sequence(z).condition.max())
    if condition > 1e5:
        return
    assert matching.optimal(values, sequence_eigenvalues(3 * z @ rotation)).distance.max() < 1e-7
    parts, moved = static_part(z, pairs=True), static_part(z @ rotation, pairs=True)
    torch.testing.assert_close(parts.static + parts.dynamic, z, rtol=0, atol=1e-12 * float(parts.condition.max() + 1))
    near_tie = (parts.eigenvalues - 1).abs().diff(dim=-1)
    if time > 3 and near_tie[near_tie > 1e-12].min() > 1e-3 and parts.condition.max() < 100:
        torch.testing.assert_close(moved.static, parts.static @ rotation, rtol=0, atol=1e-6)

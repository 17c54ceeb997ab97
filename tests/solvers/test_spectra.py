from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kpm.solvers import (
    continuous,
    decompose,
    eigenvalues,
    matching,
    memory_horizon,
    nearest_eigenpair,
    nearest_to_one,
    per_sequence,
    predict,
    projector,
    shared,
    split,
    static_part,
)
from tests.solvers.case import noisy_system


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def similar(core, seed=0):
    """`core` in a random, well-conditioned basis."""
    core = torch.as_tensor(core, dtype=torch.float64)
    basis = torch.eye(len(core), dtype=torch.float64) + 0.3 * normal(*core.shape, seed=seed)
    return basis @ core @ torch.linalg.inv(basis)


JORDAN = [[1.0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, 0], [0, 0, 0, -0.3]]
CASES = {
    "random": normal(6, 6) / 3,
    "batch": normal(2, 3, 5, 5, seed=1),
    "tiny": 1e-120 * normal(4, 4, seed=2),
    "one": torch.tensor([[0.7]], dtype=torch.float64),
    "rank deficient": per_sequence(normal(5, 8, 15)).matrix,
    "repeated": similar(torch.diag(torch.tensor([0.9, 0.9, 0.9, 0.2]))),
    "defective": similar(JORDAN),
    "zero": torch.zeros(3, 3, dtype=torch.float64),
    "nilpotent": similar([[0, 1.0, 0], [0, 0, 1], [0, 0, 0]]),
    "ill-conditioned": torch.diag(torch.tensor([1.0, 1e-3, 1e-6, 1e-9]).double()) + 1e-10 * normal(4, 4),
}
# A double eigenvalue is known to the square root of rounding, a triple one to the cube root.
DIGITS = {"defective": 1e-7, "nilpotent": 1e-4}


@pytest.mark.parametrize("name", CASES)
def test_eigenvalues_against_numpy(name):
    matrix = CASES[name]
    wanted = torch.from_numpy(np.linalg.eigvals(matrix.numpy())).to(torch.complex128)
    scale = max(float(matrix.abs().max()), 1e-300)
    assert matching.optimal(wanted, eigenvalues(matrix)).distance.max() <= DIGITS.get(name, 1e-8) * scale


@pytest.mark.parametrize("name", [name for name in CASES if name != "nilpotent"])
def test_decompose(name):
    """Biorthogonal eigenvectors of all that is not zero; they give the operator back, and all of its powers."""
    matrix = CASES[name]
    spectrum = decompose(matrix)
    m, scale = spectrum.eigenvalues.shape[-1], float(matrix.abs().max())
    values = torch.from_numpy(np.linalg.eigvals(matrix.numpy())).to(torch.complex128)
    lost = DIGITS.get(name, 1e-8)
    assert m == (0 if name == "zero" else torch.linalg.matrix_rank(matrix).max())
    if m == 0:
        return
    padded = torch.nn.functional.pad(spectrum.eigenvalues, (0, matrix.shape[-1] - m))
    assert matching.optimal(values, padded).distance.max() <= lost * scale
    work = matrix.to(torch.complex128)
    assert (work @ spectrum.right - spectrum.right * spectrum.eigenvalues.unsqueeze(-2)).abs().max() < lost * scale
    identity = torch.eye(m, dtype=torch.complex128)
    assert (spectrum.left @ spectrum.right - identity).abs().max() < 1e-13 * spectrum.condition.max()
    again = (spectrum.right * spectrum.eigenvalues.unsqueeze(-2)) @ spectrum.left
    assert (again - work).abs().max() < 1e-13 * scale * spectrum.condition.max()
    assert (spectrum.right.norm(dim=-2) - 1).abs().max() < 1e-12
    assert (spectrum.eigenvalues.abs().diff(dim=-1) <= 0).all()


def test_condition_reports_a_defective_operator():
    assert decompose(CASES["defective"]).condition > 1e6
    assert decompose(CASES["random"]).condition < 1e3
    assert decompose(CASES["one"]).condition == pytest.approx(1)


def test_dependent_eigenvectors_have_no_modes():
    """Nearly dependent ones have, of which the condition number says how many digits are right."""
    block = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"operator\[1\]: .* linearly dependent \(shape \(2, 2, 2\)\)"):
        decompose(torch.stack([torch.eye(2).double(), block]))
    for gap in (1e-3, 1e-6, 1e-9, 1e-12):
        near = block + torch.diag(torch.tensor([0.0, gap]).double())
        # Of the vectors (1, 0) and (1, gap).
        assert decompose(near).condition == pytest.approx(2 / gap, rel=1e-3 + 1e-15 / gap)


def test_defective_zeros_do_not_spoil_the_rest():
    core = [[0, 1.0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0.9, 1], [0, 0, 0, 0, 0.5]]
    matrix = similar(core)
    spectrum = decompose(torch.stack([matrix, similar(np.diag([0.8, 0.7, 0.6, 0, 0]))]))
    torch.testing.assert_close(spectrum.eigenvalues[0, :2].real, torch.tensor([0.9, 0.5]).double())
    assert (spectrum.eigenvalues[0, 2:] == 0).all() and (spectrum.left[0, 2:] == 0).all()
    torch.testing.assert_close(spectrum.eigenvalues[1].real, torch.tensor([0.8, 0.7, 0.6]).double())
    assert spectrum.condition.max() < 100
    left = spectrum.left[0, :2]
    assert (left @ matrix.to(left.dtype) - spectrum.eigenvalues[0, :2, None] * left).abs().max() < 1e-12


def test_amplitudes_and_modes_give_frames_back():
    z = noisy_system(3, time=9, dim=4)
    spectrum = decompose(shared(z))
    amplitudes = spectrum.amplitudes(z)
    assert amplitudes.shape == (3, 9, 4)
    torch.testing.assert_close(spectrum.frames(amplitudes), z)
    each = decompose(per_sequence(z))
    step = each.frames(each.amplitudes(z) * each.eigenvalues.unsqueeze(-2))
    torch.testing.assert_close(step, z @ per_sequence(z).matrix)


def test_eigenvalue_gradients():
    matrix = normal(2, 4, 4, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: eigenvalues(a), matrix)


# Projectors


def dense_projector(matrix, pick):
    values, right = np.linalg.eig(matrix)
    chosen = pick(values)
    return right[:, chosen] @ np.linalg.inv(right)[chosen], chosen


@pytest.mark.parametrize("dim", [1, 2, 5, 15])
def test_projector_against_eigenvectors(dim):
    matrix = normal(3, dim, dim, seed=dim)
    values = eigenvalues(matrix)
    found = projector(matrix, values, values.real > 0)
    for i in range(3):
        wanted, chosen = dense_projector(matrix[i].numpy(), lambda v: v.real > 0)
        np.testing.assert_allclose(found[i].numpy(), wanted, atol=1e-10)
        assert found[i].trace().real == pytest.approx(chosen.sum())
    assert found.imag.abs().max() < 1e-12  # the set holds conjugates


@given(st.integers(0, 10**6), st.integers(1, 8), st.data())
@settings(max_examples=60, deadline=None)
def test_projector_properties(seed, dim, data):
    """Idempotent, commutes with the operator, its complement is the projector of the rest, moves with the basis."""
    matrix = normal(dim, dim, seed=seed) / math.sqrt(dim)
    values = eigenvalues(matrix)
    chosen = torch.tensor(data.draw(st.lists(st.booleans(), min_size=dim, max_size=dim)))
    gaps = (values[chosen].unsqueeze(-1) - values[~chosen]).abs()
    if gaps.numel() and gaps.min() < 1e-2:
        return
    p = projector(matrix, values, chosen)
    digits = 1e-11 * (1 + p.norm() ** 2)
    complex_matrix = matrix.to(p.dtype)
    assert (p @ p - p).abs().max() < digits
    assert (p @ complex_matrix - complex_matrix @ p).abs().max() < digits
    assert (projector(matrix, values, ~chosen) - (torch.eye(dim) - p)).abs().max() < digits
    basis = torch.linalg.qr(normal(dim, dim, seed=seed + 1)).Q
    moved = basis @ matrix @ basis.mT
    turned = eigenvalues(moved)
    again = projector(moved, turned, chosen[matching.optimal(turned, values).index])
    assert (again - basis.to(p.dtype) @ p @ basis.mT.to(p.dtype)).abs().max() < 1e-8 * (1 + p.norm() ** 3)


@pytest.mark.parametrize("name", ["repeated", "defective"])
def test_projector_onto_a_cluster(name):
    """Full precision where eigenvectors lose half the digits or do not exist."""
    core = (
        torch.diag(torch.tensor([0.9, 0.9, 0.9, 0.2]).double()) if name == "repeated" else torch.tensor(JORDAN).double()
    )
    size = 3 if name == "repeated" else 2
    matrix, basis = similar(core), torch.eye(4, dtype=torch.float64) + 0.3 * normal(4, 4)
    wanted = basis[:, :size] @ torch.linalg.inv(basis)[:size]
    values = eigenvalues(matrix)
    chosen = nearest_to_one(values, size)
    found = projector(matrix, values, chosen)
    assert (found - wanted).abs().max() < 1e-13
    matrix.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: torch.view_as_real(projector(a, values, chosen)), matrix, atol=1e-6)


def test_projector_gradcheck():
    """Any set: conjugate pairs whole and cut, a set of all and of none."""
    matrix = normal(2, 5, 5, seed=4)
    values = eigenvalues(matrix)
    matrix.requires_grad_()
    for chosen in (values.real > 0, values.imag > 0, values.real < 9, values.real > 9):
        assert torch.autograd.gradcheck(lambda a, c=chosen: torch.view_as_real(projector(a, values, c)), matrix)


def test_projector_refuses_to_part_equal_eigenvalues():
    matrix = torch.stack(
        [torch.diag(torch.tensor([0.5, 0.2, 0.1])), torch.diag(torch.tensor([0.9, 0.9, 0.1]))]
    ).double()
    chosen = torch.tensor([True, False, False]).expand(2, 3)
    with pytest.raises(ValueError, match=r"operator\[1\]: .* \(shape \(2, 3, 3\)\)"):
        projector(matrix, eigenvalues(matrix), chosen)
    with pytest.raises(ValueError, match=r"chosen: expected bool of shape \(2, 3\), got torch.bool of shape \(3,\)"):
        projector(matrix, eigenvalues(matrix), chosen[0])
    with pytest.raises(ValueError, match=r"values: expected shape \(2, 3\), got \(3,\)"):
        projector(matrix, eigenvalues(matrix)[0], chosen)
    with pytest.raises(ValueError, match="values: expected a torch tensor, got ndarray"):
        projector(matrix, eigenvalues(matrix).numpy(), chosen)
    good = matrix[:1]
    ours = projector(good, eigenvalues(good), chosen[:1].numpy())
    assert torch.equal(ours, projector(good, eigenvalues(good), chosen[:1]))


# Static/dynamic split


def test_nearest_to_one():
    values = torch.tensor([0.9 + 0.1j, 0.9 - 0.1j, 0.97, -1.0, 1.2], dtype=torch.complex128)
    assert nearest_to_one(values).tolist() == [False, False, True, False, False]
    assert nearest_to_one(values, 2).tolist() == [True, False, True, False, False]
    assert nearest_to_one(values, 2, pairs=True).tolist() == [True, True, True, False, False]
    assert nearest_to_one(values, 4, pairs=True).tolist() == [True, True, True, False, True]
    with pytest.raises(ValueError, match="size: expected a whole number from 1 to 5, got 6"):
        nearest_to_one(values, 6)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_split_against_eigenvectors(size, pairs):
    z = noisy_system(4, time=9, dim=5, seed=2)
    operator = shared(z)
    parts = split(z, operator, size, pairs)

    def pick(values):
        chosen = np.argsort(abs(values - 1), kind="stable")[:size]
        return np.flatnonzero(
            [i in chosen or (pairs and np.isclose(v.conj(), values[chosen]).any()) for i, v in enumerate(values)]
        )

    wanted, _ = dense_projector(operator.matrix.numpy(), pick)
    np.testing.assert_allclose(parts.static.numpy(), (z.numpy() @ wanted).real, atol=1e-10)
    torch.testing.assert_close(parts.static + parts.dynamic, z)
    assert parts.condition == pytest.approx(np.linalg.norm(wanted), rel=1e-8)
    assert ((parts.eigenvalues - 1).abs().diff() >= 0).all()
    z = z[:2, :7].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: split(z, shared(z), size, pairs).static, z)


def test_split_static_part_moves_by_the_operator():
    """With whole pairs, both parts evolve by themselves."""
    matrix = similar(np.diag([1.0, 0.5, 0.3]))
    z = torch.cat([normal(1, 3, seed=5), predict(normal(3, seed=5), matrix, 6)])
    parts = split(z, matrix, 1, pairs=True)
    torch.testing.assert_close(parts.static[:-1] @ matrix, parts.static[1:])
    torch.testing.assert_close(parts.dynamic[:-1] @ matrix, parts.dynamic[1:])
    torch.testing.assert_close(parts.static, parts.static[:1].expand(7, 3))


# Continuous time, memory, prediction


def test_continuous():
    s = torch.complex(torch.tensor([-0.3, 0.0, 0.2]).double(), 2 * math.pi * torch.tensor([0.5, -1.0, 2.4]).double())
    found = continuous((s * 0.2).exp(), dt=0.2)
    torch.testing.assert_close(found.rate, s.real)
    torch.testing.assert_close(found.frequency, torch.tensor([0.5, -1.0, 2.4]).double())
    torch.testing.assert_close(found.values, s)
    flat = continuous(torch.tensor([0.0, -1.0]), dt=0.5)
    assert flat.rate.tolist() == [-math.inf, 0] and flat.frequency[1] == 1
    with pytest.raises(ValueError, match="dt: expected a positive"):
        continuous(s, dt=0.0)


def test_memory_horizon():
    values = torch.tensor([0.9999, 0.9965, 0.9942 + 0.0035j, 1.0, 1.1, 0.0], dtype=torch.complex128)
    found = memory_horizon(values)
    assert [round(float(x), 1) for x in found[:3]] == [46049.4, 1313.5, 792.5]  # [KANN] sec. 4.1, recomputed
    assert found[3:].tolist() == [math.inf, math.inf, 0]
    assert memory_horizon(torch.tensor(0.5), eps=0.25) == pytest.approx(2)
    with pytest.raises(ValueError, match="eps"):
        memory_horizon(values, eps=1.0)


@pytest.mark.parametrize("function", [continuous, memory_horizon])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.tensor([[0.5, 0.1], [0.2, math.nan]]), r"values\[1, 1\] is not finite but NaN \(shape \(2, 2\)\)"),
        (torch.tensor(complex(0.5, math.inf)), r"values is not finite but inf \(shape \(\)\)"),
        (np.array([0.5]), "values: expected a torch tensor, got ndarray"),
        (0.5, "values: expected a torch tensor, got float"),
    ],
)
def test_eigenvalues_that_are_none_are_refused(function, values, message):
    with pytest.raises(ValueError, match=message):
        function(values)


def test_a_time_step_without_end_is_refused():
    with pytest.raises(ValueError, match="dt: expected a positive time step, got inf"):
        continuous(torch.tensor([0.5]), dt=math.inf)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 16, 100])
@pytest.mark.parametrize("name", ["random", "defective", "repeated", "nilpotent", "ill-conditioned"])
def test_predict_against_a_loop(name, steps):
    matrix = CASES[name] * 0.9
    z = normal(3, len(matrix), seed=6)
    state, wanted = z.numpy(), []
    for _ in range(steps):
        state = state @ matrix.numpy()
        wanted.append(state)
    found = predict(z, matrix, steps)
    np.testing.assert_allclose(found.numpy(), np.stack(wanted, 1), atol=1e-12, rtol=1e-9)
    last = z.numpy() @ np.linalg.matrix_power(matrix.numpy(), steps)
    np.testing.assert_allclose(found[:, -1].numpy(), last, atol=1e-12, rtol=1e-9)


def test_predict_per_sequence_reproduces_the_sequence():
    z = normal(4, 8, 15, seed=7)
    operator = per_sequence(z)
    torch.testing.assert_close(predict(z[:, 0], operator, 7), z[:, 1:], rtol=0, atol=1e-9)
    matrix = (normal(3, 3) / 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, x: predict(x, a, 5), (matrix, normal(2, 3).requires_grad_()))


def test_predict_bad_input():
    with pytest.raises(ValueError, match=r"prediction\[1, 2, 0\] is not finite but inf: the operator"):
        predict(torch.tensor([[0.0], [1.0]]), torch.tensor([[1e120]], dtype=torch.float64), 4)
    with pytest.raises(ValueError, match="steps: expected"):
        predict(torch.zeros(2), torch.eye(2), 0)
    with pytest.raises(ValueError, match=r"operator: shape \(2, 2\) does not fit z0 of shape \(3,\)"):
        predict(torch.zeros(3), torch.eye(2), 1)
    for z0, kind in ((np.zeros(2), "ndarray"), ([0.0, 0.0], "list")):
        with pytest.raises(ValueError, match=f"z0: expected a torch tensor, got {kind}"):
            predict(z0, torch.eye(2), 1)


def test_predict_takes_whole_numbers_of_numpy():
    matrix = normal(2, 2) / 2
    assert torch.equal(predict(torch.ones(2), matrix, np.int64(3)), predict(torch.ones(2), matrix, 3))


@pytest.mark.parametrize("size", [0, 5, True])
def test_errors_about_the_size_name_what_the_caller_calls_it(size):
    z = normal(3, 5, 4)
    for call in (lambda **name: static_part(z, size, **name), lambda **name: split(z, shared(z), size, **name)):
        with pytest.raises(ValueError, match=r"^size: expected a whole number from 1 to 4, got"):
            call()
        with pytest.raises(ValueError, match=r"^static_size: expected a whole number from 1 to 4, got"):
            call(name="static_size")


# Shifted inverse iteration


def test_nearest_eigenpair_against_scipy():
    matrix = torch.stack(
        [
            similar(np.diag(d), seed=i)
            for i, d in enumerate(
                [[0.99, 0.9, 0.5, -0.2], [1.0, 0.98, 0.97, 0.1], [1.02, 0.3, 0.2, 0.1], [1 + 1e-12, 0.9999, 0.5, 3.0]]
            )
        ]
    )
    pair = nearest_eigenpair(matrix)
    assert pair.converged.all() and pair.residual.max() < 1e-12
    for i in range(4):
        values, left, right = scipy.linalg.eig(matrix[i].numpy(), left=True)
        j = np.abs(values - 1).argmin()
        assert pair.value[i].item() == pytest.approx(values[j].real, abs=1e-10)
        p = np.outer(right[:, j], left[:, j].conj()) / (left[:, j].conj() @ right[:, j])
        found = torch.outer(pair.right[i], pair.left[i])
        np.testing.assert_allclose(found.numpy(), p.real, atol=1e-8)
    assert (pair.right.norm(dim=-1) - 1).abs().max() < 1e-12
    assert ((pair.left * pair.right).sum(-1) - 1).abs().max() < 1e-12


def test_nearest_eigenpair_of_an_exact_static_mode():
    """The shift is the eigenvalue itself."""
    pair = nearest_eigenpair(torch.diag(torch.tensor([1.0, 0.5, 0.25])))
    assert pair.converged and pair.value == pytest.approx(1, abs=1e-15)
    torch.testing.assert_close(pair.right, torch.tensor([1.0, 0, 0]).double())


def test_nearest_eigenpair_gradcheck():
    matrix = similar(np.diag([0.97, 0.6, -0.4, 0.1])).requires_grad_()

    def outputs(a):
        pair = nearest_eigenpair(a)
        assert pair.value.requires_grad and pair.right.requires_grad and pair.left.requires_grad
        return pair.value, pair.right, pair.left

    assert torch.autograd.gradcheck(outputs, matrix)


def test_nearest_eigenpair_says_where_there_is_none():
    rotation = torch.tensor([[0.9, -0.3, 0], [0.3, 0.9, 0], [0, 0, 0.1]]).double()
    matrix = torch.stack(
        [
            rotation,
            torch.diag(torch.tensor([0.9, 0.5, 0.1])).double(),
            similar(JORDAN)[:3, :3],
            torch.eye(3, dtype=torch.float64),
        ]
    )
    matrix[2] = torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 0, 0.5]])
    matrix.requires_grad_()
    pair = nearest_eigenpair(matrix)
    assert pair.converged.tolist() == [False, True, False, False]
    assert pair.residual[0] > 1e-3
    (pair.value.sum() + pair.right.sum() + pair.left.sum()).backward()
    assert torch.isfinite(matrix.grad).all()


@pytest.mark.parametrize("function", [eigenvalues, decompose, nearest_eigenpair])
def test_bad_operators(function):
    with pytest.raises(ValueError, match=r"operator: expected real \(\*batch, dim, dim\), got .*\(2, 3\)"):
        function(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"operator: nothing to work on, shape \(0, 3, 3\)"):
        function(torch.zeros(0, 3, 3))
    with pytest.raises(ValueError, match=r"operator\[1, 0, 2\] is not finite"):
        bad = torch.zeros(2, 3, 3)
        bad[1, 0, 2] = torch.inf
        function(bad)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_is_the_same():
    z = normal(4, 8, 15)
    for a, b in zip(vars(split(z.cuda(), per_sequence(z.cuda()))).values(), vars(split(z, per_sequence(z))).values()):
        torch.testing.assert_close(a.cpu(), b, rtol=0, atol=1e-9)

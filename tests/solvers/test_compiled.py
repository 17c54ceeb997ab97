"""Compiled companion forms against LAPACK, 40-digit arithmetic and the way with gradients."""

from __future__ import annotations

import multiprocessing

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from kpm.solvers import companion, compiled, static_part
from tests.processes import ended, start


def lapack(c: np.ndarray) -> np.ndarray:
    return np.linalg.eigvals(companion.matrix(torch.from_numpy(c)).numpy())


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Largest distance of two spectra, matched one to one."""
    distance = np.abs(a[:, None] - b)
    return distance[linear_sum_assignment(distance)].max()


def backward_error(c: np.ndarray, values: np.ndarray) -> float:
    """How far the polynomial with these roots is from the one asked for, in units of its largest coefficient."""
    with mpmath.workdps(40):
        product = [mpmath.mpc(1)]  # highest power first
        for value in values:
            root, padded = mpmath.mpc(complex(value)), [*product, mpmath.mpc(0)]
            product = [a - root * b for a, b in zip(padded, [mpmath.mpc(0), *product])]
        wanted = [mpmath.mpf(1), *(-mpmath.mpf(float(x)) for x in c[::-1])]
        return float(max(abs(a - b) for a, b in zip(product, wanted)) / max(abs(b) for b in wanted))


@pytest.mark.parametrize("order", [1, 2, 3, 7, 9, 20, 60])
def test_random_polynomials_have_the_roots_lapack_finds(order):
    c = np.random.default_rng(order).normal(size=(200, order))
    values = compiled.roots(c)
    assert values.dtype == np.complex128
    assert max(apart(v, w) for v, w in zip(values, lapack(c))) < 1e-9
    sums = values.sum(-1)
    np.testing.assert_allclose(sums.real, c[:, -1], atol=1e-11)
    np.testing.assert_allclose(sums.imag, 0, atol=1e-11)


@pytest.mark.parametrize(
    "roots",
    [
        np.arange(1.0, 11),  # ill-conditioned roots
        np.full(6, 0.9),  # one root six times
        np.array([1.0, 1.0, -1.0, -1.0, 0.0, 0.0]),
        10.0 ** np.arange(-6, 6),  # twelve orders of magnitude
        np.exp(2j * np.pi * np.arange(8) / 8),  # all on a circle: where unshifted steps stand still
        np.zeros(5),
        np.array([1.0, 1.0, 0.5, -0.3]),
        np.array([1j, 1j, -1j, -1j, 0.5]),
        np.array([1.0, 1 + 1e-9, 0.5, 0.2]),
        1e-60 * np.arange(1.0, 6),
        1e60 * np.arange(1.0, 6),
    ],
    ids=[
        "wilkinson",
        "sixfold",
        "double",
        "scales",
        "circle",
        "zeros",
        "double-single",
        "double-pair",
        "nearly-double",
        "tiny",
        "huge",
    ],
)
def test_hard_polynomials_are_solved_as_well_as_by_lapack(roots):
    c = -np.poly(roots).real[:0:-1].copy()
    found = compiled.roots(c[None])[0]
    assert backward_error(c, found) <= 10 * backward_error(c, lapack(c[None])[0]) + 1e-14


@settings(max_examples=200, deadline=None)
@given(arrays(np.float64, st.integers(1, 9), elements=st.floats(-1e3, 1e3).map(lambda x: round(x, 3))))
def test_any_polynomial(c):
    assert backward_error(c, compiled.roots(c[None])[0]) < 1e-11


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("shape", [(5, 2, 1), (40, 2, 3), (300, 8, 15), (7, 3, 8, 7), (8, 15)])
def test_the_way_without_gradient_gives_what_the_way_with_it_gives(shape, pairs):
    z = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    plain = static_part(z, pairs=pairs)
    live = static_part(z.clone().requires_grad_(), pairs=pairs)
    assert not plain.static.requires_grad and live.static.requires_grad
    torch.testing.assert_close(plain.eigenvalues, live.eigenvalues.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(plain.condition, live.condition, rtol=1e-7, atol=0)
    error = (plain.static - live.static.detach()).abs().amax((-2, -1)) / plain.condition
    assert error.max() < 1e-10
    assert (plain.static + plain.dynamic - z).abs().max() < 1e-12


@pytest.mark.parametrize(
    "time, dim, noise", [(2, 1, 0), (3, 40, 0), (8, 15, 0), (10, 9, 0), (8, 16, 1e-6), (12, 17, 0)]
)
def test_coefficients_are_those_of_least_squares(time, dim, noise):
    """Also where frames are nearly dependent: with `noise`, two are equal but for that."""
    z = np.random.default_rng(dim).normal(size=(20, time, dim))
    if noise:
        z[:, 3] = z[:, 1] + noise * z[:, 3]
    c, fault = np.empty((20, time - 1)), np.zeros(20, np.int64)
    compiled._coefficients(z, c, fault)
    assert not fault.any()
    wanted = np.stack([np.linalg.lstsq(s[:-1].T, s[-1])[0] for s in z])
    np.testing.assert_allclose(c, wanted, rtol=0, atol=1e-14 / (noise or 1e-3) * abs(wanted).max())


def test_sequences_near_a_fault_are_not_touched_by_it():
    """One group holds dependent frames, a repeated root, roots left to the slow way, and plain sequences."""
    rng = np.random.default_rng(8)
    z = rng.normal(size=(16, 5, 6))
    z[3, 2] = z[3, 1]
    z[7, 4] = np.poly([1, 1, 1, 1])[:0:-1] @ z[7, :4] * -1
    z[11] = 0
    static, dynamic, values, condition, fault = compiled.static_parts(z, True)
    plain = np.delete(np.arange(16), [3, 7, 11])
    assert fault[[3, 11]].tolist() == [1, 1] and not fault[plain].any()
    for b in plain:
        alone = compiled.static_parts(z[b : b + 1], True)
        for one, many in zip(alone, (static, dynamic, values, condition, fault)):
            assert np.array_equal(one[0], many[b])


def test_roots_of_any_size_are_in_order():
    """Distances to 1 whose squares overflow; exact zeros last."""
    c = np.zeros((1, 4))
    c[0, 3] = -1e200  # roots -1e200, 0, 0, 0
    values = compiled.roots(c)[0]
    compiled._sort(values, np.empty(4))
    assert values[0] == -1e200 and not values[1:].any()
    values = np.array([0, 3e180, 1 + 1e-170j, 2e180, 1, 1 - 1e-170j, 1.5], complex)
    compiled._sort(values, np.empty(7))
    assert values.tolist() == [1, 1 + 1e-170j, 1 - 1e-170j, 1.5, 2e180, 3e180, 0]


def test_faults_are_told_apart():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4, 4, 5))
    z[1, 1] = 2 * z[1, 0]  # dependent
    z[2, 3] = z[2, 0] - 3 * z[2, 1] + 3 * z[2, 2]  # roots 1, 1, 1
    z[3, 0] = 0
    *_, fault = compiled.static_parts(z, False)
    assert fault.tolist()[:2] == [0, 1] and fault[3] == 1
    # a threefold root is found as three near ones, whose mode is large, or as a repeated one
    *_, values, condition, _ = compiled.static_parts(z[2:3], False)
    assert abs(values - 1).max() < 1e-4 and (fault[2] == 2 or condition[0] > 1e6)


def test_numbers_beyond_all_bounds_are_named():
    c = np.ones((3, 4))
    c[1, 2] = np.inf
    with pytest.raises(ValueError, match=r"c\[1\]: no eigenvalues"):
        compiled.roots(c)


@pytest.mark.parametrize(
    "row",
    [[1e308] * 4, [0.5e308] * 3, [1e307] * 30, [1.5e308, 0.5e308, 1], [0, 0, 1.7e308], [5e-324, 0, 1e308, 1]],
    ids=["sum", "four times", "many", "uneven", "one", "far apart"],
)
def test_numbers_whose_sum_overflows_have_roots_or_an_error(row):
    """In a process of its own, since a loop in machine code that does not end cannot be interrupted."""
    c = np.array([row])
    compiled.roots(np.ones((1, 4)))  # the code is there before the process is copied

    def body() -> int:
        try:
            values = compiled.roots(c)[0]
        except ValueError as error:
            return 0 if str(error).startswith("c[0]: no eigenvalues for coefficients") else 2
        with mpmath.workdps(30):
            total = mpmath.fsum(map(mpmath.mpc, values))
            return 0 if abs(total - row[-1]) <= 1e-12 * mpmath.mpf(abs(values).max()) else 3

    assert ended(start(body)) == 0


def test_threads_and_strides_change_nothing():
    z = np.random.default_rng(1).normal(size=(501, 15, 8)).transpose(0, 2, 1)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append((*compiled.static_parts(z, True), compiled.roots(z[:, 0, ::2])))
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*results))


def _solve(z: np.ndarray, out: multiprocessing.Queue) -> None:
    out.put(compiled.roots(z))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own():
    c = np.random.default_rng(2).normal(size=(300, 5))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        here = compiled.roots(c)  # the pool exists by now
        context = multiprocessing.get_context("fork")
        out = context.Queue()
        process = context.Process(target=_solve, args=(c, out), daemon=True)
        process.start()
        try:
            assert np.array_equal(out.get(timeout=30), here)
        finally:
            process.kill()
    finally:
        torch.set_num_threads(before)

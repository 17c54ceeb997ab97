"""Simultaneous roots in lanes: against 50-digit arithmetic and Francis's shifts, and what must be left to those."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kpm.solvers import aberth, compiled, francis
from tests.solvers.test_compiled import apart, backward_error

EPS = np.finfo(np.float64).eps


def find(c):
    """Roots, and which rows were lost."""
    values, lost = np.empty(c.shape, np.complex128), np.empty(len(c), bool)
    aberth.roots(np.ascontiguousarray(c), values, lost)
    return values, lost


def shifted(c):
    """Roots by the other way."""
    values, lost = np.empty(c.shape, np.complex128), np.ones(len(c), bool)
    francis.roots(np.ascontiguousarray(c), values, lost)
    assert not lost.any()
    return values


def exact(c, start):
    """To 50 digits, in the order of the nearest of `start`."""
    with mpmath.workdps(50):
        polynomial = [1, *(-mpmath.mpf(float(x)) for x in c[::-1])]
        start = [mpmath.mpc(complex(v)) for v in start]
        true = np.array([complex(x) for x in mpmath.polyroots(polynomial, 100, extraprec=150, roots_init=start)])
    place = np.abs(np.array(start, complex)[:, None] - true).argmin(-1)
    assert sorted(place) == list(range(len(c)))
    return true[place]


def coefficients(roots):
    return -np.poly(roots).real[:0:-1].copy()


def drawn(kind, order, count, seed=0):
    """Coefficients whose roots are drawn: how many are real is drawn too, and so are their sizes and angles."""
    rng = np.random.default_rng(seed)
    if kind == "normal":
        return rng.normal(size=(count, order))
    rows = []
    for _ in range(count):
        pairs = rng.integers(0, order // 2 + 1)
        size, angle, sign = {
            "disc": lambda m: (np.sqrt(rng.random(m)), np.pi * rng.random(m), rng.choice([-1, 1], m)),
            "slow": lambda m: (rng.uniform(0.8, 1, m), rng.uniform(0.02, 0.8, m), np.ones(m)),
            "wide": lambda m: (10 ** rng.uniform(-4, 1, m), np.pi * rng.random(m), rng.choice([-1, 1], m)),
        }[kind](order)
        upper = size[:pairs] * np.exp(1j * angle[:pairs])
        real = size[pairs : order - pairs] * sign[pairs : order - pairs]
        rows.append(coefficients(np.concatenate([upper, upper.conj(), real])))
    return np.array(rows)


@pytest.mark.parametrize("order", [3, 4, 7, 9])
@pytest.mark.parametrize("kind", ["normal", "disc", "wide"])
def test_roots_are_as_right_as_their_coefficients_allow(kind, order):
    """By the error that is allowed to coefficients, to first order; and about as near as roots from shifts.

    Mostly they are nearer, but how much depends on whether the machine multiplies and adds in one rounding.
    """
    c = drawn(kind, order, 12)
    values, lost = find(c)
    assert lost.sum() < 2
    errors = []
    for row, found, other in zip(c[~lost], values[~lost], shifted(c[~lost])):
        error = np.abs(found - exact(row, found))
        between, sizes = np.abs(found[:, None] - found) + np.eye(order), np.abs(found)
        assert (error <= 8 * order * EPS * (sizes[:, None] + sizes).prod(-1) / between.prod(-1)).all()
        errors.append([(error / sizes).max(), (np.abs(other - exact(row, other)) / np.abs(other)).max()])
    ours, theirs = np.median(errors, 0)
    assert ours <= 2 * theirs


@pytest.mark.parametrize("order", [3, 4, 5, 6, 7, 8, 9, 10, 24, 60])
def test_ordinary_polynomials_are_not_lost(order):
    values, lost = find(drawn("normal", order, 320))
    assert lost.mean() <= (0.05 if order > 24 else 0)
    values = values[~lost]
    below = values[values.imag < 0]
    assert np.array_equal(np.sort_complex(below.conj()), np.sort_complex(values[values.imag > 0]))


@pytest.mark.parametrize("order", [3, 7, 9])
@pytest.mark.parametrize("kind", ["disc", "slow"])
def test_sensitive_roots_are_right_together(kind, order):
    """Roots near 1 are right to half the digits only, but their product is the polynomial, as with shifts."""
    c = drawn(kind, order, 40, seed=order)
    values, lost = find(c)
    assert lost.mean() < 0.7
    ours = [backward_error(*pair) for pair in zip(c[~lost], values[~lost])]
    assert max(ours) < 4 * max(backward_error(*pair) for pair in zip(c, shifted(c)))
    assert apart(find(coefficients(np.arange(1.0, 11))[None])[0][0], np.arange(1.0, 11)) < 1e-8


LEFT = {
    "sixfold": np.full(6, 0.9),
    "zero": np.array([0, 0.5, 0.3]),
    "zeros": np.zeros(4),
    "eleven orders of magnitude": 10.0 ** np.arange(-6, 6),
    "one": np.array([0.5]),
    "two": np.array([0.6 + 0.7j, 0.6 - 0.7j]),
    "tiny": 1e-60 * np.arange(1.0, 6),
    "huge": 1e60 * np.arange(1.0, 6),
}


@pytest.mark.parametrize("roots", LEFT.values(), ids=LEFT)
def test_hard_polynomials_are_left_to_shifts(roots):
    """Two ordinary ones on either side are not, and do not change."""
    c = coefficients(roots)
    rows = np.array([[*c], *drawn("normal", len(c), 2)])[[1, 0, 2]]
    values, lost = find(rows)
    few = len(c) < 3
    assert lost.tolist() == [few, True, few]
    assert np.array_equal(compiled.roots(rows)[1], shifted(c[None])[0])
    assert few or np.array_equal(values[::2], find(rows[::2])[0])


def test_numbers_that_are_not_finite_stay_in_their_lane():
    c = drawn("normal", 7, 16)
    before, _ = find(c)
    for b, value in enumerate([np.nan, np.inf, -np.inf, 1e308]):
        c[4 * b, b] = value
    values, lost = find(c)
    assert np.flatnonzero(lost).tolist() == [0, 4, 8, 12]
    assert np.array_equal(values[~lost], before[~lost])


@pytest.mark.parametrize("large", [1e155, 1e160, 1e200])
def test_a_product_that_overflows_proves_nothing(large):
    """One root is `large`, the others are tiny; wrong roots whose product is infinite once passed for right ones."""
    c = np.array([[-1e-10, 0, 0, 0, 0, 0, 0, large]])
    assert find(c)[1].tolist() == [True]
    values = compiled.roots(c)[0]
    assert abs(values - large).min() <= 4 * EPS * large
    assert np.sort(abs(values))[:-1].max() < 1e-20
    assert backward_error(c[0], values) < 1e-15


@pytest.mark.parametrize("order", [7, 8])
@pytest.mark.parametrize("count", [1, 3, 8, 9, 16, 17, 257])
def test_a_row_does_not_depend_on_the_batch(count, order):
    """Bit for bit: lanes that take longer, and those that fill up the last group, change nothing."""
    c = np.concatenate([drawn("normal", order, 200), drawn("slow", order, 57)])
    c = c[np.random.default_rng(3).permutation(257)]
    whole, none = find(c)
    values, lost = find(c[:count])
    assert np.array_equal(lost, none[:count])
    assert np.array_equal(values[~lost], whole[:count][~lost])
    turned, again = find(c[::-1])
    assert np.array_equal(again[::-1], none) and np.array_equal(turned[::-1][~none], whole[~none])


@settings(max_examples=300, deadline=None)
@given(arrays(np.float64, st.integers(3, 10), elements=st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)))
def test_sum_and_product(c):
    """What is found has the sum and product that the coefficients say, to rounding as measured by magnitudes."""
    values, lost = find(c[None])
    if lost[0]:
        values[0] = shifted(c[None])[0]
        assert backward_error(c, values[0]) < 1e-10
        return
    bound = 8 * len(c) * EPS
    with mpmath.workdps(40):
        sizes = [abs(mpmath.mpc(v)) for v in values[0]]
        assert abs(mpmath.fsum(map(mpmath.mpc, values[0])) - c[-1]) <= bound * mpmath.fsum(sizes)
        product = mpmath.fprod(mpmath.mpc(-v) for v in values[0])
        assert abs(product + c[0]) <= bound * mpmath.fprod(sizes)


@pytest.mark.parametrize("order", [3, 5, 8])
def test_clusters_are_right_or_lost(order):
    """Repeated and nearly repeated roots, of which repairs make anything: no number runs out of its place."""
    rng = np.random.default_rng(order)
    c = np.array([coefficients(rng.choice([1, 1 + 1e-7, -1, 0.5, 0.9], order)) for _ in range(300)])
    values, lost = find(c)
    assert lost.mean() > 0.2 and np.isfinite(values[~lost]).all()
    errors = [backward_error(*pair) for pair in zip(c[~lost], values[~lost])]
    assert max(errors, default=0) < 4 * order * 2**order * EPS
    assert np.array_equal(compiled.roots(c)[~lost], values[~lost])
    assert np.array_equal(compiled.roots(c)[lost], shifted(c[lost]))

"""Companion forms of many short sequences in machine code: coefficients, roots and static parts.

A batch of small problems spends its time between the calls of a library, not in them. These loops do what
`kpm.solvers.companion` says, for values without gradient. Coefficients come from modified Gram-Schmidt on the frames
and the last one beside them, which solves the least-squares problem as stably as reflections do (Bjorck, 1967); roots
from `kpm.solvers.aberth`, sixteen sequences at a time, and those not found there from `kpm.solvers.francis`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kpm.solvers import aberth, francis
from kpm.solvers.machine import compiled, in_threads

_EPS = float(np.finfo(np.float64).eps)
_BLOCK = 16  # frames are filled up with zeros to a multiple of this, so that no numbers are left over for slow loops


def roots(c: NDArray) -> NDArray:
    """Eigenvalues complex128 ``(n, order)`` of companion matrices with coefficients float64 ``(n, order)``.

    Conjugates stand side by side, exactly. Values do not depend on what else is in the batch, bit for bit.

    Raises
    ------
    ValueError
        If a coefficient is not finite, or the iteration does not end (never seen so far); names the index.
    """
    c = np.ascontiguousarray(c)
    values, lost = np.empty(c.shape, np.complex128), np.empty(len(c), np.bool)
    in_threads(_roots, c, values, lost)
    if lost.any():
        first = int(lost.argmax())
        raise ValueError(f"c[{first}]: no eigenvalues for coefficients {c[first]} (shape {c.shape})")
    return values


def static_parts(z: NDArray, both: bool) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    """Static part of each sequence by its root nearest 1.

    Parameters
    ----------
    z : ndarray
        float64 ``(n, time, dim)``, ``2 <= time <= dim + 1``.
    both : bool
        Whether a complex root's partner counts too.

    Returns
    -------
    static, dynamic : ndarray
        Like `z`, which is their sum.
    values : ndarray
        complex128 ``(n, time - 1)``, nearest to 1 first, exact zeros last.
    condition : ndarray
        ``(n,)``, of the static mode.
    fault : ndarray
        int64 ``(n,)``: 0; 1 where frames are dependent, 2 where the static root is zero or repeated, 3 where no roots
        were found. All else is then undefined.
    """
    z = np.ascontiguousarray(z)
    n, time, _ = z.shape
    static, dynamic, values = np.empty_like(z), np.empty_like(z), np.empty((n, time - 1), np.complex128)
    condition, fault = np.empty(n), np.zeros(n, np.int64)
    in_threads(lambda *a: _static_parts(*a, both), z, static, dynamic, values, condition, fault)
    return static, dynamic, values, condition, fault


def _roots(c: NDArray, values: NDArray, lost: NDArray) -> None:
    aberth.roots(c, values, lost)
    if lost.any():
        francis.roots(c, values, lost)


def _static_parts(
    z: NDArray, static: NDArray, dynamic: NDArray, values: NDArray, condition: NDArray, fault: NDArray, both: bool
) -> None:
    c, lost = np.empty(values.shape), np.empty(len(z), np.bool)
    _coefficients(z, c, fault)
    _roots(c, values, lost)
    fault[lost] = 3
    _modes(z, c, values, both, static, dynamic, condition, fault)


@compiled
def _coefficients(z, c, fault):
    """How the last frames are best written in terms of those before them.

    Where these are dependent, `fault` becomes 1 and `c` any coefficients that have roots. Frames are copied to rows
    that are wider, by zeros.
    """
    n, time, dim = z.shape
    v = np.zeros((time, (dim + _BLOCK - 1) // _BLOCK * _BLOCK))
    r = np.empty((time - 1, time - 1))
    for b in range(n):
        for t in range(time):
            for k in range(dim):
                v[t, k] = z[b, t, k]
        if not _gram_schmidt(v, r, c[b], _EPS * dim):
            fault[b] = 1
            for k in range(time - 1):
                c[b, k] = 1.0 if k == 0 else 0.0


@compiled
def _modes(z, c, values, both, static, dynamic, condition, fault):
    n, time, dim = z.shape
    order = time - 1
    left, distance, mode = np.empty(order, np.complex128), np.empty(order), np.empty((2, dim))
    for b in range(n):
        if fault[b] != 0:
            continue
        _sort(values[b], distance)
        value = values[b, 0]
        # The left eigenvector is the quotient of the polynomial by (x - value); the derivative scales it.
        left[order - 1] = 1.0
        slope = complex(1.0)
        for j in range(order - 1, 0, -1):
            left[j - 1] = value * left[j] - c[b, j]
            slope = value * slope + left[j - 1]
        scale = value * slope
        if scale == 0.0:
            fault[b] = 2
            continue
        length = 0.0
        mode[:] = 0.0
        for j in range(order):
            weight = left[j] / scale
            length += weight.real * weight.real + weight.imag * weight.imag
            for k in range(dim):
                mode[0, k] += weight.real * z[b, j + 1, k]
                mode[1, k] += weight.imag * z[b, j + 1, k]
        if both and value.imag != 0.0:
            mode *= 2.0
        power, powers = complex(1.0), 0.0
        for t in range(time):
            if t > 0:
                powers += power.real * power.real + power.imag * power.imag
            re, im = power.real, power.imag
            for k in range(dim):
                part = re * mode[0, k] - im * mode[1, k]
                static[b, t, k] = part
                dynamic[b, t, k] = z[b, t, k] - part
            power *= value
        condition[b] = math.sqrt(length) * math.sqrt(powers)


@compiled
def _gram_schmidt(v, r, c, least_ratio):
    """`c` such that the last row of `v` is nearest to ``c @ v[:-1]``; False if these rows are dependent. `v` is lost.

    Rows are not scaled, so that none waits for a square root, and reduced two at a time.
    """
    order, wide = v.shape[0] - 1, v.shape[1]
    least, most = np.inf, 0.0
    for j in range(order):
        square = 0.0
        for k in range(wide):
            square += v[j, k] * v[j, k]
        least, most = min(least, square), max(most, square)
        if square == 0.0:
            return False
        scale = 1.0 / square
        for i in range(j + 1, order, 2):
            one = two = 0.0
            for k in range(wide):
                one += v[j, k] * v[i, k]
                two += v[j, k] * v[i + 1, k]
            one *= scale
            two *= scale
            for k in range(wide):
                v[i, k] -= one * v[j, k]
                v[i + 1, k] -= two * v[j, k]
            r[j, i] = one
            if i + 1 < order:
                r[j, i + 1] = two
            else:
                c[j] = two
        if (order - j) % 2 == 1:
            one = 0.0
            for k in range(wide):
                one += v[j, k] * v[order, k]
            one *= scale
            for k in range(wide):
                v[order, k] -= one * v[j, k]
            c[j] = one
    if math.sqrt(least) <= math.sqrt(most) * least_ratio:
        return False
    for j in range(order - 1, -1, -1):
        for i in range(j + 1, order):
            c[j] -= r[j, i] * c[i]
    return True


@compiled
def _sort(values, distance):
    """By distance to 1, conjugates in their order, exact zeros last."""
    for i in range(len(values)):
        value = values[i]
        x, y = value.real - 1.0, value.imag
        mine = math.sqrt(x * x + y * y)
        if not 1e-150 < mine < 1e150:
            mine = abs(value - 1.0)  # slow, but does not overflow
        if value == 0.0:
            mine = np.inf
        j = i - 1
        while j >= 0 and distance[j] > mine:
            values[j + 1], distance[j + 1] = values[j], distance[j]
            j -= 1
        values[j + 1], distance[j + 1] = value, mine

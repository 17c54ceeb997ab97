"""Companion forms of many short sequences, one after the other in machine code: coefficients, roots and static parts.

A batch of small problems spends its time between the calls of a library, not in them. These loops do what
`kpm.solvers.companion` says, for values without gradient, and are compiled at their first use (Numba; the machine code
is kept on disk). Coefficients come from modified Gram-Schmidt on the frames and the last one beside them, which solves
the least-squares problem as stably as reflections do (Bjorck, 1967); roots from Francis's double shifts on the balanced
companion matrix, as in EISPACK and LAPACK (Wilkinson and Reinsch, *Linear Algebra*, 1971, II/11 and II/14).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numba
import numpy as np
import torch
from numpy.typing import NDArray

_EPS = float(np.finfo(np.float64).eps)
_SWEEPS = 60  # steps for one eigenvalue before giving up; two or three are usual
_SHARE = 64  # sequences that are worth a thread

# Sums may be taken in any order, so that they fill vector registers, and quotients by way of reciprocals; NaN and
# infinity stay what they are.
_compile = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp"})


def roots(c: NDArray) -> NDArray:
    """Eigenvalues complex128 ``(n, order)`` of companion matrices with coefficients float64 ``(n, order)``.

    Raises
    ------
    ValueError
        If a coefficient is not finite, or the iteration does not end (never seen so far); names the index.
    """
    c = np.ascontiguousarray(c)
    values = np.empty(c.shape, np.complex128)
    _in_threads(_roots, c, values)
    lost = np.isnan(values.real).any(-1)
    if lost.any():
        first = int(lost.argmax())
        raise ValueError(f"c[{first}]: no eigenvalues for coefficients {c[first]} (shape {c.shape})")
    return values


def static_parts(z: NDArray, both: bool) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Static part of each sequence by its root nearest 1.

    Parameters
    ----------
    z : ndarray
        float64 ``(n, time, dim)``, ``2 <= time <= dim + 1``.
    both : bool
        Whether a complex root's partner counts too.

    Returns
    -------
    static : ndarray
        Like `z`.
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
    static, values = np.empty_like(z), np.empty((n, time - 1), np.complex128)
    condition, fault = np.empty(n), np.empty(n, np.int64)
    _in_threads(lambda *a: _static_parts(*a, both), z, static, values, condition, fault)
    return static, values, condition, fault


def _in_threads(function: Callable[..., None], *arrays: NDArray) -> None:
    """`function` of pieces of the arrays, in as many threads as PyTorch may use and the batch is worth."""
    count = min(torch.get_num_threads(), len(arrays[0]) // _SHARE)
    if count < 2:
        function(*arrays)
        return
    edges = np.linspace(0, len(arrays[0]), count + 1).astype(int)
    pieces = [[a[i:j] for a in arrays] for i, j in zip(edges, edges[1:])]
    waiting = [_pool().submit(function, *piece) for piece in pieces[1:]]
    function(*pieces[0])
    for piece in waiting:
        piece.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="kpm-companion")


if hasattr(os, "register_at_fork"):  # a forked process has the pool but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


@_compile
def _roots(c, values):
    order = c.shape[1]
    h = np.empty((order, order))
    for b in range(len(c)):
        if not _eigenvalues(c[b], h, values[b]):
            values[b, 0] = np.nan


@_compile
def _static_parts(z, static, values, condition, fault, both):
    n, time, dim = z.shape
    order = time - 1
    v, c = np.empty((time, dim)), np.empty(order)
    h, left = np.empty((order, order)), np.empty(order, np.complex128)
    mode = np.empty((2, dim))
    for b in range(n):
        fault[b] = 0
        if not _coefficients(z[b], v, h, c):
            fault[b] = 1
            continue
        if not _eigenvalues(c, h, values[b]):
            fault[b] = 3
            continue
        _sort(values[b])
        value = values[b, 0]
        # The left eigenvector is the quotient of the polynomial by (x - value); the derivative scales it.
        left[order - 1] = 1.0
        slope = complex(1.0)
        for j in range(order - 1, 0, -1):
            left[j - 1] = value * left[j] - c[j]
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
                static[b, t, k] = re * mode[0, k] - im * mode[1, k]
            power *= value
        condition[b] = math.sqrt(length) * math.sqrt(powers)


@_compile
def _coefficients(z, v, r, c):
    """How the last frame is best written in terms of those before it; False where these are dependent."""
    time, dim = z.shape
    order = time - 1
    v[:] = z
    least, most = np.inf, 0.0
    for j in range(order):
        square = 0.0
        for k in range(dim):
            square += v[j, k] * v[j, k]
        norm = math.sqrt(square)
        r[j, j] = norm
        least, most = min(least, norm), max(most, norm)
        if norm == 0.0:
            return False
        for k in range(dim):
            v[j, k] /= norm
        for i in range(j + 1, time):
            dot = 0.0
            for k in range(dim):
                dot += v[j, k] * v[i, k]
            for k in range(dim):
                v[i, k] -= dot * v[j, k]
            if i < order:
                r[j, i] = dot
            else:
                c[j] = dot
    if least <= most * _EPS * dim:
        return False
    for j in range(order - 1, -1, -1):
        for i in range(j + 1, order):
            c[j] -= r[j, i] * c[i]
        c[j] /= r[j, j]
    return True


@_compile
def _eigenvalues(c, h, values):
    """Of the companion matrix, which `h` is the place for; False if there are none to be had."""
    order = len(c)
    for j in range(order):
        if not np.isfinite(c[j]):
            return False
    # Turned around: only one diagonal below the main one is filled.
    h[:] = 0.0
    for j in range(order):
        h[0, j] = c[order - 1 - j]
    for j in range(1, order):
        h[j, j - 1] = 1.0
    _balance(h)
    return _francis(h, values)


@_compile
def _balance(h):
    """Scale axes by powers of two until rows are about as long as columns: exact, and small roots keep their digits."""
    order = len(h)
    again = True
    while again:
        again = False
        for i in range(order):
            column = row = 0.0
            for j in range(order):
                if j != i:
                    column += abs(h[j, i])
                    row += abs(h[i, j])
            if column == 0.0 or row == 0.0:
                continue
            total, factor = column + row, 1.0
            while column < row / 2.0:
                factor *= 2.0
                column *= 4.0
            while column >= row * 2.0:
                factor /= 2.0
                column /= 4.0
            if (column + row) / factor < 0.95 * total:
                again = True
                for j in range(order):
                    h[i, j] /= factor
                for j in range(order):
                    h[j, i] *= factor


@_compile
def _francis(h, values):
    """Eigenvalues of a matrix with one diagonal below the main one, which is overwritten; False if it does not end."""
    norm = np.abs(h).sum()
    last, done, shift = len(h) - 1, 0, 0.0
    while last >= 0:
        first = last
        while first > 0:
            near = abs(h[first - 1, first - 1]) + abs(h[first, first])
            if abs(h[first, first - 1]) <= _EPS * (near if near > 0.0 else norm):
                h[first, first - 1] = 0.0
                break
            first -= 1
        if first >= last - 1:
            if first == last:
                values[last] = h[last, last] + shift
            else:
                _pair(h, last, shift, values)
            last, done = first - 1, 0
            continue
        if done == _SWEEPS:
            return False
        x, y = h[last, last], h[last - 1, last - 1]
        w = h[last, last - 1] * h[last - 1, last]
        if done % 10 == 9:  # it may go in circles: a shift that is none of its own breaks them
            shift += x
            for i in range(last + 1):
                h[i, i] -= x
            far = abs(h[last, last - 1]) + abs(h[last - 1, last - 2])
            x = y = 0.75 * far
            w = -0.4375 * far * far
        done += 1
        _sweep(h, first, last, x, y, w)
    return True


@_compile
def _pair(h, last, shift, values):
    """The two eigenvalues of the block of two that ends at `last`."""
    a, b, c, d = h[last - 1, last - 1], h[last - 1, last], h[last, last - 1], h[last, last]
    half = 0.5 * (a - d)
    inside = half * half + b * c
    root = math.sqrt(abs(inside))
    if inside < 0.0:
        values[last - 1] = complex(d + half + shift, root)
        values[last] = complex(d + half + shift, -root)
        return
    far = half + (root if half >= 0.0 else -root)
    values[last - 1] = d + far + shift
    values[last] = d + shift - (b * c / far if far != 0.0 else 0.0)


@_compile
def _sweep(h, first, last, x, y, w):
    """One step with the two shifts whose sum is ``x + y`` and product ``x y - w``, on the block `first` to `last`."""
    p = q = r = 0.0
    m = last - 2
    while True:  # begin as low as two small neighbours allow
        z = h[m, m]
        p = ((x - z) * (y - z) - w) / h[m + 1, m] + h[m, m + 1]
        q = h[m + 1, m + 1] - z - (x - z) - (y - z)
        r = h[m + 2, m + 1]
        size = abs(p) + abs(q) + abs(r)
        p, q, r = p / size, q / size, r / size
        if m == first:
            break
        outside = abs(h[m, m - 1]) * (abs(q) + abs(r))
        inside = abs(p) * (abs(h[m - 1, m - 1]) + abs(z) + abs(h[m + 1, m + 1]))
        if outside <= _EPS * inside:
            break
        m -= 1
    for i in range(m + 2, last + 1):
        h[i, i - 2] = 0.0
        if i > m + 2:
            h[i, i - 3] = 0.0
    for k in range(m, last):  # chase the bulge down, by reflections of three axes, in the end of two
        three = k < last - 1
        size = 0.0
        if k > m:
            p, q = h[k, k - 1], h[k + 1, k - 1]
            r = h[k + 2, k - 1] if three else 0.0
            size = abs(p) + abs(q) + abs(r)
            if size == 0.0:
                continue
            p, q, r = p / size, q / size, r / size
        s = math.sqrt(p * p + q * q + r * r)
        s = -s if p < 0.0 else s
        if k > m:
            h[k, k - 1] = -s * size
        elif first != m:
            h[k, k - 1] = -h[k, k - 1]
        p += s
        x, y, z = p / s, q / s, r / s
        q, r = q / p, r / p
        if three:
            for j in range(k, last + 1):
                t = h[k, j] + q * h[k + 1, j] + r * h[k + 2, j]
                h[k, j] -= t * x
                h[k + 1, j] -= t * y
                h[k + 2, j] -= t * z
            for i in range(first, min(last, k + 3) + 1):
                t = x * h[i, k] + y * h[i, k + 1] + z * h[i, k + 2]
                h[i, k] -= t
                h[i, k + 1] -= t * q
                h[i, k + 2] -= t * r
        else:
            for j in range(k, last + 1):
                t = h[k, j] + q * h[k + 1, j]
                h[k, j] -= t * x
                h[k + 1, j] -= t * y
            for i in range(first, last + 1):
                t = x * h[i, k] + y * h[i, k + 1]
                h[i, k] -= t
                h[i, k + 1] -= t * q


@_compile
def _sort(values):
    """By distance to 1, conjugates in their order, exact zeros last."""
    for i in range(1, len(values)):
        value = values[i]
        mine = np.inf if value == 0.0 else abs(value - 1.0)
        j = i - 1
        while j >= 0 and (np.inf if values[j] == 0.0 else abs(values[j] - 1.0)) > mine:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = value

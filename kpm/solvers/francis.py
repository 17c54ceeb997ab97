"""Eigenvalues of one small companion matrix by Francis's double shifts, in machine code.

As in EISPACK and LAPACK (Wilkinson and Reinsch, *Linear Algebra*, 1971, II/11 and II/14): balanced, then reduced by
orthogonal reflections, so that repeated and badly conditioned roots are found as well as their coefficients allow.
"""

from __future__ import annotations

import math

import numpy as np

from kpm.solvers.machine import compiled

_EPS = float(np.finfo(np.float64).eps)
_SWEEPS = 60  # steps for one eigenvalue before giving up; two or three are usual
_BALANCES = 1000  # passes over all axes after which they are as balanced as they will be; a few dozen are many


@compiled
def roots(c, values, lost):
    """Roots of rows of `c` that are `lost`, which is put right where they are found. Arguments as of `aberth.roots`."""
    order = c.shape[1]
    h = np.empty((order, order))
    for b in range(len(c)):
        if lost[b]:
            lost[b] = not _eigenvalues(c[b], h, values[b])


@compiled
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
    if not _balance(h) or not _francis(h, values):
        return False
    return np.isfinite(values).all()  # products of large numbers may have run over


@compiled
def _balance(h):
    """Scale axes by powers of two until rows are about as long as columns: exact, and small roots keep their digits.

    False if numbers are too large for it. The inner loops end, since both sums are positive and finite, with room to
    grow by a factor of four.
    """
    order = len(h)
    for _ in range(_BALANCES):
        again = False
        for i in range(order):
            column = row = 0.0
            for j in range(order):
                if j != i:
                    column += abs(h[j, i])
                    row += abs(h[i, j])
            if not np.isfinite(4.0 * (column + row)):
                return False
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
        if not again:
            break
    return True


@compiled
def _francis(h, values):
    """Eigenvalues of a matrix with one diagonal below the main one, which is overwritten; False if it does not end."""
    norm = 0.0
    for x in h.flat:
        norm += abs(x)
    if not np.isfinite(norm):
        return False
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


@compiled
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


@compiled
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

"""Roots of many small real polynomials at once, in machine code: one polynomial in each lane of the vector registers.

Ehrlich and Aberth's iteration improves all roots together, ``z_i -= 1 / (p'/p - sum_j 1 / (z_i - z_j))``, with the
newest value of each; near simple roots it is of third order (Aberth, Mathematics of Computation 27, 1973). It has no
branches, so that sixteen polynomials go through it in step, real and imaginary parts apart. A lane at rest is left as
it is: roots depend on their own polynomial only, bit for bit.

What comes out is believed only if it multiplies out to the polynomial again, each coefficient to rounding;
`kpm.solvers.francis` finds the others. Such are repeated roots and close clusters, where steps become slow, roots of
very different size, a root that is zero, and coefficients that overflow.
"""

from __future__ import annotations

import math

import numpy as np

from kpm.solvers.machine import compiled

_LANES = 16  # several registers' worth, which hides how long one product takes
_FEWEST = 3  # roots for which this pays: one or two need no steps elsewhere
_SWEEPS = 16  # from the start, after which a lane is given up; five to eight are usual
_STEP = 1e-14  # square of the relative step after which the next would be below rounding
_REAL = 1e-9  # relative imaginary part below which roots count as real: its square is below rounding
_REPAIRS = 2  # of roots so sensitive that, each right by itself, they are not right together
_ERROR = 4 * float(np.finfo(np.float64).eps)  # of coefficients, times the order: what 99 of 100 have from `francis`


@compiled
def roots(c, values, lost):
    """Roots of ``x^order = sum_j c_j x^j`` for each row of coefficients, or that they are `lost`.

    Parameters
    ----------
    c : ndarray
        float64 ``(n, order)``.
    values : ndarray
        complex128 ``(n, order)``, filled; conjugates side by side. Undefined where lost.
    lost : ndarray
        bool ``(n,)``, filled.
    """
    n, order = c.shape
    if order < _FEWEST:
        for b in range(n):
            lost[b] = True
        return
    a = np.zeros((order + order % 2 + 1, _LANES))  # lowest power first; zeros in the end make steps come in twos
    z, work, state = np.empty((2, order, _LANES)), np.empty(10 * _LANES), np.empty((2, _LANES))
    directions, product, steps = np.empty((2, order)), np.empty((2, order + 1)), np.empty(order, np.complex128)
    for i in range(order):
        angle = 2.0 * math.pi * i / order + 0.2  # not symmetric to the real axis, nor to the imaginary one
        directions[0, i], directions[1, i] = math.cos(angle), math.sin(angle)
    for start in range(0, n, _LANES):
        for lane in range(_LANES):
            b = min(start + lane, n - 1)
            for k in range(order):
                a[k, lane] = -c[b, k]
            a[order, lane] = 1.0
        _solve(a, z, directions, work, state)
        for lane in range(min(_LANES, n - start)):
            lost[start + lane] = not _take(a, z, lane, values[start + lane], product, steps)


@compiled
def _solve(a, z, directions, work, state):
    """Roots of each lane, as far as they are found; they start on a circle about as large as their mean."""
    order = z.shape[1]
    for lane in range(_LANES):
        radius = 1.1 * abs(a[0, lane]) ** (1.0 / order)
        for i in range(order):
            z[0, i, lane] = radius * directions[0, i]
            z[1, i, lane] = radius * directions[1, i]
        state[0, lane] = 1.0
    for _ in range(_SWEEPS):
        _sweep(a, z[0], z[1], work, state[0], state[1])
        more = 0.0
        for lane in range(_LANES):
            state[0, lane] = 1.0 if state[0, lane] > 0.0 and state[1, lane] > 0.0 else 0.0
            more += state[0, lane]
        if more == 0.0:
            return


@compiled
def _sweep(a, x, y, work, live, moved):
    """One step of each root of the lanes that are `live`; how many of a lane's roots `moved` further than allowed.

    Rows of `work` are at fixed places in one array: so the compiler sees that they do not overlap.
    """
    order, n = len(x), _LANES
    for v in range(n):
        moved[v] = 0.0
    for i in range(order):
        for v in range(n):
            work[v] = 2.0 * x[i, v]
            work[n + v] = x[i, v] * x[i, v] + y[i, v] * y[i, v]
            work[2 * n + v] = work[3 * n + v] = work[4 * n + v] = work[5 * n + v] = 0.0
            work[6 * n + v] = 1.0
            work[7 * n + v] = work[8 * n + v] = work[9 * n + v] = 0.0
        # Division by the real polynomial with the root and its conjugate, x^2 - s x + t, twice, for p and p'.
        for k in range(len(a) - 1, 3, -2):
            for v in range(n):
                s, t = work[v], work[n + v]
                b2 = a[k, v] + s * work[2 * n + v] - t * work[3 * n + v]
                c2 = b2 + s * work[4 * n + v] - t * work[5 * n + v]
                b1 = a[k - 1, v] + s * b2 - t * work[2 * n + v]
                c1 = b1 + s * c2 - t * work[4 * n + v]
                work[2 * n + v], work[3 * n + v] = b1, b2
                work[4 * n + v], work[5 * n + v] = c1, c2
        # q = prod_j (z_i - z_j) and its derivative: their quotient is the sum, without a division for each term.
        for first, last in ((0, i), (i + 1, order)):
            for j in range(first, last - 1, 2):
                for v in range(n):
                    dx, dy = x[i, v] - x[j, v], y[i, v] - y[j, v]
                    ex, ey = x[i, v] - x[j + 1, v], y[i, v] - y[j + 1, v]
                    qx, qy, rx, ry = work[6 * n + v], work[7 * n + v], work[8 * n + v], work[9 * n + v]
                    rx, ry = rx * dx - ry * dy + qx, rx * dy + ry * dx + qy
                    qx, qy = qx * dx - qy * dy, qx * dy + qy * dx
                    rx, ry = rx * ex - ry * ey + qx, rx * ey + ry * ex + qy
                    qx, qy = qx * ex - qy * ey, qx * ey + qy * ex
                    work[6 * n + v], work[7 * n + v], work[8 * n + v], work[9 * n + v] = qx, qy, rx, ry
            if (last - first) % 2 == 1:
                j = last - 1
                for v in range(n):
                    dx, dy = x[i, v] - x[j, v], y[i, v] - y[j, v]
                    qx, qy, rx, ry = work[6 * n + v], work[7 * n + v], work[8 * n + v], work[9 * n + v]
                    work[8 * n + v], work[9 * n + v] = rx * dx - ry * dy + qx, rx * dy + ry * dx + qy
                    work[6 * n + v], work[7 * n + v] = qx * dx - qy * dy, qx * dy + qy * dx
        for v in range(n):
            s, t, xi, yi = work[v], work[n + v], x[i, v], y[i, v]
            b2 = a[2, v] + s * work[2 * n + v] - t * work[3 * n + v]
            b1 = a[1, v] + s * b2 - t * work[2 * n + v]
            px, py = b1 * xi + (a[0, v] - t * b2), b1 * yi
            c1 = work[4 * n + v]
            dx = b1 - 2.0 * yi * yi * c1
            dy = 2.0 * yi * (c1 * xi + (b2 - t * work[5 * n + v]))
            qx, qy, rx, ry = work[6 * n + v], work[7 * n + v], work[8 * n + v], work[9 * n + v]
            ux, uy = px * qx - py * qy, px * qy + py * qx
            wx, wy = dx * qx - dy * qy - (px * rx - py * ry), dx * qy + dy * qx - (px * ry + py * rx)
            scale = 1.0 / (wx * wx + wy * wy)
            sx, sy = (ux * wx + uy * wy) * scale, (uy * wx - ux * wy) * scale
            moved[v] += 0.0 if sx * sx + sy * sy <= _STEP * t else 1.0  # NaN counts as moved
            x[i, v] = xi - (sx if live[v] > 0.0 else 0.0)
            y[i, v] = yi - (sy if live[v] > 0.0 else 0.0)


@compiled
def _take(a, z, lane, values, product, steps):
    """The roots of one lane, conjugates side by side; False if they are not those of its polynomial."""
    if not _pair(z[0], z[1], lane, values):
        return False
    for _ in range(_REPAIRS):
        if _same(a, lane, values, product):
            return True
        _repair(values, product[0], steps)
    return _same(a, lane, values, product)


@compiled
def _pair(x, y, lane, values):
    """A root below the real axis is not looked at but taken to be the conjugate of one above; False if that fails."""
    order, found = len(values), 0
    for i in range(order):
        if abs(y[i, lane]) <= _REAL * abs(x[i, lane]):
            if found < order:
                values[found] = x[i, lane]
            found += 1
        elif y[i, lane] > 0.0:
            if found < order - 1:
                values[found] = complex(x[i, lane], y[i, lane])
                values[found + 1] = complex(x[i, lane], -y[i, lane])
            found += 2
    return found == order


@compiled
def _same(a, lane, values, product):
    """Whether each coefficient of the product is right to rounding; `product` becomes its excess and its size.

    The size is that of the product of magnitudes; where it overflows, nothing is known.
    """
    order = len(values)
    for k in range(order + 1):  # highest power first
        product[0, k] = product[1, k] = 1.0 if k == 0 else 0.0
    done = 0
    while done < order:
        value = values[done]
        if value.imag == 0.0:
            done += 1
            s, t = value.real, 0.0
        else:
            done += 2
            s, t = 2.0 * value.real, value.real * value.real + value.imag * value.imag
        for k in range(done, 1, -1):
            product[0, k] += t * product[0, k - 2] - s * product[0, k - 1]
            product[1, k] += t * product[1, k - 2] + abs(s) * product[1, k - 1]
        product[0, 1] -= s
        product[1, 1] += abs(s)
    same = True
    for k in range(order + 1):
        product[0, k] -= a[order - k, lane]
        same &= abs(product[0, k]) <= _ERROR * order * product[1, k] < np.inf
    return same


@compiled
def _repair(values, excess, steps):
    """Newton's step for all factors of the product together: roots that are sensitive err in step again."""
    order = len(values)
    for i in range(order):
        value, top, below = values[i], complex(0.0), complex(1.0)
        for k in range(1, order + 1):
            top = top * value + excess[k]
        for j in range(order):
            if j != i:
                below *= value - values[j]
        scale = 1.0 / (below.real * below.real + below.imag * below.imag)  # a quotient would raise an error at zero
        steps[i] = top * below.conjugate() * scale
    done = 0
    while done < order:
        if values[done].imag == 0.0:
            values[done] += steps[done].real
            done += 1
        else:
            values[done] += steps[done]
            values[done + 1] = values[done].conjugate()
            done += 2

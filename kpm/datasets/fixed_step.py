"""Integration with a fixed step, the whole batch at once: classical Runge-Kutta and explicit Euler."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kpm.solvers import checks

Slope = Callable[[np.ndarray], np.ndarray]


def euler(slope: Slope, state: np.ndarray, step: float) -> np.ndarray:
    """One step of explicit Euler, of order 1."""
    return state + step * slope(state)


def rk4(slope: Slope, state: np.ndarray, step: float) -> np.ndarray:
    """One step of the classical method of Runge and Kutta, of order 4."""
    a = slope(state)
    b = slope(state + step / 2 * a)
    c = slope(state + step / 2 * b)
    d = slope(state + step * c)
    return state + step / 6 * (a + 2 * (b + c) + d)


METHODS = {"euler": euler, "rk4": rk4}


def integrate(
    slope: Slope, start: np.ndarray, frames: int, dt: float, *, method: str = "rk4", substeps: int = 1
) -> np.ndarray:
    """States of ``x' = slope(x)`` a time `dt` apart, the first one `start`.

    Parameters
    ----------
    slope : callable
        Of the state alone; keeps its shape.
    start : ndarray
        ``(*batch, dim)``, float64.
    frames : int
        Number of states, `start` included.
    dt : float
        Time between states.
    method : {"rk4", "euler"}
    substeps : int
        Steps from one state to the next.

    Returns
    -------
    ndarray
        ``(*batch, frames, dim)``; not finite where the integration ran away.

    Raises
    ------
    ValueError
        For `frames`, `dt` or `substeps` that are not positive, or an unknown method.
    """
    checks.count(frames, "frames", 1, 10**9)
    checks.count(substeps, "substeps", 1, 10**9)
    if not 0 < dt < np.inf:
        raise ValueError(f"dt: expected a positive time, got {dt!r}")
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    advance, state = METHODS[method], start
    states = np.empty((frames, *start.shape))
    states[0] = start
    for k in range(1, frames):
        for _ in range(substeps):
            state = advance(slope, state, dt / substeps)
        states[k] = state
    return np.moveaxis(states, 0, -2).copy()

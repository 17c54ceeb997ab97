"""Van der Pol's oscillator, ``x'' = mu (1 - x^2) x' - x``: noisy records of its position, the spectrum of its cycle.

The defaults of `VanDerPol` are those of the DSE paper: mu = 2, steps of 0.1 by Runge-Kutta, 50 trials of 3500 frames.

Half a period on, the cycle is its own mirror image, so that the position has odd harmonics only. A linear method on
delays of it, however good, finds none of the even ones but 0, and that only if it has a constant: each is
``omega dt = 0.082`` from the nearest estimate, which makes an error of 0.038 in the mean over the harmonics up to 6 and
of 0.037 over those up to 4.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from kpm.datasets import fixed_step, trials
from kpm.solvers import checks


@dataclass(frozen=True)
class VanDerPol:
    """What is simulated ([DSE] section 5, table 8).

    Attributes
    ----------
    mu : float
    start : tuple of float
        Position and velocity of the first frame; the approach to the cycle belongs to the record.
    dt : float
        Time between frames.
    substeps : int
        Steps of Runge-Kutta between two frames.
    frames, train_size : int
        Length of a trial and of its training part.
    noise : float
        Variance of the noise on the observed position; the paper takes 0.01, 0.02, ..., 0.20. The dynamics have none.
    trials : int
    seed : int
        The trial k = 1, 2, ... at this noise has the seed ``seed + 10^4 noise + k``.
    window : int
        Delays that the paper's models are given (see `trials.windows`).
    harmonics : int
        The reference has the harmonics ``-harmonics ... harmonics``.
    """

    mu: float = 2.0
    start: tuple[float, float] = (2.0, 0.0)
    dt: float = 0.1
    substeps: int = 1
    frames: int = 3500
    train_size: int = 3000
    noise: float = 0.05
    trials: int = 50
    seed: int = 42
    window: int = 30
    harmonics: int = 6

    @classmethod
    def quick(cls, **changes: float) -> VanDerPol:
        """A few short trials."""
        return cls(**{"frames": 1200, "train_size": 1000, "trials": 3, **changes})


def trajectory(start: Tensor, frames: int, dt: float = 0.1, *, mu: float = 2.0, substeps: int = 1) -> Tensor:
    """States of the oscillator by classical Runge-Kutta.

    Parameters
    ----------
    start : Tensor
        ``(*batch, 2)``: position and velocity of the first frame.
    frames : int
        Number of states, `start` included.
    dt : float
        Time between states.
    mu : float
        Strength of the damping, positive.
    substeps : int
        Steps between two states.

    Returns
    -------
    Tensor
        ``(*batch, frames, 2)``, float64, on `start`'s device.

    Raises
    ------
    ValueError
        For a wrong shape, parameters that are not positive, or where the steps are too long for `mu` and `start`.
    """
    _positive(mu)
    start = torch.as_tensor(start)
    if start.ndim < 1 or start.shape[-1] != 2 or start.numel() == 0:
        raise ValueError(f"start: expected (*batch, 2), got shape {tuple(start.shape)}")
    checks.finite(start, "start")
    flat = start.double().cpu().numpy()
    with np.errstate(over="ignore", invalid="ignore"):  # told below, with the index
        states = torch.from_numpy(fixed_step.integrate(_slope(mu), flat, frames, dt, substeps=substeps))
    checks.finite(states, "states", f": steps of {dt / substeps:g} are too long")
    return states.to(start.device)


def simulate(config: VanDerPol = VanDerPol(), device: torch.device | str = "cpu") -> trials.Trials:
    """Noisy records of the position, all trials at once.

    All trials are one trajectory, each with noise of its own. The reference are the harmonics of the cycle that *this*
    integrator runs through, ``exp(i m omega dt)`` with `frequency` at its step: noise of observation moves no
    eigenvalue.

    Returns
    -------
    Trials
        States ``(trial, frames, 2)``, one memory for all trials, and observations ``(trial, frames, 1)``.

    Raises
    ------
    ValueError
        For parameters that make no sense, each by name.
    """
    checks.count(config.train_size, "train_size", 1, config.frames)
    checks.count(config.harmonics, "harmonics", 0, 10**6)
    checks.nonnegative(config.noise, "noise")
    states = trajectory(
        torch.tensor(config.start, dtype=torch.float64),
        config.frames,
        config.dt,
        mu=config.mu,
        substeps=config.substeps,
    )
    seeds = trials.published_seeds(config.seed, config.noise, config.trials)
    noise = config.noise**0.5 * trials.normal(seeds, config.frames, 1)
    m = torch.arange(-config.harmonics, config.harmonics + 1, device=device)
    return trials.Trials(
        name="van_der_pol",
        states=states.to(device).expand(config.trials, -1, -1),
        observations=(states[:, :1] + noise).to(device),
        dt=config.dt,
        harmonics=m,
        reference=reference(m, config.dt, frequency(config.mu, config.dt / config.substeps)),
        train_size=config.train_size,
    )


def reference(harmonics: Tensor, dt: float, omega: float) -> Tensor:
    """Discrete Koopman eigenvalues ``exp(i m omega dt)`` of a limit cycle, complex128."""
    angle = torch.as_tensor(harmonics, dtype=torch.float64) * (omega * dt)
    return torch.polar(torch.ones_like(angle), angle)


@functools.lru_cache(maxsize=64)
def frequency(mu: float = 2.0, step: float | None = None, periods: int = 20) -> float:
    """Angular frequency of the limit cycle, radians per unit of time.

    Parameters
    ----------
    mu : float
    step : float, optional
        Of the cycle that Runge-Kutta runs through with steps of this length, which is slower or faster than the true
        one (by 8e-5 at mu = 2 and steps of 0.1); by default of the true one, integrated to twelve digits.
    periods : int
        How many periods of the stepped cycle are measured. What is read off between two steps is exact to the fourth
        order, so the error falls as ``step^4 / periods``.

    Raises
    ------
    ValueError
        If `mu` is not positive, or if the oscillator does not come round in the time it should.
    """
    _positive(mu)
    settle = 100 + 40 / mu  # a small amplitude grows as exp(mu t / 2), a wrong one heals as exp(-mu t)
    longest = 2 * math.pi + 2 * mu  # no period is longer: 2 pi for a small mu, (3 - 2 ln 2) mu for a large one
    if step is None:
        span, slope = (0, settle + 3 * longest), _slope(mu)
        event = _upward()
        found = solve_ivp(lambda _, s: slope(s), span, (2.0, 0.0), "DOP853", events=event, rtol=1e-12, atol=1e-13)
        crossings = found.t_events[0]
        crossings = crossings[crossings > settle]
    else:
        first, count = math.ceil(settle / step), math.ceil((periods + 2) * longest / step)
        states = trajectory(torch.tensor([2.0, 0.0]), first + count, step, mu=mu)[first:].numpy()
        crossings = _crossings(states, step)[: periods + 1]
    if len(crossings) < 2:
        raise ValueError(f"mu: no period was found for mu={mu}, step={step}")
    return 2 * math.pi * (len(crossings) - 1) / float(crossings[-1] - crossings[0])


def _upward():
    def position(_: float, state: np.ndarray) -> float:
        return state[0]

    position.direction = 1
    return position


def _crossings(states: np.ndarray, step: float) -> np.ndarray:
    """Times at which the position goes up through zero, on the cubic through positions and velocities."""
    x, v = states.T
    k = np.flatnonzero((x[:-1] < 0) & (x[1:] >= 0))
    a, b, p, q = x[k], x[k + 1], step * v[k], step * v[k + 1]
    s = a / (a - b)
    for _ in range(8):  # Newton, from the straight line
        value = a + s * (p + s * (3 * (b - a) - 2 * p - q + s * (2 * (a - b) + p + q)))
        slope = p + s * (2 * (3 * (b - a) - 2 * p - q) + s * 3 * (2 * (a - b) + p + q))
        s = s - value / slope
    return (k + s) * step


def _slope(mu: float):
    def slope(state: np.ndarray) -> np.ndarray:
        x, v = state[..., 0], state[..., 1]
        return np.stack([v, mu * (1 - x * x) * v - x], -1)

    return slope


def _positive(mu: float) -> None:
    if not 0 < mu < math.inf:
        raise ValueError(f"mu: expected a positive number, got {mu!r}")

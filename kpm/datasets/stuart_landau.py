"""The noisy Stuart-Landau oscillator as the DSE paper records it, and the eigenvalues that noise gives its harmonics.

The equation itself is solved by `kpm.datasets.systems.stuart_landau`. Two conventions of its noise are in use, a factor
2 apart: with ``"full"`` noise the real and the imaginary part of ``dW`` each have variance ``dt``, with ``"half"``
noise each has ``dt / 2``. The published records are made with the second, their published reference with the first.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import solve_banded
from torch import Tensor

from kpm.datasets import systems, trials
from kpm.solvers import checks

CONVENTIONS = {"full": 1.0, "half": 0.5}
REFERENCES = ("weak", "exact", "published")


@dataclass(frozen=True)
class StuartLandau:
    """What is simulated ([DSE] section 5, table 8).

    Attributes
    ----------
    mu, gamma, beta : float
        The cycle has radius ``sqrt(mu)`` and angular frequency ``gamma - beta mu``.
    start : complex
        First state; the growth to the cycle belongs to the record.
    dt : float
        Time between frames, each of which gets one kick of noise.
    frames, train_size : int
        Length of a trial and of its training part.
    noise : float
        Strength epsilon of the noise on the dynamics; the paper takes 0.01, 0.02, ..., 0.09.
    convention : {"half", "full"}
        Variance per real part of a kick: ``noise dt / 2``, as the published generator has it, or ``noise dt``.
    observation_noise : float
        Variance of the noise on each of the two observed numbers.
    reference : {"exact", "weak", "published"}
        See `rates`; the exact one is known for noise that is not too strong. The records do not depend on it.
    trials : int
    seed : int
        The trial k = 1, 2, ... at this noise has the seed ``seed + 10^4 noise + k``.
    window : int
        Delays that the paper's models are given (see `trials.windows`).
    harmonics : int
        The reference has the harmonics ``-harmonics ... harmonics``.
    """

    mu: float = 1.0
    gamma: float = 0.9
    beta: float = 0.3
    start: complex = 0.1
    dt: float = 0.1
    frames: int = 3500
    train_size: int = 3000
    noise: float = 0.05
    convention: str = "half"
    observation_noise: float = 0.01
    reference: str = "exact"
    trials: int = 50
    seed: int = 42
    window: int = 10
    harmonics: int = 6

    @classmethod
    def quick(cls, **changes: float) -> StuartLandau:
        """A few short trials."""
        return cls(**{"frames": 1200, "train_size": 1000, "trials": 3, **changes})


def simulate(config: StuartLandau = StuartLandau(), device: torch.device | str = "cpu") -> trials.Trials:
    """Noisy records of ``(cos, sin)`` of the phase, all trials at once.

    Between kicks the states follow the exact solution, where the published generator takes a step of Runge-Kutta.

    Returns
    -------
    Trials
        States ``(trial, frames, 2)``, real and imaginary part, and observations ``(trial, frames, 2)``.

    Raises
    ------
    ValueError
        For parameters that make no sense, each by name.
    """
    checks.count(config.frames, "frames", 2, 10**9)
    checks.count(config.train_size, "train_size", 1, config.frames)
    checks.count(config.harmonics, "harmonics", 0, 10**6)
    checks.nonnegative(config.observation_noise, "observation_noise")
    if not 0 < config.dt < math.inf:
        raise ValueError(f"dt: expected a positive time, got {config.dt!r}")
    if not cmath.isfinite(config.start):
        raise ValueError(f"start: expected a finite number, got {config.start!r}")
    noise = _per_part(config.noise, config.convention)
    seeds = trials.published_seeds(config.seed, config.noise, config.trials)
    normal = trials.normal(seeds, 2, config.frames, 2)  # kicks, then observations
    z = _trajectories(config, (noise * config.dt) ** 0.5 * torch.view_as_complex(normal[:, 0, 1:].contiguous()))
    observations = torch.view_as_real(torch.polar(torch.ones_like(z.real), z.angle()))
    observations = observations + config.observation_noise**0.5 * normal[:, 1]
    m = torch.arange(-config.harmonics, config.harmonics + 1, device=device)
    return trials.Trials(
        name="stuart_landau",
        states=torch.view_as_real(z).to(device),
        observations=observations.to(device),
        dt=config.dt,
        harmonics=m,
        reference=(config.dt * rates(m, config)).exp(),
        train_size=config.train_size,
    )


def _trajectories(config: StuartLandau, kicks: Tensor) -> Tensor:
    z = torch.full((config.trials,), config.start, dtype=torch.complex128)
    states = [z]
    for kick in kicks.unbind(-1):
        z = systems.stuart_landau_flow(z, config.dt, config.mu, config.gamma, config.beta) + kick
        states.append(z)
    return torch.stack(states, -1)


def rates(harmonics: Tensor, config: StuartLandau = StuartLandau(), kind: str | None = None) -> Tensor:
    """Koopman eigenvalues (1 / time) of the harmonics of the phase, complex128, for the noise of `config`.

    Parameters
    ----------
    harmonics : Tensor
        Whole numbers m, ``(n,)``.
    config : StuartLandau
    kind : {"weak", "exact", "published"}
        By default `config.reference`. ``"weak"``: ``i m omega - s m^2 (1 + beta^2) / (2 mu)`` with s the variance of
        the noise per real part and unit of time (Bagheri 2014), right to first order in s. ``"exact"``: `exact_rates`.
        ``"published"``: the reference of the published code, ``i m omega - (epsilon / 2) 3.0 (m omega)^2``, where 3.0
        stands for ``(1 + beta^2) / omega^2 = 3.028`` and epsilon is taken for full noise, whatever `config.convention`:
        for noise of convention "half" it decays 1.98 times too fast.

    Raises
    ------
    ValueError
        For a kind, a convention or parameters that make no sense.
    """
    kind = config.reference if kind is None else kind
    if kind not in REFERENCES:
        raise ValueError(f"reference: expected one of {', '.join(REFERENCES)}, got {kind!r}")
    if not config.mu > 0:
        raise ValueError(f"mu: expected a positive number, got {config.mu!r}")
    noise = _per_part(config.noise, config.convention)
    shape = {"mu": config.mu, "gamma": config.gamma, "beta": config.beta}
    if kind == "weak":
        return systems.stuart_landau_rates(harmonics, noise=noise, **shape)
    if kind == "exact":
        return exact_rates(harmonics, noise=noise, **shape)
    turn = torch.as_tensor(harmonics, dtype=torch.float64) * (config.gamma - config.beta * config.mu)
    return torch.complex(-config.noise / 2 * 3.0 * turn**2, turn)


def exact_rates(
    harmonics: Tensor, mu: float = 1.0, gamma: float = 0.9, beta: float = 0.3, noise: float = 0.0, cells: int = 2000
) -> Tensor:
    """Koopman eigenvalues (1 / time) of the harmonics of the phase at noise that need not be weak, complex128.

    For functions ``h(r) exp(i m theta)`` the generator of the process is a differential operator in r alone. It is put
    on `cells` finite volumes, in the form that is symmetric with respect to the stationary density, and of its
    eigenvalues the one is taken that continues the weak-noise value: the one nearest to it.

    Parameters
    ----------
    harmonics : Tensor
        Whole numbers m, ``(n,)``.
    mu, gamma, beta : float
        As in `systems.stuart_landau`.
    noise : float
        Variance per real part and unit of time, as in `systems.stuart_landau`.
    cells : int
        The error falls with the square of their number.

    Raises
    ------
    ValueError
        For noise so strong that no eigenvalue is within a quarter of the weak-noise decay: with the
        defaults, above 0.15 or so.
    """
    guess = systems.stuart_landau_rates(harmonics, mu, gamma, beta, noise)
    if not noise:
        return guess
    # The stationary density falls below exp(-80) of its peak at the outer end.
    outer = (mu + (160 * noise) ** 0.5) ** 0.5
    edges = np.linspace(0, outer, cells + 1)
    r, h = (edges[1:] + edges[:-1]) / 2, outer / cells

    def log_density(radius: np.ndarray) -> np.ndarray:
        return -((radius**2 - mu) ** 2) / (2 * noise)

    inner, at = edges[1:-1], log_density(r)
    # Rates at which the diffusion takes a path to the next cell outwards and to the next one inwards.
    out, back = (
        noise / (2 * h**2) * np.exp(log_density(inner) - at[k]) * inner / r[k] for k in (slice(-1), slice(1, None))
    )
    leaving = np.append(out, 0) + np.insert(back, 0, 0)
    coupling = np.sqrt(out * back)
    found = []
    for m, near in zip(torch.as_tensor(harmonics).tolist(), guess.tolist()):
        own = 1j * m * (gamma - beta * r**2) - noise / 2 * m**2 / r**2 - leaving
        # Off the guess by a little: for m = 0 it is the eigenvalue, and the shifted matrix would be singular.
        shifted = np.stack([np.insert(coupling, 0, 0), own - near - 1e-7, np.append(coupling, 0)])
        gap = 1e-7 + _nearest_to_zero(shifted, np.exp(at / 2 + np.log(r) / 2))
        if not abs(gap) <= 1e-9 + abs(near.real) / 4:
            raise ValueError(f"noise: {noise} is too strong, harmonic {m} has no eigenvalue near the weak-noise one")
        found.append(near + gap)
    return torch.tensor(found, dtype=torch.complex128, device=guess.device)


def _nearest_to_zero(bands: np.ndarray, vector: np.ndarray, iterations: int = 100) -> complex:
    """Eigenvalue of least modulus of a complex symmetric tridiagonal matrix, by inverse iteration; NaN if none is."""
    value, tolerance = np.inf, 1e-16 * np.abs(bands).max()
    for _ in range(iterations):
        vector = vector / np.linalg.norm(vector)
        solved = solve_banded((1, 1), bands, vector)
        before, value = value, (solved @ vector) / (solved @ solved)
        if abs(value - before) < tolerance:
            return complex(value)
        vector = solved
    return complex(np.nan)


def _per_part(noise: float, convention: str) -> float:
    checks.nonnegative(noise, "noise")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: expected one of {', '.join(CONVENTIONS)}, got {convention!r}")
    return CONVENTIONS[convention] * noise

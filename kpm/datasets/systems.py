"""Small dynamical systems whose Koopman spectra are known: pendulum, slow manifold, Stuart-Landau oscillator.

Each function returns states in float64 (complex128 for Stuart-Landau) at given times, for any batch of initial states.
Slow manifold and Stuart-Landau are exact solutions (between kicks of noise). The pendulum is integrated, to ten digits
over a few swings; to fewer the nearer it comes to standing upright. Noise comes from a generator that the caller gives.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.special import ellipk
from torch import Tensor


def pendulum(start: Tensor, times: Tensor, damping: float = 0.0, frequency: float = 1.0) -> Tensor:
    """Solution of ``angle'' = -frequency^2 sin(angle) - damping angle'``.

    Parameters
    ----------
    start : Tensor
        ``(*batch, 2)``: angle from rest (radians) and angular velocity (radians per unit of time) at ``times[0]``.
    times : Tensor
        ``(time,)``, increasing.
    damping : float
        Friction, 1 / time.
    frequency : float
        Angular frequency of small swings, radians per unit of time: the root of gravity over length.

    Returns
    -------
    Tensor
        ``(*batch, time, 2)``: angle (not wrapped) and angular velocity.

    Raises
    ------
    ValueError
        For shapes that do not fit, numbers that are not finite, or times that do not increase.
    """
    start, times = _check(start, times)
    shape = start.shape

    def slope(_: float, flat: np.ndarray) -> np.ndarray:
        angle, velocity = flat.reshape(-1, 2).T
        return np.stack([velocity, -(frequency**2) * np.sin(angle) - damping * velocity], 1).ravel()

    span = (float(times[0]), float(times[-1]))
    found = solve_ivp(slope, span, start.ravel(), "DOP853", times, rtol=1e-12, atol=1e-14)
    if not found.success:
        raise ValueError(f"start: the pendulum cannot be integrated ({found.message})")
    return torch.from_numpy(np.moveaxis(found.y.reshape(*shape, -1), -1, -2).copy())


def pendulum_energy(states: Tensor, frequency: float = 1.0) -> Tensor:
    """Energy over moment of inertia, zero at rest: ``(*batch, 2) -> (*batch,)``. Constant in time without damping."""
    return states[..., 1] ** 2 / 2 + frequency**2 * (1 - states[..., 0].cos())


def pendulum_period(amplitude: Tensor, frequency: float = 1.0) -> Tensor:
    """Period of an undamped swing of this amplitude (radians, below pi), by the complete elliptic integral."""
    amplitude = torch.as_tensor(amplitude, dtype=torch.float64)
    if not ((amplitude.abs() > 0) & (amplitude.abs() < torch.pi)).all():
        raise ValueError("amplitude: expected a swing between 0 and pi, not included")
    return torch.as_tensor(4 * ellipk((amplitude / 2).sin().numpy() ** 2) / frequency)


def slow_manifold(start: Tensor, times: Tensor, slow: float = -0.1, fast: float = -1.0) -> Tensor:
    """Exact solution of ``x' = slow x, y' = fast (y - x^2)``.

    States fall onto a parabola and creep along it. The functions ``x``, ``x^2`` and ``y - c x^2`` with ``c = fast /
    (fast - 2 slow)`` are Koopman eigenfunctions of the rates ``slow``, ``2 slow`` and ``fast``, and so are products of
    their powers, of the sums of the rates.

    Parameters
    ----------
    start : Tensor
        ``(*batch, 2)``: x and y at ``times[0]``.
    times : Tensor
        ``(time,)``, increasing.
    slow, fast : float
        Rates, 1 / time. With ``fast = 2 slow`` two of the eigenfunctions fall together, and the solution has a term
        ``t exp(fast t)``.

    Returns
    -------
    Tensor
        ``(*batch, time, 2)``.

    Raises
    ------
    ValueError
        For shapes that do not fit, numbers that are not finite, or times that do not increase.
    """
    start, times = (torch.from_numpy(part) for part in _check(start, times))
    t = times - times[0]
    x, y = start[..., :1], start[..., 1:]
    gap = 2 * slow - fast
    # (exp(2 slow t) - exp(fast t)) / gap, with its limit t exp(fast t) where the two rates meet.
    forced = (fast * t).exp() * (torch.expm1(gap * t) / gap if gap else t)
    return torch.stack([x * (slow * t).exp(), y * (fast * t).exp() - fast * x**2 * forced], -1)


def stuart_landau(
    start: Tensor,
    steps: int,
    dt: float = 0.1,
    *,
    mu: float = 1.0,
    gamma: float = 0.9,
    beta: float = 0.3,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``dz = ((mu + i gamma) z - (1 + i beta) |z|^2 z) dt + sqrt(noise) dW``: a limit cycle of radius ``sqrt(mu)``.

    Each step is the exact solution without noise, followed by a normal kick: without noise there is no error, with it
    one of order ``dt`` in distribution.

    Parameters
    ----------
    start : Tensor
        complex ``(*batch,)``.
    steps : int
        Number of states after `start`.
    dt : float
        Time between states.
    mu, gamma, beta : float
        The cycle has angular frequency ``gamma - beta mu``; `mu` is positive.
    noise : float
        Real and imaginary part of ``dW`` each have variance ``dt``, so that those of a kick have ``noise dt``.
    generator : torch.Generator
        Needed if there is noise.

    Returns
    -------
    Tensor
        complex128 ``(*batch, steps + 1)``, the first one `start`.

    Raises
    ------
    ValueError
        For `mu`, `dt` or `steps` that are not positive, negative noise, noise without a generator, or a start that is
        not finite.
    """
    if not (mu > 0 and dt > 0 and steps >= 1 and noise >= 0):
        raise ValueError(
            f"mu, dt > 0, steps >= 1 and noise >= 0 expected, got mu={mu}, dt={dt}, steps={steps}, noise={noise}"
        )
    if noise and generator is None:
        raise ValueError("generator: noise needs one")
    z = torch.as_tensor(start).to(torch.complex128)
    if not torch.isfinite(torch.view_as_real(z)).all():
        raise ValueError(f"start: not finite (shape {tuple(z.shape)})")
    kicks = None
    if noise:
        kicks = torch.randn(steps, *z.shape, 2, generator=generator, dtype=torch.float64)
        kicks = torch.view_as_complex(kicks) * (noise * dt) ** 0.5
    states = [z]
    for k in range(steps):
        z = stuart_landau_flow(z, dt, mu, gamma, beta)
        z = z if kicks is None else z + kicks[k]
        states.append(z)
    return torch.stack(states, -1)


def stuart_landau_flow(z: Tensor, dt: float, mu: float = 1.0, gamma: float = 0.9, beta: float = 0.3) -> Tensor:
    """Exact solution without noise after a time `dt`: complex ``(*batch,) -> (*batch,)``."""
    fade = np.exp(-2 * mu * dt)
    square = z.real**2 + z.imag**2
    log_growth = -(square / mu * (1 - fade) + fade).log() / 2
    turn = gamma * dt - beta * (mu * dt - log_growth)
    return z * torch.polar(log_growth.exp(), turn)


def stuart_landau_rates(
    harmonics: Tensor, mu: float = 1.0, gamma: float = 0.9, beta: float = 0.3, noise: float = 0.0
) -> Tensor:
    """Koopman eigenvalues (1 / time) of the phase harmonics under weak noise (Bagheri 2014), complex128.

    ``i m omega - noise (1 + beta^2) m^2 / (2 mu)`` with ``omega = gamma - beta mu``, to first order in `noise`, in the
    convention of `stuart_landau`.
    """
    m = torch.as_tensor(harmonics, dtype=torch.float64)
    return torch.complex(-noise * (1 + beta**2) / (2 * mu) * m**2, m * (gamma - beta * mu))


def _check(start: Tensor, times: Tensor) -> tuple[np.ndarray, np.ndarray]:
    start = torch.as_tensor(start, dtype=torch.float64).numpy()
    times = torch.as_tensor(times, dtype=torch.float64).numpy()
    if start.ndim < 1 or start.shape[-1] != 2 or start.size == 0:
        raise ValueError(f"start: expected (*batch, 2), got shape {start.shape}")
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) > 0).all():
        raise ValueError(f"times: expected at least two increasing numbers, got shape {times.shape}")
    for name, values in (("start", start), ("times", times)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: not finite (shape {values.shape})")
    return start, times

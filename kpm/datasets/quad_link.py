"""A pendulum of four links under gravity and friction, without a motor: the dynamics behind the quad-link images.

Four joints in a row carry links of equal mass and length. The state is ``(x1, v1, ..., x4, v4)``: the angle of each
joint, relative to the link before it, and its angular velocity; with all angles 0 the chain stands upright. The centre
of mass of a link is at its middle; its inertia about it is taken as ``m l^2 / 3``, as in the published simulator, where
a thin rod has ``m l^2 / 12``.

In the absolute angles ``theta`` of the links from hanging down, with ``w = theta'``, the equation is

    ``M(theta) w' = -friction F w - b(theta, w)``,

    ``M_ij = C_ij cos(theta_i - theta_j) + I delta_ij``,

    ``b_i = sum_j C_ij sin(theta_i - theta_j) w_j^2 + g_i sin(theta_i)``.

``C_ij`` sums mass times lever of i times lever of j, ``g_i`` gravity times mass times lever of i, over all links; the
lever of link i on a link's centre of mass is its length, or half of it for its own, or 0 for those before it. ``F``
turns angular velocities of links into the torques of their two joints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kpm.datasets import fixed_step
from kpm.solvers import checks

LINKS = 4
# The relative joint angles from the absolute ones: theta_i - theta_(i-1).
_RELATIVE = np.eye(LINKS) - np.eye(LINKS, k=-1)


@dataclass(frozen=True)
class QuadLink:
    """The pendulum and how it is integrated.

    Attributes
    ----------
    mass, length : float
        Of each link.
    gravity : float
    friction : float
        Torque per angular velocity of a joint.
    dt : float
        Time between frames, seconds.
    method : {"rk4", "euler"}
    substeps : int
        Steps between two frames.
    """

    mass: float = 1.0
    length: float = 1.0
    gravity: float = 9.81
    friction: float = 0.1
    dt: float = 0.05
    method: str = "rk4"
    substeps: int = 25

    @classmethod
    def published(cls) -> QuadLink:
        """The published integrator: explicit Euler with steps of 1e-4 s. Five times as slow."""
        return cls(method="euler", substeps=500)

    def __post_init__(self) -> None:
        for name in ("mass", "length"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)!r}")
        for name in ("gravity", "friction"):
            checks.nonnegative(getattr(self, name), name)


def random_starts(count: int, generator: torch.Generator) -> Tensor:
    """States at rest with all joint angles uniform in ``[-pi, pi)``: float64 ``(count, 8)``."""
    angles = math.pi * (2 * torch.rand(count, LINKS, generator=generator, dtype=torch.float64) - 1)
    return torch.stack([angles, torch.zeros_like(angles)], -1).flatten(1)


def simulate(start: Tensor, frames: int, config: QuadLink = QuadLink()) -> Tensor:
    """States of the pendulum a time `config.dt` apart.

    The pendulum is chaotic: after two or three seconds of a lively start, integrators and machines part ways.

    Parameters
    ----------
    start : Tensor
        ``(*batch, 8)``: angles (radians) and angular velocities (radians / s), joint by joint.
    frames : int
        Number of states, `start` included.
    config : QuadLink

    Returns
    -------
    Tensor
        ``(*batch, frames, 8)``, float64, angles not wrapped, on `start`'s device (the work is done on the CPU).

    Raises
    ------
    ValueError
        For a wrong shape, a start that is not finite, parameters that make no sense, or where an integration runs away.
    """
    start = _states(start, "start")
    flat = start.cpu().numpy()
    absolute = np.concatenate([_from_hanging(flat[..., ::2], 1).cumsum(-1), flat[..., 1::2].cumsum(-1)], -1)
    with np.errstate(over="ignore", invalid="ignore"):  # told below, with the index
        found = fixed_step.integrate(
            _slope(config), absolute, frames, config.dt, method=config.method, substeps=config.substeps
        )
    angles, speeds = (part @ _RELATIVE.T for part in np.split(found, 2, -1))
    states = torch.from_numpy(np.stack([_from_hanging(angles, -1), speeds], -1).reshape(found.shape))
    checks.finite(states, "states", f": steps of {config.dt / config.substeps:g} s are too long")
    return states.to(start.device)


def mass_matrix(states: Tensor, config: QuadLink = QuadLink()) -> Tensor:
    """Mass matrix in the absolute angles of the links, ``(*batch, 8) -> (*batch, 4, 4)``, float64."""
    theta = _states(states, "states")[..., ::2].cumsum(-1)  # the half turn of the first angle cancels
    couplings = torch.from_numpy(_couplings(config)[0]).to(theta.device)
    inertia = torch.eye(LINKS, dtype=torch.float64, device=theta.device) * _inertia(config)
    return couplings * (theta.unsqueeze(-1) - theta.unsqueeze(-2)).cos() + inertia


def energy(states: Tensor, config: QuadLink = QuadLink()) -> Tensor:
    """Kinetic and potential energy, joules: ``(*batch, 8) -> (*batch,)``. Hanging at rest it is least, -78.48."""
    states = _states(states, "states")
    theta, w = states[..., ::2].cumsum(-1), states[..., 1::2].cumsum(-1)
    weights = torch.from_numpy(_couplings(config)[1]).to(states.device)
    kinetic = torch.einsum("...i,...ij,...j->...", w, mass_matrix(states, config), w) / 2
    return kinetic + (weights * theta.cos()).sum(-1)  # theta from standing upright


def joints(states: Tensor) -> Tensor:
    """What the published models estimate: ``(sin x1, cos x1, ..., sin x4, cos x4)``, ``(*batch, 8) -> (*batch, 8)``."""
    angles = _states(states, "states")[..., ::2]
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


def _slope(config: QuadLink):
    """Time derivative of ``(theta, w)``, arrays ``(*batch, 8)``."""
    couplings, weights = _couplings(config)
    inertia, friction = _inertia(config) * np.eye(LINKS), config.friction * _RELATIVE.T @ _RELATIVE

    def slope(state: np.ndarray) -> np.ndarray:
        theta, w = state[..., :LINKS], state[..., LINKS:]
        e = np.exp(1j * theta)  # differences of angles are then products
        pull = (e * ((e * w**2) @ couplings).conj()).imag + weights * e.imag + w @ friction
        mass = couplings * (e[..., :, None] * e.conj()[..., None, :]).real + inertia
        return np.concatenate([w, -np.linalg.solve(mass, pull[..., None])[..., 0]], -1)

    return slope


def _couplings(config: QuadLink) -> tuple[np.ndarray, np.ndarray]:
    """``C`` and ``g`` of the equation, ``(4, 4)`` and ``(4,)``."""
    levers = config.length * (np.triu(np.ones((LINKS, LINKS)), 1) + np.eye(LINKS) / 2)  # of link i on the mass of j
    return config.mass * levers @ levers.T, config.gravity * config.mass * levers.sum(1)


def _inertia(config: QuadLink) -> float:
    return config.mass * config.length**2 / 3


def _from_hanging(angles: np.ndarray, sign: int) -> np.ndarray:
    """Joint angles, the first one from hanging down in place of from standing up (`sign` 1), or back (-1)."""
    return angles + sign * np.array([math.pi, 0, 0, 0])


def _states(states: Tensor, name: str) -> Tensor:
    states = torch.as_tensor(states)
    if states.ndim < 1 or states.shape[-1] != 2 * LINKS or states.numel() == 0 or states.is_complex():
        raise ValueError(f"{name}: expected real (*batch, 8), got {states.dtype} of shape {tuple(states.shape)}")
    checks.finite(states, name)
    return states.double()

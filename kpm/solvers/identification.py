"""System matrices of a linear stochastic process from its states, by least squares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kpm.solvers import checks, filters
from kpm.solvers.realization import Realization, hankel_blocks, realize


@dataclass(frozen=True)
class System:
    """Innovation form ``x[t+1] = x[t] @ transition + e[t] @ gain``, ``y[t] = observation_mean + x[t] @ output + e[t]``.

    Attributes
    ----------
    transition, output, gain : Tensor
        float64 ``(d, d)``, ``(d, p)`` and ``(p, d)``. The poles are the eigenvalues of `transition`.
    observation_mean : Tensor
        ``(p,)``.
    process_noise, observation_noise, cross_noise : Tensor
        Covariances of the residuals of state and observation and between them, ``(d, d)``, ``(p, p)``, ``(d, p)``.
    condition : Tensor
        Condition number of the states.
    """

    transition: Tensor
    output: Tensor
    gain: Tensor
    observation_mean: Tensor
    process_noise: Tensor
    observation_noise: Tensor
    cross_noise: Tensor
    condition: Tensor


@dataclass(frozen=True)
class Identified:
    """A system and the realization its states come from."""

    system: System
    realization: Realization


def fit_system(states: Tensor, y: Tensor, mask: Tensor | None = None, ridge: float = 0.0) -> System:
    """The system whose states and observations these are, shared by all sequences; differentiable once.

    Parameters
    ----------
    states : Tensor
        ``(*batch, time, d)``; state t is made of observations before t, as by `Realization.transform`.
    y : Tensor
        ``(*batch, time, p)``.
    mask : Tensor, optional
        bool ``(*batch, time)``, true where both are there.
    ridge : float
        Adds ``ridge`` times the squared norm of the matrices to both least-squares problems.

    Raises
    ------
    ValueError
        For shapes that do not fit, no two states in a row, or states that are linearly dependent without a ridge.
    """
    states, mask = checks.sequences(states, mask, name="states")
    checks.same_frames(y, states, "y", "states")
    y, _ = checks.sequences(y, mask, name="y")
    ridge = checks.nonnegative(ridge, "ridge")
    pairs = mask[..., :-1] & mask[..., 1:]
    if not pairs.any():
        raise ValueError(f"mask: no two states in a row are left (shape {tuple(mask.shape)})")
    mean = y[mask].mean(0)
    past, future, now = states[..., :-1, :][pairs], states[..., 1:, :][pairs], y[..., :-1, :][pairs] - mean
    parts = filters.svd(past)
    used = filters.above(parts)
    if ridge == 0 and int(used.sum()) < past.shape[-1]:
        raise ValueError(f"states: {past.shape[-1]} coordinates of rank {int(used.sum())}; take fewer, or give a ridge")
    inverse = filters.inverse(past, parts, torch.ones_like(used), ridge)
    transition, output = inverse @ future, inverse @ now
    w, e = future - past @ transition, now - past @ output
    n = len(past)
    spread, cross = e.mT @ e / n, w.mT @ e / n
    error = filters.svd(e)
    gain = filters.inverse(e, error, filters.above(error)) @ w
    condition = parts.s[0] / parts.s[-1]
    return System(transition, output, gain, mean, w.mT @ w / n, spread, cross, condition)


def identify(
    y: Tensor, window: int, rank: int, *, mask: Tensor | None = None, loading: float = 0.0, floor: float = 1e-8
) -> Identified:
    """Classical linear realization: the features are the raw observations of `window` steps back and ahead.

    Parameters
    ----------
    y : Tensor
        ``(*batch, time, p)``; all sequences are of one system.
    window : int
        Steps back and ahead, at least enough for ``window p >= rank``. With 1 the past is a single noisy observation,
        and the eigenvalues are shrunk by the noise as those of a least-squares fit are; take a few.
    rank : int
        Order of the system.
    mask, loading, floor
        See `hankel_blocks` and `realize`.
    """
    blocks = hankel_blocks(y, window, mask)
    past, future = blocks.past.flatten(-2), blocks.future.flatten(-2)
    found = realize(past, future, rank, mask=blocks.mask, loading=loading, floor=floor)
    return Identified(fit_system(found.transform(past), blocks.future[..., 0, :], blocks.mask), found)

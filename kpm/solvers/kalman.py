"""Kalman recursions for a `LinearGaussian` model, batched over sequences, in rows.

Everything is float64, differentiable, and without an explicit inverse. Covariances are updated in Joseph form, a sum of
positive semidefinite terms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kpm.solvers import checks
from kpm.solvers.linear_gaussian import LinearGaussian, broadcast


@dataclass(frozen=True)
class Filtered:
    """What the filter knows at each time; leading axes ``(*batch, time)``.

    `means` ``(d,)`` and `covariances` ``(d, d)`` are of ``x[t]`` given ``y[0..t]``; `predicted_means` and
    `predicted_covariances` given ``y[0..t-1]``. `gains` ``(p, d)``: ``mean = predicted + innovation @ gain``.
    `innovations` ``(p,)`` are zero and `innovation_covariances` ``(p, p)`` those of the unit matrix where nothing was
    observed. `log_likelihoods` ``(*batch, time)`` are those of ``y[t]`` given the past, over its observed entries.
    """

    means: Tensor
    covariances: Tensor
    predicted_means: Tensor
    predicted_covariances: Tensor
    gains: Tensor
    innovations: Tensor
    innovation_covariances: Tensor
    log_likelihoods: Tensor

    @property
    def log_likelihood(self) -> Tensor:
        """Log likelihood of each sequence, ``(*batch,)``."""
        return self.log_likelihoods.sum(-1)


@dataclass(frozen=True)
class Smoothed:
    """States given all observations: `means` ``(*batch, time, d)``, `covariances` ``(*batch, time, d, d)``."""

    means: Tensor
    covariances: Tensor


@dataclass(frozen=True)
class Forecast:
    """States and observations ahead: axis `steps` holds 1, 2, ... steps after the state that was given.

    `means` ``(*batch, steps, d)``, `covariances` ``(*batch, steps, d, d)``, `observation_means` ``(*batch, steps, p)``,
    `observation_covariances` ``(*batch, steps, p, p)``.
    """

    means: Tensor
    covariances: Tensor
    observation_means: Tensor
    observation_covariances: Tensor


@dataclass(frozen=True)
class SteadyState:
    """Where gain and covariances settle: `gain` ``(*batch, p, d)``, the covariances ``(*batch, d, d)``."""

    gain: Tensor
    predicted_covariance: Tensor
    covariance: Tensor


def kalman_filter(model: LinearGaussian, y: Tensor, mask: Tensor | None = None) -> Filtered:
    """Filter sequences of observations.

    Parameters
    ----------
    model : LinearGaussian
        One model for all sequences, or a batch of models that broadcasts with the batch of `y`.
    y : Tensor
        ``(*batch, time, p)``. Without a mask, NaN marks what was not observed: single entries or whole frames.
    mask : bool Tensor or array, optional
        True where observed, ``(*batch, time)`` or ``(*batch, time, p)``. The rest of `y` may hold anything.

    Raises
    ------
    ValueError
        For shapes that do not fit, an empty batch, infinite observations, NaN where the mask says observed, and an
        innovation covariance that is not positive definite (time and batch index are named).

    Notes
    -----
    An entry that is missing gets a zero column in `output` and unit noise: the update with the others is then exact,
    and its share of the likelihood is zero. If nothing is missing, covariances and gains do not depend on the data and
    are computed once for all sequences that share a model.
    """
    y, seen = _observations(model, y, mask)
    batch = broadcast({"model": model.batch_shape, "y": y.shape[:-2]})
    eye = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
    output, noise = model.output, model.observation_noise
    if seen is not None:
        shown = seen.to(y.dtype)
        count = shown.sum(-1)
    mean, covariance = model.initial_mean, model.initial_covariance
    steps, failures = [], []
    for t in range(y.shape[-2]):
        if seen is not None:
            s = shown[..., t, :]
            output = model.output * s[..., None, :]
            both = s[..., None, :] * s[..., :, None]
            noise = model.observation_noise * both + eye * (1 - both)
        innovation = y[..., t, :] - _row(mean, output)
        if seen is not None:
            innovation = innovation * s
        gain, new_covariance, spread, factor, bad = _update(covariance, output, noise)
        new_mean = mean + _row(innovation, gain)
        white = torch.linalg.solve_triangular(factor, innovation[..., None], upper=False).squeeze(-1)
        failures.append(bad)
        entries = y.shape[-1] if seen is None else count[..., t]
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_likelihood = -0.5 * (entries * math.log(2 * math.pi) + log_det + white.square().sum(-1))
        steps.append((new_mean, new_covariance, mean, covariance, gain, innovation, spread, log_likelihood))
        mean = _row(new_mean, model.transition)
        covariance = _symmetric(model.transition.mT @ new_covariance @ model.transition + model.process_noise)
    _check_factors("innovation covariance", failures, "add observation_noise", first=0)
    tails = (1, 2, 1, 2, 2, 1, 2, 0)
    return Filtered(*(_over_time(values, batch, tail) for values, tail in zip(zip(*steps), tails)))


def kalman_smoother(model: LinearGaussian, filtered: Filtered) -> Smoothed:
    """Rauch-Tung-Striebel smoother: the states given the whole sequence.

    With ``m[t]``, ``P[t]`` filtered, ``m-[t]``, ``P-[t]`` predicted and T the transition, backwards in time (Rauch,
    Tung, Striebel, AIAA J. 3, 1965; in rows)::

        L = P-[t+1]^(-1) T' P[t]
        m_s[t] = m[t] + (m_s[t+1] - m-[t+1]) L
        P_s[t] = P[t] + L' (P_s[t+1] - P-[t+1]) L

    Parameters
    ----------
    model : LinearGaussian
        That of the filter.
    filtered : Filtered
        What `kalman_filter` found: `means` ``(*batch, time, d)`` and so on.

    Returns
    -------
    Smoothed
        `means` ``(*batch, time, d)``, `covariances` ``(*batch, time, d, d)``, float64; the last ones are the filter's.

    Raises
    ------
    ValueError
        If a predicted covariance is singular, as it is for a state that is known exactly (time and batch index are
        named).
    """
    filtered_covariances, predicted = _once(filtered.covariances, 3), _once(filtered.predicted_covariances, 3)
    means, covariances = [filtered.means[..., -1, :]], [filtered_covariances[..., -1, :, :]]
    eye = torch.eye(model.transition.shape[-1], dtype=predicted.dtype, device=predicted.device)
    factors, bad = _cholesky(predicted[..., 1:, :, :])
    _check_factors("predicted covariance", list(bad.unbind(-1)), "the smoother needs process_noise", first=1)
    for t in range(filtered.means.shape[-2] - 2, -1, -1):
        covariance = filtered_covariances[..., t, :, :]
        back = torch.cholesky_solve(model.transition.mT @ covariance, factors[..., t, :, :])
        keep = eye - model.transition @ back
        step = means[-1] - filtered.predicted_means[..., t + 1, :]
        means.append(filtered.means[..., t, :] + _row(step, back))
        # P + L' (P_s - P_pred) L, written as a sum of positive semidefinite terms
        rest = back.mT @ (covariances[-1] + model.process_noise) @ back
        covariances.append(_symmetric(keep.mT @ covariance @ keep + rest))
    batch = filtered.means.shape[:-2]
    return Smoothed(_over_time(means[::-1], batch, 1), _over_time(covariances[::-1], batch, 2))


def forecast(model: LinearGaussian, mean: Tensor, covariance: Tensor, steps: int) -> Forecast:
    """Predict 1 to `steps` steps ahead of a state with `mean` ``(*batch, d)`` and `covariance` ``(*batch, d, d)``.

    Give the last filtered state to forecast a sequence, or all of them (time is then one more batch axis, so a model
    with batch axes needs one of size 1 there). Raises `ValueError` for ``steps < 1``, shapes that do not fit, and
    numbers that are complex or not finite.
    """
    d = model.transition.shape[-1]
    steps = checks.count(steps, "steps", 1)
    mean, covariance = _real(mean, "mean"), _real(covariance, "covariance")
    if mean.shape[-1:] != (d,) or covariance.shape[-2:] != (d, d):
        shapes = f"mean {tuple(mean.shape)}, covariance {tuple(covariance.shape)}"
        raise ValueError(f"mean, covariance: expected (*batch, {d}) and (*batch, {d}, {d}), got {shapes}")
    checks.finite(mean, "mean")
    checks.finite(covariance, "covariance")
    shapes = {"model": model.batch_shape, "mean": mean.shape[:-1], "covariance": covariance.shape[:-2]}
    batch, ahead = broadcast(shapes), []
    for _ in range(steps):
        mean = _row(mean, model.transition)
        covariance = _symmetric(model.transition.mT @ covariance @ model.transition + model.process_noise)
        spread = model.output.mT @ covariance @ model.output + model.observation_noise
        ahead.append((mean, covariance, _row(mean, model.output), spread))
    return Forecast(*(_over_time(values, batch, tail) for values, tail in zip(zip(*ahead), (1, 2, 1, 2))))


def steady_state(model: LinearGaussian, tolerance: float = 1e-13, max_doublings: int = 60) -> SteadyState:
    """Gain and covariances after many observations, from the Riccati equation by the doubling algorithm.

    The predicted covariance P solves, with transition T, output C and noises Q and R (in rows)::

        P = T' P T - T' P C (C' P C + R)^(-1) C' P T + Q

    Doubling number k looks ``2^k`` steps ahead, so about 10 of them do (Anderson, Int. J. Control 28, 1978).

    Parameters
    ----------
    model : LinearGaussian
        T ``(*batch, d, d)``, C ``(*batch, d, p)`` and so on; `observation_noise`, R, positive definite.
    tolerance : float
        Largest change of P in the last doubling, relative to the largest entry of P.
    max_doublings : int

    Returns
    -------
    SteadyState
        `gain` ``(*batch, p, d)``, `predicted_covariance` P and the filtered `covariance` ``(*batch, d, d)``, float64.

    Raises
    ------
    ValueError
        If `max_doublings` is not positive, if `observation_noise` is not positive definite, or without convergence: a
        mode that does not decay and is not observed (the batch index is named).
    """
    tolerance = checks.nonnegative(tolerance, "tolerance")
    max_doublings = checks.count(max_doublings, "max_doublings", 1)
    batch, d = model.batch_shape, model.transition.shape[-1]
    noise_factor, bad = _cholesky(model.observation_noise)
    _check_factors("observation_noise", [bad], "the steady state needs a positive definite one")
    eye = torch.eye(d, dtype=noise_factor.dtype, device=noise_factor.device)
    a = model.transition.expand(*batch, d, d)
    g = (model.output @ torch.cholesky_solve(model.output.mT, noise_factor)).expand(*batch, d, d)
    predicted = model.process_noise.expand(*batch, d, d)
    for _ in range(max_doublings):
        ahead = torch.linalg.solve(eye + g @ predicted, torch.cat([a, g], -1))
        change = a.mT @ predicted @ ahead[..., :d]
        predicted, g, a = _symmetric(predicted + change), g + a @ ahead[..., d:] @ a.mT, a @ ahead[..., :d]
        with torch.no_grad():
            size = predicted.abs().amax((-1, -2))
            settled = torch.isfinite(size) & (change.abs().amax((-1, -2)) <= tolerance * size)
        if settled.all() or not torch.isfinite(size).all():
            break
    if not settled.all():
        raise ValueError(f"model{checks.where(~settled)}: no steady state; is every mode that does not decay observed?")
    gain, covariance, *_ = _update(predicted, model.output, model.observation_noise)
    return SteadyState(gain, predicted, covariance)


def _update(covariance: Tensor, output: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
    """Gain ``(p, d)``, covariance in Joseph form, innovation covariance, its Cholesky factor and if it is singular."""
    cross = covariance @ output
    spread = _symmetric(output.mT @ cross) + noise
    factor, bad = _cholesky(spread)
    gain = torch.cholesky_solve(cross.mT, factor)
    keep = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device) - output @ gain
    return gain, _symmetric(keep.mT @ covariance @ keep + gain.mT @ noise @ gain), spread, factor, bad


def _cholesky(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factor, and where the matrix is singular to working precision (a bool per matrix)."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    with torch.no_grad():
        left = factor.diagonal(dim1=-2, dim2=-1).square()
        floor = 4 * matrix.shape[-1] * torch.finfo(matrix.dtype).eps * matrix.diagonal(dim1=-2, dim2=-1)
        return factor, (info > 0) | ~(left > floor).all(-1)


def _check_factors(name: str, bad: list[Tensor], advice: str, first: int | None = None) -> None:
    """Raise for the first batch index where a factor is `bad`. If the list is one of times, `first` is its first."""
    for t, here in enumerate(bad):
        if here.any():
            time = "" if first is None else f" at time {first + t}"
            raise ValueError(f"{name}{checks.where(here)}: singular{time}; {advice}")


def _observations(model: LinearGaussian, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Float64 observations with zeros where there are none, and which there are (`None` for all of them)."""
    y = _real(y, "y")
    p = model.output.shape[-1]
    if y.ndim < 2 or y.shape[-1] != p or 0 in y.shape:
        raise ValueError(f"y: expected (*batch, time, {p}) without empty axes, got shape {tuple(y.shape)}")
    if mask is None:
        seen = ~torch.isnan(y)
    else:
        seen = checks.bools(mask, "mask", y.shape, y.shape[:-1]).to(y.device)
        seen = seen.expand(y.shape) if seen.ndim == y.ndim else seen[..., None].expand(y.shape)
    if seen.all():
        seen = None
    else:
        y = torch.where(seen, y, 0)
    checks.finite(y, "y")
    return y, seen


def _real(x: Tensor, name: str) -> Tensor:
    """Float64 of numbers in any form, arrays and lists too; raises for complex ones."""
    x = torch.as_tensor(x)
    if x.is_complex():
        raise ValueError(f"{name}: expected real numbers, got {x.dtype} of shape {tuple(x.shape)}")
    return x.double()


def _row(x: Tensor, matrix: Tensor) -> Tensor:
    """``x @ matrix`` for rows ``(*batch, n)`` and matrices ``(*batch, n, m)``."""
    return x @ matrix if matrix.ndim == 2 else (x[..., None, :] @ matrix).squeeze(-2)


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


def _over_time(values: Sequence[Tensor], batch: torch.Size, tail: int) -> Tensor:
    """Steps ``(*some of batch, *tail)`` as ``(*batch, time, *tail)``; what batch entries share is not copied."""
    whole = torch.stack(torch.broadcast_tensors(*values), -tail - 1)
    return whole.expand(*batch, *whole.shape[whole.ndim - tail - 1 :])


def _once(value: Tensor, tail: int) -> Tensor:
    """Undo what `_over_time` expanded: one entry along each batch axis whose entries are the same memory."""
    axes = range(value.ndim - tail)
    return value[tuple(slice(0, 1) if value.stride(axis) == 0 else slice(None) for axis in axes)]

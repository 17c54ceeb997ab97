"""The embedded latent transfer operator (ELTO): kernel realization, then a transfer operator of the states' kernel.

Ke, Tanaka and Kawahara, AISTATS 2025 ([ELTO]). Two stages: `kernel_states` finds states, and the operator moves their
embedding by a Gaussian kernel one step on. Its eigenvalues are the spectrum; with an observation operator it predicts
by the kernel Kalman rule. The formulas are the paper's, not those of its code, which swaps two covariances and takes
``U S V`` for a matrix root. Reference points in place of all samples keep long records cheap.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from kpm.models.baselines.kernel_kalman import KernelKalman, fit_kernel_kalman, ridge
from kpm.models.baselines.kernel_states import KernelStates, fit_states
from kpm.models.baselines.kernels import KernelFeatures, evenly, kernel_features, median_distance
from kpm.solvers import checks, eigenvalues


@dataclasses.dataclass(frozen=True)
class ELTOConfig:
    """Sizes, and what the validation part chooses among.

    Attributes
    ----------
    delays, window, rank, functions, references, epochs
        Of the first stage, see `kernel_states.fit_states`. Published example: window = rank = 5, one function, frames
        as they are, 200 epochs.
    bandwidth, state_bandwidth, observation_bandwidth : float
        Of the Gaussians of frames, states and filtered observations, in median distances.
    features : int
        Leading kernel directions of the states that the operator acts on: so many eigenvalues it has.
    ridge : float
        Per sample, of transition and observation.
    noise : float
        Of the filter, see `kernel_kalman`.
    candidates : int
        Settings tried: this one, and others with bandwidths up to a factor 2 away and ridge and noise from 1e-8 to
        1e-3.
    validation : float
        Share of the record, at its end, that chooses.
    horizon : int
        Steps ahead over which the validation error is the mean.
    seed : int
        Of the settings tried.
    """

    delays: int = 1
    window: int = 5
    rank: int = 5
    functions: int = 1
    references: int = 200
    epochs: int = 200
    bandwidth: float = 1.0
    state_bandwidth: float = 1.0
    observation_bandwidth: float = 1.0
    features: int = 30
    ridge: float = 1e-6
    noise: float = 1e-4
    candidates: int = 4
    validation: float = 1 / 6
    horizon: int = 20
    seed: int = 7253

    def __post_init__(self) -> None:
        for name in ("bandwidth", "state_bandwidth", "observation_bandwidth"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)!r}")
        for name in ("delays", "window", "rank", "functions", "references", "features", "candidates", "horizon"):
            checks.count(getattr(self, name), name, 1, 10**6)
        if not 0 < self.validation < 1:
            raise ValueError(f"validation: expected a share between 0 and 1, got {self.validation!r}")

    @classmethod
    def van_der_pol(cls, **changes) -> ELTOConfig:
        """For the spectrum of the position: one function, as published, with blocks of 5 time units.

        The spectrum hinges on the length of a block: with 30 frames the mean error is ten times that with 50. Learning
        the function moves it little.
        """
        return cls(**{"window": 50, "epochs": 20, **changes})

    @classmethod
    def stuart_landau(cls, **changes) -> ELTOConfig:
        """For the spectrum of an observed angle: four functions, as one of a plane does not tell the phase."""
        return cls(**{"window": 10, "functions": 4, "epochs": 10, **changes})

    @classmethod
    def films(cls, **changes) -> ELTOConfig:
        """For the prediction of films, on their principal components."""
        sizes = {"window": 5, "rank": 40, "functions": 20, "references": 400, "features": 200, "epochs": 10}
        return cls(**{**sizes, "horizon": 10, "ridge": 1e-5, "noise": 1e-3, **changes})

    def others(self) -> Iterator[ELTOConfig]:
        """This setting and ``candidates - 1`` drawn around it."""
        yield self
        draw = torch.Generator().manual_seed(self.seed)
        for _ in range(self.candidates - 1):
            u = torch.rand(5, generator=draw, dtype=torch.float64).tolist()
            factor = [2 ** (2 * x - 1) for x in u[:3]]
            yield dataclasses.replace(
                self,
                bandwidth=self.bandwidth * factor[0],
                state_bandwidth=self.state_bandwidth * factor[1],
                observation_bandwidth=self.observation_bandwidth * factor[2],
                ridge=10 ** (5 * u[3] - 8),
                noise=10 ** (5 * u[4] - 8),
            )


@dataclasses.dataclass(frozen=True)
class ELTO:
    """States, features of them, the operator of these ``(features, features)``, in rows, and the setting chosen."""

    config: ELTOConfig
    states: KernelStates
    features: KernelFeatures
    transition: Tensor


def spectrum(y: Tensor, config: ELTOConfig | None = None) -> Tensor:
    """Discrete eigenvalues of the transfer operator of a record, largest modulus first, complex128.

    Parameters
    ----------
    y : Tensor
        ``(time, channels)``.
    config : ELTOConfig, optional
        The setting that predicts the end of the record best is refitted to all of it.

    Raises
    ------
    ValueError
        For a wrong shape or a record too short.
    """
    config = config or ELTOConfig()
    y, _ = checks.sequences(y, name="y")
    if y.ndim != 2:
        raise ValueError(f"y: expected (time, channels), got shape {tuple(y.shape)}")
    best = choose(y[None], config)
    values = eigenvalues(fit(y[None], best).transition)
    return values[values.abs().argsort(descending=True, stable=True)]


def fit(y: Tensor, config: ELTOConfig) -> ELTO:
    """Both stages, with one setting, on records ``(n, time, channels)``."""
    states = _states(y, config)
    x = states(y)
    features = _features(x, config.state_bandwidth, config)
    z = features(x)
    past, future = z[:, :-1].flatten(0, 1), z[:, 1:].flatten(0, 1)
    return ELTO(config, states, features, ridge(past, future, config.ridge * len(past)))


def choose(y: Tensor, config: ELTOConfig) -> ELTOConfig:
    """Of the settings around `config` the one whose predictions of the end of each record err least."""
    size = round(y.shape[1] * (1 - config.validation))
    head, tail = y[:, :size], y[:, size:]
    return min(config.others(), key=lambda setting: _error(fit(head, setting), head, tail))


def _error(model: ELTO, head: Tensor, tail: Tensor) -> float:
    """Mean squared error of frames 1 to `horizon` steps after the frames a state is made of."""
    z, first = model.features(model.states(head))[:, :-1], model.states.first
    now = head[:, first:].flatten(0, 1)
    readout = ridge(z.flatten(0, 1), now, model.config.ridge * len(now))
    z, now = model.features(model.states(tail))[:, :-1], tail[:, first:]
    total = 0.0
    for step in range(model.config.horizon):
        total += float((z[:, : now.shape[1] - step] @ readout - now[:, step:]).square().mean())
        z = z @ model.transition
    return total / model.config.horizon


def fit_filter(y: Tensor, targets: Tensor, config: ELTOConfig) -> KernelKalman:
    """The kernel Kalman rule on the states of records, for the predictions of `KernelKalman`.

    Parameters
    ----------
    y : Tensor
        ``(n, time, channels)``: what is observed.
    targets : Tensor
        ``(n, time, q)``: what is to be predicted of the same frames.
    config : ELTOConfig
    """
    states = _states(y, config)
    x, rest = states(y)[:, :-1], slice(states.first + 1, None)
    return fit_kernel_kalman(
        x[:, :-1].flatten(0, 1),
        x[:, 1:].flatten(0, 1),
        seen := y[:, rest].flatten(0, 1),
        targets[:, rest].flatten(0, 1),
        state_features=_features(x, config.state_bandwidth, config),
        observation_features=_features(y, config.observation_bandwidth, config),
        ridge_transition=config.ridge * len(seen),
        ridge_observation=config.ridge * len(seen),
        noise=config.noise,
    )


def _states(y: Tensor, config: ELTOConfig) -> KernelStates:
    names = ("delays", "window", "rank", "functions", "references", "bandwidth", "epochs")
    return fit_states(y, **{name: getattr(config, name) for name in names})


def _features(x: Tensor, bandwidth: float, config: ELTOConfig) -> KernelFeatures:
    """Features of the states (or frames) of all records ``(n, time, dim)``."""
    flat = x.flatten(0, 1)
    return kernel_features(evenly(flat, config.references), bandwidth * median_distance(flat), config.features)

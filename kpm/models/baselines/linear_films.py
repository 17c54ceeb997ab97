"""Predictors of films that are fitted in closed form, on principal components of the frames: linear, and by kernels."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from kpm.models.baselines import elto
from kpm.models.baselines.kernel_kalman import KernelKalman
from kpm.models.baselines.predictor import ELEMENT, FilmPredictor, pixels
from kpm.models.baselines.settled_filter import settled_filter
from kpm.models.principal_components import Components, principal_components
from kpm.solvers import LinearGaussian, identify
from kpm.solvers.identification import System


@dataclasses.dataclass(frozen=True)
class LinearConfig:
    """Principal components, steps back and ahead, order of the system, and loading in units of the frames' variance."""

    components: int = 30
    window: int = 10
    rank: int = 20
    loading: float = 1e-3

    @classmethod
    def quick(cls) -> LinearConfig:
        return cls(components=10, window=5, rank=8)


class LinearPredictor(FilmPredictor):
    """Linear stochastic realization of the components, and the Kalman filter of its system.

    The gain of the innovation form, a regression, is not used: on clean films it can make the filter unstable. That of
    the Kalman filter cannot.
    """

    def __init__(self, found: Components, system: System, spread: Tensor):
        """Take a system and the covariance ``(d, d)`` of its states."""
        self.components, self.system = found, system
        self.filter = settled_filter(
            LinearGaussian(
                transition=system.transition,
                output=system.output,
                process_noise=system.process_noise,
                observation_noise=system.observation_noise,
                initial_mean=torch.zeros(len(spread)),
                initial_covariance=spread,
            )
        )

    @classmethod
    def fit(cls, frames: Tensor, config: LinearConfig | None = None) -> LinearPredictor:
        """Find components and system of films ``(n, time, 1, 48, 48)``; no film joins another."""
        config, frames = config or LinearConfig(), pixels(frames)
        found = principal_components(frames, config.components)
        y = found.encode(frames)
        loading = config.loading * float(y.var())
        identified = identify(y, config.window, config.rank, loading=loading)
        # Without loading, this is the covariance of the states themselves.
        spread = torch.diag(identified.realization.correlations[: config.rank])
        return cls(found, identified.system, spread)

    def beliefs(self, frames: Tensor) -> Tensor:
        """State means ``(n, time + 1, rank)``, float64, of frames ``(n, time, 1, 48, 48)``, each from those before."""
        return self.filter.predicted(self.components.encode(pixels(frames)) - self.system.observation_mean)

    def advance(self, beliefs: Tensor) -> Tensor:
        """State means ``(n, t, rank)`` one step on, with no frame seen."""
        return beliefs @ self.system.transition

    def decode(self, beliefs: Tensor) -> Tensor:
        """Frames ``(n, t, 1, 48, 48)``, float64, of state means ``(n, t, rank)``."""
        codes = beliefs @ self.system.output + self.system.observation_mean
        return (codes @ self.components.axes.mT + self.components.mean).unflatten(-1, ELEMENT)


@dataclasses.dataclass(frozen=True)
class KernelConfig:
    """Principal components that the kernels see, and the embedded latent transfer operator on them."""

    components: int = 30
    elto: elto.ELTOConfig = dataclasses.field(default_factory=elto.ELTOConfig.films)

    @classmethod
    def quick(cls) -> KernelConfig:
        small = elto.ELTOConfig(window=3, rank=8, functions=8, epochs=0, references=60, features=40, candidates=2)
        return cls(components=10, elto=small)


class KernelPredictor(FilmPredictor):
    """ELTO: states by kernel realization, filtered by the kernel Kalman rule, frames by regression on them."""

    def __init__(self, found: Components, kernel: KernelKalman, chosen: elto.ELTOConfig):
        self.components, self.kernel, self.chosen = found, kernel, chosen

    @classmethod
    def fit(cls, frames: Tensor, validation: Tensor, config: KernelConfig | None = None) -> KernelPredictor:
        """Fit films ``(n, time, 1, 48, 48)``; of the settings tried, the best on the validation films is kept.

        Best is the least mean squared error 1, half the horizon and the horizon ahead.
        """
        config = config or KernelConfig()
        frames, truth = pixels(frames), pixels(validation)
        found = principal_components(frames, config.components)
        codes, targets = found.encode(frames), frames.flatten(2).double()
        steps = tuple(sorted({1, max(1, config.elto.horizon // 2), config.elto.horizon}))
        best, least = None, float("inf")
        for setting in config.elto.others():
            model = cls(found, elto.fit_filter(codes, targets, setting), setting)
            ahead = model.horizons(truth, steps)
            error = sum(float((guess - truth[:, h - 1 :]).square().mean()) for h, guess in ahead)
            if best is None or error < least:
                best, least = model, error
        return best

    def beliefs(self, frames: Tensor) -> Tensor:
        """Mean embeddings ``(n, time + 1, d)``, float64, of frames ``(n, time, 1, 48, 48)``, each from those before."""
        return self.kernel.predicted(self.components.encode(pixels(frames)))

    def advance(self, beliefs: Tensor) -> Tensor:
        """Mean embeddings ``(n, t, d)`` one step on, with no frame seen."""
        return self.kernel.advance(beliefs)

    def decode(self, beliefs: Tensor) -> Tensor:
        """Frames ``(n, t, 1, 48, 48)``, float64, of mean embeddings ``(n, t, d)``."""
        return (beliefs @ self.kernel.readout).unflatten(-1, ELEMENT)

"""A continuous-time linear state-space model of codes that a variational autoencoder learns ([NCDSSM], linear variant).

Ansari et al., ICML 2023. The state follows ``dz = z F dt + dB``, codes are noisy linear functions of it, frames are
decoded from codes. Frames come at equal times here, so that the equation is solved exactly between two of them: by the
matrix exponential of F, and that of Van Loan for the noise.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from kpm.models.baselines.image_networks import FrameEncoder, cross_entropy, decode_frames
from kpm.models.baselines.predictor import FilmPredictor
from kpm.models.baselines.settled_filter import settled_filter
from kpm.models.dse_image_networks import ImageDecoder
from kpm.solvers import LinearGaussian, kalman_filter


@dataclasses.dataclass(frozen=True)
class NCDSSMConfig:
    """Sizes; published for films: 4 code numbers and a state of 10.

    Attributes
    ----------
    code, state : int
    dt : float
        Time between frames, seconds.
    least_noise : float
        Smallest spectral density of each coordinate's noise.
    """

    code: int = 4
    state: int = 10
    dt: float = 0.05
    least_noise: float = 1e-4

    @classmethod
    def quick(cls) -> NCDSSMConfig:
        return cls(state=6)


class NCDSSM(nn.Module, FilmPredictor):
    """A belief is the mean of the state before its frame is seen, by the Kalman filter of the encoder's means."""

    def __init__(self, config: NCDSSMConfig | None = None):
        super().__init__()
        self.config = c = config or NCDSSMConfig()
        self.encoder, self.decoder = FrameEncoder(c.code, unit=False), ImageDecoder(c.code)
        half = c.state // 2
        turns = torch.zeros(c.state, c.state)
        rates = torch.linspace(0.5, 2 * math.pi, max(half, 1))  # half a radian to one turn per second
        for k in range(half):
            turns[2 * k, 2 * k + 1], turns[2 * k + 1, 2 * k] = rates[k], -rates[k]
        self.drift = nn.Parameter(turns - 0.1 * torch.eye(c.state))
        self.log_density = nn.Parameter(torch.zeros(c.state))
        self.output = nn.Parameter(torch.randn(c.state, c.code) / math.sqrt(c.state))
        self.log_code_noise = nn.Parameter(torch.full((c.code,), math.log(0.1)))
        self.log_initial = nn.Parameter(torch.zeros(c.state))
        self.initial_mean = nn.Parameter(torch.zeros(c.state))

    def system(self) -> LinearGaussian:
        """State and codes from frame to frame; differentiable."""
        density = torch.diag(self.log_density.double().exp().clamp_min(self.config.least_noise))
        transition, noise = discretise(self.drift.double(), density, self.config.dt)
        return LinearGaussian(
            transition=transition,
            output=self.output,
            process_noise=noise,
            observation_noise=torch.diag(self.log_code_noise.double().exp()),
            initial_mean=self.initial_mean,
            initial_covariance=torch.diag(self.log_initial.double().exp()),
        )

    def beliefs(self, frames: Tensor) -> Tensor:
        """Means ``(n, time + 1, state)``, float64, for frames ``(n, time, 1, 48, 48)`` in [0, 1], from those before."""
        codes, _ = self.encoder(frames)
        return settled_filter(self.system()).predicted(codes.double())

    def advance(self, beliefs: Tensor) -> Tensor:
        """Means ``(n, t, state)`` one step on, with no frame seen."""
        return beliefs @ self.system().transition

    def decode(self, beliefs: Tensor) -> Tensor:
        """Frames ``(n, t, 1, 48, 48)`` in [0, 1] of means ``(n, t, state)``."""
        return decode_frames(self.decoder, (beliefs @ self.output.double()).float())

    def loss(self, frames: Tensor) -> dict[str, Tensor]:
        """Minus the evidence lower bound per pixel of frames ``(n, t, 1, 48, 48)`` in [0, 1], from one sample of codes.

        Three terms: pixels given codes (Bernoulli), codes under the state-space model, minus the encoder's entropy.
        """
        mean, variance = self.encoder(frames)
        variance = variance + 1e-6
        codes = mean + variance.sqrt() * torch.randn_like(mean)
        pixel = cross_entropy(decode_frames(self.decoder, codes), frames)
        prior = -kalman_filter(self.system(), codes).log_likelihood.sum() / frames.numel()
        entropy = 0.5 * (math.log(2 * math.pi * math.e) + variance.log()).sum() / frames.numel()
        return {"pixels": pixel, "codes": prior.float(), "entropy": -entropy}


def discretise(drift: Tensor, density: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """Transition ``exp(F dt)`` and covariance of the noise over a step of ``dz = z F dt + dB`` (rows).

    Parameters
    ----------
    drift : Tensor
        F, ``(d, d)``.
    density : Tensor
        Covariance of ``dB`` per unit of time, ``(d, d)``.

    Returns
    -------
    tuple of Tensor
        ``(d, d)`` both. The second is ``int_0^dt exp(F' s) density exp(F s) ds``, from one exponential of twice the
        size (Van Loan 1978).
    """
    d = len(drift)
    top = torch.cat([-drift.mT, density], 1)
    bottom = torch.cat([torch.zeros_like(drift), drift], 1)
    blocks = torch.linalg.matrix_exp(dt * torch.cat([top, bottom]))
    transition = blocks[d:, d:]
    noise = transition.mT @ blocks[:d, d:]
    return transition, (noise + noise.mT) / 2

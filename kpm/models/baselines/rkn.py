"""The recurrent Kalman network ([RKN] Becker et al., ICML 2019): a Kalman filter whose update needs no inverse.

The latent state has two halves, of which the encoder observes the upper one; the lower one holds what has no place in a
single frame. Covariances are diagonal within and between the halves, so that the update is element by element. The
transition is a mixture of basis matrices, weighted by a network of the filtered mean.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kpm.models.baselines.image_networks import FrameEncoder, cross_entropy, decode_frames, positive
from kpm.models.baselines.predictor import FilmPredictor, in_pieces
from kpm.models.dse_image_networks import ImageDecoder


@dataclasses.dataclass(frozen=True)
class RKNConfig:
    """Sizes; the published ones for the quad-link.

    Attributes
    ----------
    code : int
        Numbers the encoder gives; the state has twice as many.
    bases : int
        Basis matrices.
    bandwidth : int
        Off-diagonals on each side of each quarter of a basis matrix.
    transition_hidden : tuple of int
        Hidden sizes (tanh) of the network that weights the bases.
    initial_covariance, transition_covariance : float
        Of the first state, and of the noise at the start of training.
    memory : int
        The filter starts anew every so many frames, see `predictor.in_pieces`: nothing keeps it stable over more frames
        than it was trained on.
    """

    code: int = 100
    bases: int = 15
    bandwidth: int = 3
    transition_hidden: tuple[int, ...] = (128, 128)
    initial_covariance: float = 10.0
    transition_covariance: float = 0.1
    memory: int = 30

    def __post_init__(self) -> None:
        object.__setattr__(self, "transition_hidden", tuple(self.transition_hidden))
        for name in ("code", "bases"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 <= self.bandwidth < self.code:
            raise ValueError(f"bandwidth: expected 0 to {self.code - 1}, got {self.bandwidth}")

    @classmethod
    def quick(cls) -> RKNConfig:
        return cls(code=30, bases=6, transition_hidden=(32,))


class RKNCell(nn.Module):
    """Update and prediction; means ``(b, 2, code)`` and covariances ``(b, 2, 2, code)``, upper half first."""

    def __init__(self, config: RKNConfig):
        super().__init__()
        n, w = config.code, config.bandwidth
        self.width = w
        sizes = [2 * n, *config.transition_hidden]
        hidden = [layer for pair in zip(sizes, sizes[1:]) for layer in (nn.Linear(*pair), nn.Tanh())]
        self.weights = nn.Sequential(*hidden, nn.Linear(sizes[-1], config.bases))
        # Bands (basis, to half, from half, row, diagonal): the identity, and a turn between the halves, as published.
        bands = torch.zeros(config.bases, 2, 2, n, 2 * w + 1)
        bands[:, 0, 0, :, w] = bands[:, 1, 1, :, w] = 1.0
        bands[:, 0, 1, :, w], bands[:, 1, 0, :, w] = 0.2, -0.2
        self.bands = nn.Parameter(bands + 0.01 * torch.randn_like(bands))
        start = config.transition_covariance
        self.noise = nn.Parameter(torch.full((2, n), start - 1 if start >= 1 else math.log(start)))

    def update(self, mean: Tensor, covariance: Tensor, seen: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """The state given an observation ``(b, code)`` of its upper half with this variance."""
        gain = covariance[:, 0] / (covariance[:, 0, 0] + variance).unsqueeze(1)  # (b, 2, code)
        mean = mean + gain * (seen - mean[:, 0]).unsqueeze(1)
        return mean, covariance - gain.unsqueeze(2) * covariance[:, 0].unsqueeze(1)

    def predict(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """The state one step later."""
        a = self.transition(mean)
        half = torch.einsum("boinw,bijnw->bojnw", a, self._neighbours(covariance))
        noise = torch.diag_embed(positive(self.noise).mT).movedim(0, -1)
        return self.move(a, mean), torch.einsum("bojnw,bpjnw->bopn", half, a) + noise

    def transition(self, mean: Tensor) -> Tensor:
        """Bands ``(b, 2, 2, code, 2 bandwidth + 1)`` of the transition matrix at means ``(b, 2, code)``."""
        weights = self.weights(mean.flatten(1)).softmax(-1)
        return (weights @ self.bands.flatten(1)).unflatten(1, self.bands.shape[1:])

    def move(self, bands: Tensor, mean: Tensor) -> Tensor:
        """Means ``(b, 2, code)`` one step later, by the bands of `transition`."""
        return torch.einsum("boinw,binw->bon", bands, self._neighbours(mean))

    def _neighbours(self, x: Tensor) -> Tensor:
        """``(..., code) -> (..., code, 2 bandwidth + 1)``: what the diagonals of a row meet, zeros beyond the ends."""
        return F.pad(x, (self.width, self.width)).unfold(-1, 2 * self.width + 1, 1)


class RKN(nn.Module, FilmPredictor):
    """Encoder, cell and decoder; a belief is the mean of the state before its frame is seen."""

    def __init__(self, config: RKNConfig | None = None):
        super().__init__()
        self.config = config = config or RKNConfig()
        self.encoder, self.cell = FrameEncoder(config.code), RKNCell(config)
        self.decoder = ImageDecoder(2 * config.code)

    def beliefs(self, frames: Tensor) -> Tensor:
        """Means ``(n, time + 1, 2 code)`` for frames ``(n, time, 1, 48, 48)`` in [0, 1], each from those before."""
        return in_pieces(self.run, frames, self.config.memory)

    def run(self, frames: Tensor) -> Tensor:
        """Beliefs ``(n, t + 1, 2 code)`` from one run over frames ``(n, t, 1, 48, 48)``."""
        seen, variance = self.encoder(frames)
        n, code = len(frames), self.config.code
        mean = seen.new_zeros(n, 2, code)
        covariance = torch.eye(2, device=seen.device)[..., None].expand(n, 2, 2, code) * self.config.initial_covariance
        means = [mean]
        for t in range(frames.shape[1]):
            mean, covariance = self.cell.predict(*self.cell.update(mean, covariance, seen[:, t], variance[:, t]))
            means.append(mean)
        return torch.stack(means, 1).flatten(2)

    def advance(self, beliefs: Tensor) -> Tensor:
        """Means ``(n, t, 2 code)`` one step on, with no frame seen."""
        mean = beliefs.flatten(0, 1).unflatten(1, (2, -1))
        return self.cell.move(self.cell.transition(mean), mean).flatten(1).unflatten(0, beliefs.shape[:2])

    def decode(self, beliefs: Tensor) -> Tensor:
        """Frames ``(n, t, 1, 48, 48)`` in [0, 1] of means ``(n, t, 2 code)``."""
        return decode_frames(self.decoder, beliefs)

    def loss(self, frames: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of frames ``(n, t, 1, 48, 48)`` in [0, 1], each predicted from those before it."""
        return {"one_step": cross_entropy(self.decode(self.beliefs(frames)[:, 1:-1]), frames[:, 1:])}

"""An LSTM that predicts the next frame, with the encoder and decoder of the recurrent Kalman network."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from kpm.models.baselines.image_networks import FrameEncoder, cross_entropy, decode_frames
from kpm.models.baselines.predictor import FilmPredictor, in_pieces
from kpm.models.dse_image_networks import ImageDecoder


@dataclasses.dataclass(frozen=True)
class LSTMConfig:
    """Sizes: numbers per frame, hidden units, as many as the recurrent Kalman network's state has, and its `memory`."""

    code: int = 100
    hidden: int = 200
    memory: int = 30

    @classmethod
    def quick(cls) -> LSTMConfig:
        return cls(code=30, hidden=60)


class LSTMPredictor(nn.Module, FilmPredictor):
    """A belief is the hidden state and the cell; where no frame comes, the one predicted is read in its place."""

    def __init__(self, config: LSTMConfig | None = None):
        super().__init__()
        self.config = config = config or LSTMConfig()
        self.encoder = FrameEncoder(config.code, unit=False)
        self.cell = nn.LSTMCell(config.code, config.hidden)
        self.decoder = ImageDecoder(config.hidden)

    def beliefs(self, frames: Tensor) -> Tensor:
        """States ``(n, time + 1, 2 hidden)`` for frames ``(n, time, 1, 48, 48)`` in [0, 1], each from those before."""
        return in_pieces(self.run, frames, self.config.memory)

    def run(self, frames: Tensor) -> Tensor:
        """Beliefs ``(n, t + 1, 2 hidden)`` from one run over frames ``(n, t, 1, 48, 48)``."""
        codes, _ = self.encoder(frames)
        state = codes.new_zeros(2, len(frames), self.config.hidden)
        states = [torch.cat(tuple(state), -1)]
        for code in codes.unbind(1):
            state = self.cell(code, tuple(state))
            states.append(torch.cat(state, -1))
        return torch.stack(states, 1)

    def advance(self, beliefs: Tensor) -> Tensor:
        """States ``(n, t, 2 hidden)`` one step on, when the frame they stand for is read."""
        codes, _ = self.encoder(self.decode(beliefs))
        state = self.cell(codes.flatten(0, 1), beliefs.flatten(0, 1).tensor_split(2, -1))
        return torch.cat(state, -1).unflatten(0, beliefs.shape[:2])

    def decode(self, beliefs: Tensor) -> Tensor:
        """Frames ``(n, t, 1, 48, 48)`` in [0, 1] of states ``(n, t, 2 hidden)``."""
        return decode_frames(self.decoder, beliefs[..., : self.config.hidden])

    def loss(self, frames: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of frames ``(n, t, 1, 48, 48)`` in [0, 1], each predicted from those before it."""
        return {"one_step": cross_entropy(self.decode(self.beliefs(frames)[:, 1:-1]), frames[:, 1:])}

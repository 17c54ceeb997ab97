"""A recurrent autoencoder of heartbeats: what it cannot rebuild is no normal beat ([KANN] sec. 4.2)."""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class BeatAutoencoderConfig:
    """Sizes; the published ones.

    Attributes
    ----------
    hidden : int
        Size of the encoder's state, which is the code; the decoder's is twice that.
    channels : int
        Of the signal.
    """

    hidden: int = 64
    channels: int = 1


class BeatAutoencoder(nn.Module):
    """An LSTM reads the beat; a second one gets its last state at every step and writes the beat."""

    def __init__(self, config: BeatAutoencoderConfig | None = None):
        super().__init__()
        self.config = config = config or BeatAutoencoderConfig()
        self.encoder = nn.LSTM(config.channels, config.hidden, batch_first=True)
        self.decoder = nn.LSTM(config.hidden, 2 * config.hidden, batch_first=True)
        self.readout = nn.Linear(2 * config.hidden, config.channels)

    def states(self, beats: Tensor) -> Tensor:
        """Encoder's hidden state after each sample, ``(n, t, hidden)``, of beats ``(n, t, channels)``."""
        if beats.ndim != 3 or beats.shape[-1] != self.config.channels or 0 in beats.shape:
            raise ValueError(f"beats: expected (n, t, {self.config.channels}), got {tuple(beats.shape)}")
        return self.encoder(beats)[0]

    def decode(self, code: Tensor, time: int) -> Tensor:
        """Beats ``(n, time, channels)`` of codes ``(n, hidden)``."""
        return self.readout(self.decoder(code.unsqueeze(1).expand(-1, time, -1))[0])

    def forward(self, beats: Tensor) -> Tensor:
        """The beats as rebuilt from the last state."""
        return self.decode(self.states(beats)[:, -1], beats.shape[1])

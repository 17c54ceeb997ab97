"""Judge: a classifier of every factor of a film, used to say what a swap has changed and what it has kept.

One convolutional network looks at each frame. The **frame judge** reads every factor off each frame by itself; the
**sequence judge** reads the frames' features forwards and backwards in time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kpm.models.layers import Conv2d, block
from kpm.solvers import checks


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """Sizes of a judge.

    Attributes
    ----------
    classes : dict of str to int
        Factors and their numbers of classes.
    width : int
        Channels of the first convolution; each further one doubles it.
    features : int
        Features of a frame.
    memory : int
        State of the recurrent network, in each direction.
    channels : int
        Colour channels of a frame. Frames are 64 x 64.
    """

    classes: Mapping[str, int]
    width: int = 16
    features: int = 128
    memory: int = 64
    channels: int = 3


class Opinion(NamedTuple):
    """Logits of each factor: of whole films ``(n, classes)`` and of their frames ``(n, t, classes)``."""

    sequence: dict[str, Tensor]
    frame: dict[str, Tensor]


class Judge(nn.Module):
    """See `JudgeConfig`."""

    def __init__(self, config: JudgeConfig):
        super().__init__()
        self.config = config
        sizes = [config.channels, *(config.width * 2**i for i in range(4))]
        blocks = [block(Conv2d(a, b, 4, 2, 1), b) for a, b in zip(sizes, sizes[1:])]
        self.cnn = nn.Sequential(*blocks)
        self.frame_features = nn.Sequential(nn.Linear(16 * sizes[-1], config.features), nn.LeakyReLU(0.2))
        self.rnn = nn.GRU(config.features, config.memory, batch_first=True, bidirectional=True)
        self.frame_heads = nn.ModuleDict({f: nn.Linear(config.features, c) for f, c in config.classes.items()})
        self.sequence_heads = nn.ModuleDict(
            {f: nn.Linear(config.features + 2 * config.memory, c) for f, c in config.classes.items()}
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, frames: Tensor) -> Opinion:
        """Logits for frames ``(n, t, c, 64, 64)`` in [0, 1]."""
        shape = tuple(frames.shape)
        if frames.ndim != 5 or shape[-2:] != (64, 64) or shape[2] != self.config.channels or 0 in shape:
            raise ValueError(f"frames: expected (n, t, {self.config.channels}, 64, 64), got {shape}")
        if not frames.is_floating_point():
            raise ValueError(f"frames: expected floats in [0, 1], got {frames.dtype} (see SequenceDataset.to_float)")
        if not self.training:
            checks.finite(frames, "frames")
        maps = self.cnn(frames.flatten(0, 1).to(self.frame_features[0].weight.dtype))
        features = self.frame_features(maps.permute(0, 2, 3, 1).flatten(1)).unflatten(0, shape[:2])
        with torch.autocast(frames.device.type, enabled=False):
            features = features.float()
            states = self.rnn(features)[0]
            forwards, backwards = states[:, -1].chunk(2, -1)[0], states[:, 0].chunk(2, -1)[1]
            film = torch.cat([features.mean(1), forwards, backwards], -1)
            return Opinion(
                {f: head(film) for f, head in self.sequence_heads.items()},
                {f: head(features) for f, head in self.frame_heads.items()},
            )

    @torch.no_grad()
    def decide(self, frames: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Most likely class of each factor, of films ``(n,)`` and of frames ``(n, t)``."""
        opinion = self(frames)
        first, second = ({f: v.argmax(-1) for f, v in part.items()} for part in opinion)
        return first, second

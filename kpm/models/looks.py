"""What a frame looks like whatever moves in it: a small network that gives all frames of a film about the same vector.

It is learnt from films without labels (`kpm.training.looks`) and tells a training whose look a swap has.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpm.models.layers import Conv2d, block

_WIDTH, _HIDDEN, _SIZE = 16, 128, 16


class Looks(nn.Module):
    """Frames ``(m, c, 64, 64)`` to unit vectors ``(m, 16)``: four convolutions, a pool by quarters, two layers.

    The largest value over a quarter of the picture hardly depends on where in it something is.
    """

    def __init__(self, channels: int = 3):
        super().__init__()
        sizes = [channels, _WIDTH, 2 * _WIDTH, 4 * _WIDTH, 4 * _WIDTH]
        blocks = [block(Conv2d(a, b, 4, 2, 1), b) for a, b in zip(sizes, sizes[1:])]
        last = nn.Sequential(nn.Linear(4 * sizes[-1], _HIDDEN), nn.LeakyReLU(0.2), nn.Linear(_HIDDEN, _SIZE))
        self.net = nn.Sequential(*blocks, nn.AdaptiveMaxPool2d(2), nn.Flatten(), last)
        self.to(memory_format=torch.channels_last)

    def forward(self, frames: Tensor) -> Tensor:
        return F.normalize(self.net(frames).float(), dim=-1)

    @torch.no_grad()
    def of_films(self, frames: Tensor) -> Tensor:
        """Unit vectors ``(n, 16)`` of whole films ``(n, t, c, 64, 64)``: the mean over their frames."""
        each = self(frames.float().flatten(0, 1)).unflatten(0, frames.shape[:2])
        return F.normalize(each.mean(1), dim=-1)

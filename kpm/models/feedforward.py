"""The plainest thing an equilibrium model can be compared with: the same stem, one more layer, a read-out."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from kpm.models import bases


@dataclasses.dataclass(frozen=True)
class FeedForwardConfig:
    """Sizes, as of `kpm.models.deq.DEQConfig`; the defaults have 81706 parameters on MNIST."""

    stem: str = "linear"
    shape: tuple[int, ...] = (1, 28, 28)
    width: int = 0
    size: int = 92
    outputs: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))  # of a checkpoint it is a list


class FeedForward(nn.Module):
    """Stem, ReLU, a layer with ReLU, a linear read-out."""

    def __init__(self, config: FeedForwardConfig | None = None):
        super().__init__()
        self.config = c = config or FeedForwardConfig()
        self.stem = bases.make(c.stem, c.shape, c.width, c.size)
        self.layer = nn.Linear(c.size, c.size)
        self.readout = nn.Linear(c.size, c.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``(b, outputs)`` of inputs ``(b, *shape)``; `ValueError` for inputs of another shape."""
        x = bases.checked(x, self.config.shape, self.config.stem)
        return self.readout(torch.relu(self.layer(torch.relu(self.stem(x)))))

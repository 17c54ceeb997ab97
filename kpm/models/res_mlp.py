"""A classifier whose layers all have one width, so that depth can be read as time: ResMLP."""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F
from torch import Tensor, nn

from kpm.errors import UserError


@dataclasses.dataclass(frozen=True)
class ResMLPConfig:
    """Sizes.

    Attributes
    ----------
    inputs, classes : int
    width : int
        Of every hidden layer.
    blocks : int
        Residual blocks; there are as many states and one more, that of the input layer.
    """

    inputs: int
    classes: int
    width: int = 784
    blocks: int = 4

    def __post_init__(self) -> None:
        for name in ("inputs", "classes", "width", "blocks"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")


class ResidualBlock(nn.Module):
    """``ReLU(h + f(h))`` with `f` two linear maps, each with batch normalisation, and a ReLU between them."""

    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width), nn.BatchNorm1d(width)
        )

    def forward(self, h: Tensor) -> Tensor:
        return F.relu(h + self.inner(h))


class ResMLP(nn.Module):
    """Input layer, residual blocks, linear read-out (the classifier of Aswani and Jabari, 2025, as published)."""

    def __init__(self, config: ResMLPConfig):
        super().__init__()
        self.config = config
        self.first = nn.Sequential(nn.Linear(config.inputs, config.width), nn.BatchNorm1d(config.width), nn.ReLU())
        self.blocks = nn.ModuleList(ResidualBlock(config.width) for _ in range(config.blocks))
        self.readout = nn.Linear(config.width, config.classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.constant_(module.bias, 0.01)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the modules whose outputs are the states, from the input layer to the last block."""
        return ("first", *(f"blocks.{i}" for i in range(self.config.blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of inputs ``(n, ...)``, flattened."""
        h = self.first(self.flat(x))
        for block in self.blocks:
            h = block(h)
        return self.read(h)

    def read(self, states: Tensor) -> Tensor:
        """Logits ``(..., classes)`` of states of the last layer ``(..., width)``."""
        return self.readout(states.to(self.readout.weight.dtype))

    def flat(self, x: Tensor) -> Tensor:
        """Inputs as rows ``(n, inputs)``."""
        rows = x.flatten(1)
        if rows.shape[1] != self.config.inputs:
            raise ValueError(f"x: expected {self.config.inputs} numbers a sample, got shape {tuple(x.shape)}")
        return rows

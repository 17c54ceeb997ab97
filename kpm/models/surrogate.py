"""A trained classifier whose depth is replaced by a linear operator, with a Koopman autoencoder around it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from torch import Tensor, nn

from kpm.models.alignment import LayerAlignment
from kpm.models.kae import KAE, KAEConfig
from kpm.models.res_mlp import ResMLP, ResMLPConfig


@dataclasses.dataclass(frozen=True)
class SurrogateConfig:
    """Sizes of the classifier, the number of principal axes of its states, and sizes of the autoencoder of them."""

    inputs: int
    classes: int
    width: int
    blocks: int
    components: int
    hidden: int
    lifted: int
    steps: int
    operator: Literal["exp", "full", "low-rank"] = "exp"
    rank: int = 0

    @property
    def network(self) -> ResMLPConfig:
        return ResMLPConfig(self.inputs, self.classes, self.width, self.blocks)

    @property
    def kae(self) -> KAEConfig:
        return KAEConfig(self.components, self.hidden, self.lifted, self.steps, self.operator, self.rank)


class Surrogate(nn.Module):
    """The classifier, frozen, the alignment of its first and last layer, and the autoencoder that replaces the rest."""

    def __init__(self, config: SurrogateConfig):
        super().__init__()
        self.config = config
        self.network = ResMLP(config.network).requires_grad_(False).eval()
        self.alignment = LayerAlignment(2, config.width, config.components)
        self.kae = KAE(config.kae)

    def train(self, mode: bool = True) -> Surrogate:
        """As for any module, but the classifier stays in eval mode."""
        super().train(mode)
        self.network.eval()
        return self

    def observe(self, x: Tensor) -> Tensor:
        """Observables ``(n, lifted)`` of the first layer's states, of inputs ``(n, ...)``."""
        first = self.network.first(self.network.flat(x))
        return self.kae.encode(self.alignment.apply_to(first, 0))

    def read(self, z: Tensor) -> Tensor:
        """Logits ``(..., classes)`` of observables of the last layer ``(..., lifted)``."""
        dtype = self.network.readout.weight.dtype
        return self.network.read(self.alignment.undo(self.kae.decode(z.to(dtype))))

    def forward(self, x: Tensor, operator: Tensor | None = None) -> Tensor:
        """Logits ``(n, classes)`` of inputs ``(n, ...)``, by the operator of all depth or by another in its place."""
        z = self.observe(x)
        return self.read(z @ self.kae.power() if operator is None else z.to(operator.dtype) @ operator)

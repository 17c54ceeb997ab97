"""A Koopman autoencoder of a network's layers: lift, one linear operator for all depth, lower (Aswani, Jabari 2025).

Depth is time. States of the first layer are lifted to more coordinates than they have, multiplied by an operator
`k` times, and lowered to the last layer's states. Row convention: ``z[j+1] = z[j] @ K``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpm.errors import UserError, pick
from kpm.solvers.exponential import expm

OPERATORS = ("exp", "full", "low-rank")
TERMS = ("reconstruction", "state", "linear", "distance")


@dataclasses.dataclass(frozen=True)
class KAEConfig:
    """Sizes and kind of operator.

    Attributes
    ----------
    inputs : int
        Coordinates of a state.
    hidden, lifted : int
        Width of the hidden layer of encoder and decoder, and of the lifted space.
    steps : int
        Applications of the operator between the first and the last layer; not the number of layers.
    operator : {"exp", "full", "low-rank"}
        ``exp(X / k)`` with a free matrix `X`; a free matrix; the product of two of rank `rank`.
    rank : int
        Of the low-rank operator.
    """

    inputs: int
    hidden: int = 1000
    lifted: int = 800
    steps: int = 10
    operator: Literal["exp", "full", "low-rank"] = "exp"
    rank: int = 0

    def __post_init__(self) -> None:
        pick("operator", self.operator, OPERATORS)
        for name in ("inputs", "hidden", "lifted", "steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.operator == "low-rank" and not 1 <= self.rank <= self.lifted:
            raise UserError(f"rank must be 1 to lifted = {self.lifted} for a low-rank operator, got {self.rank}")


class KAE(nn.Module):
    """Encoder, operator, decoder."""

    def __init__(self, config: KAEConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = (
            nn.Sequential(nn.Linear(a, config.hidden), nn.LeakyReLU(0.01), nn.Linear(config.hidden, b))
            for a, b in ((config.inputs, config.lifted), (config.lifted, config.inputs))
        )
        eye = torch.eye(config.lifted)
        if config.operator == "exp":
            self.generator = nn.Parameter(eye)
        elif config.operator == "full":
            self.matrix = nn.Parameter(eye * math.exp(1 / config.steps))  # where the exponential starts, too
        else:
            frame = torch.linalg.qr(torch.randn(config.lifted, config.rank)).Q
            self.down = nn.Parameter(frame * math.exp(1 / config.steps))
            self.up = nn.Parameter(frame.mT.contiguous())

    def encode(self, x: Tensor) -> Tensor:
        """Observables ``(..., lifted)`` of states ``(..., inputs)``."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """States ``(..., inputs)`` of observables ``(..., lifted)``."""
        return self.decoder(z)

    def power(self, steps: float | None = None) -> Tensor:
        """The operator of so many steps, all `k` by default, ``(lifted, lifted)``.

        Raises
        ------
        ValueError
            For a negative number, or one that is not whole, where the operator is no exponential.
        """
        steps = self.config.steps if steps is None else steps
        if self.config.operator == "exp":
            return expm(self.generator * (steps / self.config.steps))
        if steps != int(steps) or steps < 0:
            raise ValueError(f"steps: {self.config.operator} operators have whole powers only, got {steps}")
        if self.config.operator == "full":
            return torch.linalg.matrix_power(self.matrix, int(steps))
        if steps == 0:
            return torch.eye(self.config.lifted, device=self.down.device, dtype=self.down.dtype)
        return self.down @ torch.linalg.matrix_power(self.up @ self.down, int(steps) - 1) @ self.up

    def forward(self, x: Tensor, steps: float | None = None) -> Tensor:
        """States ``(..., inputs)`` after so many steps, all `k` by default."""
        return self.decode(self.encode(x) @ self.power(steps))

    def path(self, x: Tensor) -> Tensor:
        """States after 0, 1, ..., k steps, ``(n, k + 1, inputs)``, of states ``(n, inputs)`` of the first layer.

        Those between are not learnt from the network's layers: they are what the operator makes of the way.
        """
        z, one, states = self.encode(x), self.power(1), []
        for _ in range(self.config.steps + 1):
            states.append(self.decode(z))
            z = z @ one
        return torch.stack(states, 1)


def kae_terms(model: KAE, states: Tensor) -> dict[str, Tensor]:
    """The four terms of the loss, not weighted, of states ``(n, layers, inputs)``.

    With two layers, the first and the last, these are the published ones: reconstruction (mean over layers), the
    predicted state, its observables (``linear``), and how much lifting changes the distances between the samples
    of the batch (``distance``, the sum over layers). Of more layers, each pair is predicted, with as many steps as its
    share of the depth, and means are taken over pairs; ``distance`` is scaled as for two layers.

    Raises
    ------
    ValueError
        If there are fewer than two layers, or the width is another than the model's.
    """
    if states.ndim != 3 or states.shape[1] < 2 or states.shape[2] != model.config.inputs:
        raise ValueError(f"states: expected (n, 2 or more, {model.config.inputs}), got {tuple(states.shape)}")
    layers = states.shape[1]
    z = model.encode(states)
    one = model.config.steps / (layers - 1)
    powers = {d: model.power(d * one) for d in range(1, layers)}
    pairs = list(itertools.combinations(range(layers), 2))
    ahead = torch.stack([z[:, i] @ powers[j - i] for i, j in pairs], 1)
    later = [j for _, j in pairs]
    return {
        "reconstruction": F.mse_loss(model.decode(z), states),
        "state": F.mse_loss(model.decode(ahead), states[:, later]),
        "linear": F.mse_loss(ahead, z[:, later]),
        "distance": 2 * distance_change(states.movedim(1, 0), z.movedim(1, 0)),
    }


def distance_change(x: Tensor, z: Tensor) -> Tensor:
    """Mean squared difference of the pairwise distances of `x` ``(..., n, d)`` and of `z` ``(..., n, p)``."""
    return F.mse_loss(torch.cdist(z, z), torch.cdist(x, x))

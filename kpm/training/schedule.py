"""Learning rate and weight averaging."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.training.config import TrainConfig


class Plateau:
    """Learning rate by step: a linear warm-up, then lower by a factor whenever the validation loss stops falling."""

    def __init__(self, config: TrainConfig):
        self.warmup = config.warmup_steps
        # ReduceLROnPlateau changes an optimiser's rate; given one of its own, the warm-up cannot get in its way.
        self._holder = torch.optim.SGD([torch.zeros(1)], config.learning_rate)
        self._scheduler = ReduceLROnPlateau(
            self._holder, factor=config.lr_factor, patience=config.patience, threshold=1e-4
        )

    def rate(self, step: int) -> float:
        """Rate of the step after `step` steps are done."""
        ramp = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return ramp * self._holder.param_groups[0]["lr"]

    def step(self, loss: float) -> None:
        """Tell the schedule a validation loss."""
        self._scheduler.step(loss)

    def state(self) -> dict[str, Any]:
        return {"lr": self._holder.param_groups[0]["lr"], **self._scheduler.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        self._holder.param_groups[0]["lr"] = state["lr"]
        self._scheduler.load_state_dict({k: v for k, v in state.items() if k != "lr"})


def twin(model: KoopmanAutoencoder) -> KoopmanAutoencoder:
    """A copy of `model` that is not trained: the place of the running average."""
    copy = KoopmanAutoencoder(model.config).to(next(model.parameters()))
    copy.load_state_dict(model.state_dict())
    return copy.requires_grad_(False)


@torch.no_grad()
def average(mean: nn.Module, model: nn.Module, decay: float) -> None:
    """Move weights and normalisation statistics of `mean` a share ``1 - decay`` towards those of `model`."""
    pairs = list(zip(mean.state_dict().values(), model.state_dict().values()))
    floating = [(a, b) for a, b in pairs if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floating], [b for _, b in floating], 1 - decay)
    for a, b in pairs:
        if not a.is_floating_point():
            a.copy_(b)


def ema_decay(config: TrainConfig, step: int) -> float:
    """Decay of the average after `step` steps: shorter at first, when old weights are far from good."""
    return min(config.ema, (1 + step) / (10 + step))

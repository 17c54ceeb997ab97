"""Training of the autoencoder of normal heartbeats ([KANN] sec. 4.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kpm.datasets.signals import Signals
from kpm.errors import UserError
from kpm.models.beat_autoencoder import BeatAutoencoder, BeatAutoencoderConfig
from kpm.training.fit import FitConfig
from kpm.training.run_folder import about, check_kind


@dataclasses.dataclass(frozen=True)
class BeatsTrainConfig(FitConfig):
    """A run; sizes and epochs as published, batches of 32 beats instead of single ones."""

    dataset: str = "ecg5000"
    """Dataset name, see `kpm data list`."""
    source: Literal["auto", "real", "synthetic"] = "auto"
    """auto takes the real beats if they are there."""
    train_split: str = "train"
    """Split to learn from: its normal beats."""
    validation_split: str = "validation"
    """Held-out split whose normal beats choose the best weights."""
    hidden: int = 64
    """Size of the encoder's state."""
    epochs: int = 150
    """Passes over the training data."""
    batch_size: int = 32
    """Beats per step."""
    learning_rate: float = 2e-3
    """Of Adam, at its highest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden < 1:
            raise UserError(f"hidden must be at least 1, got {self.hidden}")

    def quick(self) -> BeatsTrainConfig:
        """A minute on two cores: enough to see the loss fall."""
        return dataclasses.replace(self, epochs=2, hidden=32)


class BeatsTask:
    """Normal beats, and the mean absolute error of what is rebuilt of them; a task of `kpm.training.fit`."""

    def __init__(self, config: BeatsTrainConfig, train, validation, device: torch.device):
        check_kind(Signals, "series", train, validation)
        self.config, self.about = config, about(train, validation)
        self.beats, self.held_out = (d.values[d.labels == 0].to(device) for d in (train, validation))
        for name, beats in (("train", self.beats), ("validation", self.held_out)):
            if not len(beats):
                raise UserError(f"{name}: there is no normal beat")
        torch.manual_seed(config.seed)
        self.model = BeatAutoencoder(BeatAutoencoderConfig(config.hidden, self.beats.shape[-1])).to(device)

    def batches(self, size: int, draw: torch.Generator) -> Sequence[Tensor]:
        return torch.randperm(len(self.beats), generator=draw).to(self.beats.device).split(size)

    def loss(self, index: Tensor) -> dict[str, Tensor]:
        beats = self.beats[index]
        return {"absolute_error": F.l1_loss(self.model(beats), beats)}

    def validate(self) -> dict[str, float]:
        return {"loss": float(F.l1_loss(self.model(self.held_out), self.held_out))}

"""Training of the network whose states the sentiment chapter takes apart ([KANN] sec. 4.1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kpm.datasets.texts import Reviews
from kpm.errors import UserError
from kpm.models.sentiment import SentimentConfig, SentimentNet
from kpm.training import hardware
from kpm.training.fit import FitConfig
from kpm.training.run_folder import about, check_kind


@dataclasses.dataclass(frozen=True)
class SentimentTrainConfig(FitConfig):
    """A run; sizes, epochs and lengths as published."""

    dataset: str = "imdb"
    """Dataset name, see `kpm data list`."""
    source: Literal["auto", "real", "synthetic"] = "auto"
    """auto takes the real reviews if they are there."""
    train_split: str = "train"
    """Split to learn from."""
    validation_split: str = "validation"
    """Held-out split that chooses the best weights."""
    embedding: int = 128
    """Size of a word's vector."""
    hidden: int = 256
    """Size of the state."""
    dropout: float = 0.3
    """On words' vectors and on the last state."""
    max_length: int = 1000
    """Words of a review that are read; the rest is cut off."""
    epochs: int = 5
    """Passes over the training data."""
    learning_rate: float = 2e-3
    """Of Adam, at its highest."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """Of the recurrent network in training (validation is in float32); auto probes whether bf16 is faster here."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("embedding", "hidden", "max_length"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")

    def quick(self) -> SentimentTrainConfig:
        """A minute on two cores: a small network that reads beginnings."""
        return dataclasses.replace(self, epochs=1, embedding=32, hidden=32, max_length=60)


class SentimentTask:
    """Reviews in batches of like length, so that little padding is read; a task of `kpm.training.fit`."""

    def __init__(self, config: SentimentTrainConfig, train: Reviews, validation: Reviews, device: torch.device):
        check_kind(Reviews, "reviews", train, validation)
        self.config, self.about = config, about(train, validation)
        self.train, self.held_out = train.to(device), validation.to(device)
        torch.manual_seed(config.seed)
        sizes = SentimentConfig(len(train.vocabulary), config.embedding, config.hidden, config.dropout)
        self.model = SentimentNet(sizes).to(device)
        precision = hardware.faster_precision(device) if config.precision == "auto" else config.precision
        self.bf16 = precision == "bf16-mixed"

    def batches(self, size: int, draw: torch.Generator) -> Sequence[Tensor]:
        return self.train.batch_indices(size, generator=draw, max_length=self.config.max_length)

    def loss(self, index: Tensor) -> dict[str, Tensor]:
        ids, lengths, labels = self.train.batch(index, self.config.max_length)
        with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            logits = self.model(ids, lengths)
        return {"cross_entropy": F.binary_cross_entropy_with_logits(logits, labels.float())}

    def validate(self) -> dict[str, float]:
        scores = sentiment_scores(self.model, self.held_out, self.config.max_length)
        return {"loss": 1 - scores["accuracy"], **scores}  # the verdicts choose; their cross-entropy overfits first


@torch.no_grad()
def sentiment_scores(model: SentimentNet, data: Reviews, max_length: int = 1000, size: int = 64) -> dict[str, float]:
    """Mean cross-entropy and accuracy on all reviews of a split."""
    model.eval()
    total: dict[str, Any] = {"cross_entropy": 0.0, "accuracy": 0.0}
    for ids, lengths, labels in data.batches(size, max_length=max_length):
        logits = model(ids, lengths)
        total["cross_entropy"] += F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum")
        total["accuracy"] += ((logits > 0) == (labels == 1)).sum()
    return {name: float(value) / len(data) for name, value in total.items()}

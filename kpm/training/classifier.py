"""Training of the classifiers whose layers are analysed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kpm.datasets.labelled import Labelled
from kpm.errors import UserError
from kpm.models.res_mlp import ResMLP, ResMLPConfig
from kpm.training.fit import FitConfig
from kpm.training.run_folder import about, check_kind


@dataclasses.dataclass(frozen=True)
class ClassifierTrainConfig(FitConfig):
    """A run: four residual blocks, narrower than published (784) so that two cores need minutes."""

    dataset: str = "mnist"
    """Dataset of images or points, see `kpm data list`."""
    source: Literal["auto", "real", "synthetic"] = "auto"
    """auto takes the real data if they are there."""
    train_split: str = "train"
    """Split to learn from."""
    validation_split: str = "validation"
    """Held-out split; the best weights are chosen by it."""
    width: int = 128
    """Of every hidden layer."""
    blocks: int = 4
    """Residual blocks."""
    without: tuple[int, ...] = ()
    """Classes left out of training: the reference for what unlearning should come to."""
    epochs: int = 10
    """Passes over the training data."""
    batch_size: int = 256
    """Samples per step."""
    learning_rate: float = 3e-3
    """Of Adam, at its highest."""
    weight_decay: float = 0.02
    """Of AdamW."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "blocks"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")

    def quick(self) -> ClassifierTrainConfig:
        """A minute on two cores."""
        return dataclasses.replace(self, epochs=1, width=64)


class ClassifierTask:
    """Samples and their classes, by cross-entropy; a task of `kpm.training.fit`."""

    def __init__(self, config: ClassifierTrainConfig, train, validation, device: torch.device):
        check_kind(Labelled, "images, points or series", train, validation)
        self.config, self.about = config, about(train, validation)
        classes = len(train.class_names)
        if wrong := [c for c in config.without if not 0 <= c < classes]:
            raise UserError(f"without: {wrong[0]} is no class, expected 0 to {classes - 1}")
        self.x, self.labels = _kept(train, config.without, device)
        if (self.labels == self.labels[0]).all():
            only = train.class_names[int(self.labels[0])]
            raise UserError(
                f"dataset: split {train.split!r} of {train.name} is of one class, {only!r}: nothing to learn"
            )
        self.held_out, self.held_out_labels = _kept(validation, config.without, device)
        torch.manual_seed(config.seed)
        inputs = self.x[0].numel()
        self.model = ResMLP(ResMLPConfig(inputs, classes, config.width, config.blocks)).to(device)

    def batches(self, size: int, draw: torch.Generator) -> Sequence[Tensor]:
        """Whole batches only: the statistics of a few samples would spoil those of a layer."""
        order = torch.randperm(len(self.x), generator=draw).to(self.x.device)
        if len(order) < size:
            raise UserError(f"batch_size: {size} is more than the {len(order)} samples to learn from")
        return order[: len(order) // size * size].split(size)

    def loss(self, index: Tensor) -> dict[str, Tensor]:
        return {"cross_entropy": F.cross_entropy(self.model(self.x[index]), self.labels[index])}

    def validate(self) -> dict[str, float]:
        logits = torch.cat([self.model(x) for x in self.held_out.split(2000)])
        right = (logits.argmax(-1) == self.held_out_labels).double().mean()
        return {"loss": float(F.cross_entropy(logits, self.held_out_labels)), "accuracy": float(right)}


def _kept(data, without: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Samples as floats and classes, without some classes."""
    keep = ~torch.isin(data.labels, torch.tensor(without, dtype=torch.int64, device=data.labels.device))
    if not keep.any():
        raise UserError(f"without: no sample is left of split {data.split!r}")
    return data.to_float(data.values[keep]).to(device), data.labels[keep].to(device)

"""Training of stable invariant models, and of what they are compared with, to classify images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kpm.datasets.images import Images
from kpm.errors import UserError, pick
from kpm.models import equal_sizes
from kpm.models.equal_sizes import MODELS, STEMS, Name
from kpm.training.fit import FitConfig
from kpm.training.run_folder import about, check_kind


@dataclasses.dataclass(frozen=True)
class SIMTrainConfig(FitConfig):
    """A run; batches and rate are ours (the published ones come from a search for each model)."""

    model: Name = "sim-one-free"
    """One or two tiers with a free limit or an exact projector, or a model to compare with."""
    stem: Literal["dense", "conv"] = "dense"
    """What reads the image: fully connected, or the published convolutions (minutes per pass of MNIST)."""
    dataset: str = "mnist"
    """Dataset of images, see `kpm data list`."""
    source: Literal["auto", "real", "synthetic"] = "auto"
    """auto takes the real images if they are there."""
    train_split: str = "train"
    """Split to learn from."""
    validation_split: str = "validation"
    """Held-out split; the best weights are chosen by it."""
    images: int = 0
    """Take only so many images of the split to learn from; 0 for all."""
    sigma: float = 10.0
    """Width of the kernel whose random features are the second tier."""
    epochs: int = 15
    """Passes over the training data."""
    batch_size: int = 256
    """Images per step."""
    learning_rate: float = 2e-3
    """Of Adam, at its highest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        pick("model", self.model, MODELS)
        pick("stem", self.stem, STEMS)
        if self.images < 0:
            raise UserError(f"images must be 0 or more, got {self.images}")
        if not self.sigma > 0:
            raise UserError(f"sigma must be positive, got {self.sigma}")

    def quick(self) -> SIMTrainConfig:
        """A minute on two cores."""
        return dataclasses.replace(self, epochs=1, images=self.images or 10000)


class SIMTask:
    """Images and their classes, by cross-entropy; a task of `kpm.training.fit`."""

    def __init__(self, config: SIMTrainConfig, train: Images, validation: Images, device: torch.device):
        check_kind(Images, "images", train, validation)
        if config.images > len(train):
            raise UserError(f"images: {train.name!r} has {len(train)} to learn from, got {config.images}")
        if config.images:
            train = train.subset(slice(config.images))
        self.config, self.about = config, about(train, validation)
        self.train, self.held_out = train.to(device), validation.to(device)
        pixels = train.to_float()
        # One mean and one deviation per channel, as published.
        self.mean = pixels.mean((0, 2, 3)).view(-1, 1, 1).to(device)
        self.std = pixels.std((0, 2, 3)).clamp_min(1e-6).view(-1, 1, 1).to(device)
        torch.manual_seed(config.seed)
        sizes = equal_sizes.config(config.model, config.stem, train.shape, len(train.class_names), config.sigma)
        self.model = equal_sizes.build(sizes).to(device)
        if config.stem == "conv" and device.type == "cpu":
            self.model = self.model.to(memory_format=torch.channels_last)

    def inputs(self, images: Tensor) -> Tensor:
        """uint8 images as the model takes them: floats of mean 0 and deviation 1 per channel."""
        return (self.train.to_float(images) - self.mean) / self.std

    def batches(self, size: int, draw: torch.Generator) -> Sequence[Tensor]:
        """Whole batches only: the statistics of a few images would spoil those of a layer."""
        order = torch.randperm(len(self.train), generator=draw).to(self.train.values.device)
        if len(order) < size:
            raise UserError(f"batch_size: {size} is more than the {len(order)} images to learn from")
        return order[: len(order) // size * size].split(size)

    def loss(self, index: Tensor) -> dict[str, Tensor]:
        logits = self.model(self.inputs(self.train[index]))
        return {"cross_entropy": F.cross_entropy(logits, self.train.labels[index])}

    def validate(self) -> dict[str, float]:
        return scores(self, self.held_out)


@torch.no_grad()
def scores(task: SIMTask, data: Images, size: int = 400) -> dict[str, float]:
    """What the model of `task` makes of a split, `size` images at a time.

    Returns
    -------
    dict
        ``loss``, mean cross-entropy; ``accuracy``; of a model with a solver also ``unconverged``, the share of images
        without a fixed point, and ``solver_steps``, evaluations of the layer per image.
    """
    model = task.model.eval()
    loss, right, lost, steps, solved = 0.0, 0, 0, 0, False
    for images, labels in data.batches(size):
        logits = model(task.inputs(images))
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(-1) == labels).sum())
        report = getattr(model, "report", None)
        if report is not None:
            solved = True
            lost += int((~report.converged).sum())
            steps += int(report.steps.sum())
    n = len(data)
    found = {"loss": loss / n, "accuracy": right / n}
    return found | {"unconverged": lost / n, "solver_steps": steps / n} if solved else found

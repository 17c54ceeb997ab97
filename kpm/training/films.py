"""Training of recurrent predictors of films, on pieces of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kpm.errors import UserError
from kpm.models.baselines.image_networks import set_brightness
from kpm.models.baselines.predictor import pixels
from kpm.training.fit import FitConfig


@dataclasses.dataclass(frozen=True)
class FilmsTrainConfig(FitConfig):
    """How a predictor is trained; an epoch is `pieces` pieces of the films, starting anywhere."""

    epochs: int = 60
    """Epochs."""
    batch_size: int = 8
    """Pieces per step."""
    learning_rate: float = 2e-3
    """Of Adam, at its highest."""
    clip: float = 5.0
    """Largest gradient norm, as published."""
    length: int = 30
    """Frames in a piece; the published films of [RKN] have 75 or 150."""
    pieces: int = 80
    """Pieces per epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 2 or self.pieces < 1:
            raise UserError(f"length, pieces: expected at least 2 and 1, got {self.length} and {self.pieces}")

    def quick(self) -> FilmsTrainConfig:
        """Seconds: enough to see it run."""
        return dataclasses.replace(self, epochs=2, batch_size=4, length=6, pieces=4)


class FilmsTask:
    """Films, and a model with a `loss` of pieces of them and a `one_step` prediction; a task of `kpm.training.fit`.

    Parameters
    ----------
    model : nn.Module
        A `FilmPredictor` with ``config``, ``loss`` and a ``decoder``, which is made to start at the mean pixel.
    frames, validation : Tensor
        ``(n, time, 1, 48, 48)``.
    about : dict
        See `kpm.training.fit.Task`.
    """

    def __init__(
        self, model: nn.Module, frames: Tensor, validation: Tensor, config: FilmsTrainConfig, about: dict[str, Any]
    ):
        if frames.shape[1] < config.length:
            raise UserError(f"length: {config.length} frames asked for, but films have {frames.shape[1]}")
        self.model, self.config, self.about = model, config, about
        device = next(model.parameters()).device
        set_brightness(model.decoder, float(pixels(frames).mean()))
        self.frames, self.held_out = pixels(frames).to(device), pixels(validation).to(device)

    def batches(self, size: int, draw: torch.Generator) -> Sequence[Tensor]:
        starts = len(self.frames) * (self.frames.shape[1] - self.config.length + 1)
        return torch.randint(starts, (self.config.pieces,), generator=draw).split(size)

    def loss(self, index: Tensor) -> dict[str, Tensor]:
        starts = self.frames.shape[1] - self.config.length + 1
        film, first = (index // starts)[:, None], (index % starts)[:, None]
        return self.model.loss(self.frames[film, first + torch.arange(self.config.length)])

    def validate(self) -> dict[str, float]:
        guess = self.model.one_step(self.held_out)
        return {"loss": float((guess - self.held_out)[:, 1:].square().mean())}

"""Training of networks that copy after a delay; their sequences are drawn as they are needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kpm.errors import UserError, pick
from kpm.models.copy_memory import (
    ACTIVATIONS,
    CELLS,
    CopyMemoryConfig,
    CopyMemoryNet,
    memoryless_loss,
    sequences,
)
from kpm.training.fit import FitConfig
from kpm.training.run_folder import about

# Mixed into the seed of sequences that are not trained on; those of "train" are drawn as training draws them.
_DRAWS = {"train": 0x636F7078, "validation": 0x636F7079, "test": 0x636F707A}


@dataclasses.dataclass(frozen=True)
class CopyTrainConfig(FitConfig):
    """A run: ten symbols of eight kinds, as usual, and a hundred blanks."""

    cell: Literal["orthogonal", "gru"] = "orthogonal"
    """Plain network with an orthogonal recurrent matrix, or gated recurrent units."""
    activation: Literal["modrelu", "tanh"] = "modrelu"
    """Of the orthogonal network."""
    hidden: int = 128
    """Size of the state."""
    length: int = 10
    """Symbols to remember."""
    delay: int = 100
    """Blanks between the last symbol and the cue."""
    symbols: int = 8
    """Size of the alphabet."""
    sequences: int = 6400
    """Sequences of an epoch, each drawn anew."""
    validation_sequences: int = 1000
    """Held-out sequences; the best weights are chosen by them."""
    epochs: int = 10
    """Passes of so many sequences."""
    learning_rate: float = 1e-3
    """Of Adam, at its highest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        pick("cell", self.cell, CELLS)
        pick("activation", self.activation, ACTIVATIONS)
        for name in ("hidden", "length", "delay", "sequences", "validation_sequences"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.symbols < 2:
            raise UserError(f"symbols must be at least 2, got {self.symbols}")

    def model(self) -> CopyMemoryConfig:
        return CopyMemoryConfig(self.cell, self.hidden, self.symbols, self.activation)

    def quick(self) -> CopyTrainConfig:
        """Seconds on two cores: a small network, half the symbols, a short wait."""
        return dataclasses.replace(self, epochs=4, hidden=64, length=5, delay=20)


@dataclasses.dataclass(frozen=True)
class CopyData:
    """What describes drawn sequences, as a dataset would."""

    split: str
    sequences: int
    length: int
    delay: int
    symbols: int

    def __len__(self) -> int:
        return self.sequences

    def describe(self) -> dict[str, Any]:
        """Name, source, split and sizes as plain values."""
        return {"name": "copy", "source": "synthetic", **dataclasses.asdict(self)}


def data(config: CopyTrainConfig) -> tuple[CopyData, CopyData]:
    """Training and held-out data of a run; for training, the sequences of one epoch."""
    sizes = config.length, config.delay, config.symbols
    return CopyData("train", config.sequences, *sizes), CopyData("validation", config.validation_sequences, *sizes)


def held_out(config: CopyTrainConfig, split: str = "validation") -> Tensor:
    """Symbols of the sequences of a split, ``(validation_sequences, length)``; the same for the same seed.

    Those of ``"train"`` are no held-out ones, but as many others like those that are trained on.
    """
    draw = torch.Generator().manual_seed((config.seed ^ _DRAWS[pick("split", split, _DRAWS)]) % (1 << 63))
    return torch.randint(config.symbols, (config.validation_sequences, config.length), generator=draw)


class CopyTask:
    """Fresh sequences at every step; a task of `kpm.training.fit`."""

    def __init__(self, config: CopyTrainConfig, train: CopyData, validation: CopyData, device: torch.device):
        self.config, self.about, self.device = config, about(train, validation), device
        torch.manual_seed(config.seed)
        self.model = CopyMemoryNet(config.model()).to(device)
        self.held_out = held_out(config).to(device)

    def batches(self, size: int, draw: torch.Generator) -> Sequence[Tensor]:
        """The symbols themselves: they are all there is to a sequence."""
        shape = (self.config.sequences, self.config.length)
        return torch.randint(self.config.symbols, shape, generator=draw).to(self.device).split(size)

    def loss(self, index: Tensor) -> dict[str, Tensor]:
        ids, answers = sequences(index, self.config.delay, self.model.config)
        return {"cross_entropy": F.cross_entropy(self.model(ids).flatten(0, 1), answers.flatten())}

    def validate(self) -> dict[str, float]:
        return copy_scores(self.model, self.held_out, self.config.delay)


@torch.no_grad()
def copy_scores(model: CopyMemoryNet, symbols: Tensor, delay: int, size: int = 250) -> dict[str, float]:
    """Scores on given symbols ``(n, s)``.

    Returns
    -------
    dict
        ``loss``, mean cross-entropy per step; ``memoryless``, what guessing would have; ``accuracy``, share of symbols
        said right after the cue; ``whole``, share of sequences with all of them right.
    """
    model.eval()
    s, loss, right, whole = symbols.shape[1], 0.0, 0, 0
    for part in symbols.split(size):
        ids, answers = sequences(part, delay, model.config)
        logits = model(ids)
        loss += float(F.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="sum")) / ids.shape[1]
        hits = logits[:, -s:, :].argmax(-1) == part
        right += int(hits.sum())
        whole += int(hits.all(1).sum())
    n = len(symbols)
    return {
        "loss": loss / n,
        "memoryless": memoryless_loss(s, delay, model.config.symbols),
        "accuracy": right / (n * s),
        "whole": whole / n,
    }

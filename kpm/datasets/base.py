"""The one face every dataset of sequences has."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

SOURCES = ("auto", "real", "synthetic")


@dataclasses.dataclass(frozen=True)
class SequenceDataset:
    """Sequences composed on demand from their factors, on the device that asks for them.

    Nothing is stored per sequence but its labels: `compose` turns factor labels into frames, a batch at a time.

    Attributes
    ----------
    name : str
        Dataset name; a stand-in has its own (``"puppets"``), never the real one's.
    source : {"real", "re-render", "synthetic"}
        Where the frames come from.
    split : str
    factors : dict of str to Tensor
        Label of each factor for each sequence, integer tensors of shape ``(n,)``.
    factor_sizes : dict of str to int
        Number of classes of each factor.
    static, dynamic : tuple of str
        Which factors stay the same over a sequence and which describe its motion.
    shape : tuple of int
        Shape of one sequence, ``(time, channels, height, width)``.
    scale : float
        Frames are ``uint8 / scale`` as floats (Sprites divides by 256, not by 255).
    compose : callable
        Maps ``{factor: labels of shape (b,)}`` to uint8 frames of shape ``(b, *shape)`` on the labels' device.
    class_names : dict of str to tuple of str
        What the labels mean, for pictures and tables.
    """

    name: str
    source: str
    split: str
    factors: Mapping[str, Tensor]
    factor_sizes: Mapping[str, int]
    static: tuple[str, ...]
    dynamic: tuple[str, ...]
    shape: tuple[int, ...]
    compose: Callable[[dict[str, Tensor]], Tensor]
    scale: float = 255.0
    class_names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    description: str = ""

    @classmethod
    def from_frames(
        cls, frames: Tensor, name: str, split: str = "train", factors: Mapping[str, Tensor] | None = None
    ) -> SequenceDataset:
        """Your own films as a dataset, kept in memory.

        Parameters
        ----------
        frames : Tensor
            uint8 ``(n, time, channels, height, width)``.
        name, split : str
        factors : dict, optional
            Static labels that are known, integer ``(n,)`` each.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 5 or len(frames) == 0:
            raise ValueError(f"frames: expected uint8 (n, t, c, h, w), got {frames.dtype} {tuple(frames.shape)}")
        known = dict(factors or {})
        for factor, labels in known.items():
            if labels.shape != frames.shape[:1]:
                raise ValueError(f"factors[{factor!r}]: expected shape ({len(frames)},), got {tuple(labels.shape)}")
        return cls(
            name=name,
            source="real",
            split=split,
            factors={**known, "number": torch.arange(len(frames))},
            factor_sizes={f: int(v.max()) + 1 for f, v in known.items()} | {"number": len(frames)},
            static=tuple(known),
            dynamic=(),
            shape=tuple(frames.shape[1:]),
            compose=lambda labels: frames.to(labels["number"].device)[labels["number"]],
        )

    def __len__(self) -> int:
        return len(next(iter(self.factors.values())))

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Frames, uint8: one sequence ``(time, ...)`` for an integer, else a batch ``(b, time, ...)``."""
        if not isinstance(index, slice) and not (isinstance(index, Tensor) and index.ndim):
            index = operator.index(index)
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is out of range for {len(self)} sequences")
            return self[torch.tensor([index % len(self)])][0]
        return self.compose(self.labels(index))

    def labels(self, index: slice | Tensor) -> dict[str, Tensor]:
        """Labels of the chosen sequences, ``{factor: (b,)}``."""
        return {name: values[index] for name, values in self.factors.items()}

    @property
    def data(self) -> Tensor:
        """Every sequence of the split at once, uint8 ``(n, *shape)``. Large: prefer a batch of indices."""
        return self[:]

    def to_float(self, frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """uint8 frames as floats in [0, 1], the form the models take."""
        return frames.to(dtype) / self.scale

    def to(self, device: torch.device | str) -> SequenceDataset:
        """The same dataset with its labels, and so its composition, on `device`."""
        return dataclasses.replace(self, factors={k: v.to(device) for k, v in self.factors.items()})

    def subset(self, index: Tensor, split: str | None = None) -> SequenceDataset:
        """The chosen sequences as a dataset of their own."""
        return dataclasses.replace(self, factors=self.labels(index), split=split or self.split)

    def describe(self) -> dict[str, Any]:
        """Name, source, split, size, shape and factors as plain values, for reports and results."""
        return {
            "name": self.name,
            "source": self.source,
            "split": self.split,
            "sequences": len(self),
            "shape": list(self.shape),
            "static": {f: self.factor_sizes[f] for f in self.static},
            "dynamic": {f: self.factor_sizes[f] for f in self.dynamic},
            "description": self.description,
        }

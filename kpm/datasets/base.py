"""The one face every dataset of sequences has."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kpm.solvers import checks

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
        cls,
        frames: Tensor,
        name: str,
        split: str = "train",
        factors: Mapping[str, Tensor] | None = None,
        dynamic: Sequence[str] = (),
        sizes: Mapping[str, int] | None = None,
    ) -> SequenceDataset:
        """Your own films as a dataset, kept in memory.

        Parameters
        ----------
        frames : Tensor
            uint8 ``(n, time, channels, height, width)``.
        name, split : str
        factors : dict, optional
            Labels that are known, whole numbers from 0, ``(n,)`` each. Another factor, ``number``, is the film itself.
        dynamic : sequence of str, optional
            Those of `factors` that describe the motion; the others are static.
        sizes : dict, optional
            Number of classes of a factor, by default one more than its largest label here. Give it where a split may
            not have all classes: judges and scores go by it, and it must be the same in all splits.

        Raises
        ------
        ValueError
            For frames or labels of another type or shape, a label that is negative or not below its size, a factor
            called ``number``, or a name in `dynamic` or `sizes` that is none of `factors`.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 5 or 0 in frames.shape:
            raise ValueError(f"frames: expected uint8 (n, t, c, h, w), got {frames.dtype} {tuple(frames.shape)}")
        known, given = dict(factors or {}), dict(sizes or {})
        if "number" in known:
            raise ValueError("factors: 'number' is the film itself, counted here; give that factor another name")
        if isinstance(dynamic, str) or len(set(dynamic)) < len(dynamic):
            raise ValueError(f"dynamic: expected different names of factors, got {dynamic!r}")
        for argument, names in (("dynamic", dynamic), ("sizes", given)):
            if strange := [f for f in names if f not in known]:
                raise ValueError(f"{argument}: {strange[0]!r} is none of the factors {sorted(known)}")
        known = {f: _classes(f, labels, frames, given.get(f)) for f, labels in known.items()}
        return cls(
            name=name,
            source="real",
            split=split,
            factors={**known, "number": torch.arange(len(frames), device=frames.device)},
            factor_sizes={f: int(given.get(f, v.max() + 1)) for f, v in known.items()} | {"number": len(frames)},
            static=tuple(f for f in known if f not in dynamic),
            dynamic=tuple(dynamic),
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

    @property
    def device(self) -> torch.device:
        """Where the labels are, and so where sequences are composed."""
        return next(iter(self.factors.values())).device

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


def _classes(factor: str, labels: Any, frames: Tensor, size: int | None) -> Tensor:
    """Labels of one factor as int64 ``(n,)``, where the frames are."""
    name, labels = f"factors[{factor!r}]", torch.as_tensor(labels)
    if labels.shape != frames.shape[:1]:
        raise ValueError(f"{name}: expected shape ({len(frames)},), got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"{name}: expected whole numbers, got {labels.dtype}")
    if size is not None:
        size = checks.count(size, f"sizes[{factor!r}]", 1)
    labels = labels.to(frames.device, torch.int64)
    bad = (labels < 0) if size is None else (labels < 0) | (labels >= size)
    if bad.any():
        first = int(bad.nonzero()[0, 0])
        most = "" if size is None else f" to {size - 1}"
        raise ValueError(f"{name}[{first}]: expected a class from 0{most}, got {int(labels[first])}")
    return labels

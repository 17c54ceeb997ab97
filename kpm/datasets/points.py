"""The one face datasets of labelled points of a plane or a space have."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
    """Points with a class each. Your own are a dataset once they stand in here.

    Attributes
    ----------
    values : Tensor
        Floating point ``(n, dimensions)``.
    labels : Tensor
        Class of each point, int64 ``(n,)``.
    name : str
        Dataset name; a stand-in has its own.
    source : {"real", "synthetic"}
    split : str
    class_names : tuple of str
    description : str

    Raises
    ------
    ValueError
        For shapes or types other than these, no point at all, or a label without a class.
    """

    values: Tensor = dataclasses.field(repr=False)
    labels: Tensor = dataclasses.field(repr=False)
    name: str
    source: str = "real"
    split: str = "train"
    class_names: tuple[str, ...] = ("0", "1")
    description: str = ""

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or not self.values.is_floating_point() or not self.values.numel():
            raise ValueError(
                f"values: expected floats (n, dimensions), got {self.values.dtype} {tuple(self.values.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.values.shape[:1]:
            have = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise ValueError(f"labels: expected int64 ({len(self.values)},), got {have}")
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise ValueError(f"labels: expected 0 to {len(self.class_names) - 1}, one of {self.class_names}")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Values: one point ``(dimensions,)`` for an integer, else a batch ``(b, dimensions)``."""
        if not isinstance(index, slice) and not (isinstance(index, Tensor) and index.ndim):
            index = operator.index(index)
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is out of range for {len(self)} points")
        return self.values[index]

    def to_float(self, points: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Points, all of the split if none are given, in the dtype the networks take."""
        return (self.values if points is None else points).to(dtype)

    def to(self, device: torch.device | str) -> Points:
        """The same points on `device`."""
        return dataclasses.replace(self, values=self.values.to(device), labels=self.labels.to(device))

    def subset(self, index: Tensor | slice, split: str | None = None) -> Points:
        """The chosen points as a dataset of their own."""
        return dataclasses.replace(
            self, values=self.values[index], labels=self.labels[index], split=split or self.split
        )

    def describe(self) -> dict[str, Any]:
        """Name, source, split, size, dimensions and classes as plain values, for reports and results."""
        return {
            "name": self.name,
            "source": self.source,
            "split": self.split,
            "sequences": len(self),
            "shape": list(self.values.shape[1:]),
            "classes": {name: int((self.labels == i).sum()) for i, name in enumerate(self.class_names)},
            "description": self.description,
        }

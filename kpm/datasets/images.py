"""The one face datasets of labelled images have."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Images of one size, with a class each. Your own are a dataset once they stand in here.

    Attributes
    ----------
    values : Tensor
        uint8 ``(n, channels, height, width)``.
    labels : Tensor
        Class of each image, int64 ``(n,)``.
    name : str
        Dataset name; a stand-in has its own.
    source : {"real", "synthetic"}
    split : str
    class_names : tuple of str
    scale : float
        Pixels are ``uint8 / scale`` as floats.
    description : str

    Raises
    ------
    ValueError
        For shapes or types other than these, no image at all, or a label without a class.
    """

    values: Tensor = dataclasses.field(repr=False)
    labels: Tensor = dataclasses.field(repr=False)
    name: str
    source: str = "real"
    split: str = "train"
    class_names: tuple[str, ...] = tuple("0123456789")
    scale: float = 255.0
    description: str = ""

    def __post_init__(self) -> None:
        if self.values.ndim != 4 or self.values.dtype != torch.uint8 or not self.values.numel():
            have = f"{self.values.dtype} {tuple(self.values.shape)}"
            raise ValueError(f"values: expected uint8 (n, channels, height, width), got {have}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.values.shape[:1]:
            have = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise ValueError(f"labels: expected int64 ({len(self.values)},), got {have}")
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise ValueError(f"labels: expected 0 to {len(self.class_names) - 1}, one of {self.class_names}")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Pixels, uint8: one image ``(channels, height, width)`` for an integer, else a batch ``(b, ...)``."""
        if not isinstance(index, slice) and not (isinstance(index, Tensor) and index.ndim):
            index = operator.index(index)
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is out of range for {len(self)} images")
        return self.values[index]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image, ``(channels, height, width)``."""
        return tuple(self.values.shape[1:])

    def to_float(self, images: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """uint8 images, all of the split if none are given, as floats in [0, 1]."""
        return (self.values if images is None else images).to(dtype) / self.scale

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once: uint8 ``(b, ...)`` and labels ``(b,)``; shuffled if there is a generator."""
        if size < 1:
            raise ValueError(f"size: expected 1 or more, got {size}")
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for index in order.to(self.values.device).split(size):
            yield self.values[index], self.labels[index]

    def to(self, device: torch.device | str) -> Images:
        """The same images on `device`."""
        return dataclasses.replace(self, values=self.values.to(device), labels=self.labels.to(device))

    def subset(self, index: Tensor | slice, split: str | None = None) -> Images:
        """The chosen images as a dataset of their own."""
        return dataclasses.replace(
            self, values=self.values[index], labels=self.labels[index], split=split or self.split
        )

    def describe(self) -> dict[str, Any]:
        """Name, source, split, size, shape and classes as plain values, for reports and results."""
        return {
            "name": self.name,
            "source": self.source,
            "split": self.split,
            "sequences": len(self),
            "shape": list(self.shape),
            "classes": {name: int((self.labels == i).sum()) for i, name in enumerate(self.class_names)},
            "description": self.description,
        }

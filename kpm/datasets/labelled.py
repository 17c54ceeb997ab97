"""What datasets of labelled samples have in common, be they time series, images or points."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
    """Samples of one shape, with a class each. A subclass says what a sample is.

    Attributes
    ----------
    values : Tensor
        ``(n, *shape)``.
    labels : Tensor
        Class of each sample, int64 ``(n,)``.
    name : str
        Dataset name; a stand-in has its own.
    source : {"real", "synthetic"}
    split : str
    class_names : tuple of str
    description : str

    Raises
    ------
    ValueError
        For shapes or types other than these, no sample at all, or a label without a class.
    """

    values: Tensor = dataclasses.field(repr=False)
    labels: Tensor = dataclasses.field(repr=False)
    name: str
    source: str = "real"
    split: str = "train"
    class_names: tuple[str, ...] = ("0", "1")
    description: str = ""

    axes: ClassVar[tuple[str, ...]]
    """Names of the axes of `values`, the first ``n``."""
    kind: ClassVar[str] = "samples"
    """What samples are called in messages."""
    dtype: ClassVar[torch.dtype | None] = None
    """Type of `values`; any floating point one if None."""

    def __post_init__(self) -> None:
        fits = self.values.is_floating_point() if self.dtype is None else self.values.dtype == self.dtype
        if self.values.ndim != len(self.axes) or not fits or not self.values.numel():
            wanted = "floats" if self.dtype is None else str(self.dtype).removeprefix("torch.")
            have = f"{self.values.dtype} {tuple(self.values.shape)}"
            raise ValueError(f"values: expected {wanted} ({', '.join(self.axes)}), got {have}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.values.shape[:1]:
            have = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise ValueError(f"labels: expected int64 ({len(self.values)},), got {have}")
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise ValueError(f"labels: expected 0 to {len(self.class_names) - 1}, one of {self.class_names}")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Values: one sample ``shape`` for an integer, else a batch ``(b, *shape)``."""
        if not isinstance(index, slice) and not (isinstance(index, Tensor) and index.ndim):
            index = operator.index(index)
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is out of range for {len(self)} {self.kind}")
        return self.values[index]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.values.shape[1:])

    def to_float(self, values: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """`values`, all of the split if none are given, in the type networks take."""
        return (self.values if values is None else values).to(dtype)

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Every sample once: values ``(b, *shape)`` and labels ``(b,)``; shuffled if there is a generator."""
        if size < 1:
            raise ValueError(f"size: expected 1 or more, got {size}")
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for index in order.to(self.values.device).split(size):
            yield self.values[index], self.labels[index]

    def to(self, device: torch.device | str) -> Self:
        """The same samples on `device`."""
        return dataclasses.replace(self, values=self.values.to(device), labels=self.labels.to(device))

    def subset(self, index: Tensor | slice, split: str | None = None) -> Self:
        """The chosen samples as a dataset of their own."""
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

"""The one face datasets of labelled images have."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from kpm.datasets.labelled import Labelled


@dataclasses.dataclass(frozen=True, eq=False)
class Images(Labelled):
    """Images of one size, uint8 ``(n, channels, height, width)``, with a class each; see `Labelled`.

    Your own are a dataset once they stand in here.

    Attributes
    ----------
    scale : float
        Pixels are ``uint8 / scale`` as floats.
    """

    class_names: tuple[str, ...] = tuple("0123456789")
    scale: float = 255.0

    axes, kind, dtype = ("n", "channels", "height", "width"), "images", torch.uint8

    def to_float(self, values: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """uint8 images, all of the split if none are given, as floats in [0, 1]."""
        return super().to_float(values, dtype) / self.scale

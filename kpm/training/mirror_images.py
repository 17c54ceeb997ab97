"""Films that are mirror images of each other: the same look, moving the other way."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kpm.datasets.base import SequenceDataset

_CHUNK = 256
_COARSE = 8  # pixels: side of the blocks whose means find the nearest film


@torch.no_grad()
def find_mirror_images(data: SequenceDataset, tolerance: float = 5e-3) -> Tensor:
    """Number of each film's mirror image, ``(n,)``, -1 where there is none.

    Two films are mirror images of each other if each is what the other's mirrored frames resemble most, and these are
    near: by a mean squared difference of pixels in [0, 1] of at most `tolerance`. Sprites that look aside are within
    4.5e-3, a parting being on the same side seen from left and right. No label is looked at. The nearest film is found
    by means over blocks of pixels.

    Parameters
    ----------
    data : SequenceDataset
    tolerance : float
    """

    def coarse(frames: Tensor) -> Tensor:
        return F.avg_pool2d(frames.flatten(0, 1), _COARSE).reshape(len(frames), -1)

    every = torch.arange(len(data), device=data.device).split(_CHUNK)
    means = torch.cat([coarse(data.to_float(data[index])) for index in every])
    found = []
    for index in every:
        mirrored = data.to_float(data[index]).flip(-1)
        nearest = torch.cdist(coarse(mirrored), means).argmin(1)
        off = (mirrored - data.to_float(data[nearest])).square().flatten(1).mean(1)
        found.append(torch.where(off <= tolerance, nearest, -1))
    twins = torch.cat(found)
    number = torch.cat(every)
    mutual = (twins >= 0) & (twins != number) & (twins[twins] == number)
    return torch.where(mutual, twins, -1)


def some_with(images: Tensor, films: Tensor, share: float) -> Tensor:
    """Places in `films` of the first that have a mirror image in `images`, at most a `share` of all."""
    return (images[films] >= 0).nonzero().flatten()[: math.ceil(share * len(films))]

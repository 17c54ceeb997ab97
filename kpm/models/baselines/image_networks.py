"""Encoder and decoder of the recurrent predictors of films, as in [RKN] (Becker et al. 2019) for the quad-link."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kpm.models.dse_image_networks import ImageDecoder


class FrameEncoder(nn.Module):
    """Two convolutions with layer norm and pooling, a dense layer, then means of unit length and variances.

    Parameters
    ----------
    code : int
        Numbers per frame.
    unit : bool
        Whether means are scaled to length 1, as published; variances then are relative to that.
    """

    def __init__(self, code: int = 100, unit: bool = True):
        super().__init__()
        self.unit = unit
        self.body = nn.Sequential(
            nn.Conv2d(1, 12, 5, stride=2, padding=2),
            nn.LayerNorm([12, 24, 24]),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 12, 3, stride=2, padding=1),
            nn.LayerNorm([12, 6, 6]),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(108, 200),
            nn.ReLU(),
        )
        self.mean, self.variance = nn.Linear(200, code), nn.Linear(200, code)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances ``(n, t, code)`` of frames ``(n, t, 1, 48, 48)`` in [0, 1]."""
        features = self.body(frames.flatten(0, 1))
        mean = self.mean(features)
        if self.unit:
            mean = nn.functional.normalize(mean, dim=-1)
        shape = frames.shape[:2]
        return mean.unflatten(0, shape), positive(self.variance(features)).unflatten(0, shape)


def decode_frames(decoder: ImageDecoder, codes: Tensor) -> Tensor:
    """Frames ``(n, t, 1, 48, 48)`` of codes ``(n, t, code)``."""
    return decoder(codes.flatten(0, 1)).unflatten(0, codes.shape[:2])


def cross_entropy(guess: Tensor, frames: Tensor) -> Tensor:
    """Mean binary cross-entropy of pixels, as [RKN] trains on images.

    Like the squared error it is least for the conditional mean, but its gradient does not fade where a sigmoid is near
    0, as it is on images that are nearly black: with the squared error, networks stay at the mean image.
    """
    return nn.functional.binary_cross_entropy(guess, frames)


def positive(x: Tensor) -> Tensor:
    """``elu(x) + 1``: how [RKN] makes variances positive."""
    return torch.nn.functional.elu(x) + 1


@torch.no_grad()
def set_brightness(decoder: ImageDecoder, mean: float) -> None:
    """Let an untrained decoder start at frames of this mean pixel instead of 0.5, which is an error of 0.25."""
    if not 0 < mean < 1:
        raise ValueError(f"mean: expected a pixel between 0 and 1, got {mean}")
    last = [layer for layer in decoder if isinstance(layer, nn.Conv2d)][-1]
    last.bias.fill_(torch.tensor(mean).logit())

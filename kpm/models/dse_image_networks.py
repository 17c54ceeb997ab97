"""Networks of the deep spectral encoder for images, published and with principal components beside them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kpm.models.dse_networks import initialise
from kpm.models.principal_components import principal_components


class ImageEncoder(nn.Sequential):
    """Two convolutions and two dense layers, images ``(n, 1, 48, 48)`` to codes; 43,520 parameters for 100 codes."""

    def __init__(self, code: int = 100):
        super().__init__(
            nn.Conv2d(1, 12, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 12, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(108, 200),
            nn.ReLU(),
            nn.Linear(200, code),
        )
        initialise(self, "relu")


class ImageDecoder(nn.Sequential):
    """Codes to images ``(n, 1, 48, 48)`` with values in (0, 1).

    The last transposed convolution has a kernel of 6 pixels where the published one has 3. With a stride of 4, one of 3
    reaches three rows of four and three columns of four: the other 1008 of the 2304 pixels are the same for all codes.

    Parameters
    ----------
    code : int
    published : bool
        The kernel of 3: 22,713 parameters for 100 codes.
    """

    def __init__(self, code: int = 100, published: bool = False):
        last = {"kernel_size": 3, "output_padding": 1} if published else {"kernel_size": 6, "padding": 1}
        super().__init__(
            nn.Linear(code, 144),
            nn.ReLU(),
            nn.Unflatten(1, (16, 3, 3)),
            nn.ConvTranspose2d(16, 16, 5, stride=4, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 12, stride=4, **last),
            nn.ReLU(),
            nn.Conv2d(12, 1, 1),
            nn.Sigmoid(),
        )
        initialise(self, "relu")


class FilmComponents(nn.Module):
    """Principal components of images, in units of their deviations, as buffers: `fit` finds them.

    Parameters
    ----------
    count : int
    pixels : int
    """

    def __init__(self, count: int, pixels: int = 48 * 48):
        super().__init__()
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("axes", torch.zeros(pixels, count))
        self.register_buffer("deviation", torch.ones(count))

    @torch.no_grad()
    def fit(self, frames: Tensor) -> None:
        """Take those of frames ``(n, t, 1, 48, 48)``, uint8 or in [0, 1]."""
        frames = frames.double() / 255 if frames.dtype == torch.uint8 else frames.double()
        found = principal_components(frames, len(self.deviation))
        self.mean.copy_(found.mean)
        self.axes.copy_(found.axes)
        self.deviation.copy_(found.encode(frames).flatten(0, 1).std(0, correction=0))

    def encode(self, frames: Tensor) -> Tensor:
        """``(n, 1, 48, 48) -> (n, count)``."""
        return (frames.flatten(1) - self.mean) @ (self.axes / self.deviation)

    def decode(self, coordinates: Tensor) -> Tensor:
        """``(n, count) -> (n, 1, 48, 48)``."""
        return (self.mean + coordinates * self.deviation @ self.axes.mT).view(-1, 1, 48, 48)


class FilmEncoder(nn.Module):
    """Codes of images: principal components, then those of an `ImageEncoder`."""

    def __init__(self, code: int, components: int):
        super().__init__()
        self.components, self.net = FilmComponents(components), ImageEncoder(code - components)

    def forward(self, frames: Tensor) -> Tensor:
        return torch.cat([self.components.encode(frames), self.net(frames)], -1)


class FilmDecoder(nn.Module):
    """Images of codes: what their components make, and a network's correction of it, which is nothing at first."""

    def __init__(self, code: int, components: FilmComponents):
        super().__init__()
        self._components = (components,)  # the encoder's: not a part of this module too
        self.net = nn.Sequential(*list(ImageDecoder(code))[:-1])  # without the bounds of a sigmoid
        nn.init.zeros_(self.net[-1].weight)

    def forward(self, codes: Tensor) -> Tensor:
        (components,) = self._components
        return components.decode(codes[..., : len(components.deviation)]) + self.net(codes)

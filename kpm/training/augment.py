"""What a judge may not be fooled by: blur, noise, exposure, ghosts of other films, a shift by a pixel.

Decoded films are softer than real ones, a little off in colour, and show traces of what was not decoded sharply.
"""

from __future__ import annotations

import torch
from torch import Tensor

_KERNEL = 7  # pixels, of the widest blur
BLUR, NOISE, EXPOSURE, OFFSET, TINT, GHOST, SHIFT = 1.3, 0.06, 0.12, 0.03, 0.04, 0.25, 1


def augment(frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Spoil films a little, each in its own way (but for the shift, one for all), the same for all of a film's frames.

    Parameters
    ----------
    frames : Tensor
        ``(n, t, c, h, w)`` in [0, 1]. Not changed.
    generator : Generator, optional
        Of the CPU, whatever the device of `frames`.

    Returns
    -------
    Tensor
        ``(n, t, c, h, w)`` in [0, 1].
    """
    n, t, c = frames.shape[:3]

    def draw(low: float, high: float, *shape: int) -> Tensor:
        values = torch.rand(shape or (n, 1, 1, 1, 1), generator=generator)
        return (low + (high - low) * values).to(frames)

    # Half of the films carry a ghost of another; labels stay those of the stronger one.
    other = torch.randperm(n, generator=generator).to(frames.device)
    share = draw(-GHOST, GHOST).clamp(min=0)
    x = (frames * (1 - share)).addcmul_(frames[other], share)
    x = blur(x, draw(-0.5 * BLUR, BLUR, n).clamp(min=0))
    gain, offset = draw(1 - EXPOSURE, 1 + EXPOSURE) * draw(1 - TINT, 1 + TINT, n, 1, c, 1, 1), draw(-OFFSET, OFFSET)
    # One picture of noise, at its own strength per film: drawing it for each costs as much as the network.
    grain = torch.randn((1, t, *frames.shape[2:]), generator=generator).to(frames)
    x = torch.addcmul(offset, x, gain).addcmul_(grain, draw(-NOISE, NOISE))
    down, right = (int(v) for v in torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator))
    # The border is repeated: nothing comes round from the other side.
    rows = (torch.arange(x.shape[-2], device=x.device) - down).clamp(0, x.shape[-2] - 1)
    columns = (torch.arange(x.shape[-1], device=x.device) - right).clamp(0, x.shape[-1] - 1)
    return x.clamp_(0, 1)[..., rows, :][..., columns]


def blur(frames: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of each film ``(n, t, c, h, w)`` by its own `sigma` ``(n,)`` pixels; 0 leaves it as it is."""
    n, t, c, h, w = frames.shape
    reach = torch.arange(_KERNEL, device=frames.device) - _KERNEL // 2
    weight = torch.exp(-0.5 * (reach / sigma.clamp(min=1e-2)[:, None]) ** 2)
    weight = (weight / weight.sum(-1, keepdim=True)).to(frames.dtype)
    # As matrix products with a band matrix along each axis: no convolution has another kernel per film.
    band = torch.zeros(n, h + 2 * (_KERNEL // 2), h, dtype=frames.dtype, device=frames.device)
    place = torch.arange(h, device=frames.device)
    for k in range(_KERNEL):
        band[:, place + k, place] = weight[:, k, None]
    band = band[:, _KERNEL // 2 : -(_KERNEL // 2)]  # black outside
    if h != w:
        raise ValueError(f"frames: expected square pictures, got {h} x {w}")
    band = band[:, None]
    return (band.mT @ frames.flatten(1, 2) @ band).view(n, t, c, h, w)

"""Networks that turn an input into the observables or the drive of an equilibrium model.

The convolutional one and the causal one have the sizes of the published SIM experiments.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from kpm.models.layers import Conv2d

KINDS = ("identity", "linear", "mlp", "deep", "conv", "causal")


def make(kind: str, shape: tuple[int, ...], width: int, outputs: int) -> nn.Module:
    """A network from inputs ``(b, *shape)`` to ``(b, outputs)``.

    Parameters
    ----------
    kind : {"identity", "linear", "mlp", "deep", "conv", "causal"}
        Nothing (but flattening); one linear layer; one hidden layer of `width`; two; the published four convolutions
        of `width` channels; the published causal network, from ``(b, time, 1)`` to ``(b, time, outputs)``.
    shape : tuple of int
        Of one input: ``(features,)``, ``(channels, height, width)``, or ``(time, 1)`` for the causal one, whatever its
        time.
    width, outputs : int

    Raises
    ------
    ValueError
        For another kind, or a shape that does not go with it.
    """
    size = math.prod(shape)
    if kind == "identity":
        if outputs != size:
            raise ValueError(f"outputs: an identity of shape {shape} has {size}, got {outputs}")
        return nn.Flatten()
    if kind == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(size, outputs))
    if kind == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.ReLU(), nn.Linear(width, outputs))
    if kind == "deep":
        layers = [nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)]
        return nn.Sequential(nn.Flatten(), *layers)
    if kind == "conv":
        if len(shape) != 3:
            raise ValueError(f"shape: convolutions take (channels, height, width), got {shape}")
        return _convolutions(shape, width, outputs)
    if kind == "causal":
        return CausalNet(shape[-1], outputs, width)
    raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")


def checked(x: Tensor, shape: tuple[int, ...], kind: str) -> Tensor:
    """Inputs `x` of a network of `make`, if they are ``(b, *shape)``; the causal one takes any time.

    Raises
    ------
    ValueError
        If they are not.
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"x: expected a torch tensor, got {type(x).__name__}")
    have = tuple(x.shape)
    if len(have) < 2 or (have[-1] != shape[-1] if kind == "causal" else have[1:] != tuple(shape)):
        raise ValueError(f"x: expected (b, {', '.join(map(str, shape))}), got {have}")
    return x


def _convolutions(shape: tuple[int, ...], width: int, outputs: int) -> nn.Module:
    def block(inputs: int) -> list[nn.Module]:
        return [Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]

    channels, height, across = shape
    pooled = (height // 4) * (across // 4) * width
    return nn.Sequential(
        *block(channels), *block(width), nn.MaxPool2d(2),
        *block(width), *block(width), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(pooled, outputs),
    )  # fmt: skip


class CausalNet(nn.Module):
    """Causal convolutions in time: `levels` blocks of two, each twice as far apart, with a way around each block.

    Of the published SIM: 8 levels of 10 channels and kernel 8, weight-normalised, all weights at first ``N(0, 0.01)``,
    then a linear layer. The output at a time has seen ``1 + 2 (kernel - 1) (2^levels - 1)`` inputs.
    """

    def __init__(self, inputs: int, outputs: int, channels: int = 10, levels: int = 8, kernel: int = 8):
        super().__init__()
        self.kernel = kernel
        self.first, self.second, self.around = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level in range(levels):
            entering = inputs if level == 0 else channels
            for layers, size in ((self.first, entering), (self.second, channels)):
                layer = nn.Conv1d(size, channels, kernel, dilation=2**level)
                nn.init.normal_(layer.weight, std=0.01)
                layers.append(weight_norm(layer))
            self.around.append(nn.Conv1d(entering, channels, 1) if entering != channels else nn.Identity())
        self.last = nn.Linear(channels, outputs)
        nn.init.normal_(self.last.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """``(b, time, inputs) -> (b, time, outputs)``."""
        h = x.mT
        for first, second, around in zip(self.first, self.second, self.around):
            y = h
            for layer in (first, second):
                y = F.relu(layer(F.pad(y, ((self.kernel - 1) * layer.dilation[0], 0))))
            h = F.relu(y + around(h))
        return self.last(h.mT)


class FourierFeatures(nn.Module):
    """Frozen random features of a Gaussian kernel (Rahimi, Recht 2007): ``sqrt(2 / q) [cos z W, sin z W]``.

    Parameters
    ----------
    inputs, outputs : int
        `outputs`, even, is q; the dot product of two feature vectors is about ``exp(-|z - z'|^2 / (2 sigma^2))``.
    sigma : float
        Width of the kernel.
    """

    def __init__(self, inputs: int, outputs: int, sigma: float):
        super().__init__()
        if outputs % 2 or outputs < 2 or not sigma > 0:
            raise ValueError(f"outputs, sigma: expected an even number and a positive one, got {outputs}, {sigma}")
        # A buffer: it is kept with the weights but not learnt.
        self.register_buffer("frequencies", torch.randn(inputs, outputs // 2) / sigma)

    def forward(self, z: Tensor) -> Tensor:
        """``(..., inputs) -> (..., outputs)``."""
        angle = z @ self.frequencies
        return torch.cat([angle.cos(), angle.sin()], -1) * (1 / self.frequencies.shape[1]) ** 0.5

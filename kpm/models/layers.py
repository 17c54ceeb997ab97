"""Convolutions with a bias gradient that does not cost more than the convolution.

On the CPU, PyTorch hands the bias gradient of a (transposed) convolution to oneDNN together with the weight gradient,
which is two to three times slower than the weight gradient alone. A plain sum over the output gradient gives the same
numbers. Elsewhere the layers are PyTorch's own; weights and names are the same in both cases.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _SumBiasConvolution(torch.autograd.Function):
    """Convolution whose backward pass sums the bias gradient itself."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, stride, padding, transposed: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = (stride, padding, transposed)
        return torch.convolution(x, weight, bias, stride, padding, [1, 1], transposed, [0, 0], 1)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        stride, padding, transposed = ctx.options
        mask = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
        grad_x, grad_w, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, stride, padding, [1, 1], transposed, [0, 0], 1, mask
        )
        # No dtype here: it would copy the whole gradient first, and the sum is accumulated in float32 as it is.
        grad_b = grad.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return grad_x, grad_w, grad_b, None, None, None


def _convolve(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, transposed: bool) -> Tensor:
    weight, bias = layer.weight, layer.bias
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    return _SumBiasConvolution.apply(x, weight, bias, layer.stride, layer.padding, transposed)


def _plain(x: Tensor) -> bool:
    """Where there is no bias gradient to speed up."""
    return x.is_cuda or not torch.is_grad_enabled()


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` (with bias, no dilation, one group) that trains faster on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if _plain(x) else _convolve(self, x, transposed=False)


class ConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` (with bias, no output padding) that trains faster on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if _plain(x) else _convolve(self, x, transposed=True)


class Seed2d(nn.ConvTranspose2d):
    """Transposed convolution of a single pixel: a matrix product, done as one.

    Input ``(n, in_channels, 1, 1)``, output ``(n, out_channels, k, k)``.
    """

    def forward(self, x: Tensor) -> Tensor:
        n, (channels, out, height, width) = len(x), self.weight.shape
        weight = self.weight.permute(0, 2, 3, 1).reshape(channels, -1)  # outputs in channels-last order
        y = F.linear(x.reshape(n, channels), weight.t(), self.bias.repeat(height * width))
        return y.view(n, height, width, out).permute(0, 3, 1, 2)


def block(layer: nn.Module, channels: int) -> nn.Sequential:
    """A convolution to so many channels, normalised over the batch, and a leaky ReLU."""
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.LeakyReLU(0.2))

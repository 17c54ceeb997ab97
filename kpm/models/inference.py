"""Copies of trained networks that only answer, faster.

Batch normalisation is folded into the convolution before it, and the transposed convolution that makes an image's
three channels becomes a convolution that makes all four pixels of a block at once.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kpm.models.judge import Judge
from kpm.models.koopman_autoencoder import KoopmanAutoencoder

# Output channels up to which a processor's transposed convolution is slower than the one by blocks, with its 2.25 times
# as many products.
_FEW = 4

M = TypeVar("M", KoopmanAutoencoder, Judge)


def for_inference(model: M, dtype: torch.dtype = torch.float32) -> M:
    """A copy in eval mode that gives the same answers up to rounding, and has no gradient.

    Parameters
    ----------
    model : KoopmanAutoencoder or Judge
    dtype : torch.dtype
        Of the convolutions; recurrent networks, heads and latents stay float32.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    networks = [model.encoder.cnn, model.decoder.cnn] if isinstance(model, KoopmanAutoencoder) else [model.cnn]
    for cnn in networks:
        for block in cnn:
            if len(block) == 3:  # convolution, normalisation, activation
                transposed = isinstance(block[0], nn.ConvTranspose2d)
                block[0] = fuse_conv_bn_eval(block[0], block[1], transpose=transposed)
                del block[1]
            if isinstance(block[-1], nn.LeakyReLU):
                block[-1].inplace = True
            if isinstance(block[0], nn.ConvTranspose2d) and block[0].out_channels <= _FEW and block[0].stride == (2, 2):
                block[0] = _by_blocks(block[0])
        cnn.to(dtype=dtype, memory_format=torch.channels_last)
    if isinstance(model, Judge):
        model.frame_features.to(dtype)
    for module in model.modules():
        if isinstance(module, nn.RNNBase):  # a copy has its weights scattered, which cuDNN gathers at every call
            module.flatten_parameters()
    return model


def _by_blocks(layer: nn.ConvTranspose2d) -> nn.Sequential:
    """The same transposed convolution (kernel 4, stride 2, padding 1): 3 x 3 to four pixels, then these put in place.

    Output pixel ``2 i + a`` is reached from input pixel ``i + 1 - p`` by tap ``2 p + a - 1``: with a zero on either
    side, the six taps are pairs (a = 0, 1) for p = 0, 1, 2, and in the order of the input pixels p runs backwards.
    """
    assert (layer.kernel_size, layer.stride, layer.padding) == ((4, 4), (2, 2), (1, 1))
    assert layer.output_padding == (0, 0) and layer.groups == 1
    inputs, outputs = layer.weight.shape[:2]
    pairs = F.pad(layer.weight, (1, 1, 1, 1)).reshape(inputs, outputs, 3, 2, 3, 2).flip(2, 4)
    conv = nn.Conv2d(inputs, 4 * outputs, 3, padding=1, device=layer.weight.device, dtype=layer.weight.dtype)
    with torch.no_grad():
        conv.weight.copy_(pairs.permute(1, 3, 5, 0, 2, 4).reshape(4 * outputs, inputs, 3, 3))
        conv.bias.copy_(layer.bias.repeat_interleave(4))
    return nn.Sequential(conv.requires_grad_(False), nn.PixelShuffle(2))

"""Copies of trained networks that only answer, faster: batch normalisation folded into the convolution before it."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kpm.models.judge import Judge
from kpm.models.koopman_autoencoder import KoopmanAutoencoder

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
        cnn.to(dtype=dtype, memory_format=torch.channels_last)
    if isinstance(model, Judge):
        model.frame_features.to(dtype)
    for module in model.modules():
        if isinstance(module, nn.RNNBase):  # a copy has its weights scattered, which cuDNN gathers at every call
            module.flatten_parameters()
    return model

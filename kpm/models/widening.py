"""A larger decoder that begins where a smaller one is: it decodes the same, and has room to learn more."""

from __future__ import annotations

import torch

from kpm.models.koopman_autoencoder import KoopmanAutoencoder

# Input weights as PyTorch draws them are small beside trained ones, and new units would long be alike.
_SPREAD = 3.0


@torch.no_grad()
def widen(model: KoopmanAutoencoder, smaller: KoopmanAutoencoder) -> None:
    """Give `model` the weights of one with fewer units between latents and the decoder's convolutions.

    New units read the latents and the old units as they were initialised; neither the old units nor the convolutions
    look at them yet, so both models decode the same films, to the last bit or nearly. In the manner of Chen,
    Goodfellow, Shlens, "Net2Net", ICLR 2016.

    Parameters
    ----------
    model : KoopmanAutoencoder
        Changed in place.
    smaller : KoopmanAutoencoder
        Of the same sizes but for `hidden_dim`.
    """
    few, many = smaller.config.hidden_dim, model.config.hidden_dim
    old, new = smaller.state_dict(), model.state_dict()
    for name, weights in old.items():
        target = new[name]
        if weights.shape == target.shape:
            target.copy_(weights)
        elif name == "decoder.cnn.0.0.weight":
            target[few:] = 0
            target[:few] = weights
        else:  # rows are units; those of an LSTM's four gates follow one another
            rows, known = target.view(-1, many, *target.shape[1:]), weights.view(-1, few, *weights.shape[1:])
            if name.startswith("decoder.lstm.weight_ih"):
                rows.mul_(_SPREAD)
            if name.startswith("decoder.lstm.weight_hh"):
                rows[:, :few, few:] = 0
                rows[:, :few, :few] = known
            else:
                rows[:, :few] = known
    model.load_state_dict(new)

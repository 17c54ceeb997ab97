"""A widened decoder begins where the smaller one is."""

import dataclasses

import pytest
import torch

from kpm.models.koopman_autoencoder import KoopmanAutoencoder, KoopmanAutoencoderConfig
from kpm.models.widening import widen


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("axes", [True, False])
def test_both_decode_the_same_and_the_new_units_can_learn(recurrent, axes):
    config = KoopmanAutoencoderConfig(latent_dim=6, hidden_dim=5, width=4, recurrent=recurrent, axes=axes)
    torch.manual_seed(1)
    few, many = KoopmanAutoencoder(config), KoopmanAutoencoder(dataclasses.replace(config, hidden_dim=9))
    few(torch.rand(4, 8, 3, 64, 64))  # statistics that are not the initial ones
    widen(many, few)
    few.eval(), many.eval()
    frames, z = torch.rand(2, 8, 3, 64, 64), torch.randn(3, 8, 6)
    torch.testing.assert_close(many.encode(frames), few.encode(frames), rtol=0, atol=0)
    torch.testing.assert_close(many.decode(z), few.decode(z), rtol=0, atol=1e-6)
    many.decode(z).square().mean().backward()
    assert (many.decoder.cnn[0][0].weight.grad[5:] != 0).any()
    units = many.decoder.lstm(z)[0] if recurrent else many.decoder.linear(z)
    assert torch.linalg.matrix_rank(units.flatten(0, 1)[:, 5:].double()) == 4  # no two of the new ones are alike

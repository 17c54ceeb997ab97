"""Networks of the deep spectral encoder: published sizes, and block features against one window at a time."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from kpm.errors import UserError
from kpm.models import dse_image_networks as images
from kpm.models import dse_networks as networks
from kpm.models.dse_networks import DSEConfig

FILMS = {"element": (1, 48, 48), "delays": 1}


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_published_sizes():
    """Numbers of parameters of the published code."""
    presets = (DSEConfig.van_der_pol, DSEConfig.stuart_landau, DSEConfig.quad_link)
    vdp, sl, quad = (preset(reading="published") for preset in presets)
    assert (count(networks.signal_encoder(vdp)), count(networks.signal_decoder(vdp))) == (31986, 31966)
    assert (count(networks.signal_encoder(sl)), count(networks.signal_decoder(sl))) == (30706, 30676)
    assert (count(images.ImageEncoder()), count(images.ImageDecoder(published=True))) == (43520, 22713)
    heads = [count(networks.BlockHeads(c.code, c.window, c.head_hidden)) for c in (vdp, sl, quad)]
    assert heads == [35250, 70450, 102500]
    assert [(c.rank, c.state_features, c.observation_features) for c in (vdp, sl, quad)] == [
        (9, 30, 30),
        (13, 30, 30),
        (20, 50, 50),
    ]
    assert {(c.gap, c.dropout) for c in (vdp, sl, quad)} == {(0, 0.1)}


def test_sizes_of_the_clean_reading():
    vdp, sl, quad = DSEConfig.van_der_pol(), DSEConfig.stuart_landau(), DSEConfig.quad_link()
    assert (vdp.gap, sl.gap, quad.gap) == (29, 0, 0)
    assert {c.dropout for c in (vdp, sl, quad)} == {0.0}
    assert vdp.rank >= 12 and sl.explicit == sl.state_features == 13  # room for the harmonics up to 6
    assert DSEConfig.van_der_pol(rank=9).rank == 9


def test_images_in_and_out():
    pictures = torch.rand(3, 1, 48, 48)
    codes = images.ImageEncoder(7)(pictures)
    assert codes.shape == (3, 7)
    back = images.ImageDecoder(7)(codes)
    assert back.shape == pictures.shape and (back > 0).all() and (back < 1).all()


def test_components_are_principal_and_the_decoder_begins_with_them():
    torch.manual_seed(0)
    shapes = torch.rand(4, 48 * 48)
    frames = (torch.rand(2, 30, 4) @ shapes / 4).view(2, 30, 1, 48, 48)
    encoder = images.FilmEncoder(7, 3)
    encoder.components.fit((255 * frames).to(torch.uint8))
    flat = (255 * frames).to(torch.uint8).flatten(2).flatten(0, 1).numpy() / 255
    pca = PCA(3).fit(flat)
    codes = encoder((255 * frames[0]).to(torch.uint8) / 255).detach()
    assert codes.shape == (30, 7)
    expected = pca.transform(flat[:30]) / np.sqrt(pca.explained_variance_ * 59 / 60)
    np.testing.assert_allclose(abs(codes[:, :3].numpy()), abs(expected), atol=1e-3)
    decoder = images.FilmDecoder(7, encoder.components)
    back = decoder(codes).detach()  # a network's correction adds a constant at most
    drawn = pca.inverse_transform(pca.transform(flat[:30])).reshape(30, 1, 48, 48)
    np.testing.assert_allclose(back - back.mean(0), drawn - drawn.mean(0), atol=1e-4)
    assert not [name for name in decoder.state_dict() if "components" in name]  # the encoder has them
    with pytest.raises(ValueError, match="count: 3 components asked for, but the frames vary in fewer directions"):
        encoder.components.fit(frames[:, :1].expand(2, 9, 1, 48, 48))


def test_outputs_beside_a_network():
    torch.manual_seed(0)
    net = networks.beside([5, 6, 4], 3)
    x = torch.randn(2, 5)
    assert net(x).shape == (2, 4) and torch.equal(net(x)[:, :3], x[:, :3])
    assert isinstance(networks.beside([5, 6, 4], 0), torch.nn.Sequential)


@pytest.mark.parametrize("hidden", [0, 4])
@pytest.mark.parametrize("outputs", [1, 2])
def test_block_features_equal_one_window_at_a_time(hidden, outputs):
    code, window, time = 3, 5, 12
    torch.manual_seed(0)
    heads = networks.BlockHeads(code, window, hidden, outputs).double()
    codes = torch.randn(2, time, code, dtype=torch.float64)
    past, future = heads(codes)
    assert past.shape == future.shape == (2, time - window + 1, code * outputs)
    weights, biases = ([p.detach().numpy() for p in part] for part in (heads.weights, heads.biases))

    def read(j, values):
        x = values @ weights[0][j] + biases[0][j, 0]
        return x if not hidden else np.maximum(x, 0) @ weights[1][j] + biases[1][j, 0]

    for n in range(2):
        for t in range(time - window + 1):
            for j in range(code):
                values = codes[n, t : t + window, j].numpy()
                mine = slice(j * outputs, (j + 1) * outputs)
                np.testing.assert_allclose(future[n, t, mine].detach(), read(j, values), atol=1e-12)
                np.testing.assert_allclose(past[n, t, mine].detach(), read(j, values[::-1]), atol=1e-12)
    past.sum().backward()
    assert all((p.grad != 0).any() for p in heads.parameters())


def test_state_dictionary():
    torch.manual_seed(0)
    x = torch.randn(4, 6, 2, dtype=torch.float64)
    sizes = {"rank": 2, "state_hidden": (5,)}
    explicit = networks.StateDictionary(DSEConfig(state_features=8, **sizes))(x)
    assert explicit.shape == (4, 6, 8) and explicit.dtype == torch.float64
    assert (explicit[..., 0] == 1).all() and torch.equal(explicit[..., 1:3], x)
    plain = networks.StateDictionary(DSEConfig(state_features=8, reading="published", **sizes))(x)
    assert plain.shape == (4, 6, 8) and plain[..., 0].std() > 0
    assert networks.StateDictionary(DSEConfig(state_features=3, **sizes))(x).shape == (4, 6, 3)
    polar = networks.StateDictionary(DSEConfig(state_features=8, harmonics=3, **sizes))(x).detach()
    z = x[..., 0].numpy() + 1j * x[..., 1].numpy()
    powers = [(z / abs(z)) ** m for m in (2, 3)]
    expected = np.stack([*(p.real for p in powers), *(p.imag for p in powers)], -1)
    np.testing.assert_allclose(polar[..., 3:7].numpy(), expected, atol=1e-12)
    assert torch.equal(polar[..., :3], explicit[..., :3]) and polar[..., 7].std() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reading": "clear"}, "unknown reading 'clear'; did you mean 'clean'"),
        ({"element": (3, 48, 48)}, "element: expected"),
        ({"element": (1, 48, 48)}, "delays: expected 1 for images, got 30"),
        ({"rank": 51}, "rank: 51 states cannot come from 50 features"),
        ({"state_features": 9}, "state_features: expected at least 10"),
        ({"harmonics": 6}, "harmonics: 2 or more, of the angle of a state with rank 2 .* got 6 with rank 9"),
        ({"harmonics": 6, "rank": 2, "state_features": 12}, "state_features: expected at least 13"),
        ({"window": 0}, "window: expected a whole number >= 1, got 0"),
        ({"heads": 0}, "heads: expected a whole number >= 1, got 0"),
        ({"rank": 2.5}, "rank: expected a whole number >= 1, got 2.5"),
        ({"head_hidden": -1}, "head_hidden: expected a whole number >= 0, got -1"),
        ({"ridge_transition": -1}, "ridge_transition: expected a finite number >= 0, got -1"),
        ({"ridge_output": math.inf}, "ridge_output: expected a finite number >= 0, got inf"),
        ({"loading": math.nan}, "loading: expected a finite number >= 0, got nan"),
        ({"dropout": 1.0}, "dropout: expected a share from 0 to below 1, got 1.0"),
        ({"components": 3}, "components: only of images in the clean reading, got 3"),
        ({"components": 50, **FILMS}, "components: expected fewer than the 50 codes .* got 50"),
        ({"components": 31, **FILMS}, "at most the 30 observation features, got 31"),
    ],
)
def test_bad_sizes(changes, message):
    with pytest.raises((UserError, ValueError), match=message):
        DSEConfig(**changes)


def test_solved_last_layer_is_least_squares():
    torch.manual_seed(0)
    net = networks.mlp([3, 8, 2], torch.nn.Tanh).double()
    x, target = torch.randn(50, 3, dtype=torch.float64), torch.randn(50, 2, dtype=torch.float64) + 4
    first = net[0].weight.clone()
    networks.solve_last(net, x, target, 0.0)
    hidden = net[:-1](x).detach().numpy()
    expected = hidden @ np.linalg.lstsq(np.c_[hidden, np.ones(50)], target.numpy(), rcond=None)[0][:-1]
    found = net(x).detach().numpy()
    np.testing.assert_allclose(found - found.mean(0), expected - expected.mean(0), atol=1e-9)
    np.testing.assert_allclose(found.mean(0), target.numpy().mean(0), atol=1e-9)
    assert torch.equal(net[0].weight, first)
    networks.solve_last(net, x, target, 1e9)
    np.testing.assert_allclose(net(x).detach().numpy(), np.broadcast_to(target.numpy().mean(0), (50, 2)), atol=1e-6)

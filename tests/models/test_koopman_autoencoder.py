"""The model against the paper's sizes, PyTorch's own layers and its own promises."""

import pytest
import torch
from torch import nn

from kpm.models.koopman_autoencoder import KoopmanAutoencoder, KoopmanAutoencoderConfig
from kpm.models.layers import Conv2d, ConvTranspose2d, Seed2d

SKD = KoopmanAutoencoderConfig(scope="batch", latent_dim=40, hidden_dim=80, static_size=12)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (SKD, 1_926_011),
        (KoopmanAutoencoderConfig(), 2_269_096),
        (KoopmanAutoencoderConfig(latent_dim=24, hidden_dim=200), 2_485_387),
        (KoopmanAutoencoderConfig(latent_dim=28, hidden_dim=160), 2_280_439),
        (KoopmanAutoencoderConfig(latent_dim=28, hidden_dim=200), 2_506_679),
    ],
)
def test_parameter_counts_are_the_published_ones(config, count):
    assert sum(p.numel() for p in KoopmanAutoencoder(config).parameters()) == count


@pytest.mark.parametrize(
    ("layer", "reference", "shape"),
    [
        (Conv2d(3, 8, 4, 2, 1), nn.Conv2d(3, 8, 4, 2, 1), (5, 3, 16, 16)),
        (Conv2d(8, 6, 4, 1, 0), nn.Conv2d(8, 6, 4, 1, 0), (5, 8, 4, 4)),
        (ConvTranspose2d(8, 3, 4, 2, 1), nn.ConvTranspose2d(8, 3, 4, 2, 1), (5, 8, 6, 6)),
        (Seed2d(7, 5, 4), nn.ConvTranspose2d(7, 5, 4), (6, 7, 1, 1)),
    ],
    ids=["conv", "conv to a pixel", "transposed", "from a pixel"],
)
def test_layers_equal_pytorchs_own(layer, reference, shape):
    reference.load_state_dict(layer.state_dict())
    layer.double()
    reference.double()
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(inputs[0]), reference(inputs[1])]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(outputs[1])
    for out in outputs:
        (out * weight).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-11, atol=1e-11)
    for mine, theirs in zip(layer.parameters(), reference.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-11, atol=1e-11)


def test_layers_follow_autocast():
    x = torch.randn(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert Conv2d(3, 4, 4, 2, 1)(x).dtype == torch.bfloat16
        assert ConvTranspose2d(3, 4, 4, 2, 1)(x).dtype == torch.bfloat16


@pytest.fixture(scope="module", params=["sequence", "batch"])
def model(request):
    torch.manual_seed(0)
    small = KoopmanAutoencoderConfig(width=4, latent_dim=9, hidden_dim=12, scope=request.param)
    return KoopmanAutoencoder(small)


def test_forward_shapes_and_gradients(model):
    frames = torch.rand(6, 8, 3, 64, 64)
    out = model.train()(frames)
    assert out.latents.shape == out.predicted_latents.shape == (6, 8, 9)
    assert out.reconstruction.shape == out.prediction.shape == frames.shape
    assert out.eigenvalues.shape == ((6, 7) if model.config.scope == "sequence" else (9,))
    (out.reconstruction.mean() + out.prediction.mean() + out.eigenvalues.abs().square().mean()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
        p.grad = None


def test_one_pass_of_the_decoder_equals_two_in_eval_mode(model):
    frames = torch.rand(3, 8, 3, 64, 64)
    model.eval()
    with torch.no_grad():
        out = model(frames)
        torch.testing.assert_close(out.reconstruction, model.decode(out.latents), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(out.prediction, model.decode(out.predicted_latents), rtol=1e-5, atol=1e-6)


def test_time_runs_along_the_lstm_and_not_across_sequences(model):
    """A later frame must not change earlier latents, nor those of another sequence."""
    model.eval()
    frames = torch.rand(2, 8, 3, 64, 64)
    changed = frames.clone()
    changed[0, 5] = 1 - changed[0, 5]
    with torch.no_grad():
        a, b = model.encode(frames), model.encode(changed)
    torch.testing.assert_close(a[0, :5], b[0, :5], rtol=0, atol=1e-6)
    torch.testing.assert_close(a[1], b[1], rtol=0, atol=1e-6)
    assert (a[0, 5:] - b[0, 5:]).abs().amax(-1).min() > 1e-6


@pytest.mark.parametrize("shape", [(2, 8, 64, 64, 3), (2, 3, 64, 64), (2, 8, 3, 32, 32)])
def test_wrong_frames_are_refused_with_their_shape(model, shape):
    with pytest.raises(ValueError, match=rf"frames: expected .*{shape[-1]}\)"):
        model.encode(torch.rand(shape))


def test_wrong_latents_are_refused(model):
    with pytest.raises(ValueError, match="latents: expected"):
        model.decode(torch.rand(2, 8, 10))


def test_without_lstms_frames_do_not_know_of_one_another():
    torch.manual_seed(0)
    config = KoopmanAutoencoderConfig(latent_dim=9, hidden_dim=10, width=4, recurrent=False)
    model = KoopmanAutoencoder(config).eval()
    frames, order = torch.rand(2, 8, 3, 64, 64), torch.randperm(8)
    z = model.encode(frames)
    torch.testing.assert_close(model.encode(frames[:, order]), z[:, order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.decode(z[:, order]), model.decode(z)[:, order], atol=1e-5, rtol=1e-4)
    with_lstm = KoopmanAutoencoder(KoopmanAutoencoderConfig(latent_dim=9, hidden_dim=10, width=4)).eval()
    z = with_lstm.encode(frames)
    assert (with_lstm.encode(frames[:, order]) - z[:, order]).abs().max() > 1e-4


def test_static_noise_shifts_whole_films_in_training_and_only_for_the_reconstruction(monkeypatch):
    torch.manual_seed(0)
    config = KoopmanAutoencoderConfig(latent_dim=9, hidden_dim=10, width=4, dropout=0.0, static_noise=0.5)
    model, frames, seen = KoopmanAutoencoder(config), torch.rand(6, 8, 3, 64, 64), []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z: decode(seen.append(z) or z))
    for training in (True, False):
        model.train(training)
        latents = model(frames).latents
        shift = (seen[-1][:6] - latents).detach()
        torch.testing.assert_close(seen[-1][6:], latents)
        torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), rtol=0, atol=1e-6)
        if training:
            size = shift[:, 0].std() / latents.detach().mean(1).std(0, correction=0).square().mean().sqrt()
            assert 0.3 < size < 0.7
        else:
            assert not shift.any()

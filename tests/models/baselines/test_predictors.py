"""What every predictor of films must do, and the fitted ones in closed form."""

from __future__ import annotations

import pytest
import torch

from kpm.datasets import quad_link_images
from kpm.models.baselines.linear_films import KernelConfig, KernelPredictor, LinearConfig, LinearPredictor
from kpm.models.baselines.lstm import LSTMConfig, LSTMPredictor
from kpm.models.baselines.ncdssm import NCDSSM, NCDSSMConfig
from kpm.models.baselines.predictor import in_pieces, pixels
from kpm.models.baselines.rkn import RKN, RKNConfig
from kpm.models.principal_components import principal_components


@pytest.fixture(scope="module")
def films():
    """Two films of a swinging chain, 80 frames."""
    t = torch.arange(160, dtype=torch.float64).reshape(2, 80)
    angles = torch.stack([0.8 * torch.sin(0.25 * t), 0.5 * torch.cos(0.4 * t), 0.3 * torch.sin(0.4 * t), 0 * t], -1)
    return quad_link_images.render(angles)


@pytest.fixture(scope="module", params=["linear", "kernel", "rkn", "lstm", "ncdssm"])
def predictor(request, films):
    torch.manual_seed(0)
    match request.param:
        case "linear":
            return LinearPredictor.fit(films, LinearConfig.quick())
        case "kernel":
            return KernelPredictor.fit(films, films, KernelConfig.quick())
        case "rkn":
            return RKN(RKNConfig.quick()).eval()
        case "lstm":
            return LSTMPredictor(LSTMConfig.quick()).eval()
        case "ncdssm":
            return NCDSSM(NCDSSMConfig.quick()).eval()


def test_one_step_has_the_shape_of_the_frames(predictor, films):
    guess = predictor.one_step(films)
    assert guess.shape == films.shape and guess.dtype == torch.float32
    assert float(guess.min()) >= 0 and float(guess.max()) <= 1 and float(guess.std()) > 0


def test_no_prediction_sees_its_frame_or_later_ones(predictor, films):
    changed = films.clone()
    changed[:, 40] = 255 - changed[:, 40]
    before, after = predictor.one_step(films), predictor.one_step(changed)
    assert torch.equal(before[:, :41], after[:, :41])
    assert (before[:, 41] != after[:, 41]).any()


def test_predictions_ahead_agree_with_one_step_and_with_horizons(predictor, films):
    ahead = predictor.predict(films[:, :60], 5)
    assert ahead.shape == (2, 5, 1, 48, 48)
    assert torch.allclose(ahead[:, 0], predictor.one_step(films)[:, 60], atol=1e-5)
    found = dict(predictor.horizons(films, (1, 3, 5)))
    assert [guess.shape[1] for guess in found.values()] == [80, 78, 76]
    for h, guess in found.items():
        assert torch.allclose(guess[:, 60], ahead[:, h - 1], atol=1e-5)


def test_uint8_and_floats_are_the_same_frames(predictor, films):
    assert torch.allclose(predictor.one_step(films[:, :10]), predictor.one_step(films[:, :10].float() / 255), atol=1e-6)


def test_bad_frames(predictor, films):
    with pytest.raises(ValueError, match=r"frames: expected \(n, time, 1, 48, 48\), got \(80, 1, 48, 48\)"):
        predictor.one_step(films[0])
    with pytest.raises(ValueError, match="steps"):
        predictor.predict(films, 0)
    with pytest.raises(ValueError, match="steps: expected ascending"):
        next(predictor.horizons(films, (5, 1)))
    broken = films.float() / 255
    broken[1, 3] = torch.nan
    with pytest.raises(ValueError, match=r"frames\[1, 3"):
        predictor.one_step(broken)


@pytest.mark.parametrize("kind", ["linear", "kernel"])
def test_closed_forms_beat_the_last_frame_and_the_mean(kind, films):
    if kind == "linear":
        model = LinearPredictor.fit(films, LinearConfig(components=20, window=5, rank=16, loading=1e-4))
    else:
        model = KernelPredictor.fit(films, films, KernelConfig.quick())
    truth = pixels(films)
    error = (model.one_step(films) - truth)[:, 20:].square().mean()
    assert error < 0.8 * (truth[:, 20:] - truth[:, 19:-1]).square().mean()
    assert error < 0.6 * (truth - truth.mean((0, 1))).square().mean()


@pytest.mark.parametrize("crop", [slice(None), slice(19, 29)])
def test_components_rebuild_frames(films, crop):
    """With fewer frames than pixels, and with more (crops of 10 x 10)."""
    x = pixels(films)[..., crop, crop]
    found = principal_components(x, 30)
    again = found.encode(x) @ found.axes.mT + found.mean
    flat = x.flatten(2).double()
    u, s, vh = torch.linalg.svd((flat - flat.mean((0, 1))).flatten(0, 1), full_matrices=False)
    wanted = (u[:, :30] * s[:30] @ vh[:30]).unflatten(0, (2, 80)) + flat.mean((0, 1))
    assert torch.allclose(again, wanted, atol=1e-8)


def test_pieces_start_anew_and_leave_nothing_out():
    """A run that counts: a belief says how many frames it was made of, and which was the last."""

    def run(frames):
        count = torch.arange(frames.shape[1] + 1.0).expand(len(frames), -1)
        last = torch.cat([-torch.ones(len(frames), 1), frames[:, :, 0, 0, 0]], 1)
        return torch.stack([count, last], -1)

    for time in (6, 7, 12, 13, 14):
        frames = torch.arange(float(time)).reshape(1, time, 1, 1, 1)
        count, last = in_pieces(run, frames, 3)[0].unbind(-1)
        assert last.tolist() == list(range(-1, time))
        assert count[:7].tolist() == list(range(7)) and all(4 <= c <= 6 for c in count[7:].tolist())

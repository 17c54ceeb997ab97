"""The judge, what it is trained with, and the faster copies of trained networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from kpm import datasets
from kpm.errors import UserError
from kpm.models.inference import for_inference
from kpm.training import checkpoint, hardware
from kpm.training.augment import augment, blur
from kpm.training.judge import JudgeTrainConfig, accuracies, train_judge
from kpm.training.losses import cross_entropy
from tests.metrics.toys import autoencoder, films, judge


def test_opinions_have_the_shapes_and_do_not_depend_on_the_other_films():
    model, frames = judge(), torch.rand(5, 8, 3, 64, 64)
    opinion = model(frames)
    assert opinion.sequence["colour"].shape == (5, 3) and opinion.frame["way"].shape == (5, 8, 2)
    alone = model(frames[2:3])
    torch.testing.assert_close(alone.sequence["way"], opinion.sequence["way"][2:3], atol=1e-5, rtol=1e-4)
    one_frame = model(frames[2:3, 4:5])  # the frame judge looks at one frame
    torch.testing.assert_close(one_frame.frame["way"], opinion.frame["way"][2:3, 4:5], atol=1e-5, rtol=1e-4)


def test_the_sequence_judge_sees_the_order_of_frames_and_the_frame_judge_does_not():
    model, frames = judge(), torch.rand(3, 8, 3, 64, 64)
    there, back = model(frames), model(frames.flip(1))
    assert (there.sequence["way"] - back.sequence["way"]).abs().max() > 1e-6
    torch.testing.assert_close(there.frame["way"].flip(1), back.frame["way"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bad", [torch.rand(2, 8, 1, 64, 64), torch.zeros(2, 8, 3, 64, 64, dtype=torch.uint8)])
def test_frames_of_another_form_are_refused(bad):
    with pytest.raises(ValueError, match="frames: expected"):
        judge()(bad)


def test_inference_copies_answer_the_same():
    model, referee, frames = autoencoder(), judge(), torch.rand(4, 8, 3, 64, 64)
    fast, fast_referee = for_inference(model), for_inference(referee)
    z = model.encode(frames)
    torch.testing.assert_close(fast.encode(frames), z, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fast.decode(z), model.decode(z), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fast_referee(frames).sequence, referee(frames).sequence, atol=1e-5, rtol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fast.modules())
    assert [type(m) for m in fast.decoder.cnn[-1].modules()][2:4] == [torch.nn.Conv2d, torch.nn.PixelShuffle]
    half = for_inference(model, torch.bfloat16)
    torch.testing.assert_close(half.decode(z).float(), model.decode(z), atol=0.03, rtol=0)
    assert next(model.parameters()).dtype == torch.float32  # the model itself is as it was


def test_blur_is_that_of_scipy():
    frames, sigma = torch.rand(3, 2, 3, 64, 64), torch.tensor([0.0, 0.6, 1.2])
    got = blur(frames, sigma).numpy()
    np.testing.assert_allclose(got[0], frames[0], atol=1e-6)
    for i in (1, 2):
        width = float(sigma[i])
        expected = gaussian_filter(frames[i].numpy(), width, axes=(2, 3), mode="constant", radius=3)
        np.testing.assert_allclose(got[i], expected, atol=1e-5)


def test_augmentation_spoils_each_film_in_its_own_way_and_only_a_little():
    frames = films().to_float(films()[:])
    once, again = (augment(frames, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(once, again) and not torch.equal(once, augment(frames, torch.Generator().manual_seed(6)))
    assert once.min() >= 0 and once.max() <= 1
    change = (once - frames).abs().mean((1, 2, 3, 4))
    assert len(change.unique()) == len(frames) and change.max() < 0.35


def test_cross_entropy_of_frames_counts_each_frame():
    logits, label = torch.randn(4, 3, 5), torch.tensor([0, 4, 2, 2])
    expected = np.mean([[-torch.log_softmax(v, -1)[c] for v in film] for film, c in zip(logits, label)])
    assert float(cross_entropy({"f": logits}, {"f": label})) == pytest.approx(expected, abs=1e-6)


def test_training_learns_what_is_there_to_see(tmp_path, monkeypatch):
    # The probe measures time: on a busy machine two trainings could get two precisions.
    monkeypatch.setattr(hardware, "faster_precision", lambda where: "32-true")
    data = films(48, "train"), films(48, "validation")
    path = tmp_path / "judge.safetensors"
    config = JudgeTrainConfig(steps=60, batch_size=12, width=4)
    found = train_judge(config, path, data=data, progress_bar=False)
    assert found["sequence"]["colour"] > 0.9 and found["frame"]["colour"] > 0.6  # chance is 1/3
    model, meta = checkpoint.load_judge(path)
    assert accuracies(model, data[1]) == found and meta["data"]["train"]["name"] == "noise"
    assert accuracies(model, data[1], spoil=1)["sequence"]["colour"] > 0.6
    with pytest.raises(UserError, match="holds a 'Judge', expected a KoopmanAutoencoder"):
        checkpoint.load_model(path)
    again = tmp_path / "again.safetensors"
    assert train_judge(config, again, data=data, progress_bar=False) == found


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(UserError, match="steps must be at least 1, got 0"):
        JudgeTrainConfig(steps=0)
    with pytest.raises(UserError, match="batch_size: 64 is more than the 12 sequences"):
        train_judge(JudgeTrainConfig(), tmp_path / "j.safetensors", data=(films(), films()))
    beats = datasets.load("beats", "validation")
    with pytest.raises(UserError, match=r"^dataset: expected films, 'beats' has none"):
        train_judge(JudgeTrainConfig(), tmp_path / "j.safetensors", data=(films(), beats))

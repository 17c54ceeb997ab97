"""Which films of a batch a step looks at, and beside which others: predictions, swaps, mirror images."""

import dataclasses
import types

import pytest
import torch

from kpm.errors import UserError
from kpm.training import checkpoint
from tests.training.conftest import assert_same, moving_squares, run, small, weights, with_mirror_images


def test_a_share_of_the_predictions_is_decoded_in_training_and_all_in_validation(data, tmp_path, monkeypatch):
    from kpm.training import loop

    honest, seen = loop.koopman_losses, []

    def watched(output, frames, config, looks):
        seen.append((len(output.prediction), len(frames)))
        return honest(output, frames, config, looks)

    monkeypatch.setattr(loop, "koopman_losses", watched)
    run(small(steps=2, prediction_share=0.3), tmp_path / "run", data)
    assert {s for s in seen if s[1] == 4} == {(2, 4)}  # 0.3 of 4, rounded up
    assert {s for s in seen if s[1] != 4} == {(5, 5)}


def test_a_share_of_the_predictions_needs_one_process(data, tmp_path):
    two = types.SimpleNamespace(size=2, device=torch.device("cpu"))
    with pytest.raises(UserError, match=r"prediction_share: 0\.5 needs one process, there are 2"):
        run(small(prediction_share=0.5), tmp_path / "run", data, team=two)


def test_a_share_of_a_batch_is_swapped_in_training_and_all_in_validation(data, tmp_path, monkeypatch):
    from kpm.training import loop

    honest, seen = loop.koopman_losses, []

    def watched(output, frames, config, looks):
        assert len(output.swapped) == len(output.between)
        seen.append((len(output.swapped), len(frames)))
        return honest(output, frames, config, looks)

    monkeypatch.setattr(loop, "koopman_losses", watched)
    result = run(small(steps=2, w_swap=0.1, w_between=0.1, swap_share=0.3), tmp_path / "run", data)
    assert {s for s in seen if s[1] == 4} == {(2, 4)}  # 0.3 of 4, rounded up
    assert {s for s in seen if s[1] != 4} == {(5, 5)}
    assert result.history[-1]["swap"] > 0 and result.history[-1]["between"] > 0


def test_films_that_are_mirror_images_of_each_other_are_looked_at(data, tmp_path, monkeypatch):
    """Half the squares move left as well: a share of a batch in training, all of them in validation."""
    from kpm.training import loop

    honest, seen = loop.koopman_losses, []

    def watched(output, frames, config, looks):
        images = output.mirror_images
        seen.append((0 if images is None else len(images), len(frames)))
        return honest(output, frames, config, looks)

    monkeypatch.setattr(loop, "koopman_losses", watched)
    both_ways = [with_mirror_images(d, n) for d, n in zip(data, (16, 4))]
    result = run(small(steps=6, w_mirror=0.1, mirror_share=0.3), tmp_path / "run", both_ways)
    in_training = [s[0] for s in seen if s[1] == 4]
    assert len(in_training) == 6 and max(in_training) == 2  # 0.3 of 4, rounded up
    assert {s[0] for s in seen if s[1] == 9} == {8}
    assert result.history[-1]["mirror"] > 0
    with pytest.raises(UserError, match=r"w_mirror: no film of 'squares' \(train\) is the mirror image of another"):
        run(small(w_mirror=0.5), tmp_path / "other", data)
    two = types.SimpleNamespace(size=2, device=torch.device("cpu"))
    with pytest.raises(UserError, match=r"w_mirror: needs one process, there are 2"):
        run(small(w_mirror=0.5), tmp_path / "run", data, team=two)


def test_a_last_stage_trains_the_decoder_alone(config, data, tmp_path):
    run(config, tmp_path / "first", data)
    best = tmp_path / "first/best.safetensors"
    last = dataclasses.replace(config, init=str(best), decoder_only=True, w_between=1.0, swap_share=1.0, ema=0.5)
    result = run(last, tmp_path / "whole", data)
    assert result.history[-1]["between"] > 0 and "swap" not in result.history[-1]
    before, after = checkpoint.load_model(best)[0], checkpoint.load_model(tmp_path / "whole/best.safetensors")[0]
    assert_same(before.encoder.state_dict(), after.encoder.state_dict())
    for name, value in after.decoder.state_dict().items():
        kept = "running" in name or "tracked" in name  # of batch norm
        assert torch.equal(value, before.decoder.state_dict()[name]) == kept, name

    run(dataclasses.replace(last, steps=7), tmp_path / "cut", data)
    run(last, tmp_path / "cut", data, resume=True)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))

    two = types.SimpleNamespace(size=2, device=torch.device("cpu"))
    with pytest.raises(UserError, match=r"decoder_only: needs one process, there are 2"):
        run(dataclasses.replace(last, w_between=0.0, swap_share=0.25), tmp_path / "other", data, team=two)


def test_validation_looks_at_batches_of_one_size():
    """SKD's operator of the two films that 66 leave over 64 would be far from that of a batch."""
    from kpm.models.koopman_autoencoder import KoopmanAutoencoder
    from kpm.training.loop import validate

    model = KoopmanAutoencoder(small("skd").model())
    sizes = []
    model.register_forward_hook(lambda _, inputs, output: sizes.append(len(inputs[0])))
    validate(model, moving_squares("validation", 66), small("skd", w_swap=0.1))
    assert sizes == [33, 33]


def test_every_validation_draws_the_same_partners():
    from kpm.models.koopman_autoencoder import KoopmanAutoencoder
    from kpm.training.loop import validate

    model, scores, left = KoopmanAutoencoder(small().model()), [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        scores.append(validate(model, moving_squares("validation", 5), small(w_swap=0.1)))
        left.append(torch.rand(1))
    assert scores[0] == scores[1] and scores[0]["swap"] > 0
    assert left[0] != left[1]  # and what is drawn elsewhere is none of its business


def test_swaps_need_one_process_and_two_films(data, tmp_path):
    two = types.SimpleNamespace(size=2, device=torch.device("cpu"))
    for name in ("w_swap", "w_between"):
        with pytest.raises(UserError, match=rf"{name}: needs one process and two films, there are 2 and 4"):
            run(small(**{name: 0.5}), tmp_path / "run", data, team=two)

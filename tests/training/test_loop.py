"""Training: it learns, resumes to the same bits, survives being killed, and refuses what it should."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path

import pytest
import torch

from kpm.errors import UserError
from kpm.training import checkpoint
from kpm.training.config import command as config_command
from kpm.training.loop import train
from kpm.training.losses import NonFiniteLoss
from kpm.training.run_folder import Log
from tests.training.conftest import moving_squares, small, with_mirror_images


def run(config, folder, data, **options):
    return train(config, folder, data=data, device="cpu", progress_bar=False, **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(folder / "last.safetensors")[0]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_it_learns(config, data, tmp_path):
    result = run(dataclasses.replace(config, steps=60, learning_rate=5e-3), tmp_path / "run", data)
    assert result.finished and result.steps == 60
    losses = [e["reconstruction"] for e in Log(tmp_path / "run/log.jsonl").read("train")]
    assert losses[-1] < 0.7 * losses[0]
    assert result.best["mse"] < result.history[0]["mse"]
    model, meta = checkpoint.load_model(tmp_path / "run/best.safetensors")
    assert meta["train"]["method"] == config.method and meta["environment"]["packages"]
    assert model.config.scope == ("sequence" if config.method == "ssm-skd" else "batch")
    assert not model.training


def test_same_seed_same_weights_other_seed_others(data, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(small(seed=seed), tmp_path / name, data)
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    first = "model.encoder.cnn.0.0.weight"
    assert not torch.equal(weights(tmp_path / "a")[first], weights(tmp_path / "c")[first])


def test_resumed_run_ends_with_the_same_bits(config, data, tmp_path):
    run(config, tmp_path / "whole", data)
    # 21 sequences in batches of 4: the cut at step 7 is in the middle of the second epoch.
    run(dataclasses.replace(config, steps=7), tmp_path / "cut", data)
    torch.rand(100)  # whatever the process did in between must not matter
    run(config, tmp_path / "cut", data, resume=True)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert_same(whole, cut)


@pytest.mark.slow
@pytest.mark.faults
def test_killed_and_resumed_run_ends_with_the_same_bits(data, tmp_path):
    config = small(steps=150)
    script = textwrap.dedent(
        """
        import sys
        sys.path.insert(0, sys.argv[2])
        from kpm.training.loop import train
        from tests.training.conftest import moving_squares, small
        data = moving_squares("train", 21), moving_squares("validation", 5)
        options = {"device": "cpu", "progress_bar": False, "save_every_s": 0.2, "resume": True}
        train(small(steps=150), sys.argv[1], data=data, **options)
        """
    )
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "cut"), root])
    try:
        last = tmp_path / "cut/last.safetensors"
        deadline = time.monotonic() + 120
        while not last.is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    finally:
        process.kill()
    stopped_at = checkpoint.read(last)[1]["progress"]["step"]
    assert 0 < stopped_at < 150
    run(config, tmp_path / "cut", data, resume=True)
    run(config, tmp_path / "whole", data)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    steps = [e["step"] for e in Log(tmp_path / "cut/log.jsonl").read("train")]
    assert steps == sorted(set(steps)) and steps[-1] == 150


def test_precision_that_was_probed_is_kept_on_resuming(data, tmp_path, monkeypatch):
    from kpm.training import hardware

    monkeypatch.setattr(hardware, "faster_precision", lambda where: "bf16-mixed")
    run(small(steps=3, precision="auto"), tmp_path / "run", data)
    monkeypatch.setattr(hardware, "faster_precision", lambda where: "32-true")
    run(small(steps=5, precision="auto"), tmp_path / "run", data, resume=True)
    assert checkpoint.read(tmp_path / "run/last.safetensors")[1]["progress"]["precision"] == "bf16-mixed"


def test_a_run_of_other_parameters_is_not_written_over(data, tmp_path):
    run(small(), tmp_path / "run", data)
    before = weights(tmp_path / "run")
    with pytest.raises(UserError, match=r"other parameters \(learning_rate 0.001 -> 0.5\)"):
        run(small(learning_rate=0.5), tmp_path / "run", data, resume=True)
    with pytest.raises(UserError, match="holds this run already"):
        run(small(), tmp_path / "run", data)
    assert_same(before, weights(tmp_path / "run"))


def test_other_data_under_the_same_name_is_not_mixed_in(data, tmp_path):
    """ "sprites, auto" may be the stand-in today and the real thing tomorrow."""
    run(small(), tmp_path / "run", data)
    other = tuple(dataclasses.replace(d, name="real-squares", source="real") for d in data)
    with pytest.raises(UserError, match=r"other parameters \(data .*squares.* -> .*real-squares"):
        run(small(), tmp_path / "run", other, resume=True)


def test_the_best_weights_are_not_lost_where_the_last_are_gone(data, tmp_path):
    run(small(), tmp_path / "run", data)
    (tmp_path / "run/last.safetensors").unlink()
    with pytest.raises(UserError, match=r"last.safetensors is gone"):
        run(small(), tmp_path / "run", data, resume=True)
    assert checkpoint.read(tmp_path / "run/best.safetensors")


def test_a_run_that_could_not_start_leaves_the_folder_free(data, tmp_path):
    with pytest.raises(UserError, match="device: expected auto, cpu, cuda"):
        train(small(), tmp_path / "run", data=data, device="gpu0", progress_bar=False)
    run(small(), tmp_path / "run", data)


def test_best_weights_know_their_own_time(data, tmp_path):
    run(small(), tmp_path / "run", data)
    _, meta = checkpoint.read(tmp_path / "run/best.safetensors")
    at = {e["step"]: e["wall_s"] for e in Log(tmp_path / "run/log.jsonl").read("validation")}
    assert meta["progress"]["wall_s"] == pytest.approx(at[meta["progress"]["best"]["step"]], abs=0.5)
    assert meta["progress"]["wall_s"] > 0
    assert meta["data"]["train"] == {"name": "squares", "source": "synthetic", "split": "train", "sequences": 21}


def test_a_run_can_start_from_weights_and_counts_what_made_them(data, tmp_path):
    first = run(small(steps=10), tmp_path / "first", data)
    start = str(tmp_path / "first/best.safetensors")
    second = run(small(steps=1, init=start, learning_rate=1e-12, warmup_steps=0, ema=0.0), tmp_path / "second", data)
    a, b = (checkpoint.read(tmp_path / f"{n}/best.safetensors") for n in ("first", "second"))
    for name, value in a[0].items():
        if "running" not in name and "num_batches" not in name:  # one step moves the statistics
            torch.testing.assert_close(b[0][name], value, rtol=0, atol=1e-9)
    assert b[1]["progress"]["before_steps"] == first.best["step"] > 0
    assert b[1]["progress"]["before_wall_s"] == pytest.approx(a[1]["progress"]["wall_s"])
    assert second.steps == 1
    assert b[1]["progress"]["before_commands"] == [config_command(a[1]["train"], first.best["step"])]
    with pytest.raises(UserError, match=r"init: best.safetensors is a model of other sizes"):
        run(small(init=start, latent_dim=10), tmp_path / "third", data)
    with pytest.raises(UserError, match=r"^init: no checkpoint 'nothing'; "):
        run(small(init="nothing"), tmp_path / "fourth", data)


def test_weights_of_a_decoder_with_fewer_units_are_widened(data, tmp_path):
    run(small(steps=3), tmp_path / "first", data)
    start = str(tmp_path / "first/last.safetensors")
    wide = small(steps=1, init=start, hidden_dim=14, learning_rate=1e-12, warmup_steps=0, ema=0.0)
    run(wide, tmp_path / "wide", data)
    a, b = (checkpoint.load_model(tmp_path / f"{n}/last.safetensors")[0] for n in ("first", "wide"))
    z = torch.randn(2, 8, 9)
    hidden = [m.decoder.lstm(z)[0] for m in (a, b)]  # statistics of the convolutions moved with the step
    assert hidden[1].shape[-1] == 14
    torch.testing.assert_close(hidden[1][..., :10], hidden[0])
    with pytest.raises(UserError, match=r"init: last.safetensors is a model of other sizes"):
        run(small(init=start, hidden_dim=9), tmp_path / "narrow", data)


def test_a_run_on_films_of_ones_own_can_be_gone_on_from(data, tmp_path):
    config = small(steps=2, dataset="squares")
    run(config, tmp_path / "first", data)
    run(dataclasses.replace(config, init=str(tmp_path / "first/last.safetensors")), tmp_path / "second", data)
    progress = checkpoint.read(tmp_path / "second/last.safetensors")[1]["progress"]
    (line,) = progress["before_commands"]
    assert line.startswith("kpm train ssm-skd --dataset squares ") and "--width 4" in line and "--steps 2" in line


@pytest.mark.parametrize("hours", [-1.0, float("nan")])
def test_hours_are_not_negative(data, tmp_path, hours):
    with pytest.raises(UserError, match=rf"max_hours must be at least 0, got {hours}"):
        run(small(), tmp_path / "run", data, max_hours=hours)
    assert not (tmp_path / "run").exists()


def test_weights_get_axes_and_have_them_turned_again_if_asked(data, tmp_path, monkeypatch):
    from kpm.models.channel_basis import ChannelBasis
    from kpm.training import loop

    draw = torch.Generator().manual_seed(1)
    matrix = torch.randn(9, 9, generator=draw, dtype=torch.float64)
    monkeypatch.setattr(loop, "independent_basis", lambda model, films: ChannelBasis.of(matrix))
    still = dict(steps=1, learning_rate=1e-12, warmup_steps=0, ema=0.0, axes=True)
    run(small(steps=2), tmp_path / "plain", data)
    start = "plain"
    for name, options, wanted in (
        ("given", {}, matrix.T),
        ("kept", {}, matrix.T),
        ("turned", {"turn_axes": True}, matrix.T @ matrix.T),
    ):
        init = str(tmp_path / start / "last.safetensors")
        run(small(init=init, **still, **options), tmp_path / name, data)
        found = weights(tmp_path / name)["model.encoder.axes.weight"]
        torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-4)
        start = name


def test_a_folder_in_use_is_refused(data, tmp_path):
    from kpm.training.run_folder import RunFolder, about

    with RunFolder(tmp_path / "run", small(), about(*data), False), pytest.raises(UserError, match="in use"):
        run(small(), tmp_path / "run", data, resume=True)


def test_a_non_finite_loss_names_step_and_term_and_keeps_the_checkpoint(data, tmp_path, monkeypatch):
    from kpm.training import loop

    run(small(steps=6), tmp_path / "run", data)
    before = weights(tmp_path / "run")
    calls = []
    honest = loop.koopman_losses

    def spoiled(output, frames, config, looks):
        terms = honest(output, frames, config, looks)
        calls.append(1)
        return terms | {"prediction": terms["prediction"] / 0} if len(calls) == 3 else terms

    monkeypatch.setattr(loop, "koopman_losses", spoiled)
    with pytest.raises(NonFiniteLoss, match="step 8: loss term 'prediction' is not finite"):
        run(small(steps=12), tmp_path / "run", data, resume=True)
    assert_same(before, weights(tmp_path / "run"))


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


def test_a_run_from_before_a_setting_existed_had_its_default(data, tmp_path):
    run(small(steps=2), tmp_path / "run", data)
    path = tmp_path / "run" / "config.json"
    settings = json.loads(path.read_text())
    del settings["prediction_share"]
    path.write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"prediction_share 1.0 -> 0.5"):
        run(small(steps=4, prediction_share=0.5), tmp_path / "run", data, resume=True)
    assert run(small(steps=4), tmp_path / "run", data, resume=True).steps == 4


def test_non_finite_gradients_are_caught_too(data, tmp_path, monkeypatch):
    from kpm.training import loop

    honest = loop.koopman_losses

    def spoiled(output, frames, config, looks):
        terms = honest(output, frames, config, looks)
        zero = output.latents.sum() * 0
        return terms | {"prediction": terms["prediction"] + zero.sqrt()}  # value 0, slope infinite times 0

    monkeypatch.setattr(loop, "koopman_losses", spoiled)
    with pytest.raises(NonFiniteLoss, match="step 0: gradient norm is nan"):
        run(small(), tmp_path / "run", data)


def test_non_finite_latents_name_the_step(config, data, tmp_path, monkeypatch):
    from kpm.models.koopman_autoencoder import Encoder

    honest = Encoder.forward

    def spoiled(self, frames):
        z = honest(self, frames)
        return z.index_fill(1, torch.tensor([2]), torch.inf)

    monkeypatch.setattr(Encoder, "forward", spoiled)
    with pytest.raises(NonFiniteLoss, match=r"step 0: z\[0, 2, 0\]"):
        run(config, tmp_path / "run", data)


@pytest.mark.faults
@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
def test_a_full_disk_leaves_the_last_checkpoint_whole(data, tmp_path):
    run(small(steps=4), tmp_path / "run", data)
    before = (tmp_path / "run/last.safetensors").read_bytes()
    limit = textwrap.dedent(
        """
        import resource, signal, sys
        sys.path.insert(0, sys.argv[2])
        from kpm.training.loop import train
        from tests.training.conftest import moving_squares, small
        data = moving_squares("train", 21), moving_squares("validation", 5)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # writes beyond fail, as on a full disk
        train(small(steps=8), sys.argv[1], data=data, device="cpu", progress_bar=False, resume=True)
        """
    )
    command = [sys.executable, "-c", limit, str(tmp_path / "run"), str(Path(__file__).parents[2])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "File too large" in done.stderr
    assert (tmp_path / "run/last.safetensors").read_bytes() == before
    assert not list((tmp_path / "run").glob("*.part"))


def test_log_is_json_lines_and_survives_a_cut_line(data, tmp_path):
    run(small(), tmp_path / "run", data)
    path = tmp_path / "run/log.jsonl"
    for line in path.read_text().splitlines():
        json.loads(line)
    events = Log(path).read()
    with path.open("a") as f:
        f.write('{"step": 13, "ki')
    assert Log(path).read() == events


def test_validation_does_not_depend_on_the_batch(data, tmp_path):
    """Eval-mode figures are those of the data, however it is cut: the mean of two halves is the whole."""
    from kpm.models.koopman_autoencoder import KoopmanAutoencoder
    from kpm.training.loop import validate

    config = small()
    torch.manual_seed(0)
    model = KoopmanAutoencoder(config.model())
    every = moving_squares("validation", 6)
    halves = [every.subset(torch.arange(3)), every.subset(torch.arange(3, 6))]
    whole = validate(model, every, config)
    parts = [validate(model, h, config) for h in halves]
    for name in ("mse", "prediction", "static_eigenvalues"):
        assert whole[name] == pytest.approx((parts[0][name] + parts[1][name]) / 2, rel=1e-4)

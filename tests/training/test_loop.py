"""Training: it learns, resumes to the same bits, survives being killed, and refuses what it should."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from kpm.errors import UserError
from kpm.training import checkpoint
from kpm.training.loop import train
from kpm.training.losses import NonFiniteLoss
from kpm.training.run_folder import Log
from tests.training.conftest import assert_same, moving_squares, run, small, weights


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


@pytest.mark.parametrize("hours", [-1.0, float("nan")])
def test_hours_are_not_negative(data, tmp_path, hours):
    with pytest.raises(UserError, match=rf"max_hours must be at least 0, got {hours}"):
        run(small(), tmp_path / "run", data, max_hours=hours)
    assert not (tmp_path / "run").exists()


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

"""Trainings that are killed, share a folder, fill the disk or find damage: nothing is lost but the last interval."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from kpm import cli
from kpm.errors import UserError
from kpm.training import checkpoint
from kpm.training.fit import fit
from kpm.training.loop import train
from kpm.training.run_folder import Log, RunFolder
from kpm.training.team import Team
from tests.processes import as_torchrun, die, ended, start
from tests.training.conftest import moving_squares, small
from tests.training.test_fit import CONFIG, Regression

DATA = moving_squares("train", 21), moving_squares("validation", 5)
AT = 17  # the third step of the third epoch of a fit


def plain(folder: Path, at: dict | None = None, **options) -> int:
    """A fit of 42 steps that saves after each."""
    fit(Regression(at), CONFIG, folder, **({"resume": True, "save_every_s": 0, "progress_bar": False} | options))
    return 0


def koopman(folder: Path, **options) -> int:
    """Six steps of a Koopman autoencoder, with a running average of the weights."""
    options = {"resume": True, "save_every_s": 0, "progress_bar": False, "device": "cpu"} | options
    train(small(steps=6, width=2), folder, data=DATA, **options)
    return 0


RUNS = {"fit": plain, "koopman": koopman}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The same runs, left in peace."""
    folder = tmp_path_factory.mktemp("whole")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, run in RUNS.items():
        run(folder / name)
    torch.set_num_threads(threads)
    return folder


def assert_same_run(found: Path, wanted: Path) -> None:
    """Both folders hold the same weights to the bit, the same log, and nothing else."""
    for name in ("last.safetensors", "best.safetensors"):
        (a, meta_a), (b, meta_b) = checkpoint.read(found / name), checkpoint.read(wanted / name)
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), name
        assert meta_a["progress"]["best"] == meta_b["progress"]["best"]
    logs = [
        [{k: v for k, v in e.items() if k != "wall_s"} for e in Log(f / "log.jsonl").read()] for f in (found, wanted)
    ]
    assert logs[0] == logs[1]
    assert {p.name for p in found.iterdir()} == {p.name for p in wanted.iterdir()}


def saved_step(folder: Path) -> int:
    return checkpoint.read(folder / "last.safetensors")[1]["progress"]["step"]


# When a process dies. Each function spoils the process it is called in.


def in_a_step(count: int) -> None:
    honest, calls = torch.nn.utils.clip_grad_norm_, []

    def spoilt(*arguments, **options):
        calls.append(1)
        return honest(*arguments, **options) if len(calls) < count else die()

    torch.nn.utils.clip_grad_norm_ = spoilt


def half_way_through(name: str):
    """In the `count`-th writing of a checkpoint: half of the file is on the disk."""

    def spoil(count: int) -> None:
        honest, calls = safetensors.torch.save_file, []

        def spoilt(tensors, path, metadata=None):
            honest(tensors, path, metadata=metadata)
            calls.append(1) if path.name.startswith(f".{name}") else None
            if len(calls) == count:
                os.truncate(path, path.stat().st_size // 2)
                die()

        safetensors.torch.save_file = spoilt

    return spoil


def before_the_new_name(count: int) -> None:
    honest, calls = os.replace, []

    def spoilt(source, target):
        calls.append(1) if "last.safetensors" in str(target) else None
        return honest(source, target) if len(calls) < count else die()

    os.replace = spoilt


def in_a_line_of_the_log(count: int) -> None:
    honest, calls = Log.write, []

    def spoilt(self, **event):
        calls.append(1)
        if len(calls) == count:
            with self.path.open("a") as f:
                f.write('{"step": 1, "ki')
            die()
        honest(self, **event)

    Log.write = spoilt


WHEN = {
    "in a step": in_a_step,
    "half-way through a save": half_way_through("last.safetensors"),
    "half-way through a save of the best": half_way_through("best.safetensors"),
    "before a save gets its name": before_the_new_name,
    "in a line of the log": in_a_line_of_the_log,
}


def killed(run, folder: Path, spoil, count: int, **options) -> int:
    def body() -> int:
        spoil(count)
        return run(folder, **options)

    return ended(start(body))


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("count", [1, AT])
def test_a_fit_killed_at_any_moment_goes_on_to_the_same_bits(tmp_path, whole, when, count):
    if when.endswith("the best"):
        count = min(count, 3)
    folder = tmp_path / "fit"
    assert killed(plain, folder, WHEN[when], count) == -signal.SIGKILL
    if when == "in a step" and count > 1:
        assert saved_step(folder) == count - 1  # nothing is lost but the interval, here one step
    plain(folder)
    assert_same_run(folder, whole / "fit")


@pytest.mark.parametrize(
    ("when", "count"), [("half-way through a save", 3), ("half-way through a save of the best", 1)]
)
def test_a_koopman_training_killed_in_a_save_goes_on_to_the_same_bits(tmp_path, whole, when, count):
    folder = tmp_path / "koopman"
    assert killed(koopman, folder, WHEN[when], count) == -signal.SIGKILL
    koopman(folder)
    assert_same_run(folder, whole / "koopman")


def test_a_koopman_training_stopped_by_sigterm_goes_on_to_the_same_bits(tmp_path, whole, monkeypatch):
    from kpm.training import loop

    honest, calls = loop.average, []

    def stopped(*arguments):
        honest(*arguments)
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "average", stopped)
    folder = tmp_path / "koopman"
    koopman(folder, save_every_s=1e9)
    assert saved_step(folder) == len(calls) == 4
    koopman(folder)
    assert_same_run(folder, whole / "koopman")


def test_a_run_killed_between_its_first_best_weights_and_its_first_save_can_go_on(tmp_path, whole):
    folder = tmp_path / "fit"
    assert killed(plain, folder, in_a_step, AT, save_every_s=1e9) == -signal.SIGKILL
    assert saved_step(folder) == 7  # saved with the first best weights, after an epoch
    plain(folder)
    assert_same_run(folder, whole / "fit")


def test_a_folder_in_use_is_free_again_when_its_user_is_killed(tmp_path, whole):
    folder, ready = tmp_path / "fit", tmp_path / "ready"

    def stop_and_wait() -> None:
        ready.touch()
        time.sleep(600)

    process = start(plain, folder, {AT: stop_and_wait})
    try:
        wait_until(ready.exists, 180)
        before = {p.name: p.read_bytes() for p in folder.iterdir()}
        with pytest.raises(UserError, match="in use by another process"):
            plain(folder)
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    finally:
        process.kill()
    assert ended(process) == -signal.SIGKILL
    plain(folder)
    assert_same_run(folder, whole / "fit")


def wait_until(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_checkpoint_is_not_resumed_from_and_not_written_over(tmp_path, damage):
    folder = tmp_path / "fit"
    plain(folder)
    last = folder / "last.safetensors"
    content = bytearray(last.read_bytes())
    content[-5] ^= 16
    last.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(UserError, match=r"checkpoint 'last.safetensors' is damaged"):
        plain(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_damaged_note_of_what_a_run_is_is_named(tmp_path):
    folder = tmp_path / "fit"
    plain(folder)
    config = folder / "config.json"
    config.write_text(config.read_text()[:40])
    with pytest.raises(UserError, match=r"config.json is damaged"):
        plain(folder)
    config.unlink()  # what the checkpoint says of the run is enough
    plain(folder)
    assert config.is_file()


def test_no_flipped_bit_of_a_checkpoint_is_accepted(tmp_path):
    """Each byte of a small one in turn: the file is refused, or what is read is what was written."""
    tensors, meta = {"weight": torch.arange(3.0)}, {"progress": {"step": 5}, "note": "\u03ba"}
    good = checkpoint.save(tmp_path / "good.safetensors", tensors, meta).read_bytes()
    bad = tmp_path / "bad.safetensors"
    draw = torch.Generator().manual_seed(0)
    refused = 0
    for i, bit in enumerate(torch.randint(8, (len(good),), generator=draw).tolist()):
        bad.write_bytes(good[:i] + bytes([good[i] ^ 1 << bit]) + good[i + 1 :])
        try:
            found = checkpoint.read(bad)
        except UserError:
            refused += 1
            continue
        assert torch.equal(found[0]["weight"], tensors["weight"]) and found[1] == meta, i
    assert refused > 0.9 * len(good)


def test_a_disk_that_fills_up_in_a_fit_leaves_the_last_save(tmp_path, whole):
    folder = tmp_path / "fit"
    plain(folder, save_every_s=1e9, max_hours=0)
    size = (folder / "last.safetensors").stat().st_size - 200  # a wall time may have fewer digits next time
    assert size > max((folder / name).stat().st_size for name in ("config.json", "log.jsonl")) + 200

    def body() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # writes beyond fail, as on a full disk
        with pytest.raises(OSError, match="File too large"):
            plain(folder)
        return 0

    assert ended(start(body)) == 0
    assert saved_step(folder) == 1 and not list(folder.glob(".*.part"))
    plain(folder)
    assert_same_run(folder, whole / "fit")


@pytest.mark.parametrize("shift", [-3600.0, 3600.0])
def test_a_clock_that_is_put_back_or_forward_changes_nothing(tmp_path, whole, monkeypatch, shift):
    import tqdm.std

    honest, jumps = time.time, iter(range(10**9))
    jumping = lambda: honest() + next(jumps) * shift  # noqa: E731 - an hour at every look
    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(tqdm.std, "time", jumping)
    folder = tmp_path / "fit"
    plain(folder, progress_bar=True, max_hours=0)
    assert saved_step(folder) == 1
    for path in folder.iterdir():
        os.utime(path, (honest() + shift,) * 2)
    plain(folder, progress_bar=True, save_every_s=100, max_hours=1)
    assert_same_run(folder, whole / "fit")
    assert 0 <= checkpoint.read(folder / "last.safetensors")[1]["progress"]["wall_s"] < 600


# What a cluster does.


def command(folder: Path, *flags: str) -> int:
    sizes = ["--hidden", "8", "--delay", "2", "--length", "2", "--sequences", "6400", "--epochs", "1000"]
    quiet = ["--no-progress", "--save-every-s", "1e9", "--device", "cpu", "--resume"]
    return cli.main(["train", "copy", *sizes, *quiet, "--out", str(folder), *flags])


def under_way(folder: Path) -> bool:
    return len(Log(folder / "log.jsonl").read("train")) > 2


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_and_asks_to_be_queued_again(tmp_path, processes):
    folder = tmp_path / "copy"
    body = lambda: command(folder)  # noqa: E731
    process = start(body) if processes == 1 else start(as_torchrun(2, body))
    wait_until(lambda: under_way(folder), 180)
    for pid in [process.pid] if processes == 1 else children(process.pid):
        with contextlib.suppress(ProcessLookupError):  # the first one signalled may have stopped the team by now
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.05)
    assert ended(process) == 143
    stopped = saved_step(folder)
    assert stopped >= Log(folder / "log.jsonl").read("train")[-1]["step"]
    assert command(folder, "--epochs", str(stopped // 100 + 1)) == 0  # goes on to the end of the epoch
    assert saved_step(folder) == (stopped // 100 + 1) * 100


def children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


@pytest.mark.parametrize("who", ["torchrun", "a worker"])
def test_no_process_of_a_team_outlives_the_others(tmp_path, who):
    folder = tmp_path / "copy"
    process = start(as_torchrun(2, lambda: command(folder)))
    wait_until(lambda: under_way(folder), 180)
    workers = children(process.pid)
    assert len(workers) == 2
    os.kill(process.pid if who == "torchrun" else workers[1], signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in workers), 30)
    assert ended(process) != 0
    if who == "torchrun":  # both were told to stop, and saved
        assert saved_step(folder) > 0
    command(folder, "--max-hours", "0")
    assert saved_step(folder) > 0


def test_a_team_on_a_folder_in_use_is_refused_as_one(tmp_path):
    folder = tmp_path / "copy"
    with RunFolder(folder, CONFIG, {}, resume=True):
        process = start(as_torchrun(2, lambda: command(folder)))
        assert ended(process) == 2
    assert not (folder / "log.jsonl").exists()


def test_a_team_that_sees_different_folders_is_refused_as_one(tmp_path):
    """As on nodes that share none: one process finds no state, or a state of the same step that is another."""
    for name in ("none/0", "other/0", "other/1"):
        plain(tmp_path / name, max_hours=0)  # one step; its wall time is its own

    def body() -> int:
        team, rank = Team(torch.device("cpu")), os.environ["RANK"]
        for name in ("none", "other"):
            with pytest.raises(UserError, match="processes see different states of it"):
                plain(tmp_path / name / rank, team=team)
        return 0

    assert ended(start(as_torchrun(2, body))) == 0
    assert saved_step(tmp_path / "none/0") == 1 and not (tmp_path / "none/1/log.jsonl").exists()


def alive(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

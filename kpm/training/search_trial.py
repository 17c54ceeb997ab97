"""One trial of a search: a training in a folder of its own, rung by rung, that a retry takes up where it was left."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch

from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError
from kpm.solvers.checks import NotFinite
from kpm.training.config import TrainConfig
from kpm.training.loop import TrainResult, train
from kpm.training.losses import NonFiniteLoss

Data = tuple[SequenceDataset, SequenceDataset]


_POLL_S = 0.5
_BROKEN_DEVICE = getattr(torch, "AcceleratorError", UserError)  # older torch does not tell it from other errors


class Failed(Exception):
    """A training that these settings cannot be done with."""


class Interrupted(Exception):
    """A signal stopped the training; it is saved, and whoever gets the retry goes on from there."""

    def __init__(self, signal: int):
        super().__init__(f"signal {signal}")
        self.signal = signal


def folder_of(out: Path, place: int) -> Path:
    """Where the trial of a place is trained."""
    return out / "trials" / f"{place:05d}"


def total_steps(config: TrainConfig, sequences: int) -> int:
    """Steps of a whole training on so many sequences, as `train` counts them."""
    return config.steps or config.epochs * (sequences // min(config.batch_size, sequences))


def run(
    config: TrainConfig,
    folder: Path,
    data: Data,
    steps_of_rungs: list[int],
    report: Callable[[int, float], None] = lambda step, value: None,
    stop: Callable[[], bool] = lambda: False,
    device: str = "auto",
    save_every_s: float = 120.0,
    asked: Callable[[], int | None] = lambda: None,
) -> dict[str, Any]:
    """Train in `folder`, or go on there, and give what `kept` says after the last rung.

    Training to one rung and going on to the next gives the last weights of a training without rungs, since a run
    resumes exactly. The best weights may be others, since the held-out loss is looked at after every rung too. After
    each rung but the last the score is reported. A folder that another process trains in is waited for.

    Raises
    ------
    Interrupted
        If a signal came, in a training or, as `asked` tells, before one.
    optuna.TrialPruned
        If `stop` says so after a rung.
    NonFiniteLoss
        If losses or latents are not finite.
    Failed
        If the training raised another error that settings can cause; what a disk raises is raised as it is.
    """
    _fresh_if_nothing_to_resume(folder, asked)
    found: dict[str, Any] = {}
    for steps in steps_of_rungs:
        _end_if(asked)
        try:
            result = train(
                dataclasses.replace(config, steps=steps),
                folder,
                data=data,
                device=device,
                resume=True,
                save_every_s=save_every_s,
                progress_bar=False,
            )
        except NotFinite as error:  # weights that have diverged show first where solvers refuse the latents
            raise NonFiniteLoss(f"within {steps} steps: {error}") from error
        except (UserError, _BROKEN_DEVICE):  # whatever the settings: the next trial would find the same
            raise
        except (RuntimeError, ValueError) as error:  # LinAlgError of NumPy and of torch among them
            raise Failed(" ".join(f"{type(error).__name__}: {error}".split())) from error
        if result.signal:
            raise Interrupted(result.signal)
        found = kept(result, steps)
        if steps != steps_of_rungs[-1]:
            report(steps, found["mse"])
            if stop():
                raise optuna.TrialPruned(f"after {steps} steps")
    return found


def kept(result: TrainResult, steps: int) -> dict[str, Any]:
    """Scores of the weights a run kept within its first `steps` steps: those of the smallest held-out loss."""
    best = min((e for e in result.history if e["step"] <= steps), key=lambda event: event["loss"])
    scores = {name: value for name, value in best.items() if name not in ("kind", "wall_s", "step")}
    return {
        **scores,
        "step": best["step"],
        "steps": steps,
        "train_s": round(result.wall_s, 3),
        "precision": result.precision,
    }


def _end_if(asked: Callable[[], int | None]) -> None:
    if number := asked():
        raise Interrupted(number)


def _fresh_if_nothing_to_resume(folder: Path, asked: Callable[[], int | None]) -> None:
    """A run that died before its first save may have left weights that no run can go on from: it starts anew.

    Nothing is removed while another process trains there, perhaps one that was taken for dead: its end is waited for.
    """
    if not folder.is_dir():
        return
    with (folder / ".lock").open("w") as lock:  # the lock of `RunFolder`
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            _end_if(asked)
            time.sleep(_POLL_S)
        if not (folder / "last.safetensors").is_file():
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != ".lock":
                    path.unlink()


def tidy(folder: Path, keep: bool) -> None:
    """Of a finished trial keep the log and config, and the best weights if asked."""
    for name in ("last.safetensors", "looks.safetensors", *(() if keep else ("best.safetensors",))):
        (folder / name).unlink(missing_ok=True)

"""One trial of a search: a training in a folder of its own, rung by rung, that a retry takes up where it was left."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from kpm.datasets.base import SequenceDataset
from kpm.solvers.checks import NotFinite
from kpm.training.config import TrainConfig
from kpm.training.loop import TrainResult, train
from kpm.training.losses import NonFiniteLoss

Data = tuple[SequenceDataset, SequenceDataset]


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
) -> dict[str, Any]:
    """Train in `folder`, or go on there, and give what `kept` says after the last rung.

    Training to one rung and going on to the next gives the weights of a training without rungs, since a run resumes
    exactly. After each rung but the last the score is reported.

    Raises
    ------
    Interrupted
        If a signal came.
    optuna.TrialPruned
        If `stop` says so after a rung.
    NonFiniteLoss
        If losses or latents are not finite.
    """
    _fresh_if_nothing_to_resume(folder)
    found: dict[str, Any] = {}
    for steps in steps_of_rungs:
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


def _fresh_if_nothing_to_resume(folder: Path) -> None:
    """A run that died before its first save may have left weights that no run can go on from: it starts anew."""
    if folder.is_dir() and not (folder / "last.safetensors").is_file():
        shutil.rmtree(folder)


def tidy(folder: Path, keep: bool) -> None:
    """Of a finished trial keep the log and config, and the best weights if asked."""
    for name in ("last.safetensors", *(() if keep else ("best.safetensors",))):
        (folder / name).unlink(missing_ok=True)

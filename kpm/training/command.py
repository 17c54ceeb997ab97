"""``kpm train``: a run folder from a method and a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from kpm import datasets, paths
from kpm.errors import UserError, pick
from kpm.training.config import METHODS, TrainConfig, preset


def train_command(
    config: Annotated[TrainConfig, tyro.conf.arg(name="")],
    quick: bool = False,
    out: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    max_hours: float | None = None,
    save_every_s: float = 120.0,
    progress: bool = True,
) -> int:
    """Train SKD or SSM-SKD: kpm train METHOD [--dataset NAME] [flags].

    Args:
        config: The run.
        quick: A minute on two cores instead of the paper's setting.
        out: Run folder; runs/METHOD_DATASET by default.
        resume: Go on from the folder's last checkpoint.
        device: auto, cpu or cuda.
        max_hours: Stop and save after so long.
        save_every_s: Seconds between saves.
        progress: Show a progress bar.
    """
    from kpm.training.loop import train  # torch is slow to import: not for --help

    data = tuple(datasets.load(config.dataset, s, config.source) for s in (config.train_split, config.validation_split))
    out = out or paths.runs() / f"{config.method}_{data[0].name}{'_quick' if quick else ''}".replace("-", "_")
    if resume and not (out / "last.safetensors").is_file():
        print(f"nothing to resume in {out.name}: a new run")
    print(f"{config.method} on {data[0].name} ({data[0].source}), {len(data[0])} sequences, into {out}")
    result = train(
        config,
        out,
        data=data,
        device=device,
        resume=resume,
        max_hours=max_hours,
        save_every_s=save_every_s,
        progress_bar=progress,
    )
    state = "finished" if result.finished else "stopped (go on with --resume)"
    best = f", best held-out MSE {result.best['mse']:.3e} at step {result.best['step']}" if result.best else ""
    print(
        f"{state} after {result.steps} steps, {result.wall_s / 60:.1f} minutes of training in {result.precision}{best}"
    )
    # As the shell reports it: what comes after `kpm train ... &&` must not run on half a training.
    return 128 + result.signal if result.signal else 0


def _prepare(argv: list[str]) -> tuple[Callable[..., int], list[str]]:
    """Take the method off `argv`; make the flags' defaults those of the method, the dataset and ``--quick``."""
    if not argv or argv[0].startswith("-"):
        method = "ssm-skd"
        if not {"-h", "--help"} & set(argv):
            raise UserError(f"kpm train needs a method: one of {', '.join(METHODS)}")
    else:
        method = pick("method", argv.pop(0), METHODS)
    dataset = "sprites"
    for i, word in enumerate(argv):
        if word == "--dataset" and i + 1 < len(argv):
            dataset = argv[i + 1]
        elif word.startswith("--dataset="):
            dataset = word.removeprefix("--dataset=")
    default = preset(method, dataset)
    default = default.quick() if "--quick" in argv else default

    def command(
        config: Annotated[TrainConfig, tyro.conf.arg(name="")] = default,
        quick: bool = False,
        out: Path | None = None,
        resume: bool = False,
        device: str = "auto",
        max_hours: float | None = None,
        save_every_s: float = 120.0,
        progress: bool = True,
    ) -> int:
        return train_command(config, quick, out, resume, device, max_hours, save_every_s, progress)

    command.__doc__ = train_command.__doc__
    return command, argv


train_command.prepare = _prepare  # type: ignore[attr-defined]

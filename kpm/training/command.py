"""``kpm train``: a run folder from a method and a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from kpm import datasets, paths
from kpm.errors import UserError, pick
from kpm.signatures import with_defaults
from kpm.training.config import FILMS, TrainConfig, preset
from kpm.training.fit import FitConfig
from kpm.training.judge import JudgeTrainConfig
from kpm.training.tasks import TASKS

# What there is to train, in the order in which it is listed, with a line of help each.
LISTED = {
    "skd": "an autoencoder of films with one Koopman operator for a batch of them",
    "ssm-skd": "the same with one operator for each film",
    "judge": "the classifier of factors that swaps of films are scored with",
    **{name: entry.text for name, entry in TASKS.items()},
}


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

    Returns:
        0, or 128 + the signal's number if a signal ended it: 143 after SIGTERM, with everything saved for --resume.
    """
    from kpm.models.koopman_autoencoder import KoopmanAutoencoder  # torch is slow to import: not for --help
    from kpm.training import checkpoint, hardware
    from kpm.training.loop import train
    from kpm.training.team import Team

    if config.init:
        checkpoint.find(config.init, KoopmanAutoencoder, "init")  # a slip is told before the films are composed
    team = Team(hardware.device(device))
    data = tuple(datasets.load(config.dataset, s, config.source) for s in (config.train_split, config.validation_split))
    out = out or paths.runs() / f"{config.method}_{data[0].name}{'_quick' if quick else ''}".replace("-", "_")
    if resume and not (out / "last.safetensors").is_file():
        team.say(f"nothing to resume in {out.name}: a new run")
    team.say(f"{config.method} on {data[0].name} ({data[0].source}), {len(data[0])} sequences, into {out}")
    result = train(
        config,
        out,
        data=data,
        team=team,
        resume=resume,
        max_hours=max_hours,
        save_every_s=save_every_s,
        progress_bar=progress,
    )
    state = "finished" if result.finished else "stopped (go on with --resume)"
    best = f", best held-out MSE {result.best['mse']:.3e} at step {result.best['step']}" if result.best else ""
    team.say(
        f"{state} after {result.steps} steps, {result.wall_s / 60:.1f} minutes of training in {result.precision}{best}"
    )
    # As the shell reports it: what comes after `kpm train ... &&` must not run on half a training.
    return 128 + result.signal if result.signal else 0


def judge_command(
    config: Annotated[JudgeTrainConfig, tyro.conf.arg(name="")],
    quick: bool = False,
    out: Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> int:
    """Train a judge, the classifier of factors that swaps are scored with: kpm train judge [--dataset NAME] [flags].

    Args:
        config: The run.
        quick: A minute on two cores instead of the shipped judges' setting.
        out: The checkpoint; runs/judge_DATASET.safetensors by default. data/checkpoints/ is where metrics look for it.
        device: auto, cpu or cuda.
        progress: Show a progress bar.
    """
    from kpm.training.judge import train_judge

    data = tuple(datasets.load(config.dataset, s, config.source) for s in (config.train_split, config.validation_split))
    out = out or paths.runs() / f"judge_{data[0].name}{'_quick' if quick else ''}.safetensors"
    print(f"judge of {data[0].name} ({data[0].source}), {len(data[0])} sequences, into {out}")
    found = train_judge(config, out, data=data, device=device, progress_bar=progress)
    for kind, shares in found.items():
        print(f"held-out accuracy by {kind}: " + ", ".join(f"{f} {100 * v:.2f} %" for f, v in shares.items()))
    return 0


def fit_command(
    config: Annotated[FitConfig, tyro.conf.arg(name="")],
    quick: bool = False,
    out: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    max_hours: float | None = None,
    save_every_s: float = 120.0,
    progress: bool = True,
    accumulate: int = 1,
) -> int:
    """Train a network: kpm train NAME [flags].

    Args:
        config: The run.
        quick: A minute on two cores instead of the paper's setting.
        out: Run folder; runs/NAME_DATASET by default (runs/NAME where both are the same).
        resume: Go on from the folder's last checkpoint.
        device: auto, cpu or cuda.
        max_hours: Stop and save after so long.
        save_every_s: Seconds between saves.
        progress: Show a progress bar.
        accumulate: Parts of a batch that are worked on one after the other, to save memory.
    """
    from kpm.training import hardware
    from kpm.training.fit import fit
    from kpm.training.team import Team

    name, entry = next((n, e) for n, e in TASKS.items() if isinstance(config, e.config))
    data = entry.data(config)
    about = data[0].describe()
    known = name if name == about["name"] else f"{name}_{about['name']}"
    out = out or paths.runs() / f"{known}{'_quick' if quick else ''}"
    team = Team(hardware.device(device))
    team.say(f"{name} on {about['name']} ({about['source']}), {about['sequences']} sequences, into {out}")
    task = entry.task(config, *data, team.device)
    result = fit(
        task,
        config,
        out,
        team=team,
        accumulate=accumulate,
        resume=resume,
        max_hours=max_hours,
        save_every_s=save_every_s,
        progress_bar=progress,
        title=name,
    )
    state = "finished" if result.finished else "stopped (go on with --resume)"
    best = ", ".join(f"{k} {v:.4g}" for k, v in result.best.items()) or "none yet"
    team.say(f"{state} after {result.steps} steps, {result.wall_s / 60:.1f} minutes; best on held-out data: {best}")
    return 128 + result.signal if result.signal else 0


def list_methods() -> int:
    """Print what ``kpm train`` can train, a line each."""
    width = max(map(len, LISTED)) + 2
    lines = [f"  {name:<{width}}{text}" for name, text in LISTED.items()]
    print("\n".join(["usage: kpm train METHOD [FLAGS]", "", *lines, "", "kpm train METHOD --help says more."]))
    return 0


def _prepare(argv: list[str]) -> tuple[Callable[..., int], list[str]]:
    """Take the method off `argv`; make the flags' defaults those of the method, the dataset and ``--quick``.

    Without a method, ``--help`` lists them: the flags of one are not those of another.
    """
    if not argv or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):
            return list_methods, []
        raise UserError(f"kpm train needs a method: one of {', '.join(LISTED)}")
    method = pick("method", argv.pop(0), LISTED)
    if any(word.split("=")[0] == "--method" for word in argv):
        raise UserError(f"the method comes first: kpm train {method} ..., without --method")
    dataset = "sprites"
    for i, word in enumerate(argv):
        if word == "--dataset" and i + 1 < len(argv):
            dataset = argv[i + 1]
        elif word.startswith("--dataset="):
            dataset = word.removeprefix("--dataset=")
    if method in TASKS:
        default, function = TASKS[method].config(), fit_command
    elif method == "judge":
        default, function = JudgeTrainConfig(dataset=pick("dataset", dataset, FILMS)), judge_command
    else:
        default, function = preset(method, dataset), train_command
    default = default.quick() if "--quick" in argv else default

    config = Annotated[type(default), tyro.conf.arg(name="")]
    return with_defaults(function, {"config": default}, {"config": config}), argv


train_command.prepare = _prepare  # type: ignore[attr-defined]

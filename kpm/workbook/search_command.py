"""``kpm search``: the thesis's random search of settings, on as many processes and hosts as one likes."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kpm import paths
from kpm.errors import UserError, pick
from kpm.signatures import with_defaults
from kpm.training import search, search_storage, search_trial
from kpm.training.config import METHODS, TrainConfig, command, preset
from kpm.workbook import search_run, search_show
from kpm.workbook.runner_table import duration
from kpm.workbook.search_worker import Job

QUICK_TRIALS, QUICK_STEPS = 8, 30


def search_command(
    config: Annotated[TrainConfig, tyro.conf.arg(name="")],
    trials: int = 200,
    workers: int = 1,
    storage: str = "",
    study: str = "",
    sampler: Literal["random", "tpe"] = "random",
    pruner: Literal["none", "asha"] = "none",
    quick: bool = False,
    out: Path | None = None,
    show: bool = False,
    top: int = 20,
    device: str = "auto",
    grace_s: float = 120.0,
    save_every_s: float = 120.0,
    fixed: Annotated[tuple[str, ...], tyro.conf.Suppress] = (),
) -> int:
    """Search the settings of the thesis (its Table 6) for those with the smallest held-out error of reconstruction:
    kpm search MODEL DATASET [flags].

    Give a searched setting as a flag (--latent-dim 15) and it is fixed. The same command again goes on where the search
    was stopped, and so does the same command on another host with the same --storage.

    Args:
        config: The run.
        trials: Trials of the whole search, over all workers and hosts; more of them later go on with it.
        workers: Processes on this machine, which share its cores.
        storage: Where trials are kept: a journal file, OUT/journal.log by default, or a database for many hosts
            (postgresql://USER@HOST/NAME).
        study: Name of the search in the storage; MODEL_DATASET by default.
        sampler: random, or tpe, which learns from the trials so far.
        pruner: none, or asha: after a ninth and a third of the steps the best third goes on.
        quick: Minutes instead of days: 8 trials of 30 steps.
        out: Folder of the trials; runs/search_STUDY by default.
        show: Only print the table of what the storage holds, and draw importance.png and parallel.png into OUT.
        top: Trials in the table, the best first.
        device: auto, cpu or cuda.
        grace_s: Seconds of silence after which a worker of another host counts as dead.
        save_every_s: Seconds between saves of a trial: what a killed worker can lose.
        fixed: Settings that were given as flags.

    Returns:
        0 if all trials are finished, 1 if not or if one was given up, 128 + the signal's number if interrupted.
    """
    for name, value in (("trials", trials), ("workers", workers), ("top", top)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    for name, value in (("grace-s", grace_s), ("save-every-s", save_every_s)):
        if not value > 0:
            raise UserError(f"{name} must be positive, got {value}")
    study = study or f"{config.method}_{config.dataset}{'_quick' if quick else ''}".replace("-", "_")
    out = (out or paths.runs() / f"search_{study}").expanduser().resolve()
    storage = storage or str(out / "journal.log")
    if show:
        return _show(storage, study, out, top)
    ranges = {name: span for name, span in search.thesis_ranges(config).items() if name not in fixed}
    if not ranges:
        raise UserError("every setting is fixed: there is nothing to search")
    job = Job(
        config=config,
        trials=trials,
        storage=storage,
        study=study,
        folder=out,
        ranges=ranges,
        sampler=sampler,
        pruner=pruner,
        threads=max(1, len(os.sched_getaffinity(0)) // workers) if hasattr(os, "sched_getaffinity") else 1,
        device=device,
        grace_s=grace_s,
        save_every_s=save_every_s,
    )
    where = search_storage.shown(job.storage) if search_storage.is_url(job.storage) else Path(job.storage).name
    print(f"search {study}: {trials} trials, {workers} workers, kept in {where}, trained in {out}", flush=True)
    found = search_run.run(job, workers, display=functools.partial(_print, trials))
    states = [place.state for place in found.places]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    ends = {
        "killed and replaced": found.died,
        "ended by an error of their own": found.errors,
        "ended by a signal": found.ended,
    }
    said = "".join(f"; workers {how}: {number}" for how, number in ends.items() if number)
    print(f"{counts} in {duration(found.wall_s)}{said}")
    if found.best is not None:
        _print_best(found.best, job.config, job.ranges, job.folder)
    if found.signal:
        print("interrupted: the same command goes on")
        return 128 + found.signal
    return int(not found.finished or "given up" in states)


def _show(storage: str, study: str, out: Path, top: int) -> int:
    config, ranges, found = search_run.read(storage, study)
    print("\n".join(search_show.table(found, ranges, top)))
    best = search.best(found)
    if best is not None:
        _print_best(best, config, ranges, out)
        for path in search_show.figures(found, ranges, out):
            print(path)
    return 0


def _print(trials: int, place: search.Place, done: int) -> None:
    print(f"{done}/{trials}  {search_show.line(place)}", flush=True)


def _print_best(place: search.Place, config: TrainConfig, ranges: dict[str, search.Range], out: Path) -> None:
    settings = search.apply(config, ranges, place.last.params)
    steps = place.last.user_attrs["metrics"]["steps"]
    weights = search_trial.folder_of(out, place.number) / "best.safetensors"
    print(f"best: place {place.number}, held-out MSE {place.last.value:.4e}, by")
    print(f"  {command(dataclasses.asdict(settings), steps)}")
    print(f"weights: {weights if weights.is_file() else 'on the host that trained it'}")


def _prepare(argv: list[str]) -> tuple[Callable[..., int], list[str]]:
    """Take model and dataset off `argv`; the flags' defaults are those of the preset, or of the quick search."""
    if not argv or argv[0].startswith("-"):
        if not {"-h", "--help"} & set(argv):
            raise UserError(f"kpm search needs a model, one of {', '.join(METHODS)}, and a dataset")
        method, dataset = "ssm-skd", "sprites"
    else:
        method, dataset = pick("model", argv.pop(0), METHODS), ""
        if argv and not argv[0].startswith("-"):
            dataset = argv.pop(0)
        elif not {"-h", "--help"} & set(argv):
            raise UserError(f"kpm search {method} needs a dataset, for example sprites")
    default = preset(method, dataset or "sprites")
    quick = "--quick" in argv
    if quick:
        default = dataclasses.replace(default.quick(), steps=QUICK_STEPS)
    words = {word.split("=")[0].removeprefix("--").replace("-", "_") for word in argv if word.startswith("--")}
    if taken := words & {"method", "dataset", "fixed"}:
        raise UserError(f"no flag --{sorted(taken)[0]}: model and dataset come first")
    fixed = tuple(n for n, span in search.thesis_ranges(default).items() if words & {n, *span.fields})
    changed = {"config": default, "fixed": fixed} | ({"trials": QUICK_TRIALS} if quick else {})
    return with_defaults(search_command, changed), argv


search_command.prepare = _prepare  # type: ignore[attr-defined]

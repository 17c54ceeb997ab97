"""A worker process of a search: it asks the storage for a trial, trains it, tells what came out, until none is owed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError

from kpm import datasets, environment, files
from kpm.errors import UserError
from kpm.training import search, search_storage, search_trial
from kpm.training.config import TrainConfig
from kpm.training.run_folder import about
from kpm.training.search_trial import Data

_POLL_S = 1.0
_SAVE_S = 60.0  # to save and end, for a worker whose search is gone


def load(config: TrainConfig) -> Data:
    """Training and held-out split of a config's dataset."""
    train, held_out = (
        datasets.load(config.dataset, split, config.source) for split in (config.train_split, config.validation_split)
    )
    return train, held_out


@dataclasses.dataclass(frozen=True)
class Job:
    """What all workers of a search are told.

    `storage` is a URL or the path of a journal file, `folder` where the trials are trained, `data` a function of a
    module that loads the two splits, `threads` those of one worker.
    """

    config: TrainConfig
    trials: int
    storage: str
    study: str
    folder: Path
    ranges: dict[str, search.Range]
    sampler: Literal["random", "tpe"] = "random"
    pruner: Literal["none", "asha"] = "none"
    threads: int = 1
    device: str = "auto"
    grace_s: float = 120.0
    save_every_s: float = 120.0
    data: Callable[[TrainConfig], Data] = load

    def describe(self) -> dict[str, Any]:
        return search.describe(self.config, self.ranges, sampler=self.sampler, pruner=self.pruner)

    def trial_folder(self, place: int) -> Path:
        return search_trial.folder_of(self.folder, place)


# What settings that do not work raise: a result too.
_RESULTS = (ArithmeticError, search_trial.Failed)


class NotOwed(Exception):
    """A trial that counts nothing: one too many, or a second retry of the same one."""


class _Stop:
    """Which signal asked this process to end, if any."""

    signal: int | None = None

    def note(self, number: int, frame: Any) -> None:
        self.signal = number


def work(job: Job, parent: int) -> None:
    """Do trials until none is owed; the target of a process that `parent` has started. Ends with 128 + signal or 1."""
    stop = _Stop()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent then asks for the end
    signal.signal(signal.SIGTERM, stop.note)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(job.threads)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = search_storage.connect(job.storage, job.grace_s)
        study = optuna.load_study(study_name=job.study, storage=storage)
        _work(job, study, storage, stop)
    except UserError as error:
        print(f"worker {os.getpid()}: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    except Exception as error:  # a full disk, a database that is gone: the trial is left to be tried again
        print(f"worker {os.getpid()}: {type(error).__name__}: {error}".splitlines()[0], file=sys.stderr, flush=True)
        sys.exit(1)
    sys.exit(128 + stop.signal if stop.signal else 0)


def _end_with(parent: int) -> None:
    """Save and end when the parent is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SAVE_S)
    os._exit(1)


def _work(job: Job, study: optuna.Study, storage: optuna.storages.BaseStorage, stop: _Stop) -> None:
    data = job.data(job.config)
    steps = search_trial.total_steps(job.config, len(data[0]))
    study.pruner = search.make_pruner(job.pruner, steps)
    study.sampler = search.sampler(job.sampler, job.config.seed, 0)  # Optuna's own is another; a place brings its own
    used = about(*data)
    rungs = search.rungs(steps, job.pruner)
    report = _kept_report(study, job.config.seed)
    me = search_storage.worker()
    done: list[int] = []  # places that were worked at

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("worker", me)
        place = search.place_of(trial.number, study.get_trials(deepcopy=False), job.trials)
        if place is None:
            raise NotOwed
        done.append(place)
        study.sampler = search.sampler(job.sampler, job.config.seed, place)
        with search_storage.beating(trial, storage, job.grace_s):
            return _trial(job, trial, place, data, rungs, report, stop)

    while not stop.signal:
        _check_data(study, used)
        owed = [p for p in search.places(study.get_trials(deepcopy=False), job.trials) if not p.finished]
        if not owed:
            return
        if not any(p.state in ("open", "waiting") for p in owed):
            time.sleep(_POLL_S)  # the rest is with other workers; should one die, its trial comes back
            continue
        try:
            study.optimize(objective, n_trials=1, catch=(NotOwed, *_RESULTS, search_trial.Interrupted))
        except (UpdateFinishedTrialError, ValueError) as error:
            if isinstance(error, ValueError) and not str(error).startswith("Cannot tell"):
                raise
            # Others took this worker for dead and failed its trial: the retry counts, not what was found here.
            print(f"worker {os.getpid()}: overtaken ({error})", file=sys.stderr, flush=True)
        else:
            _tidy(job, study, done[-1] if done else -1)


def _check_data(study: optuna.Study, used: dict[str, Any]) -> None:
    """`UserError` if the trials of a study were trained on other data than here, as where a host has a stand-in."""
    used = json.loads(json.dumps(used))
    kept = study.user_attrs.get("data")
    if kept is None:
        study.set_user_attr("data", used)
    elif kept != used:
        was, now = (", ".join(f"{part} {d}" for part, d in said.items()) for said in (kept, used))
        raise UserError(f"study {study.study_name!r} is searched on other data ({was}) than is found here ({now})")


def _trial(
    job: Job,
    trial: optuna.Trial,
    place: int,
    data: Data,
    rungs: list[int],
    report: tuple[str, dict[str, Any]],
    stop: _Stop,
) -> float:
    config = search.suggest(trial, job.config, job.ranges)
    folder = job.trial_folder(place)
    trial.set_user_attr("seed", config.seed)
    trial.set_user_attr("report", report[0])
    try:
        found = search_trial.run(
            config,
            folder,
            data,
            rungs,
            report=lambda step, value: trial.report(value, step),
            stop=trial.should_prune,
            device=job.device,
            save_every_s=job.save_every_s,
            asked=lambda: stop.signal,
        )
    except search_trial.Interrupted as error:
        stop.signal = error.signal
        trial.set_user_attr("interrupted", str(error))
        raise
    except _RESULTS as error:
        name = "" if isinstance(error, search_trial.Failed) else f"{type(error).__name__}: "
        trial.set_user_attr("error", f"{name}{error}")
        raise
    except UserError as error:  # whoever gets the retry would fail like this worker, which ends: no fault of the trial
        trial.set_user_attr("interrupted", str(error))
        raise UserError(f"place {place}: {error}") from error
    kept = {"place": place, "trial": trial.number, "config": dataclasses.asdict(config), "metrics": found}
    files.write_json(folder / "trial.json", {**kept, "environment": report[1]})
    trial.set_user_attr("metrics", found)
    return found["mse"]


def _tidy(job: Job, study: optuna.Study, place: int) -> None:
    """Of the trial that has just finished and the best of the others, keep the weights of the better one."""
    found = search.places(study.get_trials(deepcopy=False), job.trials)
    if not 0 <= place < len(found) or not found[place].finished:
        return
    top, before = search.best(found), search.best([other for other in found if other.number != place])
    search_trial.tidy(job.trial_folder(place), keep=found[place] is top)
    if before is not None and before is not top:
        search_trial.tidy(job.trial_folder(before.number), keep=False)


def _kept_report(study: optuna.Study, seed: int) -> tuple[str, dict[str, Any]]:
    """The environment report and the short name under which the study keeps it, once for all trials of its kind."""
    said = environment.report({"train": seed}).to_dict()
    name = "report " + hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]
    if name not in study.user_attrs:
        study.set_user_attr(name, said)
    return name, said

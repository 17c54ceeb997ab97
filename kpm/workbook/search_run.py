"""A search on this machine: it starts the workers, takes note of their deaths, and leaves none behind."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import optuna

from kpm.errors import UserError
from kpm.training import search, search_storage, search_trial
from kpm.training.config import TrainConfig
from kpm.training.search import Place
from kpm.training.state import StopOnSignal
from kpm.workbook.search_worker import Job, work

_POLL_S = 0.5
_LONGEST_S = 10.0  # between two looks at the trials, however many there are
_END_S = 90.0  # for workers to save, after they were asked to end

Display = Callable[[Place, int], None]


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search has come to: all places, and a signal that stopped it.

    Of its workers `died` were killed and replaced, `errors` ended by an error of their own, `ended` by a signal that
    was sent to them alone.
    """

    places: tuple[Place, ...]
    wall_s: float
    signal: int | None = None
    died: int = 0
    errors: int = 0
    ended: int = 0

    @property
    def finished(self) -> bool:
        return all(place.finished for place in self.places)

    @property
    def best(self) -> Place | None:
        return search.best(self.places)


def open_study(job: Job) -> tuple[optuna.Study, optuna.storages.BaseStorage]:
    """The study of a search, made if there is none, and its storage.

    Raises
    ------
    UserError
        If the study holds another search, or the folder has trials that it does not know.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = search_storage.connect(job.storage, job.grace_s)
    study = optuna.create_study(study_name=job.study, storage=storage, load_if_exists=True)
    if "search" not in study.user_attrs:
        if any(job.folder.glob("trials/*")):
            raise UserError(f"{job.folder} has trials that study {job.study!r} does not know; choose another --out")
        study.set_user_attr("search", job.describe())
    search.check_same(study.user_attrs["search"], job.describe(), job.study)
    if study.user_attrs.get("trials") != job.trials:
        study.set_user_attr("trials", job.trials)
    return study, storage


def read(storage: str, study: str) -> tuple[TrainConfig, dict[str, search.Range], list[Place]]:
    """Config, ranges and places of the search that a storage holds; `UserError` if it holds none of this name."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if not search_storage.is_url(storage) and not os.path.isfile(storage):
        raise UserError(f"no search in {storage}")
    try:
        found = optuna.load_study(study_name=study, storage=search_storage.connect(storage, grace_s=120.0))
    except KeyError:
        raise UserError(f"no study {study!r} in {search_storage.shown(storage)}") from None
    config, ranges = search.restore(found.user_attrs.get("search", {}))
    return config, ranges, search.places(found.get_trials(deepcopy=False), found.user_attrs.get("trials", 1))


def run(job: Job, workers: int, display: Display = lambda place, done: None) -> Found:
    """Do the trials that a search still owes; `display` gets every place as it is finished, and how many are.

    The first SIGINT or SIGTERM asks the workers to save and end; what they were at goes back to the queue. A worker
    that is killed is replaced and its trial tried again; one that ends with an error of its own, or by a signal that it
    was sent alone, is not replaced.
    """
    began = time.monotonic()
    study, storage = open_study(job)
    watch = search_storage.Watch(storage, job.grace_s)
    context = multiprocessing.get_context("spawn")  # forked processes would share the locks of torch's threads
    died = errors = ended = 0

    def start() -> Any:
        process = context.Process(target=work, args=(job, os.getpid()))
        process.start()
        return process

    def look() -> list[Place]:
        if isinstance(storage, optuna.storages.RDBStorage):
            search_storage.fail_silent(study)
        search.repair(study, job.trials, watch.dead)
        found = search.places(study.get_trials(deepcopy=False), job.trials)
        for place in found:
            if place.finished and place.number not in shown:
                shown.add(place.number)
                display(place, len(shown))
        return found

    found = search.places(study.get_trials(deepcopy=False), job.trials)
    shown = {place.number for place in found if place.finished}
    with StopOnSignal() as stop:
        team = [start() for _ in range(min(workers, job.trials - len(shown)))]
        try:
            pause = _POLL_S
            while team and not stop.asked:
                _sleep(pause, stop)
                looked = time.monotonic()
                found = look()
                # Of many trials, a tenth of the time at most.
                pause = min(_LONGEST_S, max(_POLL_S, 9 * (time.monotonic() - looked)))
                for process in [p for p in team if not p.is_alive()]:
                    team.remove(process)
                    died += process.exitcode < 0
                    by_signal = not stop.asked and process.exitcode > 128
                    ended += by_signal
                    errors += process.exitcode > 0 and not by_signal
                    if process.exitcode < 0 and not all(place.finished for place in found):
                        team.append(start())
        finally:
            _end(team)
            found = look()
    if all(place.finished for place in found):
        top = search.best(found)
        for place in found:
            search_trial.tidy(job.trial_folder(place.number), keep=place is top)
    return Found(tuple(found), time.monotonic() - began, stop.asked, died, errors, ended)


def _sleep(seconds: float, stop: StopOnSignal) -> None:
    """Sleep, but not on when the search was asked to stop."""
    until = time.monotonic() + seconds
    while not stop.asked and (left := until - time.monotonic()) > 0:
        time.sleep(min(_POLL_S, left))


def _end(team: list[Any]) -> None:
    """Ask the workers to save and end, and end those that do not."""
    for process in team:
        process.terminate()
    until = time.monotonic() + _END_S
    for process in team:
        process.join(max(0.0, until - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()

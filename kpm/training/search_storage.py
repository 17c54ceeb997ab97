"""Where the trials of a search are kept, and how one knows that a worker is dead.

A journal file serves the processes that see one folder; a database serves many hosts. A worker of this machine is dead
when its process is gone, at once. One of another machine is dead when it has been silent for `grace_s`: in a database
that is Optuna's heartbeat, by the server's clock; in a journal, workers count beats, and whoever watches measures the
silence with its own stopwatch, so clocks need not agree.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial

from kpm.errors import UserError

_LOCK_S = 30  # Optuna's: a lock of the journal older than this is of a dead process
_TRIES = 5  # to open a database: of several hosts that make its tables at once, one succeeds


def is_url(storage: str) -> bool:
    return "://" in storage


def shown(storage: str) -> str:
    """A storage as it may be printed: without the password, and without the query, which may hold one too."""
    scheme, mark, rest = storage.partition("://")
    if not mark:
        return storage
    login = re.match(r"([^:/?@]*)(:[^@]*)?@", rest)  # as SQLAlchemy reads it
    host = rest[login.end() :] if login else rest
    user = f"{login[1]}@" if login else ""
    return f"{scheme}{mark}{user}{host.partition('?')[0].rpartition('@')[2]}"


def connect(storage: str, grace_s: float) -> optuna.storages.BaseStorage:
    """The storage of a URL or of a journal file.

    Raises
    ------
    UserError
        For a database that does not answer or has no driver here, and a journal that is damaged.
    """
    if not is_url(storage):
        path = Path(storage)
        path.parent.mkdir(parents=True, exist_ok=True)
        mend(path)
        return optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    from sqlalchemy.exc import OperationalError

    for left in reversed(range(_TRIES)):
        try:
            return _database(storage, grace_s)
        except ImportError as error:
            raise UserError(f"storage {shown(storage)}: no driver ({error}); pip install 'kpm[postgresql]'") from None
        except Exception as error:  # SQLAlchemy's, psycopg's and the driver's own
            nobody_answers = isinstance(error, OperationalError) and "sqlite" not in storage
            if nobody_answers or not left:
                said = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UserError(f"storage {shown(storage)}: {said}") from None
            time.sleep(random.uniform(0.05, 0.4))
    raise AssertionError


def _database(storage: str, grace_s: float) -> _Database:
    url = storage.replace("postgresql://", "postgresql+psycopg://", 1)  # the driver of kpm[postgresql]
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _Database(
            url,
            engine_kwargs=options,
            heartbeat_interval=max(1, round(grace_s / 4)),
            grace_period=max(2, round(grace_s)),
        )


class _Database(optuna.storages.RDBStorage):
    """A silent trial is not stale while its worker is alive on this machine: it may have been stopped for a while."""

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        stale = super()._get_stale_trial_ids(study_id)  # what Optuna itself asks too, before every trial
        return [number for number in stale if not _works_here(self.get_trial(number))]


def mend(path: Path) -> bool:
    """Cut off what a full disk left of a last line of a journal, which nobody was told is kept; whether it was so.

    Raises
    ------
    UserError
        Naming the first line that is not JSON: a journal that was damaged otherwise is not read on.
    """
    if not path.is_file():
        return False
    lock = JournalFileSymlinkLock(str(path), grace_period=_LOCK_S)
    lock.acquire()
    try:
        text = path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if not isinstance(entry, dict) or "op_code" not in entry:
                raise UserError(f"journal {path.name}: line {number} is damaged; restore the file or name another one")
        if whole != text:
            os.truncate(path, len(whole))
        return whole != text
    finally:
        lock.release()


def machine() -> str:
    """This machine, as long as it is up; containers count as machines of their own."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    up = boot.read_text().strip() if boot.is_file() else f"{psutil.boot_time():.0f}"
    inside = os.readlink(space) if space.is_symlink() else ""
    return f"{os.uname().nodename} {up} {inside}"


def worker() -> dict[str, Any]:
    """What a trial notes of the process that works at it."""
    return {"machine": machine(), "pid": os.getpid(), "started": started(os.getpid())}


def started(pid: int) -> float | None:
    """When a process began, in ticks since the machine came up (no clock can change that); None if it is gone."""
    try:
        if Path("/proc/self/stat").is_file():
            return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return psutil.Process(pid).create_time()
    except (OSError, psutil.Error):
        return None


class Watch:
    """Tells which running trials have lost their worker; one object must see them again and again."""

    def __init__(self, storage: optuna.storages.BaseStorage, grace_s: float):
        self._database = isinstance(storage, optuna.storages.RDBStorage)
        self._grace_s = grace_s
        self._machine = machine()
        self._seen: dict[int, tuple[Any, float]] = {}

    def dead(self, trial: FrozenTrial) -> bool:
        who = trial.user_attrs.get("worker")
        if who and who["machine"] == self._machine:
            return not _alive(who["pid"], who["started"])
        if who and self._database:
            return False  # its heartbeat decides, see `fail_silent`
        beat, now = trial.user_attrs.get("beat"), time.monotonic()
        last, since = self._seen.setdefault(trial.number, (beat, now))
        if last != beat:
            self._seen[trial.number] = (beat, now)
        return last == beat and now - since > self._grace_s


def _works_here(trial: FrozenTrial) -> bool:
    who = trial.user_attrs.get("worker")
    return bool(who) and who["machine"] == machine() and _alive(who["pid"], who["started"])


def fail_silent(study: optuna.Study) -> None:
    """Fail the trials in a database whose heartbeat has stopped, but those of workers alive on this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def _alive(pid: int, began: float) -> bool:
    try:
        return started(pid) == began and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@contextlib.contextmanager
def beating(trial: optuna.Trial, storage: optuna.storages.BaseStorage, grace_s: float) -> Iterator[None]:
    """Within the block, a trial in a journal counts a beat four times per `grace_s`; a database has its own."""
    if isinstance(storage, optuna.storages.RDBStorage):
        yield
        return
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(grace_s / 4):
            count += 1
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError, OSError):
                trial.set_user_attr("beat", count)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()

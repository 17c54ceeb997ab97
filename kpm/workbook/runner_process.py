"""One worker process per notebook: starting it, watching it, and leaving nothing of it behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from kpm import files
from kpm.workbook.runner_plan import Task

_LOG_TAIL = 4000


@dataclass(frozen=True)
class Outcome:
    """How a worker ended. `kind` is succeeded, cell (a cell failed), start (no kernel came up) or crash."""

    kind: str
    reason: str = ""
    error: str = ""
    wall_s: float | None = None


class ProcessTree:
    """A process and all that came from it, remembered even when a parent in between has died.

    Kernels open a session of their own, so the sessions seen in the tree find what `psutil` no longer sees as a
    descendant.
    """

    def __init__(self, pid: int):
        self.root = psutil.Process(pid)
        self._members: dict[int, psutil.Process] = {}
        self._sessions: set[int] = set()

    def sample(self) -> int:
        """Look at the tree again; the sum of its resident memory in bytes."""
        try:
            found = [self.root, *self.root.children(recursive=True)]
        except psutil.NoSuchProcess:
            found = []
        self._members = {pid: p for pid, p in self._members.items() if p.is_running()}
        self._members.update((p.pid, p) for p in found)
        if found:  # a session that has ended is forgotten: its number may come back for somebody else
            self._sessions = {_session(p.pid) for p in found} - {None, os.getsid(0)}
        return sum(_resident(p) for p in found)

    def kill(self, grace_s: float = 1.0, root_too: bool = True) -> None:
        """Ask every process of the tree to end, then end it."""
        self.sample()
        spared = set() if root_too else {self.root.pid}
        rest = [p for p in self._alive() if p.pid not in spared]
        for process in rest:
            _send(process, signal.SIGTERM)
        psutil.wait_procs(rest, timeout=grace_s)
        for _ in range(10):  # again, for what was forked in the meantime
            rest = [p for p in self._alive() if p.pid not in spared]
            if not rest:
                return
            for process in rest:
                _send(process, signal.SIGKILL)
            psutil.wait_procs(rest, timeout=0.5)

    def _alive(self) -> list[psutil.Process]:
        for process in list(self._members.values()):
            try:
                self._members.update((p.pid, p) for p in process.children(recursive=True))
            except psutil.Error:
                continue
        for pid in psutil.pids() if self._sessions else ():
            if pid not in self._members and _session(pid) in self._sessions:
                try:
                    self._members[pid] = psutil.Process(pid)
                except psutil.Error:
                    continue
        return [p for p in self._members.values() if _is_alive(p)]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _send(process: psutil.Process, sign: int) -> None:
    try:
        process.send_signal(sign)
    except psutil.Error:
        return  # already gone


class Job:
    """A running notebook. The worker reports through small files in a private temporary folder."""

    def __init__(self, task: Task, out: Path, threads: int, timeout_s: float | None):
        self.folder = out / task.notebook.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        self.timeout_s = timeout_s
        self.peak_bytes = 0
        # The kernel's sockets live here too, and a socket's path must be short: not below `out`.
        self._private = Path(tempfile.mkdtemp(prefix="kpm-"))
        self._log = self.folder / "log.txt"
        spec = {
            "parent": os.getpid(),
            "source": str(task.notebook.path),
            "target": str(self.folder / f"{task.notebook.name}.ipynb"),
            "page": str(self.folder / f"{task.notebook.name}.html"),
            "parameters": dict(task.parameters),
        }
        files.write_json(self._private / "spec.json", spec)
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kpm.workbook.runner_worker", str(self._private)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(threads),
                start_new_session=True,  # Ctrl-C reaches the runner alone, which then ends the tree
            )
        self._tree = ProcessTree(self._process.pid)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def progress(self) -> dict[str, int]:
        """Code cells done and in all, as far as the worker has said."""
        return _read(self._private / "progress.json") or {}

    def poll(self) -> Outcome | None:
        """Sample the memory; the outcome once the worker has ended or its time is over."""
        self.peak_bytes = max(self.peak_bytes, self._tree.sample())
        code = self._process.poll()
        if code is None and self.timeout_s is not None and self.elapsed_s > self.timeout_s:
            done = self.progress().get("cells_done", 0)
            return Outcome("crash", f"stopped after {self.timeout_s:g} s, in code cell {done + 1}")
        if code is None:
            return None
        if said := _read(self._private / "outcome.json"):
            return Outcome(**said)
        ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Outcome("crash", f"the worker process ended with {ended}", self._tail())

    def close(self) -> None:
        """End whatever is left of the worker and its kernel, and remove the temporary folder."""
        self._tree.kill()
        self._process.wait()
        shutil.rmtree(self._private, ignore_errors=True)

    def _tail(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:].strip()


def environment(threads: int) -> dict[str, str]:
    """The environment of a worker: the user's, with the cores shared out between the jobs unless they chose."""
    return {"OMP_NUM_THREADS": str(threads), "PYDEVD_DISABLE_FILE_VALIDATION": "1", **os.environ}


def report(private: Path, name: str, values: Mapping[str, Any] | Outcome) -> None:
    """Called by the worker: leave `values` for the runner, whole or not at all."""
    values = asdict(values) if isinstance(values, Outcome) else dict(values)
    part = private / f"{name}.part"
    part.write_text(json.dumps(values), encoding="utf-8")
    os.replace(part, private / f"{name}.json")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None

"""Run notebooks: papermill in one process each, in the order they need each other, with an index of what came out."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from kpm import files, paths
from kpm.errors import UserError
from kpm.workbook import index, notebooks, runner_plan
from kpm.workbook.runner_plan import NotebookRun, Task
from kpm.workbook.runner_process import Job, Outcome
from kpm.workbook.runner_table import Table, duration

Profile = Literal["quick", "paper"]
Display = Callable[[Sequence[NotebookRun]], None]

ATTEMPTS = 3  # the first and two more, only if no kernel came up
_STAGGER_S = 0.3  # between two starts: many kernels importing at once slow each other down
_POLL_S = 0.2
_GOOD = ("succeeded", "unchanged")


@dataclass(frozen=True)
class RunSummary:
    """A run of notebooks, also written to ``summary.json`` in `out`.

    `wall_s` is in seconds; `threads` is what each notebook got unless ``OMP_NUM_THREADS`` was set; `signal` is the
    number of the signal that interrupted the run.
    """

    profile: str
    parameters: Mapping[str, Any]
    jobs: int
    threads: int
    out: Path
    started: str
    wall_s: float
    notebooks: tuple[NotebookRun, ...]
    signal: int | None = None

    @property
    def ok(self) -> bool:
        return self.signal is None and all(run.state in _GOOD for run in self.notebooks)

    @property
    def exit_code(self) -> int:
        return 128 + self.signal if self.signal else int(not self.ok)

    def __getitem__(self, name: str) -> NotebookRun:
        return next(run for run in self.notebooks if run.name == name)

    def as_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        runs = [runner_plan.as_json(run) for run in self.notebooks]
        return values | {"parameters": dict(self.parameters), "out": str(self.out), "ok": self.ok, "notebooks": runs}


def run(
    notebooks: Sequence[str] = (),
    profile: Profile = "quick",
    parameters: Mapping[str, Any] | None = None,
    jobs: int = 1,
    out: Path | None = None,
    resume: bool = False,
    timeout_s: float | None = None,
) -> RunSummary:
    """Execute notebooks, `jobs` at a time, and write what came out below `out`.

    Parameters
    ----------
    notebooks
        Stems (``03_ssm_skd``), numbers (``03``) or paths; none for all of the workbook.
    profile, parameters
        Injected into each notebook, with ``out_dir``; a notebook gets those of `parameters` that it declares.
    jobs
        Notebooks at the same time; they share the cores.
    out
        Output folder, default ``out`` in `kpm.paths.root`: one folder per notebook, ``summary.json``, ``index.html``.
    resume
        Keep what succeeded before with the same parameters, cells, package code and needed notebooks.
    timeout_s
        Seconds that one notebook may take; then it is stopped and counts as failed.

    A failing notebook does not stop the others; those that need it are skipped. Nothing is printed.

    Raises
    ------
    UserError
        Before anything runs: an unknown notebook, parameter or need, a circle of needs, a value of another type than
        the parameter has, another run in `out`.
    KeyboardInterrupt, SystemExit
        On Ctrl-C, on SIGTERM or SIGHUP; no process is left and the summary is written.
    """
    summary = _run(notebooks, profile, parameters or {}, jobs, out, resume, timeout_s, display=lambda runs: None)
    if summary.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if summary.signal:
        raise SystemExit(summary.exit_code)
    return summary


def run_command(
    notebooks: tyro.conf.Positional[tuple[str, ...]] = (),
    profile: Profile = "quick",
    parameter: Annotated[
        tyro.conf.UseAppendAction[tuple[tuple[str, str], ...]], tyro.conf.arg(aliases=["-p"], metavar="NAME VALUE")
    ] = (),
    jobs: int = 1,
    out: Path | None = None,
    resume: bool = False,
    timeout: float | None = None,
) -> int:
    """Execute notebooks and write an index of what came out.

    Args:
        notebooks: Names (03_ssm_skd), numbers (03) or paths, before the options; none for all.
        profile: quick takes minutes on two cores; paper is the full experiment.
        parameter: Set a parameter of the notebooks that declare it, to a value of its type; may be repeated.
        jobs: Notebooks to run at the same time; they share the cores.
        out: Output folder (default: out in the workbook's folder).
        resume: Keep what succeeded before with the same parameters and code.
        timeout: Seconds that one notebook may take.

    Returns:
        0 if all notebooks succeeded, 1 if not, 128 + the signal's number if interrupted.
    """
    parameters = runner_plan.parse_values(dict(parameter), notebooks)
    summary = _run(notebooks, profile, parameters, jobs, out, resume, timeout, display=Table(sys.stdout))
    for done in summary.notebooks:
        if done.state == "failed":
            print(f"\n{done.name} failed: {done.reason}\n{done.error}".rstrip())
    states = [done.state for done in summary.notebooks]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"\n{counts} in {duration(summary.wall_s)}: {summary.out / 'index.html'}")
    return summary.exit_code


def _run(
    names: Sequence[str],
    profile: str,
    parameters: Mapping[str, Any],
    jobs: int,
    out: Path | None,
    resume: bool,
    timeout_s: float | None,
    display: Display,
) -> RunSummary:
    if jobs < 1:
        raise UserError(f"jobs must be at least 1, got {jobs}")
    if timeout_s is not None and not timeout_s > 0:
        raise UserError(f"timeout must be positive, got {timeout_s}")
    out = (paths.root() / "out" if out is None else Path(out).expanduser()).resolve()
    tasks = runner_plan.plan(notebooks.select(names), profile, parameters, out)
    kept = {t.notebook.name: last for t in tasks if resume and (last := runner_plan.unchanged(t, out))}
    threads = max(1, _cores() // min(jobs, max(1, len(tasks) - len(kept))))
    started, begin = _now(), time.monotonic()
    with only_run(out), _stop_signals() as stop:
        scheduler = Scheduler(tasks, kept, profile, jobs, threads, out, timeout_s)
        scheduler.execute(stop, display)
        runs = tuple(scheduler.runs.values())
        wall_s = time.monotonic() - begin
        summary = RunSummary(profile, dict(parameters), jobs, threads, out, started, wall_s, runs, stop.signal)
        files.write_json(out / "summary.json", summary.as_json())
        index.write_index(out, runs)
    return summary


class Scheduler:
    """Which notebook runs when. `runs` holds the present state of each, in reading order."""

    def __init__(
        self,
        tasks: Sequence[Task],
        kept: Mapping[str, NotebookRun],
        profile: str,
        jobs: int,
        threads: int,
        out: Path,
        timeout_s: float | None,
    ):
        self.tasks = {task.notebook.name: task for task in tasks}
        self.runs = {name: _first_state(task, kept.get(name), profile) for name, task in self.tasks.items()}
        self.slots, self.threads, self.out, self.timeout_s = jobs, threads, out, timeout_s
        self.jobs: dict[str, Job] = {}
        self._next_start = 0.0
        self._not_before: dict[str, float] = {}

    def execute(self, stop: _Stop, display: Display) -> None:
        """Run everything; whatever ends this early ends all jobs too."""
        try:
            while stop.signal is None and any(run.state in ("waiting", "running") for run in self.runs.values()):
                self._skip()
                self._start()
                self._collect()
                display(list(self.runs.values()))
                time.sleep(_POLL_S)
        finally:
            for name, job in self.jobs.items():
                job.close()
                self._settle(name, "interrupted", job)
            for name, run in self.runs.items():
                if run.state == "waiting":
                    self.runs[name] = replace(run, state="interrupted", reason=run.reason or "not started")
                    if run.attempts:  # one never started has touched nothing: its last status stays on disk
                        self._record(name)
            display(list(self.runs.values()))

    def _skip(self) -> None:
        for name, task in self.tasks.items():
            lost = [need for need in task.needs if self.runs[need].state in ("failed", "skipped")]
            if self.runs[name].state == "waiting" and lost:
                reason = f"needs {lost[0]}, which {'failed' if self.runs[lost[0]].state == 'failed' else 'was skipped'}"
                self.runs[name] = replace(self.runs[name], state="skipped", reason=reason)

    def _start(self) -> None:
        now = time.monotonic()
        for name, task in self.tasks.items():
            if len(self.jobs) >= self.slots or now < self._next_start:
                return
            ready = all(self.runs[need].state in _GOOD for need in task.needs)
            if self.runs[name].state != "waiting" or not ready or now < self._not_before.get(name, 0.0):
                continue
            run = self.runs[name]
            self.runs[name] = replace(
                run, state="running", reason="", started=run.started or _now(), attempts=run.attempts + 1
            )
            # On disk first: a killed run must not leave an earlier success behind as if it were this one's.
            self._record(name)
            self.jobs[name] = Job(task, self.out, self.threads, self.timeout_s)
            self._next_start = now + _STAGGER_S

    def _collect(self) -> None:
        for name, job in list(self.jobs.items()):
            outcome = job.poll()
            self.runs[name] = _measured(self.runs[name], job)
            if outcome is None:
                continue
            job.close()
            del self.jobs[name]
            attempts = self.runs[name].attempts
            if outcome.kind == "start" and attempts < ATTEMPTS:
                self._not_before[name] = time.monotonic() + attempts
                again = f"the kernel did not start (attempt {attempts} of {ATTEMPTS}): {outcome.reason}"
                self.runs[name] = replace(self.runs[name], state="waiting", reason=again)
            else:
                self._settle(name, "succeeded" if outcome.kind == "succeeded" else "failed", job, outcome)

    def _settle(self, name: str, state: str, job: Job, outcome: Outcome | None = None) -> None:
        run = _measured(self.runs[name], job)
        if outcome is not None:
            wall_s = run.wall_s if outcome.wall_s is None else outcome.wall_s
            run = replace(run, reason=outcome.reason, error=outcome.error, wall_s=wall_s)
        executed = outcome is not None and outcome.kind in ("succeeded", "cell")
        self.runs[name] = replace(
            run,
            state=state,
            notebook=f"{name}/{name}.ipynb" if executed else None,
            page=f"{name}/{name}.html" if executed else None,
            figures=tuple(p.relative_to(self.out).as_posix() for p in index.figures(self.out / name)),
        )
        self._record(name)

    def _record(self, name: str) -> None:
        files.write_json(self.out / name / "status.json", runner_plan.as_json(self.runs[name]))


def _first_state(task: Task, kept: NotebookRun | None, profile: str) -> NotebookRun:
    if kept is not None:
        return replace(kept, state="unchanged")
    minutes = task.notebook.minutes.get(profile)
    expected_s = None if minutes is None else 60.0 * minutes
    source, parameters = str(task.notebook.path), dict(task.parameters)
    return NotebookRun(task.notebook.name, source, profile, parameters, task.fingerprint, expected_s=expected_s)


def _measured(run: NotebookRun, job: Job) -> NotebookRun:
    said = job.progress()  # empty until the worker has a kernel, and after its folder is gone
    return replace(
        run,
        wall_s=job.elapsed_s,
        peak_bytes=max(run.peak_bytes, job.peak_bytes),
        cells=said.get("cells", run.cells),
        cells_done=said.get("cells_done", run.cells_done),
    )


class _Stop:
    """Which signal asked the run to stop, if any."""

    signal: int | None = None


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Turn SIGINT, SIGTERM and SIGHUP into a flag, so that no signal can cut the cleaning up short."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may set handlers; there, whoever owns them ends the run
        return

    def note(number: int, frame: Any) -> None:
        stop.signal = number

    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if number != signal.SIGHUP or handler != signal.SIG_IGN:  # nohup keeps its meaning
            signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Hold ``out/.lock``; the system drops it with the process, however that ends."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is writing to {out}; wait for it or choose another --out") from None
        yield


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")

"""``kpm sweep``: a notebook over a grid of parameters, on a Dask cluster."""

from __future__ import annotations

import collections
import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

from kpm import paths
from kpm.errors import UserError
from kpm.workbook import notebooks, runner, sweep, sweep_notebook
from kpm.workbook.runner_table import duration


def sweep_command(
    notebook: tyro.conf.Positional[str],
    grid: Path,
    profile: runner.Profile = "quick",
    workers: int = 1,
    scheduler: str = "",
    out: Path | None = None,
    timeout: float | None = None,
    figures: bool = True,
) -> int:
    """Run a notebook with every combination of a grid of parameters, and gather the results in one table.

    The same command again goes on where it was stopped: what succeeded with the same parameters and code is kept.

    Args:
        notebook: Name (01_koopman_and_dmd), number (01) or path.
        grid: YAML file: parameters and lists of values, whose product is taken; a list of such maps is their union.
        profile: quick or paper, for all runs.
        workers: Processes on this machine, each running one notebook at a time, with one thread unless
            OMP_NUM_THREADS says otherwise.
        scheduler: Address of a running Dask scheduler (tcp://HOST:PORT) whose workers run the notebooks instead; they
            must see the same files and have the same packages.
        out: Output folder; out/sweep_NOTEBOOK by default.
        timeout: Seconds that one run may take; then it is stopped and counts as failed.
        figures: Write and execute the notebook of figures, NOTEBOOK_sweep.ipynb.

    Returns:
        0 if all runs succeeded, 1 if not, 128 + the signal's number if interrupted.
    """
    if timeout is not None and not timeout > 0:
        raise UserError(f"timeout must be positive, got {timeout}")
    if workers < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    points = sweep.read_grid(grid)
    name = notebooks.find(notebook).stem
    out = (out or paths.root() / "out" / f"sweep_{name}").expanduser().resolve()
    todo = sweep.cells(notebook, points, profile, out, timeout)
    began, code = time.monotonic(), 0
    with runner.only_run(out):
        try:
            with _ended_by_sigterm():
                for done, (cell, run) in enumerate(sweep.run(todo, workers, scheduler), 1):
                    print(f"{done}/{len(todo)}  {_line(cell, run)}", flush=True)
        except (KeyboardInterrupt, SystemExit) as error:
            code = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else int(error.code or 1)
        found = sweep.table(todo)
        written = sweep.save(found, out)
        counts = collections.Counter(found.state)
        if figures and not code and counts["succeeded"]:
            made = sweep_notebook.write(out, name, list(todo[0].parameters))
            print(f"{made.name}.ipynb: {made.state} {made.reason}")
            code = int(made.state != "succeeded")
    print(f"{', '.join(f'{n} {state}' for state, n in counts.items())} in {duration(time.monotonic() - began)}")
    print(f"{', '.join(path.name for path in written)} in {out}")
    return code or int(counts["succeeded"] < len(todo))


def _line(cell: sweep.Cell, run: Any) -> str:
    at = " ".join(f"{name}={value}" for name, value in cell.parameters.items())
    return "  ".join(filter(None, (run.state, duration(run.wall_s), at, run.reason)))


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM, as a cluster sends it, ends the block like Ctrl-C does: workers and their kernels end with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""The process that executes one notebook: ``python -m kpm.workbook.runner_worker FOLDER``.

It reads ``FOLDER/spec.json`` (see `kpm.workbook.runner_process.Job`), executes the notebook with papermill and leaves
``progress.json`` and ``outcome.json`` there. If the runner that started it is gone, it ends its kernel and itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError, strip_color
from traitlets.config import Config

from kpm import files
from kpm.workbook import index
from kpm.workbook.runner_process import Outcome, ProcessTree, report

_SOCKET_PATH = 90  # characters; the system's limit is 104 on macOS, 108 on Linux
_START_S = 120


class _KernelManager(AsyncKernelManager):
    """Knows one kernel, ``python3``: this interpreter, whatever kernels are installed elsewhere."""

    wanted = False  # set once papermill has read the notebook and asks for its kernel

    def __init__(self, **options: Any):
        _KernelManager.wanted = True
        super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **options)


class _Progress:
    """nbclient's hooks, turned into ``progress.json``."""

    def __init__(self, private: Path):
        self.private = private
        self.kernel_ready = False
        self.cells = self.started = 0

    def on_notebook_start(self, notebook: Any) -> None:
        self.kernel_ready = True
        self.cells = sum(c.cell_type == "code" and bool(c.source.strip()) for c in notebook.cells)
        self._say(0)

    def on_cell_execute(self, cell: Any, cell_index: int) -> None:
        self.started += 1
        self._say(self.started - 1)

    def finished(self) -> None:
        self._say(self.cells)

    def _say(self, done: int) -> None:
        report(self.private, "progress", {"cells": self.cells, "cells_done": done})


def watch(parent: int, private: Path, every_s: float = 0.2) -> None:
    """Poll the parent's pid, which changes when it dies (even by ``kill -9``), and then leave nothing running."""
    while os.getppid() == parent:
        time.sleep(every_s)
    with contextlib.suppress(Exception):
        ProcessTree(os.getpid()).kill(grace_s=0.2, root_too=False)
    shutil.rmtree(private, ignore_errors=True)
    os._exit(1)


def execute(spec: dict[str, Any], private: Path) -> Outcome:
    """Execute the notebook of `spec`; on success and on a failing cell it is put at its final name in one step."""
    source, target = Path(spec["source"]), Path(spec["target"])
    partial = target.with_name(f"{target.stem}.partial.ipynb")
    progress = _Progress(private)
    begin = time.monotonic()
    try:
        papermill.execute_notebook(
            _braces(source),
            _braces(partial),
            parameters=spec["parameters"],
            kernel_name="python3",
            language="python",
            progress_bar=False,
            start_timeout=_START_S,
            cwd=source.parent,
            iopub_timeout=60,  # nbclient's 4 s are too few on a busy machine
            kernel_manager_class=_KernelManager,
            config=Config(AsyncKernelManager=_connection(private)),
            on_notebook_start=progress.on_notebook_start,
            on_cell_execute=progress.on_cell_execute,
        )
        progress.finished()
        outcome = Outcome("succeeded")
    except PapermillExecutionError as error:
        reason = f"{error.ename}: {strip_color(str(error.evalue)).strip()}".splitlines()[0]
        where = f"cell {error.cell_index} (In [{error.exec_count}])"
        outcome = Outcome("cell", f"{where}: {reason}", strip_color("\n".join(error.traceback)))
    except DeadKernelError:
        reason = f"the kernel died in code cell {progress.started} (out of memory?)"
        outcome = Outcome("crash", reason, traceback.format_exc())
    except Exception as error:
        kind = "start" if _KernelManager.wanted and not progress.kernel_ready else "crash"
        outcome = Outcome(kind, f"{type(error).__name__}: {error}".splitlines()[0], traceback.format_exc())
    wall_s = time.monotonic() - begin
    if outcome.kind in ("succeeded", "cell"):
        with files.atomic(target) as part:
            shutil.copyfile(partial, part)
        partial.unlink()
        index.notebook_page(target, Path(spec["page"]), source.parent)
    return Outcome(outcome.kind, outcome.reason, outcome.error, wall_s)


def _connection(private: Path) -> Config:
    """Sockets in the private folder: no ports, so many kernels starting at once cannot take each other's.

    See papermill's issue 511. A temporary folder with a long path leaves only TCP.
    """
    file = private / "kernel.json"
    transport = "ipc" if len(str(file)) < _SOCKET_PATH else "tcp"
    return Config(connection_file=str(file), transport=transport)


def _braces(path: Path) -> str:
    """papermill reads braces in a path as fields to fill in."""
    return str(path).replace("{", "{{").replace("}", "}}")


def main(private: Path) -> None:
    spec = json.loads((private / "spec.json").read_text(encoding="utf-8"))
    watcher = threading.Thread(target=watch, args=(spec["parent"], private), daemon=True)
    watcher.start()
    try:
        outcome = execute(spec, private)
        if os.getppid() == spec["parent"]:
            report(private, "outcome", outcome)
    finally:
        if os.getppid() != spec["parent"]:
            # The notebook may have ended because the watcher is killing its kernel: it must not die with this thread
            # before it has removed the folder. It ends the process itself.
            watcher.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

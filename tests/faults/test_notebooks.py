"""Runs of notebooks whose kernel is killed, or whose output finds no room."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
import uuid
from pathlib import Path

import pytest

from kpm.workbook import runner
from tests.processes import ended, start
from tests.workbook.test_runner import survivors, wait_until, write

# The kernel says who it is, starts a process in a session of its own, and waits to be killed.
WAITS = """
import os, pathlib, subprocess, sys, time
if not pathlib.Path("../killed").exists():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    time.sleep(1.0)
    pathlib.Path(out_dir, "kernel").write_text(str(os.getpid()))
    time.sleep(600)
print("whole")
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty workbook of its own; its notebooks folder is returned."""
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    return tmp_path / "notebooks"


def status(out: Path, name: str) -> dict:
    return json.loads((out / name / "status.json").read_text())


def test_a_kernel_that_is_killed_leaves_nothing_and_its_notebook_is_run_again(home, monkeypatch):
    write(home, "01_killed", WAITS)
    out, mark = home.parent / "out", uuid.uuid4().hex
    monkeypatch.setenv("KPM_TEST_MARK", mark)
    kernel = out / "01_killed" / "kernel"
    process = start(lambda: runner.run(out=out).exit_code)
    try:
        assert wait_until(lambda: kernel.exists() and kernel.read_text(), 60)
        os.kill(int(kernel.read_text()), signal.SIGKILL)
        assert ended(process, 60) == 1
        found = status(out, "01_killed")
        assert found["state"] == "failed" and "the kernel died in code cell" in found["reason"]
        assert not (out / "01_killed" / "01_killed.ipynb").exists()
        assert wait_until(lambda: not survivors(mark), 10), survivors(mark)
    finally:
        for left in survivors(mark):
            left.kill()
    (home.parent / "killed").touch()
    assert runner.run(out=out, resume=True)["01_killed"].state == "succeeded"
    assert not list(out.rglob("*.partial.ipynb")) and not list(out.rglob("*.part"))
    for shift in (-1e6, 1e6):  # a clock that goes back or forward between two runs says nothing
        for path in [*home.rglob("*"), *out.rglob("*")]:
            os.utime(path, (time.time() + shift,) * 2)
        assert runner.run(out=out, resume=True)["01_killed"].state == "unchanged"


def test_a_notebook_that_finds_no_room_fails_with_the_reason_and_leaves_nothing_half(home):
    write(home, "01_large", "print('x' * 300_000)")
    out = home.parent / "out"

    def body() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # writes beyond fail, as on a full disk
        return runner.run(out=out).exit_code

    assert ended(start(body), 90) == 1
    found = status(out, "01_large")
    assert found["state"] == "failed" and "File too large" in found["reason"]
    assert not (out / "01_large" / "01_large.ipynb").exists() and not list(out.rglob("*.part"))

"""Tasks in this process, and on a Dask cluster whose workers die: plain ones, cells of a sweep, moments."""

import os
import time

import pandas as pd
import psutil
import pytest
import torch

from kpm import cli
from kpm.errors import UserError
from kpm.workbook import fan_out as module
from kpm.workbook.fan_out import fan_out
from kpm.workbook.spread_moments import spread_moments
from tests.workbook.spread_tasks import square, states
from tests.workbook.test_runner import write
from tests.workbook.test_spread_moments import everything


def test_here():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        answers = fan_out(square, iter([1, 2, 3]))
        assert next(answers) == (1, os.getpid(), 1)
        assert [a[0] for a in answers] == [4, 9]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_an_error_or_an_answer_in_its_place():
    with pytest.raises(ValueError, match="-1 is negative"):
        list(fan_out(square, [1, -1]))
    assert list(fan_out(square, [-2], lost=lambda task, error: (task, str(error)))) == [(-2, "-2 is negative")]


def test_no_workers_and_no_scheduler():
    with pytest.raises(ValueError, match="workers: expected a whole number"):
        fan_out(square, [1], workers=0)
    with pytest.raises(UserError, match="no Dask scheduler answers at 'nonsense://x'"):
        list(fan_out(square, [1], scheduler="nonsense://x"))


@pytest.fixture(scope="module")
def scheduler():
    """The address of a cluster of two workers of one thread; nothing of it is left afterwards."""
    before = set(psutil.Process().children(recursive=True))
    with module._client(2, "") as client:
        yield client.scheduler.address
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [p.cmdline() for p in left if "resource_tracker" not in " ".join(p.cmdline())]


@pytest.mark.slow
def test_on_processes_of_one_thread(scheduler):
    answers = list(fan_out(square, range(6), scheduler=scheduler))
    assert sorted(a[0] for a in answers) == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {a[1] for a in answers} and {a[2] for a in answers} == {1}
    with pytest.raises(ValueError, match="-1 is negative"):
        list(fan_out(square, [1, -1], scheduler=scheduler))


@pytest.mark.slow
def test_moments_of_many_workers(scheduler):
    whole, spread = everything("gram", range(6)), spread_moments(states, range(6), scheduler=scheduler)
    assert spread.n_pairs == whole.n_pairs
    for name in ("gram", "cross", "gram_next", "state_gram"):
        torch.testing.assert_close(getattr(spread, name), getattr(whole, name), rtol=1e-10, atol=1e-10)


# The kernel's parent is the process that runs the notebook, and that one's parent the Dask worker.
CELL = """
import json, os, pathlib, signal, psutil, time
flag = pathlib.Path(out_dir, "killed")
if x == 1 and not flag.exists():
    flag.write_text(str(os.getpid()))
    os.kill(psutil.Process(os.getppid()).ppid(), signal.SIGKILL)
    time.sleep(60)
assert x != 2 or pathlib.Path(cure).exists(), "no cure"
numbers = {"square": x * x, "x": -x, "deep": {"root": x ** 0.5}, "series": [1, 2]}
pathlib.Path(out_dir, "results.json").write_text(json.dumps({"numbers": numbers}))
"""


@pytest.mark.slow
@pytest.mark.faults
def test_a_sweep_with_a_cell_that_fails_and_one_whose_worker_dies(scheduler, tmp_path, capsys):
    cure, out = tmp_path / "cure", tmp_path / "out"
    path = write(tmp_path, "squares", CELL, extra='x = 0\ncure = "none"\n')
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"x: [1, 2, 4]\ncure: {cure}")
    command = ["sweep", str(path), "--grid", str(grid), "--out", str(out), "--scheduler", scheduler, "--no-figures"]
    assert cli.main(command) == 1
    first = pd.read_csv(out / "sweep.csv")
    assert first.state.tolist() == ["succeeded", "failed", "succeeded"]
    assert first.square.tolist()[::2] == [1, 16] and pd.isna(first.square[1])
    assert first["deep.root"].tolist()[::2] == [1, 2] and first.result_x.tolist()[::2] == [-1, -4]
    assert "AssertionError: no cure" in first.reason[1] and "series" not in first
    kernel = int((out / "cells" / first.cell[0] / "squares" / "killed").read_text())
    until = time.monotonic() + 10
    while psutil.pid_exists(kernel) and time.monotonic() < until:
        time.sleep(0.1)
    assert not psutil.pid_exists(kernel), "the kernel has outlived its worker"

    cure.touch()
    capsys.readouterr()
    assert cli.main(command) == 0
    assert capsys.readouterr().out.count("  unchanged  ") == 2
    second = pd.read_csv(out / "sweep.csv")
    assert second.square.tolist() == [1, 4, 16] and second.wall_s.tolist()[::2] == first.wall_s.tolist()[::2]

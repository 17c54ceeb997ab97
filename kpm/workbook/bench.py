"""Benchmarks: ours against a named reference, alternating in one process, as a ratio of times.

A benchmark is a file ``tests/benchmarks/bench_NAME.py`` with a function ``benchmark()`` that returns a `Benchmark`.
Ours and the reference take turns, so that a machine that slows down slows both; the ratio is the median over turns.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import math
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import torch
import tyro

from kpm import paths
from kpm.environment import report
from kpm.errors import UserError, pick
from kpm.workbook import results
from kpm.workbook.results import Result

# Calls shorter than this (seconds) are repeated within one measurement, so that the clock's grain does not matter.
_LEAST = 0.02


@dataclass(frozen=True)
class Case:
    """One comparison: `ours` and `reference` are called without arguments and do the same work.

    `check(ours_value, reference_value)` gets what the first call of each returned, and raises `AssertionError` (or
    returns `False`) if they are not the same answer; `None` where there is nothing to compare.
    `minimum` is the least ratio the project claims, `None` for no claim. `label` becomes part of metric names.
    """

    label: str
    ours: Callable[[], Any]
    reference: Callable[[], Any]
    reference_name: str
    check: Callable[[Any, Any], Any] | None = None
    minimum: float | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.label) or self.label.endswith(tuple(results.SPREADS)):
            raise ValueError(f"label: expected letters, digits and _.- (not ending in _se or _std), got {self.label!r}")


@dataclass(frozen=True)
class Benchmark:
    """A name (that of the file) and the cases; `notes` goes into the results file."""

    name: str
    cases: tuple[Case, ...]
    notes: str = ""

    def __post_init__(self) -> None:
        labels = [case.label for case in self.cases]
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"cases: expected at least one, with labels that differ, got {labels}")


@dataclass(frozen=True)
class CaseResult:
    """Times of one case. `ratio` is the median over turns of reference time / our time, `low` and `high` its range."""

    label: str
    reference_name: str
    ratio: float
    low: float
    high: float
    ms: float
    ms_reference: float
    compared: bool
    minimum: float | None

    @property
    def holds(self) -> bool:
        """Whether the ratio is at least the one claimed."""
        return self.minimum is None or self.ratio >= self.minimum

    def __str__(self) -> str:
        claim = "" if self.minimum is None else f", at least {self.minimum:g} claimed"
        claim += "" if self.holds else ": BELOW THE CLAIM"
        return (
            f"{self.label}: ratio {self.ratio:.2f} (from {self.low:.2f} to {self.high:.2f}){claim}; "
            f"ours {self.ms:.4g} ms, {self.reference_name} {self.ms_reference:.4g} ms; "
            + ("answers agree" if self.compared else "answers not compared")
        )


@dataclass(frozen=True)
class BenchResult:
    """What `run` measured. `busy` lists signs that other work ran on the machine."""

    name: str
    cases: tuple[CaseResult, ...]
    repeats: int
    threads: int
    wall_s: float
    busy: tuple[str, ...] = ()
    notes: str = ""

    @property
    def ratio(self) -> float:
        """The smallest ratio of all cases."""
        return min(case.ratio for case in self.cases)

    @property
    def holds(self) -> bool:
        return all(case.holds for case in self.cases)

    def metrics(self) -> dict[str, float]:
        found = {"ratio": self.ratio}
        for case in self.cases:
            found[f"ratio_{case.label}"] = case.ratio
            found[f"ms_{case.label}"] = case.ms
            found[f"ms_reference_{case.label}"] = case.ms_reference
        return found

    def to_result(self) -> Result:
        """As a results file ``bench_NAME``, with the environment of this process."""
        environment = report()
        notes = [self.notes, f"{self.repeats} alternating turns on {self.threads} threads.", *map(str, self.cases)]
        return Result(
            name=f"bench_{self.name}",
            dataset="none",
            source="none",
            split="none",
            metrics=self.metrics(),
            paper={},
            seeds=(),
            steps=None,
            wall_s=self.wall_s,
            hardware=environment.hardware,
            checkpoint=None,
            command=f"kpm bench {self.name} --repeats {self.repeats} --threads {self.threads}",
            commit=environment.commit,
            environment=environment,
            notes="\n".join(filter(None, [*notes, *self.busy])),
        )


def available() -> list[str]:
    """The names of the benchmarks there are. Raises `UserError` if their folder is absent."""
    folder = _folder()
    return sorted(path.stem.removeprefix("bench_") for path in folder.glob("bench_*.py"))


def sibling(name: str) -> ModuleType:
    """The file of another benchmark, for what two of them share; `UserError` if there is none."""
    path = _folder() / f"bench_{pick('benchmark', name, available())}.py"
    spec = importlib.util.spec_from_file_location(f"kpm_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses in the file look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def load(name: str) -> Benchmark:
    """The benchmark of ``tests/benchmarks/bench_NAME.py``; `UserError` with the nearest names if there is none."""
    module = sibling(name)
    if not callable(getattr(module, "benchmark", None)):
        raise UserError(f"bench_{name}.py has no function benchmark()")
    benchmark = module.benchmark()
    if benchmark.name != name:
        raise ValueError(f"bench_{name}.py: its benchmark calls itself {benchmark.name!r}")
    return benchmark


def run(name: str, repeats: int = 7, threads: int | None = None) -> BenchResult:
    """Run one benchmark.

    Parameters
    ----------
    repeats : turns of ours and the reference that are timed, after one call of each to warm up and compare answers.
    threads : PyTorch threads while it runs; `None` leaves them as they are.

    Raises `AssertionError` if a case's two answers are not the same.
    """
    if repeats < 1:
        raise UserError(f"repeats: expected at least 1, got {repeats}")
    if threads is not None and threads < 1:
        raise UserError(f"threads: expected at least 1, got {threads}")
    with _threads(threads):
        benchmark = load(name)
        before = _busy("before")
        start = time.perf_counter()
        cases = tuple(measure(case, repeats) for case in benchmark.cases)
        wall_s = time.perf_counter() - start
        busy = tuple(filter(None, [before, _busy("after")]))
        return BenchResult(name, cases, repeats, torch.get_num_threads(), wall_s, busy, benchmark.notes)


def measure(case: Case, repeats: int) -> CaseResult:
    """Time one case: warm-up and check, then `repeats` turns of ours, reference, ours, reference, …"""
    ours, reference = case.ours(), case.reference()
    if case.check is not None:
        try:
            same = case.check(ours, reference)
        except AssertionError as error:
            raise AssertionError(f"{case.label}: ours and {case.reference_name} differ: {error}") from error
        if same is not None and not same:
            raise AssertionError(f"{case.label}: ours and {case.reference_name} differ")
    del ours, reference
    loops = [max(1, math.ceil(_LEAST / max(_time(f, 1), 1e-7))) for f in (case.ours, case.reference)]
    turns = [(_time(case.ours, loops[0]), _time(case.reference, loops[1])) for _ in range(repeats)]
    ratios = [reference / ours for ours, reference in turns]
    return CaseResult(
        label=case.label,
        reference_name=case.reference_name,
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        ms=1e3 * statistics.median(ours for ours, _ in turns),
        ms_reference=1e3 * statistics.median(reference for _, reference in turns),
        compared=case.check is not None,
        minimum=case.minimum,
    )


def bench_command(
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    repeats: int = 7,
    threads: int | None = None,
    write: bool = True,
) -> int:
    """Run benchmarks: ours against a reference in one process; exit code 1 if a ratio is below its claim.

    Args:
        names: Which ones; without a name, all are listed and run.
        repeats: Timed turns of ours and the reference.
        threads: PyTorch threads; as they are if not given.
        write: Write data/results/bench_NAME.json.
    """
    there = available()
    chosen = [pick("benchmark", name.removeprefix("bench_"), there) for name in names] or there
    if not there:
        print("there are no benchmarks yet")
    if not names:
        for name in there:
            print(f"{name}: {(sibling(name).__doc__ or '').strip().partition(chr(10))[0]}")
    good = True
    for name in chosen:
        print(f"\n{name}")
        try:
            found = run(name, repeats, threads)
        except AssertionError as error:
            print(f"  CHECK FAILED, so nothing is written: {error}")
            good = False
            continue
        for line in [*found.cases, *(f"warning: {sign}" for sign in found.busy)]:
            print(f"  {line}")
        print(f"  smallest ratio {found.ratio:.2f}, {found.threads} threads, {found.wall_s:.1f} s")
        good &= found.holds
        if write:
            path = results.save(found.to_result())
            print(f"  written: {path.name} (kpm results --readme puts it into the README)")
    return 0 if good else 1


def _folder() -> Path:
    folder = paths.root() / "tests" / "benchmarks"
    if not folder.is_dir():
        raise UserError("there is no folder tests/benchmarks here: benchmarks come with a checkout, not with a wheel")
    return folder


def _time(function: Callable[[], Any], loops: int) -> float:
    """Seconds per call, with the collector off and the GPU's queue empty at both ends."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        _synchronise()
        start = time.perf_counter()
        for _ in range(loops):
            function()
        _synchronise()
        return (time.perf_counter() - start) / loops
    finally:
        if was_on:
            gc.enable()


def _synchronise() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _busy(when: str) -> str | None:
    """A sign of other work on the machine, looked for while we are idle ourselves."""
    cores = os.cpu_count() or 1
    percent = psutil.cpu_percent(interval=0.3)
    load = psutil.getloadavg()[0]
    if percent > 25 or load > 1.25 * cores:
        return f"the machine was busy {when}: {percent:.0f} % of {cores} cores in use, load average {load:.1f}"
    return None

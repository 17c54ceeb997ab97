"""The benchmark harness: ratios of functions of known speed, alternation, checks, files and exit codes."""

import gc
import json
import sys
import time

import pytest
import torch

from kpm import paths
from kpm.errors import UserError
from kpm.workbook import bench, results
from kpm.workbook.bench import Benchmark, Case, bench_command, measure, run

SOURCE = '''"""Sleeping: short against long.

More words.
"""

import time
from kpm.workbook.bench import Benchmark, Case


def sleep(ms):
    time.sleep(ms / 1e3)
    return 7


def same(ours, reference):
    assert ours == reference, f"{{ours}} is not {{reference}}"


def benchmark():
    return Benchmark(
        "{name}",
        (
            Case("fast", lambda: sleep(8), lambda: sleep(32), "long sleep", same, {minimum}),
            Case("slow", lambda: sleep(8), lambda: sleep({slow}) + {wrong}, "other sleep", same),
        ),
        notes="asleep",
    )
'''


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    (tmp_path / "tests" / "benchmarks").mkdir(parents=True)
    monkeypatch.setattr(bench, "_busy", lambda when: None)
    return tmp_path


@pytest.fixture
def add(home):
    def write(name="sleep", inside=None, minimum=1.5, slow=16, wrong=0):
        text = SOURCE.format(name=inside or name, minimum=minimum, slow=slow, wrong=wrong)
        (home / "tests" / "benchmarks" / f"bench_{name}.py").write_text(text)

    return write


def test_known_ratios_are_found(add):
    add()
    found = run("sleep", repeats=3)
    fast, slow = found.cases
    assert 2.5 < fast.ratio < 5 and 1.4 < slow.ratio < 3  # 4 and 2, on a machine that may be loaded
    assert found.ratio == min(fast.ratio, slow.ratio)
    assert fast.low <= fast.ratio <= fast.high
    assert 8 <= fast.ms < 30 and 32 <= fast.ms_reference < 100
    assert found.wall_s > 3 * (8 + 32 + 8 + 16) / 1e3
    assert found.holds


def test_the_ratio_is_the_median_over_turns_that_alternate(monkeypatch):
    """With a clock of our own: turn by turn ours takes 1, 1, 100 and the reference 3, 4, 900 seconds."""
    now = 0.0
    calls = []
    pace = {"ours": iter([9, 9, 1, 1, 100]), "reference": iter([9, 9, 3, 4, 900])}  # two warm-up calls first

    def work(who):
        nonlocal now
        calls.append(who)
        now += next(pace[who])

    monkeypatch.setattr(bench.time, "perf_counter", lambda: now)
    found = measure(Case("c", lambda: work("ours"), lambda: work("reference"), "r"), repeats=3)
    assert calls[4:] == ["ours", "reference"] * 3
    assert (found.ratio, found.low, found.high) == (4.0, 3.0, 9.0)
    assert (found.ms, found.ms_reference) == (1e3, 4e3)


def test_short_calls_are_repeated_within_a_measurement():
    counts = {"ours": 0, "reference": 0}

    def quick(who):
        counts[who] += 1

    found = measure(Case("c", lambda: quick("ours"), lambda: quick("reference"), "r"), repeats=2)
    assert min(counts.values()) > 100
    assert found.ms < 1


def test_results_file(add, home):
    add()
    assert bench_command(("sleep",), repeats=2) == 0
    raw = json.loads((home / "data" / "results" / "bench_sleep.json").read_text())
    metrics = raw["metrics"]
    names = {f"{kind}_{label}" for kind in ("ratio", "ms", "ms_reference") for label in ("fast", "slow")}
    assert set(metrics) == {"ratio", *names}
    assert metrics["ratio"] == min(metrics["ratio_fast"], metrics["ratio_slow"])
    assert (raw["source"], raw["wall_s"] > 0) == ("none", True)
    assert raw["command"] == f"kpm bench sleep --repeats 2 --threads {torch.get_num_threads()}"
    assert all(word in raw["notes"] for word in ("asleep", "long sleep", "at least 1.5 claimed", "answers agree"))
    assert results.load("bench_sleep").environment.threads == torch.get_num_threads()


def test_below_the_claim_is_said_written_and_exit_code_1(add, home, capsys):
    add(minimum=50)
    assert bench_command(("bench_sleep",), repeats=1) == 1
    assert "at least 50 claimed: BELOW THE CLAIM" in capsys.readouterr().out
    assert "BELOW THE CLAIM" in results.load("bench_sleep").notes


def test_answers_that_differ_are_caught_and_nothing_is_written(add, home, capsys):
    add(wrong=1)
    with pytest.raises(AssertionError, match="slow: ours and other sleep differ: 7 is not 8"):
        run("sleep", repeats=1)
    add("ok")
    assert bench_command(repeats=1) == 1
    printed = capsys.readouterr().out
    assert "CHECK FAILED, so nothing is written" in printed
    assert [p.name for p in paths.results().iterdir()] == ["bench_ok.json"]  # the others go on


def test_a_check_that_returns_false_is_a_failed_check():
    case = Case("c", lambda: 1, lambda: 2, "r", check=lambda a, b: a == b)
    with pytest.raises(AssertionError, match="c: ours and r differ"):
        measure(case, 1)


def test_a_comparison_without_check_says_so():
    assert "answers not compared" in str(measure(Case("c", lambda: 1, lambda: 2, "r"), 1))


def test_threads_are_set_recorded_and_restored(home):
    text = """
import time
import torch
from kpm.workbook.bench import Benchmark, Case
SEEN = []
def benchmark():
    return Benchmark("t", (Case("c", lambda: SEEN.append(torch.get_num_threads()), lambda: time.sleep(0), "r"),))
"""
    (home / "tests" / "benchmarks" / "bench_t.py").write_text(text)
    before = torch.get_num_threads()
    wanted = before + 1
    found = run("t", repeats=1, threads=wanted)
    assert found.threads == wanted
    assert torch.get_num_threads() == before
    assert set(sys.modules["kpm_bench_t"].SEEN) == {wanted}


def test_command_without_names_lists_and_runs_all(add, home, capsys):
    add("a")
    add("b")
    assert bench_command(repeats=1, write=False) == 0
    printed = capsys.readouterr().out
    assert "a: Sleeping: short against long.\n" in printed and "More words" not in printed
    assert printed.count("smallest ratio") == 2
    assert not paths.results().exists()


def test_mistakes_get_one_clear_line(add, home, monkeypatch):
    add()
    with pytest.raises(UserError, match="unknown benchmark 'sleeep'; did you mean 'sleep'"):
        bench_command(("sleeep",))
    with pytest.raises(UserError, match="repeats: expected at least 1, got 0"):
        run("sleep", repeats=0)
    with pytest.raises(UserError, match="threads: expected at least 1, got 0"):
        run("sleep", threads=0)
    add("x", inside="y")
    with pytest.raises(ValueError, match=r"bench_x\.py: its benchmark calls itself 'y'"):
        run("x")
    (home / "tests" / "benchmarks" / "bench_x.py").write_text("pass\n")
    with pytest.raises(UserError, match=r"bench_x.py has no function benchmark\(\)"):
        run("x")
    monkeypatch.setenv("KPM_HOME", str(home / "elsewhere"))
    with pytest.raises(UserError, match="no folder tests/benchmarks here"):
        bench_command()


def test_labels_and_cases_are_checked():
    with pytest.raises(ValueError, match="label"):
        Case("K = 40", int, int, "r")
    with pytest.raises(ValueError, match="label"):
        Case("a_se", int, int, "r")
    with pytest.raises(ValueError, match="labels that differ"):
        Benchmark("b", (Case("a", int, int, "r"), Case("a", int, int, "r")))
    with pytest.raises(ValueError, match="at least one"):
        Benchmark("b", ())


@pytest.mark.parametrize(("percent", "load", "busy"), [(80, 0.0, True), (5, 3.0, True), (5, 0.5, False)])
def test_a_busy_machine_is_noticed(monkeypatch, percent, load, busy):
    monkeypatch.setattr(bench.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(bench.psutil, "cpu_percent", lambda interval: percent)
    monkeypatch.setattr(bench.psutil, "getloadavg", lambda: (load, 0, 0))
    sign = bench._busy("before")
    assert (sign is not None) == busy
    if busy:
        assert sign.startswith("the machine was busy before") and f"{load:.1f}" in sign


def test_signs_of_a_busy_machine_are_printed_and_kept(add, home, monkeypatch, capsys):
    add()
    monkeypatch.setattr(bench, "_busy", lambda when: f"busy {when}")
    assert bench_command(("sleep",), repeats=1) == 0
    assert "warning: busy before" in (printed := capsys.readouterr().out) and "warning: busy after" in printed
    assert "busy before\nbusy after" in results.load("bench_sleep").notes


def test_every_benchmark_of_the_project_can_be_listed():
    """The files here must at least be found and import; running them is `kpm bench`."""
    for name in bench.available():
        module = bench.sibling(name)
        assert (module.__doc__ or "").strip(), f"bench_{name}.py needs a docstring: its first line is listed"


def test_measuring_does_not_leave_the_collector_off():
    measure(Case("c", lambda: time.sleep(0), lambda: time.sleep(0), "r"), 1)
    assert gc.isenabled()

"""The notebook runner, with real kernels: what it runs, in which order, what it leaves behind and what it must not."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import psutil
import pytest
import tyro
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from kpm import cli
from kpm.errors import UserError
from kpm.workbook import runner, runner_plan
from kpm.workbook.runner_plan import NotebookRun
from kpm.workbook.runner_process import ProcessTree, environment
from kpm.workbook.runner_table import Table

PARAMETERS = 'profile = "quick"\nseed = 7253\ndevice = "auto"\nout_dir = None\n'
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def write(folder: Path, name: str, *code: str, needs=(), extra: str = "", minutes: float = 1) -> Path:
    first = new_code_cell(PARAMETERS + extra, metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(f"# {name}: $x^2$"), first, *(new_code_cell(c) for c in code)]
    house = {"needs": list(needs), "minutes": {"quick": minutes}}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL, "kpm": house}), path)
    return path


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty workbook of its own; its notebooks folder is returned."""
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path / "notebooks"


# One run of many notebooks with two jobs; most tests below look at what it left.
MEET = """
import os, pathlib, time
here = pathlib.Path(out_dir).parent
(here / "{me}.here").touch()
for _ in range(600):
    if (here / "{other}.here").exists():
        break
    time.sleep(0.1)
else:
    raise TimeoutError("the other notebook is not running")
pathlib.Path(out_dir, "threads.txt").write_text(os.environ["OMP_NUM_THREADS"])
"""
FACTS = """
import json, os, pathlib, sys
facts = {"profile": profile, "seed": seed, "rate": rate, "out_dir": out_dir, "prefix": sys.prefix, "cwd": os.getcwd()}
pathlib.Path(out_dir, "facts.json").write_text(json.dumps(facts))
"""
FIGURE = """
import pathlib
pathlib.Path(out_dir, "circle & square.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
hog = bytearray(300_000_000)
import time; time.sleep(0.6)
"""


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Exit code, printed text and folder of one run through the command line."""
    base = tmp_path_factory.mktemp("first")
    write(base / "notebooks", "00_left", MEET.format(me="left", other="right"))
    write(base / "notebooks", "01_right", MEET.format(me="right", other="left"))
    write(base / "notebooks", "02_bad", "x = 0", "print('before')\n1 / x", "print('after')")
    write(base / "notebooks", "03_needs_bad", "print(1)", needs=["02_bad"])
    write(base / "notebooks", "04_after_that", "print(1)", needs=["03_needs_bad"])
    read = 'import pathlib\nprint(pathlib.Path(out_dir).with_name("06_early").joinpath("artefact.txt").read_text())'
    write(base / "notebooks", "05_late", read, needs=["06_early"])
    made = 'import pathlib\npathlib.Path(out_dir, "artefact.txt").write_text("from early")'
    write(base / "notebooks", "06_early", made)
    write(base / "notebooks", "07_facts", FACTS, FIGURE, extra="rate = 0.1", minutes=0.5)
    # A kernel that somebody installed under the same name must not be taken.
    foreign = base / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "foreign", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("KPM_HOME", str(base))
        patch.setenv("JUPYTER_PATH", str(base / "jupyter"))
        patch.delenv("OMP_NUM_THREADS", raising=False)
        arguments = ["--jobs", "2", "-p", "rate", "1e-3", "--parameter", "seed", "5"]
        code = tyro.cli(runner.run_command, args=arguments)
    return code, printed.getvalue(), base / "out"


@pytest.fixture(scope="module")
def summary(first):
    return json.loads((first[2] / "summary.json").read_text())


@pytest.fixture(scope="module")
def runs(summary):
    return {run["name"]: run for run in summary["notebooks"]}


def executed_text(out: Path, name: str) -> str:
    notebook = nbformat.read(out / name / f"{name}.ipynb", as_version=4)
    return "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))


def test_states_and_exit_code(first, summary, runs):
    states = {name: run["state"] for name, run in runs.items()}
    good = dict.fromkeys(["00_left", "01_right", "05_late", "06_early", "07_facts"], "succeeded")
    assert states == good | {"02_bad": "failed", "03_needs_bad": "skipped", "04_after_that": "skipped"}
    assert first[0] == 1 and summary["ok"] is False and summary["signal"] is None


def test_two_jobs_run_at_once_and_share_the_cores(first, runs):
    assert runs["00_left"]["state"] == runs["01_right"]["state"] == "succeeded"  # each waited for the other
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert (first[2] / "00_left" / "threads.txt").read_text() == str(max(1, cores // 2))


def test_a_notebook_runs_after_what_it_needs(first, runs):
    assert "from early" in executed_text(first[2], "05_late")
    assert runs["06_early"]["started"] <= runs["05_late"]["started"]


def test_a_failure_is_shown_and_the_rest_goes_on(first, runs):
    _, printed, out = first
    bad = runs["02_bad"]
    assert "ZeroDivisionError: division by zero" in bad["reason"]
    assert "----> 2 1 / x" in bad["error"] and "\x1b" not in bad["error"]
    assert bad["attempts"] == 1  # a failing cell is not tried again
    assert "02_bad failed: " in printed and "----> 2 1 / x" in printed and "\x1b" not in printed
    text = executed_text(out, "02_bad")
    assert "before" in text and "after" not in text  # the executed notebook shows how far it came
    assert bad["cells_done"] == 3 and bad["cells"] == 5  # with the injected cell


def test_what_needs_a_failed_notebook_is_skipped_with_the_reason(first, runs):
    assert runs["03_needs_bad"]["reason"] == "needs 02_bad, which failed"
    assert runs["04_after_that"]["reason"] == "needs 03_needs_bad, which was skipped"
    assert not (first[2] / "03_needs_bad").exists()


def test_parameters_reach_the_notebooks_that_declare_them(first, runs):
    out = first[2]
    facts = json.loads((out / "07_facts" / "facts.json").read_text())
    assert (facts["profile"], facts["seed"], facts["rate"]) == ("quick", 5, 0.001)
    assert facts["out_dir"] == str(out / "07_facts")
    assert facts["prefix"] == sys.prefix  # the kernel is this interpreter, not the foreign one
    assert facts["cwd"] == str(out.parent / "notebooks")
    assert "rate" not in runs["06_early"]["parameters"] and runs["06_early"]["parameters"]["seed"] == 5


def test_time_and_peak_memory(runs):
    facts = runs["07_facts"]
    assert facts["peak_bytes"] > 300_000_000  # its own array, in the kernel's process
    assert 0.6 < facts["wall_s"] < 60 and facts["expected_s"] == 30
    assert 20_000_000 < runs["06_early"]["peak_bytes"] < facts["peak_bytes"]


def test_only_whole_notebooks_are_left(first):
    out = first[2]
    for name in ("00_left", "02_bad", "07_facts"):
        nbformat.validate(nbformat.read(out / name / f"{name}.ipynb", as_version=4))
    assert not list(out.rglob("*.partial.ipynb")) and not list(out.rglob("*.part"))


def test_one_line_per_change_when_not_on_a_terminal(first):
    lines = [line for line in first[1].split("\n\n")[0].splitlines() if line.startswith("06_early")]
    assert [line.split()[1] for line in lines] == ["running", "succeeded"]


class Links(HTMLParser):
    """What a page links to and what it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.loads, self.tags = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        values = dict(attrs)
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif tag != "a" and (address := values.get("src") or values.get("href")):
            self.loads.append(address)


def test_the_index_shows_every_notebook_and_figure_and_works_offline(first, runs):
    out = first[2]
    text = (out / "index.html").read_text()
    page = Links(text)
    assert "script" not in page.tags and "link" not in page.tags and "@import" not in text
    assert "prefers-color-scheme: dark" in text
    for address in page.links + page.loads:
        if not address.startswith("#"):
            assert (out / re.sub("%([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), address)).is_file(), address
    for name, run in runs.items():
        assert f'id="{name}"' in text and run["state"] in text
        assert (f"{name}/{name}.html" in page.links) is (run["state"] != "skipped")
    assert page.loads == ["07_facts/circle%20%26%20square.svg"]
    assert runs["07_facts"]["figures"] == ["07_facts/circle & square.svg"]
    assert "rate = 0.001" in text and "(expected 30.0 s)" in text and "----&gt; 2 1 / x" in text


def test_a_notebooks_page_loads_nothing_but_mathjax(first):
    loads = Links((first[2] / "06_early" / "06_early.html").read_text()).loads
    assert len(loads) == 1 and "mathjax" in loads[0]


# Resuming.


COUNT = """
import pathlib
with open(out_dir + "/count.txt", "a") as f:
    f.write("x")
assert pathlib.Path("../mended").exists()
"""


def test_resume_runs_only_what_has_not_succeeded_with_the_same_parameters_and_code(home, tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("a = 1")
    monkeypatch.setattr(runner_plan, "PACKAGE", package)
    write(home, "01_count", COUNT)

    def state_and_count(**arguments) -> tuple[str, int]:
        run = runner.run(["01"], resume=True, **arguments)["01_count"]
        return run.state, len((tmp_path / "out" / "01_count" / "count.txt").read_text())

    assert state_and_count() == ("failed", 1)
    (tmp_path / "mended").touch()
    assert state_and_count() == ("succeeded", 2)  # what failed is run again, though nothing of it has changed
    assert state_and_count() == ("unchanged", 2)
    assert state_and_count(parameters={"seed": 1}) == ("succeeded", 3)
    (package / "a.py").write_text("a = 2")
    assert state_and_count(parameters={"seed": 1}) == ("succeeded", 4)
    assert state_and_count(parameters={"seed": 1}) == ("unchanged", 4)


def fingerprints(home: Path, **parameters) -> dict[str, str]:
    chosen = runner_plan.notebooks.select((), home)
    return {t.notebook.name: t.fingerprint for t in runner_plan.plan(chosen, "quick", parameters, home.parent / "out")}


def test_a_fingerprint_follows_cells_parameters_and_needs_but_not_outputs(home):
    write(home, "01_base", "print(1)", extra="rate = 1")
    path = write(home, "02_user", "print(2)", needs=["01_base"])
    before = fingerprints(home)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="2")]
    notebook.cells[2].execution_count = 7
    nbformat.write(notebook, path)
    assert fingerprints(home) == before
    changed = fingerprints(home, rate=2)  # only the first notebook declares it, the second needs the first
    assert all(changed[name] != before[name] for name in before)
    write(home, "02_user", "print(3)", needs=["01_base"])
    edited = fingerprints(home)
    assert edited["01_base"] == before["01_base"] and edited["02_user"] != before["02_user"]


def test_resume_does_not_trust_a_lost_notebook_or_a_broken_status(home):
    write(home, "01_base", "print(1)")
    out = home.parent / "out"
    [task] = runner_plan.plan(runner_plan.notebooks.select((), home), "quick", {}, out)
    run = NotebookRun("01_base", "", "quick", {}, task.fingerprint, state="succeeded", notebook="01_base/01_base.ipynb")
    (out / "01_base").mkdir(parents=True)
    status = out / "01_base" / "status.json"
    status.write_text(json.dumps(runner_plan.as_json(run)))
    assert runner_plan.unchanged(task, out) is None
    (out / "01_base" / "01_base.ipynb").touch()
    assert runner_plan.unchanged(task, out) == run
    assert runner_plan.unchanged(replace(task, fingerprint="other"), out) is None
    for broken in ("{", "[]", '{"name": "01_base"}'):
        status.write_text(broken)
        assert runner_plan.unchanged(task, out) is None


# Mistakes, found before anything runs.


def test_an_unknown_parameter_gets_the_nearest_name_before_anything_runs(home):
    write(home, "01_a", COUNT, extra="learning_rate = 0.1")
    write(home, "02_b", COUNT)
    with pytest.raises(UserError, match="did you mean 'learning_rate'"):
        runner.run(["01"], parameters={"learning_rat": 1})
    with pytest.raises(UserError, match="unknown parameter 'learning_rate'"):
        runner.run(["02"], parameters={"learning_rate": 1})  # declared, but not by the chosen one
    with pytest.raises(UserError, match="unknown parameter 'momentum'"):
        runner.run(parameters={"momentum": 1})
    assert not (home.parent / "out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"notebooks": ["9"]}, "unknown notebook '9'"),
        ({"notebooks": ["01_aa"]}, "did you mean '01_a'"),
        ({"parameters": {"profile": "paper"}}, "use --profile"),
        ({"parameters": {"out_dir": "x"}}, "use --out"),
        ({"parameters": {"seed": float("nan")}}, "not a finite number"),
        ({"parameters": {"seed": {1, 2}}}, "not plain JSON"),
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"timeout_s": 0.0}, "timeout must be positive"),
    ],
)
def test_other_mistakes_are_named(home, arguments, message):
    write(home, "01_a", "print(1)")
    with pytest.raises(UserError, match=message):
        runner.run(**arguments)
    assert not (home.parent / "out").exists()


@pytest.mark.parametrize(
    "name, value, wanted",
    [
        ("seed", "abc", "int as in 01_a (7253), got 'abc'"),
        ("seed", "1.5", "int as in 01_a (7253), got 1.5"),
        ("seed", "true", "int as in 01_a (7253), got True"),
        ("seed", "null", "int as in 01_a (7253), got None"),
        ("rate", "fast", "float as in 01_a (0.5), got 'fast'"),
        ("rate", "False", "float as in 01_a (0.5), got False"),
        ("noise", "0.1", "list of float as in 01_a ([0.1, 1.0]), got 0.1"),
        ("noise", '["a"]', "list of float as in 01_a ([0.1, 1.0]), got ['a']"),
        ("mixed", "3", "list as in 01_a ([1, 'a']), got 3"),
        ("word", "[1]", "str as in 01_a ('x'), got [1]"),
        ("flag", "1", "bool as in 01_a (True), got 1"),
        ("table", "1", "dict as in 01_a ({'a': 1}), got 1"),
        ("other", "a", "int as in 02_b (3), got 'a'"),
    ],
)
def test_a_value_of_another_type_is_refused_before_a_kernel_starts(home, capsys, name, value, wanted):
    write(home, "01_a", "print(1)", extra=TYPES)
    write(home, "02_b", "print(1)", extra="other = 3")
    assert cli.main(["run", "-p", name, value]) == 2
    assert capsys.readouterr().err == f"kpm: parameter {name!r}: expected {wanted}\n"
    assert not (home.parent / "out").exists()


TYPES = (
    'rate = 0.5\nnoise = [0.1, 1.0]\nmixed = [1, "a"]\nword = "x"\nflag = True\ntable = {"a": 1}\nfree = None\n'
    "other = None\npair = (1, 2)\n"
)


def test_values_that_fit_are_passed_on(home):
    write(home, "01_a", "print(1)", extra=TYPES)
    chosen = runner_plan.notebooks.select((), home)
    given = {
        "rate": "2", "noise": "[1, 0.5]", "mixed": "[2.5, null]", "word": "2024", "flag": "false", "table": "{}",
        "free": "2024", "other": "abc", "pair": "[3, 4]", "seed": "-1",
    }  # fmt: skip
    values = runner_plan.parse_values(given, ())
    [task] = runner_plan.plan(chosen, "quick", values, home.parent / "out")
    assert {name: task.parameters[name] for name in given} == {
        "rate": 2, "noise": [1, 0.5], "mixed": [2.5, None], "word": "2024", "flag": False, "table": {},
        "free": 2024, "other": "abc", "pair": [3, 4], "seed": -1,
    }  # fmt: skip
    assert runner_plan.parse_values({"word": '"3"', "nosuch": "3"}, ()) == {"word": "3", "nosuch": 3}


def test_two_runs_cannot_share_a_folder(home):
    write(home, "01_a", "print(1)")
    out = home.parent / "out"
    with runner.only_run(out), pytest.raises(UserError, match="another run is writing"):
        runner.run()


def test_values_on_the_command_line():
    texts = ["3", "-1e-3", ".5", "True", "false", "None", "[1, 2]", '{"a": 1}', '"3"', "quick", "a b", ""]
    values = [3, -0.001, 0.5, True, False, None, [1, 2], {"a": 1}, "3", "quick", "a b", ""]
    assert [runner_plan.parse_value(t) for t in texts] == values
    assert isinstance(runner_plan.parse_value("3"), int)


def test_the_users_thread_count_wins(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environment(2)["OMP_NUM_THREADS"] == "7"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert environment(2)["OMP_NUM_THREADS"] == "2"


# Kernels that do not come up, die or take too long.

DIE_AT_START = """
import os, sys
if "ipykernel_launcher" in sys.orig_argv:
    with open({counter!r}, "a") as f:
        f.write("x")
    if os.path.getsize({counter!r}) <= {deaths}:
        os._exit(1)
"""


@pytest.mark.parametrize("deaths, attempts, state", [(1, 2, "succeeded"), (9, 3, "failed")])
def test_a_kernel_that_does_not_start_is_tried_again(home, tmp_path, monkeypatch, deaths, attempts, state):
    write(home, "01_a", "print(1)")
    site, counter = tmp_path / "site", tmp_path / "starts"
    site.mkdir()
    (site / "sitecustomize.py").write_text(DIE_AT_START.format(counter=str(counter), deaths=deaths))
    monkeypatch.setenv("PYTHONPATH", str(site))
    run = runner.run()["01_a"]
    assert (run.state, run.attempts, counter.stat().st_size) == (state, attempts, attempts)
    assert ("Kernel died" in run.reason) is (state == "failed")


def test_a_dying_kernel_and_a_slow_notebook_fail_with_the_reason(home):
    write(home, "01_dies", "import os; os._exit(3)")
    write(home, "02_slow", "import time; time.sleep(600)")
    runs = runner.run(jobs=2, timeout_s=15)
    assert runs["01_dies"].reason == "the kernel died in code cell 3 (out of memory?)"
    assert runs["01_dies"].attempts == 1
    assert re.fullmatch(r"stopped after 15 s, in code cell \d", runs["02_slow"].reason)
    assert not (home.parent / "out" / "02_slow" / "02_slow.ipynb").exists()
    assert runs.exit_code == 1


# Nothing is left running.

SLEEP = """
import pathlib, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path(out_dir, "asleep").touch()
"""
# A regular expression of exponential time holds the interpreter's lock: no Python thread of the kernel can help.
STUCK = SLEEP + 'import re; re.match("(a+)+$", "a" * 60 + "b")'


def survivors(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("KPM_TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_until(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize(
    "sign, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=lambda v: str(v)
)
def test_an_interrupted_run_leaves_no_process_behind(home, tmp_path, monkeypatch, sign, code):
    write(home, "01_sleeps", "time = 1", STUCK)
    write(home, "02_sleeps", SLEEP + "time.sleep(600)")
    write(home, "03_waits", "print(1)")
    private = tmp_path / "t"
    private.mkdir()
    mark = uuid.uuid4().hex
    monkeypatch.setenv("KPM_TEST_MARK", mark)
    monkeypatch.setenv("TMPDIR", str(private))
    out = home.parent / "out"
    script = "import sys; from kpm.workbook.runner import run_command; sys.exit(run_command(jobs=2))"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert wait_until(lambda: all((out / n / "asleep").exists() for n in ("01_sleeps", "02_sleeps")), 60)
        assert len(survivors(mark)) >= 7  # the runner, two workers, two kernels, two children
        process.send_signal(sign)
        printed, _ = process.communicate(timeout=30)
        assert process.returncode == code
        assert wait_until(lambda: not survivors(mark), 10), survivors(mark)
    finally:
        for process in survivors(mark):
            process.kill()
    assert list(private.iterdir()) == []  # no sockets or connection files
    assert not (out / "01_sleeps" / "01_sleeps.ipynb").exists()
    status = json.loads((out / "01_sleeps" / "status.json").read_text())
    assert status["state"] == ("running" if sign == signal.SIGKILL else "interrupted")
    if sign != signal.SIGKILL:
        assert "3 interrupted" in printed
        summary = json.loads((out / "summary.json").read_text())
        assert summary["signal"] == sign and summary["ok"] is False
        assert summary["notebooks"][2]["reason"] == "not started" and not (out / "03_waits").exists()
        assert "interrupted" in (out / "index.html").read_text()


def test_an_orphaned_worker_whose_notebook_ends_at_once_still_removes_its_folder(tmp_path):
    # Killing the kernel ends the notebook, so that the worker has an outcome while its watcher is still at work.
    private = tmp_path / "private"
    private.mkdir()
    worker = """
import os, sys, time
from pathlib import Path
from kpm.workbook import runner_worker

def execute(spec, private):
    while os.getppid() == spec["parent"]:
        time.sleep(0.01)
    return runner_worker.Outcome("crash", "the kernel died")

runner_worker.execute = execute
runner_worker.ProcessTree.kill = lambda tree, **options: time.sleep(1)
runner_worker.main(Path(sys.argv[1]))
"""
    parent = """
import json, os, subprocess, sys
from pathlib import Path
(Path(sys.argv[1]) / "spec.json").write_text(json.dumps({"parent": os.getpid()}))
worker = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]])
print(worker.pid, flush=True)
sys.stdin.read()
"""
    arguments = [sys.executable, "-c", parent, str(private), worker]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    orphan = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.communicate()
    assert wait_until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE, 30)
    assert not private.exists()


def test_a_tree_is_killed_with_children_whose_parent_is_gone():
    grandchild = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    mark = uuid.uuid4().hex
    # The middle process starts the sleeper, in the session of the root, and ends: the sleeper is no descendant.
    root = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {grandchild!r}]); time.sleep(600)"
    environ = {**os.environ, "KPM_TEST_MARK": mark}
    process = subprocess.Popen([sys.executable, "-c", root], env=environ, start_new_session=True)
    try:
        assert wait_until(lambda: len(survivors(mark)) == 2 and len(psutil.Process(process.pid).children()) == 0, 20)
        tree = ProcessTree(process.pid)
        tree.sample()
        tree.kill()
        process.wait()
        assert survivors(mark) == []
    finally:
        for left in survivors(mark):
            left.kill()


# The table.


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_table_updates_in_place(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "30")
    stream = Terminal()
    table = Table(stream)
    one = NotebookRun("01_a", "", "quick", {}, "", state="running", wall_s=3.0, cells=4, cells_done=1, expected_s=60)
    two = NotebookRun("02_b", "", "quick", {}, "", reason="r" * 80)
    table([one, two])
    table([one, two])  # nothing new, and too soon to draw again
    table([replace(one, state="succeeded", cells_done=4, peak_bytes=250_000_000), two])
    first, second = stream.getvalue().split("\x1b[3F")
    assert "01_a" in first and "1/4" in first and "3.0 s of ~1:00 min" in first and "\x1b[J" in second
    assert "4/4" in second and "250 MB" in second and "succeeded" in second
    assert all(len(line) <= 60 for line in second.replace("\x1b[J", "").splitlines())


def test_a_long_table_fits_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "8")
    stream = Terminal()
    states = ["running"] * 2 + ["waiting"] * 38
    Table(stream)([NotebookRun(f"{i:02d}", "", "quick", {}, "", state=s) for i, s in enumerate(states)])
    lines = stream.getvalue().splitlines()
    assert len(lines) < 8 and "40 notebooks, 38 waiting" in lines[-1]

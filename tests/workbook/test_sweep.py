"""Sweeps of a notebook: the grid, the table, what is run again. Workers that die: test_fan_out.py."""

import json
import os
import types

import pandas as pd
import pytest

from kpm import cli
from kpm.errors import UserError
from kpm.workbook import runner_plan, runner_process, session, sweep, sweep_notebook, sweep_plots
from kpm.workbook.runner_plan import NotebookRun
from tests.workbook.test_runner import write


@pytest.fixture
def notebook(tmp_path):
    return write(tmp_path, "squares", "x * x", extra='x = 0\nflag = "none"\n')


def grid_file(tmp_path, text):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return path


def test_a_grid_is_a_product_and_a_list_a_union(tmp_path):
    assert sweep.read_grid(grid_file(tmp_path, "a: [1, 2]\nb: [x, y]\nc: 3")) == [
        {"a": 1, "b": "x", "c": 3}, {"a": 1, "b": "y", "c": 3}, {"a": 2, "b": "x", "c": 3}, {"a": 2, "b": "y", "c": 3},
    ]  # fmt: skip
    assert sweep.read_grid(grid_file(tmp_path, "- {a: [1, 2, 1]}\n- {a: [2, 3]}")) == [{"a": 1}, {"a": 2}, {"a": 3}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("3", "expected a map"),
        ("", "expected a map"),
        ("{}", "expected a map"),
        ("a: []", "'a' has no values"),
        ("a: !!python/object/apply:os.getcwd []", "not YAML"),
        (f"a: {list(range(400))}\nb: {list(range(400))}", "more than 100000 points"),
    ],
)
def test_a_grid_that_is_none(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        sweep.read_grid(grid_file(tmp_path, text))


def test_cells_have_every_parameter_and_a_folder_of_their_own(notebook, tmp_path):
    grid = sweep.cells(str(notebook), [{"x": 1}, {"seed": 3}, {"x": 0, "seed": 3}], "quick", tmp_path / "out")
    assert [cell.parameters for cell in grid] == [{"x": 1, "seed": 7253}, {"x": 0, "seed": 3}]
    again = sweep.cells(str(notebook), [{"x": 0, "seed": 3}], "quick", tmp_path / "out")
    assert again[0].folder == grid[1].folder != grid[0].folder
    assert sweep.cells(str(notebook), [{"x": 0, "seed": 3}], "paper", tmp_path / "out")[0].folder != again[0].folder


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("y: 1", "unknown parameter 'y'"),
        ("out_dir: a", "set by the runner"),
        ("x: 2020-01-01", "not plain JSON"),
        ("x: [1, a]", "parameter 'x': expected int as in squares (0), got 'a'"),
    ],
)
def test_a_grid_that_does_not_fit_the_notebook(notebook, tmp_path, capsys, text, words):
    status = cli.main(["sweep", str(notebook), "--grid", str(grid_file(tmp_path, text)), "--out", str(tmp_path / "o")])
    assert status == 2 and words in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_the_notebook_of_figures(tmp_path, monkeypatch):
    rows = [{"x": x, "square": x * x, "state": "succeeded", "wall_s": 1.0 + x} for x in (1, 2, 4)]
    sweep.save(pd.DataFrame(rows), tmp_path)
    shown = []
    monkeypatch.setattr(session.Session, "show", lambda run, figure, name, alt="": shown.append(name))
    names = {}
    for cell in sweep_notebook._notebook(tmp_path, "squares", ["x"]).cells:
        if cell.cell_type == "code":
            exec(cell.source.replace("out_dir = None", f"out_dir = {str(tmp_path)!r}"), names)
    assert shown == ["square", "wall_s"]


def test_a_cell_that_was_lost_is_in_the_table(notebook, tmp_path):
    lost, never = sweep.cells(str(notebook), [{"x": 1}, {"x": 3}], "quick", tmp_path / "out")
    cell, run = sweep._lost(lost, RuntimeError("its worker died"))
    assert cell is lost and run.state == "failed"
    assert runner_plan.read_status(lost.folder, "squares") == run
    rows = sweep.table([lost, never])
    assert rows.state.tolist() == ["failed", "not run"] and rows.reason[0] == "RuntimeError: its worker died"


def test_results_of_another_shape(notebook, tmp_path):
    for text in ('{"numbers": [1]}', "[1]", "{", '{"loss": 2.5, "NaN": NaN}'):
        (cell,) = sweep.cells(str(notebook), [{"x": 1}], "quick", tmp_path / "out")
        folder = cell.folder / "squares"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(text)
        run = NotebookRun("squares", "", "quick", {}, "", state="succeeded")
        (folder / "status.json").write_text(json.dumps(runner_plan.as_json(run)))
        rows = sweep.table([cell])
        assert rows.x.tolist() == [1] and len(rows) == 1
    assert rows.loss.tolist() == [2.5]


def test_parquet_where_pyarrow_is(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: the table is CSV alone")
    found = pd.DataFrame({"x": [1, 2], "loss": [0.5, None], "state": ["succeeded", "failed"]})
    assert [p.name for p in sweep.save(found, tmp_path)] == ["sweep.csv", "sweep.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "sweep.parquet"), found, check_dtype=False)


def test_what_goes_along_the_axis():
    rows = [
        {"n": n, "m": m, "seed": s, "loss": n * 1.0, "wall_s": s} for n in (1, 2, 3) for m in "ab" for s in range(5)
    ]
    table = pd.DataFrame(rows)
    assert sweep_plots.axes_of(table, ["seed", "m", "n"]) == ("n", "m")
    assert sweep_plots.axes_of(table[table.n == 1], ["seed", "m", "n"]) == ("m", None)
    assert sweep_plots.axes_of(table[(table.n == 1) & (table.m == "a")], ["seed", "m", "n"]) == ("seed", None)
    assert sweep_plots.axes_of(table[:1], ["seed", "m", "n"]) == (None, None)
    assert sweep_plots.results_of(table, ["seed", "m", "n"]) == ["loss", "wall_s"]
    axes = sweep_plots.plot_sweep(table, "loss", "n", "m").axes[0]
    means = [line for line in axes.lines if line.get_label() == "m = b"]
    assert means[0].get_ydata().tolist() == [1, 2, 3]


@pytest.mark.parametrize("given", ["", "3"])
def test_kernels_of_a_sweep_have_one_thread_unless_told_otherwise(tmp_path, monkeypatch, given):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    seen = []

    def run(*args, **how):
        seen.append(runner_process.environment(2)["OMP_NUM_THREADS"])  # what the runner gives a kernel
        return types.SimpleNamespace(notebooks=["done"])

    monkeypatch.setattr(sweep.runner, "run", run)
    cell = sweep.Cell(tmp_path / "a.ipynb", "quick", {}, tmp_path)
    assert sweep.run_cell(cell) == (cell, "done")
    assert seen == [given or "1"] and os.environ.get("OMP_NUM_THREADS", "") == given

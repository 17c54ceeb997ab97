"""The house rules of notebook files: on made notebooks that break one rule each, then on the workbook's own."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kpm.errors import UserError
from kpm.workbook import notebooks

PARAMETERS = 'profile = "quick"\nseed = 7253\ndevice = "auto"\nout_dir = None\nrates = [1e-3, -2]'
WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "slider"}


def text_output(text: str = "1\n"):
    return new_output("stream", text=text)


@pytest.fixture
def good():
    """A notebook that keeps all rules."""
    code = [
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}, execution_count=1),
        new_code_cell("%matplotlib inline\nprint(1)", execution_count=2, outputs=[text_output()]),
        new_code_cell("write_results({})", execution_count=3),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=[new_markdown_cell("# Title"), *code], metadata={"kernelspec": kernel})


def checked(notebook, tmp_path: Path) -> list[str]:
    path = tmp_path / "01_made.ipynb"
    nbformat.write(notebook, path)
    return notebooks.check(path)


def test_a_good_notebook_has_no_problems(good, tmp_path):
    assert checked(good, tmp_path) == []


def test_no_execution_counts_at_all_is_allowed(good, tmp_path):
    for cell in good.cells[1:]:
        cell.execution_count = None
    assert checked(good, tmp_path) == []


BIG = "def f():\n" + "    x = 1\n" * 200
BREAKS = {
    "not tagged 'parameters'": lambda nb: nb.cells[1].metadata.pop("tags"),
    "lacks seed": lambda nb: nb.cells[1].update(source=PARAMETERS.replace("seed", "sed")),
    "'rates' is not a plain literal": lambda nb: nb.cells[1].update(source=PARAMETERS.replace("-2", "max(1, 2)")),
    "is not 'name = literal'": lambda nb: nb.cells[1].update(source=PARAMETERS + "\nimport os"),
    "syntax error": lambda nb: nb.cells[1].update(source=PARAMETERS + "\nx = ="),
    "has no outputs": lambda nb: nb.cells[2].update(outputs=[]),
    "cell 2: was not run": lambda nb: nb.cells[2].update(execution_count=None),
    "error output (ValueError)": lambda nb: nb.cells[2].update(
        outputs=[new_output("error", ename="ValueError", evalue="", traceback=[])]
    ),
    "more than 300 kB": lambda nb: nb.cells[2].update(outputs=[text_output("x" * 300_000)]),
    "with a definition": lambda nb: nb.cells[2].update(source=BIG),
    "injected parameters": lambda nb: nb.cells[2].metadata.update(tags=["injected-parameters"]),
    "does not write the results": lambda nb: nb.cells[3].update(source="print(2)"),
    "not 'python3'": lambda nb: nb.metadata.kernelspec.update(name="julia"),
    "has no code cell": lambda nb: nb.update(cells=nb.cells[:1]),
}


@pytest.mark.parametrize("problem", BREAKS)
def test_each_broken_rule_is_named(problem, good, tmp_path):
    BREAKS[problem](good)
    found = checked(good, tmp_path)
    assert any(problem in line for line in found), found


def test_long_code_without_a_definition_is_allowed(good, tmp_path):
    good.cells[2].source = "x = 1\n" * 400
    assert checked(good, tmp_path) == []


def test_a_file_that_is_no_notebook(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text("{")
    assert "not a valid notebook" in notebooks.check(path)[0]


@pytest.mark.parametrize("path", notebooks.discover(), ids=lambda p: p.stem)
def test_the_workbook_keeps_the_rules(path):
    assert notebooks.check(path) == []


def test_every_need_of_the_workbook_exists():
    if notebooks.discover():
        notebooks.select()


@pytest.fixture
def folder(good, tmp_path):
    for name in ("00_start", "03_ssm_skd", "04_more"):
        nbformat.write(good, tmp_path / f"{name}.ipynb")
    return tmp_path


@pytest.mark.parametrize("name", ["03_ssm_skd", "03", "3", "03_ssm_skd.ipynb"])
def test_a_notebook_is_found_by_stem_number_or_file_name(name, folder):
    assert notebooks.find(name, folder) == folder / "03_ssm_skd.ipynb"


def test_a_notebook_is_found_by_path_outside_the_workbook(folder, tmp_path_factory):
    assert notebooks.find(str(folder / "00_start.ipynb"), tmp_path_factory.mktemp("other")) == folder / "00_start.ipynb"


def test_an_unknown_name_gets_the_nearest(folder):
    with pytest.raises(UserError, match="did you mean '03_ssm_skd'"):
        notebooks.find("03_smm_skd", folder)
    with pytest.raises(UserError, match=r"unknown notebook '07'"):
        notebooks.find("07", folder)


def test_an_ambiguous_number(good, folder):
    nbformat.write(good, folder / "03_other.ipynb")
    with pytest.raises(UserError, match=r"ambiguous: 03_other, 03_ssm_skd"):
        notebooks.find("03", folder)


def test_all_notebooks_in_reading_order_each_once(folder):
    assert [n.name for n in notebooks.select((), folder)] == ["00_start", "03_ssm_skd", "04_more"]
    assert [n.name for n in notebooks.select(("04", "04_more", "00"), folder)] == ["04_more", "00_start"]


def test_what_a_notebook_declares(good, tmp_path):
    good.metadata["kpm"] = {"needs": ["03_ssm_skd"], "minutes": {"quick": 1, "paper": 600}}
    nbformat.write(good, tmp_path / "04_more.ipynb")
    loaded = notebooks.load(tmp_path / "04_more.ipynb")
    assert loaded.needs == ("03_ssm_skd",)
    assert loaded.minutes == {"quick": 1, "paper": 600}
    assert loaded.declares["rates"] == [1e-3, -2] and loaded.declares["out_dir"] is None


def set_needs(path: Path, needs) -> None:
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["kpm"] = {"needs": needs}
    nbformat.write(notebook, path)


def test_an_unknown_need_and_a_circle_are_errors(folder):
    set_needs(folder / "04_more.ipynb", ["03_smm_skd"])
    with pytest.raises(UserError, match=r"needed by 04_more: '03_smm_skd'; did you mean '03_ssm_skd'"):
        notebooks.select((), folder)
    set_needs(folder / "04_more.ipynb", ["03_ssm_skd"])
    set_needs(folder / "03_ssm_skd.ipynb", ["04_more"])
    with pytest.raises(UserError, match=r"circle: .*03_ssm_skd -> 04_more|circle: .*04_more -> 03_ssm_skd"):
        notebooks.select(("04",), folder)  # found through a notebook that was not chosen


def test_needs_of_the_wrong_shape(folder):
    set_needs(folder / "04_more.ipynb", "03_ssm_skd")
    with pytest.raises(UserError, match="must be a list"):
        notebooks.load(folder / "04_more.ipynb")


@pytest.fixture
def lesson(good, tmp_path):
    """A notebook with exercises and solutions."""
    good.cells[3:3] = [
        new_markdown_cell("Exercise: add."),
        new_code_cell("ask = 1", metadata={"tags": ["exercise"]}, execution_count=3, outputs=[text_output("asked")]),
        new_code_cell(
            "SECRET = 2", metadata={"tags": ["solution"]}, execution_count=4, outputs=[text_output("SECRET")]
        ),
        new_markdown_cell("The SECRET is two.", metadata={"tags": ["solution"]}),
    ]
    path = tmp_path / "05_lesson.ipynb"
    nbformat.write(good, path)
    return path


def test_a_student_copy_has_no_solutions(lesson, tmp_path):
    before = lesson.read_bytes()
    target = notebooks.student_copy(lesson, tmp_path / "students" / "05_lesson.ipynb")
    assert lesson.read_bytes() == before
    assert "SECRET" not in target.read_text()
    copied, source = nbformat.read(target, as_version=4), nbformat.read(lesson, as_version=4)
    nbformat.validate(copied)
    assert len(copied.cells) == len(source.cells) - 1  # the text of the solution is gone
    exercise, blank = copied.cells[4], copied.cells[5]
    assert exercise.source == "ask = 1" and exercise.outputs == []
    assert blank.source == "# your code here" and blank.outputs == [] and blank.execution_count is None
    assert "solution" not in blank.metadata.tags
    assert copied.cells[2].outputs == source.cells[2].outputs  # the rest keeps its outputs


def test_a_student_copy_drops_the_saved_state_of_a_solutions_widget(lesson, tmp_path):
    notebook = nbformat.read(lesson, as_version=4)
    state = {"state": {"a": {"model_name": "SECRET"}}, "version_major": 2, "version_minor": 0}
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": state}
    kept = copy.deepcopy(notebook)
    notebook.cells[5].outputs = [new_output("display_data", data=WIDGET)]
    kept.cells[2].outputs = [new_output("display_data", data=WIDGET)]
    for made, stays in ((notebook, False), (kept, True)):
        nbformat.write(made, lesson)
        target = notebooks.student_copy(lesson, tmp_path / "copy.ipynb")
        assert ("widgets" in json.loads(target.read_text())["metadata"]) is stays


def test_a_student_copy_never_replaces_its_source(lesson):
    with pytest.raises(UserError, match="replace its source"):
        notebooks.student_copy(lesson, lesson)

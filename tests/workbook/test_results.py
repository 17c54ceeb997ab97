"""Results files: what they refuse, what the table shows, and that README and re-evaluation catch drift."""

import dataclasses
import hashlib
import json
import math
import os
import types

import numpy as np
import pytest

from kpm import files, paths
from kpm.environment import report
from kpm.errors import UserError
from kpm.workbook import results
from kpm.workbook.results import Checkpoint, Result, load, load_all, save, table, update_readme


@pytest.fixture(scope="module")
def environment():
    return report({"torch": 7253})


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty workbook folder."""
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def make(environment):
    def build(**changes) -> Result:
        fields = {
            "name": "ssm_skd_sprites",
            "dataset": "sprites",
            "source": "real",
            "split": "paper-test",
            "metrics": {"D_sd": 0.91234, "D_sd_se": 0.0123, "mse_one_step": 3.2e-4},
            "paper": {"D_sd": 0.95, "accuracy_test": 0.99},
            "seeds": (7253, 7254),
            "steps": 30000,
            "wall_s": 5400.5,
            "hardware": "Example CPU, 2 cores",
            "checkpoint": None,
            "command": "kpm train ssm-skd --dataset sprites",
            "commit": "0123abc",
            "environment": environment,
        }
        return Result(**{**fields, **changes})

    return build


@pytest.fixture
def weights(home):
    path = home / "data" / "checkpoints" / "a.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def evaluators(monkeypatch):
    """A registry of our own for the length of a test; the project's evaluators are not imported."""
    monkeypatch.setattr(results, "EVALUATORS", {})
    monkeypatch.setattr(results, "_TOLERANCES", {})
    monkeypatch.setattr(results.importlib.util, "find_spec", lambda name: None)


def test_round_trip_and_file_name(home, make):
    result = make(curve=[{"step": 1, "loss": 0.5}, [2, 0.25]], notes="short", metrics={"D_sd": np.float32(0.5)})
    path = save(result)
    assert path == home / "data" / "results" / "ssm_skd_sprites.json"
    assert load("ssm_skd_sprites") == result
    raw = json.loads(path.read_text())
    assert raw["metrics"] == {"D_sd": 0.5} and raw["seeds"] == [7253, 7254]
    assert raw["environment"]["numpy"] == np.__version__
    assert raw["curve"] == [{"step": 1, "loss": 0.5}, [2, 0.25]]
    assert "curve" not in make().to_dict() and "notes" not in make().to_dict()


def test_fields_are_those_of_the_design():
    names = "name dataset source split metrics paper seeds steps wall_s hardware checkpoint command commit environment"
    assert [f.name for f in dataclasses.fields(Result)] == [*names.split(), "notes", "curve", "details"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../escape"}, "^name: "),
        ({"source": "fake"}, "^source: expected one of real, re-render, synthetic, none, got 'fake'"),
        ({"source": "none"}, "^source: only benchmarks"),
        ({"dataset": ""}, "^dataset: "),
        ({"command": None}, "^command: "),
        ({"metrics": {}}, "^metrics: "),
        ({"metrics": {"a": math.nan}}, "^metrics.a: expected a finite number, got nan"),
        ({"metrics": {"a": np.float64("inf")}}, "^metrics.a: expected a finite"),
        ({"metrics": {"a": "0.5"}}, "^metrics.a: expected a number"),
        ({"metrics": {"a": True}}, "^metrics.a: expected a number"),
        ({"metrics": {"a": 1.0, "b_se": 0.1}}, "^metrics.b_se: "),
        ({"paper": {"b_std": 0.1}}, "^paper.b_std: "),
        ({"paper": {"b": -math.inf}}, "^paper.b: "),
        ({"seeds": (1, 2.5)}, r"^seeds\[1\]: "),
        ({"seeds": 7253}, "^seeds: "),
        ({"steps": 1.5}, "^steps: "),
        ({"steps": -1}, "^steps, wall_s: "),
        ({"wall_s": math.nan}, "^wall_s: "),
        ({"checkpoint": {"file": "/abs/a", "sha256": "0" * 64}}, "^checkpoint.file: "),
        ({"checkpoint": {"file": "data/../../a", "sha256": "0" * 64}}, "^checkpoint.file: "),
        ({"checkpoint": {"file": "a", "sha256": "abc"}}, "^checkpoint.sha256: "),
        ({"checkpoint": {"file": "a"}}, "^checkpoint: field 'sha256' is missing"),
        ({"environment": {}}, "^environment: field '.*' is missing"),
        ({"curve": [[1, math.nan]]}, r"^curve\[0\]\[1\]: expected a finite"),
        ({"curve": "abc"}, "^curve: expected a list"),
    ],
)
def test_bad_fields_are_named(make, change, message):
    with pytest.raises(UserError, match=message):
        make(**change)


def test_spread_with_its_base_is_taken(make):
    assert make(paper={"b": 1, "b_std": 0.1, "b_se": 0.2}).paper == {"b": 1.0, "b_std": 0.1, "b_se": 0.2}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t[:200], "x.json is not valid JSON"),
        (lambda t: t.replace('"wall_s": 5400.5', '"wall_s": NaN'), "x.json: NaN"),
        (lambda t: t.replace('"steps"', '"stepz"'), "x.json: unknown field 'stepz'"),
        (lambda t: t.replace('"kernel"', '"kernal"'), "x.json: environment: unknown field 'kernal'"),
        (lambda t: t.replace('"source": "real"', '"source": "reel"'), "x.json: source: "),
        (lambda t: t.replace('"name": "x"', '"name": "y"'), "x.json: name: expected 'x', got 'y'"),
        (lambda t: "[1, 2]", "x.json: expected an object"),
        (lambda t: "\udcff", "x.json is not valid JSON"),
    ],
)
def test_corrupt_files_name_file_and_field(home, make, edit, message):
    path = save(make(name="x"))
    new = edit(path.read_text())
    assert new != path.read_text()
    path.write_bytes(new.encode("utf-8", "surrogateescape"))
    for read in (lambda: load("x"), load_all):
        with pytest.raises(UserError, match=message):
            read()


def test_unknown_name_gets_the_nearest(home, make):
    save(make())
    with pytest.raises(UserError, match="did you mean 'ssm_skd_sprites'"):
        load("ssm_skd_sprite")


def test_a_failed_write_leaves_the_old_file(home, make, monkeypatch):
    path = save(make())
    before = path.read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(make(notes="new"))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def cells(text: str) -> list[list[str]]:
    return [[c.strip() for c in line.strip("| ").split(" | ")] for line in text.splitlines() if line.startswith("| ")]


def test_table_rows(make):
    head, _, first, second, third = cells(table([make()], "markdown"))
    row = dict(zip(head, first))
    assert (row["result"], row["metric"]) == ("ssm_skd_sprites", "D_sd")
    assert row["ours"] == "0.9123 ± 0.012 (se)"
    assert row["paper"] == "0.95"
    assert row["data"] == "sprites (real), paper-test"
    assert row["seeds"] == "7253, 7254"
    assert (row["hardware"], row["command"]) == ("Example CPU, 2 cores", "kpm train ssm-skd --dataset sprites")
    assert second[1:4] == ["mse_one_step", "0.00032", "-"]
    assert third[1:4] == ["accuracy_test", "-", "0.99"]  # what only the paper has is not dropped


def test_text_table_is_aligned_and_says_the_same(make):
    results_ = [make(), make(name="b", source="synthetic", dataset="puppets", metrics={"m": 2.0, "m_std": 0.5})]
    lines = table(results_).splitlines()
    start = lines[0].index("metric")
    assert all(line[start - 2 : start].isspace() and line[start] != " " for line in lines[2:])
    assert "2 ± 0.5 (std)" in lines[5] and "puppets (synthetic)" in lines[5]
    with pytest.raises(UserError, match="format"):
        table(results_, "html")


def test_table_shows_a_missing_and_a_changed_checkpoint(weights, make):
    result = make(checkpoint=Checkpoint.of(weights))
    assert result.checkpoint.file == "data/checkpoints/a.safetensors"
    assert result.checkpoint.sha256 == hashlib.sha256(b"weights").hexdigest()

    def shown() -> str:
        head, _, first, *_ = cells(table([result], "markdown"))
        return dict(zip(head, first))["checkpoint"]

    assert shown() == "ok"
    weights.write_bytes(b"other")
    assert shown() == "CHANGED"
    weights.unlink()
    assert shown() == "MISSING"


def test_checkpoint_outside_the_workbook_is_refused(home, tmp_path_factory):
    stray = tmp_path_factory.mktemp("elsewhere") / "b.safetensors"
    stray.write_bytes(b"x")
    with pytest.raises(UserError, match=r"checkpoint.file: b.safetensors lies outside"):
        Checkpoint.of(stray)


def test_readme_is_regenerated_and_only_between_the_markers(home, make):
    readme = home / "README.md"
    readme.write_text(f"# Title\n{results.BEGIN}\nold\n{results.END}\nlast line\n")
    save(make())
    bench = {"ratio": 2.5, "ratio_small": 2.5, "ms_small": 1.0, "ms_reference_small": 2.5}
    save(make(name="bench_x", source="none", metrics=bench, paper={}))
    assert update_readme() is True
    assert update_readme() is False
    text = readme.read_text()
    assert text.startswith("# Title\n") and text.endswith("\nlast line\n") and "old" not in text
    assert "0.9123 ± 0.012 (se)" in text
    assert "| bench_x | ratio_small | 2.5 |" in text and "ms_small" not in text
    shown = {"eig_error_mean13": 0.25, "eig_error_mean13_std": 0.125, "of_little_interest": 7.0}
    save(make(name="many", metrics=shown, paper={}))
    save(make(name="few", metrics={"of_more_interest": 3.0}, paper={}))
    assert update_readme() is True
    text = readme.read_text()
    assert "| many | eig_error_mean13 | 0.25 ± 0.12 (std) |" in text and "of_little_interest" not in text
    assert "| few | of_more_interest | 3 |" in text
    long = "kpm train ssm-skd " + "--a-flag 0.125 " * 20
    save(make(name="lengthy", command=long))
    save(make(name="lengthy_too", command=long, metrics={"of_little_interest": 7.0}, paper={}))
    save(make(name="edge", command="k" * results.LONGEST_COMMAND))
    assert update_readme() is True
    rows = {row[0]: row[-1] for row in reversed(cells(readme.read_text()))}  # the first row of each has the command
    assert rows["lengthy"] == "see data/results/lengthy.json" and long not in readme.read_text()
    assert rows["lengthy_too"] == "see data/results/lengthy_too.json"
    assert rows["edge"] == "k" * results.LONGEST_COMMAND and load("lengthy").command == long
    assert long.strip() in table(load_all())  # kpm results has it whole
    save(make(metrics={"D_sd": 0.5}))
    assert update_readme() is True  # a results file that changed is drift
    readme.write_text(readme.read_text().replace("| 0.5 |", "| 0.9 |"))
    assert update_readme() is True  # so is a number changed by hand
    assert "| D_sd | 0.5 |" in readme.read_text()


@pytest.mark.parametrize(
    "text", ["no markers", results.END + results.BEGIN, results.BEGIN + results.BEGIN + results.END]
)
def test_readme_without_its_markers_is_an_error_and_untouched(home, text):
    with pytest.raises(UserError, match=r"README.md is absent"):
        update_readme()
    (home / "README.md").write_text(text)
    with pytest.raises(UserError, match="needs the markers"):
        update_readme()
    assert (home / "README.md").read_text() == text


def test_the_projects_readme_agrees_with_its_results_files():
    readme = paths.root() / "README.md"
    if not readme.is_file():
        pytest.skip("there is no README.md yet")
    text = readme.read_text(encoding="utf-8")
    assert results.BEGIN in text and results.END in text
    region = text.split(results.BEGIN)[1].split(results.END)[0].strip()
    assert region == results.readme_region(load_all()), "run kpm results --readme"


def test_check_agrees_within_tolerance_and_not_outside(home, make, evaluators, capsys):
    save(make(metrics={"a": 1.0, "b": 2.0}))
    values = {"a": 1.009}
    results.evaluator("ssm_skd_sprites", tolerance=0.01)(lambda result: values)
    assert results.results_command(check=True) == 0
    printed = capsys.readouterr().out
    assert "a: ours 1, re-evaluated 1.009, difference +0.009: agrees" in printed
    assert "not re-evaluated: b" in printed
    values["a"] = 1.02
    assert results.results_command(check=True) == 1
    printed = capsys.readouterr().out
    assert "OUTSIDE TOLERANCE" in printed and "1 wrong: ssm_skd_sprites" in printed


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda r: {"new": 1.0}, "NO SUCH METRIC"),
        (lambda r: {"D_sd": math.nan}, "RE-EVALUATION FAILED"),
        (lambda r: {}, "not re-evaluated: D_sd"),
        (lambda r: 1 / 0, "RE-EVALUATION FAILED: ZeroDivisionError"),
    ],
)
def test_check_does_not_pass_a_broken_evaluation(home, make, evaluators, capsys, answer, message):
    save(make())
    results.evaluator("ssm_skd_sprites", tolerance=10.0)(answer)
    assert results.results_command(check=True) == 1
    assert message in capsys.readouterr().out


def test_absolute_tolerance(make, evaluators):
    results.evaluator("ssm_skd_sprites", tolerance=0.0, absolute={"a": 0.1})(lambda r: {"a": 0.05, "b": 1.0})
    assert results.check(make(metrics={"a": 0.0, "b": 1.0}))[0] is True
    assert results.check(make(metrics={"a": 0.2, "b": 1.0}))[0] is False
    assert results.check(make(metrics={"a": 0.0, "b": 1.05}))[0] is False  # it is for the metric it names


def test_details_are_plain_values(make):
    result = make(details={"rows": {"static swap": {"skin": 0.2}}, "partition": {"skin": (1, 2)}})
    assert Result.from_dict(result.to_dict()).details["partition"]["skin"] == [1, 2]
    assert "details" not in make().to_dict()
    with pytest.raises(UserError, match=r"details: expected an object, got list"):
        make(details=[1])
    with pytest.raises(UserError, match=r"details.a: "):
        make(details={"a": float("nan")})


def test_check_hashes_every_checkpoint(weights, make, evaluators, capsys):
    save(make(checkpoint=Checkpoint.of(weights)))
    save(make(name="bench_x", source="none", metrics={"ratio": 2.0}))
    assert results.results_command(check=True) == 0
    printed = capsys.readouterr().out
    assert "sha256 agrees" in printed and "run kpm bench x" in printed
    results.evaluator("ssm_skd_sprites", tolerance=1.0)(lambda result: dict(result.metrics))
    weights.write_bytes(b"other")
    assert results.results_command(check=True) == 1
    assert "checkpoint data/checkpoints/a.safetensors is CHANGED" in capsys.readouterr().out
    weights.unlink()
    assert results.results_command(check=True) == 1
    assert "is MISSING" in capsys.readouterr().out
    assert results.results_command(("bench_x",), check=True) == 0  # the other one was not asked for


def test_check_imports_the_evaluators_module_if_there_is_one(home, make, monkeypatch, capsys):
    monkeypatch.setattr(results, "EVALUATORS", {})
    monkeypatch.setattr(results, "_TOLERANCES", {})
    save(make(metrics={"a": 1.0}))
    name = "kpm.workbook.evaluators"
    monkeypatch.setattr(results.importlib.util, "find_spec", lambda asked: asked == name)

    def load_module(asked):
        results.evaluator("ssm_skd_sprites", tolerance=0.0)(lambda result: {"a": 1.0})
        return types.ModuleType(asked)

    monkeypatch.setattr(results.importlib, "import_module", load_module)
    assert results.results_command(check=True) == 0
    assert "a: ours 1, re-evaluated 1" in capsys.readouterr().out


def test_command_prints_chosen_results_and_writes_the_readme(home, make, capsys):
    assert results.results_command() == 0
    assert "no results yet" in capsys.readouterr().out
    save(make())
    save(make(name="other", metrics={"z": 1.0}))
    (home / "README.md").write_text(f"{results.BEGIN}\n{results.END}\n")
    assert results.results_command(("other",), readme=True) == 0
    printed = capsys.readouterr().out
    assert "other" in printed and "ssm_skd_sprites" not in printed and "README.md updated" in printed
    assert "ssm_skd_sprites" in (home / "README.md").read_text()  # the README always has all of them
    with pytest.raises(UserError, match="unknown result"):
        results.results_command(("nothing",))

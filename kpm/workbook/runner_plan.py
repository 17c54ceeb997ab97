"""What a run will do, worked out before anything starts: parameters, fingerprints, what a resumed run may keep."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kpm.errors import UserError, pick
from kpm.workbook import notebooks
from kpm.workbook.notebooks import Notebook

PACKAGE = Path(__file__).resolve().parents[1]
_OWNED = {"profile": "--profile", "out_dir": "--out"}  # parameters that have an option of their own


@dataclass(frozen=True)
class NotebookRun:
    """One notebook of a run, while it runs and afterwards.

    `state` is one of waiting, running, succeeded, unchanged (kept by a resumed run), failed, skipped, interrupted.
    `wall_s` is in seconds, `peak_bytes` the largest sum of resident memory over the worker, its kernel and their
    children (pages they share count more than once); `cells` counts code cells. `notebook`, `page` and `figures` are
    paths relative to the output folder. `error` is the traceback of a failed notebook without colour codes.
    """

    name: str
    source: str
    profile: str
    parameters: Mapping[str, Any]
    fingerprint: str
    state: str = "waiting"
    reason: str = ""
    started: str = ""
    wall_s: float = 0.0
    expected_s: float | None = None
    peak_bytes: int = 0
    cells: int = 0
    cells_done: int = 0
    attempts: int = 0
    error: str = ""
    notebook: str | None = None
    page: str | None = None
    figures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A notebook to run with the parameters it gets; `needs` only names notebooks of the same run."""

    notebook: Notebook
    parameters: Mapping[str, Any]
    needs: tuple[str, ...]
    fingerprint: str


def parse_value(text: str) -> Any:
    """Read the value of ``-p NAME VALUE``: a Python or JSON literal if it is one, else the text itself.

    >>> [parse_value(t) for t in ("3", "1e-3", "True", "null", "[1, 2]", '"3"', "quick")]
    [3, 0.001, True, None, [1, 2], '3', 'quick']
    """
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    for read in (json.loads, int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def parse_values(texts: Mapping[str, str], names: Sequence[str]) -> dict[str, Any]:
    """`parse_value` of each text, for the notebooks called `names`; `UserError` if there is no such notebook.

    What reads as a number stays a text where a notebook declares a text: a name may be made of digits.
    """
    values = {name: parse_value(text) for name, text in texts.items()}
    numbers = [name for name, value in values.items() if type(value) in (int, float)]
    chosen = notebooks.select(names) if numbers else []
    return values | {n: texts[n] for n in numbers if any(isinstance(c.declares.get(n), str) for c in chosen)}


def plan(chosen: Sequence[Notebook], profile: str, parameters: Mapping[str, Any], out: Path) -> list[Task]:
    """The tasks of a run in reading order.

    Each notebook gets those of `parameters` that it declares; one that none declares is a `UserError` with the
    nearest names, as is a value that is not plain JSON or of another type than the one declared.
    """
    for name, value in parameters.items():
        check_parameter(name, value, chosen)
    given = {n.name: {k: v for k, v in parameters.items() if k in n.declares} for n in chosen}
    prints = _fingerprints(chosen, profile, given, out)
    return [
        Task(
            notebook=notebook,
            parameters={"profile": profile, "out_dir": str(out / notebook.name), **given[notebook.name]},
            needs=tuple(need for need in notebook.needs if need in given),
            fingerprint=prints[notebook.name],
        )
        for notebook in chosen
    ]


def check_parameter(name: str, value: Any, chosen: Sequence[Notebook]) -> None:
    """`UserError` if a parameter is the runner's to set, or declared by none of the notebooks `chosen`.

    And if the value is not plain JSON, or of another type than one of them declares.
    """
    declared = {n for notebook in chosen for n in notebook.declares} - set(_OWNED)
    if name in _OWNED:
        raise UserError(f"parameter {name!r} is set by the runner; use {_OWNED[name]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"parameter {name!r}: {value} is not a finite number")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"parameter {name!r}: {value!r} is not plain JSON ({error})") from error
    if not declared:
        raise UserError(f"unknown parameter {name!r}; no chosen notebook declares any")
    pick("parameter", name, declared)
    for notebook in chosen:
        default = notebook.declares.get(name)
        if not _fits(value, default):
            like = f"{_type_name(default)} as in {notebook.name} ({default!r})"
            raise UserError(f"parameter {name!r}: expected {like}, got {value!r}")


def _fits(value: Any, default: Any) -> bool:
    """Whether `value` has the type of `default`, in lists of one type also their elements; anything is fine for None.

    >>> [_fits(2, 0.5), _fits(0.5, 2), _fits(True, 2), _fits([1, 2], [0.1]), _fits(["a"], [0.1]), _fits("a", None)]
    [True, False, False, True, False, True]
    """
    if default is None:
        return True
    if isinstance(default, list | tuple | set):
        of_one_type = len({type(d) for d in default}) == 1
        return isinstance(value, list | tuple) and (
            not of_one_type or all(_fits(v, next(iter(default))) for v in value)
        )
    wanted = (int, float) if isinstance(default, float) else type(default)
    return isinstance(value, wanted) and isinstance(value, bool) == isinstance(default, bool)


def _type_name(default: Any) -> str:
    """The type of a declared value as it stands in messages: ``int``, ``list of float``."""
    if isinstance(default, list | tuple | set):
        types = {type(d).__name__ for d in default}
        return f"list of {types.pop()}" if len(types) == 1 else "list"
    return type(default).__name__


def _fingerprints(
    chosen: Sequence[Notebook], profile: str, given: Mapping[str, Mapping[str, Any]], out: Path
) -> dict[str, str]:
    """One sha256 per notebook over its cells, its parameters, the package and the notebooks it needs.

    The output folder is left out: results do not depend on where they are written.
    """
    code = package_hash(PACKAGE)
    by_name = {notebook.name: notebook for notebook in chosen}
    prints: dict[str, str] = {}

    def fingerprint(name: str) -> str:
        if name not in by_name:  # not in this run: its artefact is that of its last run
            last = read_status(out, name)
            return last.fingerprint if last else ""
        if name not in prints:
            notebook = by_name[name]
            cells = [(c.cell_type, c.source, notebooks.tags(c)) for c in notebooks.read(notebook.path).cells]
            needs = {need: fingerprint(need) for need in notebook.needs}
            text = json.dumps([cells, profile, given[name], code, needs], sort_keys=True)
            prints[name] = hashlib.sha256(text.encode()).hexdigest()
        return prints[name]

    return {name: fingerprint(name) for name in by_name}


def package_hash(folder: Path) -> str:
    """One sha256 over the names and contents of all Python files below `folder`."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def read_status(out: Path, name: str) -> NotebookRun | None:
    """What ``out/NAME/status.json`` says of the last run; `None` if there is none or it is unreadable."""
    try:
        values = json.loads((out / name / "status.json").read_text(encoding="utf-8"))
        known = {f.name for f in fields(NotebookRun)}
        run = NotebookRun(**{k: tuple(v) if k == "figures" else v for k, v in values.items() if k in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return run


def as_json(run: NotebookRun) -> dict[str, Any]:
    return {**asdict(run), "figures": list(run.figures)}


def unchanged(task: Task, out: Path) -> NotebookRun | None:
    """The earlier run of `task` if it succeeded with the same fingerprint and its notebook is still there."""
    last = read_status(out, task.notebook.name)
    if last is None or last.state != "succeeded" or last.fingerprint != task.fingerprint:
        return None
    return last if last.notebook and (out / last.notebook).is_file() else None

"""A notebook over a grid of parameters: the cells of the grid, one run each, and a table of what came out.

A cell of the grid has a folder of its own, named after its parameters, where `kpm.workbook.runner` runs the notebook.
What succeeded there with the same parameters and code is kept, so a sweep can stop anywhere and go on.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from kpm import files
from kpm.errors import UserError
from kpm.workbook import notebooks, runner, runner_plan
from kpm.workbook.fan_out import fan_out
from kpm.workbook.runner_plan import NotebookRun

_MOST = 10**5
# Columns of the table beside parameters and results.
ABOUT = ("state", "reason", "wall_s", "peak_bytes", "attempts", "cell")


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: a notebook, its profile and parameters, the folder it has to itself, seconds it may take."""

    notebook: Path
    profile: str
    parameters: Mapping[str, Any]
    folder: Path
    timeout_s: float | None = None

    @property
    def key(self) -> str:
        return self.folder.name


def read_grid(path: Path) -> list[dict[str, Any]]:
    """The points of a grid file, each once, in the file's order.

    The file maps parameters to lists of values, whose product is taken; a list of such maps is the union of their
    products. A value that is no list is the same everywhere. Raises `UserError` for anything else.
    """
    try:
        said = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"grid {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"grid {path}: not YAML ({' '.join(str(error).split())})") from error
    blocks = said if isinstance(said, list) else [said]
    points: dict[str, dict[str, Any]] = {}
    for block in blocks:
        if not isinstance(block, dict) or not block or not all(isinstance(name, str) for name in block):
            raise UserError(f"grid {path}: expected a map of parameters to lists of values, got {block!r}")
        axes = {name: values if isinstance(values, list) else [values] for name, values in block.items()}
        if empty := [name for name, values in axes.items() if not values]:
            raise UserError(f"grid {path}: parameter {empty[0]!r} has no values")
        for values in itertools.product(*axes.values()):
            point = dict(zip(axes, values))
            points.setdefault(_canonical(point), point)
            if len(points) > _MOST:
                raise UserError(f"grid {path}: more than {_MOST} points")
    return list(points.values())


def cells(
    notebook: str, points: Sequence[Mapping[str, Any]], profile: str, out: Path, timeout_s: float | None = None
) -> list[Cell]:
    """The runs of a sweep; a parameter that only some points name has the notebook's own value at the others.

    Raises `UserError` for a parameter that the notebook does not declare or that has another type there, and for a
    notebook that needs another one.
    """
    chosen = notebooks.select([notebook])[0]
    if chosen.needs:
        raise UserError(f"{chosen.name} needs {', '.join(chosen.needs)}: a sweep runs one notebook alone")
    values: dict[str, dict[str, Any]] = {}
    for point in points:
        for name, value in point.items():
            values.setdefault(name, {})[_canonical(value)] = value
    for name, given in values.items():
        for value in given.values():
            runner_plan.check_parameter(name, value, [chosen])
    full = [{name: point.get(name, chosen.declares[name]) for name in values} for point in points]
    grid = [Cell(chosen.path, profile, point, out / "cells" / _key(profile, point), timeout_s) for point in full]
    return list({cell.key: cell for cell in grid}.values())


def _canonical(value: Any) -> str:
    """The same text for the same values; what JSON does not know is refused later, by name."""
    return json.dumps(value, sort_keys=True, default=repr)


def _key(profile: str, point: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{profile} {_canonical(point)}".encode()).hexdigest()[:12]


def run_cell(cell: Cell) -> tuple[Cell, NotebookRun]:
    """Run a cell, or keep what is there; a notebook that fails is an answer like any other."""
    with _one_thread():
        done = runner.run(
            [str(cell.notebook)], cell.profile, cell.parameters, out=cell.folder, resume=True, timeout_s=cell.timeout_s
        )
    return cell, done.notebooks[0]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Kernels that start in the block compute with one thread, as many run at once; ``OMP_NUM_THREADS`` overrules."""
    given = "OMP_NUM_THREADS" in os.environ
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        yield
    finally:
        if not given:
            os.environ.pop("OMP_NUM_THREADS", None)


def run(grid: Sequence[Cell], workers: int = 1, scheduler: str = "") -> Iterator[tuple[Cell, NotebookRun]]:
    """Run all cells on a Dask cluster, see `fan_out`; one that fails, or that kills its worker, stops no other."""
    return fan_out(run_cell, grid, workers, scheduler, lost=_lost)


def _lost(cell: Cell, error: BaseException) -> tuple[Cell, NotebookRun]:
    """A cell that no worker could finish: kept on disk like a failed one."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    run = replace(_status(cell) or _not_run(cell), state="failed", reason=reason)
    files.write_json(cell.folder / cell.notebook.stem / "status.json", runner_plan.as_json(run))
    return cell, run


def _status(cell: Cell) -> NotebookRun | None:
    return runner_plan.read_status(cell.folder, cell.notebook.stem)


def _not_run(cell: Cell) -> NotebookRun:
    return NotebookRun(cell.notebook.stem, str(cell.notebook), cell.profile, dict(cell.parameters), "", "not run")


def table(grid: Sequence[Cell]) -> pd.DataFrame:
    """One row per cell, as the folders have them: parameters, results, state, reason, wall seconds, memory, folder.

    Results are the ``numbers`` that the notebook wrote into ``results.json``: those that are numbers or words; a map
    gives a column ``NAME.KEY`` for each of its entries, lists stay in the file. A result with the name of a parameter
    or of a column of the table gets ``result_`` in front.
    """
    return pd.DataFrame([_row(cell) for cell in grid])


def _row(cell: Cell) -> dict[str, Any]:
    run = _status(cell) or _not_run(cell)
    about = {name: getattr(run, name) for name in ABOUT if name != "cell"} | {"cell": cell.key}
    taken = {*cell.parameters, *about}
    numbers = _results(cell) if run.state == "succeeded" else {}
    named = {f"result_{k}" if k in taken else k: v for k, v in _flat(numbers)}
    return {**cell.parameters, **named, **about}


def _results(cell: Cell) -> dict[str, Any]:
    try:
        said = json.loads((cell.folder / cell.notebook.stem / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a notebook need not write any
        return {}
    numbers = said.get("numbers", said) if isinstance(said, dict) else {}
    return numbers if isinstance(numbers, dict) else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float | str):
            yield f"{prefix}{name}", value


def save(found: pd.DataFrame, folder: Path) -> list[Path]:
    """Write the table as ``sweep.csv``, and as ``sweep.parquet`` where pyarrow is installed."""
    written = [files.write_text(folder / "sweep.csv", found.to_csv(index=False))]
    if importlib.util.find_spec("pyarrow"):
        with files.atomic(folder / "sweep.parquet") as part:
            found.to_parquet(part, index=False)
        written.append(folder / "sweep.parquet")
    return written

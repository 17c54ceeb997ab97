"""Notebook files: finding them, what they declare, the house rules, student copies. Nothing is executed here."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from kpm import files, paths
from kpm.errors import UserError, pick

MAX_BYTES = 300_000
MAX_DEFINITION = 1500
REQUIRED_PARAMETERS = ("profile", "seed", "device", "out_dir")
BLANK = "# your code here"
_WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Notebook:
    """What a notebook file says about itself.

    `needs` are the names of the notebooks whose artefacts it reads, `minutes` the expected run time per profile
    (both from ``metadata.kpm``), `declares` the names and default values in the cell tagged ``parameters``.
    """

    path: Path
    needs: tuple[str, ...] = ()
    minutes: Mapping[str, float] = field(default_factory=dict)
    declares: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.stem


def read(path: str | os.PathLike) -> NotebookNode:
    """Read a notebook file as format 4; `UserError` if it is not one."""
    try:
        return nbformat.read(path, as_version=4)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # nbformat raises many kinds for a file that is no notebook
        raise UserError(f"{path}: not a notebook ({str(error).splitlines()[0]})") from error


def tags(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def load(path: str | os.PathLike) -> Notebook:
    """Read what a notebook declares; `UserError` if its ``metadata.kpm`` has the wrong shape."""
    path = Path(path).resolve()
    notebook = read(path)
    house = notebook.metadata.get("kpm", {})
    needs, minutes = house.get("needs", []), house.get("minutes", {})
    if not isinstance(needs, list) or not all(isinstance(n, str) for n in needs):
        raise UserError(f"{path.name}: metadata.kpm.needs must be a list of notebook names, got {needs!r}")
    if not isinstance(minutes, dict) or not all(isinstance(m, int | float) for m in minutes.values()):
        raise UserError(f"{path.name}: metadata.kpm.minutes must map a profile to a number, got {minutes!r}")
    declares, _ = _parameters(notebook)
    return Notebook(path, tuple(needs), dict(minutes), declares)


def discover(folder: Path | None = None) -> list[Path]:
    """The notebooks of a folder (default: the workbook's) in reading order."""
    folder = paths.notebooks() if folder is None else folder
    return sorted(p for p in folder.glob("*.ipynb") if not p.name.startswith("."))


def find(name: str, folder: Path | None = None) -> Path:
    """The notebook meant by a stem (``03_ssm_skd``), a number (``03`` or ``3``) or a path.

    Raises `UserError` with the nearest names if there is none, and with all candidates if a number is ambiguous.
    """
    if name.endswith(".ipynb") or os.sep in name:
        path = Path(name).expanduser()
        if path.is_file():
            return path.resolve()
        name = path.stem
    stems = {p.stem: p for p in discover(folder)}
    if not stems:
        raise UserError(f"no notebook {name!r}: there are none in {folder or paths.notebooks()}")
    if name.isdigit() and name not in stems:
        numbers = {stem: stem.split("_")[0] for stem in stems}
        hits = [stem for stem, number in numbers.items() if number.isdigit() and int(number) == int(name)]
        if len(hits) > 1:
            raise UserError(f"notebook number {name} is ambiguous: {', '.join(hits)}")
        name = hits[0] if hits else name
    return stems[pick("notebook", name, stems)].resolve()


def select(names: Sequence[str] = (), folder: Path | None = None) -> list[Notebook]:
    """Load the named notebooks (none named: all), each once.

    Raises `UserError` for an unknown name, two notebooks of one name, an unknown need, and a circle of needs.
    """
    found = list(dict.fromkeys(find(n, folder) for n in names)) if names else discover(folder)
    if not found:
        raise UserError(f"there are no notebooks in {folder or paths.notebooks()}")
    chosen = [load(p) for p in found]
    for i, notebook in enumerate(chosen):
        if same := [other for other in chosen[:i] if other.name == notebook.name]:
            raise UserError(f"two notebooks are called {notebook.name!r}: {same[0].path} and {notebook.path}")
    _check_needs(chosen)
    return chosen


def _check_needs(chosen: Iterable[Notebook]) -> None:
    """Follow the needs through notebooks that were not chosen too: a circle is a mistake wherever it is."""
    seen = {notebook.name: notebook for notebook in chosen}
    todo = list(seen.values())
    while todo:
        notebook = todo.pop()
        beside = {p.stem: p for p in discover(notebook.path.parent)}
        for need in notebook.needs:
            if need not in seen:
                stem = pick(f"notebook needed by {notebook.name}:", need, {*beside, *seen})
                seen[stem] = load(beside[stem])
                todo.append(seen[stem])
    try:
        TopologicalSorter({name: notebook.needs for name, notebook in seen.items()}).prepare()
    except CycleError as error:
        raise UserError(f"notebooks need each other in a circle: {' -> '.join(reversed(error.args[1]))}") from error


def student_copy(notebook: str | os.PathLike, target: str | os.PathLike) -> Path:
    """Write a copy without the solutions; the source stays as it is.

    A code cell tagged ``solution`` becomes an empty one, other cells so tagged are dropped, and cells tagged
    ``exercise`` lose their outputs.
    """
    if Path(target).resolve() == Path(notebook).resolve():
        raise UserError(f"{target}: the student copy would replace its source")
    copy = read(notebook)
    kept = []
    for cell in copy.cells:
        if "solution" in tags(cell):
            if any(_WIDGET in output.get("data", {}) for output in cell.get("outputs", [])):
                copy.metadata.pop("widgets", None)  # the saved widget state would give the solution away
            if cell.cell_type != "code":
                continue
            cell.source = BLANK
            cell.metadata["tags"] = ["exercise", *(t for t in tags(cell) if t not in ("solution", "exercise"))]
        if cell.cell_type == "code" and "exercise" in tags(cell):
            cell.outputs, cell.execution_count = [], None
        kept.append(cell)
    copy.cells = kept
    return files.write_text(target, nbformat.writes(copy) + "\n")


def student_command(notebooks: tuple[str, ...] = (), out: Path | None = None) -> int:
    """Write copies of the notebooks without their solutions.

    Args:
        notebooks: Names or numbers; all by default.
        out: Folder for the copies; out/student by default.
    """
    out = out or paths.root() / "out" / "student"
    for notebook in select(notebooks):
        print(student_copy(notebook.path, out / notebook.path.name).name)
    return 0


def check(path: str | os.PathLike) -> list[str]:
    """The house rules that a notebook file breaks, one line each; empty if it keeps them all."""
    path = Path(path)
    try:
        notebook = read(path)
        nbformat.validate(notebook)
    except (UserError, nbformat.ValidationError) as error:
        return [f"not a valid notebook: {str(error).splitlines()[0]}"]
    code = [(i, c) for i, c in enumerate(notebook.cells) if c.cell_type == "code" and c.source.strip()]
    if not code:
        return ["has no code cell"]
    problems = _check_parameters(notebook, code[0][1])
    problems += _check_outputs(code)
    if (size := path.stat().st_size) > MAX_BYTES:
        problems.append(f"is {size / 1000:.0f} kB large, more than {MAX_BYTES / 1000:.0f} kB")
    for i, cell in code:
        if len(cell.source) > MAX_DEFINITION and _defines(cell.source):
            problems.append(f"cell {i}: {len(cell.source)} characters with a definition; move it into the package")
        if "injected-parameters" in tags(cell):
            problems.append(f"cell {i}: injected parameters of a run; commit the notebook, not an executed copy")
    if "results" not in code[-1][1].source:
        problems.append(f"cell {code[-1][0]}: the last code cell does not write the results")
    if (kernel := notebook.metadata.get("kernelspec", {}).get("name")) != "python3":
        problems.append(f"the kernel is {kernel!r}, not 'python3'")
    return problems


def _check_parameters(notebook: NotebookNode, first: NotebookNode) -> list[str]:
    if "parameters" not in tags(first):
        return ["the first code cell is not tagged 'parameters'"]
    declares, problems = _parameters(notebook)
    missing = [name for name in REQUIRED_PARAMETERS if name not in declares]
    return problems + ([f"the parameters cell lacks {', '.join(missing)}"] if missing else [])


def _check_outputs(code: list[tuple[int, NotebookNode]]) -> list[str]:
    problems = []
    for i, cell in code:
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(f"cell {i}: has an error output ({output.get('ename')})")
    if not any(cell.outputs for _, cell in code):
        problems.append("has no outputs; commit it with those of a real run")
    # A tool may strip all execution counts; only a mixture says that some cells were not run.
    if any(cell.execution_count for _, cell in code):
        problems += [f"cell {i}: was not run" for i, cell in code if not cell.execution_count]
    return problems


def _parse(source: str) -> ast.Module:
    """Parse a cell, leaving out IPython's magic and shell lines."""
    return ast.parse("\n".join("" if line.lstrip()[:1] in ("%", "!") else line for line in source.splitlines()))


def _defines(source: str) -> bool:
    try:
        tree = _parse(source)
    except SyntaxError:
        return False
    return any(isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for n in ast.walk(tree))


def _parameters(notebook: NotebookNode) -> tuple[dict[str, Any], list[str]]:
    """Names and values assigned in the parameters cell, and what in it is not a plain literal."""
    index = next((i for i, c in enumerate(notebook.cells) if c.cell_type == "code" and "parameters" in tags(c)), None)
    if index is None:
        return {}, []
    try:
        statements = _parse(notebook.cells[index].source).body
    except SyntaxError as error:
        return {}, [f"cell {index}: the parameters cell has a syntax error ({error.msg})"]
    values, problems = {}, []
    for statement in statements:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        assigns = isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None
        if not assigns or len(targets) != 1 or not isinstance(targets[0], ast.Name):
            problems.append(f"cell {index}: line {statement.lineno} of the parameters is not 'name = literal'")
            continue
        try:
            values[targets[0].id] = ast.literal_eval(statement.value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            values[targets[0].id] = None
            problems.append(f"cell {index}: parameter {targets[0].id!r} is not a plain literal")
    return values, problems

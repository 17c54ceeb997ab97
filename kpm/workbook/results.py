"""Results: one JSON file per claim, the table made from them, and their re-evaluation.

A `Result` says what was measured, on which data, with which seeds, hardware, command, commit and environment.
The README's table is generated from the files (`update_readme`), never written by hand.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from numbers import Integral, Real
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import tyro

from kpm import files, paths
from kpm.environment import Environment, checked_fields
from kpm.errors import UserError, pick
from kpm.workbook.headlines import HEADLINES

SOURCES = ("real", "re-render", "synthetic", "none")
SPREADS = {"_se": "se", "_std": "std"}
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
LONGEST_COMMAND = 160  # characters, in the README; longer ones would be most of its table
COLUMNS = ("result", "metric", "ours", "paper", "data", "seeds", "hardware", "checkpoint", "command")


@dataclass(frozen=True)
class Checkpoint:
    """The weights a result was measured on: `file` relative to `kpm.paths.root`, with ``/``, and its sha256."""

    file: str
    sha256: str

    def __post_init__(self) -> None:
        path = PurePosixPath(self.file) if isinstance(self.file, str) else None
        if path is None or path.is_absolute() or ".." in path.parts or "\\" in self.file or ":" in self.file:
            raise UserError(f"checkpoint.file: expected a relative path such as data/checkpoints/…, got {self.file!r}")
        if not isinstance(self.sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise UserError(f"checkpoint.sha256: expected 64 hexadecimal digits, got {self.sha256!r}")

    @classmethod
    def of(cls, path: str | Path) -> Checkpoint:
        """The checkpoint at `path`, which must lie in the workbook's folder."""
        path = Path(path).resolve()
        if not path.is_relative_to(paths.root()):
            raise UserError(f"checkpoint.file: {path.name} lies outside the workbook's folder, so nobody would find it")
        return cls(path.relative_to(paths.root()).as_posix(), files.sha256(path))

    def status(self) -> str:
        """``ok``, ``missing`` (no such file) or ``changed`` (the file's hash is another)."""
        path = paths.root() / self.file
        if not path.is_file():
            return "missing"
        return "ok" if files.sha256(path) == self.sha256 else "changed"


@dataclass(frozen=True)
class Result:
    """One claim. Everything is checked on construction; a bad field raises `UserError` that names it.

    `metrics` and `paper` map a metric's name to a number; ``NAME_se`` or ``NAME_std`` beside ``NAME`` is its standard
    error or deviation. `source` is where the data comes from (`SOURCES`; ``none`` for benchmarks, which need none).
    `wall_s` is in seconds. `curve` is an optional list of points (lists or dicts of finite numbers).
    `details` is an optional object of JSON values, tables behind the metrics. `checkpoint` and `environment` may be
    given as dicts.
    """

    name: str
    dataset: str
    source: Literal["real", "re-render", "synthetic", "none"]
    split: str
    metrics: Mapping[str, float]
    paper: Mapping[str, float]
    seeds: Sequence[int]
    steps: int | None
    wall_s: float
    hardware: str
    checkpoint: Checkpoint | None
    command: str
    commit: str | None
    environment: Environment
    notes: str = ""
    curve: list | None = field(default=None, repr=False)
    details: dict | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
            raise UserError(f"name: expected letters, digits, - and _, got {self.name!r}")
        if self.source not in SOURCES:
            raise UserError(f"source: expected one of {', '.join(SOURCES)}, got {self.source!r}")
        if self.source == "none" and not self.name.startswith("bench_"):
            raise UserError(f"source: only benchmarks (bench_…) may have none, got {self.name!r}")
        for key in ("dataset", "split", "hardware", "command", "notes"):
            value = getattr(self, key)
            if not isinstance(value, str) or not (value.strip() or key == "notes"):
                raise UserError(f"{key}: expected a text, got {value!r}")
        if not (self.commit is None or isinstance(self.commit, str)):
            raise UserError(f"commit: expected a text or null, got {self.commit!r}")
        put = partial(object.__setattr__, self)  # the dataclass is frozen, also to its own checks
        put("metrics", _metrics("metrics", self.metrics))
        put("paper", _metrics("paper", self.paper))
        if not self.metrics:
            raise UserError("metrics: a result needs at least one")
        if isinstance(self.seeds, str) or not isinstance(self.seeds, Sequence):
            raise UserError(f"seeds: expected a list of integers, got {self.seeds!r}")
        put("seeds", tuple(_integer(f"seeds[{i}]", seed) for i, seed in enumerate(self.seeds)))
        put("steps", None if self.steps is None else _integer("steps", self.steps))
        put("wall_s", _number("wall_s", self.wall_s))
        if (self.steps or 0) < 0 or self.wall_s < 0:
            raise UserError(f"steps, wall_s: must not be negative, got {self.steps!r}, {self.wall_s!r}")
        if self.checkpoint is not None and not isinstance(self.checkpoint, Checkpoint):
            put("checkpoint", Checkpoint(**checked_fields(Checkpoint, self.checkpoint, "checkpoint")))
        if not isinstance(self.environment, Environment):
            put("environment", Environment.from_dict(self.environment))
        if self.curve is not None:
            if not isinstance(self.curve, list | tuple):
                raise UserError(f"curve: expected a list of points, got {type(self.curve).__name__}")
            put("curve", _plain("curve", self.curve))
        if self.details is not None:
            if not isinstance(self.details, Mapping):
                raise UserError(f"details: expected an object, got {type(self.details).__name__}")
            put("details", _plain("details", self.details))

    def to_dict(self) -> dict[str, Any]:
        """The result as it stands in the file; optional fields that are empty are left out."""
        value = {**asdict(self), "seeds": list(self.seeds), "environment": self.environment.to_dict()}
        empty = {"notes": "", "curve": None, "details": None}
        return {key: v for key, v in value.items() if not (key in empty and v == empty[key])}

    @classmethod
    def from_dict(cls, value: Any) -> Result:
        """The inverse of `to_dict`. Raises `UserError` naming an unknown, missing or malformed field."""
        return cls(**checked_fields(cls, value, ""))


def save(result: Result, folder: str | Path | None = None) -> Path:
    """Write `result` to ``NAME.json`` in `folder` (default `kpm.paths.results`), whole or not at all."""
    return files.write_json(Path(folder or paths.results()) / f"{result.name}.json", result.to_dict())


def load(name: str, folder: str | Path | None = None) -> Result:
    """Read one result. `UserError` with the nearest names if there is none, or naming file and field if it is bad."""
    folder = Path(folder or paths.results())
    path = folder / f"{pick('result', name, [p.stem for p in folder.glob('*.json')])}.json"
    try:
        # json.loads takes NaN and Infinity by default, which are not JSON.
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        result = Result.from_dict(value)
    except UserError as error:
        raise UserError(f"results file {path.name}: {error}") from None
    except ValueError as error:
        raise UserError(f"results file {path.name} is not valid JSON: {error}") from None
    if result.name != path.stem:
        raise UserError(f"results file {path.name}: name: expected {path.stem!r}, got {result.name!r}")
    return result


def find(name: str, folder: str | Path | None = None) -> Result | None:
    """`load`, or None if there is no such result."""
    return load(name, folder) if (Path(folder or paths.results()) / f"{name}.json").is_file() else None


def load_all(folder: str | Path | None = None) -> list[Result]:
    """Every result in `folder`, sorted by name; an absent folder holds none."""
    folder = Path(folder or paths.results())
    return [load(path.stem, folder) for path in sorted(folder.glob("*.json"))]


def table(
    results: Iterable[Result],
    format: Literal["text", "markdown"] = "text",
    keep: Callable[[str], bool] = lambda metric: True,
) -> str:
    """The comparison table: one row per result and metric, with the paper's value and where ours comes from.

    What is common to a result's rows stands in the first of them. `keep` selects metrics by name.
    """
    rows = [row for result in results for row in _rows(result, keep)]
    if format == "markdown":
        cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        return "\n".join(f"| {' | '.join(row)} |" for row in [list(COLUMNS), ["---"] * len(COLUMNS), *cells])
    if format != "text":
        raise UserError(f"format: expected text or markdown, got {format!r}")
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows)]
    lines = [COLUMNS, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in lines)


def readme_region(results: Iterable[Result]) -> str:
    """What stands between the README's two markers: results, then of the benchmarks the ratios."""
    results = list(results)
    claims = [r for r in results if not r.name.startswith("bench_")]
    benchmarks = [r for r in results if r.name.startswith("bench_")]
    parts = [table(map(_in_short, claims), "markdown")] if claims else ["No results yet."]
    if benchmarks:
        parts.append("Benchmarks (ratio: time of the reference over ours, so above 1 is faster):")
        parts.append(table(benchmarks, "markdown", keep=lambda metric: metric.startswith("ratio")))
    return "\n\n".join(parts)


def _in_short(result: Result) -> Result:
    """With the metrics a reader looks for first: those of the paper and `HEADLINES`; all, if there is none of these.

    The rest would fill pages; ``kpm results NAME`` has it, and the whole of a command longer than `LONGEST_COMMAND`.
    """
    if len(result.command) > LONGEST_COMMAND:
        result = replace(result, command=f"see data/results/{result.name}.json")
    names = {m for m in result.metrics if m in result.paper or m in HEADLINES}
    if not names:
        return result
    shown = {m: v for m, v in result.metrics.items() if m in names or any(m == n + s for n in names for s in SPREADS)}
    return replace(result, metrics=shown)


def update_readme(path: str | Path | None = None) -> bool:
    """Regenerate the README's results from the files; return whether that changed anything.

    Raises `UserError` if the README or one of its two markers is absent.
    """
    path = Path(path or paths.root() / "README.md")
    if not path.is_file():
        raise UserError(f"{path.name} is absent, so its results cannot be updated")
    old = path.read_text(encoding="utf-8")
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise UserError(f"{path.name} needs the markers {BEGIN} and {END}, once each, in this order")
    head, tail = old[: old.index(BEGIN)], old[old.index(END) :]
    new = f"{head}{BEGIN}\n{readme_region(load_all())}\n{tail}"
    if new != old:
        files.write_text(path, new)
    return new != old


Evaluator = Callable[[Result], dict[str, float]]
EVALUATORS: dict[str, Evaluator] = {}
_TOLERANCES: dict[str, tuple[float, Mapping[str, float]]] = {}


def evaluator(
    name: str, tolerance: float, absolute: Mapping[str, float] | None = None
) -> Callable[[Evaluator], Evaluator]:
    """Decorator: register a function that measures the metrics of result `name` again, in minutes.

    A metric agrees if it is within `tolerance` relative to the larger of the two values, or within the number that
    `absolute` has for it (for what is measured again on fewer draws).
    """

    def register(function: Evaluator) -> Evaluator:
        EVALUATORS[name] = function
        _TOLERANCES[name] = (tolerance, absolute or {})
        return function

    return register


def check(result: Result) -> tuple[bool, list[str]]:
    """Hash the checkpoint of `result` and, where there is an evaluator, measure its metrics again.

    Returns whether nothing was found wrong, and the lines to print. An evaluator that fails counts as wrong.
    """
    lines = [result.name]
    if result.checkpoint and (status := result.checkpoint.status()) != "ok":
        # Other weights have other metrics: measuring them would compare two different things.
        return False, [*lines, f"  checkpoint {result.checkpoint.file} is {status.upper()}; not re-evaluated"]
    if result.checkpoint:
        lines.append(f"  checkpoint {result.checkpoint.file}: sha256 agrees")
    if result.name not in EVALUATORS:
        how = (
            f"run kpm bench {result.name.removeprefix('bench_')}"
            if result.name.startswith("bench_")
            else result.command
        )
        return True, [*lines, f"  not re-evaluated ({how})"]
    relative, absolute = _TOLERANCES[result.name]
    try:
        again = _metrics("evaluator", EVALUATORS[result.name](result))
    except Exception as error:
        return False, [*lines, f"  RE-EVALUATION FAILED: {type(error).__name__}: {error}"]
    good = bool(again)
    for name, value in again.items():
        if name not in result.metrics:
            good = False
            lines.append(f"  {name}: re-evaluated {value:.6g}, but the results file has NO SUCH METRIC")
            continue
        ours = result.metrics[name]
        within = absolute.get(name, 0.0)
        close = math.isclose(ours, value, rel_tol=relative, abs_tol=within)
        good &= close
        verdict = "agrees" if close else f"OUTSIDE TOLERANCE (relative {relative:g}, absolute {within:g})"
        lines.append(f"  {name}: ours {ours:.6g}, re-evaluated {value:.6g}, difference {value - ours:+.2g}: {verdict}")
    if left := [name for name in result.metrics if name not in again]:
        lines.append(f"  not re-evaluated: {', '.join(left)}")
    return good, lines


def results_command(
    names: tyro.conf.Positional[tuple[str, ...]] = (), check: bool = False, readme: bool = False
) -> int:
    """Print the results table: ours, the paper's, data, seeds, hardware, command.

    Args:
        names: Only these results; all if none is named.
        check: Re-evaluate from the shipped checkpoints what can be; exit code 1 if something differs.
        readme: Regenerate the README's table from the results files.
    """
    chosen = [load(name) for name in names] or load_all()
    if not chosen:
        print("no results yet")
    elif not check:
        print(table(chosen))
    good = not check or _check_all(chosen)
    if readme:
        print(f"README.md {'updated' if update_readme() else 'was up to date'}")
    return 0 if good else 1


def _check_all(chosen: list[Result]) -> bool:
    if importlib.util.find_spec("kpm.workbook.evaluators"):  # it imports the models, so only when asked
        importlib.import_module("kpm.workbook.evaluators")
    bad = []
    for result in chosen:
        good, lines = check(result)
        print("\n".join(lines))
        bad += [] if good else [result.name]
    measured = sum(result.name in EVALUATORS for result in chosen)
    print(f"{len(chosen)} results, {measured} with an evaluator, {len(bad)} wrong" + ": " * bool(bad) + ", ".join(bad))
    return not bad


def _rows(result: Result, keep: Callable[[str], bool]) -> Iterable[list[str]]:
    seeds = ", ".join(map(str, result.seeds)) if len(result.seeds) <= 3 else f"{len(result.seeds)} seeds"
    checkpoint = "-" if result.checkpoint is None else result.checkpoint.status()
    data = "-" if result.source == "none" else f"{result.dataset} ({result.source}), {result.split}"
    checkpoint = checkpoint.upper() if checkpoint in ("missing", "changed") else checkpoint
    shared = [data, seeds or "-", result.hardware, checkpoint, result.command]
    names = dict.fromkeys([*result.metrics, *result.paper])  # a value only the paper has is a row too
    for name in names:
        if keep(name) and not _is_spread(name):
            yield [result.name, name, _value(result.metrics, name), _value(result.paper, name), *shared]
            shared = [""] * len(shared)


def _is_spread(name: str) -> bool:
    return name.endswith(tuple(SPREADS))


def _value(metrics: Mapping[str, float], name: str) -> str:
    if name not in metrics:
        return "-"
    spreads = [f" ± {metrics[name + end]:.2g} ({word})" for end, word in SPREADS.items() if name + end in metrics]
    return f"{metrics[name]:.4g}" + "".join(spreads)


def _number(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"{where}: expected a number, got {value!r}")
    if not math.isfinite(value):
        raise UserError(f"{where}: expected a finite number, got {value!r}")
    return float(value)


def _integer(where: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UserError(f"{where}: expected an integer, got {value!r}")
    return int(value)


def _metrics(where: str, value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected names and numbers, got {value!r}")
    for name in value:
        if not isinstance(name, str) or not name:
            raise UserError(f"{where}: expected a name, got {name!r}")
        if _is_spread(name) and name.removesuffix("_se").removesuffix("_std") not in value:
            raise UserError(f"{where}.{name}: there is no metric it would be the spread of")
    return {name: _number(f"{where}.{name}", number) for name, number in value.items()}


def _plain(where: str, value: Any) -> Any:
    """`value` with only what JSON can hold; numbers must be finite."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(f"{where}.{key}", v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(f"{where}[{i}]", v) for i, v in enumerate(value)]
    return int(value) if isinstance(value, Integral) else _number(where, value)


def _refuse(constant: str) -> None:
    raise UserError(f"{constant} is not a number JSON knows")

"""The eigenvalue tables of the DSE paper from trials: comparable ones, all forms of the error, differences in pairs."""

from __future__ import annotations

import collections
import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from kpm.metrics.spectral_error import readings
from kpm.workbook import dse_trials
from kpm.workbook.dse_trials import SYSTEMS, Found, Task

# Mean and standard deviation over 50 trials, as printed in [DSE] tables 3 and 4; "all" is the paper's own average, in
# table 3 over twenty levels. Which form of the error they are is not said.
PAPER: dict[str, dict[str, dict[str, tuple[float, float]]]] = {
    "vdp": {
        "0.05": {"DSE": (0.016, 0.025), "ELTO": (0.024, 0.039), "sDMD": (0.043, 0.013), "hDMD": (0.076, 0.042)},
        "0.10": {"DSE": (0.014, 0.026), "ELTO": (0.016, 0.029), "sDMD": (0.043, 0.013), "hDMD": (0.109, 0.072)},
        "0.15": {"DSE": (0.023, 0.028), "ELTO": (0.024, 0.041), "sDMD": (0.044, 0.012), "hDMD": (0.129, 0.082)},
        "0.20": {"DSE": (0.020, 0.035), "ELTO": (0.019, 0.039), "sDMD": (0.044, 0.012), "hDMD": (0.143, 0.091)},
        "all": {"DSE": (0.019, 0.029), "ELTO": (0.024, 0.046), "sDMD": (0.045, 0.020), "hDMD": (0.104, 0.074)},
    },
    "sl": {
        "0.01": {"DSE": (0.035, 0.025), "ELTO": (0.044, 0.026), "sDMD": (0.044, 0.025), "eDMD": (0.325, 0.129)},
        "0.05": {"DSE": (0.043, 0.036), "ELTO": (0.061, 0.042), "sDMD": (0.050, 0.024), "eDMD": (0.318, 0.132)},
        "0.09": {"DSE": (0.042, 0.033), "ELTO": (0.063, 0.034), "sDMD": (0.063, 0.031), "eDMD": (0.323, 0.126)},
        "all": {"DSE": (0.041, 0.032), "ELTO": (0.058, 0.034), "sDMD": (0.052, 0.026), "eDMD": (0.321, 0.130)},
    },
}
FORMS = ("total", "mean13", "mean9", "matched")
OWN, PUBLISHED = "dse", "dse_published"


@dataclasses.dataclass(frozen=True)
class Row:
    """A method at one level of noise, or over all levels (`level` "all").

    Attributes
    ----------
    level, method : str
    trials : int
        The forms of the error are means over them.
    eigenvalues : int
        The fewest that a trial had; nearest matching may use each several times.
    errors : dict
        All `metrics.spectral_error.readings`: ``total``, ``mean13``, ``mean9`` (mean over ``|m| <= 4``), ``m0`` ...
        ``m6``, matched with the nearest, and where there are 13 the same one to one, ``matched`` for the mean over 13.
        Where the system has a second reference, ``weak_mean13`` is the error against that.
    stds : dict
        Standard deviations over the trials, of a sample; 0 for a single trial.
    wall_s : float
        Median seconds of a trial.
    pairs : int
        Trials that DSE and this method both have.
    less, less_se : float
        Mean over these of the difference of ``mean13``, DSE minus this method, and its standard error; None for
        fewer than two pairs and for DSE itself.
    """

    level: str
    method: str
    trials: int
    eigenvalues: int
    errors: dict[str, float]
    stds: dict[str, float]
    wall_s: float
    pairs: int = 0
    less: float | None = None
    less_se: float | None = None


def collect(plan: Sequence[Task]) -> dict[Task, Found]:
    """What is kept of the tasks of a plan."""
    kept = ((task, dse_trials.load(task)) for task in plan)
    return {task: found for task, found in kept if found is not None}


def comparable(kept: Mapping[Task, Found]) -> dict[Task, Found]:
    """The trials 1 ... n that all compared methods have at all levels; those of the published reading up to its own n.

    Methods without any such trial are left out.
    """
    levels = {task.level for task in kept}
    have = collections.defaultdict(set)
    for task in kept:
        have[task.method, task.level].add(task.trial)
    unbroken = {
        method: min(_unbroken(have[method, level]) for level in levels) for method in {task.method for task in kept}
    }
    common = min((n for method, n in unbroken.items() if n and method != PUBLISHED), default=0)
    most = {method: n and (n if method == PUBLISHED else common) for method, n in unbroken.items()}
    return {task: found for task, found in kept.items() if task.trial <= most[task.method]}


def _unbroken(trials: set[int]) -> int:
    """How many of 1, 2, ... are there before the first that is not."""
    count = 0
    while count + 1 in trials:
        count += 1
    return count


def table(system: str, kept: Mapping[Task, Found]) -> list[Row]:
    """A row for each method at each level, and over all levels, of trials such as `comparable` gives."""
    rows = []
    for level in sorted({task.level for task in kept}):
        by_method: dict[str, dict[int, Found]] = {}
        for task, found in kept.items():
            if task.level == level:
                by_method.setdefault(task.method, {})[task.trial] = found
        references = SYSTEMS[system].references(level)
        errors = {
            method: {trial: _errors(references, one) for trial, one in found.items()}
            for method, found in by_method.items()
        }
        for method, found in by_method.items():
            rows.append(_row(f"{level:.2f}", method, errors, found))
    if len({row.level for row in rows}) > 1:
        rows += [_over_levels([row for row in rows if row.method == name]) for name in {r.method: None for r in rows}]
    return rows


def _errors(references, found: Found) -> dict[str, float]:
    """All forms of the error of one trial, and the mean over 13 against other references."""
    (_, (harmonics, first)), *others = references.items()
    forms = readings(first, found.eigenvalues, harmonics)
    for name, (harmonics, reference) in others:
        forms[f"{name}_mean13"] = readings(reference, found.eigenvalues, harmonics)["mean13"]
    return {name: float(value) for name, value in forms.items()}


def _row(
    level: str, method: str, errors: Mapping[str, Mapping[int, Mapping[str, float]]], found: Mapping[int, Found]
) -> Row:
    own, these = errors.get(OWN, {}), errors[method]
    forms = [name for name in next(iter(these.values())) if all(name in one for one in these.values())]
    values = {name: [one[name] for one in these.values()] for name in forms}
    pairs = sorted(set(own) & set(these)) if method != OWN else []
    less = [own[trial]["mean13"] - these[trial]["mean13"] for trial in pairs]
    return Row(
        level=level,
        method=method,
        trials=len(these),
        eigenvalues=min(len(one.eigenvalues) for one in found.values()),
        errors={name: statistics.fmean(v) for name, v in values.items()},
        stds={name: statistics.stdev(v) if len(v) > 1 else 0.0 for name, v in values.items()},
        wall_s=statistics.median(one.wall_s for one in found.values()),
        pairs=len(pairs),
        less=statistics.fmean(less) if len(less) > 1 else None,
        less_se=statistics.stdev(less) / len(less) ** 0.5 if len(less) > 1 else None,
    )


def _over_levels(rows: list[Row]) -> Row:
    """Means over the levels, each with the same weight; the deviation is that of all trials around their level.

    A level with one trial says nothing of deviations and does not count in them.
    """
    freedom = sum(row.trials - 1 for row in rows)

    def spread(form: str) -> float:
        return (sum((row.trials - 1) * row.stds[form] ** 2 for row in rows) / freedom) ** 0.5 if freedom else 0.0

    forms = [name for name in rows[0].errors if all(name in row.errors for row in rows)]
    paired = all(row.less is not None for row in rows)
    return Row(
        level="all",
        method=rows[0].method,
        trials=sum(row.trials for row in rows),
        eigenvalues=min(row.eigenvalues for row in rows),
        errors={name: statistics.fmean(row.errors[name] for row in rows) for name in forms},
        stds={name: spread(name) for name in forms},
        wall_s=statistics.median(row.wall_s for row in rows),
        pairs=sum(row.pairs for row in rows),
        less=statistics.fmean(row.less for row in rows) if paired else None,
        less_se=sum(row.less_se**2 for row in rows) ** 0.5 / len(rows) if paired else None,
    )


def as_text(system: str, rows: Sequence[Row]) -> str:
    """The table, with the paper's figures under ours of the same level.

    Last but one is the difference of mean13, DSE minus the method, over common trials, and its standard error.
    """
    forms = [*FORMS, *sorted({form for row in rows for form in row.errors if form.startswith("weak")})]
    head = f"{'noise':<6}{'method':<21}{'trials':>6}{'values':>7}" + "".join(f"{form:>19}" for form in forms)
    lines = [head + f"{'dse - this ± se':>22}{'s':>7}"]
    for level in dict.fromkeys(row.level for row in rows):
        for row in (row for row in rows if row.level == level):
            cells = "".join(_cell(row, form) for form in forms)
            less = "-" if row.less is None else f"{row.less:+.5f} ± {row.less_se:.5f}"
            head = f"{level:<6}{row.method:<21}{row.trials:>6}{row.eigenvalues:>7}"
            lines.append(f"{head}{cells}{less:>22}{row.wall_s:>7.1f}")
        paper = PAPER[system].get(level, {})
        if paper:
            told = ", ".join(f"{name} {mean:.3f} ± {std:.3f}" for name, (mean, std) in paper.items())
            lines.append(f"{level:<6}paper: {told}")
    return "\n".join(lines)


def _cell(row: Row, form: str) -> str:
    """Mean and deviation, in 19 characters; no deviation of a single trial."""
    if form not in row.errors:
        return f"{'-':>19}"
    spread = f" ± {row.stds[form]:.5f}" if row.trials > 1 else " " * 10
    return f"{row.errors[form]:>9.5f}{spread}"


def form_of_paper(system: str, rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """By which factor each form of the published reading's error is above the paper's figure, level by level."""
    ratios = {}
    for row in rows:
        if row.method == "dse_published" and row.level in PAPER[system]:
            figure = PAPER[system][row.level]["DSE"][0]
            ratios[row.level] = {form: row.errors[form] / figure for form in FORMS if form in row.errors}
    return ratios

"""DSE with one thing changed: how many coordinates its state has, and what each component is worth for a spectrum.

Variants are methods such as `dse_rank_9` or `dse_joint` (`dse_trials.VARIANTS`) that ``kpm dse vdp --methods`` runs.
Here their trials are put beside those of the preset. One of the ranks is what the data would choose: that whose model
predicts the frames after the training part best (`dse_trials.held_out_error`), for which no reference is needed.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from kpm.metrics.spectral_error import readings
from kpm.workbook import dse_trials
from kpm.workbook.dse_table import OWN, collect
from kpm.workbook.dse_trials import SYSTEMS, VARIANTS, Found, Task


@dataclasses.dataclass(frozen=True)
class VariantRow:
    """A variant at one level of noise.

    Attributes
    ----------
    level, method : str
    trials : list of int
        Those that it has in common with the preset, ``dse``.
    mean13, held_out : list of float
        Of each of these: mean error over 13 harmonics, and `dse_trials.held_out_error` (none where not known).
    preset : list of float
        `mean13` of the preset.
    wall_s : float
        Median seconds of a trial.
    """

    level: str
    method: str
    trials: list[int]
    mean13: list[float]
    held_out: list[float | None]
    preset: list[float]
    wall_s: float

    @property
    def rank(self) -> int | None:
        """Of ``dse_rank_...``; None for other variants."""
        return int(self.method.removeprefix("dse_rank_")) if self.method.startswith("dse_rank_") else None

    @property
    def more(self) -> tuple[float, float | None]:
        """Mean difference to the preset on the same trials, and its standard error (None for a single one)."""
        more = [a - b for a, b in zip(self.mean13, self.preset)]
        return statistics.fmean(more), statistics.stdev(more) / len(more) ** 0.5 if len(more) > 1 else None


def variants(system: str, folder: Path, most: int = 50) -> list[VariantRow]:
    """The variants that have trials in a folder, level by level."""
    levels = SYSTEMS[system].levels
    return rows(system, collect(dse_trials.plan(system, (OWN, *VARIANTS[system]), levels, most, folder)))


def command(system: str, found: Iterable[VariantRow]) -> str:
    """What runs the variants' trials, in so far as they begin with the first; empty without any."""
    found = list(found)
    methods, levels = (sorted({getattr(row, name) for row in found}) for name in ("method", "level"))
    most = max((trial for row in found for trial in row.trials), default=0)
    words = ["kpm dse", system, "--trials", most, "--levels", *levels, "--methods", OWN, *methods]
    return " ".join(map(str, words)) if found else ""


def rows(system: str, kept: Mapping[Task, Found]) -> list[VariantRow]:
    """Those of given trials."""
    found = []
    for level in sorted({task.level for task in kept}):
        harmonics, reference = next(iter(SYSTEMS[system].references(level).values()))

        def error(one: Found) -> float:
            return float(readings(reference, one.eigenvalues, harmonics)["mean13"])  # noqa: B023 called at once

        here = {(task.method, task.trial): one for task, one in kept.items() if task.level == level}
        for method in VARIANTS[system]:
            trials = sorted(trial for name, trial in here if name == method and (OWN, trial) in here)
            if trials:
                own, these = ([here[name, trial] for trial in trials] for name in (OWN, method))
                errors, preset, held_out = [*map(error, these)], [*map(error, own)], [one.held_out for one in these]
                seconds = statistics.median(one.wall_s for one in these)
                found.append(VariantRow(f"{level:.2f}", method, trials, errors, held_out, preset, seconds))
    return found


@dataclasses.dataclass(frozen=True)
class Choice:
    """The rank that the data choose in a trial, its error, that of the preset, and the least of all ranks tried."""

    level: str
    trial: int
    rank: int
    mean13: float
    preset: float
    least: float


def chosen(found: Iterable[VariantRow]) -> list[Choice]:
    """For each trial that all ranks have, that with the least held-out error."""
    choices = []
    by_level: dict[str, list[VariantRow]] = {}
    for row in found:
        if row.rank is not None:
            by_level.setdefault(row.level, []).append(row)
    for level, ranks in by_level.items():
        for trial in sorted(set.intersection(*(set(row.trials) for row in ranks))):
            at = [(row.held_out[i := row.trials.index(trial)], row.rank, row.mean13[i], row.preset[i]) for row in ranks]
            _, rank, error, preset = min(at)
            choices.append(Choice(level, trial, rank, error, preset, min(one[2] for one in at)))
    return choices

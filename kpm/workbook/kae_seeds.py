"""What `kpm kae` finds with several seeds, together."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kpm.environment import Environment
from kpm.training.run_folder import Log
from kpm.workbook import results


@dataclasses.dataclass(frozen=True)
class Found:
    """A surrogate's checkpoint and its meta, its figures and tables, and the seconds all of it took here."""

    path: Path
    meta: dict[str, Any]
    metrics: dict[str, float]
    details: dict[str, Any]
    wall_s: float


def means(every: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric, and beside it the standard deviation over seeds as ``NAME_std``."""
    found = {}
    for key in every[0]:
        values = [metrics[key] for metrics in every]
        found[key] = statistics.fmean(values)
        if len(values) > 1 and key != "forgotten":  # a name, not a figure
            found[f"{key}_std"] = statistics.stdev(values)
    return found


def result(
    name: str,
    data: Any,
    every: Sequence[Found],
    paper: Mapping[str, float],
    notes: str,
    command: str,
    shipped: Path | None = None,
) -> results.Result:
    """What was found with each seed as one result; tables stand in its details, of several seeds under ``seeds``."""
    meta = [f.meta for f in every]
    machine = Environment.from_dict(meta[0]["environment"])
    seeds = [m["train"]["seed"] for m in meta]
    curve = Log(every[0].path.parent / "log.jsonl").read("validation")
    spread = "one seed" if len(every) == 1 else "mean and deviation over seeds, and wall_s is of all trainings"
    spent = sum(f.wall_s for f in every)
    tables = [f.details for f in every]
    return results.Result(
        name=name,
        dataset=data.name,
        source=data.source,
        split="test",
        metrics=means([f.metrics for f in every]),
        paper=paper,
        seeds=seeds,
        steps=max(m["progress"]["best"]["step"] for m in meta),
        wall_s=round(sum(m["progress"]["wall_s"] for m in meta), 1),
        hardware=machine.hardware,
        checkpoint=results.Checkpoint.of(shipped) if shipped else None,
        command=command,
        commit=machine.commit,
        environment=machine,
        notes=f"{notes} Accuracies are means over classes; {spread}; done in {spent:.0f} s.",
        curve=[{k: v for k, v in e.items() if isinstance(v, int | float)} for e in curve],
        details=tables[0] if len(every) == 1 else {"seeds": dict(zip(map(str, seeds), tables, strict=True))},
    )

"""What `kpm kae` finds with several seeds, together."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kpm.environment import Environment
from kpm.errors import UserError
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


def save(
    name: str, data: Any, seeds: Sequence[int], every: Sequence[Found], paper: Mapping[str, float], notes: str
) -> None:
    """Write the results file of all seeds; each one's tables of edits stand in its details."""
    if data.source != "real":
        raise UserError(f"save: {data.name} is a stand-in, and {name} is a result on the real data")
    machine = Environment.from_dict(every[0].meta["environment"])
    progress = [f.meta["progress"] for f in every]
    wide = " --wide" if name.endswith("_wide") else ""
    curves = [Log(f.path.parent / "log.jsonl").read("validation") for f in every]
    result = results.Result(
        name=name,
        dataset=data.name,
        source=data.source,
        split="test",
        metrics=means([f.metrics for f in every]),
        paper=paper,
        seeds=seeds,
        steps=max(p["best"]["step"] for p in progress),
        wall_s=round(sum(p["wall_s"] for p in progress), 1),
        hardware=machine.hardware,
        checkpoint=None,
        command=f"kpm kae mnist{wide} --seeds {' '.join(map(str, seeds))} --save",
        commit=machine.commit,
        environment=machine,
        notes=f"{notes} Accuracies are means over classes; mean and deviation over seeds; wall_s is the training of "
        "all surrogates.",
        curve=[{k: v for k, v in e.items() if isinstance(v, int | float)} for e in curves[0]],
        details={"seeds": {str(s): {"metrics": f.metrics, **f.details} for s, f in zip(seeds, every, strict=True)}},
    )
    print(f"saved to {results.save(result).name}; kpm results --readme renews the table")

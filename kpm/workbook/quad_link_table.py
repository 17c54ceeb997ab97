"""The table of the quad-link comparison, from the trials a folder holds, with the paper's figures beside."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from kpm import environment
from kpm.errors import UserError
from kpm.workbook.results import Checkpoint, Result

HORIZONS = (1, 5, 10, 15, 20)
TRIVIAL = ("black", "mean_image", "last_frame", "noise_floor")
# [DSE] table 1: one step; frames, corrupted.
TABLE_1 = {
    ("1.5k", False): {
        "rkn": (0.2198, 0.0132),
        "lstm": (0.2527, 0.0152),
        "elto": (0.2175, 0.0130),
        "dse": (0.2006, 0.0228),
    },
    ("1.5k", True): {
        "rkn": (0.2944, 0.0236),
        "lstm": (0.3167, 0.0223),
        "elto": (0.2942, 0.0215),
        "dse": (0.2593, 0.0274),
        "ncdssm": (0.2804, 0.0358),  # from table 2
        # From table 7. Its DSE without closed form has networks of three layers in place of the operators.
        "dse_codes": (0.2903, 0.0455),
        "dse_learned": (0.2758, 0.0405),
        "dse_joint": (0.2977, 0.0512),
    },
    ("15k", False): {
        "rkn": (0.2838, 0.0190),
        "lstm": (0.3050, 0.0183),
        "elto": (0.2924, 0.0175),
        "dse": (0.2615, 0.0211),
    },
    ("15k", True): {
        "rkn": (0.3258, 0.0241),
        "lstm": (0.3158, 0.0244),
        "elto": (0.2936, 0.0207),
        "dse": (0.2683, 0.0254),
    },
}
# [DSE] table 2: five horizons, of which the first is 1 and the others are not known; corrupted.
TABLE_2 = {
    "elto": (0.2942, 0.3104, 0.3309, 0.3068, 0.3953),
    "rkn": (0.2944, 0.3209, 0.3452, 0.3758, 0.4057),
    "lstm": (0.3167, 0.3557, 0.3852, 0.4109, 0.4307),
    "ncdssm": (0.2804, 0.3005, 0.3259, 0.3607, 0.4004),
    "dse": (0.2593, 0.2754, 0.2952, 0.3256, 0.3805),
}

METHODS = ("linear", "elto", "rkn", "lstm", "ncdssm", "dse", "dse_plain", "dse_joint", "dse_learned", "dse_codes")
Cells = dict[str, dict[str, dict[int, list[float]]]]


def path(folder: Path, size: str, corrupted: bool, method: str, trial: int | str) -> Path:
    """The file of one trial of one method."""
    return folder / f"{size}_{_films(corrupted)}" / f"{method}_{trial}.json"


def read(folder: Path, size: str, corrupted: bool) -> list[dict[str, Any]]:
    """All trials that a folder holds, in the order of the methods."""
    found = path(folder, size, corrupted, "*", "*")
    records = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(found.parent.glob(found.name))]
    return sorted(records, key=lambda r: (("trivial", *METHODS).index(r["method"]), r["trial"]))


def cells(records: list[dict[str, Any]]) -> Cells:
    """``{method: {target: {horizon: errors of all trials}}}``."""
    found: Cells = {}
    for record in records:
        rows = record["predictors"] if record["method"] == "trivial" else {record["method"]: record["errors"]}
        for method, by_target in rows.items():
            for target, by_horizon in by_target.items():
                for h, value in by_horizon.items():
                    found.setdefault(method, {}).setdefault(target, {}).setdefault(int(h), []).append(value)
    return found


def table(records: list[dict[str, Any]], size: str, corrupted: bool) -> str:
    """Mean and standard deviation over the trials, by target, method and horizon; the paper's one-step error beside."""
    found, lines = cells(records), []
    for target in ("observed", "clean") if corrupted else ("clean",):
        against = "the frames that came" if target == "observed" else "the clean frames"
        lines += ["", f"{size} {_films(corrupted)} films; mean squared error against {against}"]
        head = [f"{f'h = {h}':>18}" for h in HORIZONS]
        lines += [f"{'method':<12}{'trials':>7}{''.join(head)}{'paper, h = 1':>18}"]
        paper = TABLE_1[size, corrupted] if target == "observed" or not corrupted else {}
        for method in (*TRIVIAL, *METHODS):
            if by_horizon := found.get(method, {}).get(target):
                row = "".join(f"{_spread(by_horizon[h]):>18}" for h in HORIZONS)
                beside = f"{paper[method][0]:.4f} ± {paper[method][1]:.4f}" if method in paper else "-"
                lines.append(f"{method:<12}{len(by_horizon[HORIZONS[0]]):>7}{row}{beside:>18}")
        if target == "observed" and size == "1.5k":
            lines += ["The paper, at five horizons of which only the first, 1, is known:"]
            lines += [f"{m:<19}" + "".join(f"{v:>18.4f}" for v in values) for m, values in TABLE_2.items()]
    return "\n".join(lines)


def result(folder: Path, size: str, checkpoint: Checkpoint | None = None) -> Result:
    """What a folder holds, clean and corrupted, as a result with a shipped model.

    Metrics and seeds are of the trials that all methods have, clean and corrupted: trials have films of their own, and
    differ by more than methods do. A method that has more of them, say 5, has its mean over all as ``..._mean_of_5``.
    Raises `UserError` if the folder holds nothing, or no trial that all methods have.
    """
    metrics: dict[str, float] = {}
    paper: dict[str, float] = {}
    details: dict[str, Any] = {"horizons": list(HORIZONS), "paper_table_2": TABLE_2}
    wall, counts = 0.0, []
    held = {corrupted: read(folder, size, corrupted) for corrupted in (False, True)}
    if not any(held.values()):
        raise UserError(f"save: {folder.name} holds no trial of {size} frames")
    common = _common(held)
    if not common:
        raise UserError(f"save: {folder.name} holds no trial that all methods have; run with --trials 1 what lacks it")
    for corrupted, records in held.items():
        films = _films(corrupted)
        wall += sum(r.get("wall_s", 0) for r in records)
        found, shared = cells(records), cells([r for r in records if r["trial"] in common])
        counts += [f"{m} {films} {n}" for m in METHODS if (n := sum(r["method"] == m for r in records))]
        details[films] = {"errors": found, "settings": {r["method"]: r["settings"] for r in records if "settings" in r}}
        for method, by_target in found.items():
            for target, by_horizon in by_target.items():
                against = "_against_clean" if corrupted and target == "clean" else ""
                for h in (HORIZONS[0], HORIZONS[-1]):
                    name = f"mse_{films}{against}_{method}_h{h}"
                    metrics |= _summary(name, shared[method][target][h])
                    if (most := len(by_horizon[h])) > len(common):
                        metrics |= _summary(f"{name}_mean_of_{most}", by_horizon[h])
            shown = path(folder, size, corrupted, method, 0)
            if checkpoint and corrupted and method == "dse" and shown.is_file():
                of_one = json.loads(shown.read_text(encoding="utf-8"))["errors"]["observed"]
                metrics |= {f"mse_shipped_h{h}": of_one[str(h)] for h in (HORIZONS[0], HORIZONS[-1])}
            if method in TABLE_1[size, corrupted]:
                name, (mean, deviation) = f"mse_{films}_{method}_h1", TABLE_1[size, corrupted][method]
                paper |= {name: mean, f"{name}_std": deviation}
    machine, frames = environment.report(), {"1.5k": 1500, "15k": 15000}[size]
    return Result(
        name="dse_quadlink",
        dataset=f"quad_link_{size}",
        source="synthetic",
        split="test",
        metrics=metrics,
        paper=paper,
        seeds=sorted(common),
        steps=None,
        wall_s=round(wall, 1),
        hardware=machine.hardware,
        checkpoint=checkpoint,
        command="; ".join(_command(frames, noisy, records) for noisy, records in held.items() if records) + " --save",
        commit=machine.commit,
        environment=machine,
        notes="Horizons are ours, as the paper's are lost. Its errors are above those of a black image. "
        f"Figures are of the trials that all methods have ({', '.join(map(str, sorted(common)))}); "
        f"mean_of_N is over all N of a method. Trials: {', '.join(counts)}.",
        details=details,
    )


def _common(held: dict[bool, list[dict[str, Any]]]) -> set[int]:
    """The trials that every method has, of those kinds of films that are there at all."""
    have: dict[tuple[bool, str], set[int]] = {}
    for corrupted, records in held.items():
        for record in records:
            have.setdefault((corrupted, record["method"]), set()).add(record["trial"])
    return set.intersection(*have.values())


def _summary(name: str, values: list[float]) -> dict[str, float]:
    spread = {f"{name}_std": statistics.stdev(values)} if len(values) > 1 else {}
    return {name: statistics.mean(values), **spread}


def _command(frames: int, corrupted: bool, records: list[dict[str, Any]]) -> str:
    """What runs all of the trials, and for the methods that have fewer some more."""
    methods = [m for m in METHODS if any(r["method"] == m for r in records)]
    words = ["kpm dse quadlink", "--frames", frames, *(["--corrupted"] if corrupted else []), "--methods", *methods]
    return " ".join(map(str, [*words, "--trials", 1 + max(r["trial"] for r in records)]))


def _films(corrupted: bool) -> str:
    return "corrupted" if corrupted else "clean"


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.4f}         "
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"

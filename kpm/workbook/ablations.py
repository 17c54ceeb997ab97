"""``kpm ablate``: SSM-SKD without one of its pieces or with one more, in short trainings with several seeds."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kpm import datasets, environment, files, paths
from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError, pick
from kpm.metrics.reconstruction import reconstruction
from kpm.metrics.swaps import SwapConfig
from kpm.training import checkpoint, hardware
from kpm.training.config import TrainConfig, preset
from kpm.training.loop import train
from kpm.workbook import results
from kpm.workbook.evaluate import fewer, find_judge, judged

# What changes of the published settings.
VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "no_lstm": {"recurrent": False},  # [SSM-SKD] sec. 7.3
    "swap_losses": {"w_swap": 0.05, "w_between": 0.5, "swap_share": 0.5, "swap_channels": True},
}
# The same for all: a model a quarter the size, and a schedule for a short training.
SHORT = {"width": 16, "learning_rate": 2e-3, "warmup_steps": 300, "ema": 0.998, "validation_sequences": 450}


def ablate_command(
    variants: tuple[str, ...] = tuple(VARIANTS),
    seeds: tuple[int, ...] = (7253, 7254, 7255),
    dataset: str = "sprites",
    steps: int = 1500,
    repeats: int = 5,
    films_per_repeat: int = 768,
    folder: Path | None = None,
    save: bool = False,
    run: bool = True,
    progress: bool = True,
) -> int:
    """SSM-SKD as published, without LSTMs and with losses on swaps: short trainings of a small model, several seeds.

    Trainings that were stopped are gone on with, and what is finished is not done again.

    Args:
        variants: Which ones: published, no_lstm, swap_losses.
        seeds: Of weights, data order and dropout; those of the swaps are the same for all.
        dataset: With a judge, see data/checkpoints.
        steps: Of each training.
        repeats: Passes over test films with new partners; to find components on validation films, two.
        films_per_repeat: Films looked at in each of them.
        folder: Of the run folders; runs/ablations_DATASET by default.
        save: Write what the folder holds to the results file ablations_DATASET.
        run: With --no-run, only the table.
        progress: Show progress bars.
    """
    for variant in variants:
        pick("variant", variant, tuple(VARIANTS))
    splits = [datasets.load(dataset, split) for split in ("train", "validation", "test")]
    find_judge(splits[2])  # before anything is trained
    place = Path(folder or paths.runs() / f"ablations_{splits[0].name}")
    for seed in seeds if run else ():
        for variant in variants:
            done = place / f"{variant}_{seed}"
            if not (done / "scores.json").is_file():
                config = dataclasses.replace(preset("ssm-skd", dataset), **SHORT, **VARIANTS[variant])
                config = dataclasses.replace(config, seed=seed, steps=steps)
                swaps = SwapConfig(repeats, min(256, films_per_repeat), films=films_per_repeat)
                files.write_json(done / "scores.json", one(variant, config, done, splits, swaps, progress))
                print(f"{variant}, seed {seed}: done", flush=True)
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(place.glob("*/scores.json"))]
    if not records:
        raise UserError(f"{place.name}: no training is finished yet")
    print(table(records))
    if save:
        print(f"saved to {results.save(result(records, splits[2])).name}")
    return 0


def one(
    variant: str,
    config: TrainConfig,
    folder: Path,
    splits: Sequence[SequenceDataset],
    swaps: SwapConfig,
    progress: bool = False,
) -> dict[str, Any]:
    """Train in `folder`, or go on there, and judge the best weights; `splits` are train, validation and test."""
    began = time.monotonic()
    fit, validation, test = splits
    trained = train(config, folder, data=(fit, validation), resume=True, progress_bar=progress)
    if not trained.finished:
        raise KeyboardInterrupt  # a signal ended it: what comes after must not run on half a training
    model, _ = checkpoint.load_model(folder / "best.safetensors", hardware.device())
    judge, about = find_judge(test, device=hardware.device())
    found = judged(model, judge, test, validation, swaps, exploration_repeats=2, progress=progress)
    metrics = {"mse": reconstruction(model, fewer(test)).mse, "D_sd": found.d_sd, "D_mf": found.d_mf}
    # The decoder may turn a look into another one from frame to frame, whatever the judge of the film says.
    for name, row in (("static", "static swap"), ("dynamic", "dynamic swap")):
        metrics[f"consistency_{name}"] = statistics.fmean(found.consistency[row].values())
    parameters = sum(p.numel() for p in model.parameters())
    return {
        "variant": variant, "seed": config.seed, "steps": config.steps, "precision": trained.precision,
        "parameters": parameters, "films": found.films, "repeats": found.repeats, "judge": about, "metrics": metrics,
        "rows": found.rows, "training_s": round(trained.wall_s, 1), "wall_s": round(time.monotonic() - began, 1),
    }  # fmt: skip


def spread(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and standard deviation over seeds (nan for one seed) of each metric of each variant, in our order."""
    found = {}
    for variant in VARIANTS:
        every = [r["metrics"] for r in records if r["variant"] == variant]
        if every:
            columns = {name: [m[name] for m in every] for name in every[0]}
            found[variant] = {
                name: (statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else float("nan"))
                for name, v in columns.items()
            }
    return found


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """One line for each variant: seeds, parameters, seconds for a training, and each metric with its deviation."""
    lines = []
    for variant, metrics in spread(records).items():
        mine = [r for r in records if r["variant"] == variant]
        seconds = statistics.fmean(r["training_s"] for r in mine)
        line = [variant, str(len(mine)), f"{mine[0]['parameters']:,}", f"{seconds:.0f}"]
        lines.append([*line, *(f"{mean:.4f} +- {std:.4f}" for mean, std in metrics.values())])
    heads = ["", "seeds", "parameters", "training s", *records[0]["metrics"]]
    widths = [max(len(line[i]) for line in [heads, *lines]) for i in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in [heads, *lines])


def result(records: Sequence[Mapping[str, Any]], test: SequenceDataset) -> results.Result:
    """What was measured, as a results file."""
    metrics = {}
    for variant, values in spread(records).items():
        for name, (mean, std) in values.items():
            metrics[f"{name}_{variant}"] = mean
            if std == std:
                metrics[f"{name}_{variant}_std"] = std
    steps = {r["steps"] for r in records}
    if len(steps) > 1:
        raise UserError(f"steps: the trainings are not of one length, {', '.join(map(str, sorted(steps)))}")
    machine = environment.report()
    seeds = sorted({r["seed"] for r in records})
    variants = [v for v in VARIANTS if any(r["variant"] == v for r in records)]
    command = f"kpm ablate --variants {' '.join(variants)} --seeds {' '.join(map(str, seeds))} --dataset {test.name}"
    return results.Result(
        name=f"ablations_{test.name}",
        dataset=test.name,
        source=test.source,
        split=test.split,
        metrics=metrics,
        paper={},
        seeds=seeds,
        steps=records[0]["steps"],
        wall_s=round(sum(r["wall_s"] for r in records), 1),
        hardware=machine.hardware,
        checkpoint=None,
        command=f"{command} --steps {records[0]['steps']} --repeats {records[0]['repeats']} "
        f"--films-per-repeat {records[0]['films']} --save",
        commit=machine.commit,
        environment=machine,
        notes=f"short trainings of a model of width {SHORT['width']}: the differences count, not the values; "
        "mean and deviation over seeds, wall_s is of all",
        details={"runs": list(records)},
    )

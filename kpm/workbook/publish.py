"""``kpm publish``: from a run folder to a shipped checkpoint and its results file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from kpm import datasets, paths
from kpm.environment import Environment
from kpm.errors import UserError
from kpm.metrics.reconstruction import reconstruction
from kpm.training import checkpoint
from kpm.training.run_folder import Log
from kpm.workbook import results
from kpm.workbook.results import Checkpoint, Result

_CURVE_POINTS = 60


def publish_command(run: Path, name: str = "", split: str = "test", half: bool = True) -> int:
    """Ship the best weights of a run: data/checkpoints/NAME.safetensors and data/results/NAME.json.

    Args:
        run: Run folder of `kpm train`.
        name: Name of the result, METHOD_DATASET by default.
        split: Held-out split the figures are measured on.
        half: Store the weights in bf16; the figures are measured on what is shipped.
    """
    model, meta = checkpoint.load_model(run / "best.safetensors")
    train, progress = meta["train"], meta["progress"]
    name = name or f"{train['method']}_{train['dataset']}".replace("-", "_")
    data = datasets.load(train["dataset"], split, train["source"])
    if data.name != train["dataset"]:
        raise UserError(
            f"{name} was trained on {train['dataset']!r}, which cannot be had here; {data.name!r} is no substitute"
        )
    machine = Environment.from_dict(meta["environment"])
    shipped = checkpoint.save_model(
        paths.checkpoints() / f"{name}.safetensors", model, train, progress, machine, half=half
    )
    model, _ = checkpoint.load_model(shipped)
    figures = reconstruction(model, data)
    log = Log(run / "log.jsonl").read("validation")
    every = max(1, len(log) // _CURVE_POINTS)
    result = Result(
        name=name,
        dataset=data.name,
        source=data.source,
        split=split,
        metrics=dataclasses.asdict(figures),
        paper={},
        seeds=[train["seed"]],
        steps=progress["best"]["step"],
        wall_s=round(progress["wall_s"], 1),
        hardware=machine.hardware,
        checkpoint=Checkpoint.of(shipped),
        command=command(train),
        commit=machine.commit,
        environment=machine,
        notes=f"trained on split {train['train_split']}, best of {len(log)} validations on {train['validation_split']}",
        curve=[{k: e[k] for k in ("step", "wall_s", "mse", "loss")} for e in [*log[::every], *log[-1:]]],
    )
    print(f"{shipped.name}: {shipped.stat().st_size / 1e6:.1f} MB, step {result.steps}")
    print(f"{results.save(result).name}: " + ", ".join(f"{k} {v:.4g}" for k, v in result.metrics.items()))
    print("kpm results --readme renews the table")
    return 0


def command(train: dict) -> str:
    """The ``kpm train`` line that makes this run: the flags that differ from the method's preset."""
    from kpm.training.config import preset

    default = dataclasses.asdict(preset(train["method"], train["dataset"]))
    flags = [
        f"--{k.replace('_', '-')} {v}" for k, v in train.items() if default[k] != v and k not in ("method", "dataset")
    ]
    return " ".join([f"kpm train {train['method']} --dataset {train['dataset']}", *flags])

"""``kpm publish``: from a run folder to a shipped checkpoint and its results file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from kpm import paths
from kpm.datasets.base import SequenceDataset
from kpm.environment import Environment
from kpm.errors import UserError
from kpm.metrics.reconstruction import reconstruction
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.training import checkpoint
from kpm.training.config import command
from kpm.training.run_folder import Log
from kpm.workbook import results, stages
from kpm.workbook.evaluate import films
from kpm.workbook.publish_judge import publish_judge
from kpm.workbook.publish_task import KINDS, publish_task
from kpm.workbook.results import Checkpoint, Result

_CURVE_POINTS = 60


def publish_command(
    run: tyro.conf.Positional[Path],
    name: str = "",
    split: str = "test",
    half: bool = True,
    replace: bool = False,
    after: tuple[Path, ...] = (),
) -> int:
    """Ship the best weights of a run: data/checkpoints/NAME.safetensors and data/results/NAME.json.

    Args:
        run: Run folder of `kpm train`, or the checkpoint of a judge.
        name: Name of the result, METHOD_DATASET by default.
        split: Held-out split the figures are measured on.
        half: Store the weights in bf16; the figures are measured on what is shipped.
        replace: Put this run in the place of what is shipped under that name.
        after: Run folders it went on from (--init), first to last: the curve begins with theirs.
    """
    if after and (run.suffix == ".safetensors" or checkpoint.read(run / "best.safetensors")[1]["model"] in KINDS):
        raise UserError("after: is for runs of an autoencoder of films")
    if run.suffix == ".safetensors":
        result = publish_judge(run, name, split, replace)
        print(f"{result.name}.json: " + ", ".join(f"{k} {v:.4f}" for k, v in result.metrics.items()))
        return 0
    model, meta = checkpoint.load_any(run / "best.safetensors")
    if meta["model"] in KINDS:
        result = publish_task(run, name, replace)
        print(f"{result.name}.json: " + ", ".join(f"{k} {v:.4f}" for k, v in result.metrics.items()))
        return 0
    if not isinstance(model, KoopmanAutoencoder):
        raise UserError(
            f"{run.name} holds a {meta['model']}, which is shipped with --save by the command that measures it"
        )
    train, trained_on, progress = meta["train"], meta["data"]["train"], meta["progress"]
    name = name or f"{train['method']}_{trained_on['name']}".replace("-", "_")
    target = paths.checkpoints() / f"{name}.safetensors"
    if target.exists() and not replace:
        raise UserError(f"{target.name} is shipped already; give --replace or another --name")
    data = films(meta, split)
    machine = Environment.from_dict(meta["environment"])
    earlier, validations = _earlier(name, after, progress), Log(run / "log.jsonl").read("validation")
    made_by = _stages(name, train, progress)  # before anything is replaced: it may find that the runs do not fit
    checkpoint.save_model(target, model, meta, machine, half=half)
    model, _ = checkpoint.load_model(target)
    figures = reconstruction(model, data)
    steps = progress["best"]["step"] + progress["before_steps"]
    notes = f"trained on split {trained_on['split']} of {trained_on['name']}; best of {len(validations)} validations"
    if progress["before_steps"]:
        notes += f"; started from weights of {progress['before_steps']} steps, counted in steps and time"
    if shared := _shared(data, films(meta, meta["data"]["validation"]["split"])):
        notes += f"; chosen on a split with {shared} of the films it is judged on"
    if stages.flag(made_by[0], "init"):
        notes += "; how the weights that the command begins with were made is not on record"
    result = Result(
        name=name,
        dataset=data.name,
        source=data.source,
        split=split,
        metrics=dataclasses.asdict(figures),
        paper={},
        seeds=[train["seed"]],
        steps=steps,
        wall_s=round(progress["wall_s"] + progress["before_wall_s"], 1),
        hardware=machine.hardware,
        checkpoint=Checkpoint.of(target),
        command=stages.chained(made_by, name),
        commit=machine.commit,
        environment=machine,
        notes=notes,
        curve=increasing([*earlier, *_points(validations, progress)]),
    )
    print(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB, step {result.steps}")
    print(f"{results.save(result).name}: " + ", ".join(f"{k} {v:.4g}" for k, v in result.metrics.items()))
    print("kpm results --readme renews the table")
    return 0


def _shared(data: SequenceDataset, other: SequenceDataset) -> int:
    """How many films of `data` have the labels of a film of `other`."""
    rows = [set(zip(*(d.factors[f].tolist() for f in sorted(d.factors)))) for d in (data, other)]
    return len(rows[0] & rows[1])


def _stages(name: str, train: dict, progress: dict) -> list[str]:
    """The commands that made a run's best weights, from the first.

    The weights a run started from name theirs. Where these do not begin at the beginning, those of the result that is
    shipped under `name` come first, if its weights are the ones that the run, or the first before it, started from.
    """
    own = [*progress["before_commands"], command(train, progress["best"]["step"])]
    if not (paths.results() / f"{name}.json").is_file():
        return own
    shipped = results.load(name)
    return stages.continued(own, progress["before_steps"] + progress["best"]["step"], shipped.command, shipped.steps)


def increasing(curve: list[dict]) -> list[dict]:
    """The points that none of a smaller or the same step comes after.

    A run that went on past the weights which the next one took up leaves points of a branch that led nowhere.
    """
    kept: list[dict] = []
    for point in reversed(curve):
        if not kept or point["step"] < kept[-1]["step"]:
            kept.append(point)
    return kept[::-1]


def _points(validations: list[dict], progress: dict) -> list[dict]:
    """Some of a run's validations, in steps and seconds from the start of the first run it goes on from."""
    every = max(1, len(validations) // _CURVE_POINTS)
    steps, wall_s = progress["before_steps"], progress["before_wall_s"]
    return [
        {"step": e["step"] + steps, "wall_s": e["wall_s"] + wall_s, "mse": e["mse"], "loss": e["loss"]}
        for i, e in enumerate(validations)
        if i % every == 0 or e is validations[-1]
    ]


def _earlier(name: str, after: tuple[Path, ...], progress: dict) -> list[dict]:
    """The curves of the runs that `progress` went on from, each up to the weights that were taken from it.

    Before them comes the curve that is shipped under `name`, if these are the weights the first of them went on from.
    """
    curve, commands = [], list(progress.get("before_commands", []))
    for folder in reversed(after):
        _, meta = checkpoint.read(folder / "last.safetensors")
        taken = progress["before_steps"] - meta["progress"]["before_steps"]
        if not commands or command(meta["train"], taken) != commands.pop():
            raise UserError(f"after: {folder.name} is not the run that this one, or the one behind it, went on from")
        progress = meta["progress"]
        validations = [e for e in Log(folder / "log.jsonl").read("validation") if e["step"] <= taken]
        curve = [*_points(validations, progress), *curve]
    return [*_before(name, progress["before_steps"]), *curve]


def _before(name: str, steps: int) -> list:
    """The curve up to the weights a run started from, if they are those shipped under its name until now."""
    if not steps or not (paths.results() / f"{name}.json").is_file():
        return []
    shipped = results.load(name)
    return [p for p in shipped.curve or [] if p["step"] <= steps] if shipped.steps == steps else []

"""Shipping a judge: its weights, and how often it is right on films it has not seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from kpm import files, paths
from kpm.datasets.base import SequenceDataset
from kpm.environment import Environment
from kpm.errors import UserError
from kpm.models.judge import Judge
from kpm.training import checkpoint
from kpm.training.judge import JudgeTrainConfig, accuracies
from kpm.workbook import results
from kpm.workbook.evaluate import films
from kpm.workbook.results import Checkpoint, Result

_MOST = 3000
_SPOILT = 7253  # seed of the augmentation the judge is tried under


def publish_judge(run: Path, name: str, split: str, replace: bool) -> Result:
    """Copy a judge's checkpoint to data/checkpoints/judge_DATASET.safetensors and write its results file.

    Raises `UserError` if one is shipped already and `replace` is not given, or the films it has learnt are not here.
    """
    judge, meta = checkpoint.load_judge(run)
    learnt = meta["data"]["train"]
    name = name or f"judge_{learnt['name']}"
    target = paths.checkpoints() / f"{name}.safetensors"
    if target.exists() and not replace and target.resolve() != run.resolve():
        raise UserError(f"{target.name} is shipped already; give --replace or another --name")
    data = films(meta, split)
    if _rows(data) & _rows(films(meta, learnt["split"])):
        raise UserError(f"split: the judge has learnt films of {split!r}, so it cannot be tried on them")
    figures = measured(judge, data)
    if target.resolve() != run.resolve():
        with files.atomic(target) as part:
            shutil.copyfile(run, part)
    machine = Environment.from_dict(meta["environment"])
    result = Result(
        name=name,
        dataset=data.name,
        source=data.source,
        split=split,
        metrics=figures,
        paper={},
        seeds=[meta["train"]["seed"]],
        steps=meta["progress"]["step"],
        wall_s=meta["progress"]["wall_s"],
        hardware=machine.hardware,
        checkpoint=Checkpoint.of(target),
        command=command(meta["train"]),
        commit=machine.commit,
        environment=machine,
        notes=_notes(min(len(data), _MOST)),
    )
    results.save(result)
    return result


def _notes(films: int) -> str:
    what = f"accuracy of whole films, the worst factor's, on {films} films"
    return f"{what}; frame_: of their frames, one by one; spoilt: as in training"


def _rows(data: SequenceDataset) -> set[tuple[int, ...]]:
    """The films of a split by their labels."""
    return set(zip(*(values.tolist() for values in data.factors.values())))


def measured(judge: Judge, data: SequenceDataset) -> dict[str, float]:
    """Share of right answers on `data`, of whole films and, under names with ``frame_`` before them, of single frames.

    Each is given of the worst factor, of each factor, and of the worst on spoilt films. A frame can say less than its
    film: what only shows over time it has to guess. Of a split of more than `_MOST` films, so many drawn at random.
    """
    if len(data) > _MOST:
        data = data.subset(torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:_MOST])
    clean, spoilt = (accuracies(judge, data, spoil=s) for s in (None, _SPOILT))
    return _figures("", clean["sequence"], spoilt["sequence"]) | _figures("frame_", clean["frame"], spoilt["frame"])


def _figures(prefix: str, clean: dict[str, float], spoilt: dict[str, float]) -> dict[str, float]:
    worst = {"accuracy_test": min(clean.values()), "accuracy_test_spoilt": min(spoilt.values())}
    each = {f"accuracy_test_{f}": v for f, v in clean.items()}
    return {prefix + k: v for k, v in (worst | each).items()}


def command(train: dict) -> str:
    """The ``kpm train judge`` line of a training."""
    default = JudgeTrainConfig()
    changed = {k: v for k, v in train.items() if getattr(default, k) != v and k != "dataset"}
    flags = [f"--{k.replace('_', '-')} {v}" for k, v in changed.items()]
    return " ".join(["kpm train judge --dataset", train["dataset"], *flags])

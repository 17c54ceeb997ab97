"""Shipping a network of `kpm.training.tasks`: its weights, what a user needs to run it, and how well it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from kpm import datasets, paths
from kpm.environment import Environment
from kpm.errors import UserError
from kpm.metrics.anomaly import detection
from kpm.metrics.kann_tables import ACCURACY
from kpm.models.beat_autoencoder import BeatAutoencoder
from kpm.models.copy_memory import CopyMemoryNet, memoryless_loss
from kpm.models.sentiment import SentimentNet
from kpm.training import checkpoint
from kpm.training.copy_memory import CopyTrainConfig, copy_scores, held_out
from kpm.training.run_folder import Log
from kpm.training.sentiment import sentiment_scores
from kpm.training.tasks import TASKS
from kpm.workbook import results
from kpm.workbook.results import Checkpoint, Result

SPLITS = {"train": "train", "val": "validation", "test": "test"}


def _data(meta: dict[str, Any], splits: Iterable[str]) -> dict[str, Any]:
    """Splits of the very data a network was trained on, by their short names."""
    trained_on = meta["data"]["train"]
    data = {k: datasets.load(trained_on["name"], SPLITS[k], trained_on["source"]) for k in splits}
    if other := next((d.name for d in data.values() if d.name != trained_on["name"]), None):
        raise UserError(f"the network was trained on {trained_on['name']!r}; {other!r} is no substitute")
    return data


class Shipped(NamedTuple):
    """How a kind of network is shipped.

    Names of its task and result; its figures and the paper's; what to add to the checkpoint; where its data come from;
    what of its settings belongs to the names (a text from them), if the data are drawn and have no name of their own;
    whether bf16 is good enough.
    """

    task: str
    result: str
    figures: Callable[[nn.Module, dict[str, Any], dict[str, Any]], dict[str, float]]
    paper: dict[str, float]
    extra: Callable[[Any], dict[str, Any]] = lambda data: {}
    data: Callable[[dict[str, Any], Iterable[str]], dict[str, Any]] = _data
    variant: Callable[[dict[str, Any]], str] | None = None
    half: bool = True


def _paper(task: str) -> dict[str, float]:
    return {f"accuracy_{k}": ACCURACY[task][split] for k, split in SPLITS.items()}


def _sentiment(model: SentimentNet, train: dict[str, Any], data: dict[str, Any]) -> dict[str, float]:
    return {f"accuracy_{k}": sentiment_scores(model, d, train["max_length"])["accuracy"] for k, d in data.items()}


def _beats(model: BeatAutoencoder, train: dict[str, Any], data: dict[str, Any]) -> dict[str, float]:
    found = {}
    for k, d in data.items():
        found |= {f"accuracy_{k}": detection(model, d).normal_share}
        chosen = detection(model, d, data["val"])
        if chosen.accuracy is not None:
            found |= {f"accuracy_all_{k}": chosen.accuracy, f"auc_{k}": chosen.auc, "threshold": chosen.threshold}
    return found


def _copying(model: CopyMemoryNet, train: dict[str, Any], data: dict[str, Any]) -> dict[str, float]:
    found = {}
    for k, symbols in data.items():
        if k == "train":  # drawn anew at every step, so a figure of the training data would be one more test figure
            continue
        scores = copy_scores(model, symbols, train["delay"])
        found |= {f"accuracy_{k}": scores["accuracy"], f"whole_{k}": scores["whole"], f"loss_{k}": scores["loss"]}
    return found | {"memoryless": memoryless_loss(train["length"], train["delay"], train["symbols"])}


def _copy_data(meta: dict[str, Any], splits: Iterable[str]) -> dict[str, Any]:
    return {k: held_out(CopyTrainConfig(**meta["train"]), SPLITS[k]) for k in splits}


def _copy_variant(train: dict[str, Any]) -> str:
    if train["cell"] == "gru":
        return "_gru"
    return "" if train["activation"] == "modrelu" else f"_{train['activation']}"


KINDS = {
    "SentimentNet": Shipped(
        "sentiment",
        "kann_sentiment",
        _sentiment,
        _paper("sentiment"),
        # Without its words nobody could ask a network that was shipped anything.
        lambda data: {"vocabulary": list(data.vocabulary.words)},
    ),
    "BeatAutoencoder": Shipped(
        "ecg",
        "kann_ecg",
        _beats,
        _paper("ecg"),
    ),
    "CopyMemoryNet": Shipped(
        "copy",
        "kann_copy",
        _copying,
        {},
        data=_copy_data,
        variant=_copy_variant,
        half=False,  # a hundred turns by an angle that is off by a rounding of bf16 end elsewhere
    ),
}


def measured(path: Path, splits: Iterable[str] = ("val", "test")) -> dict[str, float]:
    """The figures of a shipped network on some splits, measured again."""
    model, meta = checkpoint.load_any(path)
    kind = KINDS[meta["model"]]
    with torch.inference_mode():
        return kind.figures(model, meta["train"], kind.data(meta, splits))


def publish_task(run: Path, name: str, replace: bool) -> Result:
    """Ship ``best.safetensors`` of a run folder as data/checkpoints/TASK_DATASET.safetensors, and write its result.

    The result is named after the chapter, with ``_DATASET`` for a stand-in's. Networks whose data are drawn have their
    variant in place of ``DATASET`` in both names. Raises `UserError` if one is shipped and
    `replace` is not given, or the data it was trained on are not here.
    """
    tensors, meta = checkpoint.read(run / "best.safetensors")
    kind = KINDS[meta["model"]]
    train, trained_on, progress = meta["train"], meta["data"]["train"], meta["progress"]
    suffix = f"_{trained_on['name']}" if kind.variant is None else kind.variant(train)
    target = paths.checkpoints() / f"{name or kind.task + suffix}.safetensors"
    if target.exists() and not replace:
        raise UserError(f"{target.name} is shipped already; give --replace or another --name")
    data = kind.data(meta, SPLITS)
    machine = Environment.from_dict(meta["environment"])
    if kind.half:
        tensors = {k: v.bfloat16() if v.is_floating_point() else v for k, v in tensors.items()}
    checkpoint.save(target, tensors, meta | kind.extra(data["train"]))
    model = checkpoint.load_any(target)[0]
    with torch.inference_mode():
        figures = kind.figures(model, train, data)
    default = TASKS[kind.task].config()
    changed = {k: v for k, v in train.items() if getattr(default, k) != v}
    flags = "".join(f" --{k.replace('_', '-')} {v}" for k, v in changed.items())
    stand_in = trained_on["source"] == "synthetic" and kind.variant is None
    result = Result(
        name=kind.result + (suffix if stand_in or kind.variant else ""),
        dataset=trained_on["name"],
        source=trained_on["source"],
        split="test",
        metrics=figures,
        paper={} if stand_in else kind.paper,
        seeds=[train["seed"]],
        steps=progress["best"]["step"],
        wall_s=round(progress["wall_s"], 1),
        hardware=machine.hardware,
        checkpoint=Checkpoint.of(target),
        command=f"kpm train {kind.task}{flags}",
        commit=machine.commit,
        environment=machine,
        notes=f"best of {train['epochs']} epochs on split {meta['data']['validation']['split']}",
        curve=[
            {k: v for k, v in e.items() if isinstance(v, int | float)}
            for e in Log(run / "log.jsonl").read("validation")
        ],
    )
    results.save(result)
    return result

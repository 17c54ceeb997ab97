"""Training of judges: real films, spoilt a little, one cross-entropy per factor for the film and for each frame."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from kpm import environment
from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError
from kpm.models.judge import Judge, JudgeConfig
from kpm.training import checkpoint, hardware
from kpm.training.augment import augment
from kpm.training.losses import cross_entropy
from kpm.training.run_folder import check_kind
from kpm.training.state import StopOnSignal, generator, mix
from kpm.training.team import launched


@dataclasses.dataclass(frozen=True)
class JudgeTrainConfig:
    """A training of a judge."""

    dataset: str = "sprites"
    """Dataset name, see `kpm data list`."""
    source: str = "auto"
    """auto, real or synthetic."""
    train_split: str = "train"
    """Split to learn from."""
    validation_split: str = "validation"
    """Held-out split to look at on the way."""
    width: int = 16
    """Channels of the first convolution."""
    steps: int = 2500
    """Steps of `batch_size` films."""
    batch_size: int = 64
    """Films per step."""
    learning_rate: float = 2e-3
    """At the top of the schedule: a straight rise over 5 % of the steps, then a cosine to zero."""
    seed: int = 7253
    """Of weights, data order and augmentation."""

    def quick(self) -> JudgeTrainConfig:
        """A minute on two cores."""
        return dataclasses.replace(self, steps=60, batch_size=32)

    def __post_init__(self) -> None:
        for name in ("width", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate must be positive, got {self.learning_rate}")


def factors(data: SequenceDataset) -> dict[str, int]:
    """The factors of `data` a judge learns, with their numbers of classes: the static and the dynamic ones."""
    return {f: data.factor_sizes[f] for f in (*data.static, *data.dynamic)}


def train_judge(
    config: JudgeTrainConfig,
    path: Path,
    *,
    data: tuple[SequenceDataset, SequenceDataset],
    device: str = "auto",
    progress_bar: bool = True,
) -> dict[str, dict[str, float]]:
    """Train a judge and write it to `path`; returns its accuracies on the held-out split (see `accuracies`).

    Raises `UserError` for data that are no films, and if stopped by a signal: a training takes minutes and is not
    resumed.
    """
    where = hardware.device(device)
    if launched():
        raise UserError("judge: a judge takes minutes and is trained by one process, without torchrun")
    check_kind(SequenceDataset, "films", *data)
    train, held_out = (d.to(where) for d in data)
    if len(train) < config.batch_size:
        raise UserError(f"batch_size: {config.batch_size} is more than the {len(train)} sequences of the split")
    torch.manual_seed(config.seed)
    model = Judge(JudgeConfig(factors(train), config.width, channels=train.shape[1])).to(where)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=1e-4, fused=True)
    bf16 = hardware.faster_precision(where) == "bf16-mixed"
    if where.type == "cpu":
        hardware.keep_freed_memory()
    began, rise = time.monotonic(), max(1, config.steps // 20)
    with StopOnSignal() as stop, tqdm(total=config.steps, unit="step", disable=not progress_bar, desc="judge") as bar:
        for step in range(config.steps):
            if stop.asked:
                raise UserError(f"judge: stopped by signal {stop.asked} after {step} steps, nothing is kept")
            ramp = min(1.0, (step + 1) / rise)
            rate = config.learning_rate * ramp * 0.5 * (1 + math.cos(math.pi * step / config.steps))
            optimizer.param_groups[0]["lr"] = rate
            index = torch.randint(len(train), (config.batch_size,), generator=generator(config.seed, 2 * step + 1))
            index = index.to(where)
            labels = train.labels(index)
            frames = augment(train.to_float(train.compose(labels)), generator(config.seed, 2 * step))
            with torch.autocast(where.type, dtype=torch.bfloat16, enabled=bf16):
                opinion = model(frames)
            loss = cross_entropy(opinion.sequence, labels) + 0.5 * cross_entropy(opinion.frame, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            bar.update()
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    meta: dict[str, Any] = {
        "train": dataclasses.asdict(config),
        "data": {
            part: {k: d.describe()[k] for k in ("name", "source", "split", "sequences")}
            for part, d in zip(("train", "validation"), data, strict=True)
        },
        "progress": {"step": config.steps, "wall_s": round(time.monotonic() - began, 1)},
    }
    checkpoint.save_model(path, model, meta, environment.report({"train": config.seed}), half=True)
    model, _ = checkpoint.load_judge(path, where)
    return accuracies(model, held_out)


@torch.inference_mode()
def accuracies(
    judge: Judge, data: SequenceDataset, batch_size: int = 64, spoil: int | None = None
) -> dict[str, dict[str, float]]:
    """Share of right answers per factor, ``{"sequence": {factor: share}, "frame": {factor: share}}``.

    Parameters
    ----------
    spoil : int, optional
        Seed of an augmentation like that of the training; none by default.
    """
    judge.eval()
    device = next(judge.parameters()).device
    data = data.to(device)
    right: dict[str, dict[str, Tensor]] = {"sequence": {}, "frame": {}}
    for i, index in enumerate(torch.arange(len(data), device=device).split(batch_size)):
        labels = data.labels(index)
        frames = data.to_float(data.compose(labels))
        if spoil is not None:
            frames = augment(frames, torch.Generator().manual_seed(mix(spoil, i)))
        film, frame = judge.decide(frames)
        for f in film:
            found = (film[f] == labels[f]).sum(), (frame[f] == labels[f][:, None]).double().mean(1).sum()
            for kind, count in zip(right, found):
                right[kind][f] = right[kind].get(f, 0) + count
    return {kind: {f: float(v) / len(data) for f, v in part.items()} for kind, part in right.items()}

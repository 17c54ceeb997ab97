"""One loop for everything learnt by plain gradient steps on batches: classifiers, recurrent networks, autoencoders.

What is learnt is a `Task`; how it is learnt, a `FitConfig`. Runs live in the same folders as those of the Koopman
autoencoders (`kpm.training.run_folder`) and are resumed exactly.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from kpm import environment
from kpm.errors import UserError, pick
from kpm.training import checkpoint, hardware
from kpm.training.losses import NonFiniteLoss, check_finite
from kpm.training.run_folder import RunFolder
from kpm.training.state import Progress, StopOnSignal, check_hours, flatten, generator, mix, restore
from kpm.training.team import Team

SCHEDULES = ("constant", "cosine")


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """How a task is learnt."""

    epochs: int = 10
    """Passes over the training data."""
    batch_size: int = 64
    """Samples per step."""
    learning_rate: float = 1e-3
    """Of Adam, at its highest."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """What the learning rate does after the warm-up; a cosine falls to zero at the last step."""
    warmup: float = 0.02
    """Share of all steps over which the learning rate rises from zero."""
    weight_decay: float = 0.0
    """Of AdamW."""
    clip: float = 1.0
    """Largest gradient norm."""
    seed: int = 7253
    """Of weights, data order and dropout."""

    def __post_init__(self) -> None:
        pick("schedule", self.schedule, SCHEDULES)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("warmup", "weight_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must lie in [0, 1), got {getattr(self, name)}")

    def rate(self, step: int, total: int) -> float:
        """Learning rate of the step after `step` of `total` steps."""
        rise = max(1, round(self.warmup * total))
        ramp = min(1.0, (step + 1) / rise)
        if self.schedule == "constant":
            return self.learning_rate * ramp
        return self.learning_rate * ramp * 0.5 * (1 + math.cos(math.pi * step / total))


class Task(Protocol):
    """A model, what it learns from, and how it is judged.

    Attributes
    ----------
    model : nn.Module
        With a frozen dataclass `config`.
    about : dict
        The data, as plain values: ``{"train": {"name", "source", "split", "sequences"}, "validation": ...}``.
    """

    model: nn.Module
    about: dict[str, dict[str, Any]]

    def batches(self, size: int, draw: torch.Generator) -> Sequence[Tensor]:
        """Indices of the samples of each step of an epoch; the same for the same state of `draw`."""

    def loss(self, index: Tensor) -> dict[str, Tensor]:
        """Terms whose sum is minimised: means over the samples of a step, or of a part of one."""

    def validate(self) -> dict[str, float]:
        """Scores on held-out data; the model with the smallest ``"loss"`` is kept. Called in eval mode."""


@dataclasses.dataclass(frozen=True)
class FitResult:
    """How a fit ended: its folder, steps, best validation, wall seconds, all validations, a signal that came."""

    folder: Path
    steps: int
    finished: bool
    best: dict[str, float]
    wall_s: float
    history: list[dict[str, Any]]
    signal: int | None = None


def fit(
    task: Task,
    config: FitConfig,
    folder: Path | str,
    *,
    team: Team | None = None,
    accumulate: int = 1,
    resume: bool = False,
    max_hours: float | None = None,
    save_every_s: float = 120.0,
    progress_bar: bool = True,
    title: str = "fit",
) -> FitResult:
    """Learn `task`, validating after each epoch; the best weights are in ``best.safetensors`` of `folder`.

    Parameters
    ----------
    task : Task
        Its model is on the device that does the work.
    team : Team, optional
        The processes that train together; this one by default. Each draws dropout of its own, and only the first
        validates (and knows the best, in the result).
    accumulate : int
        Parts of a batch that are worked on one after the other, to save memory. Where nothing is random but the order,
        neither this nor the number of processes changes more than the rounding.
    resume, max_hours, save_every_s
        As for `kpm.training.loop.train`.

    Raises
    ------
    UserError
        If the folder holds a run of other parameters or data, or one that exists and `resume` is not asked for; if the
        processes see different folders; for several processes and a model that normalises over the batch.
    NonFiniteLoss
        If a loss or the gradient is not finite; names the step and the term.
    """
    model = task.model
    check_hours(max_hours)
    team = team or Team(next(model.parameters()).device)
    if accumulate < 1:
        raise UserError(f"accumulate must be at least 1, got {accumulate}")
    if team.size > 1 and any(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) for m in model.modules()):
        raise UserError("a model with batch normalisation is fitted by one process: shares of a batch differ in size")
    if team.device.type == "cpu":
        hardware.keep_freed_memory()
    run = RunFolder(Path(folder), config, task.about, resume, writes=team.first)
    with run:
        team.wait()  # the first has the folder now: nobody else writes what the others read
        tensors, meta = run.resumed(team)
        state = Progress(**meta["progress"]) if meta else Progress()
        optimizer = torch.optim.AdamW(
            model.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        if tensors:
            restore(tensors, model, model, optimizer)
        net, fabric_optimizer = team.fabric.setup(_Loss(task), optimizer)
        run.begin(state.step)
        machine = environment.report({"train": config.seed}) if team.first else None
        per_epoch = len(task.batches(config.batch_size, generator(config.seed, 1)))
        total = config.epochs * per_epoch
        log_every = max(1, per_epoch // 20)
        began = saved = time.monotonic()
        wall_before = state.wall_s
        bar = tqdm(total=total, initial=state.step, unit="step", disable=not (progress_bar and team.first), desc=title)
        signalled = out_of_time = 0

        def save() -> None:
            if not team.first:
                return
            state.wall_s = wall_before + time.monotonic() - began
            checkpoint.save(run.last, flatten(model, model, optimizer), run.meta(model, state))

        batches: Sequence[Tensor] = ()
        with StopOnSignal() as stop:
            while state.step < total and not signalled and not out_of_time:
                epoch, position = divmod(state.step, per_epoch)
                if not position or not len(batches):
                    batches = task.batches(config.batch_size, generator(config.seed, 2 * epoch + 1))
                torch.manual_seed(mix(config.seed, 2 * state.step) + team.rank)
                optimizer.param_groups[0]["lr"] = config.rate(state.step, total)

                model.train()
                terms: dict[str, Tensor] = {}
                for rows, weight, context in team.shares(net, batches[position], accumulate):
                    with context:
                        parts = {name: weight * term for name, term in net(rows).items()}
                        team.fabric.backward(sum(parts.values()))
                    terms = {name: term.detach() + terms.get(name, 0) for name, term in parts.items()}
                norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip))
                if not math.isfinite(norm):
                    check_finite(team.mean(terms), f"step {state.step}")
                    raise NonFiniteLoss(f"step {state.step}: gradient norm is {norm}")
                fabric_optimizer.step()
                optimizer.zero_grad()
                state.step += 1

                bar.update()
                if state.step % log_every == 0:
                    values = check_finite(team.mean(terms), f"step {state.step}")
                    run.log.write(step=state.step, kind="train", norm=norm, **values)
                    bar.set_postfix({k: f"{v:.3g}" for k, v in values.items()}, refresh=False)
                out_of_time = max_hours is not None and time.monotonic() - began > 3600 * max_hours
                signalled, out_of_time = team.largest(stop.asked or 0, int(out_of_time))
                if state.step % per_epoch == 0 and team.first:
                    scores = _validated(task)
                    elapsed = wall_before + time.monotonic() - began
                    run.log.write(step=state.step, kind="validation", wall_s=elapsed, **scores)
                    if not state.best or scores["loss"] < state.best["loss"]:
                        state.best = {"step": state.step, **scores}
                        if not run.last.is_file():  # best weights that nothing could go on from would block the folder
                            save()
                        state.wall_s = elapsed
                        checkpoint.save_model(run.best, model, run.meta(model, state), machine)
                if time.monotonic() - saved > save_every_s:
                    save()  # after the validation of this step: a resumed run would not come back to it
                    saved = time.monotonic()
            save()
            team.wait()  # whoever started us ends the rest when one has left
        bar.close()
        return FitResult(
            folder=run.folder,
            steps=state.step,
            finished=state.step >= total,
            best=state.best,
            wall_s=state.wall_s,
            history=run.log.read("validation"),
            signal=signalled or None,
        )


class _Loss(nn.Module):
    """The loss of a task as a module, so that Fabric sees the step whatever of the model the loss calls."""

    def __init__(self, task: Task):
        super().__init__()
        self.model, self.loss = task.model, task.loss

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        return self.loss(rows)


@torch.no_grad()
def _validated(task: Task) -> dict[str, float]:
    task.model.eval()
    scores = task.validate()
    if not math.isfinite(scores["loss"]):
        raise NonFiniteLoss(f"validation: loss is {scores['loss']}")
    return scores

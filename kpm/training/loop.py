"""The training loop: read it from the top down."""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm.auto import tqdm

from kpm import environment
from kpm.datasets.base import SequenceDataset
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.training import checkpoint, hardware
from kpm.training.config import TrainConfig
from kpm.training.losses import NonFiniteLoss, check_finite, koopman_losses
from kpm.training.run_folder import RunFolder

logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # it announces the precision at every start


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """How a run ended: its folder, steps done, best validation, wall seconds of training, all validations."""

    folder: Path
    steps: int
    finished: bool
    best: dict[str, float]
    wall_s: float
    history: list[dict[str, Any]]


@dataclasses.dataclass
class Progress:
    """What a checkpoint must hold besides tensors for a run to go on as if it had never stopped."""

    step: int = 0
    wall_s: float = 0.0
    precision: str = "32-true"
    best: dict[str, float] = dataclasses.field(default_factory=dict)
    plateau: dict[str, Any] = dataclasses.field(default_factory=dict)


def train(
    config: TrainConfig,
    folder: Path | str,
    *,
    data: tuple[SequenceDataset, SequenceDataset],
    device: str = "auto",
    resume: bool = False,
    max_hours: float | None = None,
    save_every_s: float = 120.0,
    progress_bar: bool = True,
) -> TrainResult:
    """Train a Koopman autoencoder.

    Parameters
    ----------
    config : TrainConfig
    folder : path
        Run folder: ``config.json``, ``log.jsonl``, ``last.safetensors`` (to resume), ``best.safetensors`` (weights).
    data : pair of SequenceDataset
        To learn from, and held out.
    resume : bool
        Go on from ``last.safetensors``. The randomness of a step depends on the seed and the step alone, so on the same
        machine a resumed run ends with the very weights of one that was never stopped.
    max_hours : float, optional
        Stop (and save) after so long; the run can be resumed.
    save_every_s : float
        Seconds between saves of ``last.safetensors``.

    Raises
    ------
    UserError
        If the folder holds a run of other parameters, or one that exists and `resume` is not asked for.
    NonFiniteLoss
        If a loss term or the gradient norm is not finite; names step and term. The last checkpoint stays as it is.
    """
    where = hardware.device(device)
    hardware.keep_freed_memory()
    run = RunFolder(Path(folder), config, resume)
    with run:
        train_data, validation_data = (d.to(where) for d in data)
        tensors, meta = checkpoint.read(run.last) if run.can_resume else ({}, {})
        state = Progress(**meta["progress"]) if meta else Progress(precision=config.precision)
        if state.precision == "auto":
            state.precision = hardware.faster_precision(where)

        fabric = Fabric(accelerator="cuda" if where.type == "cuda" else "cpu", devices=1, precision=state.precision)
        torch.manual_seed(config.seed)
        model = KoopmanAutoencoder(config.model(train_data.shape[1])).to(where)
        optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
        plateau = Plateau(config)
        average = _copy(model) if config.ema else model
        if tensors:
            _restore(tensors, model, average, optimizer)
            plateau.load(state.plateau)
        run.log.truncate(state.step)
        net, fabric_optimizer = fabric.setup(model, optimizer)

        machine = environment.report({"train": config.seed})
        batch = min(config.batch_size, len(train_data))
        per_epoch = len(train_data) // batch
        total = config.steps or config.epochs * per_epoch
        started, saved = time.monotonic(), time.monotonic()
        wall_before = state.wall_s
        bar = tqdm(total=total, initial=state.step, unit="step", disable=not progress_bar, desc=config.method)
        stop = _StopOnSignal()
        out_of_time = False
        log_every = 10 if total > 500 else 1

        def save_last() -> None:
            state.wall_s = wall_before + time.monotonic() - started
            state.plateau = plateau.state()
            checkpoint.save(run.last, _flatten(model, average, optimizer), run.meta(model, state))

        with stop:
            while state.step < total and not stop.asked and not out_of_time:
                # Order and dropout depend on the seed and the step alone: nothing random has to be saved.
                epoch, position = divmod(state.step, per_epoch)
                order = torch.randperm(len(train_data), generator=_generator(config.seed, 2 * epoch + 1))
                index = order[position * batch : (position + 1) * batch].to(where)
                torch.manual_seed(_mix(config.seed, 2 * state.step))
                for group in optimizer.param_groups:
                    group["lr"] = plateau.rate(state.step)

                net.train()
                frames = train_data.to_float(train_data[index])
                try:
                    output = net(frames)
                except ValueError as error:  # the solvers refuse latents that are not finite
                    raise NonFiniteLoss(f"step {state.step}: {error}") from error
                terms = koopman_losses(output, frames, config)
                values = check_finite(terms, state.step)
                fabric.backward(sum(terms.values()))
                norm = float(
                    fabric.clip_gradients(net, fabric_optimizer, max_norm=config.clip, error_if_nonfinite=False)
                )
                if not math.isfinite(norm):
                    raise NonFiniteLoss(f"step {state.step}: gradient norm is {norm}")
                fabric_optimizer.step()
                fabric_optimizer.zero_grad()
                state.step += 1
                if config.ema:
                    _average(average, model, min(config.ema, (1 + state.step) / (10 + state.step)))

                bar.update()
                if state.step % log_every == 0 or state.step == total:
                    run.log.write(
                        step=state.step, kind="train", lr=optimizer.param_groups[0]["lr"], norm=norm, **values
                    )
                    bar.set_postfix(loss=f"{sum(values.values()):.4f}", **_best(state), refresh=False)
                out_of_time = max_hours is not None and time.monotonic() - started > 3600 * max_hours
                if _validation_due(state.step, per_epoch * config.validate_every, total):
                    scores = validate(average, validation_data, config, fabric)
                    if state.step % (per_epoch * config.validate_every) == 0:  # where a longer run looks, too
                        plateau.step(scores["loss"])
                    run.log.write(
                        step=state.step, kind="validation", wall_s=wall_before + time.monotonic() - started, **scores
                    )
                    if not state.best or scores["loss"] < state.best["loss"]:
                        state.best = {"step": state.step, **scores}
                        checkpoint.save_model(run.best, average, run.plain_config, dataclasses.asdict(state), machine)
                if time.monotonic() - saved > save_every_s:
                    save_last()
                    saved = time.monotonic()
            save_last()
        bar.close()
        return TrainResult(
            run.folder, state.step, state.step >= total, state.best, state.wall_s, run.log.read("validation")
        )


@torch.no_grad()
def validate(
    model: nn.Module, data: SequenceDataset, config: TrainConfig, fabric: Fabric | None = None
) -> dict[str, float]:
    """Losses and reconstruction MSE on held-out sequences: the first `validation_sequences` of a fixed order."""
    was_training = model.training
    model.eval()
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    order = torch.randperm(len(data), generator=_generator(config.seed, 0))[: config.validation_sequences]
    sums: dict[str, Tensor] = {}
    for index in order.split(64):
        frames = data.to_float(data[index.to(next(model.parameters()).device)])
        with fabric.autocast():
            output = model(frames)
        terms = koopman_losses(output, frames, config)
        terms["mse"] = torch.nn.functional.mse_loss(output.reconstruction.float(), frames)
        for name, term in terms.items():
            sums[name] = sums.get(name, 0) + term * len(index)
    model.train(was_training)
    scores = check_finite({k: v / len(order) for k, v in sums.items()}, -1)
    mse = scores.pop("mse")
    return {"loss": sum(scores.values()), "mse": mse, **scores}


def _best(state: Progress) -> dict[str, str]:
    return {"held_out_mse": f"{state.best['mse']:.2e}"} if state.best else {}


def _validation_due(step: int, every: int, total: int) -> bool:
    """After every `every` steps, at the end, and once early so that a broken run shows."""
    return step % every == 0 or step == total or step == min(100, every // 2)


class Plateau:
    """Learning rate by step: a linear warm-up, then lower by a factor whenever the validation loss stops falling."""

    def __init__(self, config: TrainConfig):
        self.warmup = config.warmup_steps
        # ReduceLROnPlateau changes an optimiser's rate; given one of its own, the warm-up cannot get in its way.
        self._holder = torch.optim.SGD([torch.zeros(1)], config.learning_rate)
        self._scheduler = ReduceLROnPlateau(
            self._holder, factor=config.lr_factor, patience=config.patience, threshold=1e-4
        )

    def rate(self, step: int) -> float:
        ramp = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return ramp * self._holder.param_groups[0]["lr"]

    def step(self, loss: float) -> None:
        self._scheduler.step(loss)

    def state(self) -> dict[str, Any]:
        return {"lr": self._holder.param_groups[0]["lr"], **self._scheduler.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        self._holder.param_groups[0]["lr"] = state["lr"]
        self._scheduler.load_state_dict({k: v for k, v in state.items() if k != "lr"})


def _mix(seed: int, counter: int) -> int:
    """One 63-bit seed from two numbers; a multiplicative hash keeps neighbours apart."""
    return (seed * 0x9E3779B97F4A7C15 + counter * 0xBF58476D1CE4E5B9 + 1) % (1 << 63)


def _generator(seed: int, counter: int) -> torch.Generator:
    return torch.Generator().manual_seed(_mix(seed, counter))


def _copy(model: KoopmanAutoencoder) -> KoopmanAutoencoder:
    twin = KoopmanAutoencoder(model.config).to(next(model.parameters()).device)
    twin.load_state_dict(model.state_dict())
    return twin.requires_grad_(False)


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    pairs = [(a, b) for a, b in zip(average.state_dict().values(), model.state_dict().values())]
    floating = [(a, b) for a, b in pairs if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floating], [b for _, b in floating], 1 - decay)
    for a, b in pairs:
        if not a.is_floating_point():
            a.copy_(b)


def _flatten(model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    if average is not model:
        tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for i, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in entries.items()}
    return tensors


def _restore(
    tensors: dict[str, Tensor], model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    model.load_state_dict(part("model."))
    if average is not model:
        average.load_state_dict(part("average."))
    parameters = list(model.parameters())
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        i, name = key.split(".", 1)
        if value.ndim:  # the fused optimiser reads memory, so moments must lie as their parameter does
            value = torch.empty_like(parameters[int(i)], requires_grad=False).copy_(value)
        state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class _StopOnSignal:
    """Within the block, the first SIGINT or SIGTERM only sets `asked`, so that the loop can save; a second one acts."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _StopOnSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: whoever runs us handles signals
                break
        return self

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = number
        signal.signal(number, self._before[number])

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

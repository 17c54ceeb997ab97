"""The training loop: read it from the top down."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from kpm import environment
from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError
from kpm.models.channel_basis import independent_basis, turn
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.models.looks import Looks
from kpm.models.parts import static_map
from kpm.models.shared_batch import share_batch
from kpm.models.training_swaps import SwapPlan
from kpm.models.widening import widen
from kpm.solvers.checks import NotFinite
from kpm.training import checkpoint, hardware
from kpm.training.config import TrainConfig, command
from kpm.training.looks import learn_looks
from kpm.training.losses import NonFiniteLoss, check_finite, koopman_losses
from kpm.training.mirror_images import find_mirror_images, some_with
from kpm.training.run_folder import RunFolder, about
from kpm.training.schedule import Plateau, average, ema_decay, twin
from kpm.training.state import Progress, StopOnSignal, check_hours, flatten, generator, mix, restore
from kpm.training.team import Team


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """How a run ended: its folder, steps done, best validation, wall seconds, all validations, a signal that came."""

    folder: Path
    steps: int
    finished: bool
    best: dict[str, float]
    wall_s: float
    history: list[dict[str, Any]]
    precision: str
    signal: int | None = None


def train(
    config: TrainConfig,
    folder: Path | str,
    *,
    data: tuple[SequenceDataset, SequenceDataset],
    device: str = "auto",
    team: Team | None = None,
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
    team : Team, optional
        The processes that train together; made for `device` by default.
    resume : bool
        Go on from ``last.safetensors``. The randomness of a step depends on the seed and the step alone, so on the same
        machine a resumed run ends with the very weights of one that was never stopped. The number of processes may be
        another one; it changes the rounding.
    max_hours : float, optional
        Stop (and save) after so long; the run can be resumed.
    save_every_s : float
        Seconds between saves of ``last.safetensors``.

    Raises
    ------
    UserError
        If the folder holds a run of other parameters or data, or one that exists and `resume` is not asked for; if the
        processes see different folders; if the batch cannot be cut into equal shares of the processes.
    NonFiniteLoss
        If a loss term or the gradient norm is not finite; names step and term. The last checkpoint stays as it is.
    """
    check_hours(max_hours)
    team = team or Team(hardware.device(device))
    where = team.device
    if min(len(d) for d in data) == 0:
        raise UserError("the training and the validation split need at least one sequence each")
    batch = min(config.batch_size, len(data[0]))
    if batch % (team.size * config.accumulate):
        cut = f"{config.accumulate} parts for {team.size} processes"
        raise UserError(f"batch_size: {batch} sequences cannot be cut into {cut}, all of one size")
    if team.size > 1 and config.prediction_share < 1:
        raise UserError(f"prediction_share: {config.prediction_share} needs one process, there are {team.size}")
    for name in ("w_mirror", "w_borrowed", "decoder_only"):
        if getattr(config, name) and team.size > 1:
            raise UserError(f"{name}: needs one process, there are {team.size}")
    for name in ("w_swap", "w_between", "w_looks"):
        if getattr(config, name) and (team.size > 1 or batch < 2):
            raise UserError(f"{name}: needs one process and two films, there are {team.size} and {batch}")
    if where.type == "cpu":
        hardware.keep_freed_memory()
    run = RunFolder(Path(folder), config, about(*data), resume, writes=team.first)
    with run:
        team.wait()  # the first has the folder now: nobody else writes what the others read
        train_data, validation_data = (d.to(where) for d in data)
        tensors, meta = run.resumed(team)
        state = Progress(**meta["progress"]) if meta else Progress(precision=config.precision)
        if state.precision == "auto":
            state.precision = hardware.faster_precision(where)

        twins: list[Tensor | None] = [None, None]
        if config.w_mirror:
            twins = [find_mirror_images(d) for d in (train_data, validation_data)]
            if not (twins[0] >= 0).any():
                split = f"{train_data.name!r} ({train_data.split})"
                raise UserError(f"w_mirror: no film of {split} is the mirror image of another")

        torch.manual_seed(config.seed)
        model = KoopmanAutoencoder(config.model(train_data.shape[1])).to(where)
        if state.precision == "64-true":
            model.double()
        optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
        plateau = Plateau(config)
        if config.init and not tensors:
            start_from(config.init, model, state, train_data, config.turn_axes)
        if team.size > 1:
            share_batch(model)
        net, fabric_optimizer = team.fabric.setup(model, optimizer)
        mean = twin(model) if config.ema else model
        if tensors:
            restore(tensors, model, mean, optimizer)
            plateau.load(state.plateau)
        # The encoder stays what it is, so the operator of all films is known, and need not be guessed from a batch.
        known = static_map(model, train_data) if config.decoder_only else None
        run.begin(state.step)
        started = saved = time.monotonic()
        looks = _looks(config, run, train_data, state.precision, progress_bar) if config.w_looks else None
        aids = [Aids(found, known, looks) for found in twins]

        machine = environment.report({"train": config.seed}) if team.first else None
        per_epoch = len(train_data) // batch
        validate_every = per_epoch * config.validate_every
        total = config.steps or config.epochs * per_epoch
        log_every = 10 if total > 500 else 1
        wall_before = state.wall_s
        title = f"{config.method} ({state.precision})"
        bar = tqdm(total=total, initial=state.step, unit="step", disable=not (progress_bar and team.first), desc=title)
        signalled = out_of_time = 0

        def save(last: bool) -> None:
            if not team.first:
                return
            state.wall_s = wall_before + time.monotonic() - started
            state.plateau = plateau.state()
            if last:
                checkpoint.save(run.last, flatten(model, mean, optimizer), run.meta(model, state))
            else:
                checkpoint.save_model(run.best, mean, run.meta(mean, state), machine)

        with StopOnSignal() as stop:
            while state.step < total and not signalled and not out_of_time:
                # Order and dropout depend on the seed and the step alone: nothing random has to be saved.
                epoch, position = divmod(state.step, per_epoch)
                order = torch.randperm(len(train_data), generator=generator(config.seed, 2 * epoch + 1))
                index = order[position * batch : (position + 1) * batch].to(where)
                torch.manual_seed(mix(config.seed, 2 * state.step))
                for group in optimizer.param_groups:
                    group["lr"] = plateau.rate(state.step)

                model.learn(config.decoder_only)
                try:
                    terms = gradients(net, train_data, index, config, team, state.precision, aids[0])
                except NotFinite as error:  # the solvers refuse latents that are not finite
                    raise NonFiniteLoss(f"step {state.step}: {error}") from error
                values = check_finite(terms, f"step {state.step}")
                norm = float(
                    team.fabric.clip_gradients(net, fabric_optimizer, max_norm=config.clip, error_if_nonfinite=False)
                )
                if not math.isfinite(norm):
                    raise NonFiniteLoss(f"step {state.step}: gradient norm is {norm}")
                fabric_optimizer.step()
                fabric_optimizer.zero_grad()
                state.step += 1
                if config.ema:
                    average(mean, model, ema_decay(config, state.step))

                bar.update()
                if state.step % log_every == 0 or state.step == total:
                    run.log.write(step=state.step, kind="train", lr=plateau.rate(state.step - 1), norm=norm, **values)
                    bar.set_postfix(_shown(values, state), refresh=False)
                out_of_time = max_hours is not None and time.monotonic() - started > 3600 * max_hours
                signalled, out_of_time = team.largest(stop.asked or 0, int(out_of_time))
                # At regular steps, at the end, and once early so that a broken run shows.
                regular = state.step % validate_every == 0
                if regular or state.step == total or state.step == min(100, validate_every // 2):
                    scores = validate(mean, validation_data, config, state.precision, team, aids[1])
                    if regular:  # the schedule sees what it would see if the run were longer
                        plateau.step(scores["loss"])
                    elapsed = wall_before + time.monotonic() - started
                    run.log.write(step=state.step, kind="validation", wall_s=elapsed, **scores)
                    if not state.best or scores["loss"] < state.best["loss"]:
                        state.best = {"step": state.step, **scores}
                        if not run.last.is_file():  # best weights that nothing could go on from would block the folder
                            save(last=True)
                        save(last=False)
                if time.monotonic() - saved > save_every_s:
                    save(last=True)
                    saved = time.monotonic()
            save(last=True)
            team.wait()  # whoever started us ends the rest when one has left
        bar.close()
        return TrainResult(
            folder=run.folder,
            steps=state.step,
            finished=state.step >= total,
            best=state.best,
            wall_s=state.wall_s,
            history=run.log.read("validation"),
            precision=state.precision,
            signal=signalled or None,
        )


@dataclasses.dataclass(frozen=True)
class Aids:
    """What was found out about all films before training and helps a step.

    Attributes
    ----------
    twins : Tensor, optional
        Numbers of the mirror images of the films of a split.
    static_map : Tensor, optional
        Of latents to their static parts, if it is known for all films.
    looks : Looks, optional
        Says which film a swap looks like.
    """

    twins: Tensor | None = None
    static_map: Tensor | None = None
    looks: Looks | None = None


def _looks(config: TrainConfig, run: RunFolder, data: SequenceDataset, precision: str, progress_bar: bool) -> Looks:
    """The run's `Looks`: learnt when it begins, and the same when it goes on."""
    path = run.folder / "looks.safetensors"
    bf16 = precision == "bf16-mixed"
    how = config.looks_steps, config.seed, config.looks_colour_blind, config.looks_spoil, bf16
    about = {"looks": list(how), "data": run.data["train"]}
    if not path.is_file() or checkpoint.read(path)[1] != about:
        checkpoint.save(path, learn_looks(data, *how, progress_bar).state_dict(), about)
    looks = Looks(data.shape[1])
    looks.load_state_dict(checkpoint.read(path)[0])
    return looks.to(data.device).eval().requires_grad_(False)


def gradients(
    net: nn.Module,
    data: SequenceDataset,
    index: Tensor,
    config: TrainConfig,
    team: Team,
    precision: str,
    aids: Aids = Aids(),
) -> dict[str, Tensor]:
    """Backward passes of one step, on the sequences `index` of all processes; returns the loss terms."""
    total: dict[str, Tensor] = {}
    for rows, weight, context in team.shares(net, index, config.accumulate):
        with context:
            frames = data.to_float(data[rows], _dtype(precision))
            with _autocast(frames, precision):
                decoded = math.ceil(config.prediction_share * len(frames))
                swaps = _swaps(config, math.ceil(config.swap_share * len(frames)))
                mirrored = _mirrored(data, rows, aids.twins, config.mirror_share, frames)
                borrowing = math.ceil(config.borrowed_share * len(frames)) if config.w_borrowed else 0
                output = net(frames, decoded, swaps, aids.static_map, borrowing=borrowing, **mirrored)
            terms = koopman_losses(output, frames, config, aids.looks)
            terms = {name: weight * term for name, term in terms.items()}
            team.fabric.backward(sum(terms.values()))
        total = {name: term.detach() + total.get(name, 0) for name, term in terms.items()}
    return team.mean(total)


def _swaps(config: TrainConfig, films: int) -> SwapPlan | None:
    if not (config.w_swap or config.w_between or config.w_looks):
        return None
    return SwapPlan(
        films=films,
        channels=config.swap_channels,
        motion=config.swap_motion,
        middle=config.between_middle,
        returns=config.w_swap > 0,
        between=config.w_between > 0,
        looks=config.w_looks > 0,
    )


def _mirrored(
    data: SequenceDataset, films: Tensor, twins: Tensor | None, share: float, frames: Tensor
) -> dict[str, Tensor]:
    """Places in `films` of some that have a mirror image, and the mirror images, as floats like `frames`."""
    places = films[:0] if twins is None else some_with(twins, films, share)
    if not len(places):
        return {}
    return {"mirrored": places, "mirror_images": data.to_float(data[twins[films[places]]], frames.dtype)}


def _dtype(precision: str) -> torch.dtype:
    return torch.float64 if precision == "64-true" else torch.float32


def _autocast(frames: Tensor, precision: str) -> torch.autocast:
    return torch.autocast(frames.device.type, torch.bfloat16, enabled=precision == "bf16-mixed")


def start_from(
    name: str, model: KoopmanAutoencoder, state: Progress, data: SequenceDataset, turn_axes: bool = False
) -> None:
    """Give `model` the weights of a checkpoint, and note in `state` what went into them.

    Axes that the checkpoint has not got, or all if `turn_axes`, are found in the films `data`. A decoder with fewer
    units is widened.
    """
    path = checkpoint.find(name, KoopmanAutoencoder, "init")
    other, meta = checkpoint.load_model(path)
    same = {"dropout": 0.0, "static_noise": 0.0}  # no matter of sizes: they may change
    new_axes = model.config.axes and not other.config.axes
    same |= {"axes": True} if new_axes else {}
    new_units = model.config.hidden_dim > other.config.hidden_dim and not new_axes
    same |= {"hidden_dim": model.config.hidden_dim} if new_units else {}
    if dataclasses.replace(other.config, **same) != dataclasses.replace(model.config, **same):
        raise UserError(f"init: {path.name} is a model of other sizes ({other.config}, not {model.config})")
    if new_units:
        widen(model, other)
    else:
        model.load_state_dict(other.state_dict(), strict=not new_axes)
    if new_axes or turn_axes:
        turn(model, independent_basis(model, data))
    done = meta["progress"]
    steps = done["step"] if path.name == "last.safetensors" else done["best"]["step"]
    state.before_steps = steps + done.get("before_steps", 0)
    state.before_wall_s = done["wall_s"] + done.get("before_wall_s", 0.0)
    state.before_commands = [*done.get("before_commands", []), command(meta["train"], steps)]


@torch.no_grad()
def validate(
    model: nn.Module,
    data: SequenceDataset,
    config: TrainConfig,
    precision: str = "32-true",
    team: Team | None = None,
    aids: Aids = Aids(),
) -> dict[str, float]:
    """Losses and reconstruction MSE on held-out sequences: the first `validation_sequences` of a fixed order.

    The processes of a team take turns at the batches.
    """
    was_training = model.training
    model.eval()
    order = torch.randperm(len(data), generator=generator(config.seed, 0))[: config.validation_sequences]
    # Of one size, as SKD's operator of a few films that are left over would be another thing than that of a batch.
    batches = [(index, len(index)) for index in order.tensor_split(math.ceil(len(order) / 64))]
    if team:
        batches = batches[team.rank :: team.size] or [(batches[0][0], 0)]  # one that has none adds nothing
    sums: dict[str, Tensor] = {}
    with torch.random.fork_rng():  # every validation draws the same partners: their luck shall not choose weights
        torch.manual_seed(config.seed)
        for index, count in batches:
            frames = data.to_float(data[index.to(next(model.parameters()).device)], _dtype(precision))
            with _autocast(frames, precision):
                swaps = _swaps(config, len(frames)) if len(frames) > 1 else None
                mirrored = _mirrored(data, index, aids.twins, 1.0, frames)
                borrowing = len(frames) if config.w_borrowed else 0
                output = model(frames, None, swaps, aids.static_map, borrowing=borrowing, **mirrored)
            terms = koopman_losses(output, frames, config, aids.looks)
            terms["mse"] = torch.nn.functional.mse_loss(output.reconstruction.to(frames.dtype), frames)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term * count
    model.train(was_training)
    sums = team.sum(sums) if team else sums
    scores = check_finite({k: v / len(order) for k, v in sums.items()}, "validation")
    mse = scores.pop("mse")
    return {"loss": sum(scores.values()), "mse": mse, **scores}


def _shown(values: dict[str, float], state: Progress) -> dict[str, str]:
    """Losses for the progress bar, and the best held-out error so far."""
    spectrum = values["static_eigenvalues"] + values["dynamic_eigenvalues"]
    shown = {"rec": values["reconstruction"], "pred": values["prediction"], "eig": spectrum}
    shown |= {"swap": values["swap"]} if "swap" in values else {}
    shown |= {"held_out_mse": state.best["mse"]} if state.best else {}
    return {k: f"{v:.2e}" for k, v in shown.items()}

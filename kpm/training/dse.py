"""Training of the deep spectral encoder: networks by gradient steps, operators in closed form inside the loss.

Stage one teaches encoder and block features to make past and future of the record correlated. In stage two this goes
on, while dictionaries and read-outs learn from operators that are fitted anew in each step, on all blocks but the one
they predict, and encoder and decoder from the frames predicted with these. The published way is in
`kpm.training.dse_published`; the readings are compared in `kpm.models.dse`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kpm.errors import UserError, pick
from kpm.models.dse import DSE
from kpm.models.dse_networks import Beside, DSEConfig, dtype_of, solve_last
from kpm.models.dse_operators import fit_operators
from kpm.solvers.cross_fitting import Folds, contiguous_folds, leave_one_out, out_of_fold, unexplained
from kpm.solvers.realization import Realization
from kpm.training import hardware
from kpm.training.losses import check_finite

SCHEDULES = ("staged", "joint")


@dataclasses.dataclass(frozen=True)
class DSETrainConfig:
    """How a deep spectral encoder is trained."""

    schedule: str = "staged"
    """staged: two stages, and operators do not train the encoder. joint: all losses train everything from the start."""
    stage_one: int = 25
    """Epochs of the realization alone."""
    stage_two: int = 100
    """Epochs of all losses."""
    segment: int = 1000
    """Frames per step: a piece of a long sequence, or several short ones."""
    learning_rate: float = 1e-3
    """Of Adam, for dictionaries and read-outs."""
    encoder_rate: float = 1e-3
    """Of Adam, for encoder, block features and decoder."""
    cosine: bool = True
    """Whether the rates fall to zero over the epochs, along a cosine."""
    folds: int = 5
    """Blocks of the cross-fitting; 1 for none, so that operators have seen what they predict (an ablation)."""
    closed_form: bool = True
    """Whether operators are ridge solutions of each step; if not, matrices that are learned with everything else, and
    without cross-fitting (an ablation of the clean reading; the paper's has networks in their place, on which no Kalman
    filter can run). The spectrum is solved for in any case."""
    correlation_weight: float = 1.0
    """Of minus the mean canonical correlation (published reading: minus their sum)."""
    reconstruction_weight: float = 0.1
    """Of the share of the variance of the frames that is not predicted (published reading: their squared error)."""
    readout_steps: int = 200
    """Steps of the last fit of the read-outs."""
    readout_decay: float = 1e-3
    """Weight decay of that fit, and in the clean reading the ridge (per row) with which last layers are solved."""
    seed: int = 7253
    """Of weights, segments and dropout."""

    def __post_init__(self) -> None:
        pick("schedule", self.schedule, SCHEDULES)
        for name, least in (("stage_one", 0), ("stage_two", 0), ("segment", 2), ("folds", 1), ("readout_steps", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("learning_rate", "encoder_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("correlation_weight", "reconstruction_weight", "readout_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must not be negative, got {getattr(self, name)}")

    @classmethod
    def oscillator(cls, **changes) -> DSETrainConfig:
        """For the clean reading of oscillators: fewer epochs, larger steps, the same spectra as 125 epochs give."""
        rates = {"encoder_rate": 2e-3, "learning_rate": 2e-3}
        return cls(**{"stage_one": 10, "stage_two": 15, **rates, **changes})

    @classmethod
    def images(cls, **changes) -> DSETrainConfig:
        """For the clean reading of films: frames count more, correlations less, so that these hold for other films."""
        weights = {"correlation_weight": 0.2, "reconstruction_weight": 1.0, "readout_steps": 150}
        rates = {"encoder_rate": 2e-3, "learning_rate": 2e-3}
        return cls(**{"stage_one": 5, "stage_two": 120, **weights, **rates, **changes})

    @classmethod
    def published(cls, **changes) -> DSETrainConfig:
        """Rates and weights of the published code for oscillators (for images: encoder 1e-3, correlations 1e-4)."""
        return cls(**{"encoder_rate": 1e-4, "correlation_weight": 1e-3, "reconstruction_weight": 1.0, **changes})

    def quick(self) -> DSETrainConfig:
        """A few seconds: enough to see the losses fall."""
        return dataclasses.replace(self, stage_one=5, stage_two=10, readout_steps=50)

    @property
    def epochs(self) -> int:
        return self.stage_one + self.stage_two

    def share(self, epoch: int) -> float:
        """Of the learning rates, in an epoch."""
        return 0.5 * (1 + math.cos(math.pi * epoch / self.epochs)) if self.cosine else 1.0


@dataclasses.dataclass(frozen=True)
class DSETrained:
    """A fitted model, the losses of the last step of each epoch (as they enter the sum), and the wall seconds."""

    model: DSE
    history: list[dict[str, Any]]
    wall_s: float


def train(
    y: Tensor,
    sizes: DSEConfig | None = None,
    config: DSETrainConfig | None = None,
    *,
    after_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> DSETrained:
    """Train and fit a deep spectral encoder.

    Parameters
    ----------
    y : Tensor
        ``(time, *element)``, or ``(n, time, *element)``: sequences of one process. Images are uint8, or in [0, 1].
        No gradient goes into it.
    sizes : DSEConfig, optional
        With ``reading="published"``, what is done is `kpm.training.dse_published.train`.
    config : DSETrainConfig, optional
        By default `DSETrainConfig()`, or `DSETrainConfig.published()` in that reading.
    after_epoch : callable, optional
        Given the number of the epoch and its losses.

    Raises
    ------
    ValueError
        For a wrong shape, too few frames, numbers that are not finite, a constant channel, or windows with too little
        variety for `rank` correlations.
    NonFiniteLoss
        If a loss is not finite; names epoch and term.
    """
    began = time.monotonic()
    hardware.keep_freed_memory()  # without it, pages come and go for half of the time
    sizes = sizes or DSEConfig()
    y = y.detach() if isinstance(y, Tensor) else y  # a graph behind it would be freed by the first step
    if sizes.is_published:
        from kpm.training import dse_published

        if config and not config.closed_form:
            raise UserError("closed_form: the published reading has no other")
        return dse_published.train(y, sizes, config or DSETrainConfig.published(), after_epoch=after_epoch)
    config = config or DSETrainConfig()
    if config.stage_one and not sizes.realized:
        raise UserError(f"stage_one: without a realization there is nothing to train first, got {config.stage_one}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = prepared(y, sizes)
        y = model.sequences(y, model.fewest_frames)
        networks = [model.dictionary, model.observation_dictionary, model.state_readout, model.observation_readout]
        groups = [
            {"params": parameters(model.encoder, model.heads, model.decoder)},
            {"params": parameters(*networks)},
        ]
        optimizer = torch.optim.Adam(groups, fused=True)
        history, previous, free = [], None, None
        if not config.closed_form:
            free = FreeOperators(model)
            optimizer.param_groups[1]["params"] += parameters(free)
        for epoch in range(config.epochs):
            whole = epoch >= config.stage_one or config.schedule == "joint"
            for group, rate in zip(optimizer.param_groups, (config.encoder_rate, config.learning_rate)):
                group["lr"] = rate * config.share(epoch)
            model.train()
            for segment in segments(y, config.segment, model.fewest_frames):
                terms, previous = losses(model, segment, config, previous, whole, free)
                optimizer.zero_grad()
                sum(terms.values()).backward()
                optimizer.step()
            history.append({"epoch": epoch, **check_finite(terms, f"epoch {epoch}")})
            if after_epoch:
                after_epoch(epoch, history[-1])
        if previous is not None:
            model.realization = previous
        fit(model, y, config, free)
    return DSETrained(model, history, time.monotonic() - began)


class FreeOperators(nn.Module):
    """Transition and output as matrices that are learned, not solved for; the constant stays what it is."""

    def __init__(self, model: DSE):
        super().__init__()
        eye = torch.eye(*model.transition.shape).to(model.transition)
        self.register_buffer("constant", eye[:, :1])
        self.rest = nn.Parameter(eye[:, 1:].clone())
        self.output = nn.Parameter(torch.zeros_like(model.output))

    @property
    def transition(self) -> Tensor:
        return torch.cat([self.constant, self.rest], 1)


def prepared(y: Tensor, sizes: DSEConfig) -> DSE:
    """A new model on the device of `y`, with the scale of `y`.

    Where encoder and observation dictionary are linear and keep the size of the frames, both start as the identity:
    at random they may be nearly singular, and training then gives up the observation that is hardly there, since
    `unexplained` does not count directions of almost no variance.
    """
    model = DSE(sizes)
    linear = not (sizes.is_image or sizes.is_published or sizes.encoder_hidden or sizes.observation_hidden)
    if linear and sizes.inputs == sizes.code == sizes.observation_features:
        for net in (model.encoder, model.observation_dictionary):
            nn.init.eye_(net[0].weight)
    model.set_scale(y)
    return model.to(y.device)


def parameters(*networks: nn.Module) -> list[nn.Parameter]:
    return [p for network in networks for p in network.parameters() if p.requires_grad]


def segments(y: Tensor, length: int, least: int) -> Iterator[Tensor]:
    """Pieces ``(n, time, *element)`` of about `length` frames for one epoch, in random order.

    Sequences that are longer give pieces that begin anywhere, as many as they are longer; shorter ones come whole,
    several at a time. So the rows of one piece share frames only within a sequence, as cross-fitting supposes.
    """
    count, time = y.shape[:2]
    length = max(length, least)
    if time <= length:
        for index in torch.randperm(count).split(max(1, length // time)):
            yield y[index.to(y.device)]
        return
    for i in torch.randperm(count * math.ceil(time / length)).tolist():
        start = int(torch.randint(time - length + 1, ()))
        yield y[i % count, start : start + length][None]


def losses(
    model: DSE,
    y: Tensor,
    config: DSETrainConfig,
    previous: Realization | None = None,
    whole: bool = True,
    free: FreeOperators | None = None,
) -> tuple[dict[str, Tensor], Realization]:
    """Weighted losses on sequences `y` ``(n, time, *element)``, and the realization they were found with.

    - ``correlation``: minus the mean of the leading canonical correlations of block features;
    - ``transition``, ``output``: share of the state features after a step, and of the observation features, that the
      operator of the other blocks does not explain, in whitened coordinates (`cross_fitting.unexplained`);
    - ``state_readout``, ``observation_readout``: squared error of states and codes read from these predictions, in
      units of their variances;
    - ``reconstruction``: that of frames decoded from them, with operators taken as constant.

    In the staged schedule only the first and the last train encoder and block features: operators can be made to look
    good by states that vary less. Without `whole`, only the first is there.
    """
    codes = model.encode(y)
    past, future = model.blocks(codes)
    found = model.find_realization(past, future, previous)
    terms = {"correlation": config.correlation_weight * found.loss / found.rank} if model.config.realized else {}
    if not whole:
        return terms, found
    live = model.states(past, found)
    now = model.present(codes)[:, 1:].flatten(0, 1)
    x, code = (live, now) if config.schedule == "joint" else (live.detach(), now.detach())
    z, seen = model.dictionary(x), model.observe(code)
    before, after = z[:, :-1].flatten(0, 1), z[:, 1:].flatten(0, 1)
    folds = contiguous_folds(len(z), z.shape[1] - 1, config.folds, model.purge, z.device)
    if free is None:
        transitions = leave_one_out(before, after, model.penalty, folds)
        outputs = leave_one_out(after, seen, model.config.ridge_output, folds)
    else:
        transitions, outputs = (x.expand(len(folds), -1, -1) for x in (free.transition, free.output))
    ahead = out_of_fold(before, transitions, folds)
    terms["transition"] = unexplained((ahead - after)[:, 1:], after[:, 1:])  # not of the constant
    terms["output"] = unexplained(out_of_fold(after, outputs, folds) - seen, seen)
    terms["state_readout"] = relative(model.state_readout(ahead.to(code.dtype)), x[:, 1:].flatten(0, 1))
    read = model.observation_readout(out_of_fold(ahead, outputs, folds).to(code.dtype))
    terms["observation_readout"] = relative(read, code)
    frames = predicted_frames(model, live, transitions, outputs, folds)
    target = model.present(model.inputs(y))[:, 1:].flatten(0, 1)
    terms["reconstruction"] = config.reconstruction_weight * relative(frames, target)
    return terms, found


def predicted_frames(model: DSE, states: Tensor, transitions: Tensor, outputs: Tensor, folds: Folds) -> Tensor:
    """Inputs decoded from states ``(n, time, rank)`` a step before, by given operators, ``(n (time - 1), *inputs)``."""
    z = model.dictionary(states)[:, :-1].flatten(0, 1)
    seen = out_of_fold(z, (transitions @ outputs).detach(), folds)
    return model.decoder(model.observation_readout(seen.to(dtype_of(model.decoder))))


def relative(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean squared error in units of the mean variance of the target over rows."""
    variance = target.detach().flatten(1).double().var(0, correction=0).mean()
    return (estimate - target).double().square().mean() / variance


def fit(model: DSE, y: Tensor, config: DSETrainConfig, free: FreeOperators | None = None) -> None:
    """Operators and noise of all training data, then read-outs and decoder on out-of-fold features.

    With `free` operators there are no folds.
    """
    given = None if free is None else (free.transition.detach(), free.output.detach())
    z, codes = fit_operators(model, y, config.folds, given)
    before, after, code = z[:, :-1].flatten(0, 1), z[:, 1:].flatten(0, 1), codes[:, 1:].flatten(0, 1)
    rank = model.config.rank
    with torch.no_grad():
        seen = model.observe(code)
        if given is None:
            folds = contiguous_folds(len(z), z.shape[1] - 1, config.folds, model.purge, z.device)
            ahead = out_of_fold(before, leave_one_out(before, after, model.penalty, folds), folds)
            shown = out_of_fold(ahead, leave_one_out(after, seen, model.config.ridge_output, folds), folds)
        else:
            ahead = before @ given[0]
            shown = ahead @ given[1]
    model.eval()
    for net, x, target in (
        (model.state_readout, ahead, after[:, 1 : 1 + rank]),
        (model.observation_readout, shown, code),
    ):
        if isinstance(net, Beside):
            net, target = net.net, target[:, net.kept :]
        solve_last(net, x, target, config.readout_decay)
        fit_readout(net, x, target, config)
        solve_last(net, x, target, config.readout_decay)
    fit_decoder(model, y, shown.unflatten(0, (len(z), -1)), config)


def fit_readout(readout: nn.Module, features: Tensor, target: Tensor, config: DSETrainConfig) -> None:
    """The last steps of a read-out, on features ``(rows, d)`` that are given once and for all."""
    optimizer = torch.optim.Adam(readout.parameters(), 1e-3, weight_decay=config.readout_decay)
    features = features.to(dtype_of(readout))
    for _ in range(config.readout_steps):
        optimizer.zero_grad()
        relative(readout(features), target).backward()
        optimizer.step()


def fit_decoder(model: DSE, y: Tensor, shown: Tensor, config: DSETrainConfig) -> None:
    """The last steps of the decoder, for the read-out as it is now; `shown` ``(n, time, observation_features)``.

    Each step takes a piece of one sequence.
    """
    optimizer = torch.optim.Adam(model.decoder.parameters(), 1e-3)
    count, time = shown.shape[:2]
    length, first = min(config.segment, time), model.config.window + model.config.gap + 1
    with torch.no_grad():
        codes = model.observation_readout(shown.to(dtype_of(model.decoder)))
    for _ in range(config.readout_steps):
        i, start = int(torch.randint(count, ())), int(torch.randint(time - length + 1, ()))
        piece = y[i : i + 1, first + start : first + start + length + model.config.delays - 1]
        optimizer.zero_grad()
        relative(model.decoder(codes[i, start : start + length]), model.inputs(piece)[0]).backward()
        optimizer.step()
    if not model.config.is_image:
        target = model.inputs(y)[:, first : first + time].flatten(0, 1)
        solve_last(model.decoder, codes.flatten(0, 1), target, config.readout_decay)

"""Training of the deep spectral encoder as the published code does it, for comparison with `kpm.training.dse`.

All data in every step, one step of each part per epoch, in turn:

1. *transition*: the state dictionary, by the error of the operator of all folds but one on that one (in turn);
2. *state read-out*: dictionary and read-out, by the states read from predictions of the operator of all data;
3. *output*: the state dictionary, by the error of the output operator of all folds but one on that one;
4. *observation read-out*: observation dictionary and read-out, by the codes read from predicted features;
5. from epoch `stage_one` on, encoder and decoder, by the squared error of decoded frames and the correlations.

The block features stay as initialised. The dictionaries have dropout until the first time the fifth step comes, then
never again. No gradient runs through the canonical directions here (in the published code it does).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from kpm.models.dse import DSE
from kpm.models.dse_networks import DSEConfig, dtype_of
from kpm.models.dse_operators import fit_frame_map
from kpm.models.dse_published import system_of
from kpm.solvers.cross_fitting import Folds, contiguous_folds, leave_one_out, out_of_fold, ridge
from kpm.training.dse import DSETrainConfig, DSETrained, fit_readout, parameters, prepared
from kpm.training.losses import check_finite


def train(
    y: Tensor,
    sizes: DSEConfig,
    config: DSETrainConfig,
    *,
    after_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> DSETrained:
    """Train and fit one sequence ``(time, *element)`` or ``(1, time, *element)``; see `kpm.training.dse.train`."""
    began = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = prepared(y, sizes)
        y = model.sequences(y, model.fewest_frames + config.folds)
        if len(y) != 1:
            raise ValueError(f"y: the published reading takes one sequence, got {len(y)}")
        run = _Run(model, y, config)
        history = []
        model.train()
        for epoch in range(config.epochs):
            if epoch >= config.stage_one:
                run.realize()
            terms = run.stage_one(epoch % config.folds)
            if epoch >= config.stage_one:
                model.dictionary.eval(), model.observation_dictionary.eval()
                terms |= run.stage_two()
            history.append({"epoch": epoch, **check_finite(terms, f"epoch {epoch}")})
            if after_epoch:
                after_epoch(epoch, history[-1])
        run.finish()
    return DSETrained(model, history, time.monotonic() - began)


class _Run:
    """What one training has in hand: codes ``(time, code)``, states ``(n, rank)``, the operators of the last steps."""

    def __init__(self, model: DSE, y: Tensor, config: DSETrainConfig):
        self.model, self.y, self.config = model, y, config
        self.state = torch.optim.Adam(parameters(model.dictionary, model.state_readout), config.learning_rate)
        observation = parameters(model.observation_dictionary, model.observation_readout)
        self.observation = torch.optim.Adam(observation, config.learning_rate)
        self.frames = torch.optim.Adam(parameters(model.encoder, model.decoder), config.encoder_rate)
        self.realize()

    def realize(self) -> None:
        """Codes at the times of the states, and the states; with their graph too, for the fifth step."""
        codes = self.model.encode(self.y)
        past, future = self.model.blocks(codes)
        found = self.model.find_realization(past, future)
        self.model.realization = found
        self.live = codes, self.model.states(past, found)[0], found
        self.codes, self.states = self.model.present(codes)[0].detach(), self.live[1].detach()

    def stage_one(self, fold: int) -> dict[str, Tensor]:
        """The first four steps."""
        model, x = self.model, self.states
        ridge_a, ridge_b = model.config.ridge_transition, model.config.ridge_output
        terms = {}

        z = model.dictionary(x)
        terms["transition"] = _held_out(z[:-1], z[1:], ridge_a, fold, self.config.folds)
        _step(self.state, terms["transition"])
        with torch.no_grad():
            z = model.dictionary(x)
            self.transition = ridge(z[:-1], z[1:], ridge_a)

        z = model.dictionary(x)
        ahead = z[:-1] @ ridge(z[:-1], z[1:], ridge_a)
        terms["state_readout"] = _squared(model.state_readout(ahead.to(self.codes.dtype)), x[1:])
        _step(self.state, terms["state_readout"])

        with torch.no_grad():
            guess, code = self.predicted(x)[:-1], self.codes[2:]  # the state at t with the code at t + 1
            seen = model.observe(code)
        terms["output"] = _held_out(model.dictionary(guess), seen, ridge_b, fold, self.config.folds)
        _step(self.state, terms["output"])

        with torch.no_grad():
            z = model.dictionary(guess)
        seen = model.observe(code)
        self.output = ridge(z, seen, ridge_b)
        read = model.observation_readout((z @ self.output).to(code.dtype))
        terms["observation_readout"] = _squared(read, code)
        _step(self.observation, terms["observation_readout"])
        self.output = self.output.detach()
        return terms

    def stage_two(self) -> dict[str, Tensor]:
        """The fifth step: the state at t with the frame at t. Encoder and decoder move, so `realize` comes next."""
        model = self.model
        codes, states, found = self.live
        guess = self.predicted(states)
        seen = model.dictionary(guess) @ self.output
        frames = model.decoder(model.observation_readout(seen.to(codes.dtype)))
        target = model.present(model.inputs(self.y))[0, 1:]
        terms = {
            "reconstruction": self.config.reconstruction_weight * _squared(frames, target),
            "correlation": self.config.correlation_weight * found.loss,
        }
        _step(self.frames, sum(terms.values()))
        return terms

    def predicted(self, states: Tensor) -> Tensor:
        """States read from the features one step before, ``(n - 1, rank)``."""
        ahead = self.model.dictionary(states[:-1]) @ self.transition
        return self.model.state_readout(ahead.to(dtype_of(self.model.state_readout))).double()

    def finish(self) -> None:
        """Operators averaged over the folds, read-outs on out-of-fold features; the spectrum stays the last cached."""
        model, config = self.model, self.config
        model.eval()
        with torch.no_grad():
            self.realize()
            z = model.dictionary(self.states)
            folds = _folds(z[1:], config.folds)
            transitions = leave_one_out(z[:-1], z[1:], model.config.ridge_transition, folds)
            ahead = out_of_fold(z[:-1], transitions, folds)
        fit_readout(model.state_readout, ahead, self.states[1:], config)
        with torch.no_grad():
            model.spectral_transition.copy_(getattr(self, "transition", transitions.mean(0)))
            model.transition.copy_(transitions.mean(0))
            model.fold_transition.copy_(transitions.mean(0))
            self.transition = model.transition
            guess = model.dictionary(self.predicted(self.states))
            code = self.codes[:-1]  # the state at t with the code at t - 1
            seen = model.observe(code)
            outputs = leave_one_out(guess, seen, model.config.ridge_output, folds)
            model.output.copy_(outputs.mean(0))
            shown = out_of_fold(guess, outputs, folds)
        fit_readout(model.observation_readout, shown, code, config)
        fit_frame_map(model, z[None], self.y)
        system = system_of(model, self.y)
        for name in ("process_noise", "observation_noise", "initial_mean", "initial_covariance"):
            getattr(model, name).copy_(getattr(system, name))
        model.eval()


def _held_out(x: Tensor, y: Tensor, penalty: float, fold: int, folds: int) -> Tensor:
    """Error of one fold by the operator of the others: squares summed over features, and its penalty."""
    parts = _folds(x, folds)
    operator = ridge(x, y, penalty, parts.keep[fold])
    here = slice(sum(parts.sizes[:fold]), sum(parts.sizes[: fold + 1]))
    return (x[here] @ operator - y[here]).square().sum(-1).mean() + penalty * operator.square().sum()


def _folds(x: Tensor, folds: int) -> Folds:
    return contiguous_folds(1, len(x), folds, device=x.device)


def _squared(estimate: Tensor, target: Tensor) -> Tensor:
    return (estimate - target).double().square().mean()


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

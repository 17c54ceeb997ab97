"""Random search of settings, as the thesis did it: which settings are tried, and which trials are still owed.

Optuna keeps the trials and draws the settings. What is here on top of it is a pure function of its list of trials,
`places`: a search of N trials has N places, and every place ends with exactly one finished trial, whoever dies
meanwhile. It needs no lock and no clock, only that the storage numbers its trials in order:

- the k-th trial that is no retry has place k;
- a trial that failed without an error of its own was lost with its worker; anybody may add a retry of it, and of
  several retries of one trial the one with the lowest number counts, the others count nothing;
- a trial whose worker was asked to end, or could not work for a reason that is none of the trial's, notes that it was
  ``interrupted``: it is retried like a lost one, but not counted as a death;
- a lost trial has failed for good before it is retried, so a worker that comes back late cannot finish it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from kpm.errors import UserError
from kpm.training.config import TrainConfig
from kpm.training.state import mix

State = Literal["open", "waiting", "running", "lost", "given up", "complete", "pruned", "failed"]
FINISHED = ("given up", "complete", "pruned", "failed")
RETRIES = 3  # of one place, whose worker then has died four times: it will again
REDUCTION = 3  # of the trials that ASHA stops at each rung, all but this share


@dataclasses.dataclass(frozen=True)
class Range:
    """From `low` to `high`, whole numbers or not, evenly or by factors (`log`); given to all of `fields`."""

    low: float
    high: float
    whole: bool = False
    log: bool = False
    fields: tuple[str, ...] = ()

    def distribution(self) -> IntDistribution | FloatDistribution:
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)


def thesis_ranges(config: TrainConfig) -> dict[str, Range]:
    """The ranges of [SSM-SKD] Table 6 for the settings that a config leaves open.

    The thesis gives ends only. Weights are drawn by factors here, since its grid (1/4, 1, 4) is even in factors, the
    other settings evenly. One weight serves both predictions. SKD's latents are larger than its static part.
    """
    return {
        "latent_dim": Range(max(8, config.static_size + 1), 40, whole=True),
        "hidden_dim": Range(80, 200, whole=True),
        "w_prediction": Range(0.25, 4.0, log=True, fields=("w_predicted_latents", "w_prediction")),
        "w_eigenvalues": Range(0.25, 4.0, log=True),
        "threshold": Range(0.125, 0.875),
    }


def suggest(trial: optuna.Trial, config: TrainConfig, ranges: Mapping[str, Range]) -> TrainConfig:
    """The config of a trial."""
    drawn: dict[str, float] = {}
    for name, span in ranges.items():
        if span.whole:
            drawn[name] = trial.suggest_int(name, int(span.low), int(span.high), log=span.log)
        else:
            drawn[name] = trial.suggest_float(name, span.low, span.high, log=span.log)
    return apply(config, ranges, drawn)


def apply(config: TrainConfig, ranges: Mapping[str, Range], drawn: Mapping[str, float]) -> TrainConfig:
    """`config` with what was drawn in its fields."""
    changed: dict[str, Any] = {}
    for name, value in drawn.items():
        changed |= dict.fromkeys(ranges[name].fields or (name,), value)
    return dataclasses.replace(config, **changed)


def sampler(kind: Literal["random", "tpe"], seed: int, place: int) -> optuna.samplers.BaseSampler:
    """What draws the settings of a place. Random ones depend on seed and place alone, not on who draws them when."""
    own = mix(seed, place) % 2**32
    return optuna.samplers.TPESampler(seed=own) if kind == "tpe" else optuna.samplers.RandomSampler(seed=own)


def rungs(steps: int, pruner: Literal["none", "asha"]) -> list[int]:
    """Steps after which a trial is compared with the others and may be stopped; the last is the end of the training."""
    if pruner == "none":
        return [steps]
    first = max(1, steps // REDUCTION**2)
    return sorted({min(steps, first * REDUCTION**k) for k in range(2)} | {steps})


def make_pruner(kind: Literal["none", "asha"], steps: int) -> optuna.pruners.BasePruner:
    """ASHA: of the trials that have come to a rung so far, the best third goes on (Li et al., MLSys 2020)."""
    if kind == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.SuccessiveHalvingPruner(rungs(steps, kind)[0], REDUCTION)


@dataclasses.dataclass(frozen=True)
class Place:
    """One of the trials that a search owes: the attempts at it in order, all but the last lost."""

    number: int
    attempts: tuple[FrozenTrial, ...] = ()

    @property
    def last(self) -> FrozenTrial:
        return self.attempts[-1]

    @property
    def state(self) -> State:
        if not self.attempts:
            return "open"
        if self.last.state != TrialState.FAIL:
            return self.last.state.name.lower()
        if "error" in self.last.user_attrs:
            return "failed"
        deaths = sum("interrupted" not in attempt.user_attrs for attempt in self.attempts)
        return "lost" if deaths <= RETRIES else "given up"

    @property
    def finished(self) -> bool:
        return self.state in FINISHED


def places(trials: Sequence[FrozenTrial], wanted: int) -> list[Place]:
    """The places of a search of `wanted` trials, from all trials of its study."""
    trials = sorted(trials, key=lambda trial: trial.number)
    retry_of: dict[int, FrozenTrial] = {}
    for trial in trials:
        if "retry_of" in trial.user_attrs:
            retry_of.setdefault(trial.user_attrs["retry_of"], trial)
    found = []
    for first in [trial for trial in trials if "retry_of" not in trial.user_attrs][:wanted]:
        attempts = [first]
        while attempts[-1].number in retry_of:
            attempts.append(retry_of[attempts[-1].number])
        found.append(Place(len(found), tuple(attempts)))
    return found + [Place(number) for number in range(len(found), wanted)]


def place_of(number: int, trials: Sequence[FrozenTrial], wanted: int) -> int | None:
    """The place that trial `number` is the last attempt at; None if it counts nothing."""
    return next((p.number for p in places(trials, wanted) if p.attempts and p.last.number == number), None)


def repair(study: optuna.Study, wanted: int, dead: Callable[[FrozenTrial], bool]) -> list[int]:
    """Fail the running trials whose worker is `dead`, and add a retry for every place that is lost.

    Any number of processes may do this at any time. Returns the numbers of the trials that were failed.
    """
    failed = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        # Who finished it in between was faster, and what it found counts.
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError, ValueError):
            if dead(trial):
                study.tell(trial.number, state=TrialState.FAIL)
                failed.append(trial.number)
    for place in places(study.get_trials(deepcopy=False), wanted):
        if place.state == "lost":
            last = place.last
            study.add_trial(
                optuna.create_trial(
                    state=TrialState.WAITING,
                    params=last.params,
                    distributions=last.distributions,
                    user_attrs={"retry_of": last.number},
                )
            )
    return failed


def best(found: Sequence[Place]) -> Place | None:
    """The complete place with the smallest value, the first of equals; None if there is none."""
    done = [place for place in found if place.state == "complete" and math.isfinite(place.last.value)]
    return min(done, key=lambda place: (place.last.value, place.number), default=None)


def describe(config: TrainConfig, ranges: Mapping[str, Range], **how: Any) -> dict[str, Any]:
    """What a search is, as plain values; two searches that share a study must agree in all of it."""
    spans = {name: {**dataclasses.asdict(span), "fields": list(span.fields)} for name, span in ranges.items()}
    return {"config": dataclasses.asdict(config), "ranges": spans, **how}


def restore(said: Mapping[str, Any]) -> tuple[TrainConfig, dict[str, Range]]:
    """Config and ranges of what `describe` gave; `UserError` if it is something else."""
    try:
        spans = {name: Range(**{**span, "fields": tuple(span["fields"])}) for name, span in said["ranges"].items()}
        return TrainConfig(**said["config"]), spans
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the study holds no search of this package's ({error})") from None


def check_same(kept: Mapping[str, Any], asked: Mapping[str, Any], study: str) -> None:
    """`UserError` with what differs, if a study holds another search than the one asked for."""
    old, new = _flat(kept), _flat(asked)
    changed = [f"{k} {old.get(k)!r} -> {new.get(k)!r}" for k in {**old, **new} if old.get(k) != new.get(k)]
    if changed:
        raise UserError(f"study {study!r} holds another search ({', '.join(changed)}); name another --study")


def _flat(said: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that are searched are compared by their range, the others by their value."""
    drawn = {name for key, span in said["ranges"].items() for name in (key, *span["fields"])}
    settings = {name: value for name, value in said["config"].items() if name not in drawn}
    ranges = {f"range of {name}": [span["low"], span["high"]] for name, span in said["ranges"].items()}
    return settings | ranges | {k: v for k, v in said.items() if k not in ("config", "ranges")}

"""Spectra of noisy oscillators, trial by trial: what each method finds in a record, kept in small files.

A trial of one method is one file, ``FOLDER/METHOD/NOISE_TRIAL.json``, whole or not there, so that a run can stop
anywhere and go on. With the eigenvalues it has the settings of record and method and the commit they were found at. A
file of other settings than the present ones counts as not there.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kpm import files
from kpm.datasets import stuart_landau, trials, van_der_pol
from kpm.environment import report
from kpm.errors import UserError, pick
from kpm.models.baselines.elto import ELTOConfig
from kpm.models.baselines.spectra import METHODS_OF, SPECTRAL_METHODS, largest
from kpm.models.dse import DSE
from kpm.models.dse_networks import DSEConfig
from kpm.training.dse import DSETrainConfig, train


@dataclasses.dataclass(frozen=True)
class System:
    """An oscillator of the DSE paper: how it is simulated, the levels of noise of its table, DSE's sizes for it.

    `kinds` names its reference spectra, the one that counts first; by default there is one.
    """

    name: str
    module: Any
    config: type
    levels: tuple[float, ...]
    sizes: Callable[..., DSEConfig]
    kinds: tuple[str, ...] = ()

    def setting(self, level: float, trial: int) -> Any:
        """The config of the trial k = 1, 2, ... of the paper at one level of noise, alone."""
        config = self.config(noise=level, trials=1)
        return dataclasses.replace(config, seed=config.seed + trial - 1)

    def trial(self, level: float, trial: int) -> trials.Trials:
        """That trial."""
        return _simulated(self, level, trial)

    def references(self, level: float) -> dict[str, tuple[Tensor, Tensor]]:
        """Harmonics and eigenvalues of each kind of reference, by name."""
        config = dataclasses.replace(self.setting(level, 1), frames=2, train_size=1)
        if not self.kinds:
            record = self.module.simulate(config)
            return {"": (record.harmonics, record.reference)}
        records = {kind: self.module.simulate(dataclasses.replace(config, reference=kind)) for kind in self.kinds}
        return {kind: (record.harmonics, record.reference) for kind, record in records.items()}


SYSTEMS = {
    "vdp": System("van_der_pol", van_der_pol, van_der_pol.VanDerPol, (0.05, 0.10, 0.15, 0.20), DSEConfig.van_der_pol),
    "sl": System(
        "stuart_landau",
        stuart_landau,
        stuart_landau.StuartLandau,
        (0.01, 0.05, 0.09),
        DSEConfig.stuart_landau,
        ("exact", "weak"),
    ),
}


@functools.lru_cache(maxsize=8)
def _simulated(system: System, level: float, trial: int) -> trials.Trials:
    """Kept for the next method: simulating takes longer than many of them."""
    return system.module.simulate(system.setting(level, trial))


# What a record does not depend on: how many there are, and what it is compared with or cut into afterwards.
NOT_OF_RECORD = ("trials", "reference", "harmonics", "window")


@dataclasses.dataclass(frozen=True)
class Reading:
    """A way to take a spectrum by DSE: changes of the sizes of `System.sizes`, training, and which operator it is of.

    Attributes
    ----------
    sizes : dict
    training : callable
        Gives the `DSETrainConfig`.
    operator : str
        Buffer of the model with the transition whose eigenvalues are taken.
    """

    sizes: Mapping[str, Any]
    training: Callable[[], DSETrainConfig]
    operator: str = "spectral_transition"


READINGS = {
    "dse": Reading({"reading": "clean"}, DSETrainConfig.oscillator),
    "dse_published": Reading({"reading": "published"}, DSETrainConfig.published),
}
# The clean reading with one thing changed, see `kpm.workbook.dse_variants`; in no table unless asked for.
RANKS = (5, 7, 9, 11, 13, 16, 20)
_ABLATIONS = {
    "dse_joint": Reading({}, functools.partial(DSETrainConfig.oscillator, schedule="joint")),
    "dse_one_fold": Reading({}, functools.partial(DSETrainConfig.oscillator, folds=1)),
    "dse_regression": Reading({}, DSETrainConfig.oscillator, "transition"),
}
_LARGE = {"delays": 4, "encoder_hidden": (128, 128, 64), "code": 50, "window": 10, "head_hidden": 32, "rank": 16}
_LARGE |= {"harmonics": 0, "state_features": 30, "observation_features": 30}
VARIANTS = {
    "vdp": {f"dse_rank_{rank}": Reading({"rank": rank}, DSETrainConfig.oscillator) for rank in RANKS} | _ABLATIONS,
    "sl": {"dse_large": Reading(_LARGE, DSETrainConfig.oscillator)} | _ABLATIONS,
}


def methods(system: str) -> tuple[str, ...]:
    """What finds eigenvalues in a record of a system, by name: both readings of DSE, and the baselines."""
    return (*READINGS, *METHODS_OF[SYSTEMS[system].name])


def reading_of(system: str, method: str) -> Reading | None:
    """That of a reading of DSE or a variant of it; None for baselines."""
    return READINGS.get(method) or VARIANTS[system].get(method)


def settings(system: str, name: str) -> tuple[DSEConfig, DSETrainConfig]:
    """Sizes and training of a reading of DSE or a variant, as they are in the table."""
    reading = reading_of(system, name)
    return SYSTEMS[system].sizes(**reading.sizes), reading.training()


@dataclasses.dataclass(frozen=True)
class Task:
    """One trial of one method, kept in a folder."""

    system: str
    method: str
    level: float
    trial: int
    folder: Path

    @property
    def path(self) -> Path:
        return Path(self.folder) / self.method / f"{self.level:.2f}_{self.trial:03d}.json"


@dataclasses.dataclass(frozen=True)
class Found:
    """What a trial found.

    Attributes
    ----------
    eigenvalues : Tensor
        Discrete, complex128 ``(n,)``.
    wall_s : float
    commit : str, optional
        With a plus where code was not committed; none where it is not known.
    held_out : float, optional
        Of DSE: `held_out_error` on the frames after the training part.
    """

    eigenvalues: Tensor
    wall_s: float
    commit: str | None = None
    held_out: float | None = None


def plan(system: str, names: Sequence[str], levels: Sequence[float], count: int, folder: Path) -> list[Task]:
    """All tasks, a trial at every level by every method before the next: what is done at any time is balanced.

    Raises `UserError` for an unknown method, a level that is not from 0.01 to 0.99 in hundredths, or no trials.
    """
    if count < 1:
        raise UserError(f"trials must be at least 1, got {count}")
    for level in levels:
        if not (0 < level < 1 and abs(100 * level - round(100 * level)) < 1e-9):
            raise UserError(f"levels are variances from 0.01 to 0.99 in hundredths, got {level}")
    known = methods(system)
    names = [pick("method", name, (*known, *VARIANTS[system])) for name in names] or known
    return [
        Task(system, name, level, trial, folder) for trial in range(1, count + 1) for level in levels for name in names
    ]


def run(task: Task) -> Task:
    """Do one task and keep what is found; one that is kept already is left as it is."""
    if load(task) is None:
        record = SYSTEMS[task.system].trial(task.level, task.trial)
        found = solve(task, record)
        kept = {"settings": settings_of(task), "commit": _commit(), "wall_s": round(found.wall_s, 3)}
        kept |= {"eigenvalues": torch.view_as_real(found.eigenvalues).tolist()}
        files.write_json(task.path, kept | ({} if found.held_out is None else {"held_out": found.held_out}))
    return task


def solve(task: Task, record: trials.Trials) -> Found:
    """What the method of a task finds in the training part of a record."""
    began, reading = time.monotonic(), reading_of(task.system, task.method)
    if reading is None:
        values = torch.as_tensor(SPECTRAL_METHODS[task.method](record.train[0])).to(torch.complex128)
        return Found(values, time.monotonic() - began)
    model = train(record.train[0], *settings(task.system, task.method)).model
    values = largest(model.fitted(reading.operator), model.config.state_features)
    seconds = time.monotonic() - began
    return Found(values, seconds, held_out=held_out_error(model, record.validation[0], reading.operator))


@torch.no_grad()
def held_out_error(model: DSE, y: Tensor, operator: str = "spectral_transition", horizon: int = 150) -> float:
    """Mean squared error of frames 1 to `horizon` steps after the blocks that states are made of.

    Frames are read off the features by regression, and features moved by powers of an operator (see `Reading`). It
    needs no reference, so that sizes can be chosen by it.

    Parameters
    ----------
    model : DSE
        Of signals.
    y : Tensor
        ``(time, channels)``: frames that no training has seen.
    """
    past, _ = model.blocks(model.encode(model.sequences(y, model.fewest_frames + horizon)))
    z = model.dictionary(model.states(past))[0]
    frames = y[model.config.window + model.config.gap :][: len(z)]
    total = 0.0
    for step in range(horizon):
        total += float((z[: len(z) - step] @ model.fitted("frame_map") - frames[step:]).square().mean())
        z = z @ model.fitted(operator)
    return total / horizon


def load(task: Task) -> Found | None:
    """What is kept of a task; None if nothing, or if found with other settings. `UserError` if not readable."""
    if not task.path.is_file():
        return None
    try:
        kept = json.loads(task.path.read_text(encoding="utf-8"))
        values = torch.view_as_complex(torch.tensor(kept["eigenvalues"], dtype=torch.float64))
        found = Found(values, float(kept["wall_s"]), kept.get("commit"), kept.get("held_out"))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{task.path.name} of {task.method} is not a trial ({error}); delete it") from None
    return found if _agree(kept.get("settings"), settings_of(task), _defaults(task)) else None


def settings_of(task: Task) -> dict[str, Any]:
    """All that decides what a task finds, but code: the record's config and the method's, as JSON has them."""
    record = dataclasses.asdict(SYSTEMS[task.system].setting(task.level, task.trial))
    record = {name: value for name, value in record.items() if name not in NOT_OF_RECORD}
    return json.loads(json.dumps({"record": record, "method": _method_settings(task)}, default=_plain))


def _method_settings(task: Task) -> dict[str, Any]:
    if (reading := reading_of(task.system, task.method)) is not None:
        sizes, training = settings(task.system, task.method)
        return {"sizes": sizes, "training": training, "operator": reading.operator}
    method = SPECTRAL_METHODS[task.method]
    return {"function": method.func.__name__, **method.keywords}


def _defaults(task: Task) -> dict[str, Any]:
    method = {"sizes": DSEConfig(), "training": DSETrainConfig(), "config": ELTOConfig()}
    return json.loads(json.dumps({"record": SYSTEMS[task.system].config(), "method": method}, default=_plain))


def _plain(value: Any) -> Any:
    """For JSON: a config as a dict, a complex number as its two parts."""
    return [value.real, value.imag] if isinstance(value, complex) else dataclasses.asdict(value)


def _agree(kept: Any, present: Any, default: Any) -> bool:
    """Whether settings are the same. One that `kept` lacks came later: before, things were as its default has them."""
    if not (isinstance(kept, dict) and isinstance(present, dict)):
        return kept == present
    default = default if isinstance(default, dict) else {}
    return set(kept) <= set(present) and all(
        _agree(kept[name], value, default.get(name)) if name in kept else name in default and value == default[name]
        for name, value in present.items()
    )


@functools.cache
def _commit() -> str | None:
    environment = report()
    return environment.commit and environment.commit + "+" * bool(environment.dirty)

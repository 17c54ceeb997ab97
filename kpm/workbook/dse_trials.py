"""Spectra of noisy oscillators, trial by trial: what each method finds in a record, kept in small files.

A trial of one method is one file, ``FOLDER/METHOD/NOISE_TRIAL.json``, whole or not there, so that a run can stop
anywhere and go on. With the eigenvalues it has the settings of record and method and the commit they were found at. A
file of other settings than the present ones counts as not there. Methods are functions of a record by name (`methods`).
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
from kpm.models.dse_networks import DSEConfig
from kpm.training.dse import DSETrainConfig, train

Method = Callable[[Tensor], Tensor]


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
        return self.module.simulate(self.setting(level, trial))

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
# The clean reading with one thing changed: see `kpm.workbook.dse_variants`. In no table of methods unless asked for.
RANKS = (5, 7, 9, 11, 13, 16, 18, 20)
VARIANTS = {f"dse_rank_{rank}": Reading({"rank": rank}, DSETrainConfig.oscillator) for rank in RANKS} | {
    "dse_joint": Reading({}, functools.partial(DSETrainConfig.oscillator, schedule="joint")),
    "dse_one_fold": Reading({}, functools.partial(DSETrainConfig.oscillator, folds=1)),
    "dse_regression": Reading({}, DSETrainConfig.oscillator, "transition"),
}


def methods(system: str) -> dict[str, Method]:
    """What finds eigenvalues in a record ``(time, channels)`` of a system: both readings of DSE, and the baselines."""
    found: dict[str, Method] = {name: functools.partial(_dse, system=system, name=name) for name in READINGS}
    return found | {name: SPECTRAL_METHODS[name] for name in METHODS_OF[SYSTEMS[system].name]}


def method_of(task: Task) -> Method:
    """That of a task, a variant too."""
    if task.method in VARIANTS:
        return functools.partial(_dse, system=task.system, name=task.method)
    return methods(task.system)[task.method]


def _dse(y: Tensor, system: str, name: str) -> Tensor:
    model = train(y, *settings(system, name)).model
    return largest(model.fitted(_reading(name).operator), model.config.state_features)


def _reading(name: str) -> Reading | None:
    return READINGS.get(name) or VARIANTS.get(name)


def settings(system: str, name: str) -> tuple[DSEConfig, DSETrainConfig]:
    """Sizes and training of a reading of DSE or a variant, as they are in the table."""
    reading = _reading(name)
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
    """What a trial found: discrete eigenvalues complex128 ``(n,)``, the wall seconds it took, the commit if known."""

    eigenvalues: Tensor
    wall_s: float
    commit: str | None = None


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
    names = [pick("method", name, {**known, **VARIANTS}) for name in names] or list(known)
    return [
        Task(system, name, level, trial, folder) for trial in range(1, count + 1) for level in levels for name in names
    ]


def run(task: Task) -> Task:
    """Do one task and keep what is found; one that is kept already is left as it is."""
    if load(task) is None:
        record = SYSTEMS[task.system].trial(task.level, task.trial).train[0]
        began = time.monotonic()
        values = torch.as_tensor(method_of(task)(record)).to(torch.complex128)
        found = {
            "settings": settings_of(task),
            "commit": _commit(),
            "wall_s": round(time.monotonic() - began, 3),
            "eigenvalues": torch.view_as_real(values).tolist(),
        }
        files.write_json(task.path, found)
    return task


def load(task: Task) -> Found | None:
    """What is kept of a task; None if nothing, or if found with other settings. `UserError` if not readable."""
    if not task.path.is_file():
        return None
    try:
        kept = json.loads(task.path.read_text(encoding="utf-8"))
        values = torch.view_as_complex(torch.tensor(kept["eigenvalues"], dtype=torch.float64))
        found = Found(values, float(kept["wall_s"]), kept.get("commit"))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{task.path.name} of {task.method} is not a trial ({error}); delete it") from None
    return found if _agree(kept.get("settings"), settings_of(task), _defaults(task)) else None


def settings_of(task: Task) -> dict[str, Any]:
    """All that decides what a task finds, but code: the record's config and the method's, as JSON has them."""
    record = dataclasses.asdict(SYSTEMS[task.system].setting(task.level, task.trial))
    record = {name: value for name, value in record.items() if name not in NOT_OF_RECORD}
    return json.loads(json.dumps({"record": record, "method": _method_settings(task)}, default=_plain))


def _method_settings(task: Task) -> dict[str, Any]:
    if (reading := _reading(task.method)) is not None:
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

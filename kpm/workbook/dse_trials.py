"""Spectra of noisy oscillators, trial by trial: what each method finds in a record, kept in small files.

A trial of one method is one file, ``FOLDER/METHOD/NOISE_TRIAL.json``, whole or not there, so that a run can stop
anywhere and go on. Methods are functions of a record by name (`methods`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kpm import files
from kpm.datasets import stuart_landau, trials, van_der_pol
from kpm.errors import UserError, pick
from kpm.models.baselines.spectra import METHODS_OF, SPECTRAL_METHODS
from kpm.models.dse_networks import DSEConfig
from kpm.training.dse import DSETrainConfig, train

Method = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class System:
    """An oscillator of the DSE paper: how it is simulated, the levels of noise of its table, DSE's sizes for it."""

    name: str
    module: Any
    config: type
    levels: tuple[float, ...]
    sizes: Callable[..., DSEConfig]

    def trial(self, level: float, trial: int) -> trials.Trials:
        """The trial k = 1, 2, ... of the paper at one level of noise, alone."""
        config = self.config(noise=level, trials=1)
        return self.module.simulate(dataclasses.replace(config, seed=config.seed + trial - 1))


SYSTEMS = {
    "vdp": System("van_der_pol", van_der_pol, van_der_pol.VanDerPol, (0.05, 0.10, 0.15, 0.20), DSEConfig.van_der_pol),
    "sl": System(
        "stuart_landau", stuart_landau, stuart_landau.StuartLandau, (0.01, 0.05, 0.09), DSEConfig.stuart_landau
    ),
}
READINGS = {"dse": ("clean", DSETrainConfig.oscillator), "dse_published": ("published", DSETrainConfig.published)}


def methods(system: str) -> dict[str, Method]:
    """What finds eigenvalues in a record ``(time, channels)`` of a system: both readings of DSE, and the baselines."""
    found: dict[str, Method] = {name: functools.partial(_dse, system=system, name=name) for name in READINGS}
    return found | {name: SPECTRAL_METHODS[name] for name in METHODS_OF[SYSTEMS[system].name]}


def _dse(y: Tensor, system: str, name: str) -> Tensor:
    sizes, config = settings(system, name)
    return train(y, sizes, config).model.eigenvalues()


def settings(system: str, name: str) -> tuple[DSEConfig, DSETrainConfig]:
    """Sizes and training of a reading of DSE, as they are in the table."""
    reading, config = READINGS[name]
    return SYSTEMS[system].sizes(reading=reading), config()


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
    """What a trial found: discrete eigenvalues complex128 ``(n,)``, and the wall seconds it took."""

    eigenvalues: Tensor
    wall_s: float


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
    names = [pick("method", name, known) for name in names] or list(known)
    return [
        Task(system, name, level, trial, folder) for trial in range(1, count + 1) for level in levels for name in names
    ]


def run(task: Task) -> Task:
    """Do one task and keep what is found; one that is kept already is left as it is."""
    if load(task) is None:
        record = SYSTEMS[task.system].trial(task.level, task.trial).train[0]
        began = time.monotonic()
        values = torch.as_tensor(methods(task.system)[task.method](record)).to(torch.complex128)
        found = {
            "settings": _settings(task),
            "wall_s": round(time.monotonic() - began, 3),
            "eigenvalues": torch.view_as_real(values).tolist(),
        }
        files.write_json(task.path, found)
    return task


def load(task: Task) -> Found | None:
    """What is kept of a task, or None. `UserError` if it is not readable, or was found with other settings."""
    if not task.path.is_file():
        return None
    try:
        kept = json.loads(task.path.read_text(encoding="utf-8"))
        values = torch.view_as_complex(torch.tensor(kept["eigenvalues"], dtype=torch.float64))
        found = Found(values, float(kept["wall_s"]))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{task.path.name} of {task.method} is not a trial ({error}); delete it") from None
    if kept.get("settings") != _settings(task):
        raise UserError(f"{task.path.name} of {task.method} was found with other settings; name another folder")
    return found


def _settings(task: Task) -> dict[str, Any] | None:
    """Sizes and training of DSE as JSON has them; baselines have none."""
    if task.method not in READINGS:
        return None
    return json.loads(json.dumps([dataclasses.asdict(part) for part in settings(task.system, task.method)]))

"""``kpm dse quadlink``: predictors of the quad-link films, all on the same films, beside the trivial ones.

Each trial has films of its own: one to learn from, one that chooses among what was learnt, one to be judged on. A
predictor is shown what was filmed, with or without noise, learns from nothing else, and is judged against the clean
frames and, behind noise, also against the frames that came. The paper's horizons are lost; `HORIZONS` are ours.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from kpm import files, paths
from kpm.datasets import quad_link_images
from kpm.datasets.quad_link_images import QuadLinkFilms
from kpm.errors import UserError, pick
from kpm.metrics.film_errors import film_errors, trivial_film_errors
from kpm.workbook import quad_link_table, results
from kpm.workbook.quad_link_methods import METHODS, VARIANTS, Job, Settings
from kpm.workbook.quad_link_table import HORIZONS

WARMUP = 50


def quadlink_command(
    frames: int = 1500,
    corrupted: bool = False,
    methods: tuple[str, ...] = tuple(m for m in METHODS if m not in VARIANTS),
    trials: int = 5,
    epochs: int = 0,
    dse_epochs: int = 0,
    quick: bool = False,
    folder: Path | None = None,
    save: bool = False,
) -> int:
    """Predict films of the quad-link pendulum, 1, 5, 10, 15 and 20 frames ahead, with every method.

    A trial that is in the folder already is not run again, and a network that was stopped goes on.

    Args:
        frames: Frames to learn from: 1500, or 15000 in ten films.
        corrupted: Films behind noise that comes and goes.
        methods: Some of linear, elto, rkn, lstm, ncdssm, dse, and of dse with one thing changed: dse_plain, without
            components among its codes and with one feature of a block for each, as published; dse_joint, where all
            losses train everything from the start; dse_learned, whose operators are learned instead of solved for;
            dse_codes, where codes of the last frame are the state. The paper has no NCDSSM for clean films.
        trials: Each has films and weights of its own; the paper has five.
        epochs: Of rkn, lstm and ncdssm, 10 steps each; 60 by default.
        dse_epochs: Of dse, one in 25 for its first stage; 125 by default.
        quick: Small networks and next to no training.
        folder: Where trials are kept; runs/quadlink by default.
        save: Write what the folder holds for this number of frames, with and without noise, to the results file
            dse_quadlink, and ship the dse of trial 0 with noise. With --trials 0, nothing is run.
    """
    sizes = {count * length: name for name, (count, length) in quad_link_images.SIZES.items()}
    if frames not in sizes:
        raise UserError(f"frames: expected {' or '.join(map(str, sizes))}, got {frames}")
    for method in methods:
        pick("method", method, METHODS)
    for name, value in (("trials", trials), ("epochs", epochs), ("dse-epochs", dse_epochs)):
        if value < 0:
            raise UserError(f"{name}: expected 0 or more, got {value}")
    settings = Settings().quick() if quick else Settings().trained(epochs, dse_epochs)
    place, size = Path(folder or paths.runs() / "quadlink"), sizes[frames]
    for trial in range(trials):
        wanted = [m for m in methods if not _done(place, size, corrupted, m, trial, settings)]
        if not wanted and quad_link_table.path(place, size, corrupted, "trivial", trial).is_file():
            continue
        films = [quad_link_images.load(s, size, corrupted, trial) for s in quad_link_images.SPLITS]
        _write(place, size, corrupted, "trivial", trial, {"predictors": trivial(*films)})
        for method in wanted:
            fit_folder = quad_link_table.path(place, size, corrupted, method, trial).with_suffix("")
            record = run(method, trial, films, fit_folder, settings)
            _write(place, size, corrupted, method, trial, record)
            print(f"{method} trial {trial}: {_short(record['errors'])}, {record['wall_s']:.0f} s", flush=True)
    for noisy in (False, True) if save else (corrupted,):
        print(quad_link_table.table(quad_link_table.read(place, size, noisy), size, noisy))
    if save:
        print(f"saved to {results.save(quad_link_table.result(place, size, shipped(place, size))).name}")
    return 0


def shipped(place: Path, size: str) -> results.Checkpoint | None:
    """Ship the encoder of trial 0 behind noise, if the folder holds it; what was shipped before, if not."""
    weights = quad_link_table.path(place, size, True, "dse", 0).with_suffix("") / "best.safetensors"
    target = paths.checkpoints() / "dse_quadlink.safetensors"
    if weights.is_file():
        with files.atomic(target) as part:
            shutil.copyfile(weights, part)
    return results.Checkpoint.of(target) if target.is_file() else None


def run(method: str, trial: int, films: list[QuadLinkFilms], folder: Path, settings: Settings) -> dict[str, Any]:
    """Fit one method to the first of three films, with the second to choose by, and judge it on the third."""
    train, validation, test = films
    began = time.monotonic()
    predictor = METHODS[method](Job(train, validation, folder, trial, settings))
    fitted = time.monotonic() - began
    errors = film_errors(predictor, test.frames, _targets(test), HORIZONS, WARMUP)
    return {"errors": errors, "settings": settings.of(method), "wall_s": round(fitted, 1)}


def trivial(train: QuadLinkFilms, validation: QuadLinkFilms, test: QuadLinkFilms) -> dict[str, Any]:
    """Errors of the predictors that know next to nothing, on the test film."""
    mean = (train.frames.double() / 255).mean((0, 1))
    return trivial_film_errors(test.frames, _targets(test), HORIZONS, mean, test.clean, test.visibility, WARMUP)


def _targets(films: QuadLinkFilms) -> dict[str, torch.Tensor]:
    clean = {"clean": films.clean}
    return clean if films.corrupted is None else {"observed": films.corrupted, **clean}


def _write(folder: Path, size: str, corrupted: bool, method: str, trial: int, record: dict[str, Any]) -> None:
    about = {"method": method, "trial": trial, "size": size, "corrupted": corrupted, "horizons": list(HORIZONS)}
    path = quad_link_table.path(folder, size, corrupted, method, trial)
    files.write_json(path, {**about, "warmup": WARMUP, **record})


def _done(folder: Path, size: str, corrupted: bool, method: str, trial: int, settings: Settings) -> bool:
    """Whether the trial is there; `UserError` if it is one of other settings."""
    path = quad_link_table.path(folder, size, corrupted, method, trial)
    if not path.is_file():
        return False
    if json.loads(path.read_text())["settings"] != json.loads(json.dumps(settings.of(method))):
        raise UserError(f"{path.name}: was run with other settings; give another --folder, or those")
    return True


def _short(errors: dict[str, dict[int, float]]) -> str:
    return ", ".join(f"{target} {by_horizon[1]:.4f}" for target, by_horizon in errors.items())

"""Errors of predictors of films at several horizons, and those of the trivial predictors beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from kpm.metrics.trivial_predictors import trivial_errors
from kpm.solvers import checks

if TYPE_CHECKING:
    from kpm.models.baselines.predictor import FilmPredictor

Errors = dict[str, dict[int, float]]


def film_errors(
    predictor: FilmPredictor, observed: Tensor, targets: dict[str, Tensor], horizons: tuple[int, ...], warmup: int = 50
) -> Errors:
    """Mean squared error per pixel, pixels in [0, 1], of the frames that are h steps ahead of the last one seen.

    Parameters
    ----------
    predictor : FilmPredictor
    observed : Tensor
        ``(n, time, 1, 48, 48)``: what it is shown.
    targets : dict
        Frames like `observed` to compare with, by name.
    horizons : tuple of int
        Ascending.
    warmup : int
        Frames at the start that count for no error, at any horizon; all errors are over the same frames.

    Returns
    -------
    dict
        ``{target: {horizon: error}}``.

    Raises
    ------
    ValueError
        For targets of another shape, or if no frame is left.
    """
    checks.count(warmup, "warmup", 0, observed.shape[1] - 1)
    for name, target in targets.items():
        if target.shape != observed.shape:
            raise ValueError(f"{name}: expected shape {tuple(observed.shape)}, got {tuple(target.shape)}")
    first = max(warmup, horizons[-1])
    errors: Errors = {name: {} for name in targets}
    for h, guess in predictor.horizons(observed, horizons):
        for name, target in targets.items():
            truth = target[:, first:].float() / (1 if target.is_floating_point() else 255)
            errors[name][h] = float((guess[:, first - h + 1 :] - truth).double().square().mean())
    return errors


def trivial_film_errors(
    observed: Tensor,
    targets: dict[str, Tensor],
    horizons: tuple[int, ...],
    mean: Tensor,
    clean: Tensor,
    visibility: Tensor | None = None,
    warmup: int = 50,
) -> dict[str, Errors]:
    """Errors of black, the mean image, the last frame and, behind noise, the noise floor; arguments as `film_errors`.

    Parameters
    ----------
    mean : Tensor
        ``(1, 48, 48)`` in [0, 1]: the mean of the training frames.
    clean, visibility : Tensor
        See `trivial_errors`; the floor is that of the target ``"observed"``, and 0 of clean frames.

    Returns
    -------
    dict
        ``{predictor: {target: {horizon: error}}}``.
    """
    found: dict[str, Errors] = {}
    first = max(warmup, horizons[-1])
    for name, target in targets.items():
        noisy = {"clean": clean, "visibility": visibility} if name == "observed" and visibility is not None else {}
        for h in horizons:
            e = trivial_errors(target, observed=observed, mean=mean, horizon=h, warmup=first, **noisy)
            rows = {"black": e.black, "mean_image": e.mean_image, "last_frame": e.last_frame}
            rows["noise_floor"] = e.noise_floor or 0.0
            for row, value in rows.items():
                found.setdefault(row, {}).setdefault(name, {})[h] = value
    return found

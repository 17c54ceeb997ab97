"""Operators, noise and spectrum of a deep spectral encoder in closed form, its networks being what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kpm.solvers.cross_fitting import contiguous_folds, instrumented, ridge

if TYPE_CHECKING:
    from kpm.models.dse import DSE

CHUNK = 1024  # frames encoded or decoded at a time where no gradient is needed


@torch.no_grad()
def fit_operators(
    model: DSE, y: Tensor, folds: int = 5, given: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Set realization, operators, noise, start and modes from training sequences, in the clean reading.

    Parameters
    ----------
    model : DSE
        Its scale is set (`DSE.set_scale`). If it has a realization, the new one gets axes like it.
    y : Tensor
        ``([n,] time, *element)``.
    folds : int
        Blocks of the fold-averaged transition.
    given : tuple of Tensor, optional
        Transition and output that were learned in another way, to be taken instead of the ridge solutions.

    Returns
    -------
    tuple of Tensor
        Features ``(n, t, state_features)`` of the training states, and codes ``(n, t, code)`` at the same times.

    Raises
    ------
    ValueError
        For wrong shapes, numbers that are not finite, too few frames, or fewer correlations than `rank`.
    """
    model.eval()
    y = model.sequences(y, model.fewest_frames)
    codes = model.encode(y, CHUNK)
    past, future = block_features(model, codes)
    model.realization = model.find_realization(past, future, model.realization if model.has_realization else None)
    z = model.dictionary(model.states(past))
    now = model.present(codes)
    before, after, seen = z[:, :-1].flatten(0, 1), z[:, 1:].flatten(0, 1), model.observe(now).flatten(0, 1)
    every = z.flatten(0, 1)
    model.transition.copy_(ridge(before, after, model.penalty) if given is None else given[0])
    fit_spectrum(model, z, future, folds)
    model.output.copy_(ridge(every, seen, model.config.ridge_output) if given is None else given[1])
    process, observation = noise_covariances(model, after - before @ model.transition, seen - every @ model.output)
    model.process_noise.copy_(process)
    model.observation_noise.copy_(observation)
    model.initial_mean.copy_(every.mean(0))
    model.initial_covariance.copy_(torch.cov(every.mT, correction=0))
    fit_frame_map(model, z, y)
    return z, now


def fit_spectrum(model: DSE, z: Tensor, future: Tensor, folds: int) -> None:
    """The transition of features seen from the future, with those seen from the past as instruments.

    Features ``z`` ``(n, t, d)`` of states carry the noise of the frames they are made of, which makes the transition of
    the filter, a regression on them, too small for a spectrum: what a noisy feature predicts is less than what it is.
    The same features of the states that `future` blocks show have noise of their own, so that the covariances of both,
    at two lags one step apart, have the transition between them and no noise.
    """
    ahead = model.dictionary(model.realization.transform_future(future))
    parts = contiguous_folds(len(z), z.shape[1] - 1, folds, model.purge, z.device)
    rows = (z[:, :-1].flatten(0, 1), ahead[:, :-1].flatten(0, 1), ahead[:, 1:].flatten(0, 1))
    model.spectral_transition.copy_(instrumented(*rows, model.penalty))
    model.fold_transition.copy_(instrumented(*rows, model.penalty, parts.keep).mean(0))


def block_features(model: DSE, codes: Tensor) -> tuple[Tensor, Tensor]:
    """`DSE.blocks` of one sequence at a time: hidden layers of all blocks of a long record would be large."""
    return tuple(torch.cat(part) for part in zip(*(model.blocks(one) for one in codes.split(1))))


def noise_covariances(model: DSE, process: Tensor, observation: Tensor) -> tuple[Tensor, Tensor]:
    """Covariances of residuals ``(rows, d)`` and ``(rows, p)``, not centred, with the jitter of the config."""
    covariances = []
    for residual in (process, observation):
        covariance = residual.mT @ residual / len(residual)
        jitter = torch.full_like(covariance[0], model.config.jitter)
        covariances.append((covariance + covariance.mT) / 2 + jitter.diag())
    if not model.config.is_published:  # the constant stays what it is
        covariances[0][0] = covariances[0][:, 0] = 0
    return tuple(covariances)


def fit_frame_map(model: DSE, z: Tensor, y: Tensor) -> None:
    """Regress frames on the features of the states before them."""
    start = model.config.window + model.config.gap
    gram = torch.zeros_like(model.transition)
    cross = torch.zeros_like(model.frame_map)
    for features, frames in zip(z, y):  # a sequence at a time, as images are large
        frames = frames[start : start + len(features)].flatten(1)
        cross += features.mT @ (frames.double() / 255 if frames.dtype == torch.uint8 else frames.double())
        gram += features.mT @ features
    load = model.config.ridge_output * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    model.frame_map.copy_(torch.linalg.solve(gram + load, cross))

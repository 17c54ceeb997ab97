"""The Kalman filter of a deep spectral encoder as the published code sets it up; see the table in `kpm.models.dse`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kpm.models import dse_operators
from kpm.solvers.linear_gaussian import LinearGaussian

if TYPE_CHECKING:
    from kpm.models.dse import DSE

_START = 10  # frames that the filter's start is made of


@torch.no_grad()
def system_of(model: DSE, y: Tensor) -> LinearGaussian:
    """The linear Gaussian model for filtering sequences `y` ``(n, time, *element)``, made with the help of `y` itself.

    States come from a realization of `y`, noise covariances from residuals of `y`. The start is made of codes, not of
    state features: of the first ten frames, each with the four before it, cut to the number of state features.

    Raises
    ------
    ValueError
        For too few frames to realize, or a model that is not fitted.
    """
    config = model.config
    y = model.sequences(y, max(model.fewest_frames, _START + config.delays))
    codes = model.encode(y, dse_operators.CHUNK)
    past, future = dse_operators.block_features(model, codes)
    z = model.dictionary(model.states(past, model.find_realization(past, future)))
    transition, output = model.fitted("transition"), model.fitted("output")
    process = (z[:, 1:] - z[:, :-1] @ transition).flatten(0, 1)
    observation = (model.observe(model.present(codes)) - z @ output).flatten(0, 1)
    recent = codes[:, :_START].double().unfold(1, 5, 1).flip(-1).transpose(-1, -2).flatten(-2).flatten(0, 1)
    start = recent[:, : config.state_features]
    if start.shape[1] < config.state_features:
        raise ValueError(f"state_features: the published start has only {start.shape[1]} numbers for them")
    covariance = torch.cov(start.mT, correction=0)
    return LinearGaussian(
        transition, output, *dse_operators.noise_covariances(model, process, observation), start.mean(0), covariance
    )

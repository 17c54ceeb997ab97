"""Eigenvalues of an oscillator from a record of it: the methods that the deep spectral encoder is compared with.

Each method takes a record `y`, ``(time, channels)``, and gives discrete eigenvalues, largest modulus first, complex128.
It raises `ValueError` for a record with one axis only, too short for its delays, or with a number that is not finite.
The published choices of features and delays are lost, so these are ours, stated in `SPECTRAL_METHODS`. Three things
matter when errors are read:

- By nearest matching a method gains from every eigenvalue it has to offer. Their number is part of each docstring.
- All have the constant among their features, and so the eigenvalue 1, which the reference has too.
- What depends linearly on the record has the harmonics of the record only. The position of Van der Pol's oscillator has
  none of even order, so that every linear method misses those but 0, by 0.038 in the mean over 13, see
  `kpm.datasets.van_der_pol`; dictionaries with products of delays do not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from kpm.datasets.trials import windows
from kpm.models.baselines import elto, kernels
from kpm.solvers import checks, eigenvalues, identify, shared, subspace
from kpm.solvers.operators import Operator


def hankel_dmd(y: Tensor, delays: int, rank: int) -> Tensor:
    """Hankel DMD of `y` ``(time, channels)``: least squares on delays. ``(rank + 1,)`` eigenvalues, 1 first."""
    return with_constant(largest(shared(windows(centred(y), delays), rank=rank), rank))


def subspace_dmd_delays(y: Tensor, delays: int, rank: int) -> Tensor:
    """Subspace DMD of delays of `y` ``(time, channels)``. ``(rank + 1,)`` eigenvalues, 1 first.

    The noise of neighbouring windows is shared, which is not what subspace DMD takes noise to be: the bias stays.
    """
    return with_constant(largest(subspace(windows(centred(y), delays), rank=rank), rank))


def subspace_dmd_fourier(y: Tensor, harmonics: int) -> Tensor:
    """Subspace DMD of the harmonics ``exp(i m theta)``, m up to `harmonics` on both sides, of the angle.

    The angle is that of `y` ``(time, 2)``, see `angle_harmonics`. ``(2 harmonics + 1,)`` eigenvalues.
    """
    return largest(subspace(angle_harmonics(y, harmonics)), 2 * harmonics + 1)


def edmd_monomials(y: Tensor, delays: int, principals: int, degree: int) -> Tensor:
    """Extended DMD: monomials up to `degree` of the leading principal coordinates of delays.

    Delays are of `y` ``(time, channels)``. As many eigenvalues as there are monomials,
    ``(binomial(principals + degree, degree),)``.
    """
    features = monomials(principal(windows(y, delays), principals), degree)
    return largest(shared(features), features.shape[-1])


def edmd_gaussians(y: Tensor, delays: int, centres: int, rank: int) -> Tensor:
    """Extended DMD: Gaussians around windows of delays, evenly spaced in time, as wide as the median distance.

    Windows are of `y` ``(time, channels)``. Of the span of the Gaussians, which all but has the constant, the `rank`
    leading directions are used: ``(rank,)`` eigenvalues.
    """
    x = windows(y, delays)
    features = kernels.kernel_features(kernels.evenly(x, centres), kernels.median_distance(x))
    return largest(shared(features(x), rank=rank), rank)


def edmd_fourier(y: Tensor, harmonics: int) -> Tensor:
    """Extended DMD: least squares on the harmonics of `subspace_dmd_fourier`, of `y` ``(time, 2)``.

    As many eigenvalues, ``(2 harmonics + 1,)``, drawn inwards.
    """
    return largest(shared(angle_harmonics(y, harmonics)), 2 * harmonics + 1)


def edmd_polynomial(y: Tensor, degree: int) -> Tensor:
    """Extended DMD: monomials of the observed coordinates `y` ``(time, channels)``.

    ``(binomial(channels + degree, degree),)`` eigenvalues: 21 with two channels and degree 5.
    """
    y, _ = checks.sequences(y, name="y")
    features = monomials(y, degree)
    return largest(shared(features), features.shape[-1])


def realization_delays(y: Tensor, window: int, order: int) -> Tensor:
    """Linear stochastic realization of `y` ``(time, channels)`` from `window` steps back and ahead.

    ``(order + 1,)`` eigenvalues, 1 first.
    """
    return with_constant(largest(identify(centred(y), window, order).system.transition, order))


def realization_fourier(y: Tensor, harmonics: int, window: int) -> Tensor:
    """Stochastic realization of all harmonics of `y` ``(time, 2)`` but the constant, of full order.

    From `window` steps back and ahead. With the eigenvalue 1 of the constant, ``(2 harmonics + 1,)`` eigenvalues.
    """
    order = 2 * harmonics
    features = angle_harmonics(y, harmonics)[..., 1:]
    return with_constant(largest(identify(features, window, order).system.transition, order))


SPECTRAL_METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    "hankel_dmd_30": partial(hankel_dmd, delays=30, rank=9),
    "hankel_dmd_100": partial(hankel_dmd, delays=100, rank=13),
    "subspace_dmd_delays": partial(subspace_dmd_delays, delays=30, rank=9),
    "subspace_dmd_fourier": partial(subspace_dmd_fourier, harmonics=6),
    "edmd_monomials": partial(edmd_monomials, delays=30, principals=4, degree=3),
    "edmd_gaussians": partial(edmd_gaussians, delays=30, centres=100, rank=30),
    "edmd_fourier": partial(edmd_fourier, harmonics=6),
    "edmd_polynomial": partial(edmd_polynomial, degree=5),
    "realization_delays": partial(realization_delays, window=30, order=9),
    "realization_fourier": partial(realization_fourier, harmonics=6, window=10),
    "elto_position": partial(elto.spectrum, config=elto.ELTOConfig.van_der_pol()),
    "elto_angle": partial(elto.spectrum, config=elto.ELTOConfig.stuart_landau()),
}

# Which methods are meant for which record: a position, or the sine and cosine of an angle.
METHODS_OF = {
    "van_der_pol": (
        "hankel_dmd_30",
        "hankel_dmd_100",
        "subspace_dmd_delays",
        "edmd_monomials",
        "edmd_gaussians",
        "realization_delays",
        "elto_position",
    ),
    "stuart_landau": (
        "subspace_dmd_fourier",
        "edmd_fourier",
        "edmd_polynomial",
        "realization_fourier",
        "elto_angle",
    ),
}


def largest(operator: Tensor | Operator, count: int) -> Tensor:
    """The `count` eigenvalues of largest modulus, complex128, fewer if there are not so many."""
    values = eigenvalues(operator)
    return values[values.abs().argsort(descending=True, stable=True)][:count]


def centred(y: Tensor) -> Tensor:
    """A record ``(time, channels)`` less its mean; checked first, so that what is wrong is named as it was given."""
    y, _ = checks.sequences(y, name="y")
    return y - y.mean(-2, keepdim=True)


def with_constant(values: Tensor) -> Tensor:
    """The eigenvalue 1 before those of features without mean: least squares with a constant has these and that."""
    return torch.cat([values.new_ones(1), values])


def angle_harmonics(y: Tensor, count: int = 6) -> Tensor:
    """Real basis of the span of ``exp(i m theta)``, ``|m| <= count``: ``(*batch, time, 2) -> (..., 2 count + 1)``.

    `theta` is the angle of the two observed numbers; columns are the constant, the cosines and the sines.
    """
    y, _ = checks.sequences(y, name="y")
    if y.shape[-1] != 2:
        raise ValueError(f"y: expected (*batch, time, 2), a cosine and a sine, got shape {tuple(y.shape)}")
    theta = torch.atan2(y[..., 1], y[..., 0])[..., None] * torch.arange(1, count + 1, device=y.device)
    return torch.cat([torch.ones_like(theta[..., :1]), theta.cos(), theta.sin()], -1)


def principal(x: Tensor, count: int) -> Tensor:
    """Leading principal coordinates of rows ``(n, dim)``, centred and scaled to unit variance."""
    x = x - x.mean(0)
    x = x @ torch.linalg.svd(x, full_matrices=False).Vh[:count].mT
    return x / x.std(0)


def monomials(x: Tensor, degree: int) -> Tensor:
    """All products of up to `degree` columns of ``(*batch, time, dim)``, the constant first."""
    columns = [torch.ones_like(x[..., 0])]
    for d in range(1, degree + 1):
        columns += [x[..., list(chosen)].prod(-1) for chosen in combinations_with_replacement(range(x.shape[-1]), d)]
    return torch.stack(columns, -1)

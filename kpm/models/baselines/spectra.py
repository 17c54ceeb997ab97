"""Eigenvalues of an oscillator from a record of it: the methods that the deep spectral encoder is compared with.

Each method takes a record ``(time, channels)`` and gives discrete eigenvalues, largest modulus first. The published
choices of features and delays are lost, so these are ours, stated with each. Two things matter when errors are read:

- By nearest matching a method gains from every eigenvalue it has to offer. Their number is part of each docstring.
- What depends linearly on the record has the harmonics of the record only. The position of Van der Pol's oscillator has
  none of even order, so that every linear method misses those, by 0.044 in the mean over 13, see
  `kpm.datasets.van_der_pol`; dictionaries with products of delays do not.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from kpm.datasets.trials import windows
from kpm.models.baselines import elto, kernels
from kpm.solvers import checks, eigenvalues, identify, shared, subspace
from kpm.solvers.operators import Operator


def hankel_dmd_30(y: Tensor) -> Tensor:
    """Hankel DMD: least squares on 30 delays, rank 9. Nine eigenvalues."""
    return largest(shared(windows(y, 30), rank=9), 9)


def hankel_dmd_100(y: Tensor) -> Tensor:
    """Hankel DMD: least squares on 100 delays, rank 13. Thirteen eigenvalues."""
    return largest(shared(windows(y, 100), rank=13), 13)


def subspace_dmd_delays(y: Tensor) -> Tensor:
    """Subspace DMD of 30 delays, rank 9. Nine eigenvalues.

    The noise of neighbouring windows is shared, which is not what subspace DMD takes noise to be: the bias stays.
    """
    return largest(subspace(windows(y, 30), rank=9), 9)


def subspace_dmd_fourier(y: Tensor) -> Tensor:
    """Subspace DMD of the harmonics ``exp(i m theta)``, m = -6 ... 6, of the angle. Thirteen eigenvalues."""
    return largest(subspace(angle_harmonics(y)), 13)


def edmd_monomials(y: Tensor) -> Tensor:
    """Extended DMD: monomials up to degree 3 of the four leading principal coordinates of 30 delays. 35 eigenvalues."""
    return largest(shared(monomials(principal(windows(y, 30), 4), 3)), 35)


def edmd_gaussians(y: Tensor) -> Tensor:
    """Extended DMD: Gaussians around 100 windows of 30 delays, evenly spaced in time, as wide as the median distance.

    Of the span of these the 30 leading directions are used. 30 eigenvalues.
    """
    x = windows(y, 30)
    features = kernels.kernel_features(kernels.evenly(x, 100), kernels.median_distance(x))
    return largest(shared(features(x), rank=30), 30)


def edmd_fourier(y: Tensor) -> Tensor:
    """Extended DMD: least squares on the harmonics of `subspace_dmd_fourier`. Thirteen eigenvalues, drawn inwards."""
    return largest(shared(angle_harmonics(y)), 13)


def edmd_polynomial(y: Tensor) -> Tensor:
    """Extended DMD: monomials up to degree 5 of the observed coordinates; 21 eigenvalues with two channels."""
    y, _ = checks.sequences(y, name="y")
    features = monomials(y, 5)
    return largest(shared(features), features.shape[-1])


def realization_delays(y: Tensor) -> Tensor:
    """Linear stochastic realization from 30 steps back and ahead, order 9. Nine eigenvalues."""
    return largest(identify(y, 30, 9).system.transition, 9)


def realization_fourier(y: Tensor) -> Tensor:
    """Stochastic realization of all harmonics but the constant, 10 steps back and ahead, order 12.

    With the eigenvalue 1 of the constant, thirteen eigenvalues.
    """
    values = largest(identify(angle_harmonics(y)[..., 1:], 10, 12).system.transition, 12)
    return torch.cat([values.new_ones(1), values])


def elto_position(y: Tensor) -> Tensor:
    """Kernel realization and transfer operator on the position itself, see `elto.spectrum`. At most 30 eigenvalues."""
    return elto.spectrum(y, elto.ELTOConfig.van_der_pol())


def elto_angle(y: Tensor) -> Tensor:
    """Kernel realization and transfer operator on the plane of cosine and sine. At most 30 eigenvalues."""
    return elto.spectrum(y, elto.ELTOConfig.stuart_landau())


SPECTRAL_METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    f.__name__: f
    for f in (
        hankel_dmd_30,
        hankel_dmd_100,
        subspace_dmd_delays,
        subspace_dmd_fourier,
        edmd_monomials,
        edmd_gaussians,
        edmd_fourier,
        edmd_polynomial,
        realization_delays,
        realization_fourier,
        elto_position,
        elto_angle,
    )
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

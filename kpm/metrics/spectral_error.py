"""How far estimated eigenvalues are from those an oscillator should have: the four readings of one error.

The DSE paper prints one number per system, its code computes a total over 13 harmonics, and the two are far apart. So
all readings are given: total, mean over all harmonics, mean over the low ones, and harmonic by harmonic, each with
nearest matching, as published (one estimate may serve several harmonics), or one to one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kpm.solvers import checks, matching, spectra

MATCHINGS = {"nearest": matching.nearest, "optimal": matching.optimal}


@dataclass(frozen=True)
class SpectralError:
    """Distances to the estimates that the reference eigenvalues are matched with.

    Attributes
    ----------
    per_harmonic : Tensor
        float64 ``(*batch, n)``; differentiable.
    harmonics : Tensor
        int64 ``(n,)``: number m of each reference eigenvalue.
    low : int
        Harmonics up to this one count as low.
    """

    per_harmonic: Tensor
    harmonics: Tensor
    low: int

    @property
    def total(self) -> Tensor:
        """Sum over all harmonics, ``(*batch,)``: what the published code computes."""
        return self.per_harmonic.sum(-1)

    @property
    def mean(self) -> Tensor:
        """Mean over all harmonics, ``(*batch,)``: over 13 with the published reference, ``|m| <= 6``."""
        return self.per_harmonic.mean(-1)

    @property
    def mean_low(self) -> Tensor:
        """Mean over the harmonics with ``|m| <= low``, ``(*batch,)``: over 9 with ``low = 4``."""
        return self.per_harmonic[..., self.harmonics.abs() <= self.low].mean(-1)


def spectral_error(
    reference: Tensor,
    estimate: Tensor,
    harmonics: Tensor,
    *,
    method: str = "nearest",
    dt: float | None = None,
    low: int = 4,
) -> SpectralError:
    """Match estimated with reference eigenvalues, batch entry by batch entry.

    Parameters
    ----------
    reference : Tensor
        Discrete eigenvalues, ``(n,)`` or ``(*batch, n)``: factors from one frame to the next. Rates become such by
        `discrete`.
    estimate : Tensor
        Discrete eigenvalues, ``(*batch, m)``; those that nothing is matched with do not count.
    harmonics : Tensor
        Whole numbers ``(n,)``: which harmonic each reference eigenvalue is.
    method : {"nearest", "optimal"}
        For each reference the nearest estimate, or one estimate for each with the least total distance. One to one,
        all harmonics are matched, also where only the low ones are then looked at.
    dt : float, optional
        If given, both are turned into rates by `continuous` first, and distances are in 1 / time.
    low : int
        Harmonics up to this one count as low.

    Returns
    -------
    SpectralError

    Raises
    ------
    ValueError
        For shapes that do not fit, numbers that are not finite, an unknown method, or fewer estimates than references
        to be matched one to one.
    """
    if method not in MATCHINGS:
        raise ValueError(f"method: expected one of {', '.join(MATCHINGS)}, got {method!r}")
    harmonics = torch.as_tensor(harmonics, device=reference.device)
    if harmonics.shape != reference.shape[-1:]:
        shapes = f"{tuple(harmonics.shape)} and {tuple(reference.shape)}"
        raise ValueError(f"harmonics and reference: expected (n,) and (*batch, n), got shapes {shapes}")
    if not (harmonics.abs() <= low).any():
        raise ValueError(f"low: no harmonic is as low as {low}")
    reference, estimate = (x.to(torch.complex128) for x in (reference, estimate.to(reference.device)))
    if dt is not None:
        for argument, x in (("reference", reference), ("estimate", estimate)):
            checks.finite(x, argument)
        reference, estimate = continuous(reference, dt), continuous(estimate, dt)
    return SpectralError(MATCHINGS[method](reference, estimate).distance, harmonics, low)


def discrete(rates: Tensor, dt: float) -> Tensor:
    """Eigenvalues ``exp(rate dt)`` from frame to frame of rates (1 / time), complex128."""
    _positive(dt)
    return (rates.to(torch.complex128) * dt).exp()


def continuous(values: Tensor, dt: float) -> Tensor:
    """Rates ``log(lambda) / dt`` of eigenvalues from frame to frame, complex128, imaginary part up to ``pi / dt``.

    A modulus below 1e-12 counts as 1e-12, so that the eigenvalue 0 has a rate, very far from all others.
    """
    _positive(dt)
    values = values.to(torch.complex128)
    tiny = values.abs() < 1e-12
    return spectra.continuous(torch.where(tiny, 1e-12, values), dt).values


def readings(reference: Tensor, estimate: Tensor, harmonics: Tensor, low: int = 4) -> dict[str, Tensor]:
    """Every form of the error of discrete eigenvalues, a number for each trial.

    Parameters
    ----------
    reference, estimate, harmonics, low
        As `spectral_error`; all axes of `estimate` but the last are trials.

    Returns
    -------
    dict of Tensor
        float64 ``(*batch,)`` each: ``total``, ``mean13`` and ``mean9`` (by the numbers of harmonics there are), ``m0``,
        ``m1``, ... (mean over m and -m), with nearest matching. Then the same forms matched one to one, if there are
        estimates enough: ``matched_total``, ``matched`` (the mean over all), ``matched_mean9``, ``matched_m0``, ...
    """
    found = _forms(spectral_error(reference, estimate, harmonics, low=low))
    if estimate.shape[-1] >= reference.shape[-1]:
        every = f"mean{reference.shape[-1]}"
        matched = _forms(spectral_error(reference, estimate, harmonics, method="optimal", low=low))
        found |= {"matched" if name == every else f"matched_{name}": value for name, value in matched.items()}
    return found


def _forms(error: SpectralError) -> dict[str, Tensor]:
    order = error.harmonics.abs()
    forms = {
        "total": error.total,
        f"mean{len(order)}": error.mean,
        f"mean{int((order <= error.low).sum())}": error.mean_low,
    }
    return forms | {f"m{m}": error.per_harmonic[..., order == m].mean(-1) for m in order.unique().tolist()}


def _positive(dt: float) -> None:
    if not 0 < dt < math.inf:
        raise ValueError(f"dt: expected a positive time step, got {dt!r}")

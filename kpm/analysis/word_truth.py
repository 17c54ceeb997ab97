"""Jumps of modes against the truth of every word, where a grammar tells it (`Reviews.truth`).

What a word adds to the score of its text in its place is a number per token, with negations and amplifiers taken into
account; its role is a class per token. The first is compared by correlation, the second by the area under the ROC
curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kpm.analysis.word_roles import _modes, _states, _valid, choose
from kpm.analysis.word_scores import Association, best_phase, random_directions
from kpm.solvers import checks

if TYPE_CHECKING:
    from kpm.analysis.kann import KANN

BINS = 4096


@dataclass(frozen=True)
class TruthTally:
    """Second moments of innovations and a number per token, the last entry; they add up.

    Attributes
    ----------
    count : int
        Tokens.
    total, product : Tensor
        float64 ``(hidden + 1,)`` and ``(hidden + 1, hidden + 1)``.
    """

    count: int
    total: Tensor
    product: Tensor

    @property
    def covariance(self) -> Tensor:
        """``(hidden + 1, hidden + 1)``; `ValueError` for fewer than two tokens."""
        if self.count < 2:
            raise ValueError(f"TruthTally: {self.count} tokens were counted, at least 2 are needed")
        mean = self.total / self.count
        return self.product / self.count - mean.outer(mean)

    def __add__(self, other: TruthTally) -> TruthTally:
        return TruthTally(self.count + other.count, self.total + other.total, self.product + other.product)

    def __radd__(self, other: Any) -> TruthTally:
        """So that ``sum(tallies)``, which begins with 0, works."""
        return self if isinstance(other, int) and other == 0 else NotImplemented


@dataclass(frozen=True)
class RoleTally:
    """Histograms of a value per token, by the token's role; they add up.

    Attributes
    ----------
    counts : Tensor
        int64 ``(roles, m, bins)``; bins are evenly spaced in ``x / (scale + |x|)``.
    """

    counts: Tensor

    def auc(self, role: int, against: int | None = None) -> Tensor:
        """Chance that a token of `role` has a higher value than one of another role, ties by half: ``(m,)``.

        1/2 is chance; 0 finds the role as well as 1 does, with the other sign. Values of one bin count as equal.

        Parameters
        ----------
        role : int
        against : int, optional
            The other role; all others by default.
        """
        ours = self.counts[role].double()
        rest = (self.counts.sum(0) - self.counts[role] if against is None else self.counts[against]).double()
        if not ours[0].sum() or not rest[0].sum():
            raise ValueError(f"role, against: there is no token of {role if not ours[0].sum() else against}")
        below = rest.cumsum(-1) - rest / 2
        return (ours * below).sum(-1) / (ours.sum(-1) * rest.sum(-1))

    def __add__(self, other: RoleTally) -> RoleTally:
        return RoleTally(self.counts + other.counts)

    def __radd__(self, other: Any) -> RoleTally:
        """So that ``sum(tallies)``, which begins with 0, works."""
        return self if isinstance(other, int) and other == 0 else NotImplemented


def tally_truth(kann: KANN, states: Tensor, truth: Tensor, lengths: Tensor) -> TruthTally:
    """Moments of one batch.

    Parameters
    ----------
    kann : KANN
        Fitted.
    states : Tensor
        ``(n, time, hidden)``.
    truth : Tensor
        ``(n, time)``: what each token means, for example its polarity.
    lengths : Tensor
        ``(n,)``. The first token of a text does not count.
    """
    h = _states(kann, states)
    valid = _valid(truth, lengths, False, h)[:, 1:]
    innovation = h[:, 1:][valid] - torch.as_tensor(kann.predict(h[:, :-1][valid]))
    rows = torch.cat([innovation, truth[:, 1:][valid].unsqueeze(-1).to(innovation)], -1)
    checks.finite(rows, "truth")
    return TruthTally(len(rows), rows.sum(0), rows.T @ rows)


def score_truth(
    tally: TruthTally, kann: KANN, generator: torch.Generator, modes: Any = None, draws: int = 1000
) -> tuple[Association, Tensor]:
    """Correlation of jumps with the truth over all tokens, at the best phase, and that phase ``(m,)``.

    Modes, phases and chance are those of `kpm.analysis.word_scores.score_modes`.
    """
    chosen, planar = choose(kann, modes)
    directions = random_directions(kann.n_features_in_, draws, generator)
    covariance = tally.covariance
    planar = planar.to(covariance.device)
    value, phase = _correlation(covariance, _modes(kann, chosen)[0], planar)
    single, plane = (
        _correlation(covariance, directions, torch.full((draws,), free, device=covariance.device))[0]
        for free in (False, True)
    )
    return Association(value, planar, single, plane), phase


def tally_roles(values: Tensor, roles: Tensor, lengths: Tensor, count: int, scale: float) -> RoleTally:
    """Histograms of one batch.

    Parameters
    ----------
    values : Tensor
        Real ``(n, time, m)``, for example ``trace(...).signed(phase)`` or ``trace(...).change``.
    roles : Tensor
        Whole numbers ``(n, time)`` from 0 to ``count - 1``.
    lengths : Tensor
        ``(n,)``. The first token of a text does not count.
    scale : float
        About the size of the values; the same for all batches. Half of the bins lie between ``-scale`` and ``scale``.
    """
    if values.ndim != 3 or values.is_complex() or not scale > 0:
        raise ValueError(f"values: expected real (n, time, m) and scale > 0, got {tuple(values.shape)} and {scale}")
    valid = _valid(roles, lengths, False, values)
    rows, role = values[valid].double(), roles[valid]
    checks.finite(rows, "values")
    if len(role) and not 0 <= int(role.min()) <= int(role.max()) < count:
        raise ValueError(f"roles: expected 0 to {count - 1}, got {int(role.min())} to {int(role.max())}")
    m = rows.shape[1]
    place = ((rows / (scale + rows.abs()) + 1) / 2 * BINS).long().clamp(0, BINS - 1)
    flat = (role.unsqueeze(-1) * m + torch.arange(m, device=rows.device)) * BINS + place
    return RoleTally(torch.bincount(flat.flatten(), minlength=count * m * BINS).view(count, m, BINS))


def _correlation(covariance: Tensor, columns: Tensor, planar: Tensor) -> tuple[Tensor, Tensor]:
    """Multiple correlation of ``innovation @ columns`` with the truth, and its phase."""
    columns = columns.to(covariance.device)
    re, im = columns.real, columns.imag
    inner, cross, f = covariance[:-1, :-1], covariance[:-1, -1], covariance[-1, -1]
    a, b, c = ((p * (inner @ q)).sum(0) for p, q in ((re, re), (re, im), (im, im)))
    return best_phase(a, b, c, cross @ re, cross @ im, f, planar)

"""How well classes are told apart in states, principal components and Koopman components over time ([KANN] sec. 4.2).

At every step the silhouette of the class labels is taken in each space; ``sigma(t)`` is its average over the steps so
far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from sklearn.metrics import silhouette_score
from torch import Tensor

from kpm.solvers import checks
from kpm.solvers.containers import as_numpy

if TYPE_CHECKING:
    from kpm.analysis.kann import KANN


@dataclass(frozen=True)
class Silhouettes:
    """Curves of one space.

    Attributes
    ----------
    values : ndarray
        float64 ``(time,)``: silhouette at each step, -1 to 1.
    sigma : ndarray
        ``(time,)``: its average over the steps so far.
    values_error, sigma_error : ndarray
        Bootstrap standard errors, ``(time,)``; zeros if none were asked for.
    samples : int
        Sequences that were looked at.
    """

    values: np.ndarray
    sigma: np.ndarray
    values_error: np.ndarray
    sigma_error: np.ndarray
    samples: int


def spaces(
    kann: KANN,
    states: Any,
    components: int = 5,
    kind: Literal["magnitude", "amplitude"] = "magnitude",
    modes: Any = None,
) -> dict[str, Tensor]:
    """The three spaces of the paper: ``{"states", "PCA", "Koopman"}``, each ``(n, time, features)``.

    Parameters
    ----------
    kann : KANN
        Fitted; the principal axes are those of the states it has read.
    states : (n, time, hidden)
    components : int
        Number of principal components and of dominant modes.
    kind : {"magnitude", "amplitude"}
        ``|h B V_j|``, or real and imaginary part (one number for a real mode).
    modes : optional
        Mode numbers instead of the dominant ones of these states, a conjugate pair being told by one of its members.

    Notes
    -----
    "Dominant" is by ``sum_t |h_t B V|`` ([KANN] sec. 4.2, see `KANN.dominant`). A conjugate pair counts as one
    component: the magnitude of its second member is the same.
    """
    if kind not in ("magnitude", "amplitude"):
        raise ValueError(f"kind: expected 'magnitude' or 'amplitude', got {kind!r}")
    h = torch.as_tensor(states).double()
    if h.ndim != 3 or h.shape[-1] != kann.n_features_in_:
        raise ValueError(f"states: expected (n, time, {kann.n_features_in_}), got {tuple(h.shape)}")
    checks.count(components, "components", 1, kann.n_features_in_)
    axes = kann.moments_.basis(components, centred=True)
    values = torch.as_tensor(kann.eigenvalues_)
    if modes is None:
        leader = {j: group[0] for group in kann.pairs_ for j in group}
        modes = list(dict.fromkeys(leader[j] for j in kann.dominant(h).tolist()))[:components]
    amplitudes = torch.as_tensor(kann.amplitudes(h))[..., list(modes)]
    if kind == "magnitude":
        koopman = amplitudes.abs()
    else:
        koopman = torch.cat([amplitudes.real, amplitudes.imag[..., values[list(modes)].imag != 0]], -1)
    return {"states": h, "PCA": (h - axes.mean.to(h)) @ axes.vectors.to(h), "Koopman": koopman}


def silhouettes(
    points: Mapping[str, Any],
    labels: Any,
    most: int = 500,
    draws: int = 200,
    seed: int = 7253,
) -> dict[str, Silhouettes]:
    """Curves of several spaces, on the same sequences.

    Parameters
    ----------
    points : dict of str to array or tensor
        ``(n, time, features)`` each.
    labels : int or bool ``(n,)``
        Two classes or more.
    most : int
        At most so many sequences are looked at, chosen at random with the shares of the classes kept.
    draws : int
        Bootstrap samples of sequences for the standard errors; the same sequences at all steps and in all spaces.
    seed : int

    Raises
    ------
    ValueError
        For shapes that do not fit, a class of fewer than two sequences, or numbers that are not finite.

    Notes
    -----
    The values are scikit-learn's. In a bootstrap sample copies of a sequence are no neighbours of one another, since
    their distance of zero would let every class look tight.
    """
    labels = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    for name, x in points.items():
        if np.ndim(x) != 3 or labels.shape != (len(x),):
            raise ValueError(f"points[{name!r}]: expected ({len(labels)}, time, features), got {tuple(np.shape(x))}")
    random = np.random.default_rng(seed)
    chosen = _stratified(labels, most, random)
    classes, number = np.unique(labels[chosen], return_inverse=True)
    few = np.bincount(number) < 2
    if len(classes) < 2 or few.any():
        raise ValueError(
            f"labels: expected two classes or more, of two sequences or more each, got {np.bincount(number)}"
        )
    weights = torch.from_numpy(_bootstrap(number, draws, random))
    return {name: _curves(torch.as_tensor(x)[chosen].double(), number, weights) for name, x in points.items()}


def weighted_silhouettes(distances: Tensor, number: Tensor, weights: Tensor) -> Tensor:
    """Mean silhouette of samples in which each point occurs so many times, ``(samples,)``.

    Parameters
    ----------
    distances : Tensor
        float64 ``(n, n)``.
    number : Tensor
        Class of each point, int64 ``(n,)``.
    weights : Tensor
        ``(samples, n)``; zero for points that are left out. A point's copies are not its neighbours, so a point without
        another one of its class has the silhouette 0, as one alone has in scikit-learn.
    """
    one_hot = torch.nn.functional.one_hot(number).to(distances)
    shares = weights.unsqueeze(-1) * one_hot  # (samples, n, classes)
    total = torch.einsum("ij,sjc->sic", distances, shares)
    size = shares.sum(1, keepdim=True) - one_hot * weights.unsqueeze(-1)
    mean = total / size.clamp_min(torch.finfo(size.dtype).tiny)
    own = number.view(1, -1, 1).expand(len(weights), -1, 1)
    inside, alone = mean.gather(-1, own)[..., 0], size.gather(-1, own)[..., 0] <= 0
    outside = mean.masked_fill((size <= 0) | one_hot.bool(), torch.inf).amin(-1)
    value = (outside - inside) / torch.maximum(outside, inside).clamp_min(torch.finfo(mean.dtype).tiny)
    return (torch.where(alone, 0, value) * weights).sum(-1) / weights.sum(-1)


def _curves(x: Tensor, number: np.ndarray, weights: Tensor) -> Silhouettes:
    checks.finite(x, "points")
    classes, time = torch.from_numpy(number).to(x.device), np.arange(1, x.shape[1] + 1)
    values, drawn = [], []
    for frame in x.unbind(1):
        values.append(silhouette_score(as_numpy(frame), number))
        # Not by products, which lose half of the digits where states are close.
        distances = torch.cdist(frame, frame, compute_mode="donot_use_mm_for_euclid_dist")
        drawn.append(weighted_silhouettes(distances, classes, weights.to(frame)))
    values, spread = np.array(values), as_numpy(torch.stack(drawn, 1))
    sigma = values.cumsum() / time
    if not len(spread):
        return Silhouettes(values, sigma, *np.zeros((2, len(time))), len(x))
    errors = (part.std(0, ddof=1) for part in (spread, spread.cumsum(1) / time))
    return Silhouettes(values, sigma, *errors, len(x))


def _stratified(labels: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    """Which sequences are looked at, in order; of every class the same share, and two at least."""
    checks.count(most, "most", 4, 10**6)
    if len(labels) <= most:
        return np.arange(len(labels))
    rows = []
    for c in np.unique(labels):
        own = np.flatnonzero(labels == c)
        rows.append(random.permutation(own)[: max(2, round(most * len(own) / len(labels)))])
    return np.sort(np.concatenate(rows))


def _bootstrap(number: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """How often each sequence is drawn, class by class with replacement: float64 ``(draws, n)``."""
    if draws:
        checks.count(draws, "draws", 2, 10**6)
    weights = np.zeros((draws, len(number)))
    for c in np.unique(number):
        own = np.flatnonzero(number == c)
        weights[:, own] = random.multinomial(len(own), np.full(len(own), 1 / len(own)), size=draws)
    return weights

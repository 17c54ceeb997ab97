"""The scores of [SSM-SKD] for swaps that a judge has looked at: accuracies of its answers in, one number out.

After a swap of the static part, the judge should read the other sequence's static factors and the sequence's own
dynamic ones: measured against the own labels, accuracy should be at chance for the former and 1 for the latter. Both
scores are 1 minus the mean distance from such targets, so 1 is the best.

They are no percentages of anything and 0 is not their "no skill". On the classes of Sprites (6, 6, 6, 6 and 9), a model
whose swaps change nothing and a model that destroys everything both get ``D_sd = 0.5778``, and one that destroys
everything gets ``D_mf = 0.8333``. Report these beside a result: `no_skill` has them.

Nor can a measured score be 1. An accuracy that ought to be at chance ends a little above or below it by luck, and
either counts as a distance, so a perfect model loses a little too, the more the fewer films are judged: `within_reach`.

An accuracy is a number, or an array or tensor of any one shape, say ``(repeats,)``; the score then has that shape. The
published score is that of the accuracies of all repeats together; the mean of the repeats' scores is never above it, as
distances do not cancel out. Take only the standard error from the repeats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import binom
from torch import Tensor

from kpm.solvers import checks

Accuracy = TypeVar("Accuracy", float, np.ndarray, Tensor)


def chance_levels(classes: Mapping[str, int]) -> dict[str, float]:
    """Accuracy of guessing, ``1 / |C_f|``, for each factor f; `classes` maps factors to their number of classes."""
    return {name: 1 / checks.count(size, f"classes[{name!r}]", 2, 2**31) for name, size in classes.items()}


def d_sd(
    static_swap: Mapping[str, Accuracy],
    dynamic_swap: Mapping[str, Accuracy],
    classes: Mapping[str, int],
    static: Sequence[str],
    dynamic: Sequence[str],
) -> Accuracy:
    """Static-dynamic disentanglement D_sd ([SSM-SKD] eq. 6).

    Parameters
    ----------
    static_swap, dynamic_swap : mapping of str to float, ndarray or Tensor
        Accuracy of each factor, against the sequence's own label, after the static part was swapped and after the
        dynamic part was. Further factors (augmentations) may be there and do not count.
    classes : mapping of str to int
        Number of classes of each factor.
    static, dynamic : sequence of str
        Names of the static and the dynamic factors.

    Returns
    -------
    float, ndarray or Tensor
        One score per repeat, float64, in the shape and kind of the accuracies.

    Raises
    ------
    ValueError
        For a factor that is missing, named twice or both static and dynamic, for an accuracy outside [0, 1], or
        accuracies of different shapes.
    """
    chance = _chance(classes, static, dynamic)
    targets = {
        "static_swap": {f: chance[f] if f in static else 1.0 for f in chance},
        "dynamic_swap": {f: chance[f] if f in dynamic else 1.0 for f in chance},
    }
    return _score({"static_swap": static_swap, "dynamic_swap": dynamic_swap}, targets)


def d_mf(
    factorial: Mapping[str, Mapping[str, Accuracy]],
    classes: Mapping[str, int],
    static: Sequence[str],
    dynamic: Sequence[str],
) -> Accuracy:
    """Multi-factor disentanglement D_mf ([SSM-SKD] eq. 7).

    Parameters
    ----------
    factorial : mapping of str to mapping of str to float, ndarray or Tensor
        ``factorial[f][g]``: accuracy of factor g when the channels of the static factor f are retained and everything
        else, the dynamic part included, is swapped. One row for each static factor.
    classes, static, dynamic
        As for `d_sd`.

    Returns
    -------
    float, ndarray or Tensor
        As `d_sd`.

    Raises
    ------
    ValueError
        As `d_sd`, and without a static factor.
    """
    chance = _chance(classes, static, dynamic)
    if not static:
        raise ValueError("static: D_mf needs at least one static factor")
    lacking = [f for f in static if f not in factorial]
    if lacking:
        raise ValueError(f"factorial: no row for the static factor {lacking[0]!r}; it has {sorted(factorial)}")
    targets = {f"factorial[{f!r}]": {g: 1.0 if g == f else chance[g] for g in chance} for f in static}
    return _score({f"factorial[{f!r}]": factorial[f] for f in static}, targets)


def no_skill(classes: Mapping[str, int], static: Sequence[str], dynamic: Sequence[str]) -> dict[str, float]:
    """D_sd and D_mf of a model that destroys everything: every accuracy is at chance, whatever is swapped.

    Parameters
    ----------
    classes, static, dynamic
        As for `d_sd`.

    Returns
    -------
    dict of str to float
        ``"D_sd"`` and ``"D_mf"``.
    """
    chance = _chance(classes, static, dynamic)
    kinds = dict(classes=classes, static=static, dynamic=dynamic)
    return {"D_sd": d_sd(chance, chance, **kinds), "D_mf": d_mf(dict.fromkeys(static, chance), **kinds)}


def within_reach(
    classes: Mapping[str, int], static: Sequence[str], dynamic: Sequence[str], judged: int
) -> dict[str, float]:
    """Expected D_sd and D_mf of a perfect model when `judged` answers stand behind each accuracy.

    What ought to be at chance p is the share of hits among n guesses; its mean distance from p is
    ``2 v (1 - p) b(v; n, p) / n`` with ``v = floor(n p) + 1`` and the binomial probabilities b (de Moivre 1730).
    Guesses count as independent. Those of a film that is looked at in several repeats nearly are: it has new partners.

    Parameters
    ----------
    classes, static, dynamic
        As for `d_sd`.
    judged : int
        Films per repeat times repeats.

    Returns
    -------
    dict of str to float
        ``"D_sd"`` and ``"D_mf"``.
    """
    n = checks.count(judged, "judged", 1, 2**31)
    chance = _chance(classes, static, dynamic)
    off = {f: p + _mean_deviation(n, p) for f, p in chance.items()}
    kinds = dict(classes=classes, static=static, dynamic=dynamic)
    static_swap, dynamic_swap = ({f: off[f] if f in part else 1.0 for f in off} for part in (static, dynamic))
    kept = {f: off | {f: 1.0} for f in static}
    return {"D_sd": d_sd(static_swap, dynamic_swap, **kinds), "D_mf": d_mf(kept, **kinds)}


def _mean_deviation(n: int, p: float) -> float:
    """Mean of ``|X / n - p|``, X binomial."""
    v = math.floor(n * p) + 1
    return float(2 * v * (1 - p) * binom.pmf(v, n, p) / n)


def mean_se(values: ArrayLike | Tensor) -> tuple[float, float]:
    """Mean and its standard error ``s / sqrt(n)`` over repeats, with the sample deviation s (divisor ``n - 1``).

    Repeats of an evaluation differ in who is swapped with whom; they share sequences, judge and weights. The error is
    that of the draw of swaps, not of another training run.

    Parameters
    ----------
    values : array or Tensor
        ``(n,)``, ``n >= 2``.

    Raises
    ------
    ValueError
        For another shape or a number that is not finite.
    """
    values = values.double() if isinstance(values, Tensor) else torch.from_numpy(np.array(values, dtype=np.float64))
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"values: expected at least 2 repeats of shape (n,), got shape {tuple(values.shape)}")
    checks.finite(values, "values")
    return float(values.mean()), float(values.std(correction=1)) / math.sqrt(len(values))


def _chance(classes: Mapping[str, int], static: Sequence[str], dynamic: Sequence[str]) -> dict[str, float]:
    """Chance level of the static and dynamic factors, in this order."""
    both = [f for f in static if f in dynamic]
    if both:
        raise ValueError(f"factor {both[0]!r} is both static and dynamic")
    factors = [*static, *dynamic]
    if not factors:
        raise ValueError("static, dynamic: no factor given")
    twice = [f for f in factors if factors.count(f) > 1]
    if twice:
        raise ValueError(f"factor {twice[0]!r} is named twice")
    lacking = [f for f in factors if f not in classes]
    if lacking:
        raise ValueError(f"classes: no number of classes for factor {lacking[0]!r}; it has {sorted(classes)}")
    return chance_levels({f: classes[f] for f in factors})


def _score(given: Mapping[str, Mapping[str, Accuracy]], targets: Mapping[str, Mapping[str, float]]) -> Accuracy:
    """One minus the mean of ``|accuracy - target|`` over all targets."""
    distances = []
    shape = None
    for swap, row in targets.items():
        for factor, target in row.items():
            if factor not in given[swap]:
                raise ValueError(f"{swap}: no accuracy for factor {factor!r}; it has {sorted(given[swap])}")
            accuracy = given[swap][factor]
            shape = tuple(np.shape(accuracy)) if shape is None else shape
            distances.append(abs(_double(accuracy, f"{swap}[{factor!r}]", shape) - target))
    score = 1 - sum(distances) / len(distances)
    return score if isinstance(score, Tensor | np.ndarray) else float(score)


def _double(accuracy: Accuracy, name: str, shape: tuple[int, ...]) -> Accuracy:
    """The accuracy in float64, checked."""
    value = accuracy.double() if isinstance(accuracy, Tensor) else np.asarray(accuracy, dtype=np.float64)
    if tuple(value.shape) != shape:
        raise ValueError(f"{name}: shape {tuple(value.shape)}, but the first accuracy has {shape}")
    bad = torch.as_tensor(~((value >= 0) & (value <= 1)))  # a NaN is neither
    if bad.any():
        wrong = torch.as_tensor(value)[bad][0].item()
        raise ValueError(f"{name}{checks.where(bad)}: expected an accuracy from 0 to 1, got {wrong}")
    return value

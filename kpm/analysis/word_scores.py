"""Which modes follow the meaning of words: correlation of mean jumps with a word's sentiment, against chance.

Words weigh by the square root of how often they were seen. A real mode has one number per word and its sign is free; a
complex one has two, the phase of its eigenvector being free, so that its correlation is that of a linear fit to two
predictors. Chance is the same score for random directions of the state space: single ones for real modes, two at a time
for complex ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kpm.analysis.word_roles import (
    WordTally,
    choose,
    passage,
    project,
    tally_words,
    trace,
    turned,
    word_innovations,
    word_jumps,
)
from kpm.solvers import checks

if TYPE_CHECKING:
    from kpm.analysis.kann import KANN

_ENTRIES = 2**23  # numbers ranked at a time: 64 MB
_RARE = 20  # words seen less often are left out
_SPECIAL = (0, 1)  # padding and unknown words, see `kpm.datasets.words`


@dataclass(frozen=True)
class Association:
    """A score of each mode and its distribution by chance.

    Attributes
    ----------
    value : Tensor
        float64 ``(m,)``.
    planar : Tensor
        bool ``(m,)``: complex modes, which are judged by `null_planar`, others by `null_single`.
    null_single, null_planar : Tensor
        Scores of random directions and of random pairs of them, ``(draws,)`` each.
    """

    value: Tensor
    planar: Tensor
    null_single: Tensor
    null_planar: Tensor

    @property
    def p(self) -> Tensor:
        """Share of random directions that score as high or higher, the mode itself counted among them: ``(m,)``."""
        above = [1 + (null >= self.value.unsqueeze(-1)).sum(-1) for null in (self.null_single, self.null_planar)]
        return torch.where(self.planar, above[1], above[0]).double() / (1 + len(self.null_single))

    @property
    def z(self) -> Tensor:
        """Standard deviations of the null distribution above its mean, ``(m,)``."""
        apart = [(self.value - null.mean()) / null.std() for null in (self.null_single, self.null_planar)]
        return torch.where(self.planar, apart[1], apart[0])


@dataclass(frozen=True)
class WordScores:
    """How well the jumps of modes follow a number that each word has.

    Attributes
    ----------
    pearson : Association
        Weighted correlation, from 0 to 1, at the best phase.
    spearman : Association
        Weighted correlation of ranks at that phase, from -1 to 1.
    phase : Tensor
        ``(m,)``, radians: ``Re(exp(-i phase) jump)`` is high where the number is; 0 or pi for a real mode.
    words : int
        How many words were compared.
    """

    pearson: Association
    spearman: Association
    phase: Tensor
    words: int


def score_modes(
    tally: WordTally,
    kann: KANN,
    target: Tensor,
    generator: torch.Generator,
    modes: Any = None,
    draws: int = 1000,
    least: int = _RARE,
    ignore: Sequence[int] = _SPECIAL,
) -> WordScores:
    """Correlate the mean jumps of modes with a number of each word.

    Parameters
    ----------
    tally : WordTally
        Of `tally_states`, over a whole test set.
    kann : KANN
        Fitted.
    target : Tensor
        ``(vocabulary,)``, NaN for words that have no number: a lexicon (see `as_target`), or `readout_effect`.
    generator : torch.Generator
        On the CPU; draws the random directions.
    modes : optional
        As for `choose`; all by default.
    draws : int
        Number of random directions, and of pairs of them, with independent normal entries.
    least : int
        Words seen less often are left out.
    ignore : sequence of int
        Word numbers left out; padding and unknown words by default.

    Raises
    ------
    ValueError
        For shapes that do not fit, fewer than four words, or a mode or target that is the same for all words.
    """
    jumps, (_, planar) = word_jumps(tally, kann, modes), choose(kann, modes)
    directions = random_directions(kann.n_features_in_, draws, generator)
    null = project(word_innovations(tally, kann), directions.to(tally.total.device))
    return score_columns(jumps, null.real, null, tally.count, target, planar, least, ignore)


def tally_magnitudes(
    kann: KANN,
    states: Tensor,
    ids: Tensor,
    lengths: Tensor,
    vocabulary: int,
    directions: Tensor,
    modes: Any = None,
    first: bool = False,
) -> WordTally:
    """Sums per word of the changes of magnitude of modes, random directions and pairs of them, for `score_magnitudes`.

    The total is ``(vocabulary, m + 2 draws)``; `directions` are those of `random_directions`, the same for all batches.
    Other parameters are those of `trace` and `tally_words`.
    """
    many, total = max(1, _ENTRIES // (states.shape[1] * 3 * directions.shape[1])), 0
    for b in range(0, len(states), many):
        part = states[b : b + many]
        ours = trace(kann, part, modes).change
        after, before = passage(kann, part, directions)
        single, plane = after.real.abs() - before.real.abs(), after.abs() - before.abs()
        values = torch.cat([ours, single, plane], -1)
        total = total + tally_words(values, ids[b : b + many], lengths[b : b + many], vocabulary, first)
    return total


def score_magnitudes(
    tally: WordTally,
    kann: KANN,
    target: Tensor,
    modes: Any = None,
    least: int = _RARE,
    ignore: Sequence[int] = _SPECIAL,
) -> WordScores:
    """As `score_modes`, for the plain difference of magnitudes, from what `tally_magnitudes` has summed.

    There is no phase to choose, only a sign, for random pairs of directions neither.
    """
    planar = choose(kann, modes)[1]
    draws = (tally.total.shape[1] - len(planar)) // 2
    ours, single, plane = tally.mean.split([len(planar), draws, draws], 1)
    return score_columns(ours, single, plane, tally.count, target, planar, least, ignore)


def score_columns(
    columns: Tensor,
    single: Tensor,
    plane: Tensor,
    count: Tensor,
    target: Tensor,
    planar: Tensor,
    least: int = _RARE,
    ignore: Sequence[int] = _SPECIAL,
) -> WordScores:
    """Correlate columns with a target, and the columns of two null distributions in the same way.

    Parameters
    ----------
    columns : Tensor
        ``(vocabulary, m)``; complex ones have a free phase where `planar` says so.
    single, plane : Tensor
        ``(vocabulary, draws)``: by chance, for the columns that are not planar and for those that are.
    count, target : Tensor
        ``(vocabulary,)``.
    """
    device = columns.device
    if count.shape != columns.shape[:1] or target.shape != columns.shape[:1]:
        raise ValueError(f"target: expected ({len(columns)},), got {tuple(target.shape)}")
    if single.shape[1] < 2:
        raise ValueError(f"draws: at least 2 are needed, got {single.shape[1]}")
    target, count = target.to(device, torch.float64), count.to(device)
    kept = (count >= max(1, least)) & ~target.isnan()
    for i in ignore:
        kept[i] = False
    checks.finite(target[kept], "target")
    words = int(kept.sum())
    if words < 4:
        raise ValueError(f"least: {words} words were seen {least} times or more, at least 4 are needed")
    y, weights = target[kept], count[kept].double().sqrt()
    free = planar.to(device)
    pearson, phase, spearman = _both(columns[kept], y, weights, free)
    nulls = []
    for x, full in ((single, False), (plane, True)):
        nulls.append(_both(x[kept], y, weights, torch.full(x.shape[1:], full, device=device)))
    return WordScores(
        Association(pearson, free, nulls[0][0], nulls[1][0]),
        Association(spearman, free, nulls[0][2], nulls[1][2]),
        phase,
        words,
    )


def random_directions(hidden: int, draws: int, generator: torch.Generator) -> Tensor:
    """Complex directions ``(hidden, draws)`` with independent standard normal parts; the real ones are single ones."""
    checks.count(draws, "draws", 2, 10**6)
    parts = torch.randn(2, hidden, draws, generator=generator, dtype=torch.float64)
    return torch.complex(*parts)


def as_target(lexicon: Mapping[str, float], index: Mapping[str, int]) -> Tensor:
    """A lexicon as float64 ``(vocabulary,)``, NaN for words that are not in it; `index` tells the number of a word."""
    target = torch.full((1 + max(index.values()),), torch.nan, dtype=torch.float64)
    for word, value in lexicon.items():
        if word in index:
            target[index[word]] = value
    return target


def correlate(x: Tensor, y: Tensor, weights: Tensor, planar: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted correlation of columns with a target at the best phase, and that phase, ``(m,)`` each.

    Parameters
    ----------
    x : Tensor
        Real or complex ``(n, m)``.
    y, weights : Tensor
        ``(n,)``.
    planar : Tensor
        bool ``(m,)``: whether imaginary parts may be used. Elsewhere they are not looked at.
    """
    share = (weights / weights.sum()).unsqueeze(-1)
    re, im = (x.real, x.imag) if x.is_complex() else (x, torch.zeros_like(x))
    re, im, y = (part - share.T @ part for part in (re, im, y.unsqueeze(-1)))
    a, b, c = (torch.einsum("nk,nk->k", share * p, q) for p, q in ((re, re), (re, im), (im, im)))
    d, e, f = (((share * y).T @ p)[0] for p in (re, im, y))
    return best_phase(a, b, c, d, e, f, planar)


def best_phase(
    a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor, planar: Tensor
) -> tuple[Tensor, Tensor]:
    """Multiple correlation and phase from covariances of two predictors and a target, each ``(m,)``.

    ``[[a, b], [b, c]]`` is that of the predictors (real and imaginary part), ``(d, e)`` theirs with the target, `f` the
    target's variance. Predictors that are proportional to one another count as one.
    """
    planar = planar & (c > 0)
    if not (f > 0).all():
        raise ValueError("target: is the same for all words")
    flat = torch.where(planar, a + c, a) <= 0
    if flat.any():
        raise ValueError(f"columns{checks.where(flat)}: the same for all words")
    size, det = (a + c).square(), a * c - b * b
    regular = det > 1e-12 * size
    scale = torch.where(regular, 1 / torch.where(regular, det, 1), 1 / size)
    # Inverse of [[a, b], [b, c]]; of a matrix of rank one it is the matrix itself over its squared trace.
    p, q, r = (torch.where(regular, x, y) * scale for x, y in ((c, a), (-b, b), (a, c)))
    re = torch.where(planar, p * d + q * e, d / a.clamp_min(torch.finfo(a.dtype).tiny))
    im = torch.where(planar, q * d + r * e, 0)
    value = ((re * d + im * e) / f).clamp(0, 1).sqrt()
    return value, torch.atan2(im, re)


def ranks(x: Tensor) -> Tensor:
    """Ranks from 1 along the first axis, their mean where numbers are equal: float64, same shape."""
    columns = x.reshape(len(x), -1).T.contiguous()
    ordered, order = columns.sort(-1)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    heap = new.flatten().cumsum(0) - 1  # numbers that are equal, in one column, are a heap
    first = new.flatten().nonzero()[:, 0]
    size = torch.diff(first, append=first.new_tensor([new.numel()]))
    mean = first % len(x) + (size + 1).double() / 2
    found = torch.empty(columns.shape, dtype=torch.float64, device=x.device)
    return found.scatter_(1, order, mean[heap].view(columns.shape)).T.reshape(x.shape)


def _both(x: Tensor, y: Tensor, weights: Tensor, planar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pearson's correlation, phase and Spearman's correlation of columns, some at a time."""
    rank_y, found = ranks(y), []
    one = torch.zeros((), dtype=torch.bool, device=y.device)
    for part, free in zip(*(t.split(max(1, _ENTRIES // len(y)), dim) for t, dim in ((x, 1), (planar, 0)))):
        value, phase = correlate(part, y, weights, free)
        along = turned(part, phase) if part.is_complex() else part * phase.cos()
        size, sign = correlate(ranks(along.double()), rank_y, weights, one)
        found.append((value, phase, size * sign.cos()))
    return tuple(torch.cat(parts) for parts in zip(*found))

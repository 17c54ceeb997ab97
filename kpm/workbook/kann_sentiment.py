"""``kpm kann sentiment``: what a network that reads reviews computes, over a whole test set ([KANN] sec. 4.1)."""

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from kpm.analysis.fixed_points import Linearisation, cell_step, find_fixed_points
from kpm.analysis.kann import KANN
from kpm.analysis.kann_measures import Tally, agreements, relative_errors
from kpm.analysis.word_roles import (
    PairEffects,
    WordTally,
    pair_effects,
    readout_effect,
    tally_states,
    trace,
)
from kpm.analysis.word_scores import WordScores, score_modes
from kpm.datasets.texts import Reviews
from kpm.models.sentiment import SentimentNet

PAIRS = (("not", "good"), ("not", "bad"), ("very", "good"), ("very", "bad"), ("not", "great"), ("not", "worth"))
_NOT = ("not", "n't", "never", "no")
SLOW = 0.99  # modulus above which a mode counts as slow


@dataclasses.dataclass(frozen=True)
class Reading:
    """A Koopman analysis of all states of a split, and sums over its words.

    Attributes
    ----------
    kann : KANN
    words : WordTally
        Of `kpm.analysis.word_roles.tally_states`.
    reviews, states : int
        How many were read.
    wall_s, moments_s : float
        Of the whole pass, and of it for moments alone (the rest is the network's own).
    peak_gib : float
        Peak resident memory of the process.
    """

    kann: KANN
    words: WordTally
    reviews: int
    states: int
    wall_s: float
    moments_s: float
    peak_gib: float


def batches(
    model: SentimentNet, data: Reviews, max_length: int, size: int = 64, progress: bool = False
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """States ``(b, t, hidden)``, word numbers ``(b, t)`` and lengths ``(b,)`` of every review, in batches."""
    indices = data.batch_indices(size, max_length=max_length)
    for index in tqdm(indices, unit="batch", disable=not progress, desc="reading", leave=False):
        ids, lengths, _ = data.batch(index, max_length)
        with torch.inference_mode():
            states = model.states(ids, lengths)
        yield states.clone(), ids, lengths


def read(model: SentimentNet, data: Reviews, max_length: int = 1000, progress: bool = False) -> Reading:
    """Fit a `KANN` to the states of every review, padding left out, in one pass and flat memory."""
    kann, words, states, spent, began = KANN(), 0, 0, 0.0, time.monotonic()
    for h, ids, lengths in batches(model, data, max_length, progress=progress):
        start = time.monotonic()
        kann.partial_fit(h, lengths)
        spent += time.monotonic() - start
        words = words + tally_states(h, ids, lengths, len(data.vocabulary))
        states += int(lengths.sum())
    start = time.monotonic()
    kann.eigenvalues_  # noqa: B018 - worked out when asked for
    spent += time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Reading(kann, words, len(data), states, time.monotonic() - began, spent, peak)


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """How well one-step predictions stand for the states.

    Attributes
    ----------
    agreement : float
        Share of reviews whose verdict is the same from the predicted last state ([KANN] sec. 4.3).
    e_rel : float
        [KANN] eq. 12 over all states.
    reviews : int
    """

    agreement: float
    e_rel: float
    reviews: int


def fidelity(model: SentimentNet, kann: Any, data: Reviews, max_length: int = 1000, progress: bool = False) -> Fidelity:
    """Agreement and relative error of a fitted analysis (or a `Linearisation`) on every review of `data`."""
    agree, error = Tally(0, 0), Tally(0.0, 0)
    for h, _, lengths in batches(model, data, max_length, progress=progress):
        agree += agreements(kann, model.read, h, lengths=lengths)
        error += relative_errors(kann, h, lengths=lengths)
    return Fidelity(float(agree.mean), float(error.mean), agree.count)


def slow_modes(kann: KANN, least: float = SLOW) -> list[tuple[int, ...]]:
    """Modes of modulus above `least`, largest first, conjugates together."""
    values = torch.as_tensor(kann.eigenvalues_).abs()
    return [pair for pair in kann.pairs_ if values[pair[0]] > least]


def scores(
    reading: Reading, model: SentimentNet, lexicon: Tensor, seed: int, draws: int = 1000
) -> dict[str, WordScores]:
    """How the jumps of the slow modes follow a lexicon and the network's own change of mind at each word."""
    modes = slow_modes(reading.kann) or [reading.kann.pairs_[0]]
    targets = {"lexicon": lexicon, "read-out": readout_effect(reading.words, model.readout.weight)}
    return {
        name: score_modes(reading.words, reading.kann, target, torch.Generator().manual_seed(seed), modes, draws)
        for name, target in targets.items()
    }


def context(
    model: SentimentNet, reading: Reading, found: WordScores, data: Reviews, max_length: int = 1000, within: int = 1
) -> tuple[list[str], PairEffects]:
    """Jumps at a word with and without another before it, for the pairs of `PAIRS` whose words are known.

    The last column is the change of the network's logit, those before it the slow modes at their best phase.
    """
    index = data.vocabulary.index
    pairs, names = [], []
    for first, second in PAIRS:
        before = [index[w] for w in (_NOT if first == "not" else (first,)) if w in index]
        if before and second in index:
            pairs.append((before, index[second]))
            names.append(f"{first} {second}")
    modes, total = slow_modes(reading.kann) or [reading.kann.pairs_[0]], 0
    for h, ids, lengths in batches(model, data, max_length):
        signed = trace(reading.kann, h, modes).signed(found.phase)
        logits = model.read(h).detach().double()
        change = torch.diff(logits, dim=1, prepend=torch.zeros_like(logits[:, :1]))
        total = total + pair_effects(torch.cat([signed, change.unsqueeze(-1)], -1), ids, lengths, pairs, within)
    return names, total


def linearised(
    model: SentimentNet, data: Reviews, max_length: int, seed: int, starts: int = 128, slow: float = 1e-4
) -> Linearisation | None:
    """The line-attractor baseline: the network linearised at its slow points under the mean word vector.

    None if no state was found that moves by less than ``sqrt(2 slow)`` in a step.
    """
    index = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:64]
    ids, lengths, _ = data.batch(index, max_length)
    with torch.inference_mode():
        states = model.states(ids, lengths)
    valid = torch.arange(ids.shape[1]) < lengths[:, None]
    rows, words = states[valid].clone(), model.words(ids[valid]).detach()
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed + 1))[:starts]
    found = find_fixed_points(cell_step(model.gru), rows[chosen], words.mean(0), steps=400, newton=5, slow=slow)
    points = found.slow if len(found.slow) else found.fixed
    return Linearisation.of(points) if len(points) else None

"""What a word says of sentiment by itself: a lexicon learnt from the labels of training reviews, or a grammar's own.

What the directions of a network's states mean can be scored against it. It knows nothing of context: a word's weight is
the same behind ``not``.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from kpm.datasets import reviews as grammar
from kpm.datasets.texts import Reviews
from kpm.datasets.words import UNKNOWN, Vocabulary


@dataclasses.dataclass(frozen=True, eq=False)
class Lexicon:
    """Sentiment of each word of a vocabulary.

    Attributes
    ----------
    vocabulary : Vocabulary
    weights : Tensor
        float64 ``(len(vocabulary),)``, positive for praise; 0 for padding and unknown words.
    scores : Tensor
        The same in standard errors, by which words are ranked; infinite where the truth is known.
    source : str
        Name of the dataset it is of.
    """

    vocabulary: Vocabulary
    weights: Tensor = dataclasses.field(repr=False)
    scores: Tensor = dataclasses.field(repr=False)
    source: str

    def signs(self, significance: float = 0.001) -> Tensor:
        """1, -1 or 0 per word, int64 ``(len(vocabulary),)``.

        0 stands for words whose weight would be as far from zero by chance with a probability of more than
        `significance`, Bonferroni-corrected for the size of the vocabulary.
        """
        if not 0 < significance < 1:
            raise ValueError(f"significance: expected between 0 and 1, got {significance}")
        least = float(norm.isf(significance / 2 / len(self.vocabulary)))
        return torch.where(self.scores.abs() >= least, self.weights.sign(), 0).long()

    def of(self, ids: Tensor) -> Tensor:
        """Weights of word numbers of any shape, float64 on their device."""
        return self.weights.to(ids.device)[ids]

    def strongest(self, count: int = 20) -> tuple[list[str], list[str]]:
        """The `count` most positive and most negative words, surest first."""

        def first(sign: int) -> list[str]:
            order = torch.argsort(sign * self.scores, descending=True, stable=True)
            return [self.vocabulary.words[i] for i in order[(sign * self.weights > 0)[order]][:count].tolist()]

        return first(1), first(-1)


def learn(reviews: Reviews, prior: float = 20.0) -> Lexicon:
    """Log-odds ratio of each word between positive and negative reviews, with an informative Dirichlet prior.

    Parameters
    ----------
    reviews : Reviews
        Training reviews; a word counts once per review.
    prior : float
        Weight of the prior: every word is taken to have been in so many reviews more, as often in those of one class as
        in those of the other for their size. It draws rare words to zero.

    Raises
    ------
    ValueError
        If a class has no review.

    Notes
    -----
    Monroe, Colaresi, Quinn: Fightin' Words, Political Analysis 2008, sec. 3.3: log-odds ratio over its approximate
    standard error.
    """
    if not prior > 0:
        raise ValueError(f"prior: expected more than 0, got {prior}")
    if not 0 < int((reviews.labels == 1).sum()) < len(reviews):
        raise ValueError(f"reviews: expected both classes, got labels {reviews.labels.unique().tolist()}")
    found = reviews.counts()
    found.data[:] = 1
    positive = reviews.labels.cpu().numpy() == 1
    counts = np.stack([found[~positive].sum(0), found[positive].sum(0)]).astype(np.float64)
    counts[:, : UNKNOWN + 1] = 0
    seen = counts.sum(0) > 0
    added = counts[:, seen]
    added = added + prior * added.sum(1, keepdims=True) / added.sum()
    odds = np.log(added) - np.log(added.sum(1, keepdims=True) - added)
    weights, scores = np.zeros((2, len(seen)))
    weights[seen] = odds[1] - odds[0]
    scores[seen] = weights[seen] / np.sqrt((1 / added).sum(0))
    return Lexicon(reviews.vocabulary, torch.from_numpy(weights), torch.from_numpy(scores), reviews.name)


def known() -> Lexicon:
    """The lexicon of the grammar of `kpm.datasets.reviews`: 1, -1 or 0 by the role of a word."""
    roles = torch.from_numpy(grammar.word_roles())
    positive, negative = (roles == grammar.ROLES.index(role) for role in ("positive", "negative"))
    weights = positive.double() - negative.double()
    scores = torch.where(weights != 0, weights * torch.inf, 0.0)
    return Lexicon(grammar.VOCABULARY, weights, scores, "reviews_synthetic")


def lexicon(reviews: Reviews) -> Lexicon:
    """The known lexicon of synthetic reviews; for others one learnt from the labels of `reviews`."""
    return known() if reviews.vocabulary == grammar.VOCABULARY else learn(reviews)

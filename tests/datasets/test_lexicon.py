"""The lexicon against the formula spelt out for one word, and against the words of the grammar."""

from __future__ import annotations

import math

import pytest
import torch

from kpm import datasets
from kpm.datasets import lexicon, reviews
from kpm.datasets.texts import Reviews

TEXTS = ["good film", "good good plot", "a good cast", "bad film", "bad bad bad", "a plot so bad", "film"]
LABELS = [1, 1, 1, 0, 0, 0, 0]


def by_hand(word: str, prior: float) -> tuple[float, float]:
    """Log-odds ratio and its standard score, with counts of reviews that have the word."""
    having = {c: [set(t.split()) for t, y in zip(TEXTS, LABELS) if y == c] for c in (0, 1)}
    count = {c: sum(word in t for t in texts) for c, texts in having.items()}
    size = {c: sum(map(len, texts)) for c, texts in having.items()}
    kinds = len(set().union(*having[0], *having[1]))
    alpha = {c: prior * size[c] / (size[0] + size[1]) for c in (0, 1)}
    odds = {c: math.log((count[c] + alpha[c]) / (size[c] + kinds * alpha[c] - count[c] - alpha[c])) for c in (0, 1)}
    variance = sum(1 / (count[c] + alpha[c]) for c in (0, 1))
    return odds[1] - odds[0], (odds[1] - odds[0]) / math.sqrt(variance)


@pytest.mark.parametrize("prior", [0.5, 10.0, 1000.0])
def test_weights_are_log_odds(prior):
    data = Reviews.from_texts(TEXTS, LABELS)
    found = lexicon.learn(data, prior)
    for word, i in data.vocabulary.index.items():
        expected = (0.0, 0.0) if i < 2 else by_hand(word, prior)
        assert (float(found.weights[i]), float(found.scores[i])) == pytest.approx(expected, abs=1e-12)
    assert found.strongest(1) == (["good"], ["bad"]) and found.source == "texts"


def test_prior_draws_rare_words_to_zero():
    data = Reviews.from_texts(["good"] * 50 + ["bad"] * 50 + ["rare good"], [1] * 50 + [0] * 50 + [1])
    place = data.vocabulary.index
    loose, tight = (lexicon.learn(data, prior).weights for prior in (0.1, 40.0))
    assert loose[place["rare"]] > 2
    assert 0 < tight[place["rare"]] < 0.1 * tight[place["good"]]


def test_signs_are_those_that_are_sure():
    data = Reviews.from_texts(["good"] * 80 + ["bad"] * 80 + ["rare good"], [1] * 80 + [0] * 80 + [1])
    signs = lexicon.learn(data, 10.0).signs()
    assert {w: int(signs[i]) for w, i in data.vocabulary.index.items()} == {
        "<pad>": 0, "<unk>": 0, "good": 1, "bad": -1, "rare": 0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="significance: expected between 0 and 1, got 0"):
        lexicon.learn(data).signs(0)


def test_words_of_ids_of_any_shape():
    found = lexicon.known()
    ids = reviews.VOCABULARY.encode("good the awful good").reshape(2, 2)
    assert found.of(ids).tolist() == [[1, 0], [-1, 1]]


def test_known_lexicon_is_that_of_the_roles():
    data = datasets.load("reviews_synthetic", "validation")
    found = lexicon.lexicon(data)
    roles, _ = data.truth(torch.arange(50))
    ids, *_ = data.batch(torch.arange(50))
    assert torch.equal(found.of(ids), (roles == 1).double() - (roles == 2).double())
    assert torch.equal(found.signs().double(), found.weights) and found.source == "reviews_synthetic"
    assert len(found.strongest(99)[0]) == len(found.strongest(99)[1]) == 25


def test_a_lexicon_learnt_from_the_grammar_knows_its_words():
    data = datasets.load("reviews_synthetic", "train")
    known, learnt = lexicon.known(), lexicon.learn(data)
    for words, sign in zip(known.strongest(99), (1, -1)):
        agree = [float(learnt.weights[data.vocabulary.index[w]]) * sign > 0 for w in words]
        assert sum(agree) >= 23
    marked = learnt.signs() != 0
    assert torch.equal(learnt.signs()[marked].double(), known.weights[marked]) and marked.sum() > 25


def test_one_class_is_not_enough():
    with pytest.raises(ValueError, match=r"reviews: expected both classes, got labels \[1\]"):
        lexicon.learn(Reviews.from_texts(["good"], [1]))
    with pytest.raises(ValueError, match="prior: expected more than 0"):
        lexicon.learn(Reviews.from_texts(TEXTS, LABELS), 0)

"""The grammar's truth against a reader that goes word by word and knows the words' meaning from this file only."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from kpm import datasets
from kpm.datasets import reviews
from kpm.datasets.words import tokenize
from kpm.errors import UserError

GOOD, BAD = (
    set(words.split())
    for words in (
        """good great wonderful brilliant funny moving clever charming superb delightful gripping touching elegant warm
        witty fresh honest beautiful tender inspired memorable thrilling graceful lovely enjoyable""",
        """bad awful terrible dull boring clumsy silly tedious lame wooden bland sloppy shallow painful forgettable
        stale ugly weak annoying confusing pointless lifeless dreadful muddled hollow""",
    )
)
DOUBLE = {"very", "extremely", "truly", "incredibly", "remarkably", "utterly"}
HALF = {"slightly", "somewhat", "fairly", "mildly"}
NOT = {"not", "n't", "never", "hardly"}
END = {".", ",", "but", "while"}


def reader(words: list[str]) -> list[float]:
    """What each word adds, by the rule as it is worded: the sign by looking back over the clause, the weight over what
    stands right before."""
    added = []
    for i, word in enumerate(words):
        if word not in GOOD | BAD:
            added.append(0.0)
            continue
        start = max((j + 1 for j in range(i) if words[j] in END), default=0)
        value = -1.0 if word in BAD else 1.0
        for before in words[start:i]:
            value = -value if before in NOT else value
        for before in reversed(words[start:i]):
            if before not in DOUBLE | HALF:
                break
            value *= 2 if before in DOUBLE else 0.5
        added.append(value)
    return added


@pytest.fixture(scope="module")
def some() -> reviews.Reviews:
    return reviews.write(400, seed=1)


def test_polarity_score_and_label_are_those_of_a_reader(some):
    roles, polarity = some.truth(torch.arange(len(some)), max_length=None)
    for i in range(len(some)):
        words = some.words(i)
        added = reader(words)
        assert polarity[i, : len(words)].tolist() == added and not polarity[i, len(words) :].any()
        assert float(some.scores[i]) == sum(added) != 0 and int(some.labels[i]) == (sum(added) > 0)
    assert roles.shape == polarity.shape == (400, int(some.lengths.max()))


def test_the_rule_on_sentences_that_are_not_drawn():
    for text, expected in {
        "the plot is not good . the cast is good": [-1, 1],
        "not very funny , but never hardly slightly dull": [-2, -0.5],
        "n't good or very very witty while awful": [-1, -4, -1],
        "very long , very the warm": [1],
    }.items():
        words = text.split()
        roles = reviews.word_roles()[[reviews.VOCABULARY.index[w] for w in words]]
        table = np.zeros((len(words), len(words)), np.uint8)
        clause = np.cumsum([w in END for w in words])
        for c in set(clause.tolist()):
            table[c, clause == c] = roles[clause == c]
        found = reviews._polarity(table).sum(0)
        assert found[found != 0].tolist() == expected == [a for a in reader(words) if a]


def test_roles_are_those_of_the_words(some):
    groups = {"positive": GOOD, "negative": BAD, "amplifier": DOUBLE, "diminisher": HALF, "negation": NOT}
    groups["boundary"] = END
    by_word = {word: role for role, words in groups.items() for word in words}
    roles, _ = some.truth(torch.arange(len(some)))
    seen = collections.Counter()
    for i in range(len(some)):
        words = some.words(i)
        expected = [by_word.get(word, "neutral") for word in words]
        assert [some.role_names[r] for r in roles[i, : len(words)].tolist()] == expected
        seen.update(expected)
    assert set(seen) == set(reviews.ROLES) and min(seen.values()) > 400
    assert {w for w in reviews.VOCABULARY.words if by_word.get(w)} == set(by_word)


def test_words_are_read_as_they_are_written(some):
    vocabulary = some.vocabulary
    for i in range(40):
        assert tokenize(some.text(i), punctuation=True) == some.words(i)
        assert torch.equal(vocabulary.encode(some.text(i)), some[i])
    assert set(some.tokens.unique().tolist()) == set(range(2, len(vocabulary)))


def test_running_sum_is_what_can_be_known_so_far(some):
    """The score of any beginning of a review that ends with a clause does not change by what follows."""
    for i in range(20):
        words = some.words(i)
        _, polarity = some.truth(torch.tensor([i]))
        running = polarity[0].cumsum(0)
        for end in [j for j, word in enumerate(words) if word in END]:
            assert float(running[end]) == sum(reader(words[: end + 1]))


def test_negations_matter():
    """A bag of words knows far less than the rule, which knows all."""
    train, test = (datasets.load("reviews_synthetic", s) for s in ("train", "test"))
    bag = LogisticRegression(max_iter=300).fit(train.counts(), train.labels.numpy())
    assert 0.6 < bag.score(test.counts(), test.labels.numpy()) < 0.75


def test_splits():
    parts = {s: datasets.load("reviews_synthetic", s) for s in reviews.SPLITS}
    assert [len(parts[s]) for s in reviews.SPLITS] == [9000, 1000, 5000, 10000, 5000, 15000]
    for part in parts.values():
        assert abs(float(part.labels.float().mean()) - 0.5) < 0.03
        assert (part.name, part.source) == ("reviews_synthetic", "synthetic")
    texts = {s: {tuple(d[i].tolist()) for i in range(len(d))} for s, d in parts.items()}
    assert len(texts["all"]) == 15000  # no review is there twice
    assert texts["train"] | texts["validation"] == texts["paper-train"] and texts["test"] == texts["paper-test"]
    assert texts["paper-train"].isdisjoint(texts["test"]) and texts["train"].isdisjoint(texts["validation"])
    assert datasets.load("imdb", "test", "synthetic").name == "reviews_synthetic"
    with pytest.raises(UserError, match="unknown split 'tset'"):
        datasets.load("reviews_synthetic", "tset")


def test_the_same_seed_gives_the_same_reviews():
    first, same, other = reviews.write(30, 5), reviews.write(30, 5), reviews.write(30, 6)
    assert [first.text(i) for i in range(30)] == [same.text(i) for i in range(30)] != [other.text(i) for i in range(30)]
    assert first.text(0) == FIRST
    assert len(reviews.write(1, 0)) == 1
    with pytest.raises(ValueError, match="count: expected 1 or more, got 0"):
        reviews.write(0, 0)


# What a seed gives must not change: weights that were trained on these reviews are kept.
FIRST = (
    "the director was pointless . this costume stays lovely but this sound looks warm of that island . the sound looks "
    "remarkably extremely lovely . then its ending seems awful . that cast is not fresh nor very musical . the costume "
    "looks incredibly bad but that villain is urban . that director felt inspired ."
)

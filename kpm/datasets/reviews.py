"""Reviews written by our own grammar, with the truth of every word: a stand-in for IMDb, for machines without it.

A review is sentences of clauses such as ``the acting is n't very good or clever``. Its label follows from its words:

- A positive word is worth 1, a negative one -1, all others nothing.
- An amplifier (``very``) doubles the word it stands before, a diminisher (``slightly``) halves it; several multiply.
- A negation (``not``, ``n't``) turns the sign of what follows in its clause; a second one turns it back.
- ``.``, ``,``, ``but`` and ``while`` end a clause, and with it a negation.
- The score is the sum; above zero the review is positive, below negative. No score is zero.

What modifies stands before what it modifies, so the running sum of `Reviews.polarity` is what a reader can know so far.
Results on these reviews are results on these reviews.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from kpm.datasets.texts import Reviews
from kpm.datasets.words import SPECIAL, Vocabulary
from kpm.errors import pick

ROLES = ("neutral", "positive", "negative", "amplifier", "diminisher", "negation", "boundary")
SIZES = {"train": 9000, "validation": 1000, "test": 5000}
SPLITS = (*SIZES, "paper-train", "paper-test", "all")
SEED = 7253
_WORDS = {
    "positive": (
        "good great wonderful brilliant funny moving clever charming superb delightful gripping touching elegant warm "
        "witty fresh honest beautiful tender inspired memorable thrilling graceful lovely enjoyable"
    ),
    "negative": (
        "bad awful terrible dull boring clumsy silly tedious lame wooden bland sloppy shallow painful forgettable "
        "stale ugly weak annoying confusing pointless lifeless dreadful muddled hollow"
    ),
    "amplifier": "very extremely truly incredibly remarkably utterly",
    "diminisher": "slightly somewhat fairly mildly",
    "negation": "not n't never hardly",
    "boundary": ". , but while",
}
_NEUTRAL = {
    "opener": "overall sometimes then again here",
    "article": "the this that its",
    "noun": (
        "film movie plot story acting script cast music camera ending opening dialogue pacing director hero villain "
        "scenery editing costume lighting sound sequel lead soundtrack premise"
    ),
    "verb": "is was seems felt looks stays",
    "copula": "is was",  # what a negation can follow
    "plain": "long short french modern silent local early quiet urban rural digital musical",
    "or": "or nor",
    "about": "for in of with from",
    "thing": "town war school train winter city island house office summer forest kitchen harbour village",
}
VOCABULARY = Vocabulary((*SPECIAL, *dict.fromkeys(" ".join((*_WORDS.values(), *_NEUTRAL.values())).split())), True)
# Chances: a clause has a negation; it is n't; an amplifier, a diminisher before a word; a second one; the word has a
# sign; a second word; a few words more; a sentence has another clause; a word is of the review's mood.
_NEGATED, _SHORT, _AMPLIFIED, _DIMINISHED, _AGAIN, _SIGNED, _SECOND, _MORE, _CLAUSE, _MOOD = (
    0.3, 0.4, 0.25, 0.12, 0.2, 0.8, 0.2, 0.35, 0.35, 0.68,
)  # fmt: skip
_SENTENCES = (4, 12)


def _ids(words: str) -> np.ndarray:
    return np.array([VOCABULARY.index[word] for word in words.split()])


def word_roles() -> np.ndarray:
    """Role of each word of the vocabulary, uint8 ``(len(VOCABULARY),)``."""
    roles = np.zeros(len(VOCABULARY), np.uint8)
    for role, words in _WORDS.items():
        roles[_ids(words)] = ROLES.index(role)
    return roles


def write(count: int, seed: int) -> Reviews:
    """Write `count` reviews; the same for the same arguments on every machine.

    Returns
    -------
    Reviews
        With roles and polarities of all words, and the sums of the latter as scores.
    """
    if count < 1:
        raise ValueError(f"count: expected 1 or more, got {count}")
    spare = 8
    while True:
        # The legacy stream is the same for every version of numpy. Reviews of score zero are passed over.
        drawn = _draw(np.random.RandomState(seed), count + count // 8 + spare)
        decided = drawn.scores.nonzero()[:count, 0]
        if len(decided) == count:
            return drawn.subset(decided)
        spare *= 2


def _draw(stream: np.random.RandomState, count: int) -> Reviews:
    """Reviews clause by clause, all at once: a table of slots per clause, of which some are empty."""
    sentences = stream.randint(_SENTENCES[0], _SENTENCES[1] + 1, count)
    review = np.repeat(np.arange(count), sentences)
    clauses = 1 + (stream.random_sample(len(review)) < _CLAUSE)
    last = np.cumsum(clauses) - 1  # of each sentence
    review = np.repeat(review, clauses)
    ends = np.zeros(len(review), bool)
    ends[last] = True
    opens = np.roll(ends, 1)
    mood = np.where(stream.random_sample(count) < 0.5, 1, -1)[review]
    ids, present = _clauses(stream, mood, opens, ends)
    roles = word_roles()[ids]
    polarity = _polarity(roles)
    lengths = np.bincount(review, weights=present.sum(1), minlength=count).astype(np.int64)
    scores = np.bincount(review, weights=(polarity * present).sum(1), minlength=count)
    return Reviews(
        name="reviews_synthetic",
        source="synthetic",
        split="all",
        vocabulary=VOCABULARY,
        tokens=torch.from_numpy(ids[present].astype(np.int32)),
        starts=torch.from_numpy(np.cumsum(lengths) - lengths),
        lengths=torch.from_numpy(lengths),
        labels=torch.from_numpy((scores > 0).astype(np.int64)),
        scores=torch.from_numpy(scores.astype(np.float32)),
        roles=torch.from_numpy(roles[present]),
        polarity=torch.from_numpy(polarity[present].astype(np.float32)),
        role_names=ROLES,
        description="reviews written by kpm's grammar: negations turn signs, amplifiers weigh, the label is the sum's",
    )


def _clauses(
    stream: np.random.RandomState, mood: np.ndarray, opens: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Words ``(clauses, slots)`` and which of them are there. 0 stands in slots that are empty."""
    count = len(mood)

    def chance(p: float) -> np.ndarray:
        return stream.random_sample(count) < p

    def word(kind: str) -> np.ndarray:
        ids = _ids(_NEUTRAL.get(kind) or _WORDS[kind])
        return ids[stream.randint(0, len(ids), count)]

    negated, short = chance(_NEGATED), chance(_SHORT)
    always, never = np.ones(count, bool), negated & ~short
    turn = np.where(negated, -1, 1)

    def judged(where: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """A word of opinion, or none, behind what weighs it; after the negation, so that it means what it should."""
        weighed = stream.random_sample(count)
        amplified = weighed < _AMPLIFIED
        signed, sign = chance(_SIGNED), np.where(chance(_MOOD), mood, -mood) * turn
        adjective = np.where(signed, np.where(sign > 0, word("positive"), word("negative")), word("plain"))
        weight = np.where(amplified, word("amplifier"), word("diminisher"))
        has = where & (weighed < _AMPLIFIED + _DIMINISHED)
        return [(word("amplifier"), has & amplified & chance(_AGAIN)), (weight, has), (adjective, where)]

    second, more = chance(_SECOND), chance(_MORE)
    joint = _ids(", but while")[stream.randint(0, 3, count)]
    slots = [
        (joint, ~opens),
        (word("opener"), opens & chance(0.15)),
        (word("article"), always),
        (word("noun"), always),
        (np.where(negated, word("copula"), word("verb")), always),
        (
            np.where(short, _ids("n't"), _ids("not never hardly")[stream.randint(0, 3, count)]),
            negated & (short | never),
        ),
        *judged(always),
        (np.where(negated, _ids("nor"), _ids("or")), second),
        *judged(second),
        (word("about"), more),
        (word("article"), more),
        (word("thing"), more),
        (np.full(count, VOCABULARY.index["."]), ends),
    ]
    present = np.stack([where for _, where in slots], 1)
    return np.where(present, np.stack([ids for ids, _ in slots], 1), 0), present


def _polarity(roles: np.ndarray) -> np.ndarray:
    """What each word adds to the score, ``(clauses, slots)``, by the rule of this module; a row is one clause.

    Empty slots are padding, whose role is neutral and which lie nowhere between a weight and its word.
    """
    is_ = {role: roles == ROLES.index(role) for role in ROLES}
    turned = np.where(np.cumsum(is_["negation"], 1) % 2 == 1, -1.0, 1.0)
    factor = np.where(is_["amplifier"], 2.0, np.where(is_["diminisher"], 0.5, 1.0))
    weight, running = np.empty(roles.shape), np.ones(len(roles))
    for slot in range(roles.shape[1]):
        weight[:, slot] = running
        running = np.where(factor[:, slot] != 1, running * factor[:, slot], 1.0)
    return turned * weight * (is_["positive"].astype(float) - is_["negative"])


@functools.lru_cache(maxsize=1)
def _all() -> Reviews:
    return write(sum(SIZES.values()), SEED)


def load(split: str = "train") -> Reviews:
    """Synthetic reviews: 9000, 1000 and 5000 for train, validation and test.

    ``paper-train`` is train and validation together, ``paper-test`` is test, as for IMDb; ``all`` is every review.
    """
    train, validation, test = SIZES.values()
    total = train + validation + test
    parts = {
        "train": slice(0, train),
        "validation": slice(train, train + validation),
        "test": slice(train + validation, total),
        "paper-train": slice(0, train + validation),
        "paper-test": slice(train + validation, total),
        "all": slice(0, total),
    }
    return _all().subset(parts[pick("split", split, parts)], split)

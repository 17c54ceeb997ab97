"""Words against hand-made examples, a plain loop and a counter; any text whatever goes in."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kpm.datasets import words
from kpm.datasets.words import MARKS, SPECIAL, Vocabulary, most_frequent, read, tokenize

# Letters, marks and digits that meet in awkward ways more often than in text drawn from all of Unicode.
AWKWARD = st.text(st.sampled_from("abnst'`’´´\x92 NT.,!?/1278<br >-_éÉİßς\u0307\u0301ﬁ½²"), max_size=40)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It isn't good, it's GREAT!", "it is n't good it 's great"),
        ("can't cannot won't shan't couldn't've", "can n't can not will n't shall n't could n't 've"),
        ("I dont know; he didnt, cant, wont.", "i do n't know he did n't can n't will n't"),
        ("don\u2019t don\x92t don`t don´t", "do n't do n't do n't do n't"),
        ("I'd we'll they're you've I'm John's", "i 'd we 'll they 're you 've i 'm john 's"),
        ("rock 'n' roll 'quoted words' o'brien", "rock n roll quoted words o'brien"),
        ("so bad.<br /><br />Avoid<BR>it", "so bad avoid it"),
        ("well-made 7/10, 2.5 stars, the 80s, 1/2", "well made 7/10 2.5 stars the 80s 1/2"),
        ("Amélie ÜBER ﬁlm ½", "amélie über film 1 2"),
        ("", ""),
        ("... --- !!", ""),
    ],
)
def test_examples(text, expected):
    assert tokenize(text) == expected.split()


def test_punctuation_is_one_word_for_a_run_of_the_same_mark():
    assert tokenize("Well... no!!! Why?! (yes), so", True) == [
        "well",
        ".",
        "no",
        "!",
        "why",
        "?",
        "!",
        "yes",
        ",",
        "so",
    ]
    assert set(tokenize('a"b(c)d[e]', True)) == set("abcde")


def test_negations_stay_visible():
    for verb in ["is", "was", "do", "does", "did", "could", "would", "should", "have", "has", "had", "are", "were"]:
        assert tokenize(f"it {verb}n't so") == ["it", verb, "n't", "so"]
        assert tokenize(f"it {verb}nt so") == ["it", verb, "n't", "so"]


@given(st.text(st.sampled_from("abcXYZ012 ,;:-\n\t()"), max_size=60))
def test_plain_text_is_cut_at_what_is_no_letter_or_digit(text):
    assert tokenize(text) == "".join(c.lower() if c.isalnum() else " " for c in text).split()


@given(AWKWARD | st.text(max_size=60), st.booleans())
@settings(max_examples=400)
def test_reading_its_own_words_gives_them_again(text, punctuation):
    found = tokenize(text, punctuation)
    assert tokenize(" ".join(found), punctuation) == found
    assert all(w and not any(c.isspace() for c in w) for w in found)
    assert punctuation or not set(found) & set(MARKS)


@given(st.lists(AWKWARD | st.text(max_size=30), max_size=6), AWKWARD, st.integers(3, 12), st.booleans())
@settings(max_examples=200)
def test_encoding_stays_in_range_and_comes_back(texts, other, size, punctuation):
    vocabulary = Vocabulary.of(texts, size, punctuation)
    assert len(vocabulary) <= size and vocabulary.words[:2] == SPECIAL
    for text in [*texts, other]:
        ids = vocabulary.encode(text)
        assert ids.dtype == torch.int64 and bool(((ids >= 1) & (ids < len(vocabulary))).all())
        known = [w if w in vocabulary.index else "<unk>" for w in tokenize(text, punctuation)]
        assert vocabulary.decode(ids) == known
        assert torch.equal(vocabulary.encode(vocabulary.decode(ids)), ids)


@given(st.lists(st.lists(st.sampled_from(["the", "a", "film", "bad", "good", "n't", "very"]), max_size=12), max_size=6))
def test_the_most_frequent_words_are_those_a_counter_counts(texts):
    corpus = read(" ".join(text) for text in texts)
    counts = collections.Counter(itertools.chain.from_iterable(texts))
    ranked = sorted(counts, key=lambda w: (-counts[w], w))
    vocabulary, table = most_frequent(corpus, size=6)
    assert vocabulary.words == (*SPECIAL, *ranked[:4])
    ids = np.split(table[corpus.ids], corpus.lengths.cumsum()[:-1]) if texts else []
    assert [list(i) for i in ids] == [vocabulary.encode(t).tolist() for t in texts]
    assert table.dtype == np.uint16


def test_words_are_counted_in_the_first_texts_only():
    vocabulary, table = most_frequent(read(["a b b", "c c c c b"]), learn_from=1)
    assert vocabulary.words == (*SPECIAL, "b", "a") and table.tolist() == [3, 2, words.UNKNOWN]


def test_padding_is_left_out_and_unknown_words_are_said():
    vocabulary = Vocabulary((*SPECIAL, "film", "good"))
    assert vocabulary.encode("A good film").tolist() == [1, 3, 2]
    assert vocabulary.decode(torch.tensor([1, 3, 2, 0, 0])) == ["<unk>", "good", "film"]
    assert "film" not in repr(vocabulary)


def test_fingerprint_changes_with_a_word():
    first, same, other = (Vocabulary((*SPECIAL, *w.split())) for w in ("a b", "a b", "a c"))
    assert first.fingerprint == same.fingerprint != other.fingerprint and len(first.fingerprint) == 12


def test_vocabulary_of_the_largest_size_fits_in_16_bits():
    corpus = read(" ".join(f"w{i}" for i in range(70_000)).split(" "))
    vocabulary, table = most_frequent(corpus, words.LARGEST)
    assert len(vocabulary) == 65_536 and table.max() == 65_535
    with pytest.raises(ValueError, match="size: expected 3 to 65536"):
        most_frequent(corpus, words.LARGEST + 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Vocabulary(("a", "b")), "words: expected"),
        (lambda: Vocabulary((*SPECIAL, "a", "b", "a")), "'a' is there more than once"),
        (lambda: Vocabulary.of(["a"], 2), "size: expected 3 to 65536 words, got 2"),
        (lambda: Vocabulary((*SPECIAL, "a")).decode([0, 3]), "ids: expected 0 to 2, got 3"),
        (lambda: Vocabulary((*SPECIAL, "a")).decode(torch.tensor([-1])), "ids: expected 0 to 2, got -1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

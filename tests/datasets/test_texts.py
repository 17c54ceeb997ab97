"""The face of datasets of texts: batches against padding by hand, counts against scikit-learn."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from kpm.datasets import command
from kpm.datasets.texts import Reviews, excerpt
from kpm.datasets.words import SPECIAL, Vocabulary, tokenize

TEXTS = ["good film", "it isn't a good film at all", "bad", "a bad bad bad film", "fine so far"]
LABELS = [1, 0, 0, 0, 1]


@pytest.fixture
def few() -> Reviews:
    return Reviews.from_texts(TEXTS, LABELS)


def many(count: int, seed: int = 0) -> Reviews:
    """Texts of the words w0, w1, ... of random lengths 1 to 40."""
    draw = np.random.RandomState(seed)
    texts = [" ".join(f"w{i}" for i in draw.randint(0, 30, draw.randint(1, 41))) for _ in range(count)]
    return Reviews.from_texts(texts, draw.randint(0, 2, count).tolist())


def by_hand(data: Reviews, index: list[int], longest: int | None) -> torch.Tensor:
    rows = [data[i].tolist()[:longest] for i in index]
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


def test_a_text_is_its_words(few):
    assert len(few) == 5 and few.text(1) == "it is n't a good film at all" and few.words(-1) == ["fine", "so", "far"]
    assert few.lengths.tolist() == [2, 8, 1, 5, 3] and few.labels.tolist() == LABELS
    assert torch.equal(few[3], few.vocabulary.encode(TEXTS[3]))
    with pytest.raises(IndexError, match="index 5 is out of range for 5 reviews"):
        few[5]


def test_words_of_another_vocabulary_are_unknown():
    vocabulary = Vocabulary((*SPECIAL, "film", "!"), punctuation=True)
    data = Reviews.from_texts(["Good film!", "!"], [1, 0], vocabulary)
    assert data[0].tolist() == [1, 2, 3] and data[1].tolist() == [3]
    assert data.unknown_share() == pytest.approx(1 / 4) and data.subset(slice(1, 2)).unknown_share() == 0


@given(st.lists(st.integers(0, 59), min_size=1, max_size=9), st.none() | st.integers(1, 45))
def test_a_batch_is_its_texts_padded(index, longest):
    data = many(60)
    ids, lengths, labels = data.batch(torch.tensor(index), longest)
    assert torch.equal(ids, by_hand(data, index, longest)) and ids.dtype == torch.int64
    assert lengths.tolist() == [min(len(data[i]), longest or 99) for i in index]
    assert labels.tolist() == [int(data.labels[i]) for i in index]


@given(st.integers(1, 130), st.integers(1, 40), st.booleans(), st.none() | st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_every_text_comes_once(count, size, bucketed, seed):
    data = many(count)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    found = data.batch_indices(size, bucketed, generator)
    assert sorted(torch.cat(found).tolist()) == list(range(count)) and max(map(len, found)) <= size
    assert len(found) == -(-count // size)


def test_batches_are_those_of_the_indices():
    data = many(100)
    indices = data.batch_indices(8, generator=torch.Generator().manual_seed(3), max_length=25)
    batches = list(data.batches(8, max_length=25, generator=torch.Generator().manual_seed(3)))
    assert len(batches) == len(indices) == 13
    for index, (ids, lengths, labels) in zip(indices, batches):
        assert torch.equal(ids, by_hand(data, index.tolist(), 25)) and ids.shape[1] == lengths.max() <= 25
        assert torch.equal(labels, data.labels[index])


def test_buckets_pad_little_and_differ_from_epoch_to_epoch():
    data, generator = many(4000), torch.Generator().manual_seed(0)

    def padding(**options) -> float:
        batches = list(data.batches(16, **options))
        return sum(ids.numel() for ids, _, _ in batches) / int(data.lengths.sum()) - 1

    assert padding(generator=generator) < 0.02 and padding() < 0.01
    assert padding(generator=generator, bucketed=False) > 0.5
    first, second = (data.batch_indices(16, generator=generator) for _ in range(2))
    assert {frozenset(b.tolist()) for b in first}.isdisjoint({frozenset(b.tolist()) for b in second})
    lengths = [float(data.lengths[b].float().mean()) for b in first]
    assert np.corrcoef(lengths, range(len(lengths)))[0, 1] < 0.3  # not from short to long
    again = data.batch_indices(16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat(again), torch.cat(data.batch_indices(16, generator=generator.manual_seed(0))))


def test_without_a_generator_texts_come_in_their_order_or_from_short_to_long():
    data = many(100)
    assert torch.equal(torch.cat(data.batch_indices(7, bucketed=False)), torch.arange(100))
    order = torch.cat(data.batch_indices(7))
    assert (data.lengths[order].diff() >= 0).all()


def test_longer_texts_are_cut_or_dropped():
    data = many(50)
    cut = torch.cat([lengths for _, lengths, _ in data.batches(8, max_length=10)])
    kept = torch.cat([lengths for _, lengths, _ in data.batches(8, max_length=10, longer="drop")])
    assert len(cut) == 50 and cut.max() == 10
    assert sorted(kept.tolist()) == sorted(length for length in data.lengths.tolist() if length <= 10)
    assert list(data.subset(data.lengths > 10).batches(8, max_length=10, longer="drop")) == []


def test_counts_are_those_of_scikit_learn(few):
    reference = CountVectorizer(analyzer=tokenize, vocabulary=list(few.vocabulary.words))
    assert np.array_equal(few.counts().toarray(), reference.fit_transform(TEXTS).toarray())
    some = few.subset(torch.tensor([4, 1]))
    assert np.array_equal(some.counts().toarray(), few.counts().toarray()[[4, 1]])


def test_subset_and_truth(few):
    some = few.subset(torch.tensor([3, 0]), "mine")
    assert [some.text(i) for i in range(2)] == ["a bad bad bad film", "good film"] and some.labels.tolist() == [0, 1]
    assert some.split == "mine" and few.split == "train"
    with pytest.raises(ValueError, match="role of each word is not known in 'texts'"):
        few.truth(torch.tensor([0]))


def test_description_and_excerpt(few):
    plain = few.describe()
    assert plain["sequences"] == 5 and plain["classes"] == {"negative": 3, "positive": 2} and plain["words"] == 19
    assert plain["median_length"] == 3 and plain["longest"] == 8 and plain["unknown_share"] == 0
    text = excerpt(few, 2)
    assert "5 reviews, 3 negative, 2 positive" in text and "1: negative, 8 words\n  it is n't a good" in text
    assert max(map(len, excerpt(many(3), width=40).splitlines()[2:])) <= 40


def test_show_prints_reviews_and_writes_them_if_asked(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("KPM_HOME", str(tmp_path / "home"))
    assert tyro.cli(command.data_show, args=["imdb", "--split", "test", "--source", "synthetic"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("reviews_synthetic (synthetic), split test: 5000 reviews, 2420 negative, 2580 positive\n")
    assert len(re.findall(r"^\d: (?:positive|negative), score -?[\d.]+, \d+ words$", shown, re.MULTILINE)) == 6
    assert tyro.cli(command.data_show, args=["reviews_synthetic", "--split", "test", "--out", f"{tmp_path}/a.txt"]) == 0
    assert (tmp_path / "a.txt").read_text() == capsys.readouterr().out == shown
    assert not (tmp_path / "home").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_on_a_gpu_are_the_same():
    data = many(100)
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    for here, there in zip(data.batches(8, generator=draws[0]), data.to("cuda").batches(8, generator=draws[1])):
        assert all(b.is_cuda and torch.equal(a, b.cpu()) for a, b in zip(here, there))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: Reviews.from_texts(["a"], [0, 1]), r"labels: expected one per text, \(1,\), got shape \(2,\)"),
        (lambda d: Reviews.from_texts([], []), "labels: expected one per text"),
        (lambda d: Reviews.from_texts(["a"], [2]), "labels: expected 0 to 1"),
        (lambda d: Reviews.from_texts(["a", "?!"], [0, 1]), r"texts\[1\]: there is no word in '\?!'"),
        (lambda d: d.batch(torch.tensor([], dtype=torch.int64)), "index: expected at least one"),
        (lambda d: d.batch(torch.tensor([0]), 0), "max_length: expected 1 or more, got 0"),
        (lambda d: d.batch_indices(0), "size: expected 1 or more, got 0"),
        (lambda d: d.batch_indices(4, longer="keep"), "longer: expected 'cut' or 'drop', got 'keep'"),
    ],
)
def test_bad_input_is_named(few, call, message):
    with pytest.raises(ValueError, match=message):
        call(few)

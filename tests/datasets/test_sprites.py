"""Sprites: pixels against a plain loop over the sheets, splits against the published loader's steps."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kpm import datasets
from kpm.datasets import sprites
from kpm.errors import UserError

STATIC = ("skin", "pants", "top", "hair")
FIRST_CELL = {
    "walk": {"front": 131, "left": 118, "right": 144},
    "spellcard": {"front": 26, "left": 13, "right": 39},
    "slash": {"front": 182, "left": 169, "right": 195},
}


def cell_of_frame(action: str, frame: int) -> int:
    """Which cell of an action's strip becomes a frame, as the data's description words it."""
    if action == "walk":
        return 7 if frame == 0 else frame - 1
    if action == "spellcard":
        return {6: 4, 7: 6}.get(frame, frame)
    return {6: 4, 7: 0}.get(frame, frame)


def by_hand(folder: Path, skin: int, pants: int, top: int, hair: int, action: int) -> np.ndarray:
    """Eight frames ``(8, 3, 64, 64)`` cut out of whole sheets laid over one another."""
    files = (f"body/{skin}", f"bottomwear/{pants}", f"topwear/{top}", f"hair/{hair}", "shoes/1")
    canvas = Image.new("RGBA", (832, 1344), (0, 0, 0, 255))
    for file in files:
        with Image.open(folder / f"{file}.png") as sheet:
            canvas.alpha_composite(sheet.convert("RGBA"))
    kind = ("walk", "spellcard", "slash")[action // 3]
    first = FIRST_CELL[kind][("front", "left", "right")[action % 3]]
    frames = []
    for k in range(8):
        row, column = divmod(first + cell_of_frame(kind, k), 13)
        tile = canvas.crop((64 * column, 64 * row, 64 * column + 64, 64 * row + 64))
        frames.append(np.asarray(tile.convert("RGB")).transpose(2, 0, 1))
    return np.stack(frames)


@pytest.mark.real
def test_a_batch_equals_a_loop_over_sheets(real_sprites):
    dataset = datasets.load("sprites", "paper-train", source="real")
    index = torch.cat([(dataset.factors["action"] == a).nonzero()[:4, 0] for a in range(8)])
    batch, labels = dataset[index], dataset.labels(index)
    assert batch.shape == (32, 8, 3, 64, 64)
    looks = torch.stack([labels[name] for name in (*STATIC, "action")], 1).tolist()
    assert np.array_equal(batch.numpy(), np.stack([by_hand(real_sprites, *look) for look in looks]))


@pytest.mark.real
def test_every_variant_and_action_equals_a_loop_over_sheets(real_sprites):
    dataset = datasets.load("sprites", "all", source="real")
    looks = [(i % 6, (i + 1 + i // 6) % 6, (5 - i) % 6, (i + 3) % 6, i % 9) for i in range(18)]
    labels = {name: torch.tensor(column) for name, column in zip((*STATIC, "action"), zip(*looks))}
    expected = np.stack([by_hand(real_sprites, *look) for look in looks])
    assert np.array_equal(dataset.compose(labels).numpy(), expected)


@pytest.mark.real
def test_face_of_the_real_dataset(real_sprites):
    dataset = datasets.load("sprites", "test", source="auto")
    assert (dataset.name, dataset.source, len(dataset)) == ("sprites", "real", 2664)
    one = dataset.to_float(dataset[-1])
    assert one.shape == (8, 3, 64, 64) and one.dtype == torch.float32
    assert torch.equal(one, dataset[torch.tensor([2663])][0] / 256)
    described = dataset.describe()
    assert described["sequences"] == 2664 and described["static"] == dict.fromkeys(STATIC, 6)
    with pytest.raises(IndexError, match="2664"):
        dataset[2664]
    few = dataset.subset(torch.tensor([5, 3]))
    assert torch.equal(few[1], dataset[3])


# Splits, the same for sprites and puppets


def published_order() -> tuple[list, list]:
    """(character, action) of the published training and test arrays, step by step as its loader goes."""
    stream = np.random.RandomState(423)
    characters = list(stream.permutation(1296))
    train, test = [], []
    for action in range(9):
        train += [(int(c), action) for c in characters[:1000]]
        test += [(int(c), action) for c in characters[1000:]]
    stream = np.random.RandomState(0)
    train = [train[i] for i in stream.permutation(9000)]
    test = [test[i] for i in stream.permutation(2664)]
    return train, test


def as_pairs(split: str) -> list[tuple[int, int]]:
    factors = sprites.split_factors(split)
    digits = [factors[name].tolist() for name in (*STATIC, "action")]
    return [(((s * 6 + p) * 6 + t) * 6 + h, a) for s, p, t, h, a in zip(*digits)]


def test_papers_split_is_the_published_one_in_its_order():
    train, test = published_order()
    assert len(train) == 9000 and len(test) == 2664
    assert as_pairs("paper-train") == train
    assert as_pairs("paper-test") == test


def test_first_characters_are_the_known_ones():
    assert sprites.split_characters("paper-train")[:10].tolist() == [1116, 1135, 17, 469, 1293, 491, 869, 961, 91, 793]


def test_papers_split_shares_no_character_and_is_all_there_is():
    train, test = ({c for c, _ in as_pairs(split)} for split in ("paper-train", "paper-test"))
    assert not train & test and len(train) == 1000 and train | test == set(range(1296))
    assert sorted(as_pairs("all")) == [(c, a) for c in range(1296) for a in range(9)]


@pytest.mark.parametrize("split, low, high", [("paper-train", 159, 173), ("paper-test", 43, 57)])
def test_characters_of_each_class(split, low, high):
    factors = sprites.split_factors(split)
    counts = []
    for name in STATIC:
        count = collections.Counter(factors[name].tolist())
        assert sorted(count) == list(range(6)) and all(n % 9 == 0 for n in count.values())
        counts += [n // 9 for n in count.values()]
    assert (min(counts), max(counts)) == (low, high)
    assert len(set(collections.Counter(factors["action"].tolist()).values())) == 1


def test_honest_split():
    parts = {split: as_pairs(split) for split in ("train", "validation", "test")}
    assert {split: len(pairs) for split, pairs in parts.items()} == {"train": 8100, "validation": 900, "test": 2664}
    characters = {split: {c for c, _ in pairs} for split, pairs in parts.items()}
    assert not characters["train"] & characters["validation"]
    assert set(parts["test"]) == set(as_pairs("paper-test"))
    assert set(parts["train"]) | set(parts["validation"]) == set(as_pairs("paper-train"))


def test_unknown_split():
    with pytest.raises(UserError, match="unknown split 'paper-tests'; did you mean 'paper-test'"):
        datasets.load("puppets", "paper-tests")
    with pytest.raises(UserError, match="unknown split"):
        datasets.load("sprites", "tset", source="synthetic")

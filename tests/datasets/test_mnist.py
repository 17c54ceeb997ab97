"""MNIST: files of the published layout, its splits, the drawn stand-in, and the real digits."""

from __future__ import annotations

import dataclasses
import gzip
import logging
import struct

import numpy as np
import pytest
import torch

from kpm import datasets
from kpm.datasets import drawn_digits, registry
from kpm.datasets.catalogue import ENTRIES
from kpm.datasets.images import Images
from kpm.datasets.show_images import plot_images
from kpm.errors import UserError
from tests.datasets.toys import pin


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture
def toy_mnist(register, base, tmp_path, monkeypatch):
    """Puts four small files into a mirror in the place of the published ones, the images of training as given."""

    def put(images: bytes) -> None:
        stream = np.random.RandomState(0)
        labels, test = np.arange(40) % 10, stream.randint(0, 256, (4, 28, 28), np.uint8)
        contents = (images, idx(labels.astype(np.uint8)), idx(test), idx(np.array([7, 2, 1, 0], np.uint8)))
        files = []
        (tmp_path / "mirror" / "mnist").mkdir(parents=True)
        for file, content in zip(ENTRIES["mnist"].files, contents):
            content = content if content[:2] == b"\x1f\x8b" else gzip.compress(content)
            (tmp_path / "mirror" / "mnist" / file.path).write_bytes(content)
            files.append(dataclasses.replace(file, size=len(content), hashes=(pin(content),)))
        register(dataclasses.replace(ENTRIES["mnist"], files=tuple(files)))
        monkeypatch.setenv("KPM_MIRROR", str(tmp_path / "mirror"))
        datasets._fetched.cache_clear()

    return put


PIXELS = np.random.RandomState(1).randint(0, 256, (40, 28, 28), np.uint8)


def test_files_of_the_published_layout(toy_mnist):
    toy_mnist(idx(PIXELS))
    everything = datasets.load("mnist", "paper-train", source="real")
    assert np.array_equal(everything.values[:, 0].numpy(), PIXELS) and everything.labels.tolist() == list(range(10)) * 4
    parts = {s: datasets.load("mnist", s) for s in ("train", "validation", "test")}
    assert {s: len(p) for s, p in parts.items()} == {"train": 36, "validation": 4, "test": 4}
    both = torch.cat([parts["train"].values, parts["validation"].values]).flatten(1)
    assert torch.equal(torch.unique(both, dim=0), torch.unique(everything.values.flatten(1), dim=0))
    assert parts["test"].labels.tolist() == [7, 2, 1, 0] and (parts["test"].name, parts["test"].source) == (
        "mnist",
        "real",
    )
    with pytest.raises(UserError, match="unknown split 'tset'; did you mean 'test'"):
        datasets.load("mnist", "tset")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(PIXELS)[:-1], r"expected \(40, 28, 28\) bytes after the header, found 31359"),
        (idx(PIXELS)[4:], "expected an IDX file of bytes with 3 axes"),
        (idx(PIXELS[:, :27]), "expected 28 x 28 pixels and a class 0 to 9 for each image"),
        (idx(PIXELS[:39]), "a class 0 to 9 for each image"),
        (gzip.compress(idx(PIXELS))[:3000], "cannot be read as gz"),
    ],
)
def test_another_layout_is_one_clear_error(toy_mnist, content, message):
    toy_mnist(content)
    with pytest.raises(UserError, match=message) as caught:
        datasets.load("mnist")
    assert "train-images-idx3-ubyte.gz" in str(caught.value) and "\n" not in str(caught.value)


def test_stand_in_comes_under_its_own_name(base, caplog):
    datasets._fetched.cache_clear()
    with caplog.at_level(logging.WARNING, "kpm"):
        data = datasets.load("mnist", "validation")
    assert (data.name, data.source, len(data)) == ("drawn_digits", "synthetic", 800) and "'mnist'" in caplog.text
    with pytest.raises(registry.Unavailable):
        datasets.load("mnist", source="real")


def test_drawn_digits_are_the_same_every_time_and_a_nearest_mean_tells_most_of_them():
    labels = np.arange(200) % 10
    once, again = drawn_digits.draw(labels, 3), drawn_digits.draw(labels, 3)
    assert np.array_equal(once, again) and not np.array_equal(once, drawn_digits.draw(labels, 4))
    assert once.shape == (200, 28, 28) and once.dtype == np.uint8 and once.max() == 255 and once.min() == 0
    train, test = (drawn_digits.draw(np.arange(n) % 10, s).reshape(n, -1) / 255 for n, s in ((300, 5), (200, 6)))
    means = np.stack([train[d::10].mean(0) for d in range(10)])
    guess = ((test[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (guess == labels).mean() > 0.7
    with pytest.raises(ValueError, match="labels: expected whole numbers from 0 to 9"):
        drawn_digits.draw(np.array([10]), 0)


def test_face():
    data = Images(torch.arange(48, dtype=torch.uint8).view(3, 1, 4, 4), torch.tensor([1, 0, 1]), "mine")
    assert data.shape == (1, 4, 4) and len(data) == 3 and torch.equal(data[1], data.values[1])
    assert data.to_float().max() == torch.tensor(47 / 255) and torch.equal(data.subset(slice(1)).values, data[:1])
    seen = torch.cat([x for x, _ in data.batches(2, torch.Generator().manual_seed(0))])
    assert torch.equal(seen.flatten(1).sort(0).values, data.values.flatten(1)) and data.describe()["classes"]["1"] == 2
    with pytest.raises(IndexError, match="index 3 is out of range for 3 images"):
        data[3]
    with pytest.raises(ValueError, match=r"values: expected uint8 \(n, channels, height, width\), got torch.float32"):
        Images(data.values.float(), data.labels, "mine")
    with pytest.raises(ValueError, match=r"labels: expected int64 \(3,\)"):
        Images(data.values, data.labels[:2], "mine")
    with pytest.raises(ValueError, match="labels: expected 0 to 9"):
        Images(data.values, data.labels + 9, "mine")


def test_picture_has_a_row_per_class():
    figure = plot_images(datasets.load("drawn_digits", "test"))
    assert [axes.get_ylabel() for axes in figure.axes] == list("0123456789")
    assert "drawn_digits (synthetic)" in figure.get_suptitle()


@pytest.mark.real
def test_published_digits(mirror, base, monkeypatch):
    if not (mirror / "mnist").is_dir():
        pytest.skip(f"the mirror {mirror} has no mnist")
    monkeypatch.setenv("KPM_MIRROR", str(mirror))
    datasets._fetched.cache_clear()
    train, test = datasets.load("mnist", "paper-train"), datasets.load("mnist", "paper-test")
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(train.labels).tolist() == counts and len(test) == 10000 and test.source == "real"
    mean, std = train.to_float().mean(), train.to_float().std()
    assert abs(mean - 0.1307) < 1e-4 and abs(std - 0.3081) < 1e-4

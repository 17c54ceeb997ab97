"""ECG5000: the published split against pandas and scikit-learn, files of the published layout, and the real beats."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import train_test_split

from kpm import datasets
from kpm.datasets import ecg5000, registry
from kpm.datasets.catalogue import ENTRIES
from kpm.errors import UserError
from tests.datasets.toys import pin

COUNTS = (2919, 1767, 96, 194, 24)


def line(label: int, seed: int, samples: int = 140) -> str:
    beat = np.random.RandomState(seed).standard_normal(samples)
    return "  ".join(f"{x: .7e}" for x in (label, *beat)) + "\n"


@pytest.fixture
def toy_ecg(register, base, tmp_path, monkeypatch):
    """Puts two text files, as gz, into a mirror in the place of the published ones."""

    def put(train: str, test: str) -> Path:
        entry, files, archives = ENTRIES["ecg5000"], [], []
        for file, archive, text in zip(entry.files, entry.archives, (train, test)):
            target = tmp_path / "mirror" / archive.mirror
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(gzip.compress(text.encode()))
            files.append(dataclasses.replace(file, size=len(text), hashes=(pin(text.encode()),)))
            archives.append(dataclasses.replace(archive, hashes=(pin(target.read_bytes()),)))
        register(dataclasses.replace(entry, files=tuple(files), archives=tuple(archives)))
        monkeypatch.setenv("KPM_MIRROR", str(tmp_path / "mirror"))
        datasets._fetched.cache_clear()
        return tmp_path / "mirror" / "ecg5000"

    return put


def published_split(labels: np.ndarray) -> dict[str, np.ndarray]:
    """What the published code does, with the libraries it does it with."""
    table = pd.DataFrame({"row": np.arange(len(labels)), "label": labels}).sample(frac=1.0, random_state=1234)
    normal = table[table.label == 0]
    train, held_out = train_test_split(normal, test_size=0.15, random_state=1234)
    validation, test = train_test_split(held_out, test_size=0.33, random_state=1234)
    parts = {"train": train, "validation": validation, "test": test, "anomalies": table[table.label != 0]}
    return {f"paper-{name}": part.row.to_numpy() for name, part in parts.items()}


def test_papers_split_is_the_published_one_in_its_order():
    labels = np.random.RandomState(0).permutation(np.repeat(np.arange(5), COUNTS))
    expected = published_split(labels)
    assert {s: len(rows) for s, rows in expected.items()} == {
        "paper-train": 2481, "paper-validation": 293, "paper-test": 145, "paper-anomalies": 2081,
    }  # fmt: skip
    for split, rows in expected.items():
        assert np.array_equal(ecg5000.split_rows(labels, split), rows)


def test_honest_split_divides_the_anomalies_of_each_class():
    labels = np.repeat(np.arange(5), COUNTS)
    parts = {s: ecg5000.split_rows(labels, s) for s in ecg5000.SPLITS}
    assert np.array_equal(parts["train"], parts["paper-train"])
    for split in ("validation", "test"):
        rows = parts[split]
        assert np.array_equal(rows[labels[rows] == 0], parts[f"paper-{split}"])
    both = [np.bincount(labels[parts[s]], minlength=5) for s in ("validation", "test")]
    assert (np.abs(both[0] - both[1])[1:] <= 1).all() and (both[0] + both[1])[1:].tolist() == list(COUNTS[1:])
    everything = np.concatenate([parts[s] for s in ("train", "validation", "test")])
    assert np.array_equal(np.sort(everything), np.arange(5000)) and np.array_equal(parts["all"], np.arange(5000))


def test_files_of_the_published_layout(toy_ecg):
    toy_ecg("".join(line(1, i) for i in range(8)), line(3, 8) + line(1, 9))
    data = datasets.load("ecg5000", "all", source="real")
    assert data.values.shape == (10, 140, 1) and data.values.dtype == torch.float32
    assert data.labels.tolist() == [0] * 8 + [2, 0] and (data.name, data.source) == ("ecg5000", "real")
    np.testing.assert_allclose(data[8][:, 0], np.random.RandomState(8).standard_normal(140), rtol=0, atol=1e-6)
    assert len(datasets.load("ecg5000", "paper-train")) == 7  # of nine normal beats 15 %, rounded up, are held out
    with pytest.raises(UserError, match="unknown split 'paper-tests'; did you mean 'paper-test'"):
        datasets.load("ecg5000", "paper-tests")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line(1, 0, 139), r"expected rows of a class and 140 samples, found shape \(1, 140\)"),
        (line(1, 0)[:500] + "\n" + line(1, 1), "cannot be read as a table of numbers"),
        (line(6, 0), "expected finite samples and classes 1 to 5"),
        (line(1, 0).replace("1.0000000e+00", "1.5000000e+00", 1), "classes 1 to 5"),
        (line(1, 0).rpartition("  ")[0] + "  nan\n", "expected finite samples"),
        ("no numbers here\n", "cannot be read as a table of numbers"),
    ],
)
def test_another_layout_is_one_clear_error(toy_ecg, text, message):
    toy_ecg(line(1, 0), text)
    with pytest.raises(UserError, match=message) as caught:
        datasets.load("ecg5000")
    assert "ECG5000_TEST.txt" in str(caught.value) and "\n" not in str(caught.value)


def test_other_or_truncated_files_than_the_published_ones_are_refused(toy_ecg, register):
    folder = toy_ecg(line(1, 0), line(2, 1))
    whole = (folder / "ECG5000_TEST.txt.gz").read_bytes()
    (folder / "ECG5000_TEST.txt.gz").write_bytes(gzip.compress(line(2, 2).encode()))
    with pytest.raises(UserError, match=r"corrupt file .*ECG5000_TEST\.txt\.gz: expected sha256:.*, found sha256:"):
        datasets.load("ecg5000")
    half = whole[: len(whole) // 2]
    (folder / "ECG5000_TEST.txt.gz").write_bytes(half)
    entry = registry.ENTRIES["ecg5000"]
    archives = tuple(dataclasses.replace(a, hashes=()) for a in entry.archives)
    register(dataclasses.replace(entry, archives=archives))
    with pytest.raises(UserError, match=r"ECG5000_TEST\.txt\.gz cannot be read as an archive .*truncated"):
        datasets.load("ecg5000")


# The published beats


@pytest.fixture
def real_ecg(mirror, base, monkeypatch) -> None:
    if not (mirror / "ecg5000").is_dir():
        pytest.skip(f"the mirror {mirror} has no ecg5000")
    monkeypatch.setenv("KPM_MIRROR", str(mirror))
    datasets._fetched.cache_clear()


@pytest.mark.real
def test_published_beats(real_ecg, mirror):
    data = datasets.load("ecg5000", "all")
    assert (data.name, data.source) == ("ecg5000", "real") and data.values.shape == (5000, 140, 1)
    assert torch.bincount(data.labels).tolist() == list(COUNTS)
    beats = data.values[..., 0].double()
    assert beats.mean(1).abs().max() < 1e-5 and (beats.std(1) - 1).abs().max() < 1e-5
    published = []
    for name in ("TRAIN", "TEST"):
        with gzip.open(mirror / "ecg5000" / f"ECG5000_{name}.txt.gz", "rt") as file:
            published += [[float(x) for x in row.split()] for row in file]
    assert np.array_equal(data.labels.numpy() + 1, [row[0] for row in published])
    assert np.array_equal(data.values[..., 0].numpy(), np.array([row[1:] for row in published], np.float32))


@pytest.mark.real
def test_published_beats_are_split_as_published(real_ecg):
    everything = datasets.load("ecg5000", "all")
    expected = published_split(everything.labels.numpy())
    for split, rows in expected.items():
        rows = torch.tensor(rows)
        data = datasets.load("ecg5000", split)
        assert torch.equal(data.values, everything[rows]) and torch.equal(data.labels, everything.labels[rows])
    sizes = {s: len(datasets.load("ecg5000", s)) for s in ("train", "validation", "test")}
    assert sizes == {"train": 2481, "validation": 1334, "test": 1185}

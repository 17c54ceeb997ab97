"""IMDb: small archives of the published layout go in, and on a machine that has them the published reviews."""

from __future__ import annotations

import dataclasses
import gzip
import io
import itertools
import logging
import multiprocessing
import os
import re
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from kpm import datasets
from kpm.datasets import imdb, registry
from kpm.datasets.catalogue import ENTRIES, Entry
from kpm.datasets.words import tokenize
from kpm.errors import UserError
from tests.datasets.toys import pin

# (folder, number, stars): text. Numbers are not in the order of the archive, and 10 comes after 9.
TOY = {
    ("train/pos", 10, 9): "A truly good film.<br /><br />It isn't dull!",
    ("train/pos", 9, 7): "good good film",
    ("train/neg", 0, 1): "Dull, dull, DULL é film",
    ("train/neg", 2, 4): "not good",
    ("test/neg", 5, 3): "a dull surprise",
    ("test/pos", 1, 10): "a good surprise",
    ("test/pos", 0, 8): "film",
}
# What else the published archive holds.
OTHERS = {"README": "good", "imdb.vocab": "good", "train/unsup/0_0.txt": "bad", "train/labeledBow.feat": "1 2:3"}


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def make(path: Path, reviews: dict = TOY, others: dict = OTHERS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, text in others.items():
            add(tar, f"aclImdb/{name}", text.encode())
        for (folder, number, stars), text in reviews.items():
            add(tar, f"aclImdb/{folder}/{number}_{stars}.txt", text if isinstance(text, bytes) else text.encode())
    return path


def entry(content: bytes) -> Entry:
    (file,) = ENTRIES["imdb"].files
    file = dataclasses.replace(file, size=len(content), hashes=(pin(content),), urls=())
    return dataclasses.replace(ENTRIES["imdb"], files=(file,))


@pytest.fixture
def toy_imdb(register, base, tmp_path, monkeypatch) -> Path:
    """A mirror that holds the toy archive, in the place of the published one."""
    archive = make(tmp_path / "mirror" / "imdb" / "aclImdb_v1_no_unsup.tar.gz")
    register(entry(archive.read_bytes()))
    monkeypatch.setenv("KPM_MIRROR", str(tmp_path / "mirror"))
    datasets._fetched.cache_clear()
    imdb._store.cache_clear()
    return base / "imdb"


def test_reviews_come_in_the_order_of_their_numbers(toy_imdb):
    data = datasets.load("imdb", "all", source="real")
    texts = [data.text(i) for i in range(len(data))]
    by_hand = sorted(TOY, key=lambda key: (("train/neg", "train/pos", "test/neg", "test/pos").index(key[0]), key[1]))
    assert (data.name, data.source, len(data)) == ("imdb", "real", 7)
    assert texts[2:4] == ["good good film", "a truly good film it is n't dull"] and texts[4] == "a dull <unk>"
    assert texts == [" ".join(w if w != "surprise" else "<unk>" for w in tokenize(TOY[key])) for key in by_hand]
    assert data.labels.tolist() == [int("pos" in key[0]) for key in by_hand]
    assert data.scores.tolist() == [key[2] for key in by_hand]


def test_vocabulary_is_that_of_the_training_reviews(toy_imdb):
    words = datasets.load("imdb", "test").vocabulary.words
    assert words[:5] == ("<pad>", "<unk>", "dull", "good", "film") and "surprise" not in words and "é" in words
    small = imdb.load("test", vocabulary_size=4)
    assert small.vocabulary.words == words[:4] and [small.text(i) for i in range(3)].count("<unk> good <unk>") == 1


def test_splits(toy_imdb):
    parts = {split: datasets.load("imdb", split) for split in imdb.SPLITS}
    texts = {split: {d.text(i) for i in range(len(d))} for split, d in parts.items()}
    assert [len(parts[s]) for s in imdb.SPLITS] == [4, 0, 3, 4, 3, 7]
    assert texts["train"] | texts["validation"] == texts["paper-train"] and texts["test"] == texts["paper-test"]
    with pytest.raises(UserError, match="unknown split 'tset'; did you mean 'test'"):
        datasets.load("imdb", "tset")


def test_published_sizes_are_split_without_overlap():
    sizes = (12500,) * 4
    parts = {split: imdb.split_rows(sizes, split) for split in imdb.SPLITS}
    assert [len(parts[s]) for s in imdb.SPLITS] == [22500, 2500, 25000, 25000, 25000, 50000]
    held_out = set(parts["validation"])
    assert held_out.isdisjoint(parts["train"]) and held_out.union(parts["train"]) == set(range(25000))
    assert set(parts["test"]) == set(range(25000, 50000)) and set(parts["paper-train"]) == set(range(25000))
    assert abs(np.mean(parts["validation"] >= 12500) - 0.5) < 0.04  # shuffled, not sorted by label
    assert np.array_equal(parts["validation"], imdb.split_rows(sizes, "validation"))


def test_punctuation_has_a_cache_of_its_own(toy_imdb):
    plain, marks = imdb.load("all"), imdb.load("all", punctuation=True)
    assert marks.text(3) == "a truly good film . it is n't dull !" and plain.text(3).count("!") == 0
    assert sorted(p.name for p in toy_imdb.glob("*.npz")) == ["words-10000-marks.npz", "words-10000.npz"]


# The cache


def same(a: imdb.Store, b: imdb.Store) -> bool:
    tensors = all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("tokens", "lengths", "stars"))
    return tensors and (a.vocabulary, a.sizes) == (b.vocabulary, b.sizes)


def test_archive_is_read_once(toy_imdb, monkeypatch):
    first = datasets.load("imdb", "all")
    imdb._store.cache_clear()
    monkeypatch.setattr(imdb, "parse", lambda *_: pytest.fail("the archive was read again"))
    again = datasets.load("imdb", "all")
    assert torch.equal(first.tokens, again.tokens) and first.vocabulary == again.vocabulary
    with np.load(toy_imdb / "words-10000.npz", allow_pickle=False) as kept:
        assert kept["tokens"].dtype == np.uint16 and all(kept[k].dtype != object for k in kept)


def test_cache_comes_back_as_it_was(tmp_path):
    store = imdb.parse(make(tmp_path / "a.tar.gz"))
    imdb.save(store, tmp_path / "kept.npz", (1, 2, 3))
    assert same(imdb.restore(tmp_path / "kept.npz", (1, 2, 3)), store)
    assert imdb.restore(tmp_path / "kept.npz", (1, 2, 4)) is None
    assert imdb.restore(tmp_path / "absent.npz", (1, 2, 3)) is None


def test_damaged_cache_is_made_anew(toy_imdb, caplog):
    first = datasets.load("imdb", "all")
    kept = toy_imdb / "words-10000.npz"
    whole = kept.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"tokens.npy") + 200] ^= 0xFF
    for content in (whole[: len(whole) // 2], b"", b"no npz", bytes(flipped)):
        kept.write_bytes(content)
        imdb._store.cache_clear()
        with caplog.at_level(logging.WARNING, "kpm"):
            assert torch.equal(datasets.load("imdb", "all").tokens, first.tokens)
        assert "is damaged" in caplog.text and kept.read_bytes() != content
        caplog.clear()


def test_a_new_archive_is_read_though_there_is_a_cache(toy_imdb, register, monkeypatch):
    datasets.load("imdb")
    other = make(toy_imdb / imdb.FILE, {**TOY, ("test/pos", 3, 7): "one more"})
    register(entry(other.read_bytes()))
    assert len(datasets.load("imdb", "all")) == 8


def test_what_cannot_be_kept_is_read_all_the_same(toy_imdb, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with caplog.at_level(logging.WARNING, "kpm"):
        assert len(datasets.load("imdb", "all")) == 7
    assert "No space left" in caplog.text and not list(toy_imdb.glob("*.npz*"))


def _stops_half_way(archive: Path, path: Path) -> None:
    store = imdb.parse(archive)
    with_half = np.savez

    def half(out, **arrays):
        with_half(out, mark=arrays["mark"], tokens=arrays["tokens"])
        out.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    np.savez = half
    imdb.save(store, path, (1,))


def test_a_killed_process_leaves_nothing_that_looks_like_a_cache(tmp_path):
    archive, path = make(tmp_path / "a.tar.gz"), tmp_path / "words.npz"
    child = multiprocessing.get_context("fork").Process(target=_stops_half_way, args=(archive, path))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL and not path.exists()
    imdb.save(imdb.parse(archive), path, (1,))
    assert same(imdb.restore(path, (1,)), imdb.parse(archive))


# What is not as it should be


def test_another_archive_than_the_published_one_is_refused(toy_imdb, tmp_path):
    source = tmp_path / "mirror" / "imdb" / "aclImdb_v1_no_unsup.tar.gz"
    make(source, {**TOY, ("train/pos", 10, 9): "phone app"})
    with pytest.raises(UserError, match=r"corrupt file .*aclImdb_v1_no_unsup\.tar\.gz: expected sha256:.*found") as e:
        datasets.load("imdb")
    assert "\n" not in str(e.value) and not (toy_imdb / imdb.FILE).exists()


def test_an_archive_cut_off_anywhere_is_one_clear_error(tmp_path):
    whole = make(tmp_path / "whole.tar.gz").read_bytes()
    cut = tmp_path / "cut.tar.gz"
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        cut.write_bytes(whole[:length])
        with pytest.raises(
            UserError, match=r"cut\.tar\.gz cannot be read as an archive .*damaged or truncated"
        ) as caught:
            imdb.parse(cut)
        assert "\n" not in str(caught.value)


def test_a_tar_cut_off_inside_a_whole_gz_is_an_error(tmp_path):
    inner = gzip.decompress(make(tmp_path / "whole.tar.gz").read_bytes())
    for blocks in (5, 8, 12):
        (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(inner[: 512 * blocks + 100]))
        with pytest.raises(UserError, match=r"cut\.tar\.gz"):
            imdb.parse(tmp_path / "cut.tar.gz")


@pytest.mark.parametrize(
    ("reviews", "message"),
    [
        ({k: v for k, v in TOY.items() if k[0] != "test/neg"}, "no reviews aclImdb/test/neg/NUMBER_STARS.txt"),
        ({}, "no reviews aclImdb/train/neg"),
        ({**TOY, ("test/pos", 1, 9): "twice"}, r"'aclImdb/test/pos/1_9\.txt' is there twice"),
        ({**TOY, ("test/pos", 2, 11): "stars"}, "or its stars are not 1 to 10"),
        ({**TOY, ("test/pos", 2, 9): b"\xff\xfe"}, "a review is not UTF-8"),
        ({**TOY, ("test/pos", 2, 9): "?!"}, "review 2 of aclImdb/test/pos has no word"),
    ],
)
def test_another_layout_is_one_clear_error(tmp_path, reviews, message):
    with pytest.raises(UserError, match=message) as caught:
        imdb.parse(make(tmp_path / "a.tar.gz", reviews))
    assert "a.tar.gz" in str(caught.value) and "\n" not in str(caught.value)


def test_unsafe_archives_are_refused(tmp_path):
    for name, kind in (("../evil", tarfile.REGTYPE), ("/evil", tarfile.REGTYPE), ("aclImdb/link", tarfile.SYMTYPE)):
        path = make(tmp_path / "a.tar.gz")
        inner = tarfile.TarInfo(name)
        inner.type, inner.linkname = kind, "/etc/passwd"
        (tmp_path / "a.tar").write_bytes(gzip.decompress(path.read_bytes()))
        with tarfile.open(tmp_path / "a.tar", "a") as tar:
            tar.addfile(inner)
        with pytest.raises(UserError, match="is unsafe"):
            imdb.parse(tmp_path / "a.tar")
    big = {**TOY, ("test/pos", 7, 9): "a " * (9 << 20)}
    with pytest.raises(UserError, match=r"member 'aclImdb/test/pos/7_9\.txt' is longer than"):
        imdb.parse(make(tmp_path / "big.tar.gz", big))


def test_wrong_vocabulary_size_is_named_before_anything_is_read(toy_imdb, monkeypatch):
    monkeypatch.setattr(imdb, "parse", lambda *_: pytest.fail("read"))
    with pytest.raises(ValueError, match="size: expected 3 to 65536 words, got 2"):
        imdb.load(vocabulary_size=2)


def test_without_the_archive_the_stand_in_comes_under_its_own_name(base, caplog):
    datasets._fetched.cache_clear()
    with caplog.at_level(logging.WARNING, "kpm"):
        data = datasets.load("imdb", "validation")
    assert (data.name, data.source, len(data)) == ("reviews_synthetic", "synthetic", 1000)
    assert "taking the synthetic stand-in 'reviews_synthetic'" in caplog.text
    with pytest.raises(registry.Unavailable, match="source='synthetic'"):
        datasets.load("imdb", source="real")


# The published reviews


@pytest.fixture(scope="module")
def published(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache with the published archive and its words, made once."""
    if not (mirror / "imdb").is_dir():
        pytest.skip(f"the mirror {mirror} has no imdb")
    folder = tmp_path_factory.mktemp("imdb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KPM_MIRROR", str(mirror))
        patch.setenv("KPM_CACHE", str(folder))
        patch.setenv("KPM_OFFLINE", "1")
        imdb.load("all", folder)
    imdb._store.cache_clear()
    return folder


@pytest.mark.real
@pytest.mark.slow
def test_published_reviews(published):
    start = time.perf_counter()
    data = imdb.load("all", published)
    assert time.perf_counter() - start < 1  # from the cache
    assert len(data) == 50000 and torch.bincount(data.labels).tolist() == [25000, 25000]
    stars = data.scores[data.labels == 1], data.scores[data.labels == 0]
    assert stars[0].min() == 7 and stars[1].max() == 4 and data.lengths.min() >= 1
    assert len(data.vocabulary) == 10_000 and data.tokens.min() >= 0 and data.tokens.max() == 9999
    assert 0.9 < 1 - imdb.load("test", published).unknown_share() < 0.97


@pytest.mark.real
@pytest.mark.slow
def test_published_reviews_are_those_read_member_by_member(published):
    """A sample, found by its name in the archive, in words of this test's own."""
    data = imdb.load("all", published)
    wanted = {f"aclImdb/{f}/{n}_": i * 12500 + n for i, f in enumerate(imdb.FOLDERS) for n in (0, 99, 100, 12499)}
    found = 0
    with tarfile.open(published / "imdb" / imdb.FILE) as tar:
        for member in tar:
            start = re.match(r"aclImdb/\w+/\w+/\d+_", member.name)
            if start is None or start.group() not in wanted:
                continue
            row, text = wanted[start.group()], tar.extractfile(member).read().decode()
            assert data.scores[row] == int(member.name.rpartition("_")[2].removesuffix(".txt"))
            for short, long in (("can't", "can"), ("won't", "will"), ("cannot", "can not"), ("n't", "")):
                text = text.replace(short, long)
            plain = re.findall(r"[a-z]+", text.lower().replace("<br />", " "))
            known = [w for w in data.words(row) if w.isascii() and w.isalpha()]
            # Every known plain word stands in the text, in this order (short forms and unknown words stand between).
            rest = iter(plain)
            assert all(any(word == other for other in rest) for word in itertools.islice(known, 20))
            found += 1
    assert found == len(wanted)

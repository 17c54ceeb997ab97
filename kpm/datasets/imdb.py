"""IMDb: 50000 film reviews and whether they are in favour (Maas et al., ACL 2011).

Half of them are the published training set, half the test set; films of one are not in the other. Reviews are read
straight out of the published archive once and kept as word numbers beside it.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kpm.datasets.archives import read as read_archive
from kpm.datasets.texts import Reviews
from kpm.datasets.words import Vocabulary, check_size, most_frequent, read
from kpm.errors import UserError, pick
from kpm.files import atomic

FILE = "aclImdb_v1.tar.gz"
FOLDERS = ("train/neg", "train/pos", "test/neg", "test/pos")
SPLITS = ("train", "validation", "test", "paper-train", "paper-test", "all")
SEED = 7253
_MEMBER = re.compile(r"aclImdb/((?:train|test)/(?:neg|pos))/(\d+)_(\d+)\.txt")
_VERSION = 1  # of the rules of kpm.datasets.words and of the file's layout
log = logging.getLogger("kpm")


@dataclasses.dataclass(frozen=True)
class Store:
    """All labelled reviews as word numbers: train/neg, train/pos, test/neg, test/pos, each in the order of its numbers.

    Attributes
    ----------
    vocabulary : Vocabulary
    tokens : Tensor
        int32 ``(total,)``.
    lengths, stars : Tensor
        Words and stars of each review, int64 and uint8 ``(n,)``.
    sizes : tuple of int
        Number of reviews in each of `FOLDERS`.
    """

    vocabulary: Vocabulary
    tokens: Tensor
    lengths: Tensor
    stars: Tensor
    sizes: tuple[int, int, int, int]


def parse(archive: Path, size: int = 10_000, punctuation: bool = False) -> Store:
    """Read the reviews out of the published archive.

    The vocabulary is that of the published training reviews, those of ``validation`` among them; no label is used.

    Raises
    ------
    UserError
        If the archive is damaged or has not the published layout.
    """
    found: dict[tuple[int, int], tuple[int, bytes]] = {}
    for name, content in read_archive(archive, lambda name: _MEMBER.fullmatch(name) is not None):
        folder, number, stars = _MEMBER.fullmatch(name).groups()
        key = (FOLDERS.index(folder), int(number))
        if key in found or not 1 <= int(stars) <= 10:
            raise UserError(f"{archive}: {name!r} is there twice, or its stars are not 1 to 10")
        found[key] = (int(stars), content)
    keys = sorted(found)
    sizes = np.bincount([folder for folder, _ in keys], minlength=len(FOLDERS))
    if not sizes.all():
        empty = FOLDERS[int(np.argmin(sizes))]
        raise UserError(f"{archive}: no reviews aclImdb/{empty}/NUMBER_STARS.txt, which the published archive has")
    try:
        corpus = read((found[key][1].decode("utf-8") for key in keys), punctuation)
    except UnicodeDecodeError as error:
        raise UserError(f"{archive}: a review is not UTF-8 ({error})") from error
    if not corpus.lengths.all():
        folder, number = keys[int(np.argmin(corpus.lengths))]
        raise UserError(f"{archive}: review {number} of aclImdb/{FOLDERS[folder]} has no word")
    vocabulary, table = most_frequent(corpus, size, learn_from=int(sizes[:2].sum()))
    return Store(
        vocabulary=vocabulary,
        tokens=torch.from_numpy(table[corpus.ids].astype(np.int32)),
        lengths=torch.from_numpy(corpus.lengths),
        stars=torch.tensor([found[key][0] for key in keys], dtype=torch.uint8),
        sizes=tuple(sizes.tolist()),
    )


def save(store: Store, path: Path, mark: tuple[int, ...]) -> None:
    """Write a store as npz without pickle; the file appears when it is whole. `mark` tells what it was made of."""
    text = "\n".join(store.vocabulary.words).encode()
    with atomic(path) as part, open(part, "wb") as out:
        np.savez(
            out,
            mark=np.array(mark, np.int64),
            tokens=store.tokens.numpy().astype(np.uint16),
            lengths=store.lengths.numpy().astype(np.int32),
            stars=store.stars.numpy(),
            sizes=np.array(store.sizes, np.int64),
            words=np.frombuffer(text, np.uint8),
        )


def restore(path: Path, mark: tuple[int, ...], punctuation: bool = False) -> Store | None:
    """Read what `save` wrote; None if there is no whole file of this `mark`."""
    try:
        with np.load(path) as kept:
            if tuple(kept["mark"].tolist()) != mark:
                return None
            store = Store(
                vocabulary=Vocabulary(tuple(kept["words"].tobytes().decode().split("\n")), punctuation),
                tokens=torch.from_numpy(kept["tokens"].astype(np.int32)),
                lengths=torch.from_numpy(kept["lengths"].astype(np.int64)),
                stars=torch.from_numpy(kept["stars"]),
                sizes=tuple(kept["sizes"].tolist()),
            )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged (%s); making it anew", path, error)
        return None
    return store


@functools.lru_cache(maxsize=2)
def _store(archive: Path, size: int, punctuation: bool, mark: tuple[int, ...]) -> Store:
    path = archive.with_name(f"words-{size}{'-marks' if punctuation else ''}.npz")
    if (kept := restore(path, mark, punctuation)) is not None:
        return kept
    log.info("reading %s once", archive)
    store = parse(archive, size, punctuation)
    try:
        save(store, path, mark)
    except OSError as error:
        log.warning("cannot keep what was read in %s, it will be read again: %s", path, error)
    return store


def split_rows(sizes: tuple[int, int, int, int], split: str) -> np.ndarray:
    """Which reviews of a store make up a split, shuffled.

    ``paper-train`` and ``paper-test`` are the published halves, and ``test`` is ``paper-test``. ``validation`` is the
    first tenth of ``paper-train`` shuffled with seed 7253 and ``train`` the rest, so that a model can be chosen without
    looking at the test reviews; unlike those, some are of films of which ``train`` has reviews too. ``all`` is every
    review in order.
    """
    training, testing = sum(sizes[:2]), sum(sizes[2:])
    stream = np.random.RandomState(SEED)  # the legacy stream, the same for every version of numpy
    order, test = stream.permutation(training), training + stream.permutation(testing)
    parts = {
        "train": order[training // 10 :],
        "validation": order[: training // 10],
        "test": test,
        "paper-train": order,
        "paper-test": test,
        "all": np.arange(training + testing),
    }
    return parts[pick("split", split, parts)]


def load(
    split: str = "train", root: Path | None = None, vocabulary_size: int = 10_000, punctuation: bool = False
) -> Reviews:
    """IMDb reviews from the published archive.

    Parameters
    ----------
    split : str
        See `split_rows`.
    root : path, optional
        Folder for downloads other than the usual cache.
    vocabulary_size : int
        Entries with ``<pad>`` and ``<unk>``.
    punctuation : bool
        Keep punctuation marks as words.
    """
    from kpm.datasets import registry

    pick("split", split, SPLITS)
    check_size(vocabulary_size)
    archive = registry.fetch("imdb", root) / FILE
    stat = archive.stat()
    store = _store(archive, vocabulary_size, punctuation, (_VERSION, stat.st_size, stat.st_mtime_ns))
    rows = torch.from_numpy(split_rows(store.sizes, split))
    positive = torch.repeat_interleave(torch.tensor([0, 1, 0, 1]), torch.tensor(store.sizes))
    starts = store.lengths.cumsum(0) - store.lengths
    return Reviews(
        name="imdb",
        source="real",
        split=split,
        vocabulary=store.vocabulary,
        tokens=store.tokens,
        starts=starts[rows],
        lengths=store.lengths[rows],
        labels=positive[rows],
        scores=store.stars[rows].float(),
        description="film reviews of IMDb: at most 4 stars of 10 is negative, at least 7 positive",
    )

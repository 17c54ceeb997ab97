"""Words of a text, and a vocabulary of the most frequent ones.

Rules: lower case; ``<br />`` is a space; typographic apostrophes are plain ones. A word is a run of letters and digits,
a rating such as ``7/10`` is one word, hyphens divide. Short forms are taken apart so that a negation is a word of its
own: ``isn't`` is ``is n't``, ``can't`` and the misspelt ``cant`` are ``can n't``, ``it's`` is ``it 's``. Punctuation is
left out, or one word for a run of the same mark. Reading a text's own words gives them again.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import functools
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

PAD, UNKNOWN = 0, 1
SPECIAL = ("<pad>", "<unk>")
LARGEST = 1 << 16  # ids are kept in 16 bits
MARKS = ".,!?;:"
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4\u2032`\x91\x92", "'"))
_BREAK = re.compile(r"<br\s*/?>")
_WORD = r"\d+(?:[./]\d+)+|'?[^\W_]+(?:'[^\W_]+)*"
_TOKEN = {
    False: re.compile(_WORD),
    True: re.compile("|".join([_WORD, *(f"{re.escape(m)}(?!{re.escape(m)})" for m in MARKS)])),
}
_CLITICS = frozenset(("'s", "'re", "'ve", "'ll", "'d", "'m"))
_STEMS = {"ca": "can", "wo": "will", "sha": "shall"}  # before n't
_PLAIN = "do did does is was were are has have had could would should"
_WHOLE = {
    "cannot": ("can", "not"),
    "cant": ("can", "n't"),  # "cant" and "wont" are words too, but hardly ever meant
    "wont": ("will", "n't"),
    **{f"{verb}nt": (verb, "n't") for verb in _PLAIN.split()},
}


def tokenize(text: str, punctuation: bool = False) -> list[str]:
    """Words of `text` in order.

    >>> tokenize("It isn't bad!<br />7/10", punctuation=True)
    ['it', 'is', "n't", 'bad', '!', '7/10']
    """
    return list(itertools.chain.from_iterable(map(_pieces, _TOKEN[punctuation].findall(_plain(text)))))


def _plain(text: str) -> str:
    if text.isascii():
        text = text.lower().replace("`", "'")
    else:
        # Apostrophes first: compatibility forms turn an acute accent that stands for one into a space.
        text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).lower()
        text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES)
    return _BREAK.sub(" ", text)


@functools.lru_cache(maxsize=1 << 18)
def _pieces(word: str) -> tuple[str, ...]:
    """A word with its short forms taken off its end."""
    tail: list[str] = []
    if word not in _CLITICS:
        word = word.removeprefix("'")
    while word:
        apostrophe = word.rfind("'")
        if word.endswith("n't"):
            word, clitic = word[:-3].rstrip("'"), "n't"
            word = _STEMS.get(word, word)
        elif apostrophe > 0 and word[apostrophe:] in _CLITICS:
            word, clitic = word[:apostrophe], word[apostrophe:]
        else:
            break
        tail.append(clitic)
    whole = _WHOLE.get(word, (word,)) if word else ()
    return (*whole, *reversed(tail))


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Words and their numbers: 0 is padding, 1 any word that is not here, then the most frequent first.

    Attributes
    ----------
    words : tuple of str
        By number, ``<pad>`` and ``<unk>`` first.
    punctuation : bool
        Whether texts are read with their punctuation.
    """

    words: tuple[str, ...] = dataclasses.field(repr=False)
    punctuation: bool = False

    def __post_init__(self) -> None:
        if self.words[:2] != SPECIAL or not 2 <= len(self.words) <= LARGEST:
            raise ValueError(f"words: expected {SPECIAL} and at most {LARGEST - 2} others, got {len(self.words)} words")
        if len(self.index) != len(self.words):
            twice = collections.Counter(self.words).most_common(1)[0][0]
            raise ValueError(f"words: {twice!r} is there more than once")

    @classmethod
    def of(cls, texts: Iterable[str], size: int = 10_000, punctuation: bool = False) -> Vocabulary:
        """The `size` - 2 most frequent words of some texts and the two special ones; see `most_frequent`."""
        return most_frequent(read(texts, punctuation), size)[0]

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Number of each word."""
        return {word: i for i, word in enumerate(self.words)}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any word: what weights of a network should be kept with."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:12]

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str | Sequence[str]) -> Tensor:
        """Numbers of a text's words, or of words as they are, int64 ``(t,)``; 1 for unknown ones."""
        words = tokenize(text, self.punctuation) if isinstance(text, str) else text
        return torch.tensor([self.index.get(word, UNKNOWN) for word in words], dtype=torch.int64)

    def decode(self, ids: Tensor | Sequence[int]) -> list[str]:
        """Words of some numbers; padding is left out.

        Raises
        ------
        ValueError
            For a number that is not in the vocabulary.
        """
        numbers = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        wrong = next((i for i in numbers if not 0 <= i < len(self)), None)
        if wrong is not None:
            raise ValueError(f"ids: expected 0 to {len(self) - 1}, got {wrong}")
        return [self.words[i] for i in numbers if i != PAD]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Texts as numbers of their words, in the order in which words first occur.

    Attributes
    ----------
    ids : int32 array ``(total,)``
        Texts one after another.
    lengths : int64 array ``(n,)``
        Words of each text.
    words : tuple of str
        Every word there is, by number.
    punctuation : bool
    """

    ids: np.ndarray
    lengths: np.ndarray
    words: tuple[str, ...]
    punctuation: bool


def read(texts: Iterable[str], punctuation: bool = False) -> Corpus:
    """Number the words of `texts` in one pass."""
    numbers: dict[str, int] = collections.defaultdict()
    numbers.default_factory = numbers.__len__
    ids, lengths = array.array("i"), array.array("q")
    for text in texts:
        words = tokenize(text, punctuation)
        ids.extend(map(numbers.__getitem__, words))
        lengths.append(len(words))
    return Corpus(np.array(ids, np.int32), np.array(lengths, np.int64), tuple(numbers), punctuation)


def most_frequent(corpus: Corpus, size: int = 10_000, learn_from: int | None = None) -> tuple[Vocabulary, np.ndarray]:
    """A vocabulary of the most frequent words, and the number in it of each word of the corpus.

    Parameters
    ----------
    corpus : Corpus
    size : int
        Entries of the vocabulary with the two special ones, 3 to 65536; fewer if there are fewer words. Of words that
        are equally frequent the alphabetically first are taken.
    learn_from : int, optional
        How many of the first texts are counted; all by default.

    Returns
    -------
    Vocabulary
    uint16 array ``(len(corpus.words),)``
        ``table[corpus.ids]`` are the texts in numbers of the vocabulary.
    """
    check_size(size)
    counted = corpus.lengths[:learn_from].sum()
    counts = np.bincount(corpus.ids[:counted], minlength=len(corpus.words)).tolist()
    seen = (i for i, count in enumerate(counts) if count)
    chosen = sorted(seen, key=lambda i: (-counts[i], corpus.words[i]))[: size - 2]
    table = np.full(len(corpus.words), UNKNOWN, np.uint16)
    table[chosen] = np.arange(2, 2 + len(chosen))
    words = (*SPECIAL, *(corpus.words[i] for i in chosen))
    return Vocabulary(words, corpus.punctuation), table


def check_size(size: int) -> None:
    """Raise a ValueError unless a vocabulary can have `size` entries."""
    if not 3 <= size <= LARGEST:
        raise ValueError(f"size: expected 3 to {LARGEST} words, got {size}")

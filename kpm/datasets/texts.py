"""The one face datasets of labelled texts have."""

from __future__ import annotations

import dataclasses
import operator
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from kpm.datasets.words import PAD, UNKNOWN, Vocabulary, most_frequent, read

LONGEST = 1000  # words; [KANN] sec. 4.1
_POOL = 50  # batches whose texts are sorted by length among themselves


@dataclasses.dataclass(frozen=True, eq=False)
class Reviews:
    """Texts of words with one label each, kept one after another and padded a batch at a time.

    Attributes
    ----------
    name : str
        Dataset name; a stand-in has its own.
    source : {"real", "synthetic"}
    split : str
    vocabulary : Vocabulary
    tokens : Tensor
        Word numbers of all texts, int32 ``(total,)``; splits of one dataset share it.
    starts, lengths : Tensor
        Where each text begins in `tokens` and how many words it has, int64 ``(n,)``.
    labels : Tensor
        int64 ``(n,)``: 0 negative, 1 positive.
    scores : Tensor or None
        What the label is a threshold of, float32 ``(n,)``: stars of 10, or the sum of what words contribute.
    roles, polarity : Tensor or None
        Where the truth is known, beside every token: its role, uint8 ``(total,)``, and what it adds to the score of its
        text, float32 ``(total,)``.
    class_names, role_names : tuple of str
    description : str
    """

    name: str
    source: str
    split: str
    vocabulary: Vocabulary
    tokens: Tensor = dataclasses.field(repr=False)
    starts: Tensor = dataclasses.field(repr=False)
    lengths: Tensor = dataclasses.field(repr=False)
    labels: Tensor = dataclasses.field(repr=False)
    scores: Tensor | None = dataclasses.field(default=None, repr=False)
    roles: Tensor | None = dataclasses.field(default=None, repr=False)
    polarity: Tensor | None = dataclasses.field(default=None, repr=False)
    class_names: tuple[str, ...] = ("negative", "positive")
    role_names: tuple[str, ...] = ()
    description: str = ""

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        labels: Sequence[int] | Tensor,
        vocabulary: Vocabulary | int = 10_000,
        name: str = "texts",
        split: str = "train",
        class_names: tuple[str, ...] = ("negative", "positive"),
    ) -> Reviews:
        """Your own texts as a dataset; `vocabulary` is one that is there, or the size of one to be made of them."""
        labels = torch.as_tensor(labels, dtype=torch.int64)
        if labels.shape != (len(texts),) or not len(texts):
            raise ValueError(f"labels: expected one per text, ({len(texts)},), got shape {tuple(labels.shape)}")
        if labels.min() < 0 or labels.max() >= len(class_names):
            raise ValueError(f"labels: expected 0 to {len(class_names) - 1}, as there are {class_names}")
        if isinstance(vocabulary, Vocabulary):
            ids = [vocabulary.encode(text) for text in texts]
            tokens, lengths = torch.cat(ids).int(), torch.tensor([len(i) for i in ids])
        else:
            corpus = read(texts)
            vocabulary, table = most_frequent(corpus, vocabulary)
            tokens = torch.from_numpy(table[corpus.ids].astype("int32"))
            lengths = torch.from_numpy(corpus.lengths)
        if not lengths.all():
            empty = int(lengths.argmin())
            raise ValueError(f"texts[{empty}]: there is no word in {texts[empty]!r}")
        return cls(
            name=name,
            source="real",
            split=split,
            vocabulary=vocabulary,
            tokens=tokens,
            starts=lengths.cumsum(0) - lengths,
            lengths=lengths,
            labels=labels,
            class_names=class_names,
        )

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Tensor:
        """Word numbers of one text, int64 ``(t,)``."""
        return self._one(self.tokens, index).long()

    def _one(self, values: Tensor, index: int) -> Tensor:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} reviews")
        start = int(self.starts[index])
        return values[start : start + int(self.lengths[index])]

    def words(self, index: int) -> list[str]:
        """Words of one text, ``<unk>`` for those the vocabulary has not."""
        return self.vocabulary.decode(self[index])

    def text(self, index: int) -> str:
        """Words of one text with spaces between them."""
        return " ".join(self.words(index))

    def batch(self, index: Tensor, max_length: int | None = LONGEST) -> tuple[Tensor, Tensor, Tensor]:
        """Chosen texts as ids int64 ``(b, t)`` padded with 0 on the right, lengths and labels, int64 ``(b,)``.

        A text of more than `max_length` words loses its end.
        """
        lengths, where, inside = self._places(index, max_length)
        return torch.where(inside, self.tokens[where].long(), PAD), lengths, self.labels[index]

    def truth(self, index: Tensor, max_length: int | None = LONGEST) -> tuple[Tensor, Tensor]:
        """Roles int64 and polarities float32 of the words `batch` gives, both ``(b, t)``; 0 on padding.

        Raises
        ------
        ValueError
            If the truth is not known, as for real reviews.
        """
        if self.roles is None or self.polarity is None:
            raise ValueError(f"the role of each word is not known in {self.name!r}")
        _, where, inside = self._places(index, max_length)
        return torch.where(inside, self.roles[where].long(), 0), torch.where(inside, self.polarity[where], 0.0)

    def _places(self, index: Tensor, max_length: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Lengths ``(b,)``, places in the flat tensors and whether they belong to the text, ``(b, t)``."""
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length: expected 1 or more, got {max_length}")
        if not len(index):
            raise ValueError("index: expected at least one text")
        lengths = self.lengths[index]
        lengths = lengths if max_length is None else lengths.clamp(max=max_length)
        step = torch.arange(int(lengths.max()), device=lengths.device)
        inside = step < lengths[:, None]
        return lengths, torch.where(inside, self.starts[index][:, None] + step, 0), inside

    def batch_indices(
        self,
        size: int,
        bucketed: bool = True,
        generator: torch.Generator | None = None,
        max_length: int | None = LONGEST,
        longer: Literal["cut", "drop"] = "cut",
    ) -> list[Tensor]:
        """Which texts make up each batch, int64 ``(<= size,)`` each; arguments as for `batches`."""
        if size < 1:
            raise ValueError(f"size: expected 1 or more, got {size}")
        if longer not in ("cut", "drop"):
            raise ValueError(f"longer: expected 'cut' or 'drop', got {longer!r}")
        device, lengths = self.lengths.device, self.lengths
        order = torch.arange(len(self)) if generator is None else _shuffled(len(self), generator)
        order = order.to(device)
        if longer == "drop" and max_length is not None:
            order = order[lengths[order] <= max_length]
        if bucketed and len(order):
            # Sorted within pools, so that batches differ from epoch to epoch. In order, all is one pool.
            pool = torch.arange(len(order), device=device) // (size * _POOL) if generator is not None else 0
            order = order[torch.argsort(pool * (lengths.max() + 1) + lengths[order], stable=True)]
        batches = list(order.split(size)) if len(order) else []
        if bucketed and generator is not None:
            batches = [batches[i] for i in _shuffled(len(batches), generator).tolist()]
        return batches

    def batches(
        self,
        size: int,
        bucketed: bool = True,
        max_length: int | None = LONGEST,
        generator: torch.Generator | None = None,
        longer: Literal["cut", "drop"] = "cut",
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Every text once: ids ``(b, t)``, lengths and labels ``(b,)`` as of `batch`, on the dataset's device.

        Parameters
        ----------
        size : int
            Texts of a batch; one batch may be smaller.
        bucketed : bool
            Put texts of like length together, so that little is padded.
        max_length : int, optional
            Words of the longest text; none for any length.
        generator : torch.Generator, optional
            On the CPU. Shuffles; without it texts come in their order, bucketed ones from short to long.
        longer : {"cut", "drop"}
            What happens to texts of more than `max_length` words: their end is cut off, or they are left out as by the
            published code of [KANN].
        """
        for index in self.batch_indices(size, bucketed, generator, max_length, longer):
            yield self.batch(index, max_length)

    def to(self, device: torch.device | str) -> Reviews:
        """The same texts on `device`."""
        moved = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **{k: v.to(device) for k, v in moved.items() if isinstance(v, Tensor)})

    def subset(self, index: Tensor | slice, split: str | None = None) -> Reviews:
        """The chosen texts as a dataset of their own."""
        return dataclasses.replace(
            self,
            split=split or self.split,
            starts=self.starts[index],
            lengths=self.lengths[index],
            labels=self.labels[index],
            scores=None if self.scores is None else self.scores[index],
        )

    def counts(self) -> csr_array:
        """How often each word occurs in each text, a sparse int64 matrix ``(n, vocabulary)`` for scikit-learn."""
        lengths = self.lengths.cpu()
        ends = lengths.cumsum(0)
        shift = torch.repeat_interleave(self.starts.cpu() - (ends - lengths), lengths)
        ids = self.tokens.cpu()[shift + torch.arange(len(shift))].numpy()
        borders = np.concatenate([[0], ends.numpy()]).astype(np.int32)  # scikit-learn takes no 64-bit places
        found = csr_array((np.ones(len(ids), np.int64), ids, borders), shape=(len(self), len(self.vocabulary)))
        found.sum_duplicates()
        return found

    def unknown_share(self) -> float:
        """Share of words that are not in the vocabulary."""
        unknown = torch.nn.functional.pad((self.tokens == UNKNOWN).long().cumsum(0), (1, 0))
        found = unknown[self.starts + self.lengths] - unknown[self.starts]
        return float(found.sum() / self.lengths.sum())

    def describe(self) -> dict[str, Any]:
        """Name, source, split, size, lengths and labels as plain values, for reports and results."""
        return {
            "name": self.name,
            "source": self.source,
            "split": self.split,
            "sequences": len(self),
            "classes": {name: int((self.labels == i).sum()) for i, name in enumerate(self.class_names)},
            "words": int(self.lengths.sum()),
            "median_length": int(self.lengths.median()),
            "longest": int(self.lengths.max()),
            "vocabulary": len(self.vocabulary),
            "vocabulary_fingerprint": self.vocabulary.fingerprint,
            "unknown_share": self.unknown_share(),
            "description": self.description,
        }


def _shuffled(count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=generator)


def excerpt(reviews: Reviews, count: int = 6, width: int = 100, most: int = 480) -> str:
    """The first few reviews with their labels and lengths, at most `most` characters of each, for a terminal."""
    shares = ", ".join(f"{n} {c}" for c, n in reviews.describe()["classes"].items())
    lines = [f"{reviews.name} ({reviews.source}), split {reviews.split}: {len(reviews)} reviews, {shares}"]
    for i in range(min(count, len(reviews))):
        score = "" if reviews.scores is None else f", score {float(reviews.scores[i]):g}"
        label = reviews.class_names[int(reviews.labels[i])]
        lines += ["", f"{i}: {label}{score}, {int(reviews.lengths[i])} words"]
        lines += textwrap.wrap(textwrap.shorten(reviews.text(i), most, placeholder=" ..."), width, initial_indent="  ",
                               subsequent_indent="  ")  # fmt: skip
    return "\n".join(lines)

"""A recurrent network that reads a review word by word and says whether it is positive ([KANN] sec. 4.1)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class SentimentConfig:
    """Sizes; the published ones but for the vocabulary, which is our own.

    Attributes
    ----------
    vocabulary : int
        Number of words; word 0 is padding and has no vector.
    embedding, hidden : int
        Sizes of a word's vector and of the state.
    dropout : float
        On words' vectors and on the state that is read.
    """

    vocabulary: int
    embedding: int = 128
    hidden: int = 256
    dropout: float = 0.3


class SentimentNet(nn.Module):
    """Embedding, GRU, and a linear read-out of the state after the last word."""

    def __init__(self, config: SentimentConfig):
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.embedding, padding_idx=0)
        self.gru = nn.GRU(config.embedding, config.hidden, batch_first=True)
        self.readout = nn.Linear(config.hidden, 1)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Logits ``(n,)``, positive for positive reviews, of word numbers ``(n, t)`` and lengths ``(n,)``."""
        self._check(ids, lengths)
        # Reading on through the padding and picking the true last state is much faster on a CPU than packing.
        states = self.gru(self.drop(self.words(ids)))[0]
        last = states[torch.arange(len(ids), device=ids.device), lengths - 1]
        return self.read(self.drop(last))

    def states(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """State after each word, ``(n, t, hidden)``; beyond a review's end it goes on from padding: mask it."""
        self._check(ids, lengths)
        return self.gru(self.words(ids))[0]

    def read(self, states: Tensor) -> Tensor:
        """Logits ``(...)`` of states ``(..., hidden)``."""
        with torch.autocast(states.device.type, enabled=False):
            return self.readout(states.to(self.readout.weight.dtype)).squeeze(-1)

    def _check(self, ids: Tensor, lengths: Tensor) -> None:
        if ids.ndim != 2 or lengths.shape != ids.shape[:1] or 0 in ids.shape:
            raise ValueError(f"ids, lengths: expected (n, t) and (n,), got {tuple(ids.shape)}, {tuple(lengths.shape)}")
        wrong = (lengths < 1) | (lengths > ids.shape[1])
        if wrong.any():
            i = int(wrong.nonzero()[0])
            raise ValueError(f"lengths[{i}]: expected 1 to {ids.shape[1]}, got {int(lengths[i])}")

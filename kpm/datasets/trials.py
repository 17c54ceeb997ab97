"""Noisy records of one oscillator, many trials of one length, with the eigenvalues they should show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from kpm.solvers import checks


@dataclass(frozen=True)
class Trials:
    """Trials of an oscillator, float64.

    Attributes
    ----------
    name : str
    states : Tensor
        ``(trial, time, dim)``, without noise of observation.
    observations : Tensor
        ``(trial, time, channels)``: what a model is given.
    dt : float
        Time between frames.
    harmonics : Tensor
        int64 ``(n,)``: number m of each reference eigenvalue.
    reference : Tensor
        complex128 ``(n,)``: discrete eigenvalues, the factor of the harmonics from one frame to the next.
    train_size : int
        Frames of the training part; the rest is for validation.
    """

    name: str
    states: Tensor
    observations: Tensor
    dt: float
    harmonics: Tensor
    reference: Tensor
    train_size: int

    def __len__(self) -> int:
        return len(self.observations)

    @property
    def train(self) -> Tensor:
        """First frames of the observations, ``(trial, train_size, channels)``."""
        return self.observations[:, : self.train_size]

    @property
    def validation(self) -> Tensor:
        """The frames after those of `train`."""
        return self.observations[:, self.train_size :]


def published_seeds(seed: int, noise: float, trials: int) -> range:
    """Seeds ``seed + 10^4 noise + trial`` of the trials 1, 2, ... at one level of noise ([DSE] published code).

    Levels that are 0.01 apart share no seed up to 100 trials.
    """
    checks.count(trials, "trials", 1, 10**6)
    first = seed + round(1e4 * noise) + 1
    return range(first, first + trials)


def normal(seeds: Iterable[int], *shape: int) -> Tensor:
    """Standard normal numbers ``(len(seeds), *shape)``, float64: each seed gives its own, whatever the others are."""
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in seeds]
    return torch.stack(rows)


def windows(y: Tensor, length: int) -> Tensor:
    """Delay windows: ``(*batch, time, channels) -> (*batch, time - length + 1, length * channels)``.

    Row t holds the frames ``t ... t + length - 1``, one after the other.
    """
    y, _ = checks.sequences(y, name="y", least=1)
    checks.count(length, "length", 1, y.shape[-2])
    return y.unfold(-2, length, 1).transpose(-1, -2).flatten(-2)

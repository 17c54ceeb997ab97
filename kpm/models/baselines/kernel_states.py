"""States of a process from learnt functions of a kernel: the first stage of the embedded latent transfer operator.

A few functions in the span of the reference points, one in the published method, turn the record into scalar series.
Their values before a time and after it go into a stochastic realization, and the functions are learnt such that past
and future become as correlated as they can be ([ELTO] sec. 3; Ke, Tanaka, Kawahara, AISTATS 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kpm.datasets.trials import windows
from kpm.models.baselines.kernels import KernelFeatures, evenly, kernel_features, median_distance
from kpm.solvers import checks
from kpm.solvers.realization import Realization, realize
from kpm.training.losses import check_finite


@dataclass(frozen=True)
class KernelStates:
    """Learnt functions and the realization of their values.

    Attributes
    ----------
    delays, window : int
        A point of the kernel is `delays` frames in a row; a past or future block is the values at `window` points.
    features : KernelFeatures
        Of the points.
    weights : Tensor
        ``(features, functions)``.
    realization : Realization
        Of blocks ``(window * functions,)``.
    mean, scale : Tensor
        ``(rank,)``: the states of the training record are turned to mean 0 and variance 1.
    """

    delays: int
    window: int
    features: KernelFeatures
    weights: Tensor
    realization: Realization
    mean: Tensor
    scale: Tensor

    @property
    def first(self) -> int:
        """Number of the first frame that has a state."""
        return self.delays + self.window - 1

    def __call__(self, y: Tensor) -> Tensor:
        """States ``(*batch, time - first + 1, rank)`` of records ``(*batch, time, channels)``.

        Entry i is what the frames before number ``first + i`` tell; the last one belongs to the frame after the record.
        """
        values = self.features(windows(y, self.delays)) @ self.weights
        return (self.realization.transform(blocks(values, self.window)) - self.mean) / self.scale


def fit_states(
    y: Tensor,
    *,
    delays: int,
    window: int,
    rank: int,
    functions: int = 1,
    references: int = 200,
    directions: int = 50,
    bandwidth: float = 1.0,
    epochs: int = 200,
    learning_rate: float = 1e-2,
    loading: float = 1e-3,
) -> KernelStates:
    """Learn functions whose pasts and futures are correlated.

    Parameters
    ----------
    y : Tensor
        ``(n, time, channels)``: records of one process.
    delays, window, rank, functions
        See `KernelStates`; ``rank <= window * functions``.
    references : int
        Points the functions are made of, evenly spaced in time.
    directions : int
        Of their span, so many leading principal components are used.
    bandwidth : float
        Of the Gaussian, in median distances of the points.
    epochs, learning_rate
        Of Adam, on all records at once. The functions start as the leading principal components. (The published
        start, the mean of the kernel, is an even function of a record that is symmetric about zero, and stays one.)
    loading : float
        Of the covariances, for series of unit variance.

    Raises
    ------
    ValueError
        For a wrong shape or records too short for two blocks.
    """
    y, _ = checks.sequences(y, name="y", least=2 * (delays + window))
    if y.ndim != 3:
        raise ValueError(f"y: expected (n, time, channels), got shape {tuple(y.shape)}")
    points = windows(y, delays)
    flat = points.flatten(0, 1)
    features = kernel_features(evenly(flat, references), bandwidth * median_distance(flat))
    z = features(points)
    centre = z.mean((0, 1))
    # Adam's steps have the same size for all weights: in principal components of their own scale the leading ones count
    # most.
    components = torch.linalg.svd((z - centre).flatten(0, 1), full_matrices=False).Vh[:directions].mT
    z = (z - centre) @ components
    weights = torch.eye(z.shape[-1], functions, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([weights], learning_rate)

    def found() -> tuple[Realization, Tensor, Tensor]:
        scaled = weights / (z @ weights).flatten(0, 1).std(0)
        values = z @ scaled
        start = delays + window - 1
        past, future = blocks(values[:, : points.shape[1] - start], window), blocks(values[:, start:], window)
        return realize(past, future, rank, loading=loading), scaled, past

    for epoch in range(epochs):
        loss = found()[0].loss
        check_finite({"correlation": loss}, f"epoch {epoch}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        realization, scaled, past = found()
        # The means of the features are taken off by the realization's own: they are the same for all blocks.
        scaled = components @ scaled
        shift = (centre @ scaled).repeat(window)
        realization = Realization(**{**vars(realization), "past_mean": realization.past_mean + shift})
        states = realization.transform(past + shift).flatten(0, 1)
        return KernelStates(delays, window, features, scaled, realization, states.mean(0), states.std(0))


def blocks(values: Tensor, window: int) -> Tensor:
    """``(*batch, time, q) -> (*batch, time - window + 1, window * q)``: the values at `window` times in a row."""
    return values.unfold(-2, window, 1).mT.flatten(-2)

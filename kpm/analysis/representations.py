"""States of a network's layers, and how well a Koopman autoencoder follows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from kpm.analysis.record_states import record_states
from kpm.models.kae import KAE, kae_terms


def layer_states(model: nn.Module, data: Tensor, layers: Sequence[str | nn.Module], batch_size: int = 1024) -> Tensor:
    """States ``(n, layers, width)`` of the named layers while `model` reads `data` ``(n, ...)``, in eval mode."""
    return torch.cat([batch.states for batch in record_states(model, data, layers=layers, batch_size=batch_size)])


@torch.no_grad()
def unexplained(model: KAE, states: Tensor) -> dict[str, float]:
    """Share of the variance that is not explained (FVU), for each term of the loss but the distances.

    Parameters
    ----------
    states : Tensor
        ``(n, 2, inputs)``: first and last layer.
    """
    terms, lifted = kae_terms(model, states[:, [0, -1]]), model.encode(states[:, -1])

    def variance(x: Tensor) -> Tensor:
        return (x - x.mean(0)).square().mean()

    spread = {"reconstruction": variance(states), "state": variance(states[:, -1]), "linear": variance(lifted)}
    return {name: float(terms[name] / value) for name, value in spread.items()}


@torch.no_grad()
def distance_correlation(x: Tensor, z: Tensor, most: int = 2000) -> tuple[float, float]:
    """Pearson correlation of all pairwise distances of `x` ``(n, d)`` with those of `z` ``(n, p)``, and mean ratio.

    Parameters
    ----------
    most : int
        Samples that are looked at, the first ones.
    """
    if len(x) != len(z) or x.ndim != 2 or z.ndim != 2 or len(x) < 3:
        raise ValueError(f"x, z: expected (n, d) and (n, p), n 3 or more, got {tuple(x.shape)}, {tuple(z.shape)}")
    before, after = (torch.pdist(v[:most].double()).cpu().numpy() for v in (x, z))
    apart = before > 0
    return float(np.corrcoef(before, after)[0, 1]), float((after[apart] / before[apart]).mean())


def class_accuracy(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Share of right answers in each class, float64 ``(classes,)``; NaN for a class without samples."""
    right = (logits.argmax(-1) == labels).double()
    count = torch.bincount(labels, minlength=classes).double()
    return torch.bincount(labels, right, minlength=classes) / count

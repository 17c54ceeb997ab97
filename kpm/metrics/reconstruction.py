"""How well a Koopman autoencoder redraws held-out sequences."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from kpm.datasets.base import SequenceDataset
from kpm.models import koopman
from kpm.models.koopman_autoencoder import KoopmanAutoencoder


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Figures of a model on a split, all in eval mode and float32.

    Attributes
    ----------
    mse : float
        Mean squared error per pixel and colour, frames in [0, 1].
    mse_black : float
        The same for an all-black answer: the size of the signal.
    mse_mean : float
        The same for the split's mean frame: what is reached without looking at the input.
    static_distance : float
        Mean ``|lambda - 1|`` of the static eigenvalues; where films share an operator, of one for each batch.
    """

    mse: float
    mse_black: float
    mse_mean: float
    static_distance: float


def shuffled(films: int) -> Tensor:
    """The same order of `films` every time. Splits come class by class, and an operator of a batch needs them mixed."""
    return torch.randperm(films, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def reconstruction(model: KoopmanAutoencoder, data: SequenceDataset, batch_size: int = 64) -> Reconstruction:
    """Evaluate `model` on every sequence of `data` in one pass, in mixed batches of `batch_size`."""
    model.eval()
    device = next(model.parameters()).device
    data = data.to(device)
    size, order = model.config.static_size, shuffled(len(data)).to(device)
    error = square = distance = torch.zeros((), dtype=torch.float64, device=device)
    total = torch.zeros(data.shape[1:], dtype=torch.float64, device=device)
    for index in order.split(batch_size):
        frames = data.to_float(data[index])
        z = model.encode(frames)
        error = error + (model.decode(z) - frames).square().sum(dtype=torch.float64)
        square = square + frames.square().sum(dtype=torch.float64)
        total += frames.double().sum((0, 1))
        values = koopman.split(z, model.config.scope, size).eigenvalues[..., :size]
        distance = distance + (values - 1).abs().mean() * len(index)
    count = len(data) * data.shape[0]  # frames
    pixels = count * total.numel()
    mean = total / count
    return Reconstruction(
        mse=float(error / pixels),
        mse_black=float(square / pixels),
        mse_mean=float(square / pixels - mean.square().mean()),
        static_distance=float(distance / len(data)),
    )

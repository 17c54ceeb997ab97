"""How well the operators of a Koopman autoencoder predict, in the latent space and in pixels."""

from __future__ import annotations

import dataclasses

import torch

from kpm import solvers
from kpm.datasets.base import SequenceDataset
from kpm.metrics.reconstruction import shuffled
from kpm.models.koopman_autoencoder import KoopmanAutoencoder


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Mean squared errors; latents per entry, frames per pixel and colour with frames in [0, 1].

    Attributes
    ----------
    latent_one_step, ambient_one_step : float
        Each frame from the true latents of the frame before ([SSM-SKD] eqs. 1 and 2; the first frame, which is given,
        counts as in the loss). One operator per film fits its film exactly where ``t - 1 <= K``: its latent error is
        then rounding, and its ambient error that of the reconstruction.
    latent_rollout, ambient_rollout : float
        All frames from the first one's latents, by powers of the operator. Where one operator per film fits its film
        exactly this is no forecast either: the operator has seen the frames, and gives them back.
    latent_scale : float
        Mean variance of a latent channel over all films and frames, to compare the latent errors with.
    """

    latent_one_step: float
    ambient_one_step: float
    latent_rollout: float
    ambient_rollout: float
    latent_scale: float


@torch.inference_mode()
def prediction(model: KoopmanAutoencoder, data: SequenceDataset, batch_size: int = 32) -> Prediction:
    """Evaluate `model` on all films; by the operator of each film or of each mixed batch of `batch_size`."""
    model.eval()
    device = next(model.parameters()).device
    data = data.to(device)
    order = shuffled(len(data)).to(device)
    sums = torch.zeros(5, dtype=torch.float64, device=device)
    totals = torch.zeros(model.config.latent_dim, dtype=torch.float64, device=device)
    for index in order.split(batch_size):
        frames = data.to_float(data[index])
        z = model.encode(frames).double()
        operator = solvers.per_sequence(z) if model.config.scope == "sequence" else solvers.shared(z)
        one = torch.cat([z[:, :1], z[:, :-1] @ operator.matrix], 1)
        rollout = [z[:, :1]]
        for _ in range(z.shape[1] - 1):
            rollout.append(rollout[-1] @ operator.matrix)
        powers = torch.cat(rollout, 1)
        both = model.decode(torch.cat([one, powers]).float()).split(len(index))
        errors = [(one - z).square().sum(), (powers - z).square().sum()]
        errors += [(x - frames).square().sum(dtype=torch.float64) for x in both]
        sums += torch.stack([*errors, z.square().sum()])
        totals += z.sum((0, 1))
    t, k = data.shape[0], model.config.latent_dim
    latents, pixels = len(data) * t * k, len(data) * frames[0].numel()
    means = totals / (len(data) * t)
    return Prediction(
        latent_one_step=float(sums[0] / latents),
        ambient_one_step=float(sums[2] / pixels),
        latent_rollout=float(sums[1] / latents),
        ambient_rollout=float(sums[3] / pixels),
        latent_scale=float(sums[4] / latents - means.square().mean()),
    )

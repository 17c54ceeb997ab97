"""Films split again: what stays is the average over time, without what the motion tells of it.

The static part of a film is its share of the eigenvalue 1. With one operator per film that is an oblique projection
from eight frames, and a little of what does not move is left among the decaying modes. The mean ergodic theorem names
another estimate of the same projection: the average over time.

And an eigenvalue of 1 does not make a factor static. Whatever is the same in all frames of a film has it, and so has
every constant of the motion itself: which action it is never changes within a film. Where the static part carries such
a constant, a swap joins one film's motion with the mark of another action, and the decoder is given latents that
contradict themselves. The two are told apart by what goes together over films: the mean of a channel over films that
move alike is a matter of the motion, and moved to it. Training films and their latents are all it needs; no label is
looked at. Not in the thesis.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from kpm.datasets.base import SequenceDataset
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.models.parts import Parts, take_apart

_FILMS = 3000  # training films that are looked at
_VARIANCE = 0.9  # of the motions, kept in their principal components
_ALIKE = 0.05  # share of the films that counts as moving alike
_EXPLAINED = 0.5  # share of a channel's variance that the motion must tell


@dataclasses.dataclass(frozen=True)
class Resplit:
    """Means of channels over films that move alike; float64.

    Attributes
    ----------
    centre : Tensor
        ``(t * K,)``, mean motion: latents without their averages over time.
    axes : Tensor
        ``(t * K, q)``, principal components of the motions.
    motions : Tensor
        ``(n, q)``, of the training films.
    constants : Tensor
        ``(n, K)``, the averages over time of their latents, centred.
    neighbours : int
        Films that count as moving alike.
    explained : Tensor
        ``(K,)``, share of each channel's variance over held-out training films that such means explain.
    moved : tuple of int
        Channels for which that is more than half; of the others nothing is moved.
    """

    centre: Tensor
    axes: Tensor
    motions: Tensor
    constants: Tensor
    neighbours: int
    explained: Tensor
    moved: tuple[int, ...]

    def apply(self, parts: Parts) -> Parts:
        """The same films, their sums, split again."""
        if parts.modes is not None or parts.static.shape[1:].numel() != len(self.centre):
            shape = tuple(parts.static.shape)
            raise ValueError(f"parts: expected channels of films with {len(self.centre)} numbers each, got {shape}")
        constant, motion = _averages(parts)
        at = (motion.flatten(1) - self.centre.to(motion)) @ self.axes.to(motion)
        told = torch.zeros_like(constant)
        chosen = list(self.moved)
        told[:, chosen] = _means(self.motions, self.constants, at, self.neighbours)[:, chosen]
        static = (constant - told)[:, None].expand_as(motion).to(parts.static)
        return dataclasses.replace(parts, static=static, dynamic=parts.static + parts.dynamic - static)


def _averages(parts: Parts) -> tuple[Tensor, Tensor]:
    """Averages over time ``(n, K)`` of latents, and these without them ``(n, t, K)``, float64."""
    z = parts.static.double() + parts.dynamic.double()
    return z.mean(1), z - z.mean(1, keepdim=True)


def _means(motions: Tensor, constants: Tensor, at: Tensor, neighbours: int) -> Tensor:
    nearest = torch.cdist(at, motions.to(at)).topk(neighbours, largest=False).indices
    return constants.to(at)[nearest].mean(1)


def find_resplit(parts: Parts) -> Resplit:
    """What the motions of training films tell of their constants.

    Parameters
    ----------
    parts : Parts
        Of films in random order, by channels. The last third says how much is explained by the others.

    Raises
    ------
    ValueError
        For fewer than 60 films, or components that are modes.
    """
    films = len(parts.static)
    if parts.modes is not None or films < 60:
        raise ValueError(f"parts: expected channels of at least 60 films, got {films} films")
    constants, motion = _averages(parts)
    motion = motion.flatten(1)
    centre = motion.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(motion.mT))
    shares = values.flip(0).cumsum(0) / values.sum()
    axes = vectors.flip(1)[:, : int((shares < _VARIANCE).sum()) + 1]
    motions, constants = (motion - centre) @ axes, constants - constants.mean(0)
    known = films * 2 // 3
    guess = _means(motions[:known], constants[:known], motions[known:], max(2, round(_ALIKE * known)))
    explained = 1 - (guess - constants[known:]).square().mean(0) / constants[known:].var(0, correction=0)
    moved = tuple((explained > _EXPLAINED).nonzero().flatten().tolist())
    return Resplit(centre, axes, motions, constants, max(2, round(_ALIKE * films)), explained, moved)


def resplit_of(model: KoopmanAutoencoder, data: SequenceDataset, seed: int = 7253) -> Resplit:
    """`find_resplit` of at most 3000 of the training films `data`; leaves `model` in eval mode."""
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:_FILMS]
    return find_resplit(take_apart(model, data.subset(chosen), "channels"))

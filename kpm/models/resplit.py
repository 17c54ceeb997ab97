"""Static parts without what the motion tells.

An eigenvalue of 1 does not make a factor static. Whatever is the same in all frames of a film has it, and so has every
constant of the motion itself: which action it is never changes within a film. Where the static part carries such a
constant, a swap joins one film's motion with the static part of another action, and the decoder is given latents that
contradict themselves. The two parts are told apart by what goes together over films: here the mean of a static channel
over films that move alike is taken for a matter of the motion, and moved to it. Training films and their latents are
all it needs; no label is looked at. Not in the thesis.
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
    """Means of static channels over films that move alike.

    Attributes
    ----------
    centre : Tensor
        ``(t * K,)``, mean motion, float64 as all others.
    axes : Tensor
        ``(t * K, q)``, principal components of the motions.
    motions : Tensor
        ``(n, q)``, of the training films.
    static : Tensor
        ``(n, K)``, their static parts, averaged over time and centred.
    neighbours : int
        Films that count as moving alike.
    explained : Tensor
        ``(K,)``, share of each channel's variance over held-out training films that such means explain.
    moved : tuple of int
        Channels for which that is more than half; the others stay as they are.
    """

    centre: Tensor
    axes: Tensor
    motions: Tensor
    static: Tensor
    neighbours: int
    explained: Tensor
    moved: tuple[int, ...]

    def means(self, dynamic: Tensor) -> Tensor:
        """Means ``(n, K)`` of static parts for motions ``(n, t, K)``."""
        return _means(self.motions, self.static, self._coordinates(dynamic), self.neighbours)

    def apply(self, parts: Parts) -> Parts:
        """The same films, with what the motion tells of the moved channels in the dynamic part."""
        if parts.modes is not None or parts.static.shape[1:].numel() != len(self.centre):
            shape = tuple(parts.static.shape)
            raise ValueError(f"parts: expected channels of films with {len(self.centre)} numbers each, got {shape}")
        told = torch.zeros_like(parts.static)
        chosen = list(self.moved)
        told[..., chosen] = self.means(parts.dynamic)[:, None, chosen].to(told)
        return dataclasses.replace(parts, static=parts.static - told, dynamic=parts.dynamic + told)

    def _coordinates(self, dynamic: Tensor) -> Tensor:
        return (dynamic.double().flatten(1) - self.centre.to(dynamic.device)) @ self.axes.to(dynamic.device)


def _means(motions: Tensor, static: Tensor, at: Tensor, neighbours: int) -> Tensor:
    nearest = torch.cdist(at, motions.to(at)).topk(neighbours, largest=False).indices
    return static.to(at)[nearest].mean(1)


def find_resplit(parts: Parts) -> Resplit:
    """What the motions of training films tell of their static channels.

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
    motion, static = parts.dynamic.double().flatten(1), parts.static.double().mean(1)
    centre = motion.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(motion.mT))
    shares = values.flip(0).cumsum(0) / values.sum()
    axes = vectors.flip(1)[:, : int((shares < _VARIANCE).sum()) + 1]
    motions, static = (motion - centre) @ axes, static - static.mean(0)
    known = films * 2 // 3
    guess = _means(motions[:known], static[:known], motions[known:], max(2, round(_ALIKE * known)))
    explained = 1 - (guess - static[known:]).square().mean(0) / static[known:].var(0, correction=0)
    moved = tuple((explained > _EXPLAINED).nonzero().flatten().tolist())
    return Resplit(centre, axes, motions, static, max(2, round(_ALIKE * films)), explained, moved)


def resplit_of(model: KoopmanAutoencoder, data: SequenceDataset, seed: int = 7253) -> Resplit:
    """`find_resplit` of at most 3000 of the training films `data`; leaves `model` in eval mode."""
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:_FILMS]
    return find_resplit(take_apart(model, data.subset(chosen), "channels"))

"""Films split again: the motion of a film is what films of its kind of motion have in common.

The static part of a film is its share of the eigenvalue 1. With one operator per film that is an oblique projection
from eight frames, and what does not move leaks into the decaying modes. And an eigenvalue of 1 does not make a factor
static: whatever is the same in all frames of a film has it, and so has every constant of the motion itself. Which
action it is never changes within a film. Where the static part carries such a constant, a swap joins one film's motion
with the mark of another action, and the decoder is given latents that contradict themselves.

Both are a matter of what goes together over *films*. Motions, latents without their averages over time, may fall into
kinds. Then the mean film of a kind, constants and all, is its motion; what a film has beyond it, in its average and in
the way it moves, is what the film looks like. Training films and their latents are all it needs; no label is looked at.

This takes for granted that motions do fall into kinds. k-means finds some in anything: whether two halves of the films
give the *same* kinds says whether there are any. A film's motion then is one of a few templates, and how it departs
from them (its phase, its tempo) is counted as static. Not in the thesis.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score
from torch import Tensor

from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.models.parts import Parts, take_apart
from kpm.solvers import checks

_FILMS = 3000  # training films that are looked at
_VARIANCE = 0.9  # of the motions, kept in their principal components
_MOST = 20  # kinds that are tried
AGREEMENT = 0.9  # below this, kinds are an artefact of the method


@dataclasses.dataclass(frozen=True)
class Resplit:
    """Kinds of motion.

    Attributes
    ----------
    centre : Tensor
        ``(t * K,)``, mean motion: latents without their averages over time; float64, as all here.
    axes : Tensor
        ``(t * K, q)``, principal components of the motions.
    kinds : Tensor
        ``(g, q)``, mean motion of each kind.
    shared : Tensor
        ``(g, t, K)``, mean latents of each kind, without the mean over all films and frames.
    silhouettes : dict of int to float
        For each number of kinds that was tried, the mean silhouette of held-out films; the largest was taken.
    agreement : float
        Of the kinds that two halves of the other films give, on held-out films: adjusted Rand index, 1 for the same
        kinds and 0 for chance. Below `AGREEMENT` there are no kinds to speak of.
    explained : Tensor
        ``(K,)``, share of the variance of each channel's average over time, in held-out films, that the kind explains.
    """

    centre: Tensor
    axes: Tensor
    kinds: Tensor
    shared: Tensor
    silhouettes: dict[int, float]
    agreement: float
    explained: Tensor

    def kind(self, parts: Parts) -> Tensor:
        """The kind ``(n,)`` of each film's motion."""
        if parts.modes is not None or parts.static.shape[1:] != self.shared.shape[1:]:
            wanted, shape = tuple(self.shared.shape[1:]), tuple(parts.static.shape)
            raise ValueError(f"parts: expected channels of films with latents {wanted}, got {shape}")
        _, motion = _averages(parts)
        at = (motion.flatten(1) - self.centre.to(motion)) @ self.axes.to(motion)
        return torch.cdist(at, self.kinds.to(at)).argmin(1)

    def apply(self, parts: Parts) -> Parts:
        """The same films, their sums, split again."""
        dynamic = self.shared.to(parts.static.device)[self.kind(parts)].to(parts.static)
        return dataclasses.replace(parts, static=parts.static + parts.dynamic - dynamic, dynamic=dynamic)


def _averages(parts: Parts) -> tuple[Tensor, Tensor]:
    """Averages over time ``(n, K)`` of latents, and these without them ``(n, t, K)``, float64."""
    z = parts.static.double() + parts.dynamic.double()
    return z.mean(1), z - z.mean(1, keepdim=True)


def find_resplit(parts: Parts, seed: int = 0) -> Resplit:
    """Kinds of motion of training films.

    Parameters
    ----------
    parts : Parts
        Of films in random order, by channels. The last third says which number of kinds holds for others.
    seed : int
        Of the starts of k-means.

    Raises
    ------
    UserError
        For fewer than 100 films, components that are modes, numbers that are not finite (with the film's index), or
        films that hardly differ in their motion.
    """
    films, components = len(parts.static), "channels" if parts.modes is None else "modes"
    if films < 100 or parts.modes is not None:
        raise UserError(f"parts: expected channels of at least 100 films, got {components} of {films}")
    constants, motion = (x.cpu() for x in _averages(parts))
    checks.finite(constants, "parts")
    latents, motion = motion + constants[:, None], motion.flatten(1)
    known = films * 2 // 3
    silhouettes, best = _choose(motion[:known], motion[known:], seed)
    centre, axes = _space(motion[:known])
    at = (motion - centre) @ axes
    judged, chosen = at[known:].numpy(), _kinds(at[:known], best, seed)
    halves = [_kinds(half, best, seed).predict(judged) for half in at[:known].chunk(2)]
    kind = chosen.predict(judged)
    variance = constants[known:].var(0, correction=0)
    left = (_means(constants[:known], chosen.labels_, best)[kind] - constants[known:]).square().mean(0)
    explained = torch.where(variance > 0, 1 - left / variance, 0.0)
    centre, axes = _space(motion)
    found = _kinds((motion - centre) @ axes, best, seed)
    shared = _means(latents, found.labels_, best) - latents.mean((0, 1))
    agreement = float(adjusted_rand_score(*halves))
    return Resplit(centre, axes, torch.from_numpy(found.cluster_centers_), shared, silhouettes, agreement, explained)


def _choose(known: Tensor, held_out: Tensor, seed: int) -> tuple[dict[int, float], int]:
    """Silhouettes of held-out motions ``(n, t * K)`` for each number of kinds of known ones, and the best number."""
    centre, axes = _space(known)
    at, judged = (known - centre) @ axes, ((held_out - centre) @ axes).numpy()
    most = min(_MOST, len(at.unique(dim=0)) - 1)
    silhouettes = {}
    for count in range(2, most + 1):
        kind = _kinds(at, count, seed).predict(judged)
        if len(set(kind.tolist())) > 1:
            silhouettes[count] = float(silhouette_score(judged, kind))
    if not silhouettes:
        raise UserError("parts: films hardly differ in their motion, so there are no kinds of it")
    return silhouettes, max(silhouettes, key=silhouettes.__getitem__)


def _space(motion: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of motions ``(n, t * K)`` and the principal components that keep `_VARIANCE` of their variance."""
    centre = motion.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(motion.mT))
    shares = values.flip(0).clamp_min(0).cumsum(0)
    return centre, vectors.flip(1)[:, : int((shares < _VARIANCE * shares[-1]).sum()) + 1]


def _kinds(at: Tensor, count: int, seed: int) -> KMeans:
    return KMeans(count, n_init=10, random_state=seed).fit(at.numpy())


def _means(x: Tensor, kind: np.ndarray, count: int) -> Tensor:
    """Mean ``(count, ...)`` of the rows of each kind; there are more different rows than kinds, so none is empty."""
    return torch.stack([x[torch.from_numpy(kind == k)].mean(0) for k in range(count)])


def resplit_of(model: KoopmanAutoencoder, data: SequenceDataset, seed: int = 7253) -> Resplit:
    """`find_resplit` of at most 3000 of the training films `data`; leaves `model` in eval mode."""
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:_FILMS]
    return find_resplit(take_apart(model, data.subset(chosen), "channels"), seed)

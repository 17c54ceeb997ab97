"""Axes for the static latent space along which films vary independently.

Encoder and decoder of SSM-SKD can turn the latent space as they like: nothing in the losses prefers one set of axes to
another, so that a factor may lie across all channels. In SKD the static modes are eigenvectors, but their eigenvalues
are all drawn to 1, and eigenvectors of a repeated eigenvalue are arbitrary; only the space they span is well defined.
The films, on the other hand, combine their factors freely. Independent component analysis finds the axes along which
the static vectors of the training films are as independent as a linear map can make them; it sees no labels.
"""

from __future__ import annotations

import dataclasses
import warnings

import torch
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.models.parts import Parts, take_apart

_FILMS = 4096  # to find axes from


@dataclasses.dataclass(frozen=True)
class ChannelBasis:
    """Coordinates ``static @ analysis`` and the way back, ``coordinates @ synthesis``.

    Attributes
    ----------
    analysis : Tensor
        float32 ``(K, r)``, ``r <= K`` axes.
    synthesis : Tensor
        float32 ``(r, K)``, its pseudoinverse.
    """

    analysis: Tensor
    synthesis: Tensor

    def __post_init__(self) -> None:
        shapes = tuple(self.analysis.shape), tuple(self.synthesis.shape)
        if len(shapes[0]) != 2 or shapes[0][0] < shapes[0][1] or shapes[1] != shapes[0][::-1]:
            text = f"expected (K, r) and (r, K), r <= K; got {shapes[0]} and {shapes[1]}"
            raise ValueError(f"analysis, synthesis: {text}")

    @classmethod
    def of(cls, analysis: Tensor) -> ChannelBasis:
        """With the pseudoinverse of `analysis`, whose columns must be independent."""
        return cls(analysis.float(), torch.linalg.pinv(analysis.double()).float())

    def apply(self, parts: Parts) -> Parts:
        """The same static parts with one component per axis, in place of channels or modes.

        With fewer axes than channels the components need not sum to the static part; what lies off the axes is no
        component and always swapped (`Parts.combine`).
        """
        if parts.static.shape[-1] != len(self.analysis):
            raise ValueError(f"parts: expected {len(self.analysis)} channels, got {parts.static.shape[-1]}")
        coordinates = parts.static @ self.analysis.to(parts.static)
        modes = coordinates.unsqueeze(-1) * self.synthesis.to(parts.static)
        return dataclasses.replace(parts, modes=modes)


def independent_channels(parts: Parts, seed: int = 0) -> ChannelBasis:
    """Independent component analysis (FastICA) of the time-averaged static parts of many films.

    There are as many axes as channels; of parts by modes (SKD) as many as the static modes span, two for each complex
    pair.

    Parameters
    ----------
    parts : Parts
        Of training films, several hundred at least; their labels are not looked at.
    seed : int
        Of the iteration's start.

    Raises
    ------
    UserError
        For fewer films than channels squared, too few for as many numbers, or static parts without full rank.
    """
    vectors = parts.static.double().mean(1).cpu()
    films, k = vectors.shape
    axes = k if parts.modes is None else int((1 + (parts.eigenvalues.imag != 0).long()).sum())
    if films < axes * axes:
        raise UserError(f"parts: {films} films are too few for {axes} x {axes} axes")
    spread = torch.linalg.svdvals(vectors - vectors.mean(0))
    if spread[axes - 1] <= 1e-5 * spread[0]:  # of float32 latents nothing smaller is known
        raise UserError(f"parts: the static parts of {films} films span fewer than {axes} dimensions")
    analysis = FastICA(axes, whiten="unit-variance", random_state=seed, max_iter=1000)
    with warnings.catch_warnings():
        # Where several axes share one factor none among them are best, and it goes on turning there.
        warnings.simplefilter("ignore", ConvergenceWarning)
        analysis.fit(vectors.numpy())
    return ChannelBasis.of(torch.from_numpy(analysis.components_.T.copy()))


def independent_basis(model: KoopmanAutoencoder, data: SequenceDataset, seed: int = 7253) -> ChannelBasis:
    """`independent_channels` of at most 4096 of the training films `data`; leaves `model` in eval mode."""
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:_FILMS]
    return independent_channels(take_apart(model, data.subset(chosen)), seed)


@torch.no_grad()
def turn(model: KoopmanAutoencoder, basis: ChannelBasis) -> None:
    """Give `model` the coordinates of `basis` as channels, in place; what it decodes stays the same.

    The encoder's last layer takes up the analysis, the decoder's first one the synthesis. The operators are fitted to
    other coordinates then: with fewer pairs of frames than channels they depend on them, so the split changes a little.

    Raises
    ------
    ValueError
        If the model has no such layer (`KoopmanAutoencoderConfig.axes`) or another number of channels.
    """
    layer = model.encoder.axes
    if layer is None:
        raise ValueError("model: its encoder ends without axes, see KoopmanAutoencoderConfig.axes")
    if basis.analysis.shape != layer.weight.shape:
        shape = tuple(basis.analysis.shape)
        raise ValueError(f"basis: expected axes of all {len(layer.weight)} channels, got analysis {shape}")
    decoder = model.decoder
    first = decoder.linear.weight if decoder.lstm is None else decoder.lstm.weight_ih_l0
    layer.weight.copy_(basis.analysis.to(layer.weight).T @ layer.weight)
    first.copy_(first @ basis.synthesis.to(first).T)

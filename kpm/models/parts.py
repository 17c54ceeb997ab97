"""Films taken apart into what they keep and what moves, ready to be put together in other ways."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from kpm import solvers
from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError, pick
from kpm.models import koopman
from kpm.models.koopman_autoencoder import KoopmanAutoencoder

_CHUNK = 64  # films encoded at a time


@dataclasses.dataclass(frozen=True)
class Parts:
    """Static and dynamic parts of the latents of many films.

    Attributes
    ----------
    static, dynamic : Tensor
        ``(n, t, K)`` float32 each; their sum is what the decoder turns into the film.
    modes : Tensor, optional
        ``(n, t, m, K)``, the static part as a sum of m contributions, where its components are modes of one operator
        (SKD). Where they are absent the components are the K channels of `static` (SSM-SKD).
    eigenvalues : Tensor
        complex128, the ``m`` static modes' (a conjugate pair is one component, named by its upper value) or ``(n, s)``.
    """

    static: Tensor
    dynamic: Tensor
    eigenvalues: Tensor
    modes: Tensor | None = None

    @property
    def components(self) -> int:
        """Number of components of the static part."""
        return self.static.shape[-1] if self.modes is None else self.modes.shape[2]

    def _map(self, function) -> Parts:
        modes = None if self.modes is None else function(self.modes)
        return Parts(function(self.static), function(self.dynamic), self.eigenvalues, modes)

    def take(self, index: Tensor) -> Parts:
        """The parts of the chosen films."""
        return self._map(lambda x: x[index])

    def mix(self, first: Tensor, second: Tensor, weight: Tensor) -> Parts:
        """Convex combinations of the films `first` and `second`; `weight` ``(b,)`` is the share of the first."""

        def mixed(x: Tensor) -> Tensor:
            return torch.lerp(x[second], x[first], weight.view(-1, *[1] * (x.ndim - 1)).to(x))

        return self._map(mixed)

    def combine(self, other: Parts, keep: Tensor, dynamic: bool) -> Tensor:
        """Latents ``(n, t, K)`` with the static components `keep` (bool ``(components,)``) and, if `dynamic`, the
        dynamics of these films, and all the rest of `other`."""
        if self.modes is None:
            static = torch.where(keep, self.static, other.static)
        else:
            assert other.modes is not None
            static = other.static + torch.einsum("m,ntmk->ntk", keep.to(self.modes), self.modes - other.modes)
        return static + (self.dynamic if dynamic else other.dynamic)


@torch.inference_mode()
def latents(model: KoopmanAutoencoder, data: SequenceDataset) -> Tensor:
    """Latents ``(n, t, K)`` of every film of `data`."""
    model.eval()
    device = next(model.parameters()).device
    data = data.to(device)
    chunks = torch.arange(len(data), device=device).split(_CHUNK)
    return torch.cat([model.encode(data.to_float(data[i])) for i in chunks])


@torch.inference_mode()
def take_apart(model: KoopmanAutoencoder, data: SequenceDataset, components: str = "auto") -> Parts:
    """Encode every film of `data` and split its latents.

    With one operator per film (SSM-SKD) the static components are the K channels; a complex static mode is taken as it
    is published, as a single one of the pair. With one operator for all (SKD) it is fitted once to all films of `data`,
    so that its modes mean the same in every batch, and the static components are its modes, a conjugate pair being one.

    Parameters
    ----------
    components : {"auto", "modes", "channels"}
        ``"channels"`` with one operator for all is SKD's operator with SSM-SKD's extraction ([SSM-SKD] sec. 8.2).
        ``"modes"`` needs one operator for all: the modes of different operators have nothing to do with one another.
    """
    pick("components", components, ("auto", "modes", "channels"))
    scope, size = model.config.scope, model.config.static_size
    if components == "modes" and scope == "sequence":
        raise UserError("components: the modes of one film's operator are not those of another's; take channels")
    z = latents(model, data)
    if scope == "batch" and components != "channels":
        return _modes(z, size)
    split = koopman.split(z, scope, size)
    return Parts(split.static.float(), split.dynamic.float(), split.eigenvalues[..., :size])


def _modes(z: Tensor, size: int) -> Parts:
    """Parts by the modes of one operator; the `size` eigenvalues nearest 1 are static, and partners of complex ones."""
    values, projectors = _static_modes(z, size)
    z = z.double()
    modes = torch.einsum("ntj,mjk->ntmk", z, projectors)
    static = modes.sum(2)
    return Parts(static.float(), (z - static).float(), values, modes.float())


def _static_modes(z: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues of the static modes of one operator, and the real maps ``(m, K, K)`` of latents to their parts."""
    where = z.device
    z = z.double()
    spectrum = solvers.decompose(solvers.shared(z).matrix.cpu())
    values, right, left = spectrum.eigenvalues, spectrum.right, spectrum.left
    near = (values - 1).abs().argsort()[:size]
    upper = {int(i) if values[i].imag >= 0 else int((values - values[i].conj()).abs().argmin()) for i in near}
    chosen = sorted(upper, key=lambda i: float((values[i] - 1).abs()))
    projectors = []
    for i in chosen:
        projector = torch.outer(right[:, i], left[i])
        if values[i].imag != 0:
            projector = 2 * projector.real
        projectors.append(projector.real)
    return values[chosen], torch.stack(projectors).to(where)


def static_map(model: KoopmanAutoencoder, data: SequenceDataset) -> Tensor | None:
    """The map ``(K, K)`` of latents ``(n, t, K)`` to their static part that `take_apart` uses, by one operator for all.

    None where every film has an operator of its own (SSM-SKD).
    """
    if model.config.scope == "sequence":
        return None
    z = latents(model, data).clone()  # no inference tensor: it goes into a training
    return _static_modes(z, model.config.static_size)[1].sum(0)

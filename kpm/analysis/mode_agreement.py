"""Whether two sets of films name the same static components.

With one operator for all films (SKD) the static components are its eigenvectors near the eigenvalue 1. If that
eigenvalue is repeated, only the space of its eigenvectors is well defined: another sample of films fits nearly the same
operator, and may get quite other eigenvectors in the same space. A component that the sample decides carries no factor
of the films.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from kpm.models.parts import Parts

_RANK = 1e-4  # of float32 contributions; a plane's second singular value is of the size of the first


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Cosines of the angles between static directions found in two sets of films; 1 where they are the same.

    Attributes
    ----------
    space : float
        Of the largest principal angle between the two static spaces.
    components : ndarray
        ``(components of the first,)``: for each the one of the second that is closest to it, a line among lines and a
        plane among planes (of a complex pair); 0 where the second has none of its kind.
    """

    space: float
    components: np.ndarray


def agreement(first: Parts, second: Parts) -> Agreement:
    """How well two sets of films agree on the static space and on each component.

    Parameters
    ----------
    first, second : Parts
        Of one model on different films, with `modes`: of one operator for all (SKD), or along other axes
        (`kpm.models.channel_basis.ChannelBasis.apply`).

    Raises
    ------
    ValueError
        For parts by channels, which are the same for all films, or latents of different sizes.
    """
    for name, parts in (("first", first), ("second", second)):
        if parts.modes is None:
            raise ValueError(f"{name}: expected parts by modes or axes, got channels, the same for any films")
    if first.static.shape[-1] != second.static.shape[-1]:
        sizes = first.static.shape[-1], second.static.shape[-1]
        raise ValueError(f"second: expected latents of {sizes[0]} channels, got {sizes[1]}")
    mine, theirs = _directions(first), _directions(second)
    spaces = [torch.linalg.qr(torch.cat(d).T)[0] for d in (mine, theirs)]
    closest = [max((_cosine(a, b) for b in theirs if len(b) == len(a)), default=0.0) for a in mine]
    return Agreement(_cosine(spaces[0].T, spaces[1].T), np.array(closest))


def _directions(parts: Parts) -> list[Tensor]:
    """An orthonormal basis ``(1 or 2, K)`` of what each component's contributions span."""
    assert parts.modes is not None
    found = []
    for contributions in parts.modes.double().mean(1).unbind(1):
        _, values, rows = torch.linalg.svd(contributions, full_matrices=False)
        found.append(rows[: int((values > _RANK * values[0]).sum())].cpu())
    return found


def _cosine(a: Tensor, b: Tensor) -> float:
    """Of the largest angle between the spaces of two orthonormal bases."""
    return float(torch.linalg.svdvals(a @ b.T).min())

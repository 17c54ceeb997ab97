"""Which film of a batch moves most like another, and films with the motion of such a one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Sprites with the same action are within 0.37 of the mean distance, those with different ones at least 0.6 apart.
_NEAR = 0.45


@torch.no_grad()
def nearest_motion(dynamic: Tensor) -> Tensor:
    """Number of the other film whose dynamic part is nearest, ``(n,)``, -1 where none is near.

    Near is what is within 0.45 of the mean distance of two films. No label is looked at.

    Parameters
    ----------
    dynamic : Tensor
        Dynamic parts of latents, ``(n, t, K)``.
    """
    codes = dynamic.flatten(1)
    apart = torch.cdist(codes, codes)
    limit = _NEAR * apart.sum() / max(1, len(codes) * (len(codes) - 1))
    apart.fill_diagonal_(torch.inf)
    distance, nearest = apart.min(1)
    return torch.where(distance <= limit, nearest, -1)


class Lent(NamedTuple):
    """Latents of some films' looks with the motion of mirror images, and of the films `borrowers` with another's."""

    mirrored: Tensor
    borrowers: Tensor
    borrowed: Tensor


def lend_motion(static: Tensor, dynamic: Tensor, mirrored: Tensor, borrowing: int) -> Lent:
    """Put together looks and motions of different films, for which the right pictures are known.

    Parameters
    ----------
    static, dynamic : Tensor
        Parts of the latents of n films and, after them, of the m mirror images of some, ``(n + m, t, K)``.
    mirrored : Tensor
        int ``(m,)``: the films that these are mirror images of.
    borrowing : int
        Those of the first so many films that another moves like take its dynamic part, and a mirror image that another
        moves like lends its dynamic part instead of its own. With 0 nobody does.
    """
    number = torch.arange(len(static), device=static.device)
    nearest = nearest_motion(dynamic) if borrowing else torch.full_like(number, -1)
    lender = torch.where(nearest >= 0, nearest, number)[len(static) - len(mirrored) :]
    borrowers = (nearest[:borrowing] >= 0).nonzero().flatten()
    return Lent(
        # A mirror image has the look that is wanted: its dynamic part shall not learn to tell it.
        static[mirrored] + dynamic[lender].detach(),
        borrowers,
        static[borrowers] + dynamic[nearest[borrowers]],
    )

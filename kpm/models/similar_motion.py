"""Which film of a batch moves most like another."""

from __future__ import annotations

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

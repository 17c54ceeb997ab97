"""Latents of films with a part of another film, as a training sees them: whole partners, and points between two."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Swaps(NamedTuple):
    """Latents ``(n, t, K)`` of films with a part of the nearer of two partners, of the other, and from between them."""

    nearer: Tensor
    other: Tensor
    between: Tensor


def swap_with_next(
    static: Tensor, dynamic: Tensor, films: int, channels: bool = False, middle: float = 0.0, motion: float = 0.5
) -> Swaps:
    """Give the first `films` films a part of the next two, by a random point between these ([SSM-SKD] sec. 4.3).

    Parameters
    ----------
    static, dynamic : Tensor
        Parts of the latents ``(n, t, K)``; after the last film comes the first.
    films : int
        At most n.
    channels : bool
        In turns a film takes the static part and the dynamic part. With `channels`, every other pair of films takes
        the dynamic part and a random half of the channels of the static part instead.
    middle : float
        Such a share of the points between two partners is drawn from 0.35 to 0.65 of the way, the rest from all of it.
    motion : float
        Share of films that take the dynamic part, of those that take one part; evenly among them.
    """
    own = static[:films], dynamic[:films]
    first, second = ([x.roll(-k, 0)[:films] for x in (static, dynamic)] for k in (1, 2))
    weight = torch.rand_like(own[0][:, :1, :1])
    if middle:
        weight = torch.where(torch.rand_like(weight) < middle, 0.35 + 0.3 * weight, weight)
    number = torch.arange(films, device=weight.device).view(-1, 1, 1)
    some = (number % 4 > 1) & channels
    moved = ((number + 1) * motion).floor() > (number * motion).floor()
    kept = torch.where(some, torch.rand_like(own[0][:, :1]) < 0.5, moved)
    moves = ~(some | moved)

    def take(partner: list[Tensor]) -> Tensor:
        return torch.where(kept, own[0], partner[0]) + torch.where(moves, own[1], partner[1])

    near = weight < 0.5
    return Swaps(
        take([torch.where(near, a, b) for a, b in zip(first, second)]),
        take([torch.where(near, b, a) for a, b in zip(first, second)]),
        take([torch.lerp(a, b, weight) for a, b in zip(first, second)]),
    )

"""Latents of films with a part of another film, as a training sees them: whole partners, and points between two."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class SwapPlan:
    """Which swaps a forward pass makes, and what it shows of them.

    Attributes
    ----------
    films : int
        So many films, the first, take a part of a partner, one of the next two films.
    channels : bool
        In turns a film takes the static part and the dynamic part. With `channels`, every other pair of films takes
        the dynamic part and a random half of the channels of the static part instead, as a factorial swap does.
    motion : float
        Share of films that take the dynamic part, of those that take one part; evenly among them.
    middle : float
        Such a share of the points between two partners is drawn from 0.35 to 0.65 of the way, the rest from all of it.
    returns : bool
        Whether swaps are encoded again.
    between : bool
        Whether the films are also decoded with the part of the other partner, and with one from between the two. If
        swaps neither return nor are looked at, nothing is learnt from those with a part of one film: they only show
        what the point between should be decoded as, and get no gradient.
    looks : bool
        Whether it is looked at whom the decoded swaps look like; the gradient then runs on to both parts.
    """

    films: int
    channels: bool = False
    motion: float = 0.5
    middle: float = 0.0
    returns: bool = True
    between: bool = False
    looks: bool = False


class Swaps(NamedTuple):
    """Latents ``(n, t, K)`` of films with a part of the nearer of two partners, of the other, and from between them.

    `looks_like` ``(n,)`` is the number of the film whose whole static part is in `nearer`, -1 if it is of two films.
    """

    nearer: Tensor
    other: Tensor
    between: Tensor
    looks_like: Tensor


def swap_with_next(static: Tensor, dynamic: Tensor, plan: SwapPlan) -> Swaps:
    """Give the first films a part of the next two, by a random point between these ([SSM-SKD] sec. 4.3).

    Parameters
    ----------
    static, dynamic : Tensor
        Parts of the latents ``(n, t, K)``; after the last film comes the first.
    plan : SwapPlan
        Of at most n films.
    """
    films = plan.films
    own = static[:films], dynamic[:films]
    first, second = ([x.roll(-k, 0)[:films] for x in (static, dynamic)] for k in (1, 2))
    weight = torch.rand_like(own[0][:, :1, :1])
    if plan.middle:
        weight = torch.where(torch.rand_like(weight) < plan.middle, 0.35 + 0.3 * weight, weight)
    number = torch.arange(films, device=weight.device).view(-1, 1, 1)
    some = (number % 4 > 1) & plan.channels
    moved = ((number + 1) * plan.motion).floor() > (number * plan.motion).floor()
    kept = torch.where(some, torch.rand_like(own[0][:, :1]) < 0.5, moved)
    moves = ~(some | moved)

    def take(partner: list[Tensor]) -> Tensor:
        return torch.where(kept, own[0], partner[0]) + torch.where(moves, own[1], partner[1])

    near = weight < 0.5
    partner = (number + torch.where(near, 1, 2)) % len(static)
    return Swaps(
        take([torch.where(near, a, b) for a, b in zip(first, second)]),
        take([torch.where(near, b, a) for a, b in zip(first, second)]),
        take([torch.lerp(a, b, weight) for a, b in zip(first, second)]),
        torch.where(some, -1, torch.where(moved, number, partner)).flatten(),
    )

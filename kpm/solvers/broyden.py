"""Broyden's "good" method for ``f(z) = z``, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def broyden(f: Callable[[Tensor], Tensor], z: Tensor, memory: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterates ``(b, dim)`` and the values of `f` there, without end.

    The root of ``g(z) = f(z) - z`` is sought with an approximate inverse Jacobian ``B = -I + sum u_k v_k'``, updated
    so that it maps the last change of g to the last change of z. After `memory` updates it begins anew from ``-I``,
    as plain iteration does. The first step is a plain one.
    """
    value = f(z)
    g = value - z
    left: list[Tensor] = []  # u_k, (b, dim)
    right: list[Tensor] = []  # v_k, (b, dim)

    def times(x: Tensor) -> Tensor:
        """``B x``."""
        if not left:
            return -x
        u, v = torch.stack(left, 1), torch.stack(right, 1)
        return (u * (v * x[:, None]).sum(2, keepdim=True)).sum(1) - x

    def transposed(x: Tensor) -> Tensor:
        """``B' x``."""
        if not left:
            return -x
        u, v = torch.stack(left, 1), torch.stack(right, 1)
        return (v * (u * x[:, None]).sum(2, keepdim=True)).sum(1) - x

    while True:
        yield z, value
        step = -times(g)
        z = z + step
        value = f(z)
        # A sample that blew up begins anew from zero; its residual there has been told.
        lost = ~(torch.isfinite(value).all(1, keepdim=True) & torch.isfinite(z).all(1, keepdim=True))
        if lost.any():
            yield z, value
            z = torch.where(lost, 0, z)
            value = f(z)
            left.clear()
            right.clear()
            g = value - z
            continue
        change, g = (value - z) - g, value - z
        if len(left) == memory:
            left.clear()
            right.clear()
        v = transposed(step)
        along = (v * change).sum(1, keepdim=True)
        usable = along.abs() > 1e-12 * v.norm(dim=1, keepdim=True) * change.norm(dim=1, keepdim=True)
        u = torch.where(usable, (step - times(change)) / torch.where(usable, along, 1), 0)
        left.append(u)
        right.append(v)

"""Reading a batch of sequences block by block: which frames form pairs, and the second moments of one block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from kpm.solvers import checks
from kpm.solvers.sketches import Factor, Gram

_NARROW = 32  # half the width below which one product is faster than three


def roles(shape: tuple, mask: Any, lengths: Any, weights: Any, continued: bool) -> tuple[Tensor, Tensor]:
    """What each frame counts for, ``(n, time)``: as first of a pair, and as a state that begins none.

    Bool without weights, float64 with. The last frame never begins a pair.
    """
    frames = shape[:-1]
    if mask is not None and lengths is not None:
        raise ValueError("mask, lengths: give one of them")
    if mask is not None:
        valid = torch.as_tensor(mask)
        if valid.dtype != torch.bool or tuple(valid.shape) != frames:
            raise ValueError(f"mask: expected bool {frames}, got {valid.dtype} {tuple(valid.shape)}")
    elif lengths is not None:
        count = torch.as_tensor(lengths)
        if count.is_floating_point() or tuple(count.shape) != frames[:-1]:
            raise ValueError(f"lengths: expected integers {frames[:-1]}, got {count.dtype} {tuple(count.shape)}")
        bad = (count < 0) | (count > frames[-1])
        if bad.any():
            raise ValueError(f"lengths{checks.where(bad)}: not from 0 to {frames[-1]}")
        valid = torch.arange(frames[-1], device=count.device) < count[..., None]
    else:
        valid = torch.ones(frames, dtype=torch.bool)
    pair = pad(valid[..., :-1] & valid[..., 1:], (0, 1))
    end = valid & ~pair
    if continued:
        end[..., -1] = False
    if weights is not None:
        w = torch.as_tensor(weights).to(valid.device, torch.float64)
        if tuple(w.shape) not in (frames, frames[:-1]):
            raise ValueError(f"weights: expected {frames[:-1]} or {frames}, got shape {tuple(w.shape)}")
        bad = ~(torch.isfinite(w) & (w >= 0))
        if bad.any():
            raise ValueError(f"weights{checks.where(bad)}: not a finite, non-negative number")
        w = w if w.ndim == len(frames) else w[..., None]
        pair, end = pair * w, end * w
    return pair.reshape(-1, frames[-1]), end.reshape(-1, frames[-1])


@dataclass(frozen=True)
class Block:
    """Frames ``(b, time, dim)`` in float64, zero where they do not count, the two roles of each, and their mean."""

    frames: Tensor
    starts: Tensor
    closes: Tensor
    centre: Tensor


def cut(x: Any, pair: Tensor, end: Tensor, rows: int, shape: tuple) -> Iterator[Block]:
    """Blocks of about `rows` frames of ``(n, time, dim)``; those of a long sequence overlap by one frame."""
    n, time, _ = x.shape
    many = max(1, rows // time)
    step = min(time, max(rows, 2))
    for b in range(0, n, many):
        for t in range(0, max(time - 1, 1), step):
            stop = min(t + step + 1, time)
            block = x[b : b + many, t:stop]
            if not isinstance(block, Tensor):
                block = torch.from_numpy(np.array(block, np.float64))
            starts, closes = (role[b : b + many, t:stop].to(block.device).clone() for role in (pair, end))
            if stop < time:  # the last frame comes again, as the first of the next block
                starts[:, -1] = 0
                closes[:, -1] = 0
            seen = (starts > 0) | (closes > 0)
            seen[:, 1:] |= starts[:, :-1] > 0
            block = block.double()
            if not seen.all():
                block = torch.where(seen[..., None], block, 0)
            total = block.sum((0, 1))
            if not torch.isfinite(total).all() and not torch.isfinite(block).all():
                i, j, k = (~torch.isfinite(block)).nonzero()[0].tolist()
                index = [int(a) for a in np.unravel_index(b + i, shape[:-2])] if len(shape) > 2 else []
                raise ValueError(f"x{[*index, t + j, k]} is not finite (shape {shape})")
            yield Block(block, starts, closes, total / seen.sum().clamp_min(1))


def _gram(block: Block) -> tuple[Gram, Gram]:
    """Moments of the pairs and of the ends of a block."""
    b, time, dim = block.frames.shape
    left, end = pad(torch.stack([block.starts, block.closes]), (0, 1)).flatten(1)
    right = left.roll(1)
    # A zero frame after each sequence: products of neighbouring rows then vanish at every border.
    z = torch.empty(b, time + 1, dim, dtype=torch.float64, device=left.device)
    torch.sub(block.frames, block.centre, out=z[:, :-1])
    z[:, -1] = 0
    z = z.view(-1, dim)
    unseen = ((left == 0) & (right == 0) & (end == 0)).nonzero().squeeze(1)
    if len(unseen) > b:
        z[unseen] = 0
    sums = torch.stack([left, right, end]).double() @ z
    if left.dtype == torch.bool:
        # Nearly all frames are both first and second of a pair: their products are formed once.
        cross = z[:-1].T @ z[1:]
        at_end, first, last = z[end], z[left & ~right], z[right & ~left]
        z[(~(left & right)).nonzero().squeeze(1)] = 0
        both = _square(z)
        before, after, alone = both + first.T @ first, both + last.T @ last, at_end.T @ at_end
    else:
        scaled = z * left[:, None]
        cross = scaled[:-1].T @ z[1:]
        before, after, alone = scaled.T @ z, (z * right[:, None]).T @ z, (z * end[:, None]).T @ z
    joint = torch.cat([torch.cat([before, cross], 1), torch.cat([cross.T, after], 1)])
    pairs = Gram.from_shifted(left.double().sum(), sums[:2].flatten(), joint, block.centre.repeat(2))
    return pairs, Gram.from_shifted(end.double().sum(), sums[2], alone, block.centre)


def _square(z: Tensor) -> Tensor:
    """``z.T @ z`` in three products of half the width: the fourth is one of them, transposed.

    NumPy does the same with a single call, but on threads of its own, which wait for work at the expense of PyTorch's.
    """
    half = z.shape[1] // 2
    if half < _NARROW:
        return z.T @ z
    left, right = z[:, :half], z[:, half:]
    corner = left.T @ right
    return torch.cat([torch.cat([left.T @ left, corner], 1), torch.cat([corner.T, right.T @ right], 1)])


def _factor(block: Block) -> tuple[Factor, Factor]:
    """Triangles of the pairs and of the ends of a block."""
    x, weight = block.frames, block.starts[:, :-1]
    left, end = weight > 0, block.closes > 0
    pairs = Factor.from_rows([x[:, :-1][left], x[:, 1:][left]], weight[left].double())
    return pairs, Factor.from_rows([x[end]], block.closes[end].double())


MAKE = {"gram": _gram, "qr": _factor}

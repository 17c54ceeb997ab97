"""Compose characters from layers of artwork, a batch of sequences at a time, on the device.

A character is a stack of pictures laid over a black canvas: body, trousers, shirt, hair, shoes. Each layer comes in
variants (the static factors) and every variant has one picture per action and frame.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LAYERS = ("skin", "pants", "top", "hair")


def over(top: Tensor, alpha: Tensor, bottom: Tensor) -> Tensor:
    """Lay `top` over an opaque `bottom` with the rounding of PIL's ``alpha_composite``.

    Parameters
    ----------
    top, bottom : Tensor
        uint8 colours, broadcastable shapes.
    alpha : Tensor
        uint8 opacity of `top`, broadcastable to it.
    """
    a = alpha.to(torch.int32)
    t = top.to(torch.int32) * a + bottom.to(torch.int32) * (255 - a) + 128
    return ((t + (t >> 8)) >> 8).to(torch.uint8)


class Compositor:
    """Turns factor labels into frames.

    Parameters
    ----------
    layers : dict of str to array
        RGBA artwork, uint8 of shape ``(variants, actions, time, height, width, 4)`` for skin, pants, top and hair.
    shoes : array
        RGBA artwork, uint8 of shape ``(actions, time, height, width, 4)``, the same for every character.

    Notes
    -----
    What can be composed beforehand is: skin with pants (36 pictures per frame), hair with shoes. What is left per batch
    is to look up three pictures and lay them over one another. Hair and shoes are opaque where they are at all, which
    makes the last of the two a plain selection; artwork where that does not hold is refused.
    """

    def __init__(self, layers: dict[str, np.ndarray], shoes: np.ndarray):
        for name in ("hair", "shoes"):
            alpha = (shoes if name == "shoes" else layers[name])[..., 3]
            if np.any((alpha != 0) & (alpha != 255)):
                raise ValueError(f"layer {name!r} has half-transparent pixels; it must be opaque or empty")
        skin, pants, top, hair = (torch.from_numpy(np.ascontiguousarray(layers[name])) for name in LAYERS)
        foot = torch.from_numpy(np.ascontiguousarray(shoes))
        self.variants = {name: len(layers[name]) for name in LAYERS}
        body = over(skin[..., :3], skin[..., 3:], torch.zeros_like(skin[..., :3]))
        base = over(pants[None, ..., :3], pants[None, ..., 3:], body[:, None])
        crown = torch.where(foot[..., 3:] > 0, foot, hair)
        self.actions, self.size = top.shape[1], top.shape[3:5]
        # A character fills about a third of its tile: work inside the box that holds all artwork, black around it.
        ink = base.any(-1).flatten(0, 3).any(0) | torch.cat([top, crown])[..., 3].flatten(0, 2).any(0)
        rows, columns = ink.any(1).nonzero(), ink.any(0).nonzero()
        self.box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        # `over` with its part that belongs to the top done here, and masks one per colour: half the time per batch.
        ahead = top[..., :3].to(torch.int32) * top[..., 3:] + 128
        through = (255 - top[..., 3:]).expand_as(top[..., :3])
        crowned = (crown[..., 3:] > 0).expand_as(crown[..., :3])
        tables = (base.flatten(0, 1), ahead, through, crown[..., :3], crowned)
        # One row per (variant, action): a row is the whole animation inside the box.
        rows_of = [t[:, :, :, self.box[0], self.box[1]].flatten(0, 1).contiguous() for t in tables]
        self._tables = {torch.device("cpu"): tuple(rows_of)}

    def _on(self, device: torch.device) -> tuple[Tensor, ...]:
        if device not in self._tables:
            self._tables[device] = tuple(t.to(device) for t in self._tables[torch.device("cpu")])
        return self._tables[device]

    def __call__(self, labels: dict[str, Tensor]) -> Tensor:
        """Frames, uint8 ``(b, time, 3, height, width)``, stored channels-last so that convolutions need not copy."""
        action = labels["action"]
        base, ahead, through, hair, hair_mask = self._on(action.device)
        row = (labels["skin"] * self.variants["pants"] + labels["pants"]) * self.actions + action
        top_row, hair_row = (labels[name] * self.actions + action for name in ("top", "hair"))
        inside = ahead[top_row].addcmul_(base[row].to(torch.int32), through[top_row].to(torch.int32))
        inside = inside.mul_(257).bitwise_right_shift_(16).to(torch.uint8)  # (t + (t >> 8)) >> 8 in one go
        inside = torch.where(hair_mask[hair_row], hair[hair_row], inside)
        frames = inside.new_zeros((*inside.shape[:2], *self.size, 3))
        frames[:, :, self.box[0], self.box[1]] = inside
        return frames.movedim(-1, 2)

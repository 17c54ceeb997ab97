"""Puppets: a stand-in for Sprites on the same factor grid, drawn by our own code, for machines without the real sheets.

Six skins, pants, tops and hair styles, and walking, casting and slashing seen from three sides: the labels mean what
they mean in `kpm.datasets.sprites`, the pictures are others. Results on puppets are results on puppets.
"""

from __future__ import annotations

import functools

import numpy as np

from kpm.datasets import puppet_rig as rig
from kpm.datasets import sprites
from kpm.datasets.base import SequenceDataset
from kpm.datasets.layers import Compositor
from kpm.errors import pick

_INK = (34, 28, 44)
_SHOES = (112, 66, 40)
_SKINS = {
    "rose": (250, 208, 178),
    "ochre": (206, 142, 74),
    "umber": (110, 66, 44),
    "moss": (122, 176, 92),
    "azure": (104, 150, 214),
    "ash": (172, 172, 184),
}
# Two colours and the pattern they make.
_PANTS = {
    "jeans": ((52, 88, 160), (52, 88, 160), "plain"),
    "candy stripes": ((238, 236, 228), (200, 44, 52), "lengthwise"),
    "brown check": ((168, 128, 72), (98, 70, 40), "check"),
    "black with line": ((58, 56, 66), (248, 204, 48), "seam"),
    "pink hoops": ((236, 128, 178), (128, 56, 136), "rings"),
    "green shorts": ((40, 140, 84), (40, 140, 84), "short"),
}
_TOPS = {
    "red badge": ((204, 48, 48), (252, 220, 96), "badge"),
    "sailor stripes": ((240, 240, 244), (44, 76, 168), "rings"),
    "green vest": ((64, 152, 72), (32, 88, 48), "vest"),
    "orange check": ((250, 214, 70), (226, 116, 36), "check"),
    "violet dots": ((124, 72, 176), (250, 232, 250), "dots"),
    "dark sash": ((60, 64, 80), (72, 212, 216), "sash"),
}
_HAIR = {
    "short": (134, 82, 40),
    "mohawk": (84, 200, 60),
    "long": (246, 210, 92),
    "bun": (204, 60, 36),
    "curls": (64, 44, 60),
    "tails": (250, 128, 190),
}
CLASS_NAMES = {
    "skin": tuple(_SKINS),
    "pants": tuple(_PANTS),
    "top": tuple(_TOPS),
    "hair": tuple(_HAIR),
    "action": sprites.CLASS_NAMES["action"],
}


def _tones(colour: tuple[int, int, int]) -> np.ndarray:
    """A colour as outline, shade, base, light and ink, uint8 ``(5, 3)``."""
    base = np.array(colour, float)
    rows = (base * 0.38, base * 0.78, base, base + (255 - base) * 0.3, np.array(_INK, float))
    return np.stack(rows).round().astype(np.uint8)


def _picture(mask: np.ndarray, tone: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Opaque RGBA inside `mask`, empty outside, ``(P, 64, 64, 4)``."""
    alpha = np.where(mask, 255, 0).astype(np.uint8)
    return np.concatenate([colours[tone] * mask[..., None], alpha[..., None]], -1)


def _second(pattern: str, along: np.ndarray, across: np.ndarray, chest: np.ndarray) -> np.ndarray:
    """Where a garment shows its second colour; `along` and `across` are pixels on the part it covers."""
    stripe = np.floor(along / 3) % 2 == 1
    if pattern == "lengthwise":
        return np.floor(across / 2.4) % 2 == 1
    if pattern == "check":
        return stripe ^ (np.floor(across / 3) % 2 == 1)
    if pattern == "rings":
        return stripe
    if pattern == "seam":
        return np.abs(across) < 1.0
    if pattern == "badge":
        return chest & (across**2 + (along - 6.0) ** 2 < 3.2**2)
    if pattern == "dots":
        return ((across + 2) % 4 - 2) ** 2 + (along % 4 - 2) ** 2 < 1.6
    if pattern == "sash":
        return chest & (np.abs(across + along - 7) < 2.2)
    if pattern == "vest":
        return chest & (np.abs(across) < 1.2)
    return np.zeros(along.shape, bool)


def _garment(body: rig.Rig, mask: np.ndarray, first, second, pattern: str) -> np.ndarray:
    plain, other = (_picture(mask, body.tone, _tones(c)) for c in (first, second))
    chosen = _second(pattern, body.along, body.across, body.zone == rig.CHEST)
    return np.where((mask & chosen & (body.tone != rig.OUTLINE))[..., None], other, plain)


def _pants(body: rig.Rig) -> np.ndarray:
    whole = np.isin(body.zone, (rig.PELVIS, rig.THIGH, rig.SHIN))
    short = np.isin(body.zone, (rig.PELVIS, rig.THIGH))
    return np.stack([_garment(body, short if p == "short" else whole, a, b, p) for a, b, p in _PANTS.values()])


def _tops(body: rig.Rig) -> np.ndarray:
    sleeved = np.isin(body.zone, (rig.CHEST, rig.SLEEVE))
    vest = body.zone == rig.CHEST
    return np.stack([_garment(body, vest if p == "vest" else sleeved, a, b, p) for a, b, p in _TOPS.values()])


def _hair_shapes(body: rig.Rig) -> dict[str, np.ndarray]:
    """Where each style would be if nothing were before it, ``(P, 64, 64)`` booleans."""
    x, y, side = body.head_x, body.head_y, body.side

    def disc(cx, cy, rx, ry):
        return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1

    fringe = -3.0 + 0.12 * np.abs(x)
    face = np.where(side, (x < 2.0) & (y > -3.0), (np.abs(x) < 7.0) & (y > fringe))
    face |= y > 6.0
    cap = disc(0, -0.5, 10.0, 10.2) & ~face
    spikes = 13.0 + 2.0 * (np.floor(np.arctan2(y, x) * 5.0) % 2)
    crest = np.where(side, np.hypot(x - 1, y) < spikes, (np.abs(x) < 3.4) & (y > np.abs(x) - 16.0))
    crest &= np.where(side, (np.hypot(x / 8.5, y / 9.0) > 0.8) & (y < 1.0 + x) & (x > -5.5), y < -4.0)
    fall = np.where(side, np.abs(x - 6.5) < 4.5, np.abs(x) < 11.5) & (y > -2) & (y < 19.0)
    pony = np.where(side, disc(10.5, 5.0, 3.8, 9.0), disc(-12.0, 5.0, 3.8, 9.0) | disc(12.0, 5.0, 3.8, 9.0))
    bun = np.where(side, disc(5.5, -11.5, 5.0, 4.6), disc(0, -12.5, 5.2, 4.6))
    ball = np.where(side, disc(2.5, -3.5, 12.0, 12.5), disc(0, -3.5, 13.5, 12.5))
    return {
        "short": cap,
        "mohawk": crest,
        "long": cap | fall & ~face | fall & (y > 6.0),
        "bun": cap | bun,
        "curls": ball & ~(face & disc(np.where(side, -4.0, 0.0), 3.0, np.where(side, 6.0, 7.6), 8.5)),
        "tails": cap | pony,
    }


def _hair(body: rig.Rig) -> np.ndarray:
    styles = []
    for (name, shape), colour in zip(_hair_shapes(body).items(), _HAIR.values()):
        # Hair hangs behind the shoulders when they face us, over them when they are seen from the side.
        on_head = (body.zone == rig.FACE) | (body.zone == rig.NOTHING)
        seen = shape & ~body.before_head & (on_head | body.side | (body.head_y < 4.0))
        padded = np.pad(seen, ((0, 0), (1, 1), (1, 1)))
        inner = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
        strands = np.sin(body.head_x * (2.6 if name == "curls" else 1.5) + (body.head_y if name == "curls" else 0.0))
        lit = -0.08 * (body.head_x + body.head_y) + 0.35 * strands
        tone = np.where(~inner, rig.OUTLINE, np.where(lit > 0.75, rig.LIGHT, np.where(lit < -0.1, rig.SHADE, rig.BASE)))
        styles.append(_picture(seen, tone, _tones(colour)))
    return np.stack(styles)


def _all_views(pictures: np.ndarray) -> np.ndarray:
    """Add the view from the right, the mirror image of that from the left: ``(..., 9, 8, 64, 64, 4)``."""
    both = pictures.reshape(*pictures.shape[:-4], 3, 2, rig.FRAMES, *pictures.shape[-3:])
    right = both[..., 1:2, :, :, ::-1, :]
    views = np.concatenate([both, right], axis=-5)
    return views.reshape(*pictures.shape[:-4], 9, rig.FRAMES, *pictures.shape[-3:])


@functools.lru_cache(maxsize=1)
def artwork() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Layers and shoes for the `Compositor`: RGBA uint8, ``(6, 9, 8, 64, 64, 4)`` each and ``(9, 8, 64, 64, 4)``."""
    body = rig.build()
    silhouette = body.zone != rig.NOTHING
    layers = {
        "skin": np.stack([_picture(silhouette, body.tone, _tones(c)) for c in _SKINS.values()]),
        "pants": _pants(body),
        "top": _tops(body),
        "hair": _hair(body),
    }
    shoes = _picture(body.zone == rig.SHOE, body.tone, _tones(_SHOES))
    return {name: _all_views(layer) for name, layer in layers.items()}, _all_views(shoes)


@functools.lru_cache(maxsize=1)
def compositor() -> Compositor:
    """The puppets' compositor, drawn once per process."""
    return Compositor(*artwork())


def load(split: str = "train") -> SequenceDataset:
    """Puppets, with the splits of `kpm.datasets.sprites` by name."""
    pick("split", split, sprites.SPLITS)
    text = "puppets drawn by kpm: skin and three items of clothing in six variants each, three actions from three sides"
    return sprites.dataset(compositor(), split, "puppets", "synthetic", CLASS_NAMES, text)

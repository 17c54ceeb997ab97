"""The puppet without its clothes: poses, limbs, and which part of it each pixel shows.

Coordinates are pixels of a 64x64 tile, x to the right and y downwards; ``P = 48`` poses are three actions, each seen
from the front and from the left, times eight frames. The view from the right is the mirror image of the left one.
"""

from __future__ import annotations

import dataclasses

import numpy as np

SIZE, FRAMES = 64, 8
# What a pixel belongs to.
NOTHING, FACE, HAND, FOREARM, SLEEVE, CHEST, PELVIS, THIGH, SHIN, SHOE = range(10)
# How it is lit.
OUTLINE, SHADE, BASE, LIGHT, INK = range(5)
_HEAD_SIZE = (8.5, 9.0)
_LIGHT_FROM = (-0.6, -0.8)
_ys, _xs = (grid.astype(float) + 0.5 for grid in np.mgrid[:SIZE, :SIZE])


@dataclasses.dataclass(frozen=True)
class Rig:
    """Per-pixel description of every pose, arrays of shape ``(P, 64, 64)``.

    Attributes
    ----------
    zone : what the pixel belongs to, 0 where there is nothing.
    tone : how it is lit.
    along, across : position on its part in pixels, for patterns that move with it.
    before_head : whether an arm is held before the head there.
    head_x, head_y : position relative to the middle of the head.
    side : shape ``(P, 1, 1)``, whether the puppet is seen from the side.
    """

    zone: np.ndarray
    tone: np.ndarray
    along: np.ndarray
    across: np.ndarray
    before_head: np.ndarray
    head_x: np.ndarray
    head_y: np.ndarray
    side: np.ndarray


def _limb(root: np.ndarray, length: float, angle: np.ndarray, sign: float = -1.0) -> np.ndarray:
    """End of a limb that hangs down at angle 0 and is raised towards `sign` (left is -1)."""
    return root + length * np.stack([sign * np.sin(angle), np.cos(angle)], -1)


def _at(x, y) -> np.ndarray:
    """Points ``(8, 2)`` from numbers or one value per frame."""
    return np.stack(np.broadcast_arrays(x, y, np.zeros(FRAMES))[:2], -1).astype(float)


def _skeleton(view: str, hip, lean, legs, arms, crouch=0.0) -> dict[str, np.ndarray]:
    """Joints of eight frames from angles.

    `legs` and `arms` hold, for the far (or left) and the near (or right) limb, the angles of its upper and lower part.
    """
    front = view == "front"
    spread = 4.0 if front else 0.0
    width = 7.0 if front else 0.5
    hip_y = 46.0 + np.asarray(crouch)
    joints = {"hip": _at(hip, hip_y), "chest": _at(hip + lean, hip_y - 11.0)}
    # On whole pixels, so that the face is the same in every frame.
    joints["head"] = np.round(_at(hip + 1.5 * np.asarray(lean), hip_y - 23.0))
    for number, (name, outward) in enumerate((("a", -1.0), ("b", 1.0))):
        sign = outward if front else -1.0
        side = outward if front else outward * 1.2
        root = joints["hip"] + [spread * outward if front else side, 0.0]
        joints[f"knee_{name}"] = _limb(root, 6.0, legs[number][0], sign)
        joints[f"foot_{name}"] = _limb(joints[f"knee_{name}"], 6.0, legs[number][1], sign)
        joints[f"root_{name}"] = root
        shoulder = joints["chest"] + [width * outward if front else side, 0.0]
        joints[f"shoulder_{name}"] = shoulder
        joints[f"elbow_{name}"] = _limb(shoulder, 6.5, arms[number][0], sign)
        joints[f"hand_{name}"] = _limb(joints[f"elbow_{name}"], 6.5, arms[number][1], sign)
    return joints


def _walk(view: str) -> dict[str, np.ndarray]:
    swing = np.sin(2 * np.pi * np.arange(FRAMES) / FRAMES)
    lift = np.cos(2 * np.pi * np.arange(FRAMES) / FRAMES)
    bob = -1.2 * np.abs(lift)
    if view == "front":
        joints = _skeleton("front", 32.0 + 0.8 * swing, 0.0, ((0.06, 0.0), (0.06, 0.0)), ((0.2, 0.1), (0.2, 0.1)), bob)
        # Seen from the front a step is a foot that comes up, and an arm that comes up before the body.
        for name, up in (("a", np.clip(swing, 0, 1)), ("b", np.clip(-swing, 0, 1))):
            joints[f"foot_{name}"][:, 1] -= 5.0 * up
            joints[f"knee_{name}"][:, 1] -= 2.0 * up
            other = "b" if name == "a" else "a"
            joints[f"hand_{other}"] += np.stack([(2.5 if other == "a" else -2.5) * up, -4.0 * up], -1)
        return joints
    bend = 0.9 * np.clip(lift, 0, 1), 0.9 * np.clip(-lift, 0, 1)
    legs = ((-0.65 * swing + 0.1, -0.65 * swing - bend[1]), (0.65 * swing + 0.1, 0.65 * swing - bend[0]))
    arms = ((0.75 * swing, 0.75 * swing + 0.35), (-0.75 * swing, -0.75 * swing + 0.35))
    return _skeleton("left", 32.0, -0.5, legs, arms, bob)


def _cast(view: str) -> dict[str, np.ndarray]:
    # Both arms go up in a wide arc, hold the spell, and come down.
    raised = np.array([0.75, 1.15, 1.6, 2.05, 2.5, 2.85, 2.5, 1.35])
    sink = np.array([0.0, 0.5, 1.0, 1.0, 0.0, -0.5, 0.0, 0.5])
    if view == "front":
        arms = ((raised, raised - 0.35), (raised, raised - 0.35))
        return _skeleton("front", 32.0, 0.0, ((0.16, 0.05), (0.16, 0.05)), arms, sink)
    arms = ((raised - 0.45, raised + 0.1), (raised, raised + 0.35))
    return _skeleton("left", 32.5, 0.8 - 0.4 * raised, ((0.3, 0.05), (-0.22, -0.3)), arms, sink)


def _slash(view: str) -> dict[str, np.ndarray]:
    # One arm strikes from over the shoulder across the body, the weight follows it.
    strike = np.array([2.5, 2.9, 2.3, 1.5, 0.6, -0.3, 0.6, 2.5])
    weight = np.array([1.0, 1.5, 0.5, -0.7, -1.7, -2.2, -1.7, 1.0])
    if view == "front":
        elbow = np.clip(strike, -0.1, None)
        arms = ((0.5 - 0.15 * weight, -0.7 - 0.1 * weight), (elbow, strike - 0.45 * (strike < 1.0)))
        legs = ((0.5 + 0.05 * weight, 0.3), (0.5 - 0.05 * weight, 0.3))
        return _skeleton("front", 32.0 + weight, 0.9 * weight, legs, arms, 1.5)
    turned = np.array([3.9, 4.2, 3.4, 2.5, 1.6, 0.8, 1.6, 3.9])
    arms = ((-0.4 - 0.2 * weight, 0.3 - 0.2 * weight), (turned, turned - 0.35))
    legs = ((-0.62, -0.72), (0.85 - 0.1 * weight, 0.15))
    return _skeleton("left", 32.0 + 0.8 * weight, weight - 1.0, legs, arms, 1.5)


def _poses() -> tuple[dict[str, np.ndarray], np.ndarray]:
    skeletons = [action(view) for action in (_walk, _cast, _slash) for view in ("front", "left")]
    joints = {name: np.concatenate([s[name] for s in skeletons]) for name in skeletons[0]}
    side = np.tile(np.repeat([False, True], FRAMES), 3)
    # To 1/64 px, so that the last bit of a sine does not decide about a pixel on another machine.
    return {name: np.round(points * 64) / 64 for name, points in joints.items()}, side


class _Canvas:
    """Paints parts over one another, far ones first, and keeps what is seen of each."""

    def __init__(self, poses: int):
        shape = (poses, SIZE, SIZE)
        self.zone, self.tone, self.rank = (np.zeros(shape, np.uint8) for _ in range(3))
        self.along, self.across = np.zeros(shape), np.zeros(shape)
        self.parts = 0

    def paint(self, mask, zone, normal, along, across) -> None:
        """Paint what is inside `mask`; `normal` is the pair of components in [-1, 1] that decides how it is lit."""
        lit = normal[0] * _LIGHT_FROM[0] + normal[1] * _LIGHT_FROM[1]
        tone = np.where(lit > 0.5, LIGHT, np.where(lit < -0.35, SHADE, BASE))
        layers = ((self.zone, zone), (self.tone, tone), (self.rank, self.parts))
        for layer, value in (*layers, (self.along, along), (self.across, across)):
            np.copyto(layer, value, where=mask, casting="unsafe")

    def capsule(self, start, end, radii, zone, only=True, offset=0.0) -> None:
        """A limb between two joints, ``(P, 2)`` each, with a radius at either end."""
        axis = (end - start)[:, None, None]
        dx, dy = _xs - start[:, 0, None, None], _ys - start[:, 1, None, None]
        length2 = np.maximum((axis**2).sum(-1), 1e-6)
        share = np.clip((dx * axis[..., 0] + dy * axis[..., 1]) / length2, 0, 1)
        ox, oy = dx - share * axis[..., 0], dy - share * axis[..., 1]
        radius = radii[0] + (radii[1] - radii[0]) * share
        length = np.sqrt(length2)
        across = (dy * axis[..., 0] - dx * axis[..., 1]) / length
        inside = (ox**2 + oy**2 < radius**2) & only
        self.paint(inside, zone, (ox / radius, oy / radius), offset + share * length, across)

    def outlines(self) -> None:
        """Darken the rim of every part where something farther away, or nothing, is beside it."""
        padded = np.pad(self.rank, ((0, 0), (1, 1), (1, 1)))
        beside = (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
        rim = np.logical_or.reduce([b < self.rank for b in beside])
        self.tone[rim] = OUTLINE


def _paint_arm(canvas: _Canvas, joints: dict, name: str, only=True) -> None:
    canvas.parts += 1
    shoulder, elbow, hand = (joints[f"{j}_{name}"] for j in ("shoulder", "elbow", "hand"))
    canvas.capsule(elbow, hand, (2.9, 2.5), FOREARM, only, 7.0)
    canvas.capsule(shoulder, elbow, (3.3, 2.9), SLEEVE, only)
    canvas.capsule(hand, hand + 0.5, (3.1, 3.1), HAND, only)


def _paint_leg(canvas: _Canvas, joints: dict, name: str, side: np.ndarray) -> None:
    canvas.parts += 1
    root, knee, foot = (joints[f"{j}_{name}"] for j in ("root", "knee", "foot"))
    canvas.capsule(knee, foot, (4.1, 3.8), SHIN, offset=6.0)
    canvas.capsule(root, knee, (4.6, 4.2), THIGH)
    toe = foot + np.stack([np.where(side, -3.2, 0.3), np.full(len(foot), 1.0)], -1)
    canvas.capsule(foot + np.array([0.0, 0.8]), toe, (3.6, 3.1), SHOE)


def _paint_torso(canvas: _Canvas, joints: dict, side: np.ndarray) -> None:
    canvas.parts += 1
    chest, hip = joints["chest"][:, None, None], joints["hip"][:, None, None]
    top, bottom = chest[..., 1] - 3.5, hip[..., 1] + 2.5
    share = np.clip((_ys - top) / (bottom - top), 0, 1)
    middle = chest[..., 0] + (hip[..., 0] - chest[..., 0]) * share
    half = np.where(side[:, None, None], 5.2, 8.0) - 0.8 * np.sin(np.pi * share)
    across = _xs - middle
    corner = np.clip((top + 2.5 - _ys) / 2.5, 0, 1)
    inside = (_ys > top) & (_ys < bottom) & (np.abs(across) < half - 2.5 * corner**2)
    zone = np.where(_ys > bottom - 5.0, PELVIS, CHEST)
    canvas.paint(inside, zone, (across / half, (share - 0.5) * 0.5), _ys - top, across)


def _paint_head(canvas: _Canvas, x: np.ndarray, y: np.ndarray, side: np.ndarray) -> None:
    canvas.parts += 1
    side = side[:, None, None]
    a, b = _HEAD_SIZE
    nose = side & ((x + a) ** 2 + (y - 2.5) ** 2 < 1.8**2)
    neck = (np.abs(x) < 3.0) & (y > 0) & (y < 11.5)
    skull = (x / a) ** 2 + (y / b) ** 2 < 1
    canvas.paint(skull | nose | neck, FACE, (x / a, y / b), y, x)


def _paint_face(canvas: _Canvas, x: np.ndarray, y: np.ndarray, side: np.ndarray) -> None:
    side = side[:, None, None]
    eyes = np.where(side, np.abs(x + 4.5) < 1.1, np.abs(np.abs(x) - 3.4) < 1.1) & (np.abs(y - 1.0) < 1.7)
    mouth = np.where(side, np.abs(x + 5.5) < 1.6, np.abs(x) < 2.1) & (np.abs(y - 5.5) < 0.6)
    canvas.tone[(eyes | mouth) & (canvas.zone == FACE)] = INK


def build() -> Rig:
    """Pose the puppet and say what every pixel shows."""
    joints, side = _poses()
    canvas = _Canvas(len(side))
    head_x = _xs - joints["head"][:, 0, None, None]
    head_y = _ys - joints["head"][:, 1, None, None]
    _paint_arm(canvas, joints, "a", side[:, None, None])
    _paint_leg(canvas, joints, "a", side)
    _paint_leg(canvas, joints, "b", side)
    _paint_torso(canvas, joints, side)
    _paint_head(canvas, head_x, head_y, side)
    head = canvas.parts
    _paint_arm(canvas, joints, "a", ~side[:, None, None])
    _paint_arm(canvas, joints, "b")
    canvas.outlines()
    _paint_face(canvas, head_x, head_y, side)
    before = canvas.rank > head
    maps = (canvas.zone, canvas.tone, canvas.along, canvas.across)
    return Rig(*maps, before, head_x, head_y, side[:, None, None])

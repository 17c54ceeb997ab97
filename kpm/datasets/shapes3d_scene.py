"""The scene behind the 3D Shapes stand-in: a square room, a solid standing in its middle, a camera going round it.

World coordinates: the floor is ``z = 0``, the solid stands on the origin, the walls are at ``x, y = +-WALL`` and end at
``z = HEIGHT``, above them is the sky. The camera keeps its distance and height and looks at the solid; at 0 degrees it
faces one wall, at +-30 degrees a corner has come near the middle of the picture. The solid and the light stay with the
room. Rays are intersected in closed form: a solid is an interval ``(enter, leave)`` on each ray.
"""

from __future__ import annotations

import numpy as np

SIZE = 64
SHAPES = ("cube", "cylinder", "sphere", "capsule")
SCALES = tuple(np.linspace(0.75, 1.25, 8).tolist())
ANGLES = tuple(np.linspace(-30.0, 30.0, 15).tolist())  # degrees

WALL, HEIGHT = 6.4, 4.0
DISTANCE, EYE, AIM = 4.8, 2.8, 1.15  # camera: distance from the axis, height, height of the point it looks at
FOCAL = 54.0  # pixels
# Half width (radius) and height at scale 1. The capsule's caps are half balls; a ball is a capsule as high as wide.
HALF_WIDTH = {"cube": 0.74, "cylinder": 0.72, "sphere": 0.88, "capsule": 0.66}
TALL = {"cube": 1.48, "cylinder": 1.62, "sphere": 1.76, "capsule": 2.12}

# A cylinder that holds every solid at every scale.
REACH = SCALES[-1] * max(np.sqrt(2) * HALF_WIDTH["cube"], *HALF_WIDTH.values())
TOP = SCALES[-1] * max(TALL.values())

LIGHT = np.array([-0.60, -0.30, 0.78]) / np.linalg.norm([-0.60, -0.30, 0.78])  # towards the lamp
LAMP = 0.10  # half the side of the square lamp, from a distance of 1: how soft shadows are
AMBIENT, FROM_ABOVE, DIFFUSE = 0.57, 0.06, 0.37  # they sum to 1, so that no surface is brighter than its colour
GLOSS, SHININESS = 0.30, 24.0
CREASE, CREASE_REACH = 0.16, 0.9  # darkening where room surfaces meet
CONTACT, CONTACT_REACH = 0.45, 0.70  # darkening of the floor near the solid; it ends at the reach (times scale)
HORIZON, ZENITH = np.array([0.94, 0.97, 1.0]), np.array([0.58, 0.76, 0.96])


def camera(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """The camera at `angle` degrees: its position ``(3,)`` and its axes right, up, forward as rows ``(3, 3)``."""
    turn = np.deg2rad(angle)
    position = np.array([DISTANCE * np.sin(turn), -DISTANCE * np.cos(turn), EYE])
    forward = np.array([0.0, 0.0, AIM]) - position
    forward /= np.linalg.norm(forward)
    right = np.array([np.cos(turn), np.sin(turn), 0.0])
    return position, np.stack([right, np.cross(right, forward), forward])


def rays(angle: float, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rays through the points (`rows`, `columns`) of the picture, in pixels from its upper left corner.

    Returns
    -------
    origin : array
        ``(3,)``.
    direction : array
        Unit vectors, ``(3, *rows.shape)``.
    """
    origin, axes = camera(angle)
    through = np.stack([(columns - SIZE / 2) / FOCAL, (SIZE / 2 - rows) / FOCAL, np.ones_like(rows)])
    direction = np.einsum("ia,i...->a...", axes, through)
    return origin, direction / np.linalg.norm(direction, axis=0)


# Where rays meet things


def _slab(origin: np.ndarray, direction: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Interval of a ray's one coordinate between `low` and `high`; a ray along the slab counts as barely tilted."""
    steady = np.where(np.abs(direction) < 1e-12, 1e-12, direction)
    first, second = (low - origin) / steady, (high - origin) / steady
    return np.minimum(first, second), np.maximum(first, second)


def _quadratic(a: np.ndarray, half_b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interval where ``a t^2 + 2 half_b t + c <= 0``; empty ``(inf, -inf)`` if there is none."""
    a = np.maximum(a, 1e-12)
    inside = half_b * half_b - a * c
    root = np.sqrt(np.maximum(inside, 0.0))
    hit = inside > 0
    return np.where(hit, (-half_b - root) / a, np.inf), np.where(hit, (root - half_b) / a, -np.inf)


def _round(o: np.ndarray, d: np.ndarray, radius: float, axes: int, z: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Interval inside an endless upright cylinder (`axes` 2) or a ball centred at height `z` (`axes` 3)."""
    o, d = (o[0], o[1], o[2] - z)[:axes], d[:axes]
    a, half_b, c = (sum(p * q for p, q in zip(u, v)) for u, v in ((d, d), (o, d), (o, o)))
    return _quadratic(a, half_b, c - radius * radius)


def _both(*intervals: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    enter, leave = zip(*intervals)
    return np.maximum.reduce(enter), np.minimum.reduce(leave)


def solid(origin: np.ndarray, direction: np.ndarray, shape: str, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Interval of each ray inside the solid; nothing of it is met where ``enter >= leave``.

    Parameters
    ----------
    origin, direction : array
        ``(3, ...)``, broadcastable.
    shape : str
        One of `SHAPES`.
    scale : float
    """
    half, tall = HALF_WIDTH[shape] * scale, TALL[shape] * scale
    if shape == "cube":
        sides = (_slab(origin[i], direction[i], -half, half) for i in range(2))
        return _both(*sides, _slab(origin[2], direction[2], 0.0, tall))
    if shape == "cylinder":
        return _both(_round(origin, direction, half, 2), _slab(origin[2], direction[2], 0.0, tall))
    low = _round(origin, direction, half, 3, half)
    if shape == "sphere":
        return low
    high = _round(origin, direction, half, 3, tall - half)
    middle = _both(_round(origin, direction, half, 2), _slab(origin[2], direction[2], half, tall - half))
    middle = tuple(np.where(middle[0] < middle[1], m, empty) for m, empty in zip(middle, (np.inf, -np.inf)))
    return np.minimum.reduce([low[0], middle[0], high[0]]), np.maximum.reduce([low[1], middle[1], high[1]])


def may_meet_solids(origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Which rays come near the middle of the room: all that meet any solid at any scale, and some more."""
    enter, leave = _both(_round(origin, direction, REACH, 2), _slab(origin[2], direction[2], 0.0, TOP))
    return enter < leave


def near_solids(point: np.ndarray) -> np.ndarray:
    """Which points of the floor any solid at any scale may darken, and some more."""
    tip = -LIGHT[:2] / LIGHT[2] * TOP  # how far the longest shadow falls
    along = np.clip((tip[0] * point[0] + tip[1] * point[1]) / (tip @ tip), 0.0, 1.0)
    away = np.hypot(point[0] - along * tip[0], point[1] - along * tip[1])
    return away < REACH + CONTACT_REACH * SCALES[-1]


def normal(point: np.ndarray, shape: str, scale: float) -> np.ndarray:
    """Outward unit normals of the solid at points ``(3, ...)`` of its surface."""
    half, tall = HALF_WIDTH[shape] * scale, TALL[shape] * scale
    x, y, z = point
    if shape == "cube":
        from_middle = np.stack([x / half, y / half, 2 * z / tall - 1])
        side = np.abs(from_middle).argmax(0)
        return np.where(side == np.arange(3).reshape(3, *(1,) * x.ndim), np.sign(from_middle), 0.0)
    if shape == "cylinder":
        top = z > tall * (1 - 1e-5)
        return np.stack([np.where(top, 0.0, x / half), np.where(top, 0.0, y / half), np.where(top, 1.0, 0.0)])
    return np.stack([x, y, z - np.clip(z, half, tall - half)]) / half


def gap(point: np.ndarray, shape: str, scale: float) -> np.ndarray:
    """Distance of points ``(3, ...)`` outside the solid from it, in units of `scale`."""
    half, tall = HALF_WIDTH[shape], TALL[shape]
    x, y, z = point / scale
    if shape == "cube":
        away = (np.abs(x) - half, np.abs(y) - half, np.abs(z - tall / 2) - tall / 2)
        return np.sqrt(sum(np.maximum(a, 0.0) ** 2 for a in away))
    across = np.hypot(x, y)
    if shape == "cylinder":
        return np.hypot(np.maximum(across - half, 0.0), np.maximum(np.abs(z - tall / 2) - tall / 2, 0.0))
    return np.maximum(np.hypot(across, z - np.clip(z, half, tall - half)) - half, 0.0)


# What light does


def lit(normals: np.ndarray, lamp: np.ndarray | float = 1.0) -> np.ndarray:
    """Brightness in [0, 1] of surfaces with unit `normals` ``(3, ...)`` that see the fraction `lamp` of the lamp."""
    facing = np.einsum("a,a...->...", LIGHT, normals)
    return AMBIENT + FROM_ABOVE * normals[2] + DIFFUSE * np.maximum(facing, 0.0) * lamp


def crease(distance: np.ndarray) -> np.ndarray:
    """Factor by which a room surface is darker at `distance` from another one."""
    return 1.0 - CREASE * np.exp(-distance / CREASE_REACH)


def room(origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What rays see of the empty room, without the solid's shadow.

    Returns
    -------
    region : array
        0 floor, 1 wall, 2 sky.
    shade : array
        Brightness of floor and walls; for the sky how far it is from the horizon, in [0, 1].
    distance : array
        Along the ray, shape as the other two.
    """
    ahead = [_slab(origin[i], direction[i], -WALL, WALL)[1] for i in range(2)]
    down = np.where(direction[2] < 0, -origin[2] / np.minimum(direction[2], -1e-12), np.inf)
    distance = np.minimum.reduce([*ahead, down])
    x, y, z = origin.reshape(3, *(1,) * (direction.ndim - 1)) + distance * direction
    on_floor, on_x = down <= distance, ahead[0] <= distance
    to_x, to_y = WALL - np.abs(x), WALL - np.abs(y)
    zero, one = np.zeros_like(x), np.ones_like(x)
    inward = np.stack([np.where(on_x, -np.sign(x), 0.0), np.where(on_x, 0.0, -np.sign(y)), zero])
    floor = lit(np.stack([zero, zero, one])) * crease(to_x) * crease(to_y)
    wall = lit(inward) * crease(z) * crease(np.where(on_x, to_y, to_x))
    sky = np.clip(direction[2] / 0.6, 0.0, 1.0)
    region = np.where(on_floor, 0, np.where(z <= HEIGHT, 1, 2))
    return region, np.select([region == 0, region == 1], [floor, wall], sky), distance


def sky(height: np.ndarray) -> np.ndarray:
    """Colour in [0, 1] of the sky ``(3, ...)`` from `room`'s shade."""
    return np.stack([h + (z - h) * height for h, z in zip(HORIZON, ZENITH)])


def lamps(count: int) -> np.ndarray:
    """Unit vectors towards a grid of `count` x `count` points of the lamp, ``(3, count, count)``."""
    across = np.cross(LIGHT, [0.0, 0.0, 1.0])
    across /= np.linalg.norm(across)
    spread = LAMP * ((np.arange(count) + 0.5) * 2 / count - 1)
    offset = np.multiply.outer(across, spread)[:, :, None] + np.multiply.outer(np.cross(across, LIGHT), spread)[:, None]
    spots = LIGHT[:, None, None] + offset
    return spots / np.linalg.norm(spots, axis=0)


def floor_under(point: np.ndarray, lamp: np.ndarray, shape: str, scale: float) -> np.ndarray:
    """Factor by which the floor is darker at points ``(3, n)`` because of the solid: its shadow and its closeness.

    `lamp` holds for each point the unit vector, ``(3, n)``, towards the spot of the lamp that it is asked about.
    """
    enter, leave = solid(point, lamp, shape, scale)
    up = np.array([0.0, 0.0, 1.0])
    shadow = np.where((enter < leave) & (leave > 0), lit(up, 0.0) / lit(up), 1.0)
    return shadow * (1.0 - CONTACT * np.maximum(1.0 - gap(point, shape, scale) / CONTACT_REACH, 0.0) ** 3)


def surface(point: np.ndarray, direction: np.ndarray, shape: str, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Brightness of the solid at points ``(3, n)`` seen along unit `direction`, and the white gloss on top of it.

    Their sum is at most 1: where the gloss would burn out it is cut.
    """
    normals = normal(point, shape, scale)
    shade = lit(normals)
    half = LIGHT[:, None] - direction
    half /= np.linalg.norm(half, axis=0)
    gloss = GLOSS * np.maximum((normals * half).sum(0), 0.0) ** SHININESS
    return shade, np.minimum(gloss, 1.0 - shade)

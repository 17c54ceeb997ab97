"""The renderer against a slow one of another kind, which walks along rays by distances instead of solving for them."""

from __future__ import annotations

import colorsys
import functools

import numpy as np
import pytest
import torch

from kpm.datasets import shapes3d_renderer
from kpm.datasets import shapes3d_scene as scene

N, S = scene.SIZE, shapes3d_renderer.SAMPLES


@pytest.fixture(scope="module")
def renderer() -> shapes3d_renderer.Renderer:
    return shapes3d_renderer.renderer()


def draw(renderer, hues, scale: int, shape: int, angle: int) -> np.ndarray:
    """One frame, ``(64, 64, 3)``."""
    floor, wall, solid = (torch.tensor([h]) for h in hues)
    frame = renderer(floor, wall, solid, torch.tensor([[scale]]), torch.tensor([shape]), torch.tensor([[angle]]))
    return frame[0, 0].permute(1, 2, 0).numpy()


# The slow renderer: points are ``(n, 3)``


def distance_to_solid(p: np.ndarray, shape: str, scale: float) -> np.ndarray:
    half, tall = scene.HALF_WIDTH[shape] * scale, scene.TALL[shape] * scale
    across, z = np.hypot(p[:, 0], p[:, 1]), p[:, 2]
    if shape == "sphere":
        return np.linalg.norm(p - [0, 0, half], axis=1) - half
    if shape == "capsule":
        nearest = np.minimum(np.maximum(z, half), tall - half)
        return np.sqrt(across**2 + (z - nearest) ** 2) - half
    if shape == "cube":
        q = np.abs(p - [0, 0, tall / 2]) - [half, half, tall / 2]
    else:
        q = np.stack([across - half, np.abs(z - tall / 2) - tall / 2], 1)
    return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0)


def distance_to_room(p: np.ndarray) -> np.ndarray:
    return np.minimum(p[:, 2], np.minimum(scene.WALL - np.abs(p[:, 0]), scene.WALL - np.abs(p[:, 1])))


def march(origin: np.ndarray, direction: np.ndarray, distance, far: float) -> tuple[np.ndarray, np.ndarray]:
    """Walk until `distance` is used up: how far along each ray, and whether anything was reached before `far`."""
    origin = np.broadcast_to(origin, direction.shape)
    t, left = np.zeros(len(direction)), np.full(len(direction), np.inf)
    for _ in range(300):
        going = np.flatnonzero((left > 1e-6) & (t < far))
        left[going] = distance(origin[going] + t[going, None] * direction[going])
        t[going] += left[going]
    return t, left < 1e-5


def steepest(p: np.ndarray, distance) -> np.ndarray:
    """Unit gradient of a distance, by differences."""
    moved = [distance(p + e) - distance(p - e) for e in 1e-4 * np.eye(3)]
    g = np.stack(moved, 1)
    return g / np.linalg.norm(g, axis=1, keepdims=True)


def brightness(normals: np.ndarray, visible: np.ndarray | float = 1.0) -> np.ndarray:
    lambert = np.maximum(normals @ scene.LIGHT, 0) * visible
    return scene.AMBIENT + scene.FROM_ABOVE * normals[:, 2] + scene.DIFFUSE * lambert


def slow(hues, scale: float, shape: str, angle: float) -> np.ndarray:
    """A frame in full colour from the start, ``(64, 64, 3)`` floats in [0, 255]."""
    colours = [np.array(colorsys.hsv_to_rgb(h / 10, 1, 1)) for h in hues]
    turn = np.radians(angle)
    eye = np.array([scene.DISTANCE * np.sin(turn), -scene.DISTANCE * np.cos(turn), scene.EYE])
    forward = np.array([0, 0, scene.AIM]) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    v, u = np.mgrid[: N * S, : N * S].reshape(2, -1) / S + 0.5 / S
    direction = scene.FOCAL * forward + np.outer(u - N / 2, right) - np.outer(v - N / 2, up)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    picture = np.zeros((len(u), 3))

    def to_solid(p):
        return distance_to_solid(p, shape, scale)

    t, _ = march(eye, direction, distance_to_room, 40.0)
    p = eye + t[:, None] * direction
    normals = steepest(p, distance_to_room).round()
    floor = normals[:, 2] == 1
    sky = ~floor & (p[:, 2] > scene.HEIGHT)
    reach = np.sort(np.stack([p[:, 2], scene.WALL - np.abs(p[:, 0]), scene.WALL - np.abs(p[:, 1])], 1), 1)
    corner = np.prod(1 - scene.CREASE * np.exp(-reach[:, 1:] / scene.CREASE_REACH), axis=1)
    # Each of a pixel's rays asks its own spot of the lamp.
    spot = scene.lamps(S)[:, (np.arange(N * S) % S)[:, None], np.arange(N * S) % S].reshape(3, -1).T
    _, hidden = march(p[floor], spot[floor], to_solid, 8.0)
    close = 1 - scene.CONTACT * np.maximum(1 - to_solid(p[floor]) / scale / scene.CONTACT_REACH, 0) ** 3
    light = brightness(normals)
    light[floor] = brightness(normals[floor], ~hidden) * close
    picture[:] = (light * corner)[:, None] * np.where(floor[:, None], colours[0], colours[1])
    height = np.clip(direction[sky, 2:] / 0.6, 0, 1)
    picture[sky] = (1 - height) * scene.HORIZON + height * scene.ZENITH

    t, met = march(eye, direction, to_solid, 12.0)
    p = (eye + t[:, None] * direction)[met]
    normals = steepest(p, to_solid)
    half = scene.LIGHT - direction[met]
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    gloss = scene.GLOSS * np.maximum((normals * half).sum(1), 0) ** scene.SHININESS
    light = brightness(normals)
    picture[met] = light[:, None] * colours[2] + np.minimum(gloss, 1 - light)[:, None]
    return picture.reshape(N, S, N, S, 3).mean((1, 3)) * 255


VIEWS = [(7, 0, 1), (2, 1, 9), (7, 2, 14), (0, 3, 4), (4, 0, 7), (7, 3, 12), (7, 1, 0), (0, 0, 13), (3, 2, 6)]


@pytest.mark.parametrize("scale, shape, angle", VIEWS)
def test_a_frame_equals_the_slow_render(renderer, scale, shape, angle):
    hues = [(3 * scale + k * 4 + angle) % 10 for k in range(3)]
    expected = slow(hues, scene.SCALES[scale], scene.SHAPES[shape], scene.ANGLES[angle])
    off = np.abs(draw(renderer, hues, scale, shape, angle) - expected).max(-1)
    # Rays that only just touch an edge may go either way: a sixteenth of a pixel each.
    assert (off > 0.6).mean() < 0.003 and off.max() < 40


def test_every_view_in_every_colour_is_within_a_grey_level_of_the_float_sum(renderer):
    rng = np.random.default_rng(0)
    for angle in range(len(scene.ANGLES)):
        weights, plain = shapes3d_renderer.view(scene.ANGLES[angle])
        scale, shape = (torch.from_numpy(a.ravel()) for a in np.indices(weights.shape[:2]))
        hues = rng.integers(0, 10, (3, len(scale)))
        frames = renderer(*torch.from_numpy(hues), scale[:, None], shape, torch.full((len(scale), 1), angle))
        rgb = np.array([[colorsys.hsv_to_rgb(h / 10, 1, 1) for h in part] for part in hues])
        exact = np.einsum("pvc,vphw->vchw", rgb, weights.reshape(-1, 3, N, N)) + plain.reshape(-1, 3, N, N)
        assert np.abs(frames[:, 0].numpy() - 255 * exact).max() < 0.53


def test_no_sum_overflows(renderer):
    base, shares, colours = renderer._on(torch.device("cpu"))
    total = base.int() & 0xFFFF
    for part, share in shares.items():
        rows, columns = renderer.boxes[part]
        assert share.min() >= 0
        total[:, rows, 3 * columns.start : 3 * columns.stop] += int(colours.max()) * share.int()
    assert 60000 < int(total.max()) < 2**16


def test_hues_are_those_of_the_colour_circle():
    expected = [colorsys.hsv_to_rgb(k / 10, 1, 1) for k in range(10)]
    assert np.allclose(shapes3d_renderer.hues() / 5, expected)


@functools.lru_cache(maxsize=1)
def silhouettes() -> np.ndarray:
    """Share of the solid's colour in each pixel, ``(15, 8, 4, 64, 64)``."""
    return np.stack([shapes3d_renderer.view(angle)[0][:, :, 2] for angle in scene.ANGLES])


def test_solids_are_where_a_pinhole_camera_sees_them():
    seen = silhouettes()
    for a, angle in enumerate(scene.ANGLES):
        turn = np.radians(angle)
        for i, scale in enumerate(scene.SCALES):
            half, tall = scene.HALF_WIDTH["cube"] * scale, scene.TALL["cube"] * scale
            corners = np.array([(x, y, z) for x in (-half, half) for y in (-half, half) for z in (0, tall)])
            x = corners[:, 0] * np.cos(turn) + corners[:, 1] * np.sin(turn)
            away = corners[:, 1] * np.cos(turn) - corners[:, 0] * np.sin(turn) + scene.DISTANCE
            down, length = scene.EYE - scene.AIM, np.hypot(scene.DISTANCE, scene.EYE - scene.AIM)
            depth = (away * scene.DISTANCE + (scene.EYE - corners[:, 2]) * down) / length
            lower = ((scene.EYE - corners[:, 2]) * scene.DISTANCE - away * down) / length
            columns, rows = N / 2 + scene.FOCAL * x / depth, N / 2 + scene.FOCAL * lower / depth
            filled = seen[a, i, 0] > 0
            inked = np.flatnonzero(filled.any(0)), np.flatnonzero(filled.any(1))
            found = [inked[0][0], inked[0][-1] + 1, inked[1][0], inked[1][-1] + 1]
            assert np.allclose(found, [columns.min(), columns.max(), rows.min(), rows.max()], atol=1.01)


def test_round_solids_keep_their_outline_and_cubes_mirror_theirs():
    covered = silhouettes() > 0
    assert (covered[:, :, 1:] != covered[7:8, :, 1:]).mean() < 1e-4
    assert (covered != covered[::-1, ..., ::-1]).mean() < 1e-4
    assert (covered[0, :, 0] != covered[7, :, 0]).any((1, 2)).all()


def test_edges_are_antialiased(renderer):
    """Between a red wall, a blue floor and a green cube there are mixtures, which one ray per pixel has not."""
    hues = (6, 0, 3)
    smooth, coarse = (draw(r, hues, 7, 0, 3) for r in (renderer, shapes3d_renderer.Renderer(samples=1)))

    def mixtures(frame: np.ndarray) -> int:
        below_sky = frame[12:].astype(int)
        solid, wall, floor = below_sky[..., 1] > below_sky[..., 2] + 20, below_sky[..., 0], below_sky[..., 2]
        return int(((wall > 25) & (floor > 25)).sum() + (solid & (floor > 25)).sum())

    assert mixtures(smooth) > 60
    assert mixtures(coarse) < 5


def test_frames_are_channels_last_and_fresh(renderer):
    still, track = torch.zeros(2, dtype=torch.long), torch.zeros(2, 10, dtype=torch.long)
    frames = renderer(still, still, still, track, still, track)
    assert frames.shape == (2, 10, 3, N, N) and frames.dtype == torch.uint8
    assert frames.movedim(2, -1).is_contiguous()
    before = frames.clone()
    frames.zero_()
    assert torch.equal(renderer(still, still, still, track, still, track), before)

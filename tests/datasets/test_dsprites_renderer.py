"""The renderer of dSprites against published frames, against matplotlib's polygons and against known areas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from kpm.datasets import dsprites_renderer as renderer

SHAPES = ("square", "ellipse", "heart")


@pytest.fixture(scope="module")
def frames(mirror: Path) -> tuple[np.ndarray, np.ndarray]:
    """Published frames ``(148, 64, 64)`` and their classes ``(148, 5)``, which were inferred from the pictures."""
    file = mirror / "dsprites" / "dsprites_real_frames_sample.npz"
    if not file.is_file():
        pytest.skip(f"the mirror {mirror} has no frames of dSprites")
    with np.load(file) as held:
        return held["imgs"].astype(bool), held["latents_classes"][:, 1:]


@pytest.mark.real
def test_wrong_pixels_on_published_frames(frames):
    genuine, classes = frames
    wrong = renderer.render(*classes.T) != genuine
    assert wrong.mean() <= 5e-5
    for shape in range(3):
        assert wrong[classes[:, 0] == shape].mean() <= 2e-4, SHAPES[shape]
    assert (~wrong.any((1, 2))).sum() >= 143


@pytest.mark.real
def test_published_frames_differ_only_where_a_row_repeats_the_next(frames):
    """Five of the frames were read off small figures that dropped a few rows and show a neighbour in their place."""
    genuine, classes = frames
    drawn = renderer.render(*classes.T)
    picture, row = np.nonzero((drawn != genuine).any(-1))
    assert len(picture) <= 8
    assert np.array_equal(genuine[picture, row], genuine[picture, row + 1])
    assert np.array_equal(genuine[picture, row], drawn[picture, row + 1])


@pytest.mark.real
def test_heart_follows_the_fitted_outline(mirror):
    """The outline was fitted by radius, degree by degree, without knowing the curve; it is least sure at the cleft."""
    file = mirror / "dsprites" / "heart_outline.csv"
    if not file.is_file():
        pytest.skip(f"the mirror {mirror} has no outline of the heart")
    degrees, radius = np.loadtxt(file, delimiter=",", skiprows=1).T
    x, y = renderer.outlines()[2].T
    angle = np.degrees(np.arctan2(y, np.abs(x)))
    order = np.argsort(angle)
    error = np.abs(np.interp(degrees, angle[order], np.hypot(x, y)[order]) - radius)
    assert np.median(error) < 0.02 and error.mean() < 0.03 and error.max() < 0.35


def outline(shape: int, scale: int, orientation: int, x: int, y: int) -> np.ndarray:
    """Vertices in px, put together with complex numbers (real part right, imaginary part down)."""
    if shape == 0:
        points = np.array([-0.5 - 0.5j, 0.5 - 0.5j, 0.5 + 0.5j, -0.5 + 0.5j])
    elif shape == 1:
        circle = np.exp(2j * np.pi * np.arange(100) / 100) / 2
        points = circle.real * 1.33 + 1j * circle.imag / 1.33
    else:
        t = np.linspace(0, 2 * np.pi, 151)[:-1]
        up = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        points = 16 * np.sin(t) ** 3 / 32 - 1j * (up / 29 + 0.075)
    points = points * 19.2 * (0.5 + 0.1 * scale) * np.exp(-2j * np.pi * orientation / 39)
    points += 16 + 32 * x / 31 + 1j * (16 + 32 * y / 31)
    return np.stack([points.real, points.imag], -1)


def distance(points: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Distance of each point to the closed polygon's boundary."""
    start, along = vertices, np.roll(vertices, -1, 0) - vertices
    offset = points[:, None] - start
    part = np.clip((offset * along).sum(-1) / (along**2).sum(-1), 0, 1)
    return np.linalg.norm(offset - part[..., None] * along, axis=-1).min(1)


def test_pictures_are_filled_polygons():
    """Centres inside matplotlib's polygon are filled, but for those within the 1/256 px vertices may be moved."""
    rng = np.random.default_rng(5)
    latents = np.stack([rng.integers(0, size, 150) for size in renderer.GRID], -1)
    latents[:, 0] = np.arange(150) % 3
    drawn = renderer.render(*latents.T)
    centres = np.stack(np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5), -1).reshape(-1, 2)
    apart = 0
    for latent, picture in zip(latents, drawn):
        vertices = outline(*latent)
        differ = Outline(vertices).contains_points(centres) != picture.ravel()
        apart += differ.sum()
        assert not differ.any() or distance(centres[differ], vertices).max() < 1 / 256
    assert apart < 2e-4 * drawn.size


def test_mean_number_of_pixels_is_the_area():
    """Over all places the count of a shape's pixels is its area: that of the heart's curve is 180 pi."""
    rng = np.random.default_rng(6)
    n = 1500
    areas = (1.0, np.pi / 4, 180 * np.pi / (32 * 29))
    for shape, area in enumerate(areas):
        scale = rng.integers(0, 6, n)
        places = [rng.integers(0, size, n) for size in (40, 32, 32)]
        drawn = renderer.render(np.full(n, shape), scale, *places).sum((1, 2))
        assert np.mean(drawn / (19.2 * (0.5 + 0.1 * scale)) ** 2) == pytest.approx(area, rel=3e-3)


def test_a_centre_on_a_left_or_upper_edge_is_inside():
    corners = np.array([(0, 0), (3, 0), (3, 2), (0, 2)]) * 256 + 128  # from centre (0, 0) to centre (3, 2)
    for vertices in (corners, corners[::-1], np.roll(corners, 1, 0)):
        words = renderer._filled(vertices[None].astype(np.int64))[0]
        assert words.tolist() == [0b111, 0b111] + [0] * 62


def test_first_and_last_orientation_are_the_same():
    rng = np.random.default_rng(7)
    shape, scale, _, x, y = (rng.integers(0, size, 60) for size in renderer.GRID)
    first, last = (renderer.render(shape, scale, orientation, x, y) for orientation in (0, 39))
    assert np.array_equal(first, last)


def test_table_holds_what_render_draws():
    table = renderer.table()
    assert table.shape == (3, 6, 32, 32, 64, 8) and table.dtype == np.uint8
    rng = np.random.default_rng(8)
    shape, scale, _, x, y = (rng.integers(0, size, 400) for size in renderer.GRID)
    drawn = renderer.render(shape, scale, 0, x, y)
    assert drawn.dtype == bool and drawn.shape == (400, 64, 64)
    assert np.array_equal(renderer.pack(drawn), table[shape, scale, x, y])
    left_first = (table[shape, scale, x, y][..., None] >> np.arange(8)) & 1
    assert np.array_equal(left_first.reshape(400, 64, 64), drawn)


def test_every_picture_of_the_table_is_another():
    pictures = renderer.table().reshape(-1, 64 * 8)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures) == 3 * 6 * 32 * 32


@pytest.mark.parametrize(
    "latents, message",
    [
        ((3, 0, 0, 0, 0), "shape: expected 0 to 2, got 3 at index 0"),
        ((0, [0, -1], 0, 0, 0), "scale: expected 0 to 5, got -1 at index 1"),
        ((0, 0, 40, 0, 0), "orientation: expected 0 to 39, got 40"),
        ((0, 0, 0, 0.5, 0), r"x: expected integers of shape \(b,\), got float64"),
        ((0, 0, 0, 0, [[1]]), r"y: expected integers of shape \(b,\), got int64 of shape \(1, 1\)"),
    ],
)
def test_bad_classes(latents, message):
    with pytest.raises(ValueError, match=message):
        renderer.render(*latents)

"""Films of the quad-link pendulum: pixels against PIL, the noise against its Markov chain and the published figures."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from kpm.datasets import quad_link, quad_link_images
from kpm.datasets.quad_link import QuadLink
from kpm.datasets.quad_link_images import Corruption
from kpm.errors import UserError

FAST = QuadLink(substeps=5)


def by_pil(angles):
    """One image as its description words it: lines six wide on 128 x 128, Lanczos to 48 x 48, cut to whole numbers."""
    canvas = Image.new("F", (128, 128), 0.0)
    draw = ImageDraw.Draw(canvas)
    x = y = 64.0
    for link, angle in enumerate(angles):
        sign = 1 if link == 0 else -1
        end = x + sign * 16 * math.sin(angle), y + sign * 16 * math.cos(angle)
        draw.line([(x, y), end], fill=1.0, width=6)
        x, y = end
    small = np.asarray(canvas.resize((48, 48), Image.Resampling.LANCZOS))
    return (np.clip(small, 0, 1) * 255).astype(np.uint8)


def angles(count, seed=0):
    return torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 5


def test_images_are_those_of_pil():
    stretched = torch.tensor([[k * math.pi / 4, *[k * math.pi / 4 + math.pi] * 3] for k in range(8)])  # to the edges
    drawn = torch.cat([angles(300), stretched.double()])
    found = quad_link_images.render(drawn, chunk=100)
    assert found.shape == (308, 1, 48, 48) and found.dtype == torch.uint8
    expected = np.stack([by_pil(row) for row in drawn.tolist()])
    gaps = np.abs(found[:, 0].numpy().astype(int) - expected)
    assert gaps.max() <= 1 and (gaps > 0).mean() < 1e-3  # another order of summation may cut otherwise


def test_a_link_is_where_it_should_be():
    """First link down in the picture at angle 0, the second back up over it, and to the left at a quarter turn."""
    back = quad_link_images.render(torch.zeros(4))[0] > 127
    rows, columns = back.nonzero(as_tuple=True)
    assert rows.max().item() == pytest.approx((64 + 16) * 48 / 128, abs=2)
    assert rows.min().item() == pytest.approx((64 - 32) * 48 / 128, abs=2)
    assert abs(columns.double().mean().item() - 23.5) < 1
    side = quad_link_images.render(torch.tensor([0, math.pi / 2, math.pi / 2, math.pi / 2]))[0] > 127
    assert side.nonzero()[:, 1].min() < 8 and side.nonzero()[:, 1].max() < 27


def test_batches_have_their_shape():
    batch = angles(6).reshape(2, 3, 4)
    found = quad_link_images.render(batch)
    assert found.shape == (2, 3, 1, 48, 48)
    assert torch.equal(found[1, 2], quad_link_images.render(batch[1, 2]))


# Noise


@pytest.mark.parametrize(
    ("corruption", "mean", "none", "all_", "correlation"),
    [
        (Corruption(clean_frames=0), 0.5, 0.166, 0.167, 0.945),
        (Corruption(lower=(0.1, 0.4), upper=(0.6, 0.9), clean_frames=0), 0.5, 0.275, 0.275, 0.936),
    ],
)
def test_visibility_has_the_published_statistics(corruption, mean, none, all_, correlation):
    seen = quad_link_images.visibility(4000, 150, torch.Generator().manual_seed(0), corruption).double()
    assert seen.shape == (4000, 150)
    assert seen.mean().item() == pytest.approx(mean, abs=0.01)
    assert (seen == 0).double().mean().item() == pytest.approx(none, abs=0.01)
    assert (seen == 1).double().mean().item() == pytest.approx(all_, abs=0.01)
    pairs = torch.stack([seen[:, :-1].flatten(), seen[:, 1:].flatten()])
    assert torch.corrcoef(pairs)[0, 1].item() == pytest.approx(correlation, abs=0.004)


def test_walk_is_the_chain_of_its_transition_matrix():
    """Thresholds at 0 and 1 show the walk itself: its autocorrelation and its rests at the ends, from the matrix."""
    cells, spread = 600, 0.2
    grid = (np.arange(cells) + 0.5) / cells
    places = np.concatenate([[0.0], grid, [1.0]])  # the two ends hold what is clipped
    low, high = places - spread, places + spread
    inside = np.clip(
        np.minimum(high[:, None], (grid + 0.5 / cells)) - np.maximum(low[:, None], grid - 0.5 / cells), 0, None
    )
    matrix = np.concatenate([np.clip(-low, 0, None)[:, None], inside, np.clip(high - 1, 0, None)[:, None]], 1) / (
        2 * spread
    )
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-12)
    stationary = np.linalg.matrix_power(matrix, 4096)[0]
    walk = quad_link_images.visibility(
        3000, 400, torch.Generator().manual_seed(1), Corruption(lower=(0, 0), upper=(1, 1), clean_frames=0)
    )[:, 100:].double().numpy()  # fmt: skip
    assert (walk == 0).mean() == pytest.approx(stationary[0], rel=0.03)
    assert (walk == 1).mean() == pytest.approx(stationary[-1], rel=0.03)
    centred = places - stationary @ places
    variance = stationary @ centred**2
    assert walk.var() == pytest.approx(variance, rel=0.02)
    for lag in (1, 5, 15):
        expected = (stationary * centred) @ np.linalg.matrix_power(matrix, lag) @ centred / variance
        found = ((walk[:, lag:] - walk.mean()) * (walk[:, :-lag] - walk.mean())).mean() / walk.var()
        assert found == pytest.approx(expected, abs=0.01)
    assert np.abs(np.diff(walk)).max() <= spread + 1e-6


def test_first_frames_are_clean_and_the_rest_is_a_blend():
    generator = torch.Generator().manual_seed(0)
    images = quad_link_images.render(angles(4 * 60).reshape(4, 60, 4))
    seen = quad_link_images.visibility(4, 60, generator)
    assert (seen[:, :5] == 1).all() and (seen[:, 5:] < 1).any()
    blended = quad_link_images.corrupt(images, seen, generator)
    assert blended.dtype == torch.uint8 and blended.shape == images.shape
    assert torch.equal(blended[seen == 1], images[seen == 1])
    gone = blended[seen == 0].double()
    assert gone.numel() > 10 * 48 * 48
    assert gone.mean().item() == pytest.approx(127, abs=1) and gone.std().item() == pytest.approx(255 / 12**0.5, abs=1)
    assert gone.min() == 0 and gone.max() == 254  # U(0, 255), cut off
    factor = seen[..., None, None, None].expand(images.shape).double()
    noise = (blended.double() + 0.5 - factor * images) / (1 - factor).clamp(min=1e-9)
    partly = (factor > 0) & (factor < 0.7)
    assert noise[partly].mean().item() == pytest.approx(127.5, abs=0.5)
    assert noise[partly].var().item() == pytest.approx(255**2 / 12, rel=0.02)
    rows = noise[(seen > 0) & (seen < 0.7)].flatten(1)
    assert abs(torch.corrcoef(rows[:2])[0, 1]) < 0.1 and abs(torch.corrcoef(rows[:, :2].T)[0, 1]) < 0.5


def test_floats_are_blended_with_noise_up_to_their_own_limit():
    images, seen = torch.full((1, 50, 1, 8, 8), 0.5), torch.linspace(0, 1, 50)[None]
    found = quad_link_images.corrupt(images, seen, torch.Generator().manual_seed(0))
    assert found.dtype == torch.float32 and (found[0, -1] == 0.5).all()
    noise = (found - seen[..., None, None, None] * 0.5)[0, :-1] / (1 - seen[0, :-1, None, None, None])
    assert noise.max().item() == pytest.approx(1.1, abs=0.01) and noise.min().item() == pytest.approx(0, abs=0.01)


# The dataset


@pytest.fixture(scope="module")
def films():
    return quad_link_images.load("train", "1.5k", True, 3, trajectories=30, pendulum=FAST)


def test_face(films):
    assert len(films) == 30 and films.clean.shape == films.corrupted.shape == (30, 50, 1, 48, 48)
    assert films.states.shape == (30, 50, 8) and films.visibility.shape == (30, 50) and films.dt == 0.05
    assert torch.equal(films.frames, films.corrupted)
    assert torch.equal(films.clean[4, 9], quad_link_images.render(films.states[4, 9, ::2]))
    assert (films.states[:, 0, 1::2].abs() < 1e-12).all()
    torch.testing.assert_close(films.joints[2, 3, 0], films.states[2, 3, 0].sin())
    rest = quad_link.simulate(films.states[:, 0], 50, FAST)
    assert (rest[:, :20] - films.states[:, :20]).abs().max() < 1e-6  # before chaos takes over


def test_the_clean_films_do_not_depend_on_the_noise(films):
    clean = quad_link_images.load("train", "1.5k", False, 3, trajectories=30, pendulum=FAST)
    assert clean.corrupted is None and clean.visibility is None and torch.equal(clean.frames, films.clean)
    assert torch.equal(clean.states, films.states)


def test_same_seed_same_films_another_seed_or_split_others(films, monkeypatch):
    def load(split, seed):
        return quad_link_images.load(split, "1.5k", True, seed, trajectories=30, pendulum=FAST)

    again = load("train", 3)
    assert torch.equal(again.corrupted, films.corrupted) and torch.equal(again.visibility, films.visibility)
    monkeypatch.setitem(quad_link_images.SIZES, "1.5k", (1, 300))  # ten frames each will do
    for other in (load("train", 4), load("test", 3), load("validation", 3)):
        assert not torch.isclose(other.states[:, :1, ::2], films.states[None, :, 0, ::2].swapaxes(0, 1)).any()
        assert not torch.equal(other.visibility, films.visibility[:, :10])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quad_link_images.load("trian"), "unknown split 'trian'; did you mean 'train'"),
        (lambda: quad_link_images.load(size="2k"), "unknown size '2k'; did you mean|unknown size '2k'; choose one of"),
        (lambda: quad_link_images.load(seed=-1), "seed: expected a whole number >= 0"),
        (lambda: quad_link_images.load(trajectories=7), "trajectories: 1500 frames cannot be divided into 7"),
        (lambda: quad_link_images.load(trajectories=0), "trajectories: 1500 frames cannot be divided into 0"),
    ],
)
def test_a_users_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quad_link_images.render(torch.zeros(5, 3)), r"angles: expected \(\*batch, 4\), got shape \(5, 3\)"),
        (lambda: quad_link_images.render(torch.full((4,), math.inf)), r"angles\[0\] is not finite"),
        (lambda: Corruption(lower=(0.5, 0.2)), "lower, upper: expected 0 <= l <= l < u <= u <= 1"),
        (lambda: Corruption(spread=-1.0), "spread: expected a finite number >= 0"),
        (lambda: quad_link_images.visibility(0, 5, torch.Generator()), "count: expected"),
        (
            lambda: quad_link_images.corrupt(torch.zeros(2, 3, 4), torch.ones(2, 4), torch.Generator()),
            r"seen: expected the \(n, time\) of images \(2, 3, 4\), got \(2, 4\)",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

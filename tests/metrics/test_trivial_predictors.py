"""Trivial predictors against numpy, and against the published figures of the quad-link films."""

import pytest
import torch

from kpm.datasets import quad_link, quad_link_images
from kpm.metrics.trivial_predictors import trivial_errors


def frames(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("horizon", "warmup"), [(1, 0), (3, 0), (3, 2), (2, 5)])
def test_errors_are_those_of_numpy(horizon, warmup):
    target, observed = frames(3, 9, 2, 4, 5), frames(3, 9, 2, 4, 5, seed=1)
    found = trivial_errors(target, observed=observed, horizon=horizon, warmup=warmup)
    first = max(horizon, warmup)
    y, x = (z.numpy().astype(float) / 255 for z in (target, observed))
    scored = y[:, first:]
    assert found.black == pytest.approx((scored**2).mean())
    assert found.mean_image == pytest.approx(scored.var(1).mean())
    assert found.last_frame == pytest.approx(((scored - x[:, first - horizon : 9 - horizon]) ** 2).mean())
    assert found.noise_floor is None
    given = trivial_errors(target, mean=torch.full((2, 4, 5), 0.25), horizon=horizon, warmup=warmup)
    assert given.mean_image == pytest.approx(((scored - 0.25) ** 2).mean())
    assert given.black == found.black


def test_a_still_film():
    film = frames(2, 1, 6, 6).expand(2, 8, 6, 6)
    errors = trivial_errors(film, clean=film, visibility=torch.ones(2, 8))
    assert errors.mean_image == pytest.approx(0, abs=1e-15) and errors.last_frame == errors.noise_floor == 0


def test_floor_is_the_variance_of_the_noise_that_is_left():
    clean = frames(2, 200, 1, 16, 16)
    seen = torch.linspace(0, 1, 200).expand(2, 200)
    noisy = quad_link_images.corrupt(clean, seen, torch.Generator().manual_seed(0))
    errors = trivial_errors(noisy, clean=clean, visibility=seen)
    assert errors.noise_floor == pytest.approx(((1 - seen[:, 1:].double()) ** 2).mean().item() / 12, rel=0.02)
    assert errors.noise_floor < min(errors.black, errors.mean_image, errors.last_frame)


def test_quad_link_films_have_the_published_errors():
    """Five films of 75 s had 0.0191, 0.0108 (black, mean image), their first 150 frames 0.0054 (last frame); behind
    noise 0.140 (black), 0.069 (last frame), 0.0325 (floor). Here 40 films of 150 frames."""
    generator = torch.Generator().manual_seed(0)
    starts = quad_link.random_starts(40, generator)
    states = quad_link.simulate(starts, 150, quad_link.QuadLink(substeps=10))
    clean = quad_link_images.render(states[..., ::2])
    seen = quad_link_images.visibility(40, 150, generator)
    noisy = quad_link_images.corrupt(clean, seen, generator)
    errors = trivial_errors(clean)
    assert errors.black == pytest.approx(0.0191, rel=0.12)
    assert errors.mean_image == pytest.approx(0.0108, rel=0.15)
    assert errors.last_frame == pytest.approx(0.0054, rel=0.15)
    errors = trivial_errors(noisy, clean=clean, visibility=seen)
    assert errors.black == pytest.approx(0.140, rel=0.12)
    assert errors.last_frame == pytest.approx(0.069, rel=0.12)
    assert errors.noise_floor == pytest.approx(0.0325, rel=0.15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": torch.zeros(2, 5, 4, 4)}, r"target: expected uint8 .* got torch.float32 of shape \(2, 5, 4, 4\)"),
        ({"target": frames(5, 4)}, "target: expected uint8"),
        ({"observed": frames(2, 4, 4, 4)}, r"observed: expected uint8 \(2, 5, 4, 4\), .*\(2, 4, 4, 4\)"),
        ({"mean": torch.zeros(4)}, r"mean: expected shape \(4, 4\), got \(4,\)"),
        ({"clean": frames(2, 5, 4, 4)}, "clean, visibility: expected both or none"),
        (
            {"clean": frames(2, 5, 4, 4), "visibility": torch.ones(5)},
            r"visibility: expected shape \(2, 5\), got \(5,\)",
        ),
        ({"horizon": 5}, "horizon: expected a whole number from 1 to 4, got 5"),
        ({"warmup": -1}, "warmup: expected a whole number from 0 to 4"),
    ],
)
def test_bad_input_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        trivial_errors(**{"target": frames(2, 5, 4, 4), **changes})

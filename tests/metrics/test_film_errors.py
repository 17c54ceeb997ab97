from __future__ import annotations

import pytest
import torch

from kpm.metrics.film_errors import film_errors, trivial_film_errors
from kpm.models.baselines.predictor import FilmPredictor


class LastFrame(FilmPredictor):
    """Believes that a frame is the one before it."""

    def beliefs(self, frames):
        flat = frames.flatten(2)
        return torch.cat([torch.zeros_like(flat[:, :1]), flat], 1)

    def advance(self, beliefs):
        return beliefs

    def decode(self, beliefs):
        return beliefs.unflatten(-1, (1, 48, 48))


def film(seed=0, frames=12):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, frames, 1, 48, 48), generator=draw, dtype=torch.uint8)


def test_the_last_frame_as_a_predictor_is_the_trivial_one():
    observed, clean = film(0), film(1)
    targets, horizons = {"observed": observed, "clean": clean}, (1, 3, 5)
    seen = torch.full((2, 12), 0.5)
    found = film_errors(LastFrame(), observed, targets, horizons, warmup=4)
    trivial = trivial_film_errors(observed, targets, horizons, torch.full((1, 48, 48), 0.5), clean, seen, warmup=4)
    for target, by_horizon in found.items():
        assert list(by_horizon) == [1, 3, 5]
        for h, error in by_horizon.items():
            assert error == pytest.approx(trivial["last_frame"][target][h], rel=1e-5)
    x = targets["clean"].double() / 255
    assert found["clean"][3] == pytest.approx(float((x[:, 5:] - observed[:, 2:-3].double() / 255).square().mean()))
    assert trivial["black"]["clean"][1] == pytest.approx(float(x[:, 5:].square().mean()))
    floor = 0.5 * clean[:, 5:].double() / 255 + 0.25 - observed[:, 5:].double() / 255
    assert trivial["noise_floor"]["observed"][5] == pytest.approx(float(floor.square().mean()))
    assert trivial["noise_floor"]["clean"][5] == 0


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="clean: expected shape"):
        film_errors(LastFrame(), film(), {"clean": film(frames=11)}, (1,), warmup=2)
    with pytest.raises(ValueError, match="warmup"):
        film_errors(LastFrame(), film(), {"clean": film()}, (1,), warmup=12)

"""Puppets stand in for Sprites: same grid, factors that can be told apart, movements that move."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from kpm.datasets import puppets, sprites

STATIC = ("skin", "pants", "top", "hair")


@pytest.fixture(scope="module")
def dataset():
    return puppets.load("all")


def by_hand(skin: int, pants: int, top: int, hair: int, action: int) -> np.ndarray:
    """Eight frames ``(8, 64, 64, 3)``, pixel by pixel: the last opaque layer is what is seen."""
    layers, shoes = puppets.artwork()
    stack = [layers[name][number, action] for name, number in zip(STATIC, (skin, pants, top, hair))] + [shoes[action]]
    frames = np.zeros((8, 64, 64, 3), np.uint8)
    for picture in stack:
        opaque = picture[..., 3] == 255
        frames[opaque] = picture[opaque][:, :3]
    return frames


def changed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Share of pixels that differ, per frame, of sequences ``(time, 3, height, width)``."""
    return (a != b).any(1).float().mean((1, 2))


def test_artwork_is_opaque_or_empty_and_fits_the_grid():
    layers, shoes = puppets.artwork()
    for name in STATIC:
        assert layers[name].shape == (6, 9, 8, 64, 64, 4) and layers[name].dtype == np.uint8
    assert shoes.shape == (9, 8, 64, 64, 4)
    for art in (*layers.values(), shoes):
        assert set(np.unique(art[..., 3])) == {0, 255}
        assert not art[art[..., 3] == 0].any()
        # Nothing is cut off by the border of the tile.
        rim = np.concatenate([art[..., 0, :, 3], art[..., -1, :, 3], art[..., :, 0, 3], art[..., :, -1, 3]], -1)
        assert not rim.any()


def test_a_batch_equals_pictures_composed_pixel_by_pixel(dataset):
    rng = np.random.default_rng(0)
    looks = rng.integers(0, 6, (32, 4))
    actions = np.arange(32) % 9
    labels = {name: torch.from_numpy(looks[:, i]) for i, name in enumerate(STATIC)}
    frames = dataset.compose({**labels, "action": torch.from_numpy(actions)})
    expected = np.stack([by_hand(*look, action) for look, action in zip(looks, actions)])
    assert np.array_equal(frames.permute(0, 1, 3, 4, 2).numpy(), expected)


def test_has_the_face_of_sprites_under_its_own_name(dataset):
    assert (dataset.name, dataset.source) == ("puppets", "synthetic")
    assert dataset.factor_sizes == sprites.FACTOR_SIZES and dataset.shape == (8, 3, 64, 64)
    assert len(dataset) == 6**4 * 9
    for factor, size in dataset.factor_sizes.items():
        assert len(set(dataset.class_names[factor])) == size
    for split in sprites.SPLITS:
        ours, theirs = puppets.load(split).factors, sprites.split_factors(split)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("factor", STATIC)
def test_classes_differ_in_every_frame(dataset, factor):
    rng = np.random.default_rng(7)
    for action in range(9):
        for _ in range(3):
            fixed = {name: torch.full((6,), int(rng.integers(6))) for name in STATIC}
            labels = {**fixed, factor: torch.arange(6), "action": torch.full((6,), action)}
            frames = dataset.compose(labels)
            for i, j in itertools.combinations(range(6), 2):
                assert changed(frames[i], frames[j]).min() >= 0.02, (factor, i, j, action)


def test_skins_are_clearly_different(dataset):
    labels = {name: torch.zeros(6, dtype=torch.long) for name in dataset.factor_sizes}
    frames = dataset.compose({**labels, "skin": torch.arange(6)}).float()
    for i, j in itertools.combinations(range(6), 2):
        distance = (frames[i] - frames[j]).square().sum(1).sqrt()
        assert distance[distance > 0].median() > 40, (i, j)


def test_actions_differ_at_every_time_and_move(dataset):
    labels = {name: torch.ones(9, dtype=torch.long) for name in STATIC}
    frames = dataset.compose({**labels, "action": torch.arange(9)})
    for i, j in itertools.combinations(range(9), 2):
        assert changed(frames[i], frames[j]).min() >= 0.02, (i, j)
    for clip in frames:
        # Slashing ends where it began, as in Sprites; no other two frames in a row are the same.
        assert changed(clip[:-1], clip[1:]).min() >= 0.02


def test_the_right_side_mirrors_the_left(dataset):
    labels = {name: torch.tensor([3, 3]) for name in STATIC}
    for left in (1, 4, 7):
        frames = dataset.compose({**labels, "action": torch.tensor([left, left + 1])})
        assert torch.equal(frames[0].flip(-1), frames[1])


def test_drawn_anew_it_is_the_same():
    first, shoes = puppets.artwork()
    again, shoes_again = puppets.artwork.__wrapped__()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert np.array_equal(shoes, shoes_again) and shoes is not shoes_again

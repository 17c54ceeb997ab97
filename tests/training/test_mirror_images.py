"""Which films are mirror images of each other."""

import pytest
import torch

from kpm import datasets
from kpm.datasets.base import SequenceDataset
from kpm.training.mirror_images import find_mirror_images, some_with
from tests.training.conftest import moving_squares, with_mirror_images


def test_mirror_images_are_found():
    squares = with_mirror_images(moving_squares("train", 8), 3)
    assert find_mirror_images(squares).tolist() == [8, 9, 10, -1, -1, -1, -1, -1, 0, 1, 2]


def test_a_mirror_image_may_be_off_by_the_tolerance():
    frames = torch.zeros(2, 8, 3, 64, 64, dtype=torch.uint8)
    frames[0, ..., :20] = 255
    frames[1, ..., 44:] = 255
    frames[1, :, :, :32, 44:] = 200
    films = SequenceDataset.from_frames(frames, "stripes")
    off = float((films.to_float(frames[:1]) - films.to_float(frames[1:]).flip(-1)).square().mean())
    assert find_mirror_images(films, 1.01 * off).tolist() == [1, 0]
    assert find_mirror_images(films, 0.99 * off).tolist() == [-1, -1]


def test_a_film_that_is_its_own_mirror_image_has_none():
    frames = torch.zeros(2, 8, 3, 64, 64, dtype=torch.uint8)
    frames[0, ..., 20:44] = 255
    assert find_mirror_images(SequenceDataset.from_frames(frames, "stripes")).tolist() == [-1, -1]


def test_characters_seen_from_left_and_right_are_found_and_no_others(real_sprites):
    films = datasets.load("sprites", "validation", "real")
    found, direction = find_mirror_images(films), films.factors["action"] % 3
    assert torch.equal(found >= 0, direction > 0)
    pairs = films.factors["action"][found[direction > 0]]
    assert torch.equal(
        pairs, films.factors["action"][direction > 0] + torch.tensor([0, 1, -1])[direction[direction > 0]]
    )
    for factor in films.static:
        assert torch.equal(films.factors[factor][found[found >= 0]], films.factors[factor][found >= 0])


@pytest.mark.parametrize(("share", "places"), [(1.0, [0, 2, 3]), (0.5, [0, 2]), (0.3, [0, 2]), (0.25, [0])])
def test_the_first_ones_are_taken(share, places):
    images = torch.tensor([7, -1, -1, 0, 5, -1])
    assert some_with(images, torch.tensor([4, 1, 3, 0]), share).tolist() == places

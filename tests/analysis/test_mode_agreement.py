"""Agreement of static components over films: same space with other vectors, planes, and what is refused."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from kpm.analysis.mode_agreement import agreement
from kpm.models.parts import Parts


def parts_along(directions: list[torch.Tensor], seed: int = 0) -> Parts:
    """200 films whose static components lie along lines and planes ``(1 or 2, K)``."""
    generator = torch.Generator().manual_seed(seed)
    modes = [torch.randn(200, len(d), generator=generator, dtype=torch.float64) @ d for d in directions]
    modes = torch.stack(modes, 1)[:, None].expand(-1, 4, -1, -1).float()
    return Parts(modes.sum(2), torch.zeros(200, 4, modes.shape[-1]), torch.ones(len(directions)) + 0j, modes)


def rotation(angle: float) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, s], [-s, c]], dtype=torch.float64)


E = torch.eye(5, dtype=torch.float64)


def test_other_eigenvectors_of_the_same_space():
    found = agreement(parts_along([E[:1], E[1:2]]), parts_along([*(rotation(0.3) @ E[:2])[:, None]], seed=1))
    assert found.space == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found.components, math.cos(0.3), atol=1e-6)


def test_the_same_vectors_whatever_their_lengths_and_order():
    found = agreement(parts_along([E[:1], E[1:2] + E[:1]]), parts_along([-3 * (E[1:2] + E[:1]), 2 * E[:1]], seed=1))
    np.testing.assert_allclose([found.space, *found.components], 1, atol=1e-6)


def test_planes_are_compared_with_planes_and_a_space_that_turns_away_is_seen():
    plane, line = E[1:3], E[:1]
    same = agreement(parts_along([line, plane]), parts_along([line, rotation(1.0) @ plane], seed=1))
    np.testing.assert_allclose([same.space, *same.components], 1, atol=1e-6)
    tilted = torch.stack([E[1], math.cos(0.5) * E[2] + math.sin(0.5) * E[4]])
    other = agreement(parts_along([line, plane]), parts_along([line, tilted], seed=1))
    np.testing.assert_allclose([other.space, *other.components], [math.cos(0.5), 1, math.cos(0.5)], atol=1e-6)
    without = agreement(parts_along([line, plane]), parts_along([line, E[1:2], E[2:3]], seed=1))
    np.testing.assert_allclose([without.space, *without.components], [1, 1, 0], atol=1e-6)


def test_channels_and_other_sizes_are_refused():
    parts = parts_along([E[:1]])
    with pytest.raises(ValueError, match="second: expected parts by modes or axes, got channels"):
        agreement(parts, dataclasses.replace(parts, modes=None))
    with pytest.raises(ValueError, match="second: expected latents of 5 channels, got 3"):
        agreement(parts, parts_along([torch.eye(3, dtype=torch.float64)[:1]]))

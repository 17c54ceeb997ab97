"""Which parts of which film a training swaps."""

import pytest
import torch

from kpm.models.training_swaps import SwapPlan, swap_with_next


@pytest.mark.parametrize("channels", [False, True])
def test_parts_are_those_of_the_next_two_films_or_between_them(channels):
    draw = torch.Generator().manual_seed(1)
    static = torch.randn(7, 1, 5, generator=draw, dtype=torch.float64).expand(7, 8, 5)
    dynamic = torch.randn(7, 8, 5, generator=draw, dtype=torch.float64)
    torch.manual_seed(3)
    nearer, other, between, looks_like = swap_with_next(static, dynamic, SwapPlan(6, channels))
    firsts = 0
    for i in range(6):
        follow = [(i + 1) % 7, (i + 2) % 7]
        if channels and i % 4 > 1:
            kept = ((nearer[i] - static[i])[:, None] - dynamic[follow].movedim(0, 1)).abs().amin(1).amax(0) < 1e-12
            assert kept.any() and not kept.all()
        else:
            kept = torch.full((5,), i % 2 == 1)
        own = torch.where(kept, static[i], 0) + (dynamic[i] if i % 2 == 0 and not (channels and i % 4 > 1) else 0)
        taken = [
            torch.where(kept, 0, static[j]) + (0 if i % 2 == 0 and not (channels and i % 4 > 1) else dynamic[j])
            for j in follow
        ]
        weight = ((between[i] - own - taken[0]) / (taken[1] - taken[0])).flatten()
        assert 0 < weight.mean() < 1
        torch.testing.assert_close(weight, weight.mean().expand_as(weight))
        near = int(weight.mean() > 0.5)
        firsts += near == 0
        torch.testing.assert_close(nearer[i], own + taken[near])
        torch.testing.assert_close(other[i], own + taken[1 - near])
        whose = -1 if channels and i % 4 > 1 else follow[near] if i % 2 == 0 else i
        assert looks_like[i] == whose
    assert 0 < firsts < 6


@pytest.mark.parametrize("middle", [0.0, 0.75, 1.0])
def test_a_share_of_the_points_between_is_from_about_half_way(middle):
    static, dynamic = torch.zeros(4001, 1, 1, dtype=torch.float64), torch.zeros(4001, 1, 1, dtype=torch.float64)
    static[1::3], dynamic[1::3] = 1, 1  # of three films that follow each other one is 1, the others 0
    torch.manual_seed(1)
    swaps = swap_with_next(static, dynamic, SwapPlan(4000, middle=middle))
    between = swaps.between - torch.stack([swaps.nearer, swaps.other]).amin(0)
    apart = (swaps.nearer != swaps.other).flatten()
    share = between.flatten()[apart]  # of the way, seen from one of the two ends
    inside = float(((share >= 0.35) & (share <= 0.65)).double().mean())
    assert inside == pytest.approx(middle + 0.3 * (1 - middle), abs=0.03)


@pytest.mark.parametrize("motion, wanted", [(0.0, 0), (0.3, 3), (0.5, 5), (0.85, 8), (1.0, 10)])
def test_a_share_of_swaps_takes_the_dynamic_part(motion, wanted):
    torch.manual_seed(1)
    static, dynamic = torch.randn(2, 11, 4, 3, dtype=torch.float64)
    nearer, _, _, looks_like = swap_with_next(static, dynamic, SwapPlan(10, motion=motion))
    rest = nearer - static[looks_like]  # each has the whole static part of the film that it should look like
    assert all(((row - dynamic).flatten(1).norm(dim=1) < 1e-9).any() for row in rest)
    looks = (nearer - static[:10]).flatten(1)
    taken = [bool(((row - dynamic.flatten(1)).norm(dim=1) < 1e-9).any()) for row in looks]
    assert sum(taken) == wanted
    assert max((taken[i : i + 2].count(False) for i in range(9)), default=0) <= (1 if motion >= 0.5 else 2)

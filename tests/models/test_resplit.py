"""Static parts without what the motion tells."""

import dataclasses

import pytest
import torch

from kpm.models.parts import Parts
from kpm.models.resplit import find_resplit


def films(n: int = 600, seed: int = 1) -> tuple[Parts, torch.Tensor]:
    """Films with one of five actions each: channels 0 and 3 also hold the action, channel 1 to a third; 2 and 4 do not.

    What a film looks like is in all channels, and leaves a trace in its motion, which is noisy.
    """
    draw = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(99)  # of the world, not of the draw
    waves, places = torch.randn(5, 8, 5, generator=fixed), torch.randn(5, 5, generator=fixed)
    trace = torch.randn(5, 40, generator=fixed)
    action = torch.randint(5, (n,), generator=draw)
    look = torch.randn(n, 5, generator=draw)
    held = (places[action] - places.mean(0)) / places.std(0, correction=0)
    static = look + held * torch.tensor([3.0, 0.7, 0.0, 2.0, 0.0])
    dynamic = waves[action] + 0.02 * (look @ trace).view(n, 8, 5) + 0.2 * torch.randn(n, 8, 5, generator=draw)
    values = torch.ones(n, 1, dtype=torch.complex128)
    return Parts(static[:, None].expand(n, 8, 5).clone(), dynamic, values), action


def between(x: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """Share of the variance of ``(n, K)`` between actions."""
    means = torch.stack([x[action == a].mean(0) for a in range(5)])
    return (means[action] - x.mean(0)).square().mean(0) / x.var(0, correction=0)


def test_constants_of_the_motion_move_to_the_motion_and_nothing_else_does():
    found = find_resplit(films()[0])
    assert found.moved == (0, 3) and found.neighbours == 30
    parts, action = films(400, seed=2)
    average = (parts.static + parts.dynamic).double().mean(1)
    told = between(average, action)
    assert found.explained.tolist() == pytest.approx(told.tolist(), abs=0.15)  # by label, of other films
    new = found.apply(parts)
    torch.testing.assert_close(new.static + new.dynamic, parts.static + parts.dynamic)
    assert torch.equal(new.static, new.static[:, :1].expand_as(new.static))  # the same in all frames
    kept = [1, 2, 4]
    torch.testing.assert_close(new.static[:, 0, kept].double(), average[:, kept], atol=1e-6, rtol=0)
    left = between(new.static[:, 0].double(), action)
    assert told[[0, 3]].min() > 0.75 and left[[0, 3]].max() < 0.05


def test_where_motion_tells_nothing_the_average_is_static():
    parts, _ = films()
    shuffled = dataclasses.replace(parts, dynamic=parts.dynamic.roll(1, 0))
    found = find_resplit(shuffled)
    assert found.moved == () and found.explained.max() < 0.3  # the motions' own averages are told
    average = (shuffled.static + shuffled.dynamic).double().mean(1, keepdim=True)
    again = found.apply(shuffled)
    torch.testing.assert_close(again.static.double(), average.expand(-1, 8, -1), atol=1e-6, rtol=0)
    torch.testing.assert_close(again.static + again.dynamic, shuffled.static + shuffled.dynamic)


def test_what_it_cannot_take():
    parts, _ = films()
    with pytest.raises(ValueError, match="at least 60 films, got 59"):
        find_resplit(parts.take(torch.arange(59)))
    found = find_resplit(parts)
    short = dataclasses.replace(parts, static=parts.static[:, :5], dynamic=parts.dynamic[:, :5])
    with pytest.raises(ValueError, match=r"films with 40 numbers each, got \(600, 5, 5\)"):
        found.apply(short)

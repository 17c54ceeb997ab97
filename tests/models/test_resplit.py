"""The motion of a film as what films of its kind of motion have in common."""

import dataclasses

import pytest
import torch

from kpm.models.parts import Parts
from kpm.models.resplit import AGREEMENT, find_resplit


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
    """Share of the variance of each column of ``(n, K)`` between actions."""
    means = torch.stack([x[action == a].mean(0) for a in range(5)])
    return (means[action] - x.mean(0)).square().mean(0) / x.var(0, correction=0)


def test_the_kinds_are_the_actions():
    found = find_resplit(films()[0])
    assert max(found.silhouettes, key=found.silhouettes.get) == 5 == len(found.kinds)
    assert found.agreement > 0.99
    parts, action = films(400, seed=2)
    kind = found.kind(parts)
    assert len({(int(a), int(k)) for a, k in zip(action, kind)}) == 5  # one to one
    average = (parts.static + parts.dynamic).double().mean(1)
    assert found.explained.tolist() == pytest.approx(between(average, action).tolist(), abs=0.15)  # of other films


def test_what_is_left_to_the_static_part_knows_nothing_of_the_action_and_the_motion_nothing_else():
    found = find_resplit(films(2000)[0])
    parts, action = films(2000, seed=2)
    new = found.apply(parts)
    torch.testing.assert_close(new.static + new.dynamic, parts.static + parts.dynamic)
    told = between((parts.static + parts.dynamic).double().mean(1), action)
    left = between(new.static.double().flatten(1), action)
    assert told[[0, 3]].min() > 0.75 and left.max() < 0.02
    for a in range(5):
        moves = new.dynamic[action == a]
        torch.testing.assert_close(moves, moves[:1].expand_as(moves), rtol=0, atol=0)


def test_the_mean_film_of_an_action_is_its_motion():
    found = find_resplit(films()[0])
    parts, action = films(4000, seed=3)
    z = (parts.static + parts.dynamic).double()
    new = found.apply(parts).dynamic.double()
    for a in range(5):
        expected = z[action == a].mean(0) - z.mean((0, 1))
        assert (new[action == a][0] - expected).abs().max() < 0.6 < expected.abs().max()
        assert torch.corrcoef(torch.stack([new[action == a][0].flatten(), expected.flatten()]))[0, 1] > 0.98


def test_where_motion_tells_nothing_averages_stay_static():
    parts, _ = films()
    moving = parts.dynamic - parts.dynamic.mean(1, keepdim=True)
    shuffled = dataclasses.replace(parts, dynamic=moving.roll(1, 0))
    found = find_resplit(shuffled)
    assert found.explained.max() < 0.05
    again = found.apply(shuffled)
    before, after = shuffled.static.mean(1), again.static.mean(1)
    assert ((after - before).var(0) / before.var(0)).max() < 0.05


@pytest.mark.parametrize("motions", ["a phase", "noise"])
def test_where_there_are_no_kinds_two_halves_do_not_agree(motions):
    draw = torch.Generator().manual_seed(5)
    dynamic = torch.randn(600, 8, 5, generator=draw)
    if motions == "a phase":
        angle = 6.2832 * (torch.rand(600, 1, 1, generator=draw) + torch.arange(8)[:, None] / 8) + torch.arange(5)
        dynamic = angle.cos() + 0.05 * dynamic
    values = torch.ones(600, 1, dtype=torch.complex128)
    static = torch.randn(600, 1, 5, generator=draw).expand(600, 8, 5).clone()
    found = find_resplit(Parts(static, dynamic, values))
    assert found.agreement < AGREEMENT and len(found.silhouettes) == 19


def test_a_constant_channel_is_explained_by_nothing():
    parts, _ = films()
    static, dynamic = parts.static.clone(), parts.dynamic.clone()
    static[..., 2], dynamic[..., 2] = 1.5, 0.0
    found = find_resplit(dataclasses.replace(parts, static=static, dynamic=dynamic))
    assert found.explained[2] == 0 and found.explained.isfinite().all() and found.shared.isfinite().all()


def test_what_it_cannot_take():
    parts, _ = films()
    with pytest.raises(ValueError, match="channels of at least 100 films, got channels of 99"):
        find_resplit(parts.take(torch.arange(99)))
    with pytest.raises(ValueError, match="got modes of 600"):
        find_resplit(dataclasses.replace(parts, modes=parts.static[:, :, None]))
    with pytest.raises(ValueError, match="hardly differ in their motion"):
        find_resplit(dataclasses.replace(parts, dynamic=torch.zeros_like(parts.dynamic)))
    hole = parts.static.clone()
    hole[7] = torch.nan
    with pytest.raises(ValueError, match=r"parts\[7"):
        find_resplit(dataclasses.replace(parts, static=hole))
    found = find_resplit(parts)
    short = dataclasses.replace(parts, static=parts.static[:, :5], dynamic=parts.dynamic[:, :5])
    with pytest.raises(ValueError, match=r"films with latents \(8, 5\), got \(600, 5, 5\)"):
        found.apply(short)

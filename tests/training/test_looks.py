"""What frames of a film have in common, learnt without labels, and swaps that are held to it."""

import dataclasses
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.models.looks import Looks
from kpm.models.training_swaps import SwapPlan
from kpm.training import checkpoint
from kpm.training.looks import learn_looks, looks_loss, spoil, without_colours
from kpm.training.loop import train
from kpm.training.losses import koopman_losses
from tests.training.conftest import small

HUES = torch.tensor([[230, 40, 40], [40, 220, 60], [60, 80, 240]])


def wanderers(split: str, n: int, first: int = 0) -> SequenceDataset:
    """Bars, upright or flat, of three hues, that wander about: six looks, and a way that tells nothing of them."""
    number = torch.arange(first, first + n)

    def compose(chosen):
        b = len(chosen["number"])
        step = torch.arange(6)
        x = (chosen["number"][:, None] * 17 + step * (5 + chosen["number"][:, None] % 7)) % 44
        y = (chosen["number"][:, None] * 29 + step * (3 + chosen["number"][:, None] % 11)) % 44
        across, down = torch.arange(64), torch.arange(64)[:, None]
        wide, high = (torch.where(chosen["flat"] == k, 20, 6)[:, None, None, None] for k in (1, 0))
        x, y = x[..., None, None], y[..., None, None]
        inside = (across >= x) & (across < x + wide) & (down >= y) & (down < y + high)
        return (inside[:, :, None] * HUES[chosen["hue"]].view(b, 1, 3, 1, 1)).to(torch.uint8)

    return SequenceDataset(
        name="wanderers",
        source="synthetic",
        split=split,
        factors={"hue": number % 3, "flat": number // 3 % 2, "number": number},
        factor_sizes={"hue": 3, "flat": 2, "number": first + n},
        static=("hue", "flat"),
        dynamic=(),
        shape=(6, 3, 64, 64),
        compose=compose,
    )


@pytest.fixture(scope="module")
def learnt():
    return learn_looks(wanderers("train", 400), steps=80, seed=1)


def test_films_of_one_look_are_alike_wherever_they_go(learnt):
    """Of films that were not learnt from; the nearest of the others has the same look, by no label."""
    films = wanderers("test", 120, first=1000)
    look = films.factors["hue"] * 2 + films.factors["flat"]
    same, itself = look[:, None] == look, torch.eye(120, dtype=torch.bool)
    margins = []
    torch.manual_seed(3)
    for looks in (learnt, Looks().eval()):
        seen = looks.of_films(films.to_float(films.data))
        torch.testing.assert_close(seen.norm(dim=1), torch.ones(120))
        likeness = seen @ seen.T
        margins.append(float(likeness[same & ~itself].mean() - likeness[~same].mean()))
    assert margins[0] > 0.2 and margins[1] < 0.05


def test_the_same_seed_learns_the_same_and_leaves_chance_alone(learnt):
    torch.manual_seed(5)
    again = learn_looks(wanderers("train", 400), steps=80, seed=1)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
    for name, value in again.state_dict().items():
        assert torch.equal(value, learnt.state_dict()[name]), name
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    other = learn_looks(wanderers("train", 20), steps=1, seed=2)
    assert not torch.equal(*(next(m.parameters()) for m in (again, other)))


def test_spoilt_frames_are_the_same_thing_elsewhere():
    frames = torch.zeros(400, 1, 64, 64)
    frames[:, :, 28:36, 24:40] = 1.0
    torch.manual_seed(1)
    spoilt = spoil(frames)
    assert spoilt.shape == frames.shape and len({float(f.sum()) for f in spoilt}) == 400
    torch.manual_seed(1)
    assert torch.equal(spoil(frames), spoilt)
    middle = F.avg_pool2d(spoilt, 3, 1, 1) > 0.55  # noise is for each frame its own and at most 0.25
    height, width = (middle.any(k).flatten(1).sum(1).float() for k in (3, 2))
    whole = (height > 3) & (height < 16) & (width > 9) & (width < 26)
    assert whole.float().mean() > 0.7
    assert 1.5 < (width / height)[whole].median() < 2.5  # as wide as before for its height
    centre = (middle * torch.arange(64.0)).sum((1, 2, 3)) / middle.sum((1, 2, 3))
    assert centre[whole].std() > 5


def test_frames_without_colours_keep_their_edges():
    frames = wanderers("train", 40).data[:, 0].float() / 255
    which = torch.arange(40) % 2 == 0
    torch.manual_seed(1)
    grey = without_colours(frames, which)
    assert torch.equal(grey[1::2], frames[1::2])
    assert torch.equal(grey[::2].amax(1), grey[::2].amin(1))
    inside = frames.amax(1) > 0
    level = [(g[0][i].unique(), g[0][~i].unique()) for g, i in zip(grey[::2], inside[::2])]
    assert all(len(a) == len(b) == 1 for a, b in level)  # one bar before one ground, as before
    apart = torch.tensor([float(a - b) for a, b in level])
    assert (apart > 0).any() and (apart < 0).any() and apart.abs().max() < 1.5


def test_films_without_colours_are_told_apart_among_themselves(monkeypatch):
    from kpm.training import looks as module

    data, seen, likenesses = wanderers("train", 10), [], []
    honest, cross_entropy = module.without_colours, F.cross_entropy
    monkeypatch.setattr(module, "without_colours", lambda frames, which: (seen.append(which), honest(frames, which))[1])
    monkeypatch.setattr(F, "cross_entropy", lambda x, y: (likenesses.append(x.detach()), cross_entropy(x, y))[1])
    learn_looks(data, steps=2, seed=1, colour_blind=0.25)
    blind = torch.arange(10) < 3  # 0.25 of 10, rounded up
    assert len(seen) == 2 and all(torch.equal(which, blind.repeat(2)) for which in seen)
    assert len(likenesses) == 4
    assert all(torch.equal(x.isinf(), blind[:, None] != blind) for x in likenesses)


@pytest.mark.parametrize("method", ["ssm-skd", "skd"])
def test_a_swap_should_look_like_the_film_whose_static_part_it_has(method, learnt, monkeypatch):
    from kpm.training import looks as module

    monkeypatch.setattr(module, "spoil", lambda frames, strength: frames)
    data = wanderers("train", 6)
    frames = data.to_float(data.data)
    config = small(method, w_looks=3.0, w_swap=2.0)
    torch.manual_seed(1)
    model = KoopmanAutoencoder(config.model()).eval()
    plan = SwapPlan(6, channels=True, looks=True)
    torch.manual_seed(2)
    output = model(frames, 2, plan)
    torch.manual_seed(2)
    blind = model(frames, 2, dataclasses.replace(plan, looks=False))
    for name in ("swapped", "returned", "drawn", "looks_like", "reconstruction"):
        torch.testing.assert_close(getattr(output, name), getattr(blind, name))

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    with torch.no_grad():
        each = [learnt(film).double().numpy() for film in output.drawn]
        wanted = unit(np.stack([learnt(film).double().numpy().mean(0) for film in frames]))
    of = output.looks_like.tolist()
    assert of[2] == of[3] == -1 and of[1] == 1 and of[5] == 5 and of[0] in (1, 2) and of[4] in (5, 0)
    off = [1 - (each[i] @ wanted[of[i]]).mean() for i in (0, 1, 4, 5)]
    loss = looks_loss(output, frames, learnt)
    assert loss.item() == pytest.approx(np.mean(off), rel=1e-5)
    torch.testing.assert_close(koopman_losses(output, frames, config, learnt)["looks"], 3 * loss)
    assert "looks" not in koopman_losses(output, frames, config)
    right = output._replace(drawn=frames[[1, 1, 0, 0, 5, 5]], looks_like=torch.tensor([1, 1, -1, -1, 5, 5]))
    wrong = right._replace(looks_like=torch.tensor([3, 3, -1, -1, 4, 4]))
    assert looks_loss(right, frames, learnt) < 0.2 < looks_loss(wrong, frames, learnt)

    half = looks_loss(right, frames, learnt, 0.5)  # of the four swaps two are looked at without colours
    assert half != looks_loss(right, frames, learnt) and half < 0.7

    # The gradient runs on to the latents that the swap was put together of; without `looks` it stops at the decoder.
    gradient = torch.autograd.grad(loss, [*model.encoder.parameters()], allow_unused=True)
    assert all(g is not None and g.abs().max() > 0 for g, w in zip(gradient, model.encoder.parameters()) if w.ndim > 1)
    stopped = torch.autograd.grad(looks_loss(blind, frames, learnt), [*model.encoder.parameters()], allow_unused=True)
    assert all(g is None or not g.any() for g in stopped)


def test_a_run_learns_looks_first_and_goes_on_with_the_same(tmp_path):
    data = wanderers("train", 21), wanderers("validation", 5, first=500)
    config = small(w_looks=0.5, looks_steps=3, swap_share=1.0)
    options = {"data": data, "device": "cpu", "progress_bar": False}
    result = train(config, tmp_path / "whole", **options)
    assert result.history[-1]["looks"] > 0 and "swap" not in result.history[-1]
    tensors, _ = checkpoint.read(tmp_path / "whole/looks.safetensors")
    for name, value in learn_looks(data[0], 3, config.seed).state_dict().items():
        assert torch.equal(tensors[name], value), name
    train(dataclasses.replace(config, steps=7), tmp_path / "cut", **options)
    train(config, tmp_path / "cut", resume=True, **options)
    for name in ("last", "best", "looks"):
        a, b = (checkpoint.read(tmp_path / folder / f"{name}.safetensors")[0] for folder in ("whole", "cut"))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), name


@pytest.mark.parametrize("changes", [{"w_between": 1.0}, {"precision": "64-true"}, {"looks_colour_blind": 0.5}])
def test_looks_go_with_other_settings(tmp_path, changes):
    data = wanderers("train", 8), wanderers("validation", 4, first=500)
    config = small(w_looks=0.5, looks_steps=2, swap_share=1.0, steps=3, **changes)
    result = train(config, tmp_path / "run", data=data, device="cpu", progress_bar=False)
    assert result.history[-1]["looks"] > 0
    assert ("between" in result.history[-1]) == ("w_between" in changes)
    if not changes.get("w_between"):
        return
    last = dataclasses.replace(config, init=str(tmp_path / "run/best.safetensors"), decoder_only=True)
    train(last, tmp_path / "last", data=data, device="cpu", progress_bar=False)
    before, after = (checkpoint.load_model(tmp_path / f / "best.safetensors")[0] for f in ("run", "last"))
    assert all(torch.equal(a, b) for a, b in zip(before.encoder.parameters(), after.encoder.parameters()))
    assert not all(torch.equal(a, b) for a, b in zip(before.decoder.parameters(), after.decoder.parameters()))


def test_looks_that_were_learnt_otherwise_are_not_taken(tmp_path):
    data = wanderers("train", 8), wanderers("validation", 4, first=500)
    options = {"data": data, "device": "cpu", "progress_bar": False}
    first = small(w_looks=0.5, looks_steps=2, steps=2)
    train(first, tmp_path / "run", **options)
    found = []
    for config in (first, dataclasses.replace(first, looks_steps=3)):
        for name in ("config.json", "log.jsonl", "last.safetensors", "best.safetensors"):
            (tmp_path / "run" / name).unlink()
        stamp = (tmp_path / "run/looks.safetensors").stat().st_mtime_ns
        train(config, tmp_path / "run", **options)
        found.append((tmp_path / "run/looks.safetensors").stat().st_mtime_ns == stamp)
    assert found == [True, False]


def test_what_looks_cannot_be_learnt_from(tmp_path):
    grey = SequenceDataset.from_frames(torch.zeros(4, 3, 1, 64, 64, dtype=torch.uint8), "grey", "train")
    with pytest.raises(UserError, match=r"looks_colour_blind: the films of 'grey' have no colours"):
        learn_looks(grey, 1, 1, colour_blind=0.5)
    assert learn_looks(grey, 1, 1).of_films(torch.zeros(2, 3, 1, 64, 64)).shape == (2, 16)
    with pytest.raises(UserError, match=r"w_looks: needs two films of two frames each, 'wanderers' has 1 of 6"):
        learn_looks(wanderers("train", 1), 1, 1)
    two = types.SimpleNamespace(size=2, device=torch.device("cpu"))
    data = wanderers("train", 8), wanderers("validation", 4)
    with pytest.raises(UserError, match=r"w_looks: needs one process and two films, there are 2"):
        train(small(w_looks=0.5), tmp_path / "run", data=data, device="cpu", team=two)

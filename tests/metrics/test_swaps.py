"""Swaps against a loop over films that takes each one's own operator apart with numpy and decodes it alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from kpm.errors import UserError
from kpm.metrics.swaps import DYNAMIC_SWAP, STATIC_SWAP, Keep, SwapConfig, measure
from kpm.models.parts import Parts, static_map, take_apart
from tests.metrics.toys import Binning, autoencoder, films, judge

CONFIG = SwapConfig(repeats=2, batch_size=5, seed=3)
KEEPS = (STATIC_SWAP, DYNAMIC_SWAP, Keep((2, 5), False), Keep((1,), True))


def static_and_dynamic(z):
    """Of one film ``(t, K)``, by the full eigendecomposition of its operator."""
    values, right = np.linalg.eig(np.linalg.pinv(z[:-1]) @ z[1:])
    left = np.linalg.pinv(right)  # the zeros are defective or nearly so; their share is small enough below
    i = np.argmin(np.abs(np.where(np.abs(values) < 1e-6, np.inf, values) - 1))
    static = np.outer(z @ right[:, i], left[i]).real
    return static, z - static


def slow(model, referee, data, config):
    """Every film by itself; returns counts ``(keeps, factors, repeats)`` of right answers."""
    size, n = config.batch_size, len(data) // config.batch_size
    z = model.encode(data.to_float(data[:])).double().numpy()
    parts = [static_and_dynamic(film) for film in z]
    counts = np.zeros((len(KEEPS), 2, config.repeats))
    for repeat in range(config.repeats):
        draw = torch.Generator().manual_seed(config.seed + 1_000_003 * repeat)
        for chosen in torch.randperm(len(data), generator=draw)[: n * size].view(n, size).tolist():
            first, second = (torch.randperm(size, generator=draw).tolist() for _ in range(2))
            weight = torch.rand(2, size, generator=draw).double().numpy()
            for i in range(size):
                own, a, b = (parts[chosen[j]] for j in (i, first[i], second[i]))
                share = weight[0, i] / weight[:, i].sum()
                mixed = [share * p + (1 - share) * q for p, q in zip(a, b)] if config.partner == "mixture" else a
                for k, keep in enumerate(KEEPS):
                    static = mixed[0].copy()
                    for c in range(z.shape[-1]) if keep.static is None else keep.static:
                        static[:, c] = own[0][:, c]
                    latents = static + (own[1] if keep.dynamic else mixed[1])
                    said, _ = referee.decide(model.decode(torch.tensor(latents[None], dtype=torch.float32)))
                    for f, name in enumerate(("colour", "way")):
                        target = data.factors[name][chosen[i]]
                        if config.reference == "judge":
                            target = referee.decide(data.to_float(data[chosen[i]][None]))[0][name][0]
                        counts[k, f, repeat] += int(said[name][0]) == int(target)
    return counts / (n * size)


@pytest.mark.parametrize(("partner", "reference"), [("mixture", "label"), ("instance", "judge")])
def test_accuracies_equal_those_of_the_loop(partner, reference):
    model, referee, data = autoencoder(), Binning({"colour": 3, "way": 2}), films()
    config = dataclasses.replace(CONFIG, partner=partner, reference=reference)
    scores = measure(model, referee, data, KEEPS, config)
    assert scores.factors == ("colour", "way") and scores.films == 10
    expected = slow(model, referee, data, config)
    np.testing.assert_allclose(scores.accuracy, expected)
    assert len(np.unique(expected)) > 3  # the judge does tell things apart


def test_keeping_everything_gives_the_reconstruction_whoever_the_partner_is():
    model, referee, data = autoencoder(), Binning({"colour": 3, "way": 2}), films(10)
    scores = measure(model, referee, data, [Keep(None, True)], CONFIG)
    frames = model.decode(model.encode(data.to_float(data[:])))
    film, frame = referee.decide(frames)
    for i, f in enumerate(scores.factors):
        right = (film[f] == data.factors[f]).double().mean().item()
        assert scores.accuracy[0, i].tolist() == [right] * 2
        share = (frame[f] == data.factors[f][:, None]).double().mean().item()
        np.testing.assert_allclose(scores.frame_accuracy[0, i], share, atol=1e-7)
        most = np.mean([np.bincount(row).max() / 8 for row in frame[f].numpy()])
        np.testing.assert_allclose(scores.consistency[0, i], most, atol=1e-7)


def test_films_that_change_from_repeat_to_repeat_have_reconstructions_of_their_own():
    model, referee, data = autoencoder(), Binning({"colour": 3, "way": 2}), films(40)
    seen = []
    original = Parts.take
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parts, "take", lambda self, index: seen.append(index) or original(self, index))
        few = measure(model, referee, data, [Keep(None, True)], dataclasses.replace(CONFIG, films=10))
    frames = model.decode(model.encode(data.to_float(data[:])))
    right = (referee.decide(frames)[0]["colour"] == data.factors["colour"]).double()
    each = [right[torch.cat(seen[i : i + 2])].mean().item() for i in (0, 2)]
    assert few.accuracy[0, 0].tolist() == pytest.approx(each) and each[0] != each[1]


def test_a_split_that_comes_class_by_class_gives_partners_of_all_classes():
    """A judge that reads what is there, and parts that hold it: after a swap it must read another class."""
    model, data = autoencoder(), films(40)
    data = data.subset(data.factors["colour"].argsort())
    parts = take_apart(model, data)
    ordered = measure(model, Binning({"colour": 3, "way": 2}), data, KEEPS, CONFIG, parts)
    assert ordered.films == 40
    seen = []
    original = Parts.take
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parts, "take", lambda self, index: seen.append(index) or original(self, index))
        measure(model, Binning({"colour": 3, "way": 2}), data, [STATIC_SWAP], CONFIG, parts)
    colours = [data.factors["colour"][i].unique().numel() for i in seen]
    assert np.mean(colours) > 1.8  # of 3, in batches of 5; in order it would be 1.25


def test_the_same_seed_gives_the_same_and_another_another():
    model, referee, data = autoencoder(), Binning({"colour": 3, "way": 2}), films(20)
    parts = take_apart(model, data)
    once, again = (measure(model, referee, data, KEEPS, CONFIG, parts).accuracy for _ in range(2))
    other = measure(model, referee, data, KEEPS, dataclasses.replace(CONFIG, seed=4), parts).accuracy
    assert (once == again).all() and (once != other).any()


def test_what_cannot_be_measured_is_refused_in_one_line():
    model, data = autoencoder(), films()
    with pytest.raises(UserError, match=r"batch_size: swaps need 256 films at a time, 'noise' \(test\) has 12"):
        measure(model, judge(), data, KEEPS)
    with pytest.raises(UserError, match="the judge does not know factor 'way' of 'noise', only colour, hat"):
        measure(model, judge({"colour": 3, "hat": 2}), data, KEEPS, CONFIG)
    with pytest.raises(UserError, match="the judge knows 4 classes of factor 'colour', 'noise' has 3"):
        measure(model, judge({"colour": 4, "way": 2}), data, KEEPS, CONFIG)
    with pytest.raises(ValueError, match=r"keeps\[1\].static: no component 9, there are 9"):
        measure(model, judge(), data, [STATIC_SWAP, Keep((9,), False)], CONFIG)
    with pytest.raises(UserError, match="films: expected at least the 256 of a batch, got 7"):
        SwapConfig(films=7)
    with pytest.raises(UserError, match="repeats must be at least 2"):
        SwapConfig(repeats=1)
    with pytest.raises(UserError, match="a film needs a partner; got 1"):
        SwapConfig(batch_size=1)
    with pytest.raises(UserError, match="unknown partner 'pair'"):
        SwapConfig(partner="pair")


def test_the_static_part_is_one_map_of_the_latents():
    """Found with numpy: the eigenvectors of all films' operator whose values are nearest 1, with their partners."""
    model, data = autoencoder("batch", static_size=4), films()
    found = static_map(model, data)
    with torch.no_grad():
        z = model.encode(data.to_float(data[:])).double().numpy()
    operator = np.linalg.lstsq(z[:, :-1].reshape(-1, z.shape[2]), z[:, 1:].reshape(-1, z.shape[2]), rcond=None)[0]
    values, right = np.linalg.eig(operator)
    near = np.abs(values - 1).argsort()[:4]
    near = [i for i, v in enumerate(values) if min(np.abs(x - values[near]).min() for x in (v, v.conj())) < 1e-9]
    left = np.linalg.inv(right)
    wanted = (right[:, near] @ left[near]).real
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-7 * np.abs(wanted).max())
    torch.testing.assert_close(torch.from_numpy(z) @ found, take_apart(model, data).static.double(), atol=1e-5, rtol=0)
    assert not found.is_inference()
    assert static_map(autoencoder("sequence"), data) is None


@pytest.mark.parametrize("scope", ["sequence", "batch"])
def test_parts_add_up_and_components_come_from_where_they_are_asked(scope):
    model, data = autoencoder(scope, static_size=1 if scope == "sequence" else 4), films()
    parts = take_apart(model, data)
    z = model.encode(data.to_float(data[:]))
    torch.testing.assert_close(parts.static + parts.dynamic, z, atol=1e-5, rtol=0)
    other = parts.take(torch.arange(11, -1, -1))
    nothing, everything = (torch.full((parts.components,), k) for k in (False, True))
    torch.testing.assert_close(parts.combine(other, everything, True), z, atol=1e-5, rtol=0)
    torch.testing.assert_close(parts.combine(other, nothing, False), z.flip(0), atol=1e-5, rtol=0)
    # What each component adds does not depend on the others, and together they add the whole difference.
    ends = parts.combine(other, everything, False) - parts.combine(other, nothing, False)
    each = [
        parts.combine(other, row, False) - parts.combine(other, nothing, False)
        for row in torch.eye(parts.components) > 0
    ]
    torch.testing.assert_close(torch.stack(each).sum(0), ends, atol=1e-5, rtol=0)


def test_modes_of_one_operator_follow_it():
    """Each static contribution is multiplied by its own operator: real modes by their eigenvalue."""
    model, data = autoencoder("batch", latent_dim=6, static_size=3), films()
    parts = take_apart(model, data)
    z = parts.static.double() + parts.dynamic.double()
    operator = np.linalg.lstsq(z[:, :-1].flatten(0, 1).numpy(), z[:, 1:].flatten(0, 1).numpy(), rcond=None)[0]
    near = sorted(np.linalg.eigvals(operator), key=lambda v: abs(v - 1))[:3]
    expected = sorted({complex(round(v.real, 5), round(abs(v.imag), 5)) for v in near}, key=lambda v: abs(v - 1))
    np.testing.assert_allclose(parts.eigenvalues.numpy(), expected, atol=1e-4)
    for m, value in enumerate(parts.eigenvalues):
        mode = parts.modes[:, :, m].double().numpy()
        moved = mode @ operator
        if value.imag == 0:
            np.testing.assert_allclose(moved, value.real.item() * mode, atol=1e-4)
        else:  # a pair: two steps by the characteristic polynomial
            twice = 2 * value.real.item() * moved - abs(value.item()) ** 2 * mode
            np.testing.assert_allclose(moved @ operator, twice, atol=1e-4)


def test_channels_of_one_operator_are_an_extraction_of_their_own():
    model, data = autoencoder("batch", latent_dim=6, static_size=3), films()
    modes, channels = take_apart(model, data), take_apart(model, data, "channels")
    assert modes.modes is not None and channels.modes is None and channels.components == 6
    torch.testing.assert_close(channels.static + channels.dynamic, modes.static + modes.dynamic, atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="the modes of one film's operator are not those of another's"):
        take_apart(autoencoder(), data, "modes")

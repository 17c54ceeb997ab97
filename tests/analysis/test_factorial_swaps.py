"""Sets measured once, and both parts explored, on films whose latents are known and on small networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kpm.analysis.exhaustive_exploration import exhaustive, power_set, subsets
from kpm.analysis.factorial_swaps import FactorialSwaps, exchanged, explore_dynamic, greedy
from kpm.analysis.greedy_exploration import explore
from kpm.analysis.partition_search import beam, refine
from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError
from kpm.metrics import thesis_tables
from kpm.metrics.swaps import Keep, SwapConfig, measure
from kpm.models.judge import JudgeConfig
from kpm.models.parts import Parts, take_apart
from tests.analysis.tables import Table, random_swaps
from tests.metrics.toys import Binning, autoencoder, films

PLANTED = SwapConfig(repeats=4, batch_size=64)


class Plain(torch.nn.Module):
    """Decodes latents to themselves."""

    def __init__(self):
        super().__init__()
        self.anywhere = torch.nn.Parameter(torch.zeros(()))

    def decode(self, z):
        return z


class Reader(torch.nn.Module):
    """Reads a film's factors off its latents, channel by channel."""

    config = JudgeConfig({"colour": 4, "size": 2, "way": 2, "beat": 2}, width=1)

    def decide(self, z):
        up, rest = z.diff(dim=1).sum(1), z.mean(1)
        first, second = (rest[:, i] > 0 for i in (0, 1))
        film = {
            "colour": 2 * first + second.long(),
            "size": (rest[:, 3] > 0).long(),
            "way": (up[:, 2] > 0).long(),
            "beat": (up[:, 0] > 0).long(),
        }
        return film, {f: v[:, None].expand(-1, z.shape[1]) for f, v in film.items()}


def planted(n=128):
    """Films whose parts are given: the colour is in static channels 0 and 1, the size in 3, nothing in 2 and 4; of the
    dynamic part, channel 2 rises or falls with the way and channel 0 with the beat."""
    number = torch.arange(n)
    labels = {"colour": number % 4, "size": number // 4 % 2, "way": number // 8 % 2, "beat": number // 16 % 2}
    sign = [labels["colour"] // 2, labels["colour"] % 2, number // 32 % 2, labels["size"], number // 64 % 2]
    static = (2.0 * torch.stack(sign, 1) - 1)[:, None].expand(n, 4, 5)
    time = torch.linspace(-1, 1, 4)
    dynamic = torch.zeros(n, 4, 5)
    for channel, f in ((2, "way"), (0, "beat")):
        dynamic[:, :, channel] = 0.1 * time * (2 * labels[f] - 1)[:, None]
    data = SequenceDataset(
        name="planted",
        source="synthetic",
        split="test",
        factors=labels,
        factor_sizes=dict(Reader.config.classes),
        static=("colour", "size"),
        dynamic=("way", "beat"),
        shape=(4, 5),
        compose=lambda chosen: torch.zeros(len(chosen["colour"]), 4, 5, dtype=torch.uint8),
    )
    return data, Parts(static, dynamic, torch.ones(n, 1, dtype=torch.complex128))


@pytest.mark.parametrize("dataset", thesis_tables.D_MF)
def test_the_score_of_a_partition_is_the_published_one(dataset):
    rows, explored = thesis_tables.FACTORIAL[dataset], thesis_tables.STATIC[dataset]
    classes = {f: thesis_tables.CLASSES[dataset][f] for f in next(iter(rows.values()))}
    table = np.array([[rows[f][g] for g in classes] for f in explored])
    swaps = FactorialSwaps(lambda keeps: table[[k.static[0] for k in keeps], :, None], classes, explored, len(table))
    assert swaps.d_mf(np.arange(len(table))[None])[0] == pytest.approx(thesis_tables.D_MF[dataset], abs=6e-5)


def test_a_set_is_measured_once_however_it_is_written():
    swaps, table = random_swaps(0, 4, 2)
    first = swaps.accuracy([(2, 0), (0, 2), (1,)])
    again = swaps.accuracy([(1,), (0, 2), ()])
    assert table.asked == [(0, 2), (1,), ()] and swaps.evaluations == 3
    assert (first[0] == first[1]).all() and (first[2] == again[0]).all() and (first[0] == again[1]).all()


@pytest.mark.parametrize("search", [refine, beam])
def test_planted_static_factors_are_found(search):
    data, parts = planted()
    swaps = FactorialSwaps.of(Plain(), Reader(), data, PLANTED, parts)
    found = search(swaps)
    assert found.partition["size"] == (3,) and found.partition["colour"] == (0, 1)
    np.testing.assert_array_equal(swaps.accuracy([(0, 1), (3,)])[[0, 1], [0, 1]], 1)
    assert 0.9 < found.d_mf < 1


def test_planted_dynamic_factors_are_found_in_their_channels():
    data, parts = planted()
    found = explore_dynamic(Plain(), Reader(), data, PLANTED, parts)
    assert found.factors == ("way", "beat")
    assert 2 in found.partition["way"] and 0 in found.partition["beat"]
    np.testing.assert_array_equal((found.reference + found.gain)[[2, 0], [0, 1]], 1)  # kept, so always read
    np.testing.assert_array_equal(found.gain[[1, 3, 4]], 0)  # nothing moves there
    swaps = FactorialSwaps.of(Plain(), Reader(), data, PLANTED, parts, role="dynamic")
    assert swaps.explored == ("way", "beat") and swaps.factors == ("way", "beat", "colour", "size")
    assert refine(swaps).partition == {"way": (2,), "beat": (0,)}
    np.testing.assert_array_equal(greedy(swaps).gain, found.gain)
    # What is static is swapped throughout, so it is read no better than by those who keep nothing of it.
    kept = measure(Plain(), Reader(), data, [Keep((), False)], PLANTED, parts).accuracy[0, :2]
    np.testing.assert_array_equal(swaps.accuracy([(2,)])[0, 2:], kept)


@pytest.mark.parametrize("scope", ["sequence", "batch"])
def test_a_kept_dynamic_channel_is_the_own_films_and_all_else_the_mixtures(scope):
    """Latents put together by hand, film by film, with the partners the swaps drew."""
    model, referee, data = (
        autoencoder(scope, static_size=1 if scope == "sequence" else 4),
        Binning({"colour": 3, "way": 2}),
        films(),
    )
    config, parts = SwapConfig(repeats=2, batch_size=6, seed=5), take_apart(model, data)
    swaps = FactorialSwaps.of(model, referee, data, config, parts, role="dynamic")
    kept, right = (1, 4), np.zeros((2, 2))
    for repeat in range(2):
        draw = torch.Generator().manual_seed(config.seed + 1_000_003 * repeat)
        for index in torch.randperm(12, generator=draw).view(2, 6):
            first, second = (index[torch.randperm(6, generator=draw)] for _ in range(2))
            weight = torch.rand(2, 6, generator=draw)
            for i, film in enumerate(index):
                share = weight[0, i] / weight[:, i].sum()
                static, dynamic = (
                    share * x[first[i]] + (1 - share) * x[second[i]] for x in (parts.static, parts.dynamic)
                )
                for c in kept:
                    dynamic[:, c] = parts.dynamic[film, :, c]
                said, _ = referee.decide(model.decode((static + dynamic)[None]))
                right[:, repeat] += [int(said[f][0] == data.factors[f][film]) for f in ("way", "colour")]
    np.testing.assert_allclose(swaps.accuracy([kept])[0], right / 12)
    assert swaps.components == model.config.latent_dim and swaps.explored == ("way",)


def test_roles_exchanged_twice_are_as_before():
    data, parts = planted(8)
    turned, turned_parts = exchanged(data, parts)
    assert (turned.static, turned.dynamic) == (data.dynamic, data.static)
    back, back_parts = exchanged(turned, turned_parts)
    assert back.static == data.static and back_parts.static is parts.static and back_parts.dynamic is parts.dynamic
    still = SequenceDataset.from_frames(torch.zeros(2, 4, 1, 2, 2, dtype=torch.uint8), "mine")
    with pytest.raises(UserError, match="'mine' has no dynamic factor to explore"):
        exchanged(still, parts)
    with pytest.raises(UserError, match="there is no factor to explore"):
        FactorialSwaps(Table(None), {"way": 2}, (), 3)


@pytest.mark.parametrize("scope", ["sequence", "batch"])
def test_on_a_model_every_set_is_measured_as_it_would_be_by_itself(scope):
    model, referee, data = (
        autoencoder(scope, 6, 1 if scope == "sequence" else 4),
        Binning({"colour": 3, "way": 2}),
        films(),
    )
    config, parts = SwapConfig(repeats=2, batch_size=6), take_apart(model, data)
    swaps = FactorialSwaps.of(model, referee, data, config)
    components = (0, swaps.components - 1)
    found = exhaustive(swaps, components)
    for i, chosen in enumerate(subsets(components)):
        scores = measure(model, referee, data, [Keep(chosen, False)], config, parts)
        np.testing.assert_array_equal(found.accuracy[i, 0], scores.accuracy[0, 0])
    whole, same = greedy(swaps), explore(model, referee, data, config, parts=parts)
    assert whole.partition == same.partition
    np.testing.assert_array_equal(whole.gain, same.gain)
    best = refine(swaps)
    assert best.d_mf >= best.start_d_mf == swaps.d_mf(swaps.owners(same.partition)[None])[0]
    assert power_set(swaps, components).d_mf >= found.best_d_mf.d_mf

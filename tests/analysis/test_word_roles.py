"""Jumps, means per word, pairs, correlations with their null distribution, and the truth of a grammar."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score

from kpm.analysis import word_roles, word_scores, word_truth
from kpm.analysis.kann import KANN
from kpm.datasets import lexicon, reviews

WORDS, HIDDEN = 30, 8


@dataclasses.dataclass
class Read:
    """Texts as a random network reads them; word 2 to 9 push the state along an axis by what they mean."""

    states: torch.Tensor
    ids: torch.Tensor
    lengths: torch.Tensor
    meaning: torch.Tensor


def texts(n: int = 60, time: int = 25, seed: int = 0) -> Read:
    rng = np.random.default_rng(seed)
    ids, lengths = rng.integers(2, WORDS, (n, time)), rng.integers(1, time + 1, n)
    meaning = np.where(np.arange(WORDS) < 10, rng.normal(size=WORDS), 0)
    into, axis = 0.3 * rng.normal(size=(WORDS, HIDDEN)), rng.normal(size=HIDDEN)
    into += 0.5 * meaning[:, None] * axis
    turn = rng.normal(size=(HIDDEN, HIDDEN)) / np.sqrt(HIDDEN)
    h, states = np.zeros((n, HIDDEN)), []
    for t in range(time):
        h = np.tanh(0.9 * h @ turn + into[ids[:, t]])
        states.append(h)
    return Read(*map(torch.from_numpy, (np.stack(states, 1), ids, lengths, meaning)))


@pytest.fixture(scope="module")
def read() -> Read:
    return texts()


@pytest.fixture(scope="module", params=["svd", "pca"])
def kann(read, request) -> KANN:
    return KANN(basis=request.param).fit(read.states, read.lengths)


def plain_jumps(kann, h, j):
    """Jumps of one text in mode j, by the definition, word by word."""
    mean, vector = np.asarray(kann.mean_), np.asarray(kann.eigenvectors_)[:, j]
    value, before, found = complex(kann.eigenvalues_[j]), (np.zeros(HIDDEN) - mean) @ vector, []
    for state in h:
        after = (state - mean) @ vector
        found.append((after - value * before, abs(after) - abs(before), after))
        before = after
    return np.array(found)


def test_jumps_are_what_each_word_adds(read, kann):
    chosen, planar = word_roles.choose(kann, [1, *kann.pairs_])
    assert chosen[0] == 1 and len(chosen) == 1 + len(kann.pairs_)
    values = torch.as_tensor(kann.eigenvalues_)
    assert planar.tolist() == [bool(values[j].imag) for j in chosen]
    assert all(values[j].imag >= 0 for j in chosen[1:])
    trace = word_roles.trace(kann, read.states, [1, *kann.pairs_])
    for k, j in enumerate(chosen):
        added, change, amplitude = plain_jumps(kann, read.states[3].numpy(), j).T
        np.testing.assert_allclose(trace.added[3, :, k], added, atol=1e-12)
        np.testing.assert_allclose(trace.change[3, :, k], change.real, atol=1e-12)
        np.testing.assert_allclose(trace.magnitude[3, :, k], abs(amplitude), atol=1e-12)
    np.testing.assert_allclose(trace.magnitude, kann.magnitude(read.states, chosen), atol=1e-12)
    phase = torch.linspace(0, 3, len(chosen), dtype=torch.float64)
    turned = np.exp(-1j * phase.numpy()) * trace.added.numpy()
    np.testing.assert_allclose(trace.signed(phase), turned.real, atol=1e-12)
    start = read.states[:, 4]
    later = word_roles.trace(kann, read.states[:, 5:], start=start).added
    torch.testing.assert_close(later, word_roles.trace(kann, read.states).added[:, 5:])


def test_a_mode_as_a_direction_has_the_same_jumps(read, kann):
    trace = word_roles.trace(kann, read.states, list(range(HIDDEN)))
    same = word_roles.trace(kann, read.states, directions=torch.as_tensor(kann.eigenvectors_))
    for name in ("amplitude", "added", "change"):
        torch.testing.assert_close(getattr(trace, name), getattr(same, name), atol=1e-9, rtol=1e-9)


def test_the_jump_in_any_direction_is_what_was_not_foreseen(read, kann):
    directions = word_scores.random_directions(HIDDEN, 3, torch.Generator().manual_seed(0))
    trace = word_roles.trace(kann, read.states, directions=directions)
    before = torch.nn.functional.pad(read.states[:, :-1], (0, 0, 1, 0))
    plain = (read.states - torch.as_tensor(kann.predict(before))).numpy() @ directions.numpy()
    np.testing.assert_allclose(trace.added, plain, atol=1e-12)
    change = abs((read.states - torch.as_tensor(kann.mean_)).numpy() @ directions.numpy())
    np.testing.assert_allclose(trace.change[:, 1:], change[:, 1:] - change[:, :-1], atol=1e-12)


@pytest.mark.parametrize("first", [False, True])
def test_means_per_word_add_up_over_batches(read, kann, first):
    totals, counts = np.zeros((WORDS, len(kann.pairs_)), complex), np.zeros(WORDS, int)
    chosen, _ = word_roles.choose(kann)
    for h, ids, length in zip(read.states.numpy(), read.ids.numpy(), read.lengths.numpy()):
        jumps = np.stack([plain_jumps(kann, h, j)[:, 0] for j in chosen], 1)
        for t in range(0 if first else 1, length):
            totals[ids[t]] += jumps[t]
            counts[ids[t]] += 1
    noise = read.states.clone()
    for i, length in enumerate(read.lengths):
        noise[i, length:] = torch.nan  # what stands behind a text does not matter
    tallies = [
        word_roles.tally_states(noise[b : b + 25], read.ids[b : b + 25], read.lengths[b : b + 25], WORDS, first)
        for b in range(0, 60, 25)
    ]
    tally = sum(tallies)
    np.testing.assert_array_equal(tally.count, counts)
    plain = totals / np.maximum(counts, 1)[:, None]
    np.testing.assert_allclose(word_roles.word_jumps(tally, kann), plain, atol=1e-12)
    trace = word_roles.trace(kann, read.states)
    direct = word_roles.tally_words(trace.added, read.ids, read.lengths, WORDS, first)
    np.testing.assert_allclose(direct.mean, plain, atol=1e-12)
    assert (word_roles.word_innovations(tally, kann)[:2] == 0).all()  # words that never occur


def test_the_readout_effect_is_the_mean_change_of_the_logit(read, kann):
    weight = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tally = word_roles.tally_states(read.states, read.ids, read.lengths, WORDS)
    logits = (read.states @ weight - 7).numpy()
    changes = [[] for _ in range(WORDS)]
    for z, ids, length in zip(logits, read.ids.numpy(), read.lengths.numpy()):
        for t in range(1, length):
            changes[ids[t]].append(z[t] - z[t - 1])
    plain = [np.mean(c) if c else 0 for c in changes]
    np.testing.assert_allclose(word_roles.readout_effect(tally, weight), plain, atol=1e-12)


@pytest.mark.parametrize("within", [1, 2])
def test_pairs_with_and_without_the_first_word(read, kann, within):
    values = word_roles.trace(kann, read.states).change
    pairs = [(tuple(range(10, 20)), 7), ((2, 3, 5), (8, 9)), ((5, 6, 7), (5, 6, 7))]
    tallies = [
        word_roles.pair_effects(values[b : b + 30], read.ids[b : b + 30], read.lengths[b : b + 30], pairs, within)
        for b in (0, 30)
    ]
    effects = sum(tallies)
    for k, (first, second) in enumerate(pairs):
        groups = ([], [])
        for v, ids, length in zip(values.numpy(), read.ids.tolist(), read.lengths.tolist()):
            for t in range(1, length):
                if ids[t] in np.atleast_1d(second):
                    before = set(ids[max(0, t - within) : t]) & set(np.atleast_1d(first).tolist())
                    groups[0 if before else 1].append(v[t])
        for i, rows in enumerate(groups):
            assert effects.count[k, i] == len(rows) > 1
            np.testing.assert_allclose(effects.mean[k, i], np.mean(rows, 0), atol=1e-12)
            np.testing.assert_allclose(effects.error[k, i], stats.sem(rows, 0), rtol=1e-8)
        apart, error = effects.difference
        welch = stats.ttest_ind(*groups, equal_var=False)
        np.testing.assert_allclose(apart[k] / error[k], welch.statistic, rtol=1e-8)
    none = word_roles.pair_effects(values, read.ids, read.lengths, [(0, 7)])
    assert none.count[0, 0] == 0 and torch.isinf(none.error[0, 0]).all() and (none.mean[0, 0] == 0).all()


def test_ranks_are_those_of_scipy():
    x = np.random.default_rng(0).integers(0, 9, (50, 7)).astype(float)
    np.testing.assert_array_equal(word_scores.ranks(torch.from_numpy(x)), stats.rankdata(x, axis=0))


def test_correlations_are_those_of_scipy_and_of_least_squares():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 3)) + 1j * rng.normal(size=(40, 3)), rng.normal(size=40)
    x[:, 2] = (2 - 1j) * x[:, 2].real  # a plane that is a line
    weights = rng.uniform(1, 5, 40)
    t = [torch.from_numpy(part) for part in (x, y, weights)]
    value, phase = word_scores.correlate(*t, torch.ones(3, dtype=torch.bool))
    for k in range(3):
        predictors = np.stack([x[:, k].real, x[:, k].imag], 1)
        fit = LinearRegression().fit(predictors, y, weights)
        assert value[k] == pytest.approx(np.sqrt(fit.score(predictors, y, weights)), rel=1e-9)
        angles = np.linspace(0, 2 * np.pi, 721)
        along = (np.exp(-1j * angles)[:, None] * x[:, k]).real
        found = [np.cov(a, y, aweights=weights) for a in along]
        best = np.array([c[0, 1] / np.sqrt(c[0, 0] * c[1, 1]) if c[0, 0] > 1e-9 else -1 for c in found])
        assert best.max() == pytest.approx(float(value[k]), abs=1e-4)
        if k < 2:
            assert abs(np.exp(1j * angles[best.argmax()]) - np.exp(1j * float(phase[k]))) < 2e-2
    even = torch.ones(40, dtype=torch.float64)
    value, phase = word_scores.correlate(t[0], t[1], even, torch.zeros(3, dtype=torch.bool))
    for k in range(3):
        assert float(value[k] * phase[k].cos()) == pytest.approx(stats.pearsonr(x[:, k].real, y).statistic)


def test_scores_of_modes_against_numpy(read, kann):
    tally = word_roles.tally_states(read.states, read.ids, read.lengths, WORDS)
    target = read.meaning.clone()
    target[12] = torch.nan
    scores = word_scores.score_modes(tally, kann, target, torch.Generator().manual_seed(3), draws=50, least=5)
    kept = (tally.count.numpy() >= 5) & ~np.isnan(target.numpy()) & (np.arange(WORDS) > 1)
    assert scores.words == kept.sum()
    weights, jumps = np.sqrt(tally.count.numpy()[kept]), word_roles.word_jumps(tally, kann).numpy()[kept]
    for k, planar in enumerate(word_roles.choose(kann)[1]):
        predictors = np.stack([jumps[:, k].real, jumps[:, k].imag], 1)[:, : 2 if planar else 1]
        fit = LinearRegression().fit(predictors, target[kept], weights)
        assert scores.pearson.value[k] ** 2 == pytest.approx(fit.score(predictors, target[kept], weights), rel=1e-8)
        along = (np.exp(-1j * float(scores.phase[k])) * jumps[:, k]).real
        c = np.cov(stats.rankdata(along), stats.rankdata(target[kept]), aweights=weights)
        assert scores.spearman.value[k] == pytest.approx(c[0, 1] / np.sqrt(c[0, 0] * c[1, 1]), rel=1e-8)
    null = scores.pearson.null_planar.numpy()
    k = int(scores.pearson.planar.int().argmax())
    value = float(scores.pearson.value[k])
    assert scores.pearson.p[k] == pytest.approx((1 + (null >= value).sum()) / 51)
    assert scores.pearson.z[k] == pytest.approx((value - null.mean()) / null.std(ddof=1))
    again = word_scores.score_modes(tally, kann, target, torch.Generator().manual_seed(3), draws=50, least=5)
    torch.testing.assert_close(again.pearson.p, scores.pearson.p, rtol=0, atol=0)


@pytest.mark.parametrize("planar", [False, True])
def test_p_values_are_uniform_for_random_modes(read, planar):
    kann = KANN().fit(read.states, read.lengths)
    tally = word_roles.tally_states(read.states, read.ids, read.lengths, WORDS)
    innovations = word_roles.word_innovations(tally, kann)
    draw = torch.Generator().manual_seed(7)
    modes, null = (word_roles.project(innovations, word_scores.random_directions(HIDDEN, k, draw)) for k in (400, 4000))
    free = torch.full((400,), planar)
    scores = word_scores.score_columns(modes, null.real, null, tally.count, read.meaning, free, least=1)
    for part in (scores.pearson, scores.spearman):
        assert stats.kstest(part.p.numpy(), "uniform").pvalue > 0.05
        assert abs(float(part.z.mean())) < 0.15 and 0.85 < float(part.z.std()) < 1.15


def test_without_the_freedom_of_phase_the_null_would_not_fit(read):
    """The null of complex modes needs two directions: against single ones p-values crowd near zero."""
    kann = KANN().fit(read.states, read.lengths)
    tally = word_roles.tally_states(read.states, read.ids, read.lengths, WORDS)
    innovations = word_roles.word_innovations(tally, kann)
    draw = torch.Generator().manual_seed(7)
    modes, null = (word_roles.project(innovations, word_scores.random_directions(HIDDEN, 400, draw)) for _ in "ab")
    args = tally.count, read.meaning, torch.ones(400, dtype=torch.bool)
    wrong = word_scores.score_columns(modes, null.real, null.real, *args, least=1)
    assert stats.kstest(wrong.pearson.p.numpy(), "uniform").pvalue < 1e-6


def test_scores_of_magnitudes(read):
    kann = KANN().fit(read.states, read.lengths)
    directions = word_scores.random_directions(HIDDEN, 20, torch.Generator().manual_seed(1))
    tally = sum(
        word_scores.tally_magnitudes(
            kann, read.states[b : b + 30], read.ids[b : b + 30], read.lengths[b : b + 30], WORDS, directions
        )
        for b in (0, 30)
    )
    assert tally.total.shape == (WORDS, len(kann.pairs_) + 40)
    scores = word_scores.score_magnitudes(tally, kann, read.meaning, least=5)
    kept = (tally.count.numpy() >= 5) & (np.arange(WORDS) > 1)
    weights, y = np.sqrt(tally.count.numpy()[kept]), read.meaning.numpy()[kept]

    def plain(columns):
        change = word_roles.trace(kann, read.states, directions=columns).change
        mean = word_roles.tally_words(change, read.ids, read.lengths, WORDS).mean.numpy()[kept]
        c = [np.cov(column, y, aweights=weights) for column in mean.T]
        return [abs(m[0, 1]) / np.sqrt(m[0, 0] * m[1, 1]) for m in c]

    chosen, _ = word_roles.choose(kann)
    np.testing.assert_allclose(scores.pearson.value, plain(torch.as_tensor(kann.eigenvectors_)[:, chosen]), rtol=1e-8)
    np.testing.assert_allclose(scores.pearson.null_single, plain(directions.real), rtol=1e-8)
    np.testing.assert_allclose(scores.pearson.null_planar, plain(directions), rtol=1e-8)


def test_a_lexicon_by_word():
    target = word_scores.as_target({"good": 1.0, "bad": -2.0, "odd": 3.0}, {"<pad>": 0, "bad": 1, "the": 2, "good": 3})
    np.testing.assert_array_equal(target, [np.nan, -2, np.nan, 1])


def test_correlation_with_the_truth_of_tokens(read, kann):
    rng = np.random.default_rng(5)
    truth = read.meaning[read.ids] + 0.1 * torch.from_numpy(rng.normal(size=read.ids.shape))
    tally = sum(
        word_truth.tally_truth(kann, read.states[b : b + 20], truth[b : b + 20], read.lengths[b : b + 20])
        for b in (0, 20, 40)
    )
    association, phase = word_truth.score_truth(tally, kann, torch.Generator().manual_seed(0), draws=30)
    seen = np.arange(25) < read.lengths.numpy()[:, None]
    seen[:, 0] = False
    jumps, y = word_roles.trace(kann, read.states).added.numpy()[seen], truth.numpy()[seen]
    assert tally.count == len(y)
    for k, planar in enumerate(association.planar):
        predictors = np.stack([jumps[:, k].real, jumps[:, k].imag], 1)[:, : 2 if planar else 1]
        score = LinearRegression().fit(predictors, y).score(predictors, y)
        assert association.value[k] ** 2 == pytest.approx(score, rel=1e-6, abs=1e-9)
        along = (np.exp(-1j * float(phase[k])) * jumps[:, k]).real
        assert stats.pearsonr(along, y).statistic == pytest.approx(float(association.value[k]), rel=1e-6)
    directions = word_scores.random_directions(HIDDEN, 30, torch.Generator().manual_seed(0))
    null = word_roles.trace(kann, read.states, directions=directions).added.numpy()[seen]
    plain = [abs(stats.pearsonr(column.real, y).statistic) for column in null.T]
    np.testing.assert_allclose(association.null_single, plain, rtol=1e-6)


def test_roles_of_the_grammar_by_area_under_the_curve():
    data = reviews.write(60, 3)
    ids, lengths, _ = data.batch(torch.arange(60))
    roles, polarity = data.truth(torch.arange(60))
    rng = np.random.default_rng(0)
    values = polarity.double() + torch.from_numpy(rng.normal(size=ids.shape))
    values = torch.stack([values, -values, torch.from_numpy(rng.normal(size=ids.shape))], -1)
    tally = sum(
        word_truth.tally_roles(values[b : b + 30], roles[b : b + 30], lengths[b : b + 30], 7, 1.0) for b in (0, 30)
    )
    seen = np.arange(ids.shape[1]) < lengths.numpy()[:, None]
    seen[:, 0] = False
    flat, role = values.numpy()[seen], roles.numpy()[seen]
    for name in ("positive", "negative", "amplifier", "negation"):
        k = reviews.ROLES.index(name)
        plain = [roc_auc_score(role == k, column) for column in flat.T]
        np.testing.assert_allclose(tally.auc(k), plain, atol=1e-3)
        pair = (role == k) | (role == 0)
        plain = [roc_auc_score(role[pair] == k, column[pair]) for column in flat.T]
        np.testing.assert_allclose(tally.auc(k, against=0), plain, atol=1e-3)
    tokens = word_roles.tally_words(polarity.unsqueeze(-1), ids, lengths, len(data.vocabulary))
    known = lexicon.known().weights
    assert stats.spearmanr(tokens.mean[:, 0][tokens.count > 5], known[tokens.count > 5]).statistic > 0.8


def test_what_does_not_fit_is_named(read):
    kann = KANN().fit(read.states, read.lengths)
    tally = word_roles.tally_states(read.states, read.ids, read.lengths, WORDS)
    draw = torch.Generator()
    with pytest.raises(ValueError, match=r"states: expected real \(\*batch, time, 8\)"):
        word_roles.trace(kann, read.states[..., :4])
    with pytest.raises(ValueError, match=r"directions: expected \(8, m\)"):
        word_roles.trace(kann, read.states, directions=torch.ones(4, 2))
    with pytest.raises(ValueError, match="no conjugate pair"):
        real = [g[0] for g in kann.pairs_ if len(g) == 1]
        word_roles.choose(kann, [(real[0], next(g[0] for g in kann.pairs_ if len(g) == 2))])
    with pytest.raises(ValueError, match=r"lengths\[0\]: not from 0 to 25"):
        word_roles.tally_states(read.states, read.ids, read.lengths + 50, WORDS)
    with pytest.raises(ValueError, match="ids: expected 0 to 9"):
        word_roles.tally_states(read.states, read.ids, read.lengths, 10)
    with pytest.raises(ValueError, match="words were seen 100000 times"):
        word_scores.score_modes(tally, kann, read.meaning, draw, least=100000)
    with pytest.raises(ValueError, match="target: is the same"):
        word_scores.score_modes(tally, kann, torch.ones(WORDS), draw)
    with pytest.raises(ValueError, match=r"target.*not finite"):
        word_scores.score_modes(tally, kann, torch.full((WORDS,), torch.inf), draw)
    with pytest.raises(ValueError, match=r"target: expected \(30,\)"):
        word_scores.score_modes(tally, kann, torch.ones(5), draw)
    with pytest.raises(ValueError, match="there is no token of 3"):
        word_truth.tally_roles(read.states, 0 * read.ids, read.lengths, 7, 1.0).auc(3)
    with pytest.raises(TypeError):
        1 + tally

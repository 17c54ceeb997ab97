"""DCI, MIG and SAP on representations whose scores are known, and their formulas against sklearn, scipy and by hand."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, mutual_info_score

from kpm.metrics import representation
from kpm.metrics.representation import completeness, dci, disentanglement, mig, sap

CLASSES = {"skin": 6, "top": 4, "action": 3}
COLUMN = {"skin": 4, "top": 0, "action": 2}  # where each factor lies in the axis-aligned representation
D = 6
MOST_SAP = np.mean([1 - 1 / c for c in CLASSES.values()])


def draw(n, seed):
    generator = np.random.default_rng(seed)
    return {f: generator.integers(0, c, n) for f, c in CLASSES.items()}, generator.normal(size=(n, D))


def aligned(n, seed, spread=0.0):
    """Each factor along one latent of its own, the other latents noise."""
    factors, z = draw(n, seed)
    for f, i in COLUMN.items():
        z[:, i] = spread * z[:, i] + factors[f]
    return z, factors


def rotated(n, seed):
    z, factors = aligned(n, seed)
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(D, D)))[0]
    return (z / z.std(0)) @ turn, factors


def two_of(factors):
    return {f: factors[f] for f in ("skin", "top")}


def noise(n, seed):
    factors, z = draw(n, seed)
    return z, factors


def all_three(make, seed=0):
    train, test = make(500, 1), make(400, 2)
    return dci(*train, *test, seed=seed), mig(*train), sap(*train, *test, seed=seed)


@pytest.fixture(scope="module")
def scores():
    return {make.__name__: all_three(make) for make in (aligned, rotated, noise)}


# Known answers


def test_one_latent_per_factor_is_perfect(scores):
    found, gap, separated = scores["aligned"]
    assert found.disentanglement > 0.999 and found.completeness > 0.999
    assert found.informativeness_train == found.informativeness_test == 1
    assert found.factors == tuple(CLASSES) and found.importance.shape == (D, 3)
    np.testing.assert_allclose(found.importance.sum(0), 1, atol=1e-12)
    assert found.importance.argmax(0).tolist() == list(COLUMN.values())
    assert gap.score > 0.9 and gap.mutual_information.argmax(0).tolist() == list(COLUMN.values())
    assert separated.score_adjusted > 0.9 and separated.score == pytest.approx(MOST_SAP, abs=0.06)
    assert separated.accuracy.max(0).tolist() == [1, 1, 1]  # thresholds find the inner classes of an ordered code too


def test_a_rotation_lowers_all(scores):
    (found, gap, separated), (best, best_gap, best_separated) = scores["rotated"], scores["aligned"]
    assert found.disentanglement < best.disentanglement - 0.5 and found.completeness < best.completeness - 0.5
    assert gap.score < best_gap.score - 0.5
    assert separated.score < best_separated.score - 0.4
    assert found.informativeness_test > 0.6  # the factors are still there, only not along the axes


def test_noise_scores_nothing(scores):
    found, gap, separated = scores["noise"]
    chance = np.mean([1 / c for c in CLASSES.values()])
    assert found.disentanglement < 0.03 and found.completeness < 0.03
    assert found.informativeness_test == pytest.approx(chance, abs=0.06)
    assert gap.score < 0.03 and separated.score < 0.06
    np.testing.assert_allclose(separated.accuracy.mean(), chance, atol=0.03)


def test_a_second_copy_of_the_latents_closes_the_gaps_but_keeps_disentanglement():
    z, factors = aligned(500, 1)
    z = z[:, list(COLUMN.values())]
    doubled = np.concatenate([z, 2 * z + 1], axis=1)
    assert mig(doubled, factors).score == pytest.approx(0, abs=1e-12)
    assert sap(doubled, factors, doubled, factors).score == 0
    found = dci(doubled, factors, doubled[:100], {f: y[:100] for f, y in factors.items()})
    assert found.disentanglement > 0.999
    # Two latents share each factor: 1 - log 2 / log 6, if the forest takes either as often.
    assert found.completeness == pytest.approx(1 - np.log(2) / np.log(6), abs=0.1)


def test_overlapping_classes_do_not_spread_importance_over_noise():
    (z, factors), (z_test, factors_test) = aligned(500, 1, spread=0.4), aligned(400, 2, spread=0.4)
    found = dci(z, two_of(factors), z_test, two_of(factors_test))
    assert found.disentanglement > 0.8 and found.informativeness_test < 0.95


# Formulas


def test_scores_of_an_importance_matrix_by_hand():
    # Rows (3/4, 1/4) with weight 4/8 and (0, 1) with 4/8: H = 0.811278 bits of 1. A latent of no importance is out.
    importance = np.array([[3.0, 1.0], [0.0, 4.0], [0.0, 0.0]])
    assert disentanglement(importance) == pytest.approx((1 - 0.8112781) / 2 + 1 / 2, abs=1e-7)
    # Columns (1, 0, 0) with weight 3/8 and (1/5, 4/5, 0) with 5/8: H = 0.721928 bits of log2(3).
    assert completeness(importance) == pytest.approx(3 / 8 + (1 - 0.7219281 / 1.5849625) * 5 / 8, abs=1e-7)


@pytest.mark.parametrize(("matrix", "d", "c"), [(np.eye(3), 1, 1), (np.ones((4, 3)), 0, 0), (np.zeros((4, 3)), 0, 0)])
def test_scores_at_the_ends(matrix, d, c):
    assert disentanglement(matrix) == pytest.approx(d, abs=1e-15)
    assert completeness(matrix) == pytest.approx(c, abs=1e-15)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_scores_equal_scipys_entropies(d, f, seed):
    generator = np.random.default_rng(seed)
    importance = generator.random((d, f)) * (generator.random((d, f)) < 0.7) + 1e-9
    per_latent = 1 - scipy.stats.entropy(importance, axis=1, base=f)
    per_factor = 1 - scipy.stats.entropy(importance, axis=0, base=d)
    assert disentanglement(importance) == pytest.approx(np.average(per_latent, weights=importance.sum(1)), abs=1e-9)
    assert completeness(importance) == pytest.approx(np.average(per_factor, weights=importance.sum(0)), abs=1e-9)


@pytest.mark.parametrize("matrix", [np.ones(3), np.ones((3, 1)), -np.ones((3, 3)), np.full((3, 3), np.nan)])
def test_importance_that_is_none(matrix):
    with pytest.raises(ValueError, match="importance: expected"):
        disentanglement(matrix)


@pytest.mark.parametrize("make", [aligned, rotated, noise])
@pytest.mark.parametrize("bins", [5, 20])
def test_mutual_information_equals_sklearns(make, bins):
    z, factors = make(300, 3)
    found = mig(z, factors, bins)
    for i in range(D):
        cell = np.digitize(z[:, i], np.histogram_bin_edges(z[:, i], bins)[1:-1])
        for j, name in enumerate(CLASSES):
            assert found.mutual_information[i, j] == pytest.approx(mutual_info_score(factors[name], cell), abs=1e-12)
    for j, (name, c) in enumerate(CLASSES.items()):
        entropy = scipy.stats.entropy(np.bincount(factors[name], minlength=c))
        second, first = sorted(found.mutual_information[:, j])[-2:]
        assert found.per_factor[name] == pytest.approx((first - second) / entropy, abs=1e-12)
    assert found.score == pytest.approx(np.mean(list(found.per_factor.values())), abs=1e-15)


def test_sap_weighs_rare_classes_as_common_ones():
    generator = np.random.default_rng(0)
    train, test = ((generator.random(n) < 0.1).astype(int) for n in (3000, 3000))
    z, z_test = (np.stack([y + generator.normal(size=len(y)), 0 * y], 1) for y in (train, test))
    found = sap(z, {"rare": train}, z_test, {"rare": test})
    # The best threshold on N(0, 1) and N(1, 1), both counted alike, is half-way and right with P(x < 1/2).
    assert found.accuracy[0, 0] == pytest.approx(scipy.stats.norm.cdf(0.5), abs=0.03)
    assert found.accuracy[1, 0] == 0.5 and found.score == found.accuracy[0, 0] - 0.5
    assert found.score_adjusted == pytest.approx(2 * found.score)


def test_sap_accuracy_equals_sklearns_balanced_accuracy():
    generator = np.random.default_rng(0)
    labels, predicted = generator.choice([-3, 0, 100], 200, p=[0.7, 0.2, 0.1]), generator.choice([-3, 0, 100], 200)
    assert representation._balanced_accuracy(predicted, labels) == pytest.approx(
        balanced_accuracy_score(labels, predicted), abs=1e-15
    )


# Edges


def test_constant_latents_have_no_part():
    (z, factors), (z_test, factors_test) = aligned(300, 1), aligned(300, 2)
    z[:, 1] = z_test[:, 1] = 0.1
    found = dci(z, factors, z_test, factors_test)
    assert (found.importance[1] == 0).all() and found.disentanglement > 0.999
    assert (mig(z, factors).mutual_information[1] == 0).all()
    np.testing.assert_allclose(sap(z, factors, z_test, factors_test).accuracy[1], [1 / c for c in CLASSES.values()])


def test_test_data_need_not_fill_the_range_of_the_training_data():
    (z, factors), (z_test, factors_test) = aligned(300, 1), aligned(300, 2)
    few = np.all([factors_test[f] < 2 for f in CLASSES], axis=0)
    factors_few = {f: y[few] for f, y in factors_test.items()}
    assert dci(z, factors, z_test[few], factors_few).informativeness_test == 1
    assert sap(z, factors, z_test[few], factors_few).accuracy.max(0).tolist() == [1, 1, 1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=60).filter(lambda y: len(set(y)) > 1))
def test_information_is_never_negative(labels):
    z = np.stack([np.zeros(len(labels)), np.arange(len(labels)) % 2], axis=1)
    assert (mig(z, {"skin": np.array(labels)}, bins=2).mutual_information >= 0).all()


def test_nothing_but_constant_latents():
    z, factors = np.full((60, 3), 7.0), two_of(draw(60, 0)[0])
    found = dci(z, factors, z, factors)
    assert found.disentanglement == found.completeness == 0 and not found.importance.any()
    assert mig(z, factors).score == sap(z, factors, z, factors).score == 0


def test_offset_scale_and_label_values_do_not_matter(scores):
    (z, factors), (z_test, factors_test) = rotated(500, 1), rotated(400, 2)
    z, z_test = 1e9 + 4 * z, 1e9 + 4 * z_test  # in float32 nothing of the signal would be left
    factors, factors_test = ({f: 7 * y - 3 for f, y in labels.items()} for labels in (factors, factors_test))
    found, gap, separated = scores["rotated"]
    moved = dci(z, factors, z_test, factors_test)
    assert moved.disentanglement == pytest.approx(found.disentanglement, abs=0.01)
    assert moved.informativeness_test == pytest.approx(found.informativeness_test, abs=0.02)
    assert mig(z, factors).score == pytest.approx(gap.score, abs=1e-3)
    assert sap(z, factors, z_test, factors_test).score == pytest.approx(separated.score, abs=1e-3)


def test_the_order_of_latents_does_not_matter_to_the_gaps(scores):
    order = np.random.default_rng(0).permutation(D)
    (z, factors), (z_test, factors_test) = rotated(500, 1), rotated(400, 2)
    gap, separated = mig(z[:, order], factors), sap(z[:, order], factors, z_test[:, order], factors_test)
    np.testing.assert_array_equal(gap.mutual_information, scores["rotated"][1].mutual_information[order])
    np.testing.assert_array_equal(separated.accuracy, scores["rotated"][2].accuracy[order])


def test_same_seed_same_scores():
    z, factors = noise(60, 1)
    first, again, other = (dci(z, two_of(factors), z, two_of(factors), seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.importance, again.importance) and not np.array_equal(first.importance, other.importance)
    assert (first.disentanglement, first.informativeness_test) == (again.disentanglement, again.informativeness_test)


def test_torch_gives_what_numpy_gives():
    z, factors = aligned(60, 1, spread=0.3)
    factors = two_of(factors)
    half = torch.from_numpy(z).bfloat16().requires_grad_()
    labels = {f: torch.from_numpy(y) for f, y in factors.items()}
    as_numpy = half.detach().double().numpy()
    assert mig(half, labels).per_factor == mig(as_numpy, factors).per_factor
    assert sap(half, labels, half, labels).per_factor == sap(as_numpy, factors, as_numpy, factors).per_factor
    got, expected = dci(half, labels, half, labels), dci(as_numpy, factors, as_numpy, factors)
    np.testing.assert_array_equal(got.importance, expected.importance)


# Misuse

Z = np.random.default_rng(0).normal(size=(8, 3))
Y = {"skin": np.arange(8) % 3, "top": np.arange(8) % 2}


def spoilt(value):
    z = Z.copy()
    z[5, 2] = value
    return z


@pytest.mark.parametrize(
    ("z", "factors", "message"),
    [
        (Z[0], Y, r"z: expected real numbers of shape \(n, d\), got float64 of shape \(3,\)"),
        (Z[:0], Y, r"z: expected real numbers .* \(0, 3\)"),
        (Z + 1j, Y, "z: expected real numbers .* complex128"),
        (Z[:, :1], Y, r"z: at least 2 latents .* \(8, 1\)"),
        (spoilt(np.nan), Y, r"z\[5, 2\] is not finite but NaN"),
        (torch.from_numpy(spoilt(np.inf)), Y, r"z\[5, 2\] is not finite but inf"),
        (Z, {}, "factors: no factor given"),
        (Z, {"skin": np.arange(7)}, r"factors\['skin'\]: expected shape \(8,\), got \(7,\)"),
        (Z, {**Y, "hair": np.ones(8, int)}, r"factors\['hair'\]: only one class \(1\)"),
        (Z, {"skin": Z[:, 0]}, r"factors\['skin'\]: expected integer labels, got float64"),
    ],
)
def test_misuse(z, factors, message):
    with pytest.raises(ValueError, match="^" + message):
        mig(z, factors)
    for score in (dci, sap):
        with pytest.raises(ValueError, match="^train_" + message):
            score(z, factors, Z, Y)


@pytest.mark.parametrize("score", [dci, sap])
def test_misuse_of_test_data(score):
    with pytest.raises(ValueError, match="test_z: 2 latents, but train_z has 3"):
        score(Z, Y, Z[:, :2], Y)
    with pytest.raises(ValueError, match=r"test_factors: \['skin'\], but train_factors has \['skin', 'top'\]"):
        score(Z, Y, Z, {"skin": Y["skin"]})
    with pytest.raises(ValueError, match=r"test_factors\['top'\]: only one class \(0\)"):
        score(Z, Y, Z, {**Y, "top": 0 * Y["top"]})
    with pytest.raises(ValueError, match=r"test_z\[5, 2\] is not finite but NaN"):
        score(Z, Y, spoilt(np.nan), Y)


def test_one_factor_cannot_be_disentangled_from_another():
    with pytest.raises(ValueError, match=r"train_factors: disentanglement needs at least 2 factors, got \['skin'\]"):
        dci(Z, {"skin": Y["skin"]}, Z, {"skin": Y["skin"]})


def test_bins():
    with pytest.raises(ValueError, match="bins: expected a whole number from 2"):
        mig(Z, Y, bins=1)
    with pytest.raises(ValueError, match=r"bins: expected a whole number from 2 .* got True"):
        mig(Z, Y, bins=True)
    assert mig(Z, Y, bins=np.int64(10)).per_factor == mig(Z, Y, bins=10).per_factor

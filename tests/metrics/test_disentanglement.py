"""D_sd and D_mf against the thesis's own tables, and against values worked out by hand."""

import importlib
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kpm.metrics import thesis_tables as thesis
from kpm.metrics.disentanglement import chance_levels, d_mf, d_sd, mean_se, no_skill, within_reach

SPRITES = {"classes": thesis.CLASSES["sprites"], "static": thesis.STATIC["sprites"], "dynamic": ("action",)}
DATASETS = ("sprites", "dsprites", "moving_dsprites", "shapes3d")


def kinds(dataset):
    return thesis.CLASSES[dataset], thesis.STATIC[dataset], thesis.DYNAMIC[dataset]


def everywhere(value):
    return dict.fromkeys(SPRITES["classes"], value)


def opposite():
    """Accuracies as wrong as they can be: 1 where chance is wanted, 0 where 1 is."""
    static = {f: 1.0 if f in SPRITES["static"] else 0.0 for f in SPRITES["classes"]}
    dynamic = {f: 1.0 - a for f, a in static.items()}
    factorial = {f: {g: float(g != f) for g in SPRITES["classes"]} for f in SPRITES["static"]}
    return static, dynamic, factorial


# The thesis


@pytest.mark.parametrize("dataset", DATASETS)
def test_table_12_follows_from_tables_8_to_11(dataset):
    score = d_sd(thesis.STATIC_SWAP[dataset], thesis.DYNAMIC_SWAP[dataset], *kinds(dataset))
    assert abs(score - thesis.D_SD[dataset]) <= 5e-5


@pytest.mark.parametrize("dataset", DATASETS)
def test_table_17_follows_from_tables_13_to_16(dataset):
    score = d_mf(thesis.FACTORIAL[dataset], *kinds(dataset))
    assert abs(score - thesis.D_MF[dataset]) <= 5e-5 + 1e-12  # Moving dSprites lies half-way, see below


def test_moving_dsprites_d_mf_is_half_way_between_two_printed_values():
    table, chance = thesis.FACTORIAL["moving_dsprites"], thesis.CLASSES["moving_dsprites"]
    exact = [
        abs(Fraction(str(a)) - (1 if g == f else Fraction(1, chance[g])))
        for f, row in table.items()
        for g, a in row.items()
    ]
    assert 1 - sum(exact) / len(exact) == Fraction(93475, 100_000)
    assert d_mf(table, *kinds("moving_dsprites")) == pytest.approx(0.93475, abs=1e-12)
    assert thesis.D_MF["moving_dsprites"] == 0.9348


def test_what_the_thesis_prints_but_no_table_gives():
    tables = {**thesis.STATIC_SWAP, **thesis.DYNAMIC_SWAP, **thesis.FACTORIAL}
    assert set(tables) == set(DATASETS)  # no accuracies of SKD
    printed = {("D_sd", v) for v in thesis.D_SD.values()} | {("D_mf", v) for v in thesis.D_MF.values()}
    printed |= set(thesis.SKD_SPRITES.items())
    derived = {("D_sd", d_sd(thesis.STATIC_SWAP[d], thesis.DYNAMIC_SWAP[d], *kinds(d))) for d in DATASETS}
    derived |= {("D_mf", d_mf(thesis.FACTORIAL[d], *kinds(d))) for d in DATASETS}
    lost = {(s, v) for s, v in printed if not any(s == t and abs(v - w) <= 5e-5 + 1e-12 for t, w in derived)}
    assert lost == {("D_sd", 0.9981), ("D_mf", 0.9276)}


@pytest.mark.parametrize("dataset", DATASETS)
def test_tables_are_whole(dataset):
    classes, static, dynamic = kinds(dataset)
    factors = (*static, *dynamic)
    assert tuple(classes) == factors and tuple(thesis.FACTORIAL[dataset]) == static
    rows = [thesis.STATIC_SWAP[dataset], thesis.DYNAMIC_SWAP[dataset], *thesis.FACTORIAL[dataset].values()]
    for row in rows:
        assert tuple(row) == factors
        assert all(0 <= a <= 1 and round(a, 4) == a for a in row.values())


@pytest.mark.parametrize("dataset", DATASETS)
def test_factors_and_classes_are_those_of_the_dataset(dataset):
    sizes = dict(importlib.import_module(f"kpm.datasets.{dataset}").FACTOR_SIZES)
    sizes.pop("initial_scale", None)
    assert thesis.CLASSES[dataset] == sizes


# By hand


def test_perfect_accuracies_give_exactly_one():
    chance = chance_levels(SPRITES["classes"])
    assert chance == {"skin": 1 / 6, "pants": 1 / 6, "top": 1 / 6, "hair": 1 / 6, "action": 1 / 9}
    static, dynamic = {**chance, "action": 1.0}, {**everywhere(1.0), "action": 1 / 9}
    assert d_sd(static, dynamic, **SPRITES) == 1.0
    assert d_mf({f: {**chance, f: 1} for f in SPRITES["static"]}, **SPRITES) == 1.0


def test_worst_accuracies():
    static, dynamic, factorial = opposite()
    # Static swap 4 * 5/6 + 1, dynamic swap 4 * 1 + 8/9, over 10: 83/90. Factorial: 1 + 3 * 5/6 + 8/9, over 5: 79/90.
    assert d_sd(static, dynamic, **SPRITES) == pytest.approx(7 / 90, abs=1e-15)
    assert d_mf(factorial, **SPRITES) == pytest.approx(11 / 90, abs=1e-15)


def test_models_without_skill_are_not_at_zero():
    chance = chance_levels(SPRITES["classes"])
    assert d_sd(everywhere(1.0), everywhere(1.0), **SPRITES) == pytest.approx(52 / 90, abs=1e-15)
    assert d_sd(chance, chance, **SPRITES) == pytest.approx(52 / 90, abs=1e-15)
    assert d_mf(dict.fromkeys(SPRITES["static"], chance), **SPRITES) == pytest.approx(5 / 6, abs=1e-15)


def test_two_factors_by_hand():
    kind = {"classes": {"who": 2, "how": 4}, "static": ["who"], "dynamic": ["how"]}
    static, dynamic = {"who": 0.7, "how": 0.9}, {"who": 0.8, "how": 0.15}
    assert d_sd(static, dynamic, **kind) == pytest.approx(1 - (0.2 + 0.1 + 0.2 + 0.1) / 4, abs=1e-15)
    assert d_mf({"who": {"who": 0.6, "how": 0.35}}, **kind) == pytest.approx(1 - (0.4 + 0.1) / 2, abs=1e-15)


def test_further_factors_do_not_count():
    static, dynamic = (
        {**table["shapes3d"], "initial_scale": 0.9} for table in (thesis.STATIC_SWAP, thesis.DYNAMIC_SWAP)
    )
    classes, *names = kinds("shapes3d")
    with_it = d_sd(static, dynamic, {**classes, "initial_scale": 6}, *names)
    assert with_it == d_sd(thesis.STATIC_SWAP["shapes3d"], thesis.DYNAMIC_SWAP["shapes3d"], classes, *names)


# Repeats


def repeated(make):
    draw = np.random.default_rng(0)
    static, dynamic, *rows = (
        {f: make(draw.random(25)) for f in SPRITES["classes"]} for _ in range(2 + len(SPRITES["static"]))
    )
    return static, dynamic, dict(zip(SPRITES["static"], rows))


def at(table, i):
    return {f: float(a[i]) for f, a in table.items()}


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_scores_of_repeats_are_those_of_each_alone(make):
    static, dynamic, factorial = repeated(make)
    sd, mf = d_sd(static, dynamic, **SPRITES), d_mf(factorial, **SPRITES)
    assert type(sd) is type(mf) is type(static["skin"]) and sd.shape == mf.shape == (25,)
    for i in range(25):
        assert float(sd[i]) == pytest.approx(d_sd(at(static, i), at(dynamic, i), **SPRITES), abs=1e-15)
        alone = d_mf({f: at(row, i) for f, row in factorial.items()}, **SPRITES)
        assert float(mf[i]) == pytest.approx(alone, abs=1e-15)


def test_float32_accuracies_are_averaged_in_float64():
    static, dynamic, _ = repeated(lambda x: torch.from_numpy(x).float())
    score = d_sd(static, dynamic, **SPRITES)
    assert score.dtype == torch.float64
    expected = d_sd({f: a.double() for f, a in static.items()}, {f: a.double() for f, a in dynamic.items()}, **SPRITES)
    assert torch.equal(score, expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_pooled_score_is_never_below_the_mean_of_repeats(seed):
    draw = np.random.default_rng(seed)
    static, dynamic = ({f: draw.random(5) for f in SPRITES["classes"]} for _ in range(2))
    pooled = d_sd(*({f: a.mean() for f, a in table.items()} for table in (static, dynamic)), **SPRITES)
    assert 7 / 90 <= d_sd(static, dynamic, **SPRITES).mean() <= pooled + 1e-12 and pooled <= 1


@pytest.mark.parametrize("make", [list, np.asarray, torch.tensor], ids=["list", "numpy", "torch"])
def test_standard_error(make):
    values = [0.9, 0.95, 0.97, 0.91]
    mean, se = mean_se(make(values))
    assert mean == pytest.approx(np.mean(values)) and se == pytest.approx(scipy.stats.sem(values), rel=1e-6)


# Misuse


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"static_swap": {"skin": 0.2}}, r"static_swap: no accuracy for factor 'pants'; it has \['skin'\]"),
        ({"dynamic_swap": {**everywhere(0.5), "top": 1.01}}, r"dynamic_swap\['top'\]: .* from 0 to 1, got 1.01"),
        ({"static_swap": {**everywhere(0.5), "top": float("nan")}}, r"static_swap\['top'\]: .* got nan"),
        ({"static_swap": everywhere(np.array([0.5, -0.1]))}, r"static_swap\['skin'\]\[1\]: .* got -0.1"),
        ({"static_swap": everywhere(np.ones(3))}, r"dynamic_swap\['skin'\]: shape \(\), but the first .* \(3,\)"),
        ({"dynamic": ("action", "hair")}, "factor 'hair' is both static and dynamic"),
        ({"static": ("skin", "skin")}, "factor 'skin' is named twice"),
        ({"static": ("skin", "shoes")}, "classes: no number of classes for factor 'shoes'"),
        ({"classes": {**SPRITES["classes"], "top": 1}}, r"classes\['top'\]: expected a whole number from 2"),
        ({"static": (), "dynamic": ()}, "static, dynamic: no factor given"),
    ],
)
def test_misuse_of_d_sd(change, message):
    arguments = {"static_swap": everywhere(0.5), "dynamic_swap": everywhere(0.5), **SPRITES, **change}
    with pytest.raises(ValueError, match=message):
        d_sd(**arguments)


@pytest.mark.parametrize(
    ("factorial", "static", "message"),
    [
        ({"skin": everywhere(0.5)}, SPRITES["static"], "factorial: no row for the static factor 'pants'"),
        ({"skin": {"skin": 1.0}}, ("skin",), r"factorial\['skin'\]: no accuracy for factor 'action'"),
        ({"skin": everywhere(2.0)}, ("skin",), r"factorial\['skin'\]\['skin'\]: .* got 2.0"),
        ({}, (), "static: D_mf needs at least one static factor"),
    ],
)
def test_misuse_of_d_mf(factorial, static, message):
    with pytest.raises(ValueError, match=message):
        d_mf(factorial, SPRITES["classes"], static, ("action",))


@pytest.mark.parametrize(
    ("values", "message"),
    [([0.9], r"at least 2 repeats .* \(1,\)"), (np.ones((2, 2)), "shape"), ([0, np.nan], r"\[1\]")],
)
def test_misuse_of_mean_se(values, message):
    with pytest.raises(ValueError, match=message):
        mean_se(values)


def test_ends_of_the_scores():
    kinds = [SPRITES[k] for k in ("classes", "static", "dynamic")]
    assert no_skill(*kinds) == pytest.approx({"D_sd": 0.5778, "D_mf": 0.8333}, abs=5e-5)  # official.md
    rng = np.random.default_rng(0)
    judged, drawn = 640, {"D_sd": [], "D_mf": []}
    chance = chance_levels(SPRITES["classes"])
    guess = lambda f: rng.binomial(judged, chance[f]) / judged  # noqa: E731
    static, dynamic = SPRITES["static"], SPRITES["dynamic"]
    for _ in range(2000):
        swaps = [{f: guess(f) if f in part else 1.0 for f in chance} for part in (static, dynamic)]
        drawn["D_sd"].append(d_sd(*swaps, **SPRITES))
        drawn["D_mf"].append(d_mf({f: {g: 1.0 if g == f else guess(g) for g in chance} for f in static}, **SPRITES))
    expected = within_reach(*kinds, judged)
    for score, values in drawn.items():
        assert np.mean(values) == pytest.approx(expected[score], abs=4 * np.std(values) / 2000**0.5)
        assert expected[score] < within_reach(*kinds, 64_000)[score] < 1
    with pytest.raises(ValueError, match="judged"):
        within_reach(*kinds, 0)

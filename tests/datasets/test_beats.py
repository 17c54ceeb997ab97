"""Drawn beats against normal densities, and against what their classes should look like."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.ensemble import RandomForestClassifier

from kpm import datasets
from kpm.datasets import beats, ecg5000
from kpm.errors import UserError

N = 60
P, Q, R, S, ST, T = range(6)


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray, beats.Morphology]:
    """Labels, values and waves of some beats of each class."""
    labels = np.repeat(np.arange(6), N)
    return labels, *beats.simulate(labels, 3)


def test_a_beat_is_a_sum_of_normal_densities(drawn):
    _, _, waves = drawn
    found = beats.draw(waves, 200)
    time = np.linspace(0, 1, 200)
    for i in (0, 77, 359):
        expected = np.zeros(200)
        for w in range(6):
            bell = norm(waves.places[i, w], waves.widths[i, w])
            expected += waves.heights[i, w] * bell.pdf(time) / bell.pdf(waves.places[i, w])
        np.testing.assert_allclose(found[i], expected, atol=1e-12)


def test_noise_is_small_and_beats_are_standardised(drawn):
    _, values, waves = drawn
    assert values.shape == (6 * N, 140) and values.dtype == np.float32 and np.isfinite(values).all()
    assert np.abs(values.mean(1)).max() < 1e-5 and np.abs(values.std(1, ddof=1) - 1).max() < 1e-5
    clean = beats.draw(waves)
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(values, clean)]
    assert min(correlation) > 0.93 and max(correlation) < 1


def test_the_highest_sample_is_where_the_r_wave_is(drawn):
    labels, values, waves = drawn
    peak = values.argmax(1) / 139
    for c in range(6):
        distance = np.abs(peak - waves.places[:, R])[labels == c]
        assert np.quantile(distance, 0.9) < 0.02


def test_classes_are_what_they_are_called(drawn):
    labels, _, waves = drawn
    clean, time = beats.draw(waves, 2001), np.linspace(0, 1, 2001)

    def at(i: int, place: float) -> float:
        return float(np.interp(place, time, clean[i]))

    normal = labels == 0
    for i, label in enumerate(labels):
        name, place = beats.CLASS_NAMES[label], waves.places[i]
        complex_ = np.abs(time - place[R]) < 0.1
        above_half = np.count_nonzero(clean[i, complex_] > 0.5 * clean[i, complex_].max()) / 2000
        assert (above_half > 0.041) == (name == "wide QRS")
        assert (at(i, place[T]) < 0) == (name == "inverted T")
        assert (np.abs(at(i, place[P])) < 0.02) == (name == "missing P")
        assert (place[R] < waves.places[normal, R].min()) == (name == "early beat")
        assert (abs(waves.heights[i, ST]) > 0.1) == (name == "ST change")
    interval = (waves.places[:, R] - waves.places[:, P]).reshape(6, N).mean(1)
    assert interval[5] < 0.12 and (interval[:5] > 0.15).all()  # the P wave of an early beat is nearer
    raised = waves.heights[labels == 2, ST] > 0
    assert 0.2 < raised.mean() < 0.8  # lifted or sunk


def test_every_beat_has_its_own_waves(drawn):
    _, _, waves = drawn
    normal = [a[:N] for a in (waves.heights, waves.places, waves.widths)]
    for array, least in zip(normal, (0.05, 0.001, 0.03)):
        spread = array.std(0) / (1 if array is normal[1] else np.abs(array.mean(0)))
        assert (np.delete(spread, ST) > least).all() and len(np.unique(array[:, R])) == N


def test_splits_are_those_of_ecg5000():
    data = {s: datasets.load("beats", s) for s in beats.SPLITS}
    assert {s: len(d) for s, d in data.items()} == {
        "train": 2481, "validation": 1334, "test": 1185, "paper-train": 2481, "paper-validation": 293,
        "paper-test": 145, "paper-anomalies": 2081, "all": 5000,
    }  # fmt: skip
    assert torch.bincount(data["all"].labels).tolist() == list(beats.COUNTS) and sum(beats.COUNTS) == 5000
    assert not data["train"].anomalous.any() and data["paper-anomalies"].anomalous.all()
    rows = ecg5000.split_rows(data["all"].labels.numpy(), "test")
    assert torch.equal(data["test"].values, data["all"].values[rows])
    with pytest.raises(UserError, match="unknown split"):
        datasets.load("beats", "tset")


def test_stand_in_comes_under_its_own_name(base, caplog):
    datasets._fetched.cache_clear()
    with caplog.at_level(logging.WARNING, "kpm"):
        data = datasets.load("ecg5000", "paper-test")
    assert (data.name, data.source, len(data)) == ("beats", "synthetic", 145) and "'beats'" in caplog.text
    assert data.values.shape == (145, 140, 1) and data.values.dtype == torch.float32


def test_classes_can_be_told_apart():
    train, test = (datasets.load("beats", s) for s in ("validation", "test"))
    forest = RandomForestClassifier(60, random_state=0).fit(train.values[..., 0], train.labels)
    assert forest.score(test.values[..., 0], test.labels) > 0.95


def test_the_same_seed_gives_the_same_beats():
    labels = np.array([0, 5, 3])
    first, same, other = (beats.simulate(labels, seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, same) and not np.allclose(first, other, atol=0.1)


def test_bad_input_is_named():
    for labels in (np.array([6]), np.array([[0]]), np.array([0.5])):
        with pytest.raises(ValueError, match="labels: expected whole numbers from 0 to 5"):
            beats.simulate(labels, 0)

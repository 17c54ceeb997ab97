"""Swaps of averages of tracks: cases that can be said beforehand, and a plain loop."""

import numpy as np
import pytest

from kpm.analysis.track_swaps import TrackSwaps, nearest_d_sd, swap_tracks


def test_tracks_of_one_average_lose_nothing():
    tracks = np.array([[0.0, 2.0, 0.0, 2.0], [2.0, 0.0, 2.0, 0.0], [0.0, 0.0, 2.0, 2.0]])
    found = swap_tracks(tracks)
    assert found.static == 1
    assert found.dynamic < 0.7  # a mixture of two partners is nearest to the own track by chance alone


def test_tracks_that_are_told_by_their_average_alone_keep_it():
    """Constant tracks: all there is goes with the average."""
    found = swap_tracks(np.array([[1.0] * 4, [5.0] * 4]), draws=50_000)
    assert found.dynamic == 1
    # The partner is on the own side if both of its tracks are (1/4), or the one with the larger weight is (1/4).
    assert found.static == pytest.approx(0.5, abs=0.01)


def test_against_a_loop_over_films():
    rng = np.random.default_rng(3)
    tracks, labels = rng.normal(size=(6, 5)), np.array([0, 0, 1, 1, 2, 2])
    right = np.zeros(2)
    for _ in range(20_000):
        i, j, k = rng.integers(6, size=3)
        a, b = rng.random(2)
        partner = (a * tracks[j] + b * tracks[k]) / (a + b)
        for n, made in enumerate(
            (tracks[i] + (partner.mean() - tracks[i].mean()), partner + (tracks[i].mean() - partner.mean()))
        ):
            nearest = min(range(6), key=lambda m: np.linalg.norm(made - tracks[m]))
            right[n] += labels[nearest] == labels[i]
    assert tuple(swap_tracks(tracks, labels)) == pytest.approx(right / 20_000, abs=0.015)


def test_score_is_one_minus_the_mean_distance_from_targets():
    classes = {"color": 6, "scale": 10}
    assert nearest_d_sd({"scale": TrackSwaps(1.0, 0.1)}, classes, ("color",)) == pytest.approx(1)
    assert nearest_d_sd({"scale": TrackSwaps(0.6, 0.3)}, classes, ("color",)) == pytest.approx(1 - (0.4 + 0.2) / 4)


@pytest.mark.parametrize(
    ("tracks", "labels", "message"),
    [
        (np.zeros(3), None, r"tracks: expected \(m, t\), got \(3,\)"),
        (np.zeros((0, 3)), None, "tracks: expected"),
        (np.zeros((2, 3)), np.zeros(3), r"labels: expected \(2,\), got \(3,\)"),
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), None, r"tracks: not finite at index \[1, 0\]"),
    ],
)
def test_bad_input(tracks, labels, message):
    with pytest.raises(ValueError, match=message):
        swap_tracks(tracks, labels)
    with pytest.raises(ValueError, match="draws: expected at least 1, got 0"):
        swap_tracks(np.zeros((2, 3)), draws=0)


def test_every_dynamic_factor_is_asked_for():
    with pytest.raises(ValueError, match=r"dynamic: expected \['scale', 'x'\], got \['scale'\]"):
        nearest_d_sd({"scale": TrackSwaps(1.0, 0.1)}, {"color": 6, "scale": 10, "x": 8}, ("color",))

"""Swaps on the tracks of a film's dynamic factors, as if a track were a latent and its average the static part.

Take a track, of a size or a place, as a latent of its own. The part of it that stays the same from frame to frame is
its average; the rest is its motion. But an average is a property of the track: exchange it, and what comes out may be
nearer to another track. No network and no training is involved. It is a model with two assumptions: that static means
average, and that the judge names the nearest track. One that looks at the motion alone would lose nothing in the static
swap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kpm.metrics.disentanglement import d_sd


class TrackSwaps(NamedTuple):
    """Accuracy of a judge that names the nearest track, after a static and after a dynamic swap."""

    static: float
    dynamic: float


def swap_tracks(tracks: np.ndarray, labels: np.ndarray | None = None, draws: int = 20_000, seed: int = 0) -> TrackSwaps:
    """Swap averages of tracks with those of partners, and motions likewise, and name the nearest track.

    Partners are random points between two tracks, as in [SSM-SKD] sec. 4.3.

    Parameters
    ----------
    tracks : ndarray
        ``(m, t)``, all of them equally frequent.
    labels : ndarray, optional
        Class of each track, integer ``(m,)``; each its own by default.
    draws : int
        Films.
    seed : int

    Returns
    -------
    TrackSwaps
        Shares of films that are still called by their own class; the standard error is below ``0.5 / sqrt(draws)``.
    """
    tracks = np.asarray(tracks, float)
    if tracks.ndim != 2 or 0 in tracks.shape:
        raise ValueError(f"tracks: expected (m, t), got {tracks.shape}")
    if not np.isfinite(tracks).all():
        raise ValueError(f"tracks: not finite at index {np.argwhere(~np.isfinite(tracks))[0].tolist()}")
    if draws < 1:
        raise ValueError(f"draws: expected at least 1, got {draws}")
    labels = np.arange(len(tracks)) if labels is None else np.asarray(labels)
    if labels.shape != (len(tracks),):
        raise ValueError(f"labels: expected ({len(tracks)},), got {labels.shape}")
    rng = np.random.default_rng(seed)
    own = rng.integers(len(tracks), size=draws)
    partners = rng.integers(len(tracks), size=(2, draws))
    weights = rng.random((2, draws))
    weights /= weights.sum(0)
    partner = (weights[..., None] * tracks[partners]).sum(0)
    film, average = tracks[own], tracks[own].mean(1, keepdims=True)
    other = partner.mean(1, keepdims=True)

    def still_right(made: np.ndarray) -> float:
        distance = ((made[:, None] - tracks) ** 2).sum(-1)
        return float((labels[distance.argmin(1)] == labels[own]).mean())

    return TrackSwaps(still_right(film - average + other), still_right(partner - other + average))


def nearest_d_sd(dynamic: dict[str, TrackSwaps], classes: dict[str, int], static: tuple[str, ...]) -> float:
    """`D_sd` ([SSM-SKD] eq. 6) if static factors are right after every swap and dynamic ones as given.

    Raises
    ------
    ValueError
        Unless `static` and `dynamic` are the factors of `classes`.
    """
    if {*static, *dynamic} != set(classes):
        raise ValueError(f"dynamic: expected {sorted(set(classes) - set(static))}, got {sorted(dynamic)}")
    factors = tuple(dynamic)
    given = {f: 1 / classes[f] for f in static} | {f: s.static for f, s in dynamic.items()}
    kept = dict.fromkeys(static, 1.0) | {f: s.dynamic for f, s in dynamic.items()}
    return float(d_sd(given, kept, classes=classes, static=static, dynamic=factors))

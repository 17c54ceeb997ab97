"""Silhouette curves against scikit-learn, and their errors against what repetition gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from kpm.analysis.kann import KANN
from kpm.analysis.silhouettes import silhouettes, spaces, weighted_silhouettes
from tests.analysis.test_kann import network_states


def classes(n: int = 60, time: int = 6, apart: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds in three dimensions that move apart with time."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 3 == 0).astype(int)
    x = rng.normal(size=(n, time, 3)) + apart * np.arange(time)[:, None] * labels[:, None, None]
    return x, labels


def test_curves_are_those_of_scikit_learn():
    x, labels = classes()
    found = silhouettes({"a": x, "b": torch.from_numpy(x[..., :1])}, torch.from_numpy(labels).bool(), draws=0)
    for name, part in (("a", x), ("b", x[..., :1])):
        plain = [silhouette_score(part[:, t], labels) for t in range(6)]
        np.testing.assert_allclose(found[name].values, plain, atol=1e-12)
        np.testing.assert_allclose(found[name].sigma, [np.mean(plain[: t + 1]) for t in range(6)], atol=1e-12)
        assert found[name].samples == 60 and (found[name].sigma_error == 0).all()
    assert (np.diff(found["a"].values) > 0).all()


@pytest.mark.parametrize("kinds", [2, 3])
def test_weights_of_one_and_of_copies(kinds):
    rng = np.random.default_rng(2)
    x, labels = rng.normal(size=(30, 4)), rng.integers(0, kinds, 30)
    distances = torch.cdist(torch.from_numpy(x), torch.from_numpy(x))
    weights = np.ones((3, 30))
    weights[1, ::4] = 0  # left out
    weights[2] = rng.integers(0, 3, 30)
    got = weighted_silhouettes(distances, torch.from_numpy(labels), torch.from_numpy(weights))
    assert got[0] == pytest.approx(silhouette_score(x, labels))
    kept = weights[1] > 0
    assert got[1] == pytest.approx(silhouette_score(x[kept], labels[kept]))
    total = 0.0
    d = distances.numpy()
    for i in np.flatnonzero(weights[2]):
        others = weights[2] * (np.arange(30) != i)
        mean = [np.average(d[i][labels == c], weights=others[labels == c]) for c in range(kinds)]
        inside, outside = mean[labels[i]], min(m for c, m in enumerate(mean) if c != labels[i])
        total += weights[2][i] * (outside - inside) / max(inside, outside)
    assert got[2] == pytest.approx(total / weights[2].sum())


def test_a_lone_point_has_silhouette_zero():
    x = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
    got = weighted_silhouettes(torch.cdist(x, x), torch.tensor([0, 0, 1]), torch.ones(1, 3, dtype=torch.float64))
    assert float(got) == pytest.approx(silhouette_score(x.numpy(), [0, 0, 1]))


def test_errors_are_the_spread_over_repetitions():
    runs = [silhouettes({"a": classes(seed=s)[0]}, classes(seed=s)[1], draws=60)["a"] for s in range(40)]
    for name in ("values", "sigma"):
        spread = np.std([getattr(r, name) for r in runs], axis=0, ddof=1)
        errors = np.mean([getattr(r, f"{name}_error") for r in runs], axis=0)
        assert (errors / spread > 0.6).all() and (errors / spread < 1.6).all(), (errors, spread)
    again = silhouettes({"a": classes(seed=0)[0]}, classes(seed=0)[1], draws=60)["a"]
    np.testing.assert_array_equal(again.sigma_error, runs[0].sigma_error)


def test_many_sequences_are_sampled_by_class():
    x, labels = classes(n=300)
    one, two = (silhouettes({"a": x}, labels, most=90, draws=0, seed=s)["a"] for s in (1, 2))
    assert one.samples == 90 and not np.array_equal(one.values, two.values)
    whole = silhouettes({"a": x}, labels, draws=0)["a"]
    np.testing.assert_allclose(one.values, whole.values, atol=0.1)


@pytest.mark.parametrize("kind", ["magnitude", "amplitude"])
def test_spaces_are_states_principal_and_dominant_components(kind):
    states = network_states()
    kann = KANN().fit(states)
    found = spaces(kann, torch.from_numpy(states), 3, kind)
    assert list(found) == ["states", "PCA", "Koopman"]
    plain = PCA(3).fit_transform(states.reshape(-1, 8)).reshape(12, 40, 3)
    np.testing.assert_allclose(found["PCA"].abs(), abs(plain), atol=1e-8)
    chosen, seen = [], set()
    for j in kann.dominant(states):
        group = next(g for g in kann.pairs_ if j in g)
        if not seen & set(group):
            chosen.append(int(group[0]))
            seen |= set(group)
    amplitudes = kann.amplitudes(states)[..., chosen[:3]]
    if kind == "magnitude":
        np.testing.assert_allclose(found["Koopman"], abs(amplitudes), atol=1e-12)
    else:
        complex_ = kann.eigenvalues_[chosen[:3]].imag != 0
        known = np.concatenate([amplitudes.real, amplitudes.imag[..., complex_]], -1)
        np.testing.assert_allclose(found["Koopman"], known, atol=1e-12)
    own = spaces(kann, states, 3, "magnitude", modes=[1, 4])["Koopman"]
    np.testing.assert_allclose(own, abs(kann.amplitudes(states)[..., [1, 4]]), atol=1e-12)


def test_what_does_not_fit_is_named():
    x, labels = classes()
    with pytest.raises(ValueError, match="two classes or more"):
        silhouettes({"a": x}, np.zeros(60, int))
    with pytest.raises(ValueError, match="two classes or more"):
        silhouettes({"a": x}, np.arange(60) == 0)
    with pytest.raises(ValueError, match=r"points\['a'\]: expected \(60, time, features\)"):
        silhouettes({"a": x[:5]}, labels)
    x[3, 2, 1] = np.nan
    with pytest.raises(ValueError, match=r"points\[3, 2, 1\] is not finite"):
        silhouettes({"a": x}, labels)
    kann = KANN().fit(network_states())
    with pytest.raises(ValueError, match=r"states: expected \(n, time, 8\)"):
        spaces(kann, x)
    with pytest.raises(ValueError, match="kind: expected"):
        spaces(kann, network_states(), kind="phase")

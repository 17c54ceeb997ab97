from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import PolynomialFeatures
from sklearn.utils.estimator_checks import parametrize_with_checks

from kpm.solvers import DMD, matching, per_sequence, shared
from tests.solvers.case import noisy_system


def gap(reference, estimate):
    """Largest distance of a reference eigenvalue to its partner."""
    pair = (torch.as_tensor(np.asarray(v)).to(torch.complex128) for v in (reference, estimate))
    return float(matching.optimal(*pair).distance.max())


ORDERED = "rows are frames in time: their order is what is learnt"


@parametrize_with_checks(
    [DMD(), DMD(rank=1, ridge=0.1)],
    expected_failed_checks=lambda _: {
        "check_methods_sample_order_invariance": ORDERED,
        "check_methods_subset_invariance": ORDERED,
    },
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


# Against PyDMD


@pytest.fixture
def pydmd():
    return pytest.importorskip("pydmd")


@pytest.fixture
def sequence():
    return noisy_system(1, time=40, dim=6, seed=3)[0].numpy()


@pytest.mark.parametrize("rank", [None, 6, 3, 1])
def test_eigenvalues_of_pydmd(pydmd, sequence, rank):
    theirs = pydmd.DMD(svd_rank=rank or -1).fit(sequence.T.copy())
    ours = DMD(rank=rank).fit(sequence)
    assert ours.eigenvalues_.shape == (rank or 6,) and gap(theirs.eigs, ours.eigenvalues_) < 1e-12
    total = pydmd.DMD(svd_rank=rank or 6, tlsq_rank=rank or 6).fit(sequence.T.copy())
    assert gap(total.eigs, DMD(rank=rank, method="total").fit(sequence).eigenvalues_) < 1e-10


def test_predictions_and_modes_of_pydmd(pydmd, sequence):
    theirs = pydmd.DMD(svd_rank=-1, exact=True).fit(sequence.T.copy())
    ours = DMD().fit(sequence)
    np.testing.assert_allclose(ours.reconstruct(sequence), theirs.reconstructed_data.real.T, atol=1e-10)
    theirs.dmd_time["tend"] = 60
    np.testing.assert_allclose(ours.predict(sequence[:1], 60), theirs.reconstructed_data.real.T[1:], atol=1e-10)
    order = [np.abs(theirs.eigs - v).argmin() for v in ours.eigenvalues_]
    directions = theirs.modes.T[order]
    cosines = np.abs((ours.modes_.conj() * directions).sum(1))
    cosines /= np.linalg.norm(ours.modes_, axis=1) * np.linalg.norm(directions, axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-10)


def test_delays_are_pydmds_hankel(pydmd, sequence):
    theirs = pydmd.HankelDMD(svd_rank=-1, d=3, exact=True).fit(sequence.T.copy())
    assert gap(theirs.eigs, DMD(delays=3).fit(sequence).eigenvalues_) < 1e-10


def test_one_operator_per_sequence_against_a_loop_of_pydmd(pydmd):
    z = noisy_system(20, time=8, dim=15, seed=4).numpy()
    ours = DMD(shared=False).fit(z)
    for i in range(20):
        assert gap(pydmd.DMD(svd_rank=-1).fit(z[i].T.copy()).eigs, ours.eigenvalues_[i]) < 1e-8
    np.testing.assert_allclose(ours.reconstruct(z), z, atol=1e-8)


# Known systems (regression oracles of pykoopman)


def slow_manifold(x0, mu=-0.1, lam=-1.0, dt=0.1, steps=10):
    """Exact flow of ``x1' = mu x1``, ``x2' = lam (x2 - x1^2)``."""
    t = dt * np.arange(steps + 1)[:, None]
    b = lam / (lam - 2 * mu)
    x1 = x0[:, 0] * np.exp(mu * t)
    x2 = (x0[:, 1] - b * x0[:, 0] ** 2) * np.exp(lam * t) + b * x1**2
    return np.stack([x1, x2], -1).transpose(1, 0, 2)


def test_slow_manifold():
    """In ``(x1, x2, x1^2)`` the system is linear, with rates mu, lam and 2 mu."""
    x = slow_manifold(np.random.default_rng(0).uniform(-1, 1, (30, 2)))
    lifted = np.concatenate([x, x[..., :1] ** 2], -1)
    model = DMD(dt=0.1).fit(lifted)
    np.testing.assert_allclose(sorted(model.rates_), [-1, -0.2, -0.1], atol=1e-10)
    np.testing.assert_allclose(model.frequencies_, 0, atol=1e-12)
    assert np.abs(model.predict(lifted[:, :1], 10) - lifted[:, 1:]).max() < 1e-12
    plain = DMD(dt=0.1).fit(x)
    assert plain.residual_ > 1e-3 > 1e-12 > model.residual_  # two coordinates alone are not enough


def test_polynomial_edmd_of_the_slow_manifold():
    """Monomials to degree 3: 0, -.1, -.2, -.3 and -1 are among the rates, and others: the span is not invariant."""
    x = slow_manifold(np.random.default_rng(0).uniform(-1, 1, (200, 2)))
    lift = PolynomialFeatures(3)
    lifted = lift.fit_transform(x.reshape(-1, 2)).reshape(200, 11, -1)
    model = DMD(dt=0.1).fit(lifted)
    for rate in (0, -0.1, -0.2, -0.3, -1):
        assert np.abs(model.rates_ + 2j * np.pi * model.frequencies_ - rate).min() < 1e-4


def test_edmd_of_a_linear_map_has_the_products():
    """Eigenvalues .8 and .7: monomials to degree 3 have all products."""
    rng = np.random.default_rng(1)
    basis = np.array([[1.0, 0.4], [-0.3, 1.0]])
    matrix = np.linalg.inv(basis) @ np.diag([0.8, 0.7]) @ basis
    x = [rng.uniform(-1, 1, (50, 2))]
    for _ in range(5):
        x.append(x[-1] @ matrix)
    x = np.stack(x, 1)
    lifted = PolynomialFeatures(3).fit_transform(x.reshape(-1, 2)).reshape(50, 6, -1)
    products = [1, 0.8, 0.7, 0.64, 0.56, 0.49, 0.512, 0.448, 0.392, 0.343]
    assert gap(products, DMD().fit(lifted).eigenvalues_) < 1e-9


def test_delays_find_an_oscillation_one_frame_cannot_show():
    t = np.arange(50) * 0.05
    wave = np.cos(2 * np.pi * 1.5 * t)[:, None]
    model = DMD(delays=2, dt=0.05).fit(wave)
    np.testing.assert_allclose(sorted(model.frequencies_), [-1.5, 1.5], atol=1e-9)
    np.testing.assert_allclose(model.predict(wave[:2], 48), wave[2:], atol=1e-9)
    np.testing.assert_allclose(model.reconstruct(wave), wave, atol=1e-9)


# Forms of data


def test_numpy_or_torch_one_batch_or_list():
    z = noisy_system(3, time=12, dim=4)
    model = DMD().fit(z)
    assert isinstance(model.operator_, torch.Tensor) and isinstance(model.predict(z, 2), torch.Tensor)
    torch.testing.assert_close(model.operator_, shared(z).matrix)
    again = DMD().fit(z.numpy())
    assert isinstance(again.eigenvalues_, np.ndarray)
    np.testing.assert_array_equal(again.operator_, model.operator_.numpy())
    batch = again.predict(z.numpy(), 5)
    parts = again.predict([s.numpy() for s in z], 5)
    one = again.predict(z[1].numpy(), 5)
    assert batch.shape == (3, 5, 4) and isinstance(parts, list) and parts[1].shape == one.shape == (5, 4)
    np.testing.assert_allclose(parts[1], batch[1])
    np.testing.assert_allclose(one, batch[1])


def test_ragged_lists():
    z = noisy_system(3, time=12, dim=4).numpy()
    ragged = [z[0], z[1, :5], z[2, :8]]
    for delays in (1, 3):
        model = DMD(delays=delays).fit(ragged)
        windows = [np.hstack([s[i : len(s) - delays + 1 + i] for i in range(delays)]) for s in ragged]
        past, future = (np.concatenate([w[a:b] for w in windows]) for a, b in ((0, -1), (1, None)))
        np.testing.assert_allclose(model.operator_, np.linalg.pinv(past) @ future, atol=1e-10)
        assert [len(r) for r in model.reconstruct(ragged)] == [12, 5, 8]
        assert [a.shape for a in model.transform(ragged)] == [
            (len(s) - delays + 1, len(model.eigenvalues_)) for s in ragged
        ]
        short = model.predict([ragged[1]], 2)[0]
        np.testing.assert_allclose(model.predict(ragged, 2)[1], short)
        np.testing.assert_allclose(short[0], (windows[1][-1] @ model.operator_)[-4:])


def test_transform_and_back():
    z = noisy_system(3, time=12, dim=4).numpy()
    model = DMD().fit(z)
    amplitudes = model.transform(z)
    assert amplitudes.shape == (3, 12, 4) and np.iscomplexobj(amplitudes)
    np.testing.assert_allclose(model.inverse_transform(amplitudes), z, atol=1e-10)
    np.testing.assert_allclose((amplitudes @ model.modes_).real, z, atol=1e-10)
    next_frames = model.inverse_transform(amplitudes * model.eigenvalues_)
    np.testing.assert_allclose(next_frames, z @ model.operator_, atol=1e-10)
    back = model.inverse_transform(model.transform([z[0], z[1, :4]]))
    np.testing.assert_allclose(back[1], z[1, :4], atol=1e-10)


def test_one_operator_per_sequence():
    z = noisy_system(3, time=8, dim=15)
    model = DMD(shared=False).fit(z)
    torch.testing.assert_close(model.operator_, per_sequence(z).matrix)
    assert model.eigenvalues_.shape == (3, 7) and model.modes_.shape == (3, 7, 15)
    torch.testing.assert_close(model.reconstruct(z), z, rtol=0, atol=1e-8)
    torch.testing.assert_close(model.inverse_transform(model.transform(z))[:, 1:], z[:, 1:], rtol=0, atol=1e-8)
    with pytest.raises(ValueError, match="X: 2 sequences, but one operator each for 3"):
        model.predict(z[:2])


# Second moments


@pytest.mark.parametrize(
    "options",
    [{}, {"rank": 3}, {"ridge": 0.5}, {"method": "total"}, {"method": "forward_backward"}, {"delays": 3}],
    ids=str,
)
def test_partial_fit_is_exact(options):
    z = noisy_system(12, time=15, dim=5, seed=6).numpy()
    whole = DMD(**options).fit(z)
    parts = DMD(**options)
    for piece in (z[:5], z[5:6], [z[6], z[7]], z[8:]):
        parts.partial_fit(piece)
    np.testing.assert_allclose(parts.operator_, whole.operator_, atol=1e-10)
    assert gap(whole.eigenvalues_, parts.eigenvalues_) < 1e-10
    np.testing.assert_allclose(parts.condition_, whole.condition_, rtol=1e-8)
    np.testing.assert_allclose(parts.residual_, whole.residual_, rtol=1e-8)


def test_partial_fit_of_rank_deficient_data():
    z = noisy_system(6, time=8, dim=5, seed=6).numpy()
    z[..., 4] = z[..., 0] - z[..., 1]
    parts = DMD().partial_fit(z[:3]).partial_fit(z[3:])
    whole = DMD().fit(z)
    assert parts.rank_ == whole.rank_ == 4
    np.testing.assert_allclose(parts.operator_, whole.operator_, atol=1e-10)


def test_partial_fit_cuts_off_where_fit_does():
    """Rounding grows with the number of pairs, and so does what counts as zero."""
    z = np.random.default_rng(0).normal(size=(500, 12, 3)) * [1, 1, 3e-13]
    assert DMD().fit(z).rank_ == DMD().partial_fit(z[:200]).partial_fit(z[200:]).rank_ == 2


def test_fit_forgets():
    z = noisy_system(6, time=8, dim=5, seed=6).numpy()
    model = DMD().partial_fit(z[:2]).fit(z[2:])
    np.testing.assert_array_equal(model.operator_, DMD().fit(z[2:]).operator_)


@pytest.mark.parametrize("options", [{}, {"delays": np.int64(2), "rank": np.int64(5)}, {"method": "total"}], ids=str)
def test_partial_fit_adds_to_a_fit(options):
    z = noisy_system(6, time=8, dim=5, seed=6).numpy()
    model = DMD(**options).fit(z[:2]).partial_fit(z[2:5]).partial_fit(z[5:])
    np.testing.assert_allclose(model.operator_, DMD(**options).fit(z).operator_, atol=1e-10)
    alone = DMD(shared=False, **options).fit(z[:2]).set_params(shared=True).partial_fit(z)
    np.testing.assert_allclose(alone.operator_, model.operator_, atol=1e-10)  # nothing of operators that do not add up


def test_numpy_numbers_are_as_good_as_python_ones():
    z = noisy_system(6, time=8, dim=3).numpy()
    ours = DMD(rank=np.int64(4), delays=np.int32(2), ridge=np.float32(0.5)).fit(z)
    theirs = DMD(rank=4, delays=2, ridge=0.5).fit(z)
    np.testing.assert_array_equal(ours.operator_, theirs.operator_)
    np.testing.assert_array_equal(ours.predict(z, np.int64(3)), theirs.predict(z, 3))
    np.testing.assert_array_equal(ours.reconstruct(z), theirs.reconstruct(z))
    np.testing.assert_array_equal(ours.transform(z), theirs.transform(z))


def test_parameters():
    model = DMD(rank=2, ridge=0.1, method="least_squares", delays=2, shared=False, dt=0.5)
    assert clone(model).get_params() == model.get_params()
    assert not hasattr(clone(model), "operator_")


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({}, np.zeros((1, 3)), r"n_samples = 1 frames, but at least 2 are needed \(shape \(1, 3\)\)"),
        ({"delays": 4}, np.zeros((2, 4, 3)), r"n_samples = 4 frames, but at least 5"),
        ({}, [np.ones((4, 3)), np.ones((4, 2))], r"X\[1\] has 2 features, but DMD is expecting 3"),
        ({}, [np.ones((4, 3)), np.full((4, 3), np.nan)], r"X\[1\]\[0, 0\] is not finite but NaN"),
        ({}, np.zeros((0, 4, 3)), r"X: nothing to work on, shape \(0, 4, 3\)"),
        ({}, np.zeros(4), r"X: expected \(time, features\)"),
        ({"delays": 0}, np.ones((4, 3)), "delays: expected a whole number"),
        ({"ridge": -1}, np.ones((4, 3)), "ridge: expected"),
        ({"rank": 4}, np.ones((4, 3)), "rank: expected a whole number from 1 to 3, got 4"),
        ({"rank": 2}, np.ones((4, 3)), "rank: 2 asked for, but z has rank 1"),
        ({"method": "magic"}, np.ones((4, 3)), "method: expected one of"),
        ({"dt": 0}, np.ones((4, 3)), "dt: expected a positive"),
    ],
)
def test_bad_input(options, data, message):
    with pytest.raises(ValueError, match=message):
        DMD(**options).fit(data)


def test_other_misuse():
    with pytest.raises(NotFittedError):
        DMD().predict(np.ones((4, 3)))
    with pytest.raises(ValueError, match="shared: partial_fit needs shared=True"):
        DMD(shared=False).partial_fit(np.ones((4, 3)))
    model = DMD().fit(noisy_system(2, time=6, dim=3))
    with pytest.raises(ValueError, match="steps: expected"):
        model.predict(np.ones((4, 3)), steps=0)
    with pytest.raises(ValueError, match=r"X: expected \(..., 3\) amplitudes, got shape \(4, 2\)"):
        model.inverse_transform(np.ones((4, 2)))

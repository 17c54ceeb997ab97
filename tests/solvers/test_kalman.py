"""Kalman recursions against filterpy, statsmodels and the joint Gaussian written out in full."""

import filterpy.kalman
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

from kpm.solvers.kalman import forecast, kalman_filter, kalman_smoother, steady_state
from kpm.solvers.linear_gaussian import LinearGaussian


def spd(rng, n, rank=None, scale=1.0):
    factor = rng.normal(size=(rank or n, n))
    return scale * factor.T @ factor / n


def make(seed, d=3, p=2, rank=None):
    rng = np.random.default_rng(seed)
    transition = rng.normal(size=(d, d))
    transition *= 0.95 / np.abs(np.linalg.eigvals(transition)).max()
    parts = transition, rng.normal(size=(d, p)), spd(rng, d, rank, 0.3), spd(rng, p) + 0.05 * np.eye(p)
    return LinearGaussian(*map(torch.from_numpy, (*parts, rng.normal(size=d), spd(rng, d) + 0.1 * np.eye(d))))


def sample(model, time, seed, batch=()):
    """Observations of the model, drawn with numpy."""
    rng = np.random.default_rng(seed)
    a, c, q, r, m, s = (getattr(model, name).numpy() for name in model.__dataclass_fields__)
    root_q, root_r, root_s = (scipy.linalg.sqrtm(v).real for v in (q, r, s))
    x, ys = m + rng.normal(size=(*batch, len(m))) @ root_s, []
    for _ in range(time):
        ys.append(x @ c + rng.normal(size=(*batch, c.shape[1])) @ root_r)
        x = x @ a + rng.normal(size=x.shape) @ root_q
    return torch.from_numpy(np.stack(ys, -2))


def with_gaps(y, seed, whole=0.2, part=0.2):
    rng = np.random.default_rng(seed)
    y = y.clone()
    y[torch.from_numpy(rng.random(y.shape) < part)] = torch.nan
    y[torch.from_numpy(rng.random(y.shape[:-1]) < whole)] = torch.nan
    return y


def statsmodels_smoother(model, y):
    d, p = model.output.shape
    oracle = KalmanSmoother(k_endog=p, k_states=d)
    oracle["design"], oracle["obs_cov"] = model.output.T.numpy(), model.observation_noise.numpy()
    oracle["transition"], oracle["state_cov"] = model.transition.T.numpy(), model.process_noise.numpy()
    oracle["selection"] = np.eye(d)
    oracle.bind(np.ascontiguousarray(y.numpy()))
    oracle.initialize_known(model.initial_mean.numpy(), model.initial_covariance.numpy())
    return oracle.smooth()


def close(ours, theirs, tolerance=1e-8):
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=tolerance, atol=tolerance)


def test_equals_filterpy():
    model = make(0)
    y = sample(model, 60, 1)
    ours = kalman_filter(model, y)
    oracle = filterpy.kalman.KalmanFilter(dim_x=3, dim_z=2)
    oracle.F, oracle.H = model.transition.T.numpy(), model.output.T.numpy()
    oracle.Q, oracle.R = model.process_noise.numpy(), model.observation_noise.numpy()
    oracle.x, oracle.P = model.initial_mean.numpy(), model.initial_covariance.numpy()
    total = 0.0
    for t in range(60):
        close(ours.predicted_means[t], oracle.x)
        close(ours.predicted_covariances[t], oracle.P)
        oracle.update(y[t].numpy())
        total += oracle.log_likelihood
        close(ours.means[t], oracle.x)
        close(ours.covariances[t], oracle.P)
        close(ours.gains[t], oracle.K.T)
        close(ours.innovations[t], oracle.y)
        oracle.predict()
    close(ours.log_likelihood, total)


@pytest.mark.parametrize(("d", "p"), [(3, 2), (2, 4), (1, 1), (5, 3)])
@pytest.mark.parametrize("gaps", [False, True])
def test_filter_and_smoother_equal_statsmodels(d, p, gaps):
    model = make(d + 10 * p, d, p)
    y = sample(model, 50, 3)
    if gaps:
        y = with_gaps(y, 4)
        assert torch.isnan(y).all(-1).any()
        assert p == 1 or (torch.isnan(y).any(-1) & ~torch.isnan(y).all(-1)).any()
    oracle = statsmodels_smoother(model, y)
    ours = kalman_filter(model, y)
    smooth = kalman_smoother(model, ours)
    close(ours.means, oracle.filtered_state.T)
    close(ours.covariances, oracle.filtered_state_cov.transpose(2, 0, 1))
    close(ours.predicted_means, oracle.predicted_state.T[:-1])
    close(ours.predicted_covariances, oracle.predicted_state_cov.transpose(2, 0, 1)[:-1])
    close(ours.log_likelihoods, oracle.llf_obs)
    close(smooth.means, oracle.smoothed_state.T)
    close(smooth.covariances, oracle.smoothed_state_cov.transpose(2, 0, 1))


def test_likelihood_and_states_of_the_joint_gaussian():
    """Condition one large Gaussian on all observations at once: no recursion at all."""
    d, p, time = 2, 2, 6
    model = make(5, d, p)
    y = with_gaps(sample(model, time, 6), 7)
    a, c = model.transition.numpy(), model.output.numpy()
    mean = np.concatenate([model.initial_mean.numpy() @ np.linalg.matrix_power(a, t) for t in range(time)])
    covariance = np.zeros((time * d, time * d))
    here = model.initial_covariance.numpy()
    for t in range(time):
        for s in range(t, time):
            block = here @ np.linalg.matrix_power(a, s - t)
            covariance[t * d : t * d + d, s * d : s * d + d] = block
            covariance[s * d : s * d + d, t * d : t * d + d] = block.T
        here = a.T @ here @ a + model.process_noise.numpy()
    seen = ~torch.isnan(y).numpy().ravel()
    read = np.kron(np.eye(time), c)[:, seen]
    spread = read.T @ covariance @ read + np.kron(np.eye(time), model.observation_noise.numpy())[np.ix_(seen, seen)]
    error = y.numpy().ravel()[seen] - mean @ read
    gain = covariance @ read @ np.linalg.inv(spread)
    likelihood = scipy.stats.multivariate_normal(mean @ read, spread).logpdf(y.numpy().ravel()[seen])
    ours = kalman_filter(model, y)
    smooth = kalman_smoother(model, ours)
    close(ours.log_likelihood, likelihood)
    close(smooth.means.flatten(), mean + gain @ error)
    after = covariance - gain @ read.T @ covariance
    for t in range(time):
        close(smooth.covariances[t], after[t * d : t * d + d, t * d : t * d + d])


@pytest.mark.parametrize("gaps", [False, True])
def test_batch_equals_loop(gaps):
    """A batch of models and of sequences, and one model for all sequences."""
    models = [make(seed) for seed in range(3)]
    stacked = LinearGaussian(*(torch.stack([getattr(m, f) for m in models]) for f in models[0].__dataclass_fields__))
    y = torch.stack([sample(model, 12, 20 + i) for i, model in enumerate(models)])
    y = with_gaps(y, 8) if gaps else y
    for model, each in ((stacked, models), (models[0], [models[0]] * 3)):
        whole = kalman_filter(model, y)
        smooth = kalman_smoother(model, whole)
        assert whole.log_likelihood.shape == (3,)
        assert whole.covariances.shape == (3, 12, 3, 3)
        for i, one in enumerate(each):
            alone = kalman_filter(one, y[i])
            for name in whole.__dataclass_fields__:
                close(getattr(whole, name)[i], getattr(alone, name).numpy(), 1e-12)
            close(smooth.means[i], kalman_smoother(one, alone).means.numpy(), 1e-11)
    grid = kalman_filter(LinearGaussian(*(getattr(stacked, f)[:, None] for f in stacked.__dataclass_fields__)), y)
    assert grid.means.shape == (3, 3, 12, 3)
    close(grid.means[1, 2], kalman_filter(models[1], y[2]).means.numpy(), 1e-12)


def test_shared_covariances_are_stored_once():
    model = make(0)
    filtered = kalman_filter(model, sample(model, 10, 0, batch=(100,)))
    assert filtered.covariances.shape == (100, 10, 3, 3)
    assert filtered.covariances.untyped_storage().nbytes() == 10 * 9 * 8


@given(seed=st.integers(0, 10**6), d=st.integers(1, 5), p=st.integers(1, 5), scale=st.sampled_from([1e-6, 1.0, 1e6]))
@settings(max_examples=40, deadline=None)
def test_covariances_stay_positive_semidefinite(seed, d, p, scale):
    rng = np.random.default_rng(seed)
    noise = scale * spd(rng, p) + 1e-3 * scale * np.eye(p)
    parts = rng.normal(size=(d, d)) / np.sqrt(d), rng.normal(size=(d, p)), spd(rng, d, 1), noise
    model = LinearGaussian(*map(torch.from_numpy, (*parts, np.zeros(d), 1e3 * np.eye(d))))
    y = with_gaps(torch.from_numpy(rng.normal(size=(30, p))), seed)
    filtered = kalman_filter(model, y)
    for covariances in (filtered.covariances, filtered.predicted_covariances):
        assert torch.equal(covariances, covariances.mT)
        values = torch.linalg.eigvalsh(covariances)
        assert (values[:, 0] >= -1e-13 * values[:, -1]).all()


def test_mask_is_the_same_as_nan():
    model = make(2)
    y = sample(model, 20, 2)
    gone = with_gaps(y, 9)
    mask = ~torch.isnan(gone)
    expected = kalman_filter(model, gone)
    close(kalman_filter(model, y, mask).means, expected.means.numpy(), 0)
    frames = torch.rand(20, generator=torch.Generator().manual_seed(0)) < 0.5
    garbage = torch.where(frames[:, None], y, torch.inf)
    close(kalman_filter(model, garbage, frames).means, kalman_filter(model, y, frames).means.numpy(), 0)


def test_nothing_observed_is_a_forecast():
    model = make(3)
    y = sample(model, 10, 3)
    longer = torch.cat([y, torch.full((4, 2), torch.nan)])
    filtered, short = kalman_filter(model, longer), kalman_filter(model, y)
    ahead = forecast(model, short.means[-1], short.covariances[-1], 4)
    close(ahead.means, filtered.means[10:].numpy(), 1e-12)
    close(ahead.covariances, filtered.covariances[10:].numpy(), 1e-12)
    close(filtered.log_likelihoods[10:], np.zeros(4), 0)
    everywhere = forecast(model, short.means, short.covariances, 2)
    assert everywhere.observation_covariances.shape == (10, 2, 2, 2)
    close(everywhere.observation_means[-1], ahead.observation_means[:2].numpy(), 1e-12)


def test_forecast_covers_what_comes():
    """Standardised forecast errors of many simulated sequences have unit covariance."""
    model = make(4)
    y = sample(model, 25, 4, batch=(20000,))
    filtered = kalman_filter(model, y[:, :20])
    ahead = forecast(model, filtered.means[:, -1], filtered.covariances[:, -1], 5)
    root = torch.linalg.cholesky(ahead.observation_covariances)
    error = torch.linalg.solve_triangular(root, (y[:, 20:] - ahead.observation_means)[..., None], upper=False)[..., 0]
    covariance = torch.einsum("bti,btj->tij", error, error) / len(error)
    assert (covariance - torch.eye(2)).abs().max() < 0.04
    assert error.mean(0).abs().max() < 0.04


def test_steady_state_solves_the_riccati_equation():
    models = [make(seed, 4, 2) for seed in (1, 2)]
    stacked = LinearGaussian(*(torch.stack([getattr(m, f) for m in models]) for f in models[0].__dataclass_fields__))
    steady = steady_state(stacked)
    for i, m in enumerate(models):
        matrices = m.transition, m.output, m.process_noise, m.observation_noise
        exact = scipy.linalg.solve_discrete_are(*(matrix.numpy() for matrix in matrices))
        close(steady.predicted_covariance[i], exact, 1e-9)
        filtered = kalman_filter(m, sample(m, 400, 0))
        close(steady.gain[i], filtered.gains[-1].numpy(), 1e-9)
        close(steady.covariance[i], filtered.covariances[-1].numpy(), 1e-9)


def test_gradients():
    y = with_gaps(sample(make(0), 5, 0), 1, 0.1, 0.1)

    def run(a, c, q, r, m, s, seen_y):
        model = LinearGaussian(a, c, q @ q.mT, r @ r.mT, m, s @ s.mT)
        filtered = kalman_filter(model, torch.where(torch.isnan(y), torch.nan, seen_y))
        smooth = kalman_smoother(model, filtered)
        ahead = forecast(model, filtered.means[-1], filtered.covariances[-1], 2)
        return filtered.log_likelihoods, filtered.covariances, smooth.means, smooth.covariances, ahead.observation_means

    g = torch.Generator().manual_seed(0)
    shapes = (3, 3), (3, 2), (3, 3), (2, 2), (3,), (3, 3)
    inputs = [torch.randn(s, generator=g, dtype=torch.float64).requires_grad_() for s in shapes]
    assert torch.autograd.gradcheck(run, (*inputs, torch.nan_to_num(y).requires_grad_()))

    def settled(a, c, q, r):
        steady = steady_state(LinearGaussian(a, c, q @ q.mT, r @ r.mT, torch.zeros(3), torch.eye(3)))
        return steady.gain, steady.predicted_covariance

    assert torch.autograd.gradcheck(settled, tuple(inputs[:4]))


def test_zero_noise_is_exact_until_it_is_singular():
    """An observation without noise fixes the state; after it, the same equation has no solution and says so."""
    eye = torch.eye(2)
    model = LinearGaussian(0.9 * eye, eye, eye, 0 * eye, torch.zeros(2), eye)
    y = torch.randn(2, 6, 2, dtype=torch.float64)
    filtered = kalman_filter(model, y)
    close(filtered.means, y.numpy(), 1e-12)
    assert filtered.covariances.abs().max() < 1e-12
    frozen = LinearGaussian(0.9 * eye, eye, torch.stack([eye, 0 * eye]), 0 * eye, torch.zeros(2), eye)
    with pytest.raises(ValueError, match=r"innovation covariance\[1\]: singular at time 1"):
        kalman_filter(frozen, y)
    known = LinearGaussian(0.9 * eye, eye, 0 * eye, eye, torch.zeros(2), 0 * eye)
    with pytest.raises(ValueError, match="predicted covariance: singular at time 1"):
        kalman_smoother(known, kalman_filter(known, y[0]))


def test_more_sensors_than_states_without_noise_is_singular():
    g = torch.Generator().manual_seed(0)
    output = torch.randn(2, 4, generator=g, dtype=torch.float64)
    model = LinearGaussian(torch.eye(2), output, torch.eye(2), torch.zeros(4, 4), torch.zeros(2), torch.eye(2))
    with pytest.raises(ValueError, match="innovation covariance: singular at time 0"):
        kalman_filter(model, torch.zeros(3, 4))


def test_one_frame():
    model = make(0)
    y = sample(model, 1, 0)
    smooth = kalman_smoother(model, kalman_filter(model, y))
    close(smooth.means, statsmodels_smoother(model, y).smoothed_state.T)


GOOD = {
    "transition": torch.eye(2),
    "output": torch.ones(2, 1),
    "process_noise": torch.eye(2),
    "observation_noise": torch.eye(1),
    "initial_mean": torch.zeros(2),
    "initial_covariance": torch.eye(2),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": torch.eye(3)}, r"transition: expected \(\*batch, 2, 2\), got shape \(3, 3\)"),
        ({"output": torch.ones(2)}, r"output: expected \(\*batch, d, p\), got shape \(2,\)"),
        ({"output": torch.ones(1, 2)}, r"output: expected \(\*batch, 2, p\), got shape \(1, 2\); in rows .* transpose"),
        (
            {"transition": torch.eye(2) + 1j},
            r"transition: expected real .*, got torch.complex64 of shape \(2, 2\)",
        ),
        ({"initial_mean": np.zeros(2) * 1j}, "initial_mean: expected real numbers, got torch.complex128"),
        ({"initial_mean": torch.tensor(0.0)}, r"initial_mean: expected \(\*batch, d\), got shape \(\)"),
        ({"initial_mean": torch.zeros(1)}, "initial_mean: expected"),
        ({"observation_noise": torch.ones(1)}, "observation_noise: expected"),
        ({"transition": torch.tensor([[1.0, torch.nan], [0, 1]])}, r"transition\[0, 1\] is not finite"),
        ({"process_noise": torch.tensor([[1.0, 1], [0, 1]])}, "process_noise: not symmetric"),
        ({"initial_covariance": -torch.eye(2).repeat(3, 1, 1)}, r"initial_covariance\[0\]: not positive"),
        ({"transition": torch.eye(2).repeat(2, 1, 1), "output": torch.ones(3, 2, 1)}, "do not broadcast: transition"),
    ],
)
def test_bad_models(change, message):
    with pytest.raises(ValueError, match=message):
        LinearGaussian(**(GOOD | change))


@pytest.mark.parametrize(
    ("y", "mask", "message"),
    [
        (torch.zeros(5, 2), None, r"y: expected \(\*batch, time, 1\).*got shape \(5, 2\)"),
        (torch.zeros(0, 5, 1), None, "without empty axes"),
        (torch.zeros(0, 1), None, "without empty axes"),
        (torch.tensor([[0.0], [torch.inf]]), None, r"y\[1, 0\] is not finite"),
        (torch.tensor([[0.0], [torch.nan]]), torch.tensor([True, True]), r"y\[1, 0\] is not finite"),
        (torch.zeros(5, 1) * 1j, None, r"y: expected real numbers, got torch.complex64 of shape \(5, 1\)"),
        (torch.zeros(5, 1), torch.ones(4, dtype=torch.bool), "mask: expected bool"),
        (
            torch.zeros(5, 1),
            torch.ones(5),
            r"mask: expected bool of shape \(5, 1\) or \(5,\), got torch.float32 of shape \(5,\)",
        ),
    ],
)
def test_bad_observations(y, mask, message):
    with pytest.raises(ValueError, match=message):
        kalman_filter(LinearGaussian(**GOOD), y, mask)


def test_arrays_and_lists_are_as_good_as_tensors():
    model, mean = make(0), np.array([1.0, 2, 3])
    ours = forecast(model, mean, np.eye(3).tolist(), np.int64(2))
    theirs = forecast(model, torch.from_numpy(mean), torch.eye(3), 2)
    assert torch.equal(ours.means, theirs.means) and torch.equal(ours.covariances, theirs.covariances)
    y = sample(model, 6, seed=1)
    seen = np.array([True, True, False, True, True, False])
    assert torch.equal(kalman_filter(model, y, seen).means, kalman_filter(model, y, torch.from_numpy(seen)).means)


def test_other_bad_arguments():
    model = LinearGaussian(**GOOD)
    with pytest.raises(ValueError, match="steps: expected a whole number >= 1, got 0"):
        forecast(model, torch.zeros(2), torch.eye(2), 0)
    with pytest.raises(ValueError, match="mean, covariance: expected"):
        forecast(model, torch.zeros(3), torch.eye(2), 1)
    for steps in (2.5, True, "2"):
        with pytest.raises(ValueError, match="steps: expected a whole number >= 1, got"):
            forecast(model, torch.zeros(2), torch.eye(2), steps)
    with pytest.raises(ValueError, match=r"mean\[1\] is not finite but NaN"):
        forecast(model, torch.tensor([0.0, torch.nan]), torch.eye(2), 1)
    with pytest.raises(ValueError, match=r"covariance\[0, 1\] is not finite but inf"):
        forecast(model, torch.zeros(2), torch.tensor([[1.0, torch.inf], [0, 1]]), 1)
    with pytest.raises(ValueError, match="covariance: expected real numbers"):
        forecast(model, torch.zeros(2), torch.eye(2) * 1j, 1)
    with pytest.raises(ValueError, match="max_doublings: expected a whole number >= 1, got 0"):
        steady_state(model, max_doublings=0)
    with pytest.raises(ValueError, match="observation_noise: singular"):
        steady_state(LinearGaussian(**(GOOD | {"observation_noise": torch.zeros(1, 1)})))
    growing = GOOD | {"transition": 1.5 * torch.eye(2), "output": torch.tensor([[1.0], [0.0]])}
    with pytest.raises(ValueError, match="no steady state"):
        steady_state(LinearGaussian(**growing))

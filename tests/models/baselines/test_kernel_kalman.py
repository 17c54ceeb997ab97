from __future__ import annotations

import numpy as np
import pytest
import torch

from kpm.models.baselines import elto
from kpm.models.baselines.kernel_kalman import fit_kernel_kalman
from kpm.models.baselines.kernel_states import blocks, fit_states
from kpm.models.baselines.kernels import evenly, gram, kernel_features, median_distance
from kpm.solvers import LinearGaussian, kalman_filter


def samples(count=60, dim=2, channels=3, seed=0):
    """States of a noisy rotation, and noisy observations of them."""
    rng = np.random.default_rng(seed)
    turn = 0.95 * np.array([[np.cos(0.4), np.sin(0.4)], [-np.sin(0.4), np.cos(0.4)]])
    x = [rng.normal(size=dim)]
    for _ in range(count):
        x.append(x[-1] @ turn + 0.1 * rng.normal(size=dim))
    x = np.array(x)
    y = x @ rng.normal(size=(dim, channels)) + 0.2 * rng.normal(size=(count + 1, channels))
    return torch.from_numpy(x), torch.from_numpy(y)


def fit(x, y, state, seen, **changes):
    options = {"ridge_transition": 1e-3, "ridge_observation": 2e-3, "noise": 0.05, "residual_noise": False}
    return fit_kernel_kalman(
        x[:-1], x[1:], y[1:], y[1:], state_features=state, observation_features=seen, **(options | changes)
    )


class TestKernels:
    def test_features_have_the_inner_products_of_the_kernel(self):
        x, _ = samples()
        features = kernel_features(x, 0.8)
        z = features(x)
        assert torch.allclose(z @ z.mT, gram(x, x, 0.8), atol=1e-7)
        assert kernel_features(x, 0.8, rank=5)(x).shape == (61, 5)

    def test_median_distance(self):
        x, _ = samples()
        distances = [float((a - b).norm()) for i, a in enumerate(x) for b in x[:i]]
        assert median_distance(x) == pytest.approx(sorted(distances)[(len(distances) - 1) // 2])
        with pytest.raises(ValueError, match="half of the points"):
            median_distance(torch.ones(10, 2))

    def test_evenly(self):
        assert evenly(torch.arange(10)[:, None], 4)[:, 0].tolist() == [0, 3, 6, 9]

    @pytest.mark.parametrize("bandwidth", [0.0, -1.0, float("inf")])
    def test_bad_bandwidths(self, bandwidth):
        with pytest.raises(ValueError, match="bandwidth"):
            kernel_features(samples()[0], bandwidth)


class TestKernelKalman:
    def test_linear_kernels_are_the_kalman_filter(self):
        """Regression matrices and residuals by numpy; the filter is that of the solvers."""
        x, y = samples()
        linear = fit(x, y, kernel_features(x, None), kernel_features(y, None), settle=30)
        past, now, seen = x[:-1].numpy(), x[1:].numpy(), y[1:].numpy()
        a = np.linalg.solve(past.T @ past + 1e-3 * np.eye(2), past.T @ now)
        c = np.linalg.solve(now.T @ now + 2e-3 * np.eye(2), now.T @ seen)
        w = now - past @ a
        model = LinearGaussian(
            transition=torch.from_numpy(a),
            output=torch.from_numpy(c),
            process_noise=torch.from_numpy(w.T @ w / len(w)),
            observation_noise=0.05 * torch.eye(3),
            initial_mean=torch.from_numpy(now.mean(0)),
            initial_covariance=torch.from_numpy(np.cov(now.T, bias=True)),
        )
        test = y[:30] + 1.0
        wanted = kalman_filter(model, test).predicted_means @ model.output
        assert torch.allclose(linear.one_step(test), wanted, atol=1e-9)

    def test_the_published_gram_matrix_formulas(self):
        """Weights over all samples: T, V, O and the gain of the paper, all samples as references."""
        x, y = samples(40)
        test = samples(8, seed=1)[1]
        every = torch.cat([x, x[-1:] + 0.1])
        model = fit(x, y, kernel_features(every, 1.1), kernel_features(y[1:], 1.5), settle=20)
        k = [gram(a, b, 1.1).numpy() for a, b in ((x[:-1], x[:-1]), (x[:-1], x[1:]), (x[1:], x[1:]))]
        g = gram(y[1:], y[1:], 1.5).numpy()
        eye, n = np.eye(len(g)), len(g)
        transition = np.linalg.solve(k[0] + 1e-3 * eye, k[1])
        e = np.linalg.solve(k[0] + 1e-3 * eye, k[0]) - eye
        v = e @ e.T / n
        o = np.linalg.solve(k[2] + 2e-3 * eye, k[2])
        m, s = np.full(n, 1 / n), (eye - 1 / n) / n
        found = []
        for seen in gram(test, y[1:], 1.5).numpy():
            # The regression of targets y on embedded states, as in the paper's pre-image.
            found.append(y[1:].numpy().T @ o @ m)
            q = s @ o.T @ np.linalg.inv(g @ o @ s @ o.T + 0.05 * eye)
            m, s = m + q @ (seen - g @ o @ m), s - q @ g @ o @ s
            m, s = transition @ m, transition @ s @ transition.T + v
        assert np.allclose(model.one_step(test).numpy(), np.array(found), atol=1e-5)

    def test_predictions_ahead_continue_one_step(self):
        x, y = samples()
        model = fit(x, y, kernel_features(x, 1.0), kernel_features(y, 1.0), residual_noise=True)
        means = model.predicted(y[:20])
        ahead = model.ahead(means[-1], 4)
        assert ahead.shape == (4, 3)
        assert torch.allclose(ahead[0], means[-1] @ model.readout)
        assert torch.allclose(model.one_step(y[:20])[7], model.predicted(y[:7])[-1] @ model.readout)

    def test_rows_must_agree(self):
        x, y = samples()
        features = kernel_features(x, 1.0)
        with pytest.raises(ValueError, match="rows"):
            fit_kernel_kalman(x, x[1:], y, y, state_features=features, observation_features=features,
                              ridge_transition=0, ridge_observation=0, noise=1.0)  # fmt: skip


class TestStates:
    def record(self, frames=400):
        t = torch.arange(frames, dtype=torch.float64)
        noise = torch.randn(frames, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        return (torch.sin(0.3 * t) + 0.1 * noise)[None, :, None]

    def test_blocks(self):
        values = torch.arange(8.0).reshape(4, 2)
        assert blocks(values, 2).tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]

    def test_states_see_no_frame_of_their_own_or_later(self):
        y = self.record()
        states = fit_states(y, delays=3, window=8, rank=2, epochs=2)
        x = states(y)
        assert states.first == 10 and x.shape == (1, 391, 2)
        assert torch.allclose(x[:, :-1].mean(), torch.zeros(1, dtype=torch.float64), atol=0.05)
        assert 0.9 < float(x.std()) < 1.1
        changed = y.clone()
        changed[:, 100] += 1
        differs = (states(changed) != x).any(-1)[0].nonzero()[:, 0]
        assert int(differs[0]) + states.first == 101

    def test_learning_raises_the_correlations(self):
        y = self.record() ** 3
        loss = [float(fit_states(y, delays=1, window=6, rank=2, epochs=n).realization.loss) for n in (0, 30)]
        assert loss[1] < loss[0] - 0.01


class TestELTO:
    def test_validation_chooses_the_least_error(self):
        y = TestStates().record()
        config = elto.ELTOConfig(window=10, rank=2, epochs=0, candidates=3, horizon=5, references=60)
        head, tail = y[:, :333], y[:, 333:]
        errors = [elto._error(elto.fit(head, c), head, tail) for c in config.others()]
        assert len({*errors}) == 3
        assert elto.choose(y, config) == list(config.others())[errors.index(min(errors))]

    def test_spectrum_of_a_noisy_sine(self):
        values = elto.spectrum(TestStates().record()[0], elto.ELTOConfig(window=20, rank=2, epochs=5, candidates=2))
        assert (values - torch.exp(torch.tensor(0.3j))).abs().min() < 0.01

    def test_filter_predicts_a_noisy_sine(self):
        y = TestStates().record(600)
        config = elto.ELTOConfig(window=20, rank=2, epochs=0)
        model = elto.fit_filter(y[:, :400], y[:, :400], config)
        error = (model.one_step(y[:, 400:]) - y[:, 400:])[:, 50:].square().mean()
        assert error < 0.02  # the noise is 0.01, the sine 0.5

    def test_bad_settings(self):
        with pytest.raises(ValueError, match="state_bandwidth"):
            elto.ELTOConfig(state_bandwidth=0)
        with pytest.raises(ValueError, match="at least"):
            elto.spectrum(torch.zeros(8, 1))

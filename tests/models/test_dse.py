"""The deep spectral encoder: with linear features the Kalman filter and exact spectra, and the two readings."""

import dataclasses

import filterpy.kalman
import numpy as np
import pytest
import torch

from kpm.datasets import van_der_pol
from kpm.models.dse import DSE
from kpm.models.dse_filtering import _backward, _forward
from kpm.models.dse_networks import DSEConfig
from kpm.models.dse_operators import fit_operators
from kpm.models.dse_published import system_of
from kpm.solvers.cross_fitting import contiguous_folds, leave_one_out
from kpm.solvers.realization import hankel_blocks

OMEGA = 0.3


def near(ours, theirs, tolerance=1e-8):
    ours, theirs = (x.detach() if isinstance(x, torch.Tensor) else x for x in (ours, theirs))
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=tolerance, atol=tolerance)


def rotation(time, noise=0.0, seed=0):
    t = torch.arange(time, dtype=torch.float64)
    y = torch.stack([torch.cos(OMEGA * t), torch.sin(OMEGA * t)], -1)
    return y + noise * torch.randn(time, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(y, seed=0, **changes):
    """A fitted model without a hidden layer, weights at random, in float64."""
    torch.manual_seed(seed)
    model = DSE(DSEConfig.linear(2, window=4, rank=2, **changes)).double()
    model.set_scale(y)
    fit_operators(model, y)
    return model


def small(seed=0, **changes):
    sizes = {"delays": 3, "encoder_hidden": (8,), "code": 6, "window": 4, "head_hidden": 3, "rank": 2}
    sizes |= {"state_features": 6, "observation_features": 4, "state_hidden": (5,), "observation_hidden": (5,)}
    torch.manual_seed(seed)
    return DSE(DSEConfig(**(sizes | {"readout_hidden": (5,), "element": (2,)} | changes))).double()


def numbers(layer):
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def recursion(model, observed):
    """Textbook Kalman filter in columns, with explicit inverses and without Joseph's form."""
    a, c = model.transition.numpy().T, model.output.numpy().T
    q, r = model.process_noise.numpy(), model.observation_noise.numpy()
    mean, spread = model.initial_mean.numpy(), model.initial_covariance.numpy()
    means, spreads, before = [], [], []
    for y in observed:
        before.append(mean)
        gain = spread @ c.T @ np.linalg.inv(c @ spread @ c.T + r)
        mean, spread = mean + gain @ (y - c @ mean), spread - gain @ c @ spread
        means.append(mean), spreads.append(spread)
        mean, spread = a @ mean, a @ spread @ a.T + q
    return np.stack(means), np.stack(spreads), np.stack(before), mean


def observed_by_hand(model, y):
    """Observation features of frames, from the weights alone."""
    (w, b), (v, d) = numbers(model.encoder[0]), numbers(model.observation_dictionary[0])
    scaled = (y.numpy() - model.centre.numpy()) / model.scale.numpy()
    return (scaled @ w.T + b) @ v.T + d


def test_linear_filter_is_the_kalman_filter():
    model, y = linear(rotation(400, 0.3)), rotation(60, 0.3, seed=5)
    observed = observed_by_hand(model, y)
    means, spreads, before, last = recursion(model, observed)
    ours = model.filter(y)
    near(ours.features.means, means)
    near(ours.features.covariances, spreads)
    oracle = filterpy.kalman.KalmanFilter(dim_x=3, dim_z=2)
    oracle.F, oracle.H = model.transition.numpy().T, model.output.numpy().T
    oracle.Q, oracle.R = model.process_noise.numpy(), model.observation_noise.numpy()
    oracle.x, oracle.P = model.initial_mean.numpy()[:, None], model.initial_covariance.numpy()
    theirs, *_ = oracle.batch_filter(observed[:, :, None], update_first=True)
    near(ours.features.means, theirs[:, :, 0])

    # Frames and their deviations are linear in the features.
    (w, b), (v, d) = numbers(model.observation_readout[0]), numbers(model.decoder[0])
    scale = model.scale.numpy()
    jacobian = scale[:, None] * (v @ w @ model.output.numpy().T)
    offset = scale * (v @ b + d) + model.centre.numpy()
    near(ours.predictions, before @ jacobian.T + offset)
    predicted = ours.features.predicted_covariances.numpy()
    near(ours.stds, np.sqrt(np.einsum("id,tde,ie->ti", jacobian, predicted, jacobian)))
    read, c = numbers(model.state_readout[0])
    near(ours.states, means @ read.T + c)

    ahead = model.predict(y, 3)
    a = model.transition.numpy().T
    near(ahead.predictions, np.stack([last, a @ last, a @ a @ last]) @ jacobian.T + offset)


def test_a_batch_is_filtered_like_its_members():
    model = linear(rotation(300, 0.3))
    y = torch.stack([rotation(30, 0.3, seed=k) for k in range(3)])
    whole, ahead = model.filter(y), model.predict(y, 2)
    for k in range(3):
        near(whole.predictions[k], model.filter(y[k]).predictions, 1e-12)
        near(ahead.stds[k], model.predict(y[k], 2).stds, 1e-12)


def test_masked_frames_are_as_if_never_seen():
    model = small()
    y = rotation(80, 0.1)
    model.set_scale(y)
    fit_operators(model, y, folds=2)
    mask = torch.ones(80, dtype=torch.bool)
    mask[40:50] = False
    spoilt = torch.where(mask[:, None], y, torch.nan)
    ours = model.filter(spoilt, mask)
    assert torch.isfinite(ours.predictions).all()
    innovations = ours.features.innovations.abs().sum(-1)
    assert (innovations == 0).nonzero().flatten().tolist() == list(range(38, 50))  # windows of three frames
    near(ours.features.means[:38], model.filter(y).features.means[:38], 1e-12)


def test_spectrum_of_a_rotation_is_exact():
    model = linear(rotation(300), ridge_transition=0.0, ridge_output=0.0)
    expected = np.exp(1j * OMEGA * np.array([0, 1, -1]))
    for folds in (False, True):
        values = model.eigenvalues(folds=folds).numpy()
        assert np.abs(values[:, None] - expected).min(0).max() < 1e-10
    rates = model.eigenvalues(dt=0.1).numpy()
    assert np.abs(rates[:, None] - 1j * OMEGA / 0.1 * np.array([0, 1, -1])).min(0).max() < 1e-9


def test_noise_shrinks_the_transition_but_not_the_spectrum():
    """One noisy frame is a poor state: its regression loses half of the modulus, past against future loses nothing."""
    torch.manual_seed(0)
    y = rotation(4000, 0.7)
    model = DSE(DSEConfig.linear(2, window=1, rank=2)).double()
    model.set_scale(y)
    fit_operators(model, y)
    regressed = np.abs(np.linalg.eigvals(model.transition.numpy()))
    assert np.sort(regressed)[0] == pytest.approx(1 / (1 + 2 * 0.7**2), abs=0.03)
    values = model.eigenvalues().numpy()
    assert np.abs(values[:, None] - np.exp(1j * OMEGA * np.array([0, 1, -1]))).min(0).max() < 0.02


def test_spectrum_is_that_of_lagged_covariances_of_past_and_future():
    y = rotation(300, 0.3)
    model = small(dropout=0.5)
    model.set_scale(y)
    fit_operators(model, y, folds=3)
    with torch.no_grad():
        past, future = model.blocks(model.encode(y[None]))
        found = model.realization
        root = found.correlations[:2].sqrt()
        before = model.dictionary((past[0] - found.past_mean) @ (found.past_directions * root)).numpy()
        ahead = model.dictionary((future[0] - found.future_mean) @ (found.future_directions * root)).numpy()
    penalty = np.diag([0.0] + 5 * [model.config.ridge_transition])

    def solved(rows):
        return np.linalg.solve(before[rows].T @ ahead[rows] + penalty, before[rows].T @ ahead[rows + 1])

    rows = np.arange(len(before) - 1)
    near(model.spectral_transition, solved(rows))
    folds = [
        np.setdiff1d(rows, np.arange(b[0] - model.purge, b[-1] + model.purge + 1)) for b in np.array_split(rows, 3)
    ]
    near(model.fold_transition, np.mean([solved(kept) for kept in folds], 0))


def test_modes_add_up_to_the_frames():
    y = rotation(300)
    model = linear(y, ridge_transition=0.0, ridge_output=0.0)
    modes = model.modes()
    assert modes.frames.shape == (3, 2)
    z = model.dictionary(model.states(model.blocks(model.encode(y[None]))[0]))[0]
    near(modes.spectrum.amplitudes(z) @ modes.frames, y[4 : 4 + len(z)], 1e-8)
    static = (modes.spectrum.eigenvalues - 1).abs().argmin()
    assert modes.frames[static].abs().max() < 0.02  # the mean of the record, nearly zero


def test_states_are_the_realization_of_hankel_blocks():
    """Every head's weights against windows cut by hand."""
    y = rotation(60, 0.3)
    model = linear(y)
    past, future = model.blocks(model.encode(y[None]))
    blocks = hankel_blocks(model.encode(y[None]), 4)
    weight, bias = model.heads.weights[0].detach(), model.heads.biases[0].detach()[:, 0]  # (code, window, heads)
    for features, block in ((past, blocks.past), (future, blocks.future)):
        expected = torch.einsum("ntwc,cwh->ntch", block.detach(), weight) + bias
        near(features.detach(), expected.flatten(-2))
    near(model.present(y[None]), y[None, 4 : 4 + past.shape[1]])


def test_past_and_future_share_no_frame():
    """Only in the clean reading: what one frame changes in the past, it does not change in the future."""
    y = rotation(60)[None]
    for reading, shared in (("clean", False), ("published", True)):
        model = small(reading=reading)
        model.set_scale(y)
        before = model.blocks(model.encode(y))
        y[0, 30] += 1
        changed = [(a != b).any(-1)[0] for a, b in zip(before, model.blocks(model.encode(y)))]
        assert bool((changed[0] & changed[1]).any()) == shared
        assert changed[0].any() and changed[1].any()
        now = (model.present(model.encode(y)) != model.present(model.encode(rotation(60)[None]))).any(-1)[0]
        assert bool((changed[0] & now).any()) == shared


@pytest.mark.parametrize("purged", [True, False])
def test_frames_of_a_block_do_not_enter_its_operator(purged):
    """Replace every frame that the rows of a block look at; with no purge, this test would notice."""
    model, y = small(), rotation(150, 0.1)
    model.set_scale(y)
    fit_operators(model, y)

    def operators(y):
        z = model.dictionary(model.states(model.blocks(model.encode(y[None]))[0]))[0].detach()
        seen = model.observe(model.present(model.encode(y[None])))[0].detach()
        parts = contiguous_folds(1, len(z) - 1, 5, model.purge if purged else 0)
        transition = leave_one_out(z[:-1], z[1:], 0.1, parts)
        return parts, transition, leave_one_out(z[1:], seen[1:], 0.1, parts)

    parts, *before = operators(y)
    reach = model.config.window + model.config.gap + model.config.delays
    for k in range(5):
        start = sum(parts.sizes[:k])
        spoilt = y.clone()
        spoilt[start : start + parts.sizes[k] - 1 + reach + 1] = 5 * torch.rand(1, generator=torch.Generator())
        _, *after = operators(spoilt)
        same = [torch.allclose(a[k], b[k], rtol=1e-12, atol=1e-12) for a, b in zip(after, before)]
        assert all(same) if purged else not any(same)


def test_gradients_through_heads_and_realization():
    model = small(code=3)
    codes = torch.randn(1, 22, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def correlations(codes, *weights):
        past, future = model.blocks(codes)
        return model.find_realization(past, future).correlations

    weights = tuple(model.heads.parameters())
    assert torch.autograd.gradcheck(correlations, (codes.requires_grad_(), *weights))
    found = model.find_realization(*model.blocks(codes.detach()))
    assert torch.autograd.gradcheck(lambda c: model.states(model.blocks(c)[0], found), (codes,))


def test_axes_follow_the_previous_realization():
    model = small()
    y = rotation(80, 0.1)[None]
    model.set_scale(y)
    past, future = (part.detach() for part in model.blocks(model.encode(y)))
    found = model.find_realization(past, future)
    turn = torch.linalg.qr(torch.randn(2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)).Q
    root = found.correlations[:2].sqrt()
    other = dataclasses.replace(found, past_directions=found.past_directions * root @ turn / root)
    again = model.find_realization(past, future, other)
    near(model.states(past, again), model.states(past, other), 1e-10)
    near(again.past_directions * root @ turn.T / root, found.past_directions, 1e-9)


def test_forward_and_backward_deviations_agree():
    model = small()
    y = rotation(80, 0.1)
    model.set_scale(y)
    fit_operators(model, y, folds=2)
    mean = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    root = torch.randn(5, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        one, two = _backward(model, mean, root @ root.mT), _forward(model, mean, root)
    near(one[0], two[0], 1e-12)
    near(one[1], two[1], 1e-10)


def test_readings_of_the_model():
    """What the table in the module's docstring says of scale, states, dictionary, start and noise."""
    y = 3 + 2 * rotation(80, 0.1)
    clean, published = small(), small(reading="published")
    for model in (clean, published):
        model.set_scale(y)
    near(clean.inputs(y[None]).mean(), 0, 0.05)
    near(published.inputs(y[None])[0, :, 0], y[:-2, 0])
    assert all(p.requires_grad for p in clean.heads.parameters())
    assert not any(p.requires_grad for p in published.heads.parameters())

    past = clean.blocks(clean.encode(y[None]))[0].detach()
    found = clean.find_realization(past, clean.blocks(clean.encode(y[None]))[1].detach())
    offset = found.past_mean @ found.past_directions * found.correlations[:2].sqrt()
    near(clean.states(past, found).mean((0, 1)), [0, 0], 1e-10)
    near(published.states(past, found) - clean.states(past, found), offset.expand(1, past.shape[1], 2))
    assert (clean.dictionary(torch.zeros(2).double())[0] == 1) and published.dictionary.explicit is False

    fit_operators(clean, y, folds=2)
    published.load_state_dict(small(reading="published").state_dict())
    published.set_scale(y)
    published.transition.copy_(torch.eye(6)), published.output.copy_(torch.ones(6, 4))
    one, two = (system_of(published, part[None]) for part in (y[:60], y[20:]))
    assert not torch.equal(one.process_noise, two.process_noise) and not torch.equal(one.initial_mean, two.initial_mean)
    codes = published.encode(y[None, :60]).detach().numpy()[0]
    near(one.initial_mean, codes[4:10].mean(0))
    near(one.initial_covariance, np.cov(codes[4:10].T, bias=True))
    assert torch.equal(clean.system.process_noise, clean.process_noise)
    near(clean.initial_mean[0], 1, 1e-12)
    near(clean.process_noise[0], np.zeros(6), 1e-12)


def test_state_dict_is_the_whole_model():
    model = linear(rotation(300, 0.3))
    other = DSE(model.config).double()
    other.load_state_dict(model.state_dict())
    y = rotation(20, 0.3)
    assert torch.equal(other.filter(y).predictions, model.filter(y).predictions)
    assert torch.equal(other.eigenvalues(), model.eigenvalues())


@pytest.mark.parametrize("components", [0, 3])
def test_images(components):
    torch.manual_seed(0)
    films = torch.randint(0, 256, (2, 30, 1, 48, 48), dtype=torch.uint8)
    sizes = {"code": 8, "window": 3, "head_hidden": 2, "rank": 2, "state_features": 5, "observation_features": 4}
    model = DSE(DSEConfig.quad_link(components=components, heads=2, **sizes))
    model.set_scale(films)
    z, codes = fit_operators(model, films, folds=2)
    assert z.shape == (2, 25, 5) and codes.shape == (2, 25, 8)
    filtered = model.filter(films[0])
    assert filtered.predictions.shape == filtered.stds.shape == (30, 1, 48, 48)
    assert model.predict(films, 4).predictions.shape == (2, 4, 1, 48, 48)
    assert model.modes().frames.shape[1:] == (1, 48, 48)
    near(model.encode(films), model.encode(films / 255), 1e-5)
    again = DSE(model.config)
    again.load_state_dict(model.state_dict())
    near(again.eval().filter(films[0]).predictions, filtered.predictions, 1e-6)


Y = rotation(60, 0.1)


def untouched(y):
    model = small()
    model.set_scale(Y)
    return fit_operators(model, y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small().eigenvalues(), "spectral_transition: this model is not fitted"),
        (lambda: small().filter(Y), "this model is not fitted"),
        (lambda: small().encode(Y[None]), "centre: this model is not fitted"),
        (lambda: small().set_scale(torch.ones(50, 2)), "y: a channel is constant"),
        (lambda: small().set_scale(torch.stack([Y[:, 0], 0 * Y[:, 0]], -1)), "y: a channel is constant"),
        (lambda: untouched(Y.where(Y < 1, torch.nan)), r"y\[0, .*\] is not finite but NaN"),
        (lambda: untouched(Y[:12]), r"y: at least 13 frames are needed, got shape \(12, 2\)"),
        (lambda: untouched(Y[:20]), "folds: 5 blocks of 1 x 8 rows"),
        (lambda: untouched(Y[:, :1]), r"y: expected \(\[n,\] time, 2\), got \(60, 1\)"),
        (lambda: untouched(Y.numpy()), "y: expected .* got ndarray"),
        (lambda: untouched(torch.ones(60, 2)), "rank: 2 asked for, but past has fewer correlations"),
        (lambda: linear(Y).filter(Y, torch.ones(59, dtype=torch.bool)), r"mask: expected bool \(1, 60\)"),
        (lambda: linear(Y).predict(Y, 0), "steps: expected a whole number >= 1, got 0"),
        (lambda: linear(Y).filter(Y.where(Y < 1, torch.nan)), "is not finite but NaN"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_windows_without_variety():
    """A signal of two values in turn has windows of rank one: nothing for sixteen states, trained or not."""
    y = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(150)[:, None]
    torch.manual_seed(0)
    model = DSE(DSEConfig.van_der_pol())
    model.set_scale(y)
    with pytest.raises(ValueError, match="rank: 16 asked for, but past has fewer correlations above zero"):
        fit_operators(model, y)


def test_data_of_a_dataset_fits():
    trials = van_der_pol.simulate(van_der_pol.VanDerPol.quick(trials=1, frames=300, train_size=250))
    torch.manual_seed(0)
    model = DSE(DSEConfig.van_der_pol(window=5))
    model.set_scale(trials.train)
    fit_operators(model, trials.train[0], folds=2)
    assert (model.eigenvalues() - 1).abs().min() < 1e-9
    assert model.filter(trials.validation[0]).predictions.shape == (21, 1)

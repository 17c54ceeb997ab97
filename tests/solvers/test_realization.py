"""Stochastic realization against textbook subspace identification, plain numpy CCA and known systems."""

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kpm.solvers.identification import fit_system, identify
from kpm.solvers.realization import hankel_blocks, realize

POLES = np.array([0.95 * np.exp(0.5j), 0.95 * np.exp(-0.5j), 0.8 * np.exp(1.6j), 0.8 * np.exp(-1.6j)])


def simulate(seed, time=4000, sensors=2, process=1.0, sensor=0.5, batch=()):
    """Observations of a linear system with known poles; columns as in the textbooks, not as in the package."""
    rng = np.random.default_rng(seed)
    a = scipy.linalg.block_diag(*([[z.real, z.imag], [-z.imag, z.real]] for z in POLES[::2]))
    c = np.random.default_rng(99).normal(size=(sensors, 4))
    x, ys = rng.normal(size=(*batch, 4)), []
    for _ in range(time):
        x = x @ a.T + process * rng.normal(size=(*batch, 4))
        ys.append(x @ c.T + sensor * rng.normal(size=(*batch, sensors)))
    return np.stack(ys, -2)


def n4sid_poles(y, window, rank, weighted):
    """Van Overschee and De Moor, stochastic subspace identification, algorithm 1 (with CVA weights if `weighted`)."""
    y = (y - y.mean(0)).T
    sensors, time = y.shape
    n = time - 2 * window + 1
    hankel = np.concatenate([y[:, k : k + n] for k in range(2 * window)]) / np.sqrt(n)

    def project(split):
        past, future = hankel[: split * sensors], hankel[split * sensors :]
        coefficients = np.linalg.lstsq(past.T, future.T, rcond=None)[0]
        return future, coefficients.T @ past

    future, ahead = project(window)
    weight = np.linalg.inv(scipy.linalg.sqrtm(future @ future.T).real) if weighted else np.eye(len(future))
    u, s, _ = np.linalg.svd(weight @ ahead, full_matrices=False)
    gamma = np.linalg.inv(weight) @ u[:, :rank] * np.sqrt(s[:rank])
    _, later = project(window + 1)
    states, next_states = np.linalg.pinv(gamma) @ ahead, np.linalg.pinv(gamma[:-sensors]) @ later
    return np.linalg.eigvals(np.linalg.lstsq(states.T, next_states.T, rcond=None)[0])


def pole_error(poles):
    distance = np.abs(np.asarray(poles)[:, None] - POLES)
    return distance[scipy.optimize.linear_sum_assignment(distance)].mean()


def features(seed, time=60, p=5, f=4, batch=()):
    """Past and future features that share two directions."""
    g = torch.Generator().manual_seed(seed)
    past, future = (torch.randn(*batch, time, n, generator=g, dtype=torch.float64) for n in (p, f))
    future[..., :2] += past[..., :2] @ torch.tensor([[1.0, 0.3], [0.2, -0.6]], dtype=torch.float64)
    return past + 3.0, future - 1.0


def close(ours, theirs, tolerance=1e-10):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=tolerance, atol=tolerance)


def test_poles_as_good_as_subspace_identification():
    ours, plain, cva = [], [], []
    for seed in range(10):
        y = simulate(seed)
        found = identify(torch.from_numpy(y), 10, 4)
        ours.append(pole_error(torch.linalg.eigvals(found.system.transition)))
        plain.append(pole_error(n4sid_poles(y, 10, 4, weighted=False)))
        cva.append(pole_error(n4sid_poles(y, 10, 4, weighted=True)))
    assert np.mean(ours) < 0.03
    assert np.mean(ours) < 1.05 * min(np.mean(plain), np.mean(cva))


def test_poles_converge():
    """Ten times the data, as ten sequences, and a third of the error or less than half at least."""
    errors = {}
    for many in (1, 10):
        trials = [identify(torch.from_numpy(simulate(seed, 2000, batch=(many,))), 10, 4) for seed in range(8)]
        errors[many] = np.mean([pole_error(torch.linalg.eigvals(found.system.transition)) for found in trials])
    assert errors[10] < 0.5 * errors[1]


def test_innovation_form_of_a_known_system():
    """Impulse response from innovations to observations, and their covariance, do not depend on coordinates."""
    y = simulate(0, 20000, batch=(3,))
    system = identify(torch.from_numpy(y), 10, 4).system
    c = np.random.default_rng(99).normal(size=(2, 4))
    a = scipy.linalg.block_diag(*([[z.real, z.imag], [-z.imag, z.real]] for z in POLES[::2]))
    predicted = scipy.linalg.solve_discrete_are(a.T, c.T, np.eye(4), 0.25 * np.eye(2))
    spread = c @ predicted @ c.T + 0.25 * np.eye(2)
    gain = a @ predicted @ c.T @ np.linalg.inv(spread)
    assert np.abs(system.observation_noise.numpy() - spread).max() < 0.02 * spread.max()
    for k in range(6):
        ours = system.gain @ torch.linalg.matrix_power(system.transition, k) @ system.output
        assert np.abs(ours.T.numpy() - c @ np.linalg.matrix_power(a, k) @ gain).max() < 0.05
    assert system.cross_noise.shape == (4, 2)
    close(system.cross_noise.T, system.observation_noise @ system.gain)


def test_poles_without_noise():
    """A pure oscillation has singular covariances; the floor whitens what is there."""
    t = torch.arange(300, dtype=torch.float64)
    y = torch.stack([torch.cos(0.3 * t), torch.sin(0.3 * t + 1)], -1)
    found = identify(y, 5, 2)
    close(torch.linalg.eigvals(found.system.transition).angle().abs(), [0.3, 0.3], 1e-4)
    assert found.realization.past_condition > 1e12


def test_correlations_equal_qr_method():
    """Without loading: Bjoerck and Golub, singular values of Qp' Qf of the centred features."""
    past, future = features(0)
    found = realize(past, future, 2, loading=0.0, floor=0.0)
    q_past, q_future = (np.linalg.qr(x.numpy() - x.numpy().mean(0))[0] for x in (past, future))
    u, s, _ = np.linalg.svd(q_past.T @ q_future)
    close(found.correlations, s)
    close(found.loss, -s[:2].sum())
    states = np.sqrt(60 * s[:2]) * (q_past @ u[:, :2])
    close(found.transform(past).abs(), np.abs(states))
    covariance = torch.cov(found.transform(past).T, correction=0)
    close(covariance, np.diag(s[:2]))


def test_loading_equals_generalised_eigenproblem():
    past, future = features(1)
    found = realize(past, future, 3, loading=0.2)
    p, f = (x.numpy() - x.numpy().mean(0) for x in (past, future))
    zero = np.zeros((5, 4))
    left = np.block([[np.zeros((5, 5)), p.T @ f / 60], [f.T @ p / 60, np.zeros((4, 4))]])
    right = np.block([[p.T @ p / 60 + 0.2 * np.eye(5), zero], [zero.T, f.T @ f / 60 + 0.2 * np.eye(4)]])
    values, vectors = scipy.linalg.eigh(left, right)
    close(found.correlations, values[::-1][:4])
    top = vectors[:, ::-1][:, :3] * np.sqrt(2)
    close(found.past_directions.abs(), np.abs(top[:5]))
    close(found.future_directions.abs(), np.abs(top[5:]))
    agree = (found.transform(past) * found.transform_future(future)).mean(0)
    assert (agree > 0).all(), "signs of past and future directions belong together"


def test_signs_do_not_depend_on_the_features_signs():
    past, future = features(2)
    one, two = realize(past, future, 3), realize(past, -future, 3)
    close(one.past_directions, two.past_directions)
    close(one.future_directions, -two.future_directions)
    top = one.past_directions.gather(0, one.past_directions.abs().argmax(0, keepdim=True))
    assert (top > 0).all()


def test_new_data_uses_the_training_statistics():
    past, future = features(3)
    found = realize(past, future, 2)
    new, _ = features(4, time=7)
    expected = (new.numpy() - past.numpy().mean(0)) @ found.past_directions.numpy()
    close(found.transform(new), expected * np.sqrt(found.correlations[:2].numpy()))
    close(found.transform(new)[:1], found.transform(new[:1]))


@given(seed=st.integers(0, 10**6), p=st.integers(1, 4), f=st.integers(1, 4), loading=st.sampled_from([0.0, 1e-3, 1.0]))
@settings(max_examples=30, deadline=None)
def test_correlations_are_correlations(seed, p, f, loading):
    g = torch.Generator().manual_seed(seed)
    past, future = (torch.randn(30, n, generator=g, dtype=torch.float64) for n in (p, f))
    found = realize(past, future, 1, loading=loading)
    assert (found.correlations >= 0).all() and (found.correlations <= 1 + 1e-12).all()
    assert (found.correlations.diff() <= 1e-12).all()
    mixed = realize(past @ torch.randn(p, p, generator=g, dtype=torch.float64), future, 1, loading=0.0)
    if loading == 0:
        close(mixed.correlations, found.correlations, 1e-6)


def test_per_sequence_equals_loop_and_shared_equals_joined():
    past, future = features(5, batch=(2, 3))
    each = realize(past, future, 2, per_sequence=True)
    joined = realize(past.flatten(0, 2), future.flatten(0, 2), 2)
    close(realize(past, future, 2).past_directions, joined.past_directions)
    states = each.transform(past)
    for i in range(2):
        for j in range(3):
            alone = realize(past[i, j], future[i, j], 2)
            close(each.correlations[i, j], alone.correlations)
            close(states[i, j], alone.transform(past[i, j]))


@pytest.mark.parametrize("per_sequence", [False, True])
def test_mask_equals_leaving_out(per_sequence):
    past, future = features(6)
    mask = torch.rand(60, generator=torch.Generator().manual_seed(0)) < 0.6
    spoilt = torch.where(mask[:, None], past, torch.nan)
    found = realize(spoilt, future, 2, mask=mask, per_sequence=per_sequence)
    expected = realize(past[mask], future[mask], 2)
    close(found.correlations, expected.correlations)
    close(found.past_directions, expected.past_directions)


def test_gradients():
    past, future = features(7, time=12, p=3, f=3)
    past, future = past.requires_grad_(), future.requires_grad_()

    def run(past, future):
        found = realize(past, future, 2)
        return found.correlations, found.loss

    assert torch.autograd.gradcheck(run, (past, future))
    found = realize(past.detach().clone(), future.detach(), 2)
    assert torch.autograd.gradcheck(found.transform, (past,))
    batch = torch.stack([past.detach(), future.detach()]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: realize(x, x.flip(0), 2, per_sequence=True).correlations, (batch,))


def test_gradient_with_repeated_eigenvalues():
    """Exactly isotropic features: a derivative through eigenvectors of the covariance would be infinite here."""
    q = torch.linalg.qr(torch.randn(12, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.0).Q
    q = torch.linalg.qr(q - q.mean(0)).Q
    mix = torch.randn(7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    past = q[:, :4].clone().requires_grad_()
    values = torch.linalg.eigvalsh(torch.cov(past.detach().T))
    assert values[-1] - values[0] < 1e-15
    assert torch.autograd.gradcheck(lambda x: realize(x, q @ mix, 2).correlations, (past,))


def test_features_learn_through_the_loss():
    """A few gradient steps on a mixing of the past raise the correlation that loading holds down."""
    past, future = features(8)
    mix = torch.eye(5, dtype=torch.float64, requires_grad=True)
    losses = []
    for _ in range(20):
        loss = realize(past @ mix, future, 2, loading=0.5).loss
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, mix)
        mix = (mix - 0.5 * gradient).detach().requires_grad_()
    assert losses[-1] < losses[0] - 0.05
    assert all(later < earlier for earlier, later in zip(losses, losses[1:]))


def test_hankel_blocks():
    y = torch.arange(2 * 9 * 2, dtype=torch.float32).reshape(2, 9, 2)
    blocks = hankel_blocks(y, 3)
    assert blocks.past.shape == blocks.future.shape == (2, 4, 3, 2)
    for n, t in enumerate(range(3, 7)):
        for lag in range(3):
            close(blocks.past[:, n, lag], y[:, t - 1 - lag])
            close(blocks.future[:, n, lag], y[:, t + lag])
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 8] = False
    assert hankel_blocks(y, 3, mask).mask.tolist() == [[True] * 4, [True] * 3 + [False]]
    y.requires_grad_()
    hankel_blocks(y, 3).past.sum().backward()
    assert y.grad[0, :, 0].tolist() == [1, 2, 3, 3, 2, 1, 0, 0, 0]


def test_ragged_sequences_equal_separate_ones():
    """Two sequences of 50 and 80 frames, padded with NaN: the windows are those of the two alone."""
    y = torch.from_numpy(simulate(1, 80, batch=(2,)))
    mask = torch.arange(80) < torch.tensor([[50], [80]])
    padded = torch.where(mask[..., None], y, torch.nan)
    found = identify(padded, 3, 2, mask=mask)
    parts = [hankel_blocks(one, 3) for one in (y[0, :50], y[1])]
    past, future = (torch.cat([getattr(part, name).flatten(-2) for part in parts]) for name in ("past", "future"))
    close(found.realization.correlations, realize(past, future, 2, loading=0.0).correlations)


def test_fit_system_on_exact_data():
    """States and observations without noise give the matrices back, and a fit is differentiable."""
    g = torch.Generator().manual_seed(0)
    a, c = 0.5 * torch.randn(3, 3, generator=g).double(), torch.randn(3, 2, generator=g).double()
    x = [torch.randn(4, 3, generator=g).double()]
    for _ in range(5):
        x.append(x[-1] @ a)
    states = torch.stack(x, 1)
    y = states @ c
    system = fit_system(states, y - y.flatten(0, 1).mean(0))
    close(system.transition, a, 1e-9)
    noisy = (states + 0.1 * torch.randn(states.shape, generator=g).double()).requires_grad_()

    def run(states):
        system = fit_system(states, y)
        return system.transition, system.output, system.process_noise, system.observation_noise, system.gain

    assert torch.autograd.gradcheck(run, (noisy,))


ONES = torch.ones(20, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: realize(ONES, ONES, 2, loading=0.0), "past: the features do not vary and there is no loading"),
        (lambda: realize(ONES, ONES, 2), "rank: 2 asked for, but past has fewer correlations above zero"),
        (lambda: realize(*features(0), 5), "rank: expected a whole number from 1 to 4"),
        (lambda: realize(*features(0), 2, loading=-1.0), "loading: expected"),
        (lambda: realize(*features(0), 2, mask=torch.zeros(60, dtype=torch.bool)), "mask: fewer than two times"),
        (
            lambda: realize(features(0)[0], features(0)[1][:50], 2),
            r"future: .* batch and time of past, \(60,\)",
        ),
        (lambda: realize(features(0)[0] * torch.nan, features(0)[1], 2), r"past\[0, 0\] is not finite"),
        (lambda: realize(ONES[:0], ONES[:0], 2), "past: nothing to work on"),
        (lambda: realize(*features(0), 2).transform(ONES), r"past: expected \(\*batch, time, 5\), got shape \(20, 3\)"),
        (lambda: hankel_blocks(ONES[:, 0], 3), r"y: expected real \(\*batch, time, dim\), got .* of shape \(20,\)"),
        (
            lambda: fit_system(ONES, ONES[:15]),
            r"y: .* time of states, \(20,\), got shape \(15, 3\)",
        ),
        (lambda: hankel_blocks(ONES, 11), "window: expected a whole number from 1 to 10"),
        (lambda: hankel_blocks(ONES[:1], 1), "y: at least 2 frames are needed"),
        (lambda: fit_system(ONES, ONES), "states: 3 coordinates of rank 1"),
        (
            lambda: realize(
                torch.stack([features(0)[0], torch.ones(60, 5)]), features(0, batch=(2,))[1], 2, per_sequence=True
            ),
            r"past\[1\] has fewer",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()

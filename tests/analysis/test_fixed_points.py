"""Fixed points of networks that can be solved by hand, Jacobians by finite differences, and the predictor."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import expit
from torch import nn

from kpm.analysis.fixed_points import (
    FixedPoints,
    Linearisation,
    cell_step,
    find_fixed_points,
    jacobians,
    speeds,
)
from kpm.analysis.kann import KANN
from kpm.analysis.kann_measures import agreements, relative_errors


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def flip_flop() -> tuple[nn.RNN, FixedPoints]:
    """Two units that each keep a sign: ``h = tanh(2 h + x)``, nine fixed points without input."""
    net = nn.RNN(2, 2, bias=False, batch_first=True)
    with torch.no_grad():
        net.weight_hh_l0.copy_(2 * torch.eye(2))
        net.weight_ih_l0.copy_(torch.eye(2))
    starts = 2.4 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) - 1.2
    return net, find_fixed_points(cell_step(net), starts, torch.zeros(2))


def test_a_flip_flop_has_nine_fixed_points(flip_flop):
    points = flip_flop[1].fixed
    high = brentq(lambda h: np.tanh(2 * h) - h, 0.5, 1)
    known = np.array(list(itertools.product([-high, 0, high], repeat=2)))
    order = np.lexsort(points.states.numpy().round(6).T[::-1])
    np.testing.assert_allclose(points.states.numpy()[order], known, atol=1e-10)
    slope = np.where(known == 0, 2, 2 * (1 - high**2))
    np.testing.assert_allclose(points.eigenvalues.real.numpy()[order], np.sort(slope, 1)[:, ::-1], atol=1e-10)
    assert (points.stable.numpy()[order] == (known != 0).all(1)).all() and points.stable.sum() == 4
    assert int(points.hits.sum()) == 200 and flip_flop[1].unsolved == 0
    assert (points.speed <= 1e-18).all() and (points.speed.diff() >= 0).all()


def test_a_linear_network_has_one_fixed_point():
    turn = torch.linalg.qr(draw(5, 5))[0] * 0.9
    into, x = draw(3, 5, seed=1), draw(3, seed=2)
    found = find_fixed_points(lambda h, x: h @ turn + x @ into, draw(20, 5, seed=3), x, steps=20)
    known = np.linalg.solve((np.eye(5) - turn.numpy()).T, (x @ into).numpy())
    assert len(found.fixed) == 1 and int(found.fixed.hits) == 20
    np.testing.assert_allclose(found.fixed.states[0], known, atol=1e-8)
    np.testing.assert_allclose(found.fixed.operators[0], turn, atol=1e-12)
    np.testing.assert_allclose(found.fixed.eigenvalues[0].abs(), 0.9, atol=1e-9)
    with pytest.raises(ValueError, match="1 points have no shape"):
        _ = found.fixed.variance


def test_a_line_of_fixed_points_is_seen_as_a_line():
    basis = torch.linalg.qr(draw(4, 4))[0]
    turn = basis @ torch.diag(torch.tensor([1.0, 0.6, 0.5, -0.3], dtype=torch.float64)) @ basis.T
    starts = draw(60, 4, seed=4)
    found = find_fixed_points(lambda h, x: h @ turn, starts, torch.zeros(1), steps=200)
    assert len(found.fixed) > 20 and found.fixed.variance[0] > 1 - 1e-9
    assert len(found.slow) > 20 and found.slow.variance[0] > 0.999
    along = (found.fixed.states @ basis)[:, 0].abs()  # they lie on the axis of eigenvalue 1, spread out as the starts
    np.testing.assert_allclose(along, found.fixed.states.norm(dim=1), rtol=1e-6)
    assert 0.5 < along.square().mean().sqrt() / (starts @ basis)[:, 0].square().mean().sqrt() < 2


def test_slow_points_stay_where_there_is_no_fixed_point():
    """A drift of 1e-4 per step along one axis: nothing is fixed, all is slow."""
    drift = torch.tensor([1e-4, 0.0], dtype=torch.float64)
    scale = torch.tensor([1.0, 0.5], dtype=torch.float64)
    found = find_fixed_points(lambda h, x: h * scale + drift, draw(30, 2), torch.zeros(1), steps=100)
    assert len(found.fixed) == 0 and len(found.slow) > 20 and found.unsolved == 0
    np.testing.assert_allclose(found.slow.speed, 5e-9, rtol=1e-3, atol=1e-6)
    steep = find_fixed_points(lambda h, x: h + 1.0, draw(30, 2), torch.zeros(1), steps=10)
    assert steep.unsolved == 30 and len(steep.slow) == 0 and steep.fixed.operators.shape == (0, 2, 2)
    with pytest.raises(ValueError, match="there is none to linearise around"):
        Linearisation.of(steep.fixed)


def by_hand(net: nn.RNNBase, h: np.ndarray, x: np.ndarray) -> np.ndarray:
    """One step of each cell as its equations have it (the documentation of torch)."""
    w, u, b, c = (p.detach().double().numpy() for p in net.parameters())
    k = net.hidden_size
    if isinstance(net, nn.LSTM):
        h, memory = h[:, :k], h[:, k:]
        i, f, g, o = np.split(x @ w.T + b + h @ u.T + c, 4, 1)
        memory = expit(f) * memory + expit(i) * np.tanh(g)
        return np.concatenate([expit(o) * np.tanh(memory), memory], 1)
    if isinstance(net, nn.GRU):
        ri, zi, ni = np.split(x @ w.T + b, 3, 1)
        rh, zh, nh = np.split(h @ u.T + c, 3, 1)
        r, z = expit(ri + rh), expit(zi + zh)
        n = np.tanh(ni + r * nh)
        return (1 - z) * n + z * h
    return np.tanh(x @ w.T + b + h @ u.T + c)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_steps_and_jacobians_are_those_of_the_cell(kind, first):
    torch.manual_seed(0)
    net = kind(3, 4, batch_first=first)
    size = 8 if kind is nn.LSTM else 4
    step, h, x = cell_step(net), draw(6, size), draw(6, 3, seed=1)
    np.testing.assert_allclose(step(h, x), by_hand(net, h.numpy(), x.numpy()), atol=1e-12)
    for wrt, at, columns in (("state", h, size), ("input", x, 3)):
        slopes = jacobians(step, h, x, wrt)
        assert slopes.shape == (6, columns, size)
        for j in range(columns):
            nudge = 1e-6 * torch.eye(columns, dtype=torch.float64)[j]
            moved = [(at + sign * nudge).numpy() for sign in (1, -1)]
            high, low = (by_hand(net, *((v, x.numpy()) if wrt == "state" else (h.numpy(), v))) for v in moved)
            np.testing.assert_allclose(slopes[:, j], (high - low) / 2e-6, atol=1e-8)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_the_fixed_point_of_a_trained_like_cell_is_where_iteration_ends(kind):
    torch.manual_seed(1)
    net = kind(2, 6, batch_first=True)
    step, x = cell_step(net), draw(2, seed=5)
    h = torch.zeros(1, 12 if kind is nn.LSTM else 6, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(400):
            h = step(h, x.unsqueeze(0))
    found = find_fixed_points(step, 0.5 * draw(40, h.shape[1], seed=6), x)
    assert float(speeds(step, h, x)) < 1e-25 and len(found.fixed) == 1 and found.fixed.stable.all()
    np.testing.assert_allclose(found.fixed.states, h, atol=1e-8)


def test_prediction_from_the_nearest_point(flip_flop):
    net, found = flip_flop
    step = cell_step(net)
    model = Linearisation.of(found.fixed, step)
    states, x = 1.5 * draw(3, 7, 2, seed=8), 0.1 * draw(3, 7, 2, seed=9)
    centres, images = found.fixed.states.numpy(), found.fixed.images.numpy()
    slopes = found.fixed.operators.numpy()

    def plain(h, u=None):
        k = int(np.argmin(((centres - h) ** 2).sum(1)))
        slope_in = np.diag(1 - np.tanh(2 * centres[k]) ** 2)
        return images[k] + (h - centres[k]) @ slopes[k] + (0 if u is None else u @ slope_in)

    one = np.array([[plain(h) for h in row] for row in states.numpy()])
    np.testing.assert_allclose(model.predict(states), one, atol=1e-10)
    np.testing.assert_allclose(model.predict(states, 2), [[plain(h) for h in row] for row in one], atol=1e-10)
    driven = [[plain(h, u) for h, u in zip(*rows)] for rows in zip(states.numpy(), x.numpy())]
    np.testing.assert_allclose(model.predict_driven(states, x), driven, atol=1e-10)
    with pytest.raises(ValueError, match="give the cell"):
        Linearisation.of(found.fixed).predict_driven(states, x)
    near = found.fixed.states + 1e-4 * draw(9, 2)
    torch.testing.assert_close(model.predict(near), step(near, torch.zeros(9, 2)), atol=1e-7, rtol=0)


def test_its_figures_are_those_of_a_kann(flip_flop):
    """The measures of KANN take the baseline; it is better where the network is near its points."""
    net, found = flip_flop
    step, h, states = cell_step(net), 0.05 * draw(40, 2, seed=3), []
    for _ in range(12):
        h = step(h, torch.zeros(40, 2))
        states.append(h)
    states = torch.stack(states, 1)
    kann, model = KANN().fit(states), Linearisation.of(found.fixed)
    tally = relative_errors(model, states) + relative_errors(model, states[:10])
    gap = model.predict(states[:, :-1]) - states[:, 1:]
    plain = (gap.square().sum(-1) / states[:, 1:].square().sum(-1)).numpy()
    assert tally.mean == pytest.approx(np.concatenate([plain.ravel(), plain[:10].ravel()]).mean())
    assert relative_errors(model, states).mean < relative_errors(kann, states).mean
    assert agreements(model, lambda z: z[:, :1], states).mean == 1


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="one layer and direction"):
        cell_step(nn.GRU(2, 3, num_layers=2))
    with pytest.raises(ValueError, match="one layer and direction"):
        cell_step(nn.LSTMCell(2, 3))
    with pytest.raises(ValueError, match="projection"):
        cell_step(nn.LSTM(2, 3, proj_size=2))
    step = cell_step(nn.RNN(2, 3))
    with pytest.raises(ValueError, match=r"starts, x: expected \(n, size\)"):
        find_fixed_points(step, torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"starts\[0, 1\] is not finite"):
        find_fixed_points(step, torch.tensor([[0, torch.nan, 0]]), torch.zeros(2))
    with pytest.raises(ValueError, match="wrt"):
        jacobians(step, torch.zeros(1, 3), torch.zeros(2), "both")

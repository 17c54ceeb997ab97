"""The quad-link pendulum against the published simulator, a Lagrangian by automatic derivatives, and its energy."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.integrate import solve_ivp

from kpm.datasets import quad_link
from kpm.datasets.quad_link import QuadLink

# Two states at rest and where the published simulator has them after some frames (eight digits).
PUBLISHED_START = torch.tensor([[0.5, 0, -0.3, 0, 0.2, 0, -0.1, 0], [2.0, 0, 1, 0, -1, 0, 0.5, 0]], dtype=torch.float64)
PUBLISHED = {
    (0, 1): (0.5104893, 0.41948314, -0.3194869, -0.77779028, 0.21220029, 0.48488834, -0.1039553, -0.15597336),
    (0, 5): (0.75354414, 1.94283658, -0.75386798, -3.31760667, 0.46446971, 1.76718033, -0.17733589, -0.4637717),
    (1, 1): (2.01209399, 0.48510452, 0.98268264, -0.69709702, -0.99293538, 0.28708677, 0.49786458, -0.08702045),
}


def states(count, seed=0):
    return torch.randn(count, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2


def lagrangian(angles, speeds):
    """Kinetic minus potential energy of four links, from where their centres of mass are and how they move."""

    def centres(angles):
        turned = angles.cumsum(0)  # from standing upright
        along = torch.stack([turned.sin(), turned.cos()], 1)
        return along.cumsum(0) - along / 2

    at, moving = torch.func.jvp(centres, (angles,), (speeds,))
    spin = speeds.cumsum(0)
    return moving.square().sum() / 2 + spin.square().sum() / 6 - 9.81 * at[:, 1].sum()


def acceleration(angles, speeds, friction):
    """Euler and Lagrange: d/dt dL/dv = dL/dx - friction v, solved for v'."""
    momentum = torch.func.grad(lagrangian, 1)
    mass = torch.func.jacfwd(momentum, 1)(angles, speeds)
    drift = torch.func.jacfwd(momentum, 0)(angles, speeds) @ speeds
    return torch.linalg.solve(mass, torch.func.grad(lagrangian, 0)(angles, speeds) - friction * speeds - drift), mass


@pytest.mark.parametrize("config", [QuadLink.published(), QuadLink()], ids=["euler", "rk4"])
def test_published_simulator(config):
    found = quad_link.simulate(PUBLISHED_START, 11, config)
    exact = config.method == "euler"
    for (trial, frame), expected in PUBLISHED.items():
        np.testing.assert_allclose(found[trial, frame].numpy(), expected, atol=6e-9 if exact else 2e-3)
    assert found[0, 10, 0].item() == pytest.approx(1.44176418, abs=6e-9 if exact else 2e-3)


@pytest.mark.parametrize("friction", [0.0, 0.7])
def test_equation_is_that_of_the_lagrangian(friction):
    """A very short step of the simulator, against the acceleration of the Lagrangian; the mass matrix too."""
    config = QuadLink(friction=friction, dt=1e-5, substeps=1)
    starts = states(3)
    moved = quad_link.simulate(starts, 2, config)[:, 1]
    onto = torch.ones(4, 4, dtype=torch.float64).tril()  # absolute angles from relative ones
    for start, end, mass in zip(starts, moved, quad_link.mass_matrix(starts, config)):
        expected, relative = acceleration(start[::2], start[1::2], friction)
        torch.testing.assert_close((end - start)[1::2] / 1e-5, expected, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close((end - start)[::2] / 1e-5, start[1::2], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(onto.T @ mass @ onto, relative)


def test_trajectory_against_scipy_on_the_lagrangian():
    def slope(_, state):
        angles, speeds = torch.from_numpy(state).reshape(2, 4)
        return np.concatenate([state[4:], acceleration(angles, speeds, 0.1)[0].numpy()])

    start = torch.tensor([2.0, -1, 0.5, 2, -1, 0, 0.3, 1], dtype=torch.float64)
    packed = torch.cat([start[::2], start[1::2]]).numpy()
    found = quad_link.simulate(start, 4, QuadLink())
    expected = solve_ivp(slope, (0, 0.16), packed, "DOP853", 0.05 * np.arange(4), rtol=1e-9, atol=1e-10).y.T
    np.testing.assert_allclose(found[:, ::2].numpy(), expected[:, :4], atol=1e-7)
    np.testing.assert_allclose(found[:, 1::2].numpy(), expected[:, 4:], atol=1e-6)


def test_energy_is_that_of_the_lagrangian_and_is_kept_without_friction():
    starts = quad_link.random_starts(10, torch.Generator().manual_seed(0))
    config = QuadLink(friction=0.0)
    energy = quad_link.energy(quad_link.simulate(starts, 101, config), config)
    assert (energy - energy[:, :1]).abs().max() < 1e-4
    for start, value in zip(starts, energy[:, 0]):  # at rest: minus the Lagrangian
        torch.testing.assert_close(value, -lagrangian(start[::2], start[1::2]))
    for state in states(3):
        kinetic = lagrangian(state[::2], state[1::2]) - lagrangian(state[::2], 0 * state[1::2])
        gap = quad_link.energy(state) - quad_link.energy(state * torch.tensor([1.0, 0] * 4))
        torch.testing.assert_close(gap, kinetic)


def test_friction_takes_its_share_of_the_energy():
    """What is lost is the friction times the squared speeds of the joints, integrated by Simpson's rule."""
    config = QuadLink(friction=0.3, dt=0.0125, substeps=8)
    found = quad_link.simulate(states(4), 401, config)
    energy = quad_link.energy(found, config)
    weights = torch.tensor([1.0, *[4.0, 2.0] * 199, 4.0, 1.0], dtype=torch.float64) * 0.0125 / 3
    lost = 0.3 * (found[..., 1::2].square().sum(-1) * weights).sum(-1)
    torch.testing.assert_close(energy[:, 0] - energy[:, -1], lost, rtol=5e-4, atol=1e-4)
    assert (energy.diff() < 0).all()


def test_hanging_and_standing_are_at_rest():
    hanging, standing = torch.tensor([[math.pi] + [0.0] * 7, [0.0] * 8], dtype=torch.float64)
    found = quad_link.simulate(torch.stack([hanging, standing]), 3)
    torch.testing.assert_close(found[:, -1], torch.stack([hanging, standing]), atol=1e-10, rtol=0)
    assert quad_link.energy(hanging).item() == pytest.approx(-78.48)
    assert quad_link.energy(standing).item() == pytest.approx(78.48)


def test_small_swings_have_the_frequencies_of_the_linear_equation():
    hanging = torch.tensor([math.pi, 0, 0, 0], dtype=torch.float64)
    still = torch.zeros(4, dtype=torch.float64)
    mass = torch.func.hessian(lagrangian, 1)(hanging, still)
    stiffness = -torch.func.hessian(lagrangian, 0)(hanging, still)
    squares, modes = scipy.linalg.eigh(stiffness.numpy(), mass.numpy())
    for square, mode in zip(squares, modes.T):
        start = torch.stack([hanging + 1e-5 * torch.from_numpy(mode), still], -1).flatten()
        swing = quad_link.simulate(start, 41, QuadLink(friction=0.0))[:, ::2] - hanging
        expected = 1e-5 * np.cos(np.sqrt(square) * 0.05 * np.arange(41))[:, None] * mode
        np.testing.assert_allclose(swing.numpy(), expected, atol=1e-9)


def test_a_batch_is_its_members():
    starts = states(4)
    batch = quad_link.simulate(starts.reshape(2, 2, 8), 11)
    assert batch.shape == (2, 2, 11, 8) and batch.dtype == torch.float64
    torch.testing.assert_close(batch[1, 0], quad_link.simulate(starts[2], 11), atol=1e-8, rtol=0)
    torch.testing.assert_close(batch[:, :, 0].flatten(0, 1), starts)


def test_random_starts():
    starts = quad_link.random_starts(5000, torch.Generator().manual_seed(3))
    assert starts.shape == (5000, 8) and (starts[:, 1::2] == 0).all()
    angles = starts[:, ::2]
    assert angles.abs().max() <= math.pi and angles.mean().abs() < 0.05
    assert angles.var().item() == pytest.approx(math.pi**2 / 3, rel=0.03)
    assert (torch.corrcoef(angles.T) - torch.eye(4)).abs().max() < 0.06
    again = quad_link.random_starts(5000, torch.Generator().manual_seed(3))
    assert torch.equal(starts, again)


def test_joints_are_sines_and_cosines_of_the_angles():
    found = quad_link.joints(torch.tensor([0.3, 9.0, -2.0, 9.0, 7.0, 9.0, 0.0, 9.0]))
    expected = [f(x) for x in (0.3, -2.0, 7.0, 0.0) for f in (math.sin, math.cos)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quad_link.simulate(torch.zeros(3, 4), 5), r"start: expected real \(\*batch, 8\), .*\(3, 4\)"),
        (lambda: quad_link.simulate(torch.full((2, 8), math.nan), 5), r"start\[0, 0\] is not finite"),
        (lambda: quad_link.simulate(torch.zeros(8), 0), "frames: expected"),
        (lambda: quad_link.simulate(torch.zeros(8), 5, QuadLink(method="heun")), "method: expected one of euler, rk4"),
        (lambda: quad_link.simulate(torch.zeros(8), 5, QuadLink(dt=-1.0)), "dt: expected a positive time"),
        (
            lambda: quad_link.simulate(torch.full((1, 8), 50.0), 40, QuadLink(dt=2.0, substeps=1)),
            r"states\[0, .*\] is not finite.* steps of 2 s are too long",
        ),
        (lambda: QuadLink(mass=0.0), "mass: expected a positive number"),
        (lambda: QuadLink(friction=-0.1), "friction: expected a finite number >= 0"),
        (lambda: quad_link.energy(torch.zeros(7)), "states: expected real"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Fixed steps against scipy's integrator, and their orders."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from kpm.datasets import fixed_step

STARTS = np.array([[[1.0, 0.0], [0.3, -0.4]], [[-1.2, 0.5], [2.0, 1.0]]])


def slope(state):
    x, v = state[..., 0], state[..., 1]
    return np.stack([v, -np.sin(x) - 0.1 * v], -1)


def test_a_batch_agrees_with_scipy():
    found = fixed_step.integrate(slope, STARTS, 31, 0.2, substeps=20)
    assert found.shape == (2, 2, 31, 2) and found.flags.c_contiguous
    for index in np.ndindex(2, 2):
        expected = solve_ivp(
            lambda t, s: slope(s), (0, 6), STARTS[index], t_eval=np.linspace(0, 6, 31), rtol=1e-11, atol=1e-12
        )
        np.testing.assert_allclose(found[index], expected.y.T, atol=1e-8)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("rk4", 4)])
def test_error_falls_with_the_order_of_the_method(method, order):
    exact = fixed_step.integrate(slope, STARTS, 2, 2.0, substeps=2000)
    errors = [
        np.abs(fixed_step.integrate(slope, STARTS, 2, 2.0, method=method, substeps=n) - exact).max() for n in (40, 80)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_one_frame_is_the_start():
    assert np.array_equal(fixed_step.integrate(slope, STARTS, 1, 0.1)[..., 0, :], STARTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 0}, "frames: expected a whole number"),
        ({"dt": 0.0}, "dt: expected a positive time"),
        ({"dt": float("nan")}, "dt: expected a positive time"),
        ({"substeps": 0}, "substeps: expected a whole number"),
        ({"method": "heun"}, "method: expected one of euler, rk4, got 'heun'"),
    ],
)
def test_bad_input_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        fixed_step.integrate(slope, STARTS, **{"frames": 3, "dt": 0.1, **changes})

"""The exponential of a matrix against other people's."""

import numpy as np
import pytest
import scipy.linalg
import torch

from kpm.solvers.exponential import expm


@pytest.mark.parametrize("scale", [0.0, 1e-9, 0.1, 1.0, 5.0, 40.0])
def test_it_is_the_exponential(scale):
    draw = torch.Generator().manual_seed(3)
    for n in (1, 2, 7, 30):
        x = scale * torch.randn(n, n, generator=draw, dtype=torch.float64) / n**0.5 + torch.eye(n, dtype=torch.float64)
        expected = scipy.linalg.expm(x.numpy())
        rounding = 1e-14 * (1 + scale)  # its condition grows with the norm
        assert np.linalg.norm(expm(x).numpy() - expected) < rounding * 10 * np.linalg.norm(expected)
        if scale < 10:
            error = np.linalg.norm(expm(x.float()).numpy() - expected)
            assert error < 2e-6 * (1 + scale) * np.linalg.norm(expected)


def test_known_cases():
    angle = 2.3
    turn = expm(torch.tensor([[0.0, -angle], [angle, 0.0]], dtype=torch.float64))
    expected = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    np.testing.assert_allclose(turn, expected, atol=1e-15)
    nilpotent = torch.tensor([[0.0, 3.0], [0.0, 0.0]])
    assert expm(nilpotent).tolist() == [[1.0, 3.0], [0.0, 1.0]]
    assert torch.equal(expm(torch.zeros(3, 3)), torch.eye(3))


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_its_gradient(scale):
    draw = torch.Generator().manual_seed(5)
    x = torch.eye(12, dtype=torch.float64) + scale * torch.randn(12, 12, generator=draw, dtype=torch.float64) / 12**0.5
    weights = torch.randn(12, 12, generator=draw, dtype=torch.float64)
    grads = []
    for function in (expm, torch.matrix_exp):
        y = x.clone().requires_grad_()
        (function(y) * weights).sum().backward()
        grads.append(y.grad)
    torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-11 * grads[1].abs().max().item())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_what_is_not_finite_is_seen_in_the_answer(bad):
    x = torch.eye(3)
    x[0, 1] = x[1, 0] = bad
    assert not expm(x).isfinite().all()


@pytest.mark.parametrize("x", [torch.ones(2, 3), torch.ones(2, 2, dtype=torch.int64)])
def test_bad_input(x):
    with pytest.raises(ValueError, match="x: "):
        expm(x)

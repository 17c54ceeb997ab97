"""Cross-fitted ridge operators against numpy, block by block, and what a block must not have seen."""

import numpy as np
import pytest
import torch

from kpm.solvers.cross_fitting import contiguous_folds, instrumented, leave_one_out, out_of_fold, ridge, unexplained


def rows(seed, count=40, d=3, p=2):
    g = torch.Generator().manual_seed(seed)
    x, noise = (torch.randn(count, n, generator=g, dtype=torch.float64) for n in (d, p))
    return x, x @ torch.randn(d, p, generator=g, dtype=torch.float64) + noise


def solved(x, y, penalty):
    """Least squares on rows with the penalty as more rows: no normal equations."""
    more = np.diag(np.sqrt(np.broadcast_to(penalty, x.shape[1])))
    return np.linalg.lstsq(np.vstack([x, more]), np.vstack([y, np.zeros((x.shape[1], y.shape[1]))]), rcond=None)[0]


def near(ours, theirs, tolerance=1e-10):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=tolerance, atol=tolerance)


def test_ridge_equals_least_squares_with_more_rows():
    x, y = rows(0)
    penalty = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    near(ridge(x, y, 0.3), solved(x.numpy(), y.numpy(), 0.3))
    near(ridge(x, y, penalty), solved(x.numpy(), y.numpy(), penalty.numpy()))


def test_instruments_leave_the_noise_of_the_coordinates_out():
    """Against the formula in numpy; and noise as strong as the signal halves the regression, not this operator."""
    g = torch.Generator().manual_seed(7)
    signal, noise, other = torch.randn(3, 20000, 2, generator=g, dtype=torch.float64)
    wanted = torch.tensor([[0.9, 0.3], [-0.3, 0.9]], dtype=torch.float64)
    x, z, y = signal + noise, signal @ torch.tensor([[1.0, 1.0], [0.0, 2.0]]).double() + other, signal @ wanted
    found = instrumented(z, x, y, 0.0)
    near(found, np.linalg.solve(z.numpy().T @ x.numpy(), z.numpy().T @ y.numpy()))
    near(found, wanted, 0.03)
    near(ridge(x, y, 0.0), wanted / 2, 0.03)
    keep = torch.stack([torch.arange(20000) < 100, torch.arange(20000) > 50]).double()
    some = instrumented(z, x, y, torch.tensor([0.0, 3.0]), keep)
    near(some[0], instrumented(z[:100], x[:100], y[:100], torch.tensor([0.0, 3.0])))
    left = z[51:].mT @ (y[51:] - x[51:] @ some[1]) - torch.tensor([[0.0], [3.0]]) * some[1]
    near(left, torch.zeros(2, 2), 1e-8)


@pytest.mark.parametrize(("sequences", "time", "folds", "purge"), [(1, 40, 5, 0), (1, 43, 4, 3), (4, 10, 3, 2)])
def test_each_block_is_predicted_by_an_operator_of_the_others(sequences, time, folds, purge):
    """Against explicit lists of row numbers."""
    count = sequences * time
    x, y = rows(1, count)
    parts = contiguous_folds(sequences, time, folds, purge)
    operators = leave_one_out(x, y, 0.1, parts)
    predicted = out_of_fold(x, operators, parts)
    for k, block in enumerate(np.array_split(np.arange(count), folds)):
        spoilt = {i + j for i in block for j in range(-purge, purge + 1) if (i + j) // time == i // time}
        kept = [i for i in range(count) if i not in spoilt]
        assert parts.keep[k].nonzero().flatten().tolist() == kept
        expected = solved(x[kept].numpy(), y[kept].numpy(), 0.1)
        near(operators[k], expected)
        near(predicted[block], x[block].numpy() @ expected)


@pytest.mark.parametrize("which", ["x", "y"])
def test_a_block_never_enters_its_own_operator(which):
    x, y = rows(2)
    parts = contiguous_folds(1, 40, 5, purge=2)
    before = leave_one_out(x, y, 0.1, parts)
    for k in range(5):
        other = {"x": x.clone(), "y": y.clone()}
        other[which][max(0, 8 * k - 2) : 8 * k + 10] += 100
        after = leave_one_out(other["x"], other["y"], 0.1, parts)
        assert torch.equal(after[k], before[k])
        changed = [not torch.equal(after[j], before[j]) for j in range(5) if j != k]
        assert all(changed)


def test_no_gradient_of_a_block_through_its_own_operator():
    x, y = rows(3)
    x.requires_grad_()
    parts = contiguous_folds(1, 40, 4)
    (gradient,) = torch.autograd.grad(leave_one_out(x, y, 0.1, parts)[2].square().sum(), x)
    assert (gradient[20:30] == 0).all()
    assert (gradient[:20] != 0).any(-1).all() and (gradient[30:] != 0).any(-1).all()


def test_one_block_is_predicted_by_the_operator_of_all_rows():
    x, y = rows(4)
    parts = contiguous_folds(1, 40, 1, purge=3)
    near(out_of_fold(x, leave_one_out(x, y, 0.1, parts), parts), x.numpy() @ solved(x.numpy(), y.numpy(), 0.1))


def test_unexplained_is_one_minus_r_squared_of_whitened_coordinates():
    x, y = rows(4, 200)
    residual = y - x @ ridge(x, y, 0.0)
    white = np.linalg.inv(np.linalg.cholesky(np.cov(y.numpy().T, bias=True)))
    expected = ((residual.numpy() @ white.T) ** 2).mean()
    near(unexplained(residual, y, 0.0), expected)
    mix = torch.tensor([[1.0, 3.0], [0.2, -5.0]], dtype=torch.float64)
    near(unexplained(residual @ mix, y @ mix + 7, 0.0), expected)
    near(unexplained(y - y.mean(0), y, 0.0), 1.0)


def test_unexplained_survives_directions_without_variance():
    x, y = rows(5)
    flat = torch.cat([y, y[:, :1]], -1)
    assert torch.isfinite(unexplained(0.1 * flat, flat))
    assert unexplained(0 * x, torch.ones_like(x)) == 0


def test_gradients():
    x, y = rows(6, 15)
    parts = contiguous_folds(1, 15, 3, purge=1)

    def loss(x, y):
        operators = leave_one_out(x, y, 0.1, parts)
        return unexplained(out_of_fold(x, operators, parts) - y, y), operators

    assert torch.autograd.gradcheck(loss, (x.requires_grad_(), y.requires_grad_()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: contiguous_folds(1, 10, 0), "folds: expected a whole number from 1 to 10"),
        (lambda: contiguous_folds(1, 3, 5), "folds: expected a whole number from 1 to 3"),
        (lambda: contiguous_folds(1, 10, 2, purge=5), r"leave no row for block \[0\]"),
        (lambda: instrumented(*3 * [torch.ones(5, 2).double()], 0.0), "z: instruments do not tell"),
        (lambda: ridge(torch.ones(5, 2).double(), torch.ones(5, 1).double(), 0.0), "x: coordinates are linearly dep"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()

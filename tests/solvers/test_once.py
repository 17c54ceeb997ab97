"""Second derivatives: those that are there are right, the others are an error whichever way they are asked for."""

import pytest
import torch
from torch.autograd.functional import hessian

from kpm import solvers as S
from kpm.models import koopman
from kpm.models.deq import DEQ, DEQConfig
from kpm.models.mondeq import MonDEQ, MonDEQConfig
from kpm.solvers import once
from kpm.solvers.companion import coefficients, roots
from kpm.solvers.fixed_point import solve
from kpm.solvers.implicit import implicit
from kpm.solvers.projectors import projector


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def smooth(x):
    """A number with a second derivative from anything, real or complex."""
    x = torch.view_as_real(x) if x.is_complex() else x
    return (x.square() + x.square().square()).sum()


DECAY = torch.tensor([0.9, 0.6]).double() ** torch.arange(8)[:, None] + 1e-3 * normal(8, 2)
SPREAD = normal(3, 3) + torch.diag(torch.arange(3.0)).double()
WEIGHT, TARGET = 0.3 * normal(3, 3, seed=5), normal(2, 3, seed=6)


def settled(weight):
    z = solve(lambda z: torch.tanh(z @ weight + TARGET), torch.zeros(2, 3).double(), "plain", 1e-13, 300).check().z
    return implicit(lambda z: torch.tanh(z @ weight + TARGET), z, "plain", 1e-12, 300)[0]


def projected(matrix):
    values = S.eigenvalues(matrix)
    return projector(matrix, values, S.nearest_to_one(values)).real


def with_dependent_frames(z):
    return S.sequence_eigenvalues(torch.cat([z, z[:, :1].expand(-1, 3, -1)], 1))


def realized(z):
    blocks = S.hankel_blocks(z, 1)
    return S.realize(blocks.past.flatten(-2), blocks.future.flatten(-2), 2, loading=0.1).loss


DEQ_CONFIG = DEQConfig(shape=(1, 2, 2), size=3, tol=1e-10, most=200)
MONDEQ_CONFIG = MonDEQConfig(shape=(1, 2, 2), size=3, tol=1e-10)
CASES = {
    "least squares": (lambda z: S.shared(z).matrix, normal(2, 6, 3)),
    "ridge": (lambda z: S.per_sequence(z, ridge=0.1).matrix, normal(2, 6, 3)),
    "total": (lambda z: S.shared(z, method="total").matrix, normal(2, 6, 3)),
    "forward-backward": (lambda z: S.shared(z, method="forward_backward").matrix, DECAY),
    "subspace": (lambda z: S.subspace(z).matrix, normal(2, 9, 2)),
    "eigenvalues of a fit": (lambda z: S.eigenvalues(S.shared(z)), normal(2, 6, 3)),
    "sequence_eigenvalues": (S.sequence_eigenvalues, normal(2, 4, 5)),
    "sequence_eigenvalues, long": (S.sequence_eigenvalues, normal(2, 7, 3)),
    "sequence_eigenvalues, dependent": (with_dependent_frames, normal(2, 2, 6)),
    "static_part": (lambda z: S.static_part(z).static, normal(2, 4, 5)),
    "static_part of two": (lambda z: S.static_part(z, 2, True).static, normal(2, 4, 5)),
    "split, sequence": (lambda z: koopman.split(z, "sequence").static, normal(2, 4, 5)),
    "split, batch": (lambda z: koopman.split(z, "batch").static, normal(2, 6, 3)),
    "companion": (coefficients, normal(2, 4, 5)),
    "roots": (roots, normal(4)),
    "projector": (projected, normal(4, 4)),
    "realize": (realized, normal(2, 20, 3)),
    "fit_system": (lambda z: S.identify(z, 1, 2).system.transition, normal(2, 20, 3)),
    "nearest_eigenpair": (
        lambda a: S.nearest_eigenpair(a).value,
        normal(3, 3) + torch.diag(torch.arange(3.0)).double(),
    ),
    "implicit": (settled, WEIGHT),
    "DEQ": (lambda drive: DEQ(DEQ_CONFIG).double().equilibrium(drive), normal(2, 3)),
    "MonDEQ": (lambda drive: MonDEQ(MONDEQ_CONFIG).double().equilibrium(drive), normal(2, 3)),
}


@pytest.fixture(params=list(CASES))
def case(request):
    f, x = CASES[request.param]

    def value(x):
        torch.manual_seed(0)  # the weights of the models
        return smooth(f(x))

    return value, x.clone().requires_grad_()


def test_a_second_derivative_is_an_error_by_backward(case):
    f, x = case
    (first,) = torch.autograd.grad(f(x), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="is differentiable once: there is no second derivative"):
        first.sum().backward(retain_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once"):
        torch.autograd.grad(first.sum(), x, create_graph=True, allow_unused=True)


def test_a_hessian_is_an_error(case):
    f, x = case
    with pytest.raises(NotImplementedError, match="differentiable once"):
        hessian(f, x.detach())
    with pytest.raises(NotImplementedError, match="differentiable once"):
        torch.autograd.functional.hvp(f, x.detach(), torch.ones_like(x))


def test_a_first_derivative_with_a_graph_is_the_same_to_the_last_bit(case):
    f, x = case
    (plain,) = torch.autograd.grad(f(x), x)
    (graph,) = torch.autograd.grad(f(x), x, create_graph=True)
    assert torch.equal(plain, graph) and plain.abs().max() > 0


@pytest.mark.parametrize("name", ["least squares", "companion", "roots", "realize", "nearest_eigenpair"])
def test_a_linear_functional_of_outputs_is_an_error_too(name):
    """With a constant gradient coming in, nothing but the tie links the first derivative to the input."""
    f, x = CASES[name]
    with pytest.raises(NotImplementedError, match="differentiable once"):
        hessian(lambda x: f(x).real.sum() if f(x).is_complex() else f(x).sum(), x)


def kalman(matrix):
    eye = torch.eye(2, dtype=torch.float64)
    model = S.LinearGaussian(matrix, eye, 0.3 * eye, 0.2 * eye, torch.zeros(2), eye)
    return S.kalman_filter(model, normal(5, 2)).log_likelihood


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda a: smooth(S.eigenvalues(a)), normal(3, 3)),
        (lambda a: smooth(S.predict(normal(3), a, 4)), 0.5 * normal(3, 3)),
        (lambda a: kalman(a).square(), 0.5 * normal(2, 2)),
        (lambda a: smooth(S.continuous(S.eigenvalues(a)).rate), normal(3, 3)),
    ],
)
def test_what_is_not_refused_is_right(f, x):
    """Against central differences of the first derivative."""
    step, at = 1e-5, x.clone().requires_grad_()
    ours = hessian(f, x).reshape(x.numel(), x.numel())

    def first(offset):
        return torch.autograd.grad(f(at + offset.view_as(x)), at)[0].flatten()

    unit = step * torch.eye(x.numel(), dtype=torch.float64)
    differences = torch.stack([(first(e) - first(-e)) / (2 * step) for e in unit])
    assert (ours - differences).abs().max() < 1e-6 * (1 + differences.abs().max())


def test_a_derivative_that_does_not_meet_the_tie_is_there():
    """A directional derivative, by two passes backwards: linear in the gradient, not in what is held fixed."""
    z, direction = normal(2, 6, 3), normal(2, 6, 3, seed=1)
    _, ours = torch.autograd.functional.jvp(lambda z: S.shared(z).matrix, z, direction)
    step = 1e-6
    differences = (S.shared(z + step * direction).matrix - S.shared(z - step * direction).matrix) / (2 * step)
    assert (ours - differences).abs().max() < 1e-7


def test_transforms_of_functions_see_a_guard_as_the_identity():
    matrix = torch.diag(torch.tensor([1.0, 0.5, 0.1])).double() + 0.01 * normal(3, 3)
    pair = S.nearest_eigenpair(matrix)
    found = torch.func.grad(lambda a: S.nearest_eigenpair(a).value)(matrix)
    torch.testing.assert_close(found, torch.outer(pair.left, pair.right), rtol=0, atol=1e-12)
    rows = torch.func.jacrev(lambda x: once.guard(x, "this").square())(normal(3))
    torch.testing.assert_close(rows, torch.diag(2 * normal(3)))


@pytest.mark.parametrize("model", [DEQ(DEQ_CONFIG), MonDEQ(MONDEQ_CONFIG)])
def test_equilibria_pass_gradcheck_with_its_defaults(model):
    """Among these is a gradient that is not there at all, which counts as zero."""
    x = normal(2, 1, 2, 2, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(model.double(), x)

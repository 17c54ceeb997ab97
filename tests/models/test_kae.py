"""Koopman autoencoders of layers: operators, losses, alignment, and the classifier they stand in for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch

from kpm.errors import UserError
from kpm.models.alignment import SIZE, LayerAlignment, rotation
from kpm.models.kae import KAE, KAEConfig, distance_change, kae_terms
from kpm.models.res_mlp import ResMLP, ResMLPConfig
from kpm.models.surrogate import Surrogate, SurrogateConfig

SMALL = KAEConfig(inputs=5, hidden=8, lifted=6, steps=4)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def perturbed(config):
    """A model whose operator is not where it starts."""
    model = KAE(config).double()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn_like(p)
    return model


@pytest.mark.parametrize("operator", ["exp", "full", "low-rank"])
def test_powers_are_those_of_one_step(operator):
    model = perturbed(dataclasses.replace(SMALL, operator=operator, rank=3))
    one = model.power(1).detach().numpy()
    for n in range(5):
        expected = np.linalg.matrix_power(one, n)
        np.testing.assert_allclose(model.power(n).detach().numpy(), expected, atol=1e-10)
    assert torch.equal(model.power(), model.power(4))
    assert np.linalg.matrix_rank(one) == (3 if operator == "low-rank" else 6)


def test_the_exponential_is_scipys_and_has_any_real_power():
    model = perturbed(SMALL)
    x = model.generator.detach().numpy()
    np.testing.assert_allclose(model.power().detach().numpy(), scipy.linalg.expm(x), rtol=1e-9)
    np.testing.assert_allclose(model.power(1).detach().numpy(), scipy.linalg.expm(x / 4), rtol=1e-9)
    np.testing.assert_allclose(model.power(-1.5).detach().numpy(), scipy.linalg.expm(-1.5 * x / 4), rtol=1e-9)
    with pytest.raises(ValueError, match=r"full operators have whole powers only, got 1.5"):
        perturbed(dataclasses.replace(SMALL, operator="full")).power(1.5)


def test_a_path_starts_with_the_reconstruction_and_ends_with_the_prediction():
    model, x = perturbed(SMALL), torch.randn(7, 5, dtype=torch.float64)
    path = model.path(x)
    assert path.shape == (7, 5, 5)
    torch.testing.assert_close(path[:, 0], model.decode(model.encode(x)))
    torch.testing.assert_close(path[:, -1], model(x))


def test_terms_are_the_published_ones():
    model, x = perturbed(SMALL), torch.randn(6, 2, 5, dtype=torch.float64)
    model.requires_grad_(False)
    terms = kae_terms(model, x)
    first, last = x.unbind(1)
    z = [model.encode(v) for v in (first, last)]
    moved = z[0] @ torch.linalg.matrix_power(model.power(1), 4)

    def mse(a, b):
        return (a - b).square().mean()

    def change(v, w):  # pair by pair, each with itself too
        return sum((float((w[a] - w[b]).norm()) - float((v[a] - v[b]).norm())) ** 2 for a in range(6) for b in range(6))

    expected = {
        "reconstruction": 0.5 * (mse(model.decode(z[0]), first) + mse(model.decode(z[1]), last)),
        "state": mse(model.decode(moved), last),
        "linear": mse(moved, z[1]),
        "distance": (change(first, z[0]) + change(last, z[1])) / 36,
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(float(value), rel=1e-9), name


def test_more_layers_are_all_pairs_of_them():
    model, x = perturbed(SMALL), torch.randn(6, 3, 5, dtype=torch.float64)
    z = model.encode(x)
    pairs = [(0, 1, 2), (0, 2, 4), (1, 2, 2)]
    linear = sum((z[:, i] @ model.power(n) - z[:, j]).square().mean() for i, j, n in pairs) / 3
    assert float(kae_terms(model, x)["linear"].detach()) == pytest.approx(float(linear.detach()), rel=1e-9)


def test_distances_that_stay_cost_nothing():
    x = torch.randn(9, 4, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    assert distance_change(x, x @ turn + 1) < 1e-20 < distance_change(x, 2 * x)


def test_gradients_reach_every_parameter():
    for operator in ("exp", "full", "low-rank"):
        model = KAE(dataclasses.replace(SMALL, operator=operator, rank=2))
        sum(kae_terms(model, torch.randn(4, 2, 5)).values()).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operator": "expp"}, "unknown operator 'expp'; did you mean 'exp'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"operator": "low-rank"}, "rank must be 1 to lifted = 6 for a low-rank operator, got 0"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **change)
    with pytest.raises(ValueError, match=r"states: expected \(n, 2 or more, 5\), got \(3, 1, 5\)"):
        kae_terms(KAE(SMALL), torch.zeros(3, 1, 5))


def test_procrustes_finds_the_rotation():
    x = torch.randn(30, 4, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    assert (rotation(x, x @ turn) - turn).abs().max() < 1e-10
    found = rotation(x, torch.randn(30, 4, dtype=torch.float64))
    assert (found.mT @ found - torch.eye(4)).abs().max() < 1e-10
    expected = scipy.linalg.orthogonal_procrustes(x.numpy(), (y := torch.randn(30, 4, dtype=torch.float64)).numpy())[0]
    np.testing.assert_allclose(rotation(x, y).numpy(), expected, atol=1e-10)
    with pytest.raises(ValueError, match="source, target"):
        rotation(x, x[:3])


def test_alignment_and_back():
    x = torch.randn(50, 2, 6, dtype=torch.float64) * torch.arange(1, 7) + 3
    whole = LayerAlignment(2, 6, 6).double().fit(x)
    y = whole(x)
    torch.testing.assert_close(whole.undo(y[:, 1]), x[:, 1], rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.linalg.matrix_norm(y.movedim(1, 0)), torch.full((2,), SIZE, dtype=torch.float64))
    assert y.mean(0).abs().max() < 1e-9
    # Distances change by the scale only, and no rotation would bring the first layer nearer.
    torch.testing.assert_close(torch.pdist(y[:, 0]) * whole.scales[0], torch.pdist(x[:, 0].contiguous()))
    nearer = rotation(y[:, 0], y[:, 1])
    torch.testing.assert_close(nearer, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-8)
    few = LayerAlignment(2, 6, 2).double().fit(x)
    centred = x[:, 1] - x[:, 1].mean(0)
    left = float((few.undo(few(x)[:, 1]) - x[:, 1]).square().sum())
    assert left == pytest.approx(float(torch.linalg.svdvals(centred)[2:].square().sum()), rel=1e-9)


def test_states_that_cannot_be_aligned_are_named():
    with pytest.raises(ValueError, match=r"states: expected \(n, 2, 6\), got \(5, 6\)"):
        LayerAlignment(2, 6, 6).fit(torch.zeros(5, 6))
    with pytest.raises(ValueError, match="components: 6 axes of 5 states of width 6"):
        LayerAlignment(2, 6, 6).fit(torch.randn(5, 2, 6))
    x = torch.randn(9, 2, 6)
    x[:, 1] = 1
    with pytest.raises(ValueError, match="those of layer 1 are all the same"):
        LayerAlignment(2, 6, 6).fit(x)
    x[3, 0, 2] = torch.nan
    with pytest.raises(ValueError, match=r"states\[3, 0, 2\] is not finite but NaN \(shape \(9, 2, 6\)\)"):
        LayerAlignment(2, 6, 6).fit(x)


def test_an_alignment_works_once_it_is_fitted_or_loaded():
    x, empty = torch.randn(20, 3, 6), LayerAlignment(3, 6, 4)
    for use in (lambda: empty(x), lambda: empty.apply_to(x[:, 0], 0), lambda: empty.undo(x[:, 0, :4])):
        with pytest.raises(ValueError, match=r"LayerAlignment: not fitted \(maps \(3, 6, 4\)\)"):
            use()
    fitted = LayerAlignment(3, 6, 4).fit(x)
    empty.load_state_dict(fitted.state_dict())
    assert torch.equal(empty(x), fitted(x)) and fitted(x).abs().min() > 0


def test_the_classifier_is_its_layers_one_after_another():
    model = ResMLP(ResMLPConfig(inputs=6, classes=3, width=5, blocks=2)).eval()
    assert model.layers == ("first", "blocks.0", "blocks.1")
    x = torch.randn(4, 1, 2, 3)
    h = model.first(x.flatten(1))
    for block in model.blocks:
        h = torch.relu(h + block.inner(h))
    torch.testing.assert_close(model(x), model.readout(h))
    assert torch.all(model.readout.bias == 0.01)
    with pytest.raises(ValueError, match=r"x: expected 6 numbers a sample, got shape \(4, 5\)"):
        model(torch.zeros(4, 5))
    with pytest.raises(UserError, match="blocks must be at least 1, got 0"):
        ResMLPConfig(6, 3, blocks=0)


def test_a_surrogate_leaves_its_classifier_alone():
    model = Surrogate(SurrogateConfig(6, 3, width=5, blocks=2, components=4, hidden=7, lifted=6, steps=3)).train()
    assert model.kae.training and not any(m.training for m in model.network.modules())
    assert not any(p.requires_grad for p in model.network.parameters())
    x = torch.randn(20, 6)
    states = torch.stack([model.network.first(x), torch.randn(20, 5)], 1)
    model.alignment.fit(states)
    z = model.observe(x)
    torch.testing.assert_close(z, model.kae.encode(model.alignment(states)[:, 0]))
    torch.testing.assert_close(model(x), model.read(z @ model.kae.power()))
    edited = torch.randn(6, 6, dtype=torch.float64)
    torch.testing.assert_close(model(x, edited), model.read(z.double() @ edited))

"""Split, swap and spectral loss against the K x K eigendecomposition, done plainly with numpy."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kpm import solvers
from kpm.models import koopman


def latents(n=5, t=8, k=15, seed=0):
    return torch.randn(n, t, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def reference_static(z, operator, size, rank=None):
    """Static part by the full eigendecomposition: the `size` non-zero eigenvalues nearest 1, real part at the end."""
    # scipy gives left eigenvectors of their own: the zeros can be defective, and `right` then has no inverse.
    values, left, right = scipy.linalg.eig(operator, left=True)
    left = left.conj().T / np.sum(left.conj() * right, 0)[:, None]
    zeros = np.argsort(-abs(values))[rank:] if rank else []
    distance = abs(values - 1)
    distance[zeros] = np.inf
    chosen = np.argsort(distance, kind="stable")[:size]
    return (z @ right[:, chosen] @ left[chosen]).real, values


@pytest.mark.parametrize(("t", "k"), [(8, 15), (10, 28), (8, 40), (2, 3), (8, 7)])
def test_closed_form_equals_the_full_eigendecomposition_per_sequence(t, k):
    z = latents(6, t, k)
    got = koopman.split(z, "sequence")
    for i, zi in enumerate(z.numpy()):
        operator = np.linalg.pinv(zi[:-1]) @ zi[1:]
        expected, values = reference_static(zi, operator, 1, rank=t - 1)
        np.testing.assert_allclose(got.static[i].numpy(), expected, atol=1e-8)
        nonzero = values[np.argsort(-abs(values))[: t - 1]]
        for value in got.eigenvalues[i].numpy():
            assert abs(nonzero - value).min() < 1e-8
    torch.testing.assert_close(got.static + got.dynamic, z)


def test_shared_operator_split_equals_the_full_eigendecomposition():
    z = latents(30, 8, 12)
    # A pair cut by the choice of modes is the published behaviour: no exception for conjugates.
    for size in (1, 3, 4, 7):
        got = koopman.split(z, "batch", size)
        past, future = z[:, :-1].reshape(-1, 12).numpy(), z[:, 1:].reshape(-1, 12).numpy()
        operator = np.linalg.lstsq(past, future, rcond=None)[0]
        values = np.linalg.eigvals(operator)
        distance = np.sort(abs(values - 1))
        if np.isclose(distance[size - 1], distance[size]):
            continue  # which of two equally near conjugates comes first is the solver's choice; real parts agree
        expected, _ = reference_static(z.numpy(), operator, size)
        np.testing.assert_allclose(got.static.numpy(), expected, atol=1e-8)
    assert got.static.shape == z.shape


def test_no_pair_is_formed_across_sequences():
    """Two sequences of opposite dynamics: a pair across their border would spoil the exact operator."""
    a = torch.tensor([[0.9, 0.2], [-0.2, 0.9]], dtype=torch.float64)
    z = latents(4, 1, 2)
    steps = [z]
    for _ in range(5):
        steps.append(steps[-1] @ a)
    torch.testing.assert_close(solvers.shared(torch.cat(steps, 1)).matrix, a)


def test_static_part_is_geometric_in_time():
    got = koopman.split(latents(), "sequence", pair=False)
    real = got.eigenvalues[:, 0].imag.abs() < 1e-12
    assert real.any()
    ratio = got.static[real, 1:] / got.static[real, :-1]
    torch.testing.assert_close(ratio, got.eigenvalues[real, :1, None].real.expand_as(ratio), rtol=1e-6, atol=1e-8)


def test_pair_doubles_only_complex_static_modes():
    z = latents(20)
    one, both = koopman.split(z, "sequence"), koopman.split(z, "sequence", pair=True)
    complex_mode = one.eigenvalues[:, 0].imag.abs() > 1e-9
    assert complex_mode.any() and not complex_mode.all()
    torch.testing.assert_close(both.static[complex_mode], 2 * one.static[complex_mode])
    torch.testing.assert_close(both.static[~complex_mode], one.static[~complex_mode])
    for split in (one, both):
        torch.testing.assert_close(split.static + split.dynamic, z)


def test_spectral_loss_counts_the_zeros_that_the_companion_form_leaves_out():
    z = latents(7, 8, 15)
    operators = torch.linalg.pinv(z[:, :-1]) @ z[:, 1:]
    full = torch.linalg.eigvals(operators).numpy()
    static_terms, dynamic_terms = [], []
    for values in full:
        order = np.argsort(abs(values - 1))
        static_terms.append(abs(values[order[0]] - 1) ** 2)
        dynamic_terms.extend(v.real if v.real > 0.3 else 0.0 for v in values[order[1:]])
    _, values = koopman.predict(z, "sequence")
    static, dynamic = koopman.spectral_loss(values, 1, 0.3, 15)
    assert static.item() == pytest.approx(np.mean(static_terms), rel=1e-8)
    assert dynamic.item() == pytest.approx(np.mean(dynamic_terms), rel=1e-8)
    assert np.mean(dynamic_terms) > 0


@pytest.mark.parametrize("scope", ["sequence", "batch"])
def test_spectral_loss_gradient(scope):
    z = latents(4, 5, 6, seed=3).requires_grad_()

    def loss(z):
        _, values = koopman.predict(z, scope)
        return sum(koopman.spectral_loss(values, 1, -10.0, 6))

    assert torch.autograd.gradcheck(loss, z)


@given(seed=st.integers(0, 10**6), t=st.integers(2, 9), k=st.integers(8, 20))
@settings(max_examples=30, deadline=None)
def test_prediction_per_sequence_is_the_sequence_itself(seed, t, k):
    z = latents(3, t, k, seed)
    operators = torch.linalg.pinv(z[:, :-1]) @ z[:, 1:]
    torch.testing.assert_close(z[:, :-1] @ operators, koopman.predict(z, "sequence")[0][:, 1:], rtol=1e-6, atol=1e-6)


def test_dependent_frames_are_predicted_by_least_squares_others_as_they_are():
    z = latents(5, 5, 6)
    z[1] = torch.arange(5.0)[:, None]  # from zero, and all along one direction
    z[3, 2] = z[3, 0] - 2 * z[3, 1]
    z[4] = 0
    z.requires_grad_()
    found = koopman.predict(z, "sequence")[0]
    plain = z.detach().numpy()
    for i, film in enumerate(plain):
        operator = np.linalg.lstsq(film[:-1], film[1:], rcond=1e-12)[0]
        np.testing.assert_allclose(found[i, 1:].detach(), film[:-1] @ operator, atol=1e-9)
        assert (found[i, 0] == z[i, 0]).all()
    np.testing.assert_allclose(found[1, :, 0].detach(), [0, 0, 10 / 7, 20 / 7, 30 / 7], atol=1e-9)
    assert (found[[0, 2]] == z[[0, 2]]).all()
    (gradient,) = torch.autograd.grad((found - z)[[0, 1, 2, 3]].square().sum(), z)
    assert gradient.isfinite().all() and (gradient[[0, 2]] == 0).all() and gradient[1].abs().max() > 1e-3
    # Along the line the frames lie on, the rank stays: against differences of numpy's least squares there.
    line = torch.arange(5.0).double().requires_grad_()

    def loss(scale):
        film = (scale[:, None] * np.ones((5, 6))) if isinstance(scale, np.ndarray) else scale[:, None] * torch.ones(6)
        if isinstance(film, np.ndarray):
            return ((film[:-1] @ np.linalg.lstsq(film[:-1], film[1:], rcond=1e-12)[0] - film[1:]) ** 2).sum()
        return (koopman.predict(film[None].double(), "sequence")[0] - film).square().sum()

    (slope,) = torch.autograd.grad(loss(line), line)
    step, at = 1e-5, np.arange(5.0)
    expected = [(loss(at + step * e) - loss(at - step * e)) / (2 * step) for e in np.eye(5)]
    np.testing.assert_allclose(slope.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_swap_exchanges_what_it_says():
    a, b = koopman.split(latents(seed=1), "sequence"), koopman.split(latents(seed=2), "sequence")
    torch.testing.assert_close(koopman.swap(a, b, "static"), b.static + a.dynamic)
    torch.testing.assert_close(koopman.swap(a, b, "dynamic"), a.static + b.dynamic)
    torch.testing.assert_close(koopman.swap(a, a), a.static + a.dynamic)
    channels = torch.tensor([0, 4])
    mixed = koopman.swap(a, b, "static", channels) - a.dynamic
    torch.testing.assert_close(mixed[..., channels], b.static[..., channels])
    rest = [i for i in range(15) if i not in (0, 4)]
    torch.testing.assert_close(mixed[..., rest], a.static[..., rest])
    with pytest.raises(ValueError, match="what"):
        koopman.swap(a, b, "colour")
    with pytest.raises(ValueError, match="same shape"):
        koopman.swap(a, koopman.take(b, torch.tensor([0])))


@pytest.mark.parametrize("scope", ["sequence", "batch"])
def test_bad_input_names_shape_and_index(scope):
    with pytest.raises(ValueError, match=r"at least 2 frames are needed, got shape \(3, 1, 5\)"):
        koopman.split(latents(3, 1, 5), scope)
    with pytest.raises(ValueError, match=r"expected \(n, t, K\), got shape \(8, 5\)"):
        koopman.split(latents(1, 8, 5)[0], scope)
    z = latents()
    z[3, 2, 1] = torch.nan
    with pytest.raises(ValueError, match=r"z\[3, 2, 1\] is not finite"):
        koopman.predict(z, scope)


@pytest.mark.parametrize("scope", ["sequence", "batch"])
def test_sequences_are_taken_by_numbers_or_by_bools(scope):
    parts = koopman.split(latents(4), scope)
    for index in (torch.tensor([3, -4]), torch.tensor([True, False, False, True]), [3, 0]):
        taken = koopman.take(parts, index)
        torch.testing.assert_close(taken.static, parts.static[index])
        values = parts.eigenvalues[index] if scope == "sequence" else parts.eigenvalues
        torch.testing.assert_close(taken.eigenvalues, values)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([0, 4]), r"index\[1\]: 4 is not one of 4 \(shape \(2,\)\)"),
        (torch.tensor(-5), r"index: -5 is not one of 4 \(shape \(\)\)"),
        (torch.tensor([True] * 3), r"index: expected bool of shape \(4,\), got shape \(3,\)"),
        (torch.tensor([0.5]), r"index: expected whole numbers or bool, got torch.float32 of shape \(1,\)"),
    ],
)
def test_sequences_that_there_are_not_are_refused(index, message):
    with pytest.raises(ValueError, match=message):
        koopman.take(koopman.split(latents(4), "sequence"), index)


def test_channels_that_there_are_not_are_refused():
    parts = koopman.split(latents(4), "sequence")
    with pytest.raises(ValueError, match=r"channels\[1\]: 15 is not one of 15"):
        koopman.swap(parts, parts, channels=torch.tensor([0, 15]))
    torch.testing.assert_close(koopman.swap(parts, parts, channels=[]), parts.static + parts.dynamic)


def test_a_film_that_stands_still_at_first_is_taken_apart_like_any_other():
    z = latents()
    z[2, 1] = z[2, 0]  # dependent frames: there is no companion form
    got = koopman.split(z, "sequence")
    for i in range(len(z)):
        operator = np.linalg.pinv(z[i, :-1].numpy()) @ z[i, 1:].numpy()
        expected, _ = reference_static(z[i].numpy(), operator, 1, rank=6 if i == 2 else 7)
        np.testing.assert_allclose(got.static[i].numpy(), expected, atol=1e-8)

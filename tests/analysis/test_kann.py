"""KANN against linear dynamics of known spectrum, plain numpy formulas and the published procedure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import NotFittedError

from kpm.analysis.kann import KANN
from kpm.analysis.kann_analysis import conjugate_pairs
from kpm.solvers.streaming import Basis

EIGENVALUES = np.array([0.99, 0.9 + 0.3j, 0.9 - 0.3j, 0.7, 0.5, -0.4])


def dynamics(seed: int = 0) -> np.ndarray:
    """A real ``(6, 6)`` matrix with the eigenvalues above and no orthogonal eigenvectors."""
    rng = np.random.default_rng(seed)
    block = np.diag(EIGENVALUES.real)
    block[1, 2], block[2, 1] = -0.3, 0.3
    into = rng.normal(size=(6, 6)) + 2 * np.eye(6)
    return into @ block @ np.linalg.inv(into)


def linear_states(n: int = 20, time: int = 15, seed: int = 0, start: float = 0.0) -> np.ndarray:
    """``(n, time, 6)`` states ``h[t+1] = h[t] A`` from random starts of mean `start`."""
    states = [np.random.default_rng(seed + 1).normal(size=(n, 6)) + start]
    for _ in range(time - 1):
        states.append(states[-1] @ dynamics(seed))
    return np.stack(states, 1)


def network_states(n: int = 12, time: int = 40, hidden: int = 8, seed: int = 0) -> np.ndarray:
    """States of a random tanh network driven by noise: full rank, not linear."""
    rng = np.random.default_rng(seed)
    recurrent = rng.normal(size=(hidden, hidden)) / np.sqrt(hidden)
    h, states = np.zeros((n, hidden)), []
    for _ in range(time):
        h = np.tanh(h @ recurrent + 0.5 * rng.normal(size=(n, hidden)) + 0.2)
        states.append(h)
    return np.stack(states, 1)


def order(values: np.ndarray) -> np.ndarray:
    """One order for two sets of eigenvalues."""
    values = np.asarray(values)
    return values[np.lexsort((values.imag.round(6), values.real.round(6)))]


def published(states: np.ndarray, centred: bool = False) -> tuple[np.ndarray, ...]:
    """The published procedure: one basis less than the hidden size, least squares over all steps, `eig`."""
    n, time, hidden = states.shape
    k = min(n * (time - 1), hidden) - 1
    reduce = PCA(k) if centred else TruncatedSVD(k, random_state=0)
    coefficients = reduce.fit_transform(states.reshape(-1, hidden)).reshape(n, time, k)
    past, future = coefficients[:, :-1].reshape(-1, k), coefficients[:, 1:].reshape(-1, k)
    operator = np.linalg.lstsq(past, future, rcond=None)[0]
    values, vectors = np.linalg.eig(operator)
    return values, vectors, operator, reduce.components_.T


@pytest.mark.parametrize("method", ["gram", "qr"])
@pytest.mark.parametrize("basis", ["svd", "identity", "own", "Basis"])
def test_any_basis_that_spans_the_states_gives_the_true_spectrum(basis, method):
    states, a = linear_states(), dynamics()
    own = np.random.default_rng(5).normal(size=(6, 6)) + 3 * np.eye(6)
    if basis == "Basis":
        own = Basis(torch.from_numpy(own), torch.ones(6), torch.zeros(6))
    kann = KANN(own if basis in ("own", "Basis") else basis, method=method).fit(states)
    np.testing.assert_allclose(order(kann.eigenvalues_), order(EIGENVALUES), atol=1e-9)
    assert (np.diff(np.abs(kann.eigenvalues_)) <= 1e-12).all()
    np.testing.assert_allclose(kann.basis_ @ kann.operator_ @ kann.dual_, a, atol=1e-8)
    np.testing.assert_allclose(a @ kann.eigenvectors_, kann.eigenvectors_ * kann.eigenvalues_, atol=1e-8)
    np.testing.assert_allclose(kann.modes_ @ a, kann.eigenvalues_[:, None] * kann.modes_, atol=1e-8)
    np.testing.assert_allclose(kann.left_ @ kann.right_, np.eye(6), atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(kann.right_, axis=0), 1)
    np.testing.assert_allclose(kann.predict(states, 3), states @ np.linalg.matrix_power(a, 3), atol=1e-8)
    np.testing.assert_allclose(kann.rollout(states[:, 0], 14), states[:, 1:], atol=1e-8)
    amplitudes = kann.amplitudes(states)
    np.testing.assert_allclose(amplitudes[:, 1:], amplitudes[:, :-1] * kann.eigenvalues_, atol=1e-8)
    np.testing.assert_allclose(kann.inverse_transform(kann.transform(states)), states, atol=1e-9)
    assert kann.relative_error(states) < 1e-12 and kann.rank_ == 6 and kann.residual_ < 1e-6


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), hidden=st.integers(2, 9))
def test_eigenvalues_and_predictions_do_not_depend_on_the_basis(seed, hidden):
    states = network_states(hidden=hidden, seed=seed)
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(hidden, hidden)))[0]
    plain = KANN("identity").fit(states)
    for basis in ("svd", turn, turn * rng.uniform(0.5, 2, hidden)):
        kann = KANN(basis).fit_moments(plain.moments_)
        found = plain.compare(kann)
        assert found.distance.max() < 1e-7 * (1 + plain.eigenvector_condition_)
        np.testing.assert_allclose(kann.predict(states), plain.predict(states), atol=1e-9)


def test_principal_axes_keep_the_spectrum_only_of_states_whose_mean_is_at_rest():
    states = linear_states()
    both = np.concatenate([states, -states])  # mean zero at all times
    np.testing.assert_allclose(order(KANN("pca").fit(both).eigenvalues_), order(EIGENVALUES), atol=1e-8)
    states = linear_states(start=3.0)  # and the mean fades
    moving = KANN("pca").fit(states)
    assert np.abs(order(moving.eigenvalues_) - order(EIGENVALUES)).max() > 1e-3
    np.testing.assert_allclose(moving.mean_, states.mean((0, 1)))
    np.testing.assert_allclose(moving.reconstruct(states, range(6)), states, atol=1e-8)  # the mean is added again


@pytest.mark.parametrize("basis", ["svd", "pca"])
def test_equal_to_the_published_procedure(basis):
    states = network_states(hidden=16)
    values, vectors, operator, components = published(states, basis == "pca")
    kann = KANN(basis, rank="published", pair="abs").fit(states)
    assert kann.basis_.shape == (16, 15)
    np.testing.assert_allclose(order(kann.eigenvalues_), order(values), atol=1e-8)
    # Signs of singular vectors are free; the operator of hidden states is not.
    np.testing.assert_allclose(
        kann.basis_ @ kann.operator_ @ kann.basis_.T, components @ operator @ components.T, atol=1e-9
    )
    h = states - (states.mean((0, 1)) if basis == "pca" else 0)
    match = [int(np.abs(values - value).argmin()) for value in kann.eigenvalues_]
    np.testing.assert_allclose(kann.magnitude(states), np.abs(h @ components @ vectors)[..., match], atol=1e-8)


def test_dominant_modes_are_those_of_largest_mean_magnitude():
    states, lengths = network_states(), np.arange(29, 41)
    kann = KANN().fit(states)
    sizes = [np.abs(h[:k] @ kann.basis_ @ kann.right_).sum(0) for h, k in zip(states, lengths, strict=True)]
    found = kann.dominant(states, lengths)
    assert sorted(found) == list(range(8))
    assert (np.diff(np.mean(sizes, 0)[found]) < 1e-9).all()
    places = {int(mode): place for place, mode in enumerate(found)}
    assert all(places[i] + 1 == places[j] for i, j in (group for group in kann.pairs_ if len(group) == 2))


def test_abs_pair_is_the_published_product():
    states = network_states(hidden=5)
    values, vectors, _, components = published(states)
    i = int(np.argmax(values.imag))
    j = int(np.abs(values - values[i].conj()).argmin())
    product = np.abs(vectors[:, [i, j]] @ np.linalg.inv(vectors)[[i, j]])
    # The modulus is taken in coordinates, so it depends on the signs of the basis: give the published one.
    kann = KANN(components, pair="abs").fit(states)
    modes = [int(np.abs(kann.eigenvalues_ - value).argmin()) for value in values[[i, j]]]
    np.testing.assert_allclose(kann.reconstruct(states, modes), states @ components @ product @ components.T, atol=1e-9)
    assert not np.allclose(kann.reconstruct(states, modes, pair="real"), kann.reconstruct(states, modes))


def test_magnitude_and_reconstruction_are_plain_formulas():
    states = network_states()
    kann = KANN(rank=6).fit(states)
    b, v, u = kann.basis_, kann.right_, np.linalg.inv(kann.right_)
    np.testing.assert_allclose(kann.magnitude(states, [3, 0]), np.abs(states @ b @ v[:, [3, 0]]), atol=1e-12)
    np.testing.assert_allclose(kann.magnitude(states, 2), np.abs(states @ b @ v[:, [2]]), atol=1e-12)
    pair = next(group for group in kann.pairs_ if len(group) == 2)
    product = v[:, pair] @ u[list(pair)]
    assert np.abs(product.imag).max() < 1e-12
    part = states @ b @ product.real @ b.T
    np.testing.assert_allclose(kann.reconstruct(states, pair), part, atol=1e-10)
    np.testing.assert_allclose(kann.reconstruct(states, pair[1]), part, atol=1e-10)  # its conjugate is added
    np.testing.assert_allclose(kann.reconstruct(states, pair, "abs"), states @ b @ np.abs(product) @ b.T, atol=1e-10)
    lengths = np.stack([np.linalg.norm(part, axis=-1), np.abs(states @ b @ v[:, 1])], -1)
    np.testing.assert_allclose(kann.magnitude(states, [pair, 1]), lengths, atol=1e-10)
    abs_length = np.linalg.norm(states @ b @ np.abs(product) @ b.T, axis=-1)
    np.testing.assert_allclose(kann.magnitude(states, [pair], "abs")[..., 0], abs_length, atol=1e-10)
    total = sum(kann.reconstruct(states, group) for group in kann.pairs_)
    np.testing.assert_allclose(total, states @ b @ b.T, atol=1e-10)
    twice = kann.reconstruct(kann.reconstruct(states, pair), pair)
    np.testing.assert_allclose(twice, part, atol=1e-10)  # a projection; "abs" is none:
    assert not np.allclose(kann.reconstruct(kann.reconstruct(states, pair, "abs"), pair, "abs"), part)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12))
def test_pairs_are_found_by_value_in_any_order(seed, n):
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.permutation(np.linalg.eigvals(rng.normal(size=(n, n))) + 0j))
    groups = conjugate_pairs(values)
    assert sorted(j for group in groups for j in group) == list(range(n))
    for group in groups:
        partner = values[group[-1]].conj()
        assert values[group[0]] == partner and (len(group) == 2) == bool(values[group[0]].imag != 0)


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_batches_add_up_to_one_fit(method):
    states, lengths = network_states(n=30), np.random.default_rng(1).integers(2, 41, 30)
    whole = KANN(rank=5, method=method).fit(states, lengths)
    parts = KANN(rank=5, method=method)
    for b in range(0, 30, 7):
        parts.partial_fit(states[b : b + 7], lengths[b : b + 7])
    assert "operator_" not in parts.__dict__  # worked out when asked for
    np.testing.assert_allclose(parts.eigenvalues_, whole.eigenvalues_, atol=1e-10)
    np.testing.assert_allclose(parts.operator_, whole.operator_, atol=1e-10)
    np.testing.assert_allclose(parts.basis_, whole.basis_, atol=1e-10)
    np.testing.assert_allclose(parts.condition_, whole.condition_, rtol=1e-10)
    held = sum(x.numel() for x in parts.moments_.state_dict().values())
    parts.partial_fit(states + 1)
    assert "operator_" not in parts.__dict__
    assert np.abs(parts.eigenvalues_ - whole.eigenvalues_).max() > 1e-3
    assert held == sum(x.numel() for x in parts.moments_.state_dict().values())


@pytest.mark.parametrize("basis", ["svd", "pca"])
def test_numpys_whole_numbers_are_whole_numbers(basis):
    states = network_states()
    plain, other = KANN(basis, rank=2).fit(states), KANN(basis, rank=np.int64(2)).fit(states)
    assert len(other.eigenvalues_) == 2 and (other.eigenvalues_ == plain.eigenvalues_).all()
    with pytest.raises(ValueError, match="rank: expected a whole number from 1 to 8"):
        KANN(basis, rank=np.int64(9)).fit(states)
    with pytest.raises(ValueError, match="rank: expected a whole number"):
        KANN(basis, rank=np.bool_(True)).fit(states)


def test_lengths_and_masks_leave_padding_out():
    states, lengths = linear_states(n=30), np.random.default_rng(0).integers(2, 15, 30)
    mask = np.arange(15) < lengths[:, None]
    padded = np.where(mask[..., None], states, 0)
    masked = KANN().fit(padded, lengths)
    np.testing.assert_allclose(order(masked.eigenvalues_), order(EIGENVALUES), atol=1e-8)
    again = KANN().fit(np.where(mask[..., None], states, np.nan), mask=mask)
    np.testing.assert_array_equal(again.operator_, masked.operator_)
    unmasked = KANN(rank="published").fit(padded)  # the published code does not know the lengths
    np.testing.assert_allclose(order(unmasked.eigenvalues_), order(published(padded)[0]), atol=1e-8)
    assert np.abs(unmasked.eigenvalues_[0]) < 0.98  # the ends of sequences look like a decay
    assert masked.relative_error(padded, lengths=lengths) < 1e-12 < unmasked.relative_error(padded, lengths=lengths)


@pytest.mark.parametrize("fill", ["zeros", "last"])
def test_what_padding_does_to_one_eigenvalue(fill):
    value, length, time = 0.9, 6, 10
    h = value ** np.arange(time)
    h[length:] = 0 if fill == "zeros" else h[length - 1]
    states = h[None, :, None]
    square = h[: length - 1] @ h[: length - 1]
    rest = h[length - 1] ** 2  # frames that are followed by padding
    if fill == "zeros":
        expected = value * square / (square + rest)
    else:  # a state held over the padding looks like a memory that never fades
        expected = (value * square + (time - length) * rest) / (square + (time - length) * rest)
    np.testing.assert_allclose(KANN().fit(states).eigenvalues_, [expected], rtol=1e-12)
    np.testing.assert_allclose(KANN().fit(states, [length]).eigenvalues_, [value], rtol=1e-12)


def test_memory_horizon_is_the_closed_form():
    values = np.array([0.9999, 0.9965, 0.5])
    states = np.eye(3)[:, None] * values ** np.arange(5)[:, None]
    kann = KANN().fit(states)
    np.testing.assert_allclose(kann.memory_horizon_, np.log(1e-2) / np.log(values), rtol=1e-7)
    assert kann.memory_horizon_[:2].round().astype(int).tolist() == [46049, 1313]
    np.testing.assert_allclose(kann.memory_horizon(0.5)[2], 1, rtol=1e-7)
    grows = KANN().fit(states * 1.01 ** np.arange(5)[:, None])
    assert np.isinf(grows.memory_horizon_).tolist() == [True, True, False]


def test_compare_matches_eigenvalues_and_eigenvectors():
    states = linear_states()
    svd, plain = KANN().fit(states), KANN("identity").fit(states)
    found = svd.compare(plain)
    np.testing.assert_allclose(plain.eigenvalues_[found.index], svd.eigenvalues_, atol=1e-8)
    assert found.distance.max() < 1e-8 and found.alignment.min() > 1 - 1e-8
    other = KANN(rank=4).fit(states[:3] + np.random.default_rng(0).normal(size=(3, 15, 6)))
    found = svd.compare(other)
    assert len(found.index) == len(set(found.index.tolist())) == len(other.eigenvalues_)
    assert found.distance.max() > 1e-2 and found.alignment.min() < 0.99
    assert len(svd.compare(plain, 2).index) == 2
    with pytest.raises(ValueError, match="count"):
        svd.compare(plain, 7)
    with pytest.raises(ValueError, match="other: 8 hidden units, expected 6"):
        svd.compare(KANN().fit(network_states()))


def test_answers_come_in_the_kind_of_the_question():
    states = linear_states()
    tensors = torch.from_numpy(states).float()
    kann, torch_kann = KANN().fit(states), KANN().fit(tensors)
    for name in ("basis_", "mean_", "operator_", "eigenvalues_", "right_", "left_", "modes_", "memory_horizon_"):
        assert isinstance(getattr(kann, name), np.ndarray) and torch.is_tensor(getattr(torch_kann, name)), name
    calls = [
        lambda k, h: k.transform(h),
        lambda k, h: k.amplitudes(h).real,
        lambda k, h: k.predict(h, 2),
        lambda k, h: k.rollout(h, 2),
        lambda k, h: k.magnitude(h),
        lambda k, h: k.reconstruct(h, [0]),
    ]
    for call in calls:
        ours, theirs = call(kann, states), call(kann, torch.from_numpy(states))
        assert isinstance(ours, np.ndarray) and torch.is_tensor(theirs) and theirs.dtype == torch.float64
        np.testing.assert_array_equal(ours, theirs.numpy())
    assert clone(KANN(rank=3, ridge=0.1)).get_params()["rank"] == 3
    assert kann.fit_transform(states).shape == (20, 15, 6)


def test_ridge_is_the_normal_equation():
    states = network_states()
    past, future = states[:, :-1].reshape(-1, 8), states[:, 1:].reshape(-1, 8)
    expected = np.linalg.solve(past.T @ past + 2.5 * np.eye(8), past.T @ future)
    np.testing.assert_allclose(KANN("identity", ridge=2.5).fit(states).operator_, expected, atol=1e-10)


BAD_FITS = {
    "rank above hidden": (KANN(rank=9), {}, "rank: expected a whole number from 1 to 8, got 9"),
    "rank of a word": (KANN(rank="all"), {}, "rank: expected a whole number, None or 'published'"),
    "rank with identity": (KANN("identity", rank=3), {}, "rank: goes with basis 'svd' and 'pca'"),
    "basis of a word": (KANN("fourier"), {}, "basis: expected 'svd', 'pca', 'identity'"),
    "basis of a wrong size": (KANN(np.eye(5)), {}, r"basis: expected real \(8, k <= 8\)"),
    "dependent basis": (KANN(np.ones((8, 2))), {}, "basis: its columns are linearly dependent"),
    "pair": (KANN(pair="norm"), {}, "pair: expected 'real' or 'abs'"),
    "method": (KANN(method="svd"), {}, "method: expected 'gram' or 'qr'"),
    "ridge": (KANN(ridge=-1), {}, "ridge"),
    "one axis": (KANN(), {"states": np.ones(4)}, r"states: expected .* got shape \(4,\)"),
    "one frame": (KANN(), {"states": np.ones((3, 1, 8))}, r"states: expected .*time >= 2"),
    "ragged": (KANN(), {"states": [np.ones((3, 8)), np.ones((4, 8))]}, "states: expected one array; pad"),
    "complex": (KANN(), {"states": np.ones((3, 4, 8)) * 1j}, "states: expected real numbers, got complex128"),
    "lengths out of range": (KANN(), {"lengths": np.full(12, 41)}, r"lengths\[0\]: not from 0 to 40"),
    "lengths of a wrong shape": (KANN(), {"lengths": [3]}, "lengths: expected integers"),
    "lengths and mask": (KANN(), {"lengths": [3], "mask": [True]}, "give one of them"),
    "no pairs": (KANN(), {"lengths": np.ones(12, int)}, "there is no pair to fit"),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_bad_input_is_refused(case):
    kann, change, message = BAD_FITS[case]
    kann = clone(kann)
    with pytest.raises(ValueError, match=message):
        kann.fit(**{"states": network_states(), **change})
    with pytest.raises(NotFittedError):
        kann.predict(network_states())


def test_nan_is_named_and_nothing_is_added():
    states = network_states()
    kann = KANN().fit(states)
    before = kann.operator_
    states[2, 5, 1] = np.nan
    with pytest.raises(ValueError, match=r"states\[2, 5, 1\] is not finite"):
        kann.partial_fit(states)
    np.testing.assert_array_equal(kann.operator_, before)
    for call in (kann.predict, kann.relative_error, kann.transform):
        with pytest.raises(ValueError, match=r"states\[2, 5, 1\] is not finite"):
            call(states)


def test_bad_questions_are_refused():
    states = linear_states()
    kann = KANN().fit(states)
    for call, message in [
        (lambda: kann.reconstruct(states, [0, 6]), "modes: 6 is not from 0 to 5"),
        (lambda: kann.magnitude(states, [-1]), "modes: -1 is not from 0 to 5"),
        (lambda: kann.reconstruct(states, 1.5), "modes: expected whole numbers"),
        (lambda: kann.reconstruct(states, kann.pairs_), "modes: expected whole numbers"),
        (lambda: kann.reconstruct(states, []), "modes: expected whole numbers"),
        (lambda: kann.reconstruct(states, [0], "mod"), "pair: expected"),
        (lambda: kann.predict(states, 0), "steps: expected a whole number"),
        (lambda: kann.relative_error(states, 15), r"states: expected .*time >= 16"),
        (lambda: kann.predict(states[..., :5]), r"states: expected \(\*batch, 6\)"),
        (lambda: kann.inverse_transform(np.ones((2, 5))), r"coordinates: expected \(\*batch, 6\)"),
        (lambda: kann.memory_horizon(2), "eps"),
        (lambda: kann.partial_fit(np.ones((2, 3, 5))), "5 dimensions"),
        (lambda: KANN().eigenvalues_, "not fitted"),
        (lambda: KANN().memory_horizon(), "not fitted"),
        (lambda: kann.compare(KANN()), "not fitted"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    assert not hasattr(KANN(), "operator_") and not hasattr(kann, "anything")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_on_a_gpu():
    states, lengths = torch.from_numpy(network_states()), torch.arange(29, 41)
    cpu, gpu = KANN(rank=5).fit(states, lengths), KANN(rank=5).fit(states.cuda(), lengths.cuda())
    assert gpu.operator_.is_cuda and cpu.compare(gpu).distance.max() < 1e-9
    np.testing.assert_allclose(gpu.operator_.cpu(), cpu.operator_, atol=1e-10)
    for call in (
        lambda k, h: k.predict(h, 2),
        lambda k, h: k.rollout(h, 2),
        lambda k, h: k.magnitude(h, k.pairs_),
        lambda k, h: k.reconstruct(h, k.pairs_[0]),
    ):
        np.testing.assert_allclose(call(gpu, states.cuda()).cpu(), call(cpu, states), atol=1e-9)
        np.testing.assert_allclose(call(gpu, states.numpy()), call(cpu, states), atol=1e-9)  # of another device
    errors = [k.relative_error(h, 2, lengths) for k, h in ((cpu, states), (gpu, states.cuda()))]
    np.testing.assert_allclose(*errors, rtol=1e-9)
    votes = [k.agreement(lambda h: h[:, 0], h, lengths=lengths) for k, h in ((cpu, states), (gpu, states.cuda()))]
    assert votes[0] == votes[1]
    assert cpu.dominant(states, lengths).tolist() == gpu.dominant(states.cuda(), lengths).tolist()

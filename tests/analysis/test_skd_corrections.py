"""The published readings against plain restatements of them, and the errors and counts against numpy and calculus."""

import dataclasses

import numpy as np
import pytest
import torch

from kpm.analysis import skd_corrections as sc
from kpm.training.config import preset
from tests.training.conftest import moving_squares


def films(n=12, t=8, dim=6, seed=0, dtype=torch.float64):
    """Latents of a noisy linear system with some eigenvalues near 1."""
    generator = torch.Generator().manual_seed(seed)
    operator = torch.diag(torch.linspace(0.2, 0.98, dim, dtype=torch.float64))
    operator += 0.1 * torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    z = [torch.randn(n, dim, generator=generator, dtype=torch.float64)]
    for _ in range(t - 1):
        z.append(z[-1] @ operator + 0.1 * torch.randn(n, dim, generator=generator, dtype=torch.float64))
    return torch.stack(z, 1).to(dtype)


def test_the_scrambled_reading_is_the_order_of_the_numbers_in_memory():
    n, t, h, dim = 4, 6, 10, 5
    z = torch.arange(n * t * h, dtype=torch.float32).reshape(n, t, h)
    flat = [v for film in z.tolist() for frame in film for v in frame]
    expected = np.array(flat).reshape(n * h // dim, t, dim)
    np.testing.assert_array_equal(sc.scrambled(z, dim).numpy(), expected)
    assert sc.scrambled(z, dim)[0, 1].tolist() == z[0, 0, dim:].tolist()  # the second half of the same frame


def test_the_unscrambled_reading_keeps_time():
    z = torch.randn(4, 6, 10)
    apart = sc.unscrambled(z, 5)
    for i in range(4):
        for part in range(2):
            torch.testing.assert_close(apart[2 * i + part], z[i, :, 5 * part : 5 * part + 5])


def test_nothing_is_scrambled_if_the_sizes_agree():
    z = torch.randn(3, 8, 5)
    torch.testing.assert_close(sc.scrambled(z, 5), z)
    torch.testing.assert_close(sc.unscrambled(z, 5), z)


@pytest.mark.parametrize("read", [sc.scrambled, sc.unscrambled])
def test_a_size_that_does_not_divide_is_refused(read):
    with pytest.raises(ValueError, match=r"multiple of dim 4, got shape \(2, 8, 10\)"):
        read(torch.zeros(2, 8, 10), 4)


def test_one_step_error_is_that_of_numpy():
    fit, other = films(seed=1).numpy(), films(seed=2).numpy()
    past, future = (x.reshape(-1, 6) for x in (fit[:, :-1], fit[:, 1:]))
    operator = np.linalg.lstsq(past, future, rcond=None)[0]
    result = sc.one_step(torch.from_numpy(fit), torch.from_numpy(other))
    assert result.fitted == pytest.approx(np.linalg.norm(future - past @ operator) / np.linalg.norm(future))
    wrong = np.linalg.norm(other[:, 1:] - other[:, :-1] @ operator) / np.linalg.norm(other[:, 1:])
    assert result.held_out == pytest.approx(wrong)
    np.testing.assert_allclose(np.sort(result.eigenvalues.abs()), np.sort(abs(np.linalg.eigvals(operator))))


def walk(values: list[complex], size: int, evaluation: bool) -> int:
    """The published count in words: sort by distance to 1, look at the list from one end, step over pairs."""
    ordered = sorted(values, key=lambda v: abs(v - 1), reverse=evaluation)
    place = 0
    for _ in range(size):
        place += 1 if ordered[place].imag == 0 else 2
    return place


@pytest.mark.parametrize("evaluation", [False, True])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_published_count_is_a_walk_along_the_list(size, evaluation):
    matrices = torch.randn(40, 20, 20, generator=torch.Generator().manual_seed(size), dtype=torch.float64) / 20**0.5
    values = torch.linalg.eigvals(matrices)
    counts = sc.published_count(values, size, evaluation)
    assert counts.tolist() == [walk(v, size, evaluation) for v in values.tolist()]
    assert counts.min() >= size and counts.max() <= 2 * size


def test_published_count_of_spectra_that_are_all_real_or_all_pairs():
    real = torch.linspace(-1, 0.9, 12).to(torch.complex128)
    upper = torch.complex(torch.linspace(-0.5, 0.9, 6), torch.linspace(0.1, 0.6, 6)).to(torch.complex128)
    pairs = torch.stack([upper, upper.conj()], -1).flatten()
    assert sc.published_count(torch.stack([real, pairs]), 5).tolist() == [5, 10]


def test_published_count_needs_twice_as_many_values():
    with pytest.raises(ValueError, match="expected 1 to 3 for 6 values, got 4"):
        sc.published_count(torch.zeros(6, dtype=torch.complex128), 4)


def test_a_cut_between_conjugates_is_seen():
    values = torch.tensor([1.0, 0.8 + 0.1j, 0.8 - 0.1j, 0.0], dtype=torch.complex128)
    assert [bool(sc.parts_pair(values, size)) for size in (1, 2, 3)] == [False, True, False]


@pytest.mark.parametrize("double", [True, False])
def test_the_spectral_loss_and_its_gradient_are_those_of_numpy(double):
    """The loss from numpy's eigenvalues; the gradient by finite differences of that."""
    z, reading = films(), sc.Reading(double=double, size=2, threshold=0.3)

    def loss(x: np.ndarray) -> float:
        operator = np.linalg.lstsq(x[:, :-1].reshape(-1, 6), x[:, 1:].reshape(-1, 6), rcond=None)[0]
        v = np.linalg.eigvals(operator)
        v = v[np.argsort(abs(v - 1))]
        return np.mean(abs(v[:2] - 1) ** 2) + np.where(v[2:].real > 0.3, v[2:].real, 0).mean()

    result = sc.evaluate(z, reading)
    assert result.gradient.dtype == (torch.float64 if double else torch.float32)
    x = z.numpy()
    assert result.loss == pytest.approx(loss(x), rel=1e-9 if double else 1e-4)
    for place in ((0, 0, 1), (3, 4, 2), (11, 7, 5)):
        step = np.zeros_like(x)
        step[place] = 1e-6
        slope = (loss(x + step) - loss(x - step)) / 2e-6
        assert result.gradient[place].item() == pytest.approx(slope, rel=1e-4 if double else 1e-2, abs=1e-6)


def test_forty_digits_agree_with_float64_and_show_up_float32():
    z = sc.nearly_dependent(films(), 1e-4)
    double, single = (sc.Reading(double=d, size=2, threshold=0.3) for d in (True, False))
    truth = sc.exact(z, double)
    fine = sc.evaluate(z, double).error(truth)
    # Conditions of about 1e5 lose five digits or so, how many depends on the machine; float32 has none left.
    assert fine["eigenvalues"] < 1e-7 and fine["loss"] < 1e-7 and fine["gradient"] < 1e-6
    rough = sc.evaluate(z, single).error(truth)
    assert rough["gradient"] > 1e3 * fine["gradient"] and rough["eigenvalues"] > 1e3 * fine["eigenvalues"]
    assert sc.exact(z, double, digits=60).error(truth)["gradient"] < 1e-14  # 40 digits are enough


def test_nearly_dependent_latents_have_the_same_spectrum():
    z = films()
    near = sc.nearly_dependent(z, 1e-3, first=4, second=2)
    torch.testing.assert_close((near[..., 4] - near[..., 2]), 1e-3 * z[..., 4])
    a, b = (sc.one_step(x, x).eigenvalues for x in (z, near))
    np.testing.assert_allclose(np.sort_complex(a.numpy()), np.sort_complex(b.numpy()), atol=1e-8)


def test_gradient_of_eigenvalues_that_meet():
    """``1 + sqrt(e)`` with right vector (1, sqrt e) and left vector (sqrt e, 1): norm ``(1 + e) / (2 sqrt e)``."""
    distance = torch.tensor([1.0, 0.1, 1e-3, 1e-6], dtype=torch.float64)
    corner = (distance / 2) ** 2
    torch.testing.assert_close(sc.defective_gradient(distance), (1 + corner) / (2 * corner.sqrt()), rtol=1e-6, atol=0)


def test_free_latents_come_down_with_a_fixed_size_and_report_it():
    z = films(n=16, dim=8, dtype=torch.float32)
    reading = sc.Reading(size=2)
    losses, sizes = sc.relax(z, reading, steps=40)
    assert losses[0] == pytest.approx(
        sc.evaluate(z, reading).loss + sc.one_step(z, z).fitted ** 2 * z[:, 1:].square().sum().item() / z.numel(),
        rel=1e-4,
    )
    assert losses[-1] < losses[0] and set(sizes) == {2}
    _, walking = sc.relax(z, sc.Reading(size=2, fixed=False), steps=5)
    assert set(walking) <= {2, 3, 4}


def test_frame_features_are_principal_components():
    from sklearn.decomposition import PCA

    data, other = moving_squares("train", 30), moving_squares("validation", 12)
    x, basis = sc.frame_features(data, 30, size=5)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    frames = data.to_float(data[order]).flatten(0, 1).double().reshape(-1, 3, 16, 4, 16, 4).mean((3, 5)).flatten(1)
    reference = PCA(5, svd_solver="full").fit(frames.numpy())
    ours, theirs = x.flatten(0, 1).numpy(), reference.transform(frames.numpy())
    theirs /= np.sqrt(reference.explained_variance_.mean() * (len(frames) - 1) / len(frames))
    np.testing.assert_allclose(abs((ours * theirs).sum(0)), (theirs**2).sum(0), rtol=1e-4)
    assert ours.var(0).mean() == pytest.approx(1, rel=1e-4)
    y, same = sc.frame_features(other, 12, basis)
    assert y.shape == (12, 8, 5) and same is basis


@pytest.fixture
def small():
    x = films(n=40, dim=10, dtype=torch.float32)
    config = dataclasses.replace(
        preset("skd"), latent_dim=8, static_size=2, batch_size=8, learning_rate=1e-2, patience=0, seed=3
    )
    return x[:30], x[30:], config


def test_a_small_training_learns_and_repeats_itself(small):
    first, again = (sc.train_small(*small, steps=40, every=10) for _ in range(2))
    assert first == again
    assert first.steps == [10, 20, 30, 40] and len(first.norms) == 40 and not first.died
    assert first.held_out[-1] < 0.9 * first.held_out[0]


def test_clipping_and_the_schedule_can_be_left_out(small):
    train, held_out, config = small
    tight = dataclasses.replace(config, clip=1e-3)
    clipped, unclipped = (sc.train_small(train, held_out, tight, steps=5, every=5, clip=c) for c in (True, False))
    assert clipped.norms[0] == unclipped.norms[0] > 1  # what is reported is the norm before clipping
    assert clipped.held_out != unclipped.held_out
    eager = dataclasses.replace(config, learning_rate=0.3)
    falling, constant = (sc.train_small(train, held_out, eager, steps=60, every=2, decay=d) for d in (True, False))
    assert falling.rates[-1] < 0.3 and set(constant.rates) == {0.3}


@pytest.mark.parametrize("reading", [None, sc.Reading(double=False, size=2)], ids=["kpm", "float32"])
def test_a_run_that_meets_a_nan_ends_there(reading, small):
    train, held_out, config = small
    run = sc.train_small(torch.full_like(train, torch.nan), held_out, config, reading, steps=5)
    assert run.died and not run.held_out


def test_a_dead_coordinate_ends_the_published_arithmetic_only():
    z = films(dtype=torch.float32)
    z[..., 3] = 0
    with pytest.raises(torch.linalg.LinAlgError, match="full rank"):
        sc.evaluate(z, sc.Reading(double=False, size=2))
    assert sc.evaluate(z, sc.Reading(size=2)).gradient.isfinite().all()


def test_parameters_of_the_wirings_as_instantiated_elsewhere():
    """Totals counted on models built from the published description."""
    assert sc.wirings(preset("skd")) == {
        "as coded": 1_768_571,
        "corrected": 1_926_011,
        "K and H exchanged in the encoder": 2_096_371,
    }
    square = sc.wirings(dataclasses.replace(preset("skd"), hidden_dim=40))
    assert set(square.values()) == {1_736_251}
    assert sc.wirings(preset("ssm-skd"))["corrected"] == 2_269_096

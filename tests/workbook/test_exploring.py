"""What one asks of a gallery of films, against the model, the judge and numpy themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kpm.errors import UserError
from kpm.models import koopman
from kpm.models.channel_basis import ChannelBasis
from kpm.models.parts import latents
from kpm.workbook import exploring
from kpm.workbook.gallery import gather, look
from tests.metrics import toys

PARTITION = {"colour": (1, 4, 5)}
NUMBERS = (7, 2, 10, 5)


@pytest.fixture(scope="module")
def data():
    return toys.films(12)


@pytest.fixture(scope="module")
def model():
    return toys.autoencoder()


@pytest.fixture(scope="module")
def judge():
    return toys.judge()


@pytest.fixture(scope="module")
def gallery(model, judge, data):
    return gather(model, data, judge, PARTITION, NUMBERS)


@pytest.fixture(scope="module")
def shared(judge, data):
    """One operator for all films."""
    return gather(toys.autoencoder("batch", 6, 3), data, judge, {}, NUMBERS)


def frames(data):
    return data.to_float(data[torch.tensor(NUMBERS)])


def close(a, b, tolerance=2e-5):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=tolerance, atol=tolerance)


def test_films_are_redrawn_and_read_as_by_model_and_judge(gallery, model, judge, data):
    with torch.no_grad():
        redrawn = model.decode(model.encode(frames(data)))
        opinion = {f: v.softmax(-1) for f, v in judge(redrawn).sequence.items()}
    for i, number in enumerate(NUMBERS):
        view = gallery.redrawn[i]
        close(view.frames, redrawn[i])
        assert list(view.readings) == ["colour", "way"]
        for f, reading in view.readings.items():
            label = int(opinion[f][i].argmax())
            assert reading.name == str(label) and reading.confidence == pytest.approx(float(opinion[f][i].max()), 1e-4)
            assert reading.aims == (str(int(data.factors[f][number])),)
            assert reading.right == (label == int(data.factors[f][number]))


def test_what_may_be_anything_is_neither_right_nor_wrong(gallery):
    view = look(gallery, gallery.latents[:1], [{"colour": (0, 1, 2)}])[0]
    assert view.readings["way"].right is None and view.readings["way"].aims == ()
    assert view.readings["colour"].right is True and view.readings["colour"].aims == ("0", "1", "2")


def test_films_are_drawn_by_the_seed_or_given(model, data):
    one, again, other = (gather(model, data, films=5, seed=s).numbers for s in (3, 3, 4))
    assert one == again and one != other and len(set(one)) == 5
    assert gather(model, data, films=[3, 3, 0]).numbers == (3, 3, 0)


def test_threads_are_given_back(gallery):
    before = torch.get_num_threads()
    look(gallery, gallery.latents[:1], [{}])
    with pytest.raises(ValueError, match="finite"):
        look(gallery, gallery.latents[:1] * torch.nan, [{}])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("films", "words"), [(2, "at least 3, got 2"), ([0, 1], "got 2"), ([0, 1, 12], "no film 12")])
def test_films_that_are_not_there_are_refused(model, data, films, words):
    with pytest.raises(UserError, match=words):
        gather(model, data, films=films)


@pytest.mark.parametrize(
    ("partition", "words"),
    [
        ({"way": [1]}, "'way' is no static factor"),
        ({"colour": [9]}, "no component 9"),
        ({"colour": [1, 1]}, "more than"),
    ],
)
def test_a_partition_of_something_else_is_refused(model, data, partition, words):
    with pytest.raises(ValueError, match=words):
        gather(model, data, partition=partition)


def test_a_judge_of_other_factors_is_refused(model, data):
    with pytest.raises(UserError, match="does not know factor 'way'"):
        gather(model, data, toys.judge({"colour": 3}))


@pytest.mark.parametrize(
    ("what", "part", "channels", "theirs"),
    [
        ("static", "static", None, {"colour"}),
        ("dynamic", "dynamic", None, {"way"}),
        ("colour", "static", [1, 4, 5], {"colour"}),
        ("rest", "static", [0, 2, 3, 6, 7, 8], set()),
    ],
)
def test_exchanges_are_those_of_the_koopman_swap(gallery, model, data, what, part, channels, theirs):
    split = model.split(frames(data))
    a, b = (koopman.take(split, torch.tensor([i])) for i in (0, 2))
    expected = koopman.swap(a, b, part, None if channels is None else torch.tensor(channels))
    found, aim = exploring.swapped(gallery, 0, 2, what)
    close(found, expected.float())
    for f in ("colour", "way"):
        assert aim[f] == (int(data.factors[f][NUMBERS[2 if f in theirs else 0]]),)
    assert exploring.exchanged_factors(gallery, what) == tuple(theirs)


def test_without_a_partition_only_whole_parts_are_exchanged(model, data):
    plain = gather(model, data, films=NUMBERS)
    assert plain.exchanges == ("static", "dynamic") and not plain.redrawn[0].readings
    with pytest.raises(UserError, match="unknown exchange 'colour'"):
        exploring.swapped(plain, 0, 1, "colour")


def test_a_channel_is_moved_to_a_value_and_nothing_else_moves(gallery, model, data):
    split = model.split(frames(data))
    own = float(split.static[1, :, 4].mean())
    low, high = exploring.value_range(gallery, 4)
    means = split.static[..., 4].mean(1)
    assert (low, high) == pytest.approx((float(means.min()), float(means.max())), 1e-4)
    moved, aim = exploring.changed(gallery, 1, 4, own + 0.5)
    difference = moved[0] - latents(model, data)[NUMBERS[1]]
    expected = torch.zeros(8, 9)
    expected[:, 4] = 0.5
    close(difference, expected)
    assert aim == {"way": (int(data.factors["way"][2]),)}  # channel 4 is colour's, which is free
    same, aim = exploring.changed(gallery, 1, 0, float(gallery.values[1, 0]))
    close(same[0], latents(model, data)[NUMBERS[1]])
    assert set(aim) == {"colour", "way"}
    with pytest.raises(ValueError, match="expected 0 to 8, got 9"):
        exploring.changed(gallery, 0, 9, 0.0)


def test_mixtures_are_convex_combinations(gallery, model, data):
    split = model.split(frames(data))
    weights, corners = (0.5, 0.3, 0.2), (3, 0, 1)
    static = sum(w * split.static[i] for w, i in zip(weights, corners))
    dynamic = sum(w * split.dynamic[i] for w, i in zip(weights, corners))
    close(exploring.mixed(gallery, corners, weights, "static")[0][0], (static + split.dynamic[3]).float())
    close(exploring.mixed(gallery, corners, weights, "dynamic")[0][0], (split.static[3] + dynamic).float())
    close(exploring.mixed(gallery, corners, weights, "both")[0][0], (static + dynamic).float())
    close(exploring.mixed(gallery, corners, (0, 0, 1), "both")[0], gallery.latents[1:2])


def test_a_mixture_may_be_any_corner_that_has_a_weight(gallery, data):
    colour = [int(data.factors["colour"][n]) for n in NUMBERS]
    assert colour[:3] == [1, 2, 1] and colour[3] == 2
    assert exploring.mixed(gallery, (0, 1, 2), (0.5, 0.25, 0.25))[1]["colour"] == (1, 2)
    assert exploring.mixed(gallery, (0, 1, 2), (0.5, 0, 0.5))[1]["colour"] == (1,)
    assert exploring.mixed(gallery, (0, 1, 2), (0, 1, 0), "dynamic")[1]["colour"] == (1,)  # looks as the first


def test_weights_must_be_those_of_a_point_of_the_hull(gallery):
    assert exploring.hull_weights(0.5, 0.25) == (0.5, 0.125, 0.375)
    for bad in ((1.2, -0.2, 0), (0.5, 0.5, 0.5), (0.5, 0.5)):
        with pytest.raises(ValueError, match="sum to 1"):
            exploring.mixed(gallery, (0, 1, 2), bad)
    with pytest.raises(ValueError, match="second: expected a share"):
        exploring.hull_weights(0.5, 1.5)
    with pytest.raises(UserError, match="unknown mixture"):
        exploring.mixed(gallery, (0, 1, 2), (1, 0, 0), "colour")


def recurrence_error(contributions: np.ndarray, value: complex) -> float:
    """How far a real signal is from following one eigenvalue (with its conjugate)."""
    if value.imag == 0:
        return np.abs(contributions[1:] - value.real * contributions[:-1]).max()
    first, second = 2 * value.real, -(abs(value) ** 2)
    return np.abs(contributions[2:] - first * contributions[1:-1] - second * contributions[:-2]).max()


@pytest.mark.parametrize("i", range(4))
def test_modes_of_a_film_are_those_of_its_own_operator(gallery, model, data, i):
    z = latents(model, data)[NUMBERS[i]].double().numpy()
    values = np.linalg.eigvals(np.linalg.pinv(z[:-1]) @ z[1:])
    values = values[np.abs(values) > 1e-6]
    found = exploring.modes(gallery, i)
    upper = values[values.imag >= 0]
    order = np.argsort(np.abs(upper - 1))
    np.testing.assert_allclose(found.eigenvalues, upper[order], atol=1e-3)
    parts = found.contributions.double().numpy()
    np.testing.assert_allclose(parts.sum(0)[1:], z[1:], atol=1e-4)  # of the first frame the zeros hold some
    for k, value in enumerate(found.eigenvalues.tolist()):
        assert recurrence_error(parts[k], value) < 1e-3 * max(1, np.abs(parts[k]).max())
    assert found.static.tolist() == [True] + [False] * (len(upper) - 1)
    if found.eigenvalues[0].imag == 0:
        close(found.contributions[0], gallery.parts.static[i], 1e-3)


def test_modes_of_one_operator_are_those_of_all_films(shared, data):
    model = toys.autoencoder("batch", 6, 3)
    z = latents(model, data).double().numpy()
    past, future = z[:, :-1].reshape(-1, 6), z[:, 1:].reshape(-1, 6)
    values, right = np.linalg.eig(np.linalg.lstsq(past, future, rcond=None)[0])
    left = np.linalg.inv(right)
    order = [k for k in np.argsort(np.abs(values - 1), kind="stable") if values[k].imag >= 0]
    found = exploring.modes(shared, 1)
    np.testing.assert_allclose(found.eigenvalues, values[order], atol=1e-5)
    for place, k in enumerate(order):
        mine = (z[NUMBERS[1]] @ right[:, [k]] @ left[[k]]).real * (2 if values[k].imag > 0 else 1)
        np.testing.assert_allclose(found.contributions[place], mine, atol=1e-4)
    close(found.contributions.sum(0), z[NUMBERS[1]].astype(np.float32), 1e-4)
    close(found.contributions[found.static].sum(0), shared.parts.static[1], 1e-4)
    assert shared.kind == "mode" and int(found.static.sum()) == shared.parts.components


def test_dragging_a_mode_moves_along_its_vector(shared, data):
    spectrum = shared.spectrum
    found = exploring.modes(shared, 0)
    for c in range(shared.parts.components):
        k = int((spectrum.eigenvalues - found.eigenvalues[c]).abs().argmin())
        plane = torch.stack([spectrum.left[k].real, spectrum.left[k].imag])
        moved = exploring.changed(shared, 0, c, float(shared.values[0, c]) + 0.7)[0][0] - shared.latents[0]
        assert torch.linalg.vector_norm(moved[0]) == pytest.approx(0.7, rel=1e-4)
        close(moved, moved[:1].expand_as(moved))
        inside = torch.linalg.lstsq(plane.T, moved[0].double()).solution @ plane
        close(inside.float(), moved[0], 1e-4)


def test_other_axes_take_the_place_of_channels(model, judge, data):
    basis = ChannelBasis.of(torch.randn(9, 9, generator=torch.Generator().manual_seed(3)))
    turned = gather(model, data, judge, PARTITION, NUMBERS, basis=basis)
    assert turned.kind == "axis"
    split = model.split(frames(data))
    coordinates = split.static.float() @ basis.analysis
    mine = coordinates[0].clone()
    mine[:, list(PARTITION["colour"])] = coordinates[2][:, list(PARTITION["colour"])]
    close(exploring.swapped(turned, 0, 2, "colour")[0][0], mine @ basis.synthesis + split.dynamic[0].float(), 1e-3)
    moved = exploring.changed(turned, 0, 4, float(turned.values[0, 4]) + 1)[0] - turned.latents[:1]
    shift = moved[0] @ basis.analysis
    assert shift[:, 4].abs().min() > 1e-3
    shift[:, 4] = 0
    close(shift, torch.zeros_like(shift), 1e-3)


def test_a_mode_alone_and_all_but_it(gallery, model, data):
    found, z = exploring.modes(gallery, 0), latents(model, data)
    mode = int((~found.static).nonzero()[0])
    mean = z[list(NUMBERS)].mean((0, 1))
    close(exploring.single_mode(gallery, 0, mode, "nothing")[0], found.contributions[mode])
    close(exploring.single_mode(gallery, 0, mode, "mean")[0], mean + found.contributions[mode])
    static = model.split(frames(data)).static[0].float()
    close(exploring.single_mode(gallery, 0, mode)[0], static + found.contributions[mode], 1e-4)
    close(exploring.single_mode(gallery, 0, 0)[0], static, 1e-4)  # is in the static part already
    close(exploring.without_mode(gallery, 0, mode)[0] + found.contributions[mode], z[NUMBERS[0]])
    for question in (exploring.single_mode, exploring.without_mode):
        with pytest.raises(ValueError, match="film 7 has modes 0 to"):
            question(gallery, 0, 99)
    with pytest.raises(UserError, match="unknown base 'noting'; did you mean 'nothing'"):
        exploring.single_mode(gallery, 0, 0, "noting")

"""Losses, schedule and settings against the paper, written out plainly."""

import dataclasses

import numpy as np
import pytest
import torch

from kpm.models import koopman
from kpm.models.koopman_autoencoder import KoopmanAutoencoder, Output
from kpm.models.training_swaps import SwapPlan, swap_with_next
from kpm.training.config import TrainConfig, preset
from kpm.training.losses import between_loss, koopman_losses, likeness_loss, swap_loss
from kpm.training.schedule import Plateau, average, ema_decay
from tests.training.conftest import small


@pytest.mark.parametrize("method", ["ssm-skd", "skd"])
def test_losses_are_equations_1_to_5(method):
    """Every term with a weight of its own, from the model's outputs, with numpy eigenvalues of K x K operators."""
    config = small(method, threshold=0.2)
    weights = {
        "w_absolute": 13.0,
        "w_reconstruction": 3.0,
        "w_predicted_latents": 5.0,
        "w_prediction": 7.0,
        "w_eigenvalues": 11.0,
    }
    config = dataclasses.replace(config, **weights)
    torch.manual_seed(1)
    model = KoopmanAutoencoder(config.model()).train()
    frames = torch.rand(6, 8, 3, 64, 64)
    output = model(frames)
    terms = {k: v.item() for k, v in koopman_losses(output, frames, config).items()}

    z = output.latents.detach().double().numpy()
    x, rec, pred = (t.detach().double().numpy() for t in (frames, output.reconstruction, output.prediction))
    if method == "skd":
        flat = [z[:, :-1].reshape(-1, z.shape[-1]), z[:, 1:].reshape(-1, z.shape[-1])]
        operators = [np.linalg.lstsq(*flat, rcond=None)[0]] * len(z)
        spectra = [np.linalg.eigvals(operators[0])]
    else:
        operators = [np.linalg.pinv(s[:-1]) @ s[1:] for s in z]
        spectra = [np.linalg.eigvals(c) for c in operators]
    predicted = np.stack([np.vstack([s[:1], s[:-1] @ c]) for s, c in zip(z, operators)])
    static, dynamic = [], []
    for values in spectra:
        order = np.argsort(abs(values - 1))
        static += list(abs(values[order[: config.static_size]] - 1) ** 2)
        dynamic += [v.real if v.real > 0.2 else 0 for v in values[order[config.static_size :]]]
    expected = {
        "reconstruction": 3 * ((x - rec) ** 2).mean(),
        "predicted_latents": 5 * ((predicted - z) ** 2).mean(),
        "prediction": 7 * ((x - pred) ** 2).mean(),
        "static_eigenvalues": 11 * np.mean(static),
        "dynamic_eigenvalues": 11 * np.mean(dynamic),
        "absolute": 13 * (abs(x - rec).mean() + abs(x - pred).mean()) / 2,
    }
    assert terms == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert abs(rec - pred).max() > 1e-4  # dropout: else a loss between the two outputs would pass for one with x
    assert expected["dynamic_eigenvalues"] > 0


def test_prediction_decodes_the_predicted_latents_and_dropout_is_on_the_other_branch():
    torch.manual_seed(1)
    config = small("skd")
    model = KoopmanAutoencoder(config.model()).train()
    frames = torch.rand(6, 8, 3, 64, 64)
    seen = []
    model.decoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    output = model(frames)
    dropped, predicted = seen[0][:6], seen[0][6:]
    torch.testing.assert_close(predicted, output.predicted_latents)
    zero = dropped == 0
    assert 0.1 < zero.float().mean() < 0.3
    torch.testing.assert_close(dropped[~zero], output.latents[~zero] / 0.8)


def test_published_settings():
    """[SSM-SKD] Tables 5 and 7, and the settings of SKD's code with the thesis's corrections."""
    ssm, skd = preset("ssm-skd"), preset("skd")
    table = {"latent_dim": 15, "hidden_dim": 170, "static_size": 1, "w_predicted_latents": 1, "w_prediction": 1}
    table |= {"w_eigenvalues": 1, "threshold": 0.75, "epochs": 250, "batch_size": 32, "learning_rate": 1e-3, "clip": 5}
    table |= {"seed": 7253, "w_reconstruction": 16, "dropout": 0.2, "patience": 10, "lr_factor": 10**-0.25}
    assert {k: getattr(ssm, k) for k in table} == pytest.approx(table)
    other = {"latent_dim": 40, "hidden_dim": 80, "static_size": 12, "w_reconstruction": 15, "threshold": 0.5}
    assert {k: getattr(skd, k) for k in other | {"epochs": 1}} == other | {"epochs": 1000}


def test_learning_rate_warms_up_then_falls_on_a_plateau():
    plateau = Plateau(TrainConfig(learning_rate=0.1, warmup_steps=4, patience=2, lr_factor=0.5))
    assert [plateau.rate(s) for s in range(6)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    plateau.step(1.0)
    for _ in range(2):
        plateau.step(1.0)
    assert plateau.rate(10) == pytest.approx(0.1)
    plateau.step(1.0)  # the third without improvement
    assert plateau.rate(10) == pytest.approx(0.05)
    other = Plateau(TrainConfig(learning_rate=0.1, warmup_steps=4, patience=2, lr_factor=0.5))
    other.load(plateau.state())
    for loss in (1.0, 1.0, 1.0):
        plateau.step(loss)
        other.step(loss)
    assert other.rate(10) == plateau.rate(10) == pytest.approx(0.025)


def test_average_is_exponential_with_the_norms_statistics():
    torch.manual_seed(0)
    mean, model = (KoopmanAutoencoder(small().model()) for _ in range(2))
    name = "encoder.cnn.0.1.running_mean"
    model.state_dict()[name].fill_(2.0)
    before = {k: v.clone() for k, v in mean.state_dict().items()}
    average(mean, model, 0.75)
    for key, value in mean.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * before[key] + 0.25 * model.state_dict()[key])
    assert mean.state_dict()[name].unique().tolist() == [0.5]
    assert ema_decay(TrainConfig(ema=0.99), 1) == pytest.approx(2 / 11)
    assert ema_decay(TrainConfig(ema=0.99), 10**6) == 0.99


def test_gradients_are_clipped_to_the_norm_asked_for(data, tmp_path, monkeypatch):
    from kpm.training import loop

    norms = []
    honest = torch.optim.Adam.step

    def spy(self, *args, **kwargs):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.stack([g.norm() for g in gradients]).norm().item())
        return honest(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    loop.train(small(clip=0.01, steps=4), tmp_path / "run", data=data, device="cpu", progress_bar=False)
    assert norms == pytest.approx([0.01] * 4, rel=1e-3)


@pytest.mark.parametrize("method", ["ssm-skd", "skd"])
def test_a_share_of_the_predictions_stands_for_all(method):
    """Only the first films are decoded and judged twice; nothing else changes."""
    config = dataclasses.replace(small(method, threshold=0.2), w_absolute=2.0)
    torch.manual_seed(1)
    model = KoopmanAutoencoder(config.model()).double().eval()
    frames = torch.rand(6, 8, 3, 64, 64, dtype=torch.float64)
    whole, first = model(frames), model(frames, 2)
    assert first.prediction.shape == (2, *frames.shape[1:])
    torch.testing.assert_close(first.prediction, whole.prediction[:2])
    terms, some = ({k: v.item() for k, v in koopman_losses(o, frames, config).items()} for o in (whole, first))
    error = config.w_prediction * ((whole.prediction - frames)[:2] ** 2).mean().item()
    assert some["prediction"] == pytest.approx(error)
    assert some["prediction"] != pytest.approx(terms["prediction"], rel=1e-6)
    off = [(o - frames[: len(o)]).abs().mean().item() for o in (whole.reconstruction, first.prediction)]
    assert some["absolute"] == pytest.approx(config.w_absolute * sum(off) / 2)
    for name in set(terms) - {"prediction", "absolute"}:
        assert some[name] == pytest.approx(terms[name])
    for wrong in (0, 7):
        with pytest.raises(ValueError, match=f"predictions: expected 1 to 6 films, got {wrong}"):
            model(frames, wrong)


def test_without_return_the_ends_are_decoded_without_gradient():
    """The same pictures as with it, where batch norm keeps its means: nothing else is left out but the way back."""
    torch.manual_seed(1)
    model = KoopmanAutoencoder(small("skd").model()).double().eval()
    frames = torch.rand(6, 8, 3, 64, 64, dtype=torch.float64)
    outputs = []
    for returns in (True, False):
        torch.manual_seed(2)
        outputs.append(model(frames, 2, SwapPlan(4, between=True, returns=returns)))
    there, here = outputs
    assert here.swapped is None and here.returned is None and there.returned is not None
    for name in ("reconstruction", "prediction", "between", "ends"):
        torch.testing.assert_close(getattr(here, name), getattr(there, name))
    assert here.between.requires_grad and not here.ends.requires_grad
    terms = koopman_losses(here, frames, dataclasses.replace(small("skd"), w_between=2.0))
    assert "swap" not in terms and terms["between"] > 0
    assert model(frames, 2, SwapPlan(4, returns=False)).between is None


def test_swaps_by_a_map_that_is_given():
    """Instead of the operator of the batch, in swaps and in motion that is lent."""
    torch.manual_seed(1)
    model = KoopmanAutoencoder(small("skd").model()).double().eval()
    frames = torch.rand(6, 8, 3, 64, 64, dtype=torch.float64)
    given = torch.rand(9, 9, dtype=torch.float64)
    which, images = torch.tensor([1, 4]), torch.rand(2, 8, 3, 64, 64, dtype=torch.float64)
    torch.manual_seed(2)
    output = model(frames, 2, SwapPlan(4, between=True), given, mirrored=which, mirror_images=images)
    z, seen = model.encode(frames), model.encode(images)
    torch.manual_seed(2)
    nearer = swap_with_next(z @ given, z - z @ given, SwapPlan(4)).nearer
    torch.testing.assert_close(output.swapped, nearer)
    torch.testing.assert_close(output.mirrored, model.decode(z[which] @ given + seen - seen @ given))


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("method", ["ssm-skd", "skd"])
def test_what_is_decoded_after_swaps(method, channels):
    config = dataclasses.replace(small(method), w_swap=3.0, w_between=2.0, w_absolute=5.0)
    torch.manual_seed(1)
    model = KoopmanAutoencoder(config.model()).double().eval()
    frames = torch.rand(6, 8, 3, 64, 64, dtype=torch.float64)
    torch.manual_seed(2)
    output = model(frames, 2, SwapPlan(4, channels, between=True))
    torch.manual_seed(2)
    parts = model.split(frames)
    nearer, other, between, _ = swap_with_next(parts.static, parts.dynamic, SwapPlan(4, channels))
    torch.testing.assert_close(output.swapped, nearer)
    torch.testing.assert_close(output.ends, torch.stack([model.decode(nearer), model.decode(other)]))
    torch.testing.assert_close(output.between, model.decode(between))
    assert not output.swapped.requires_grad and not output.ends.requires_grad
    returned = model.encode(model.decode(output.swapped))
    torch.testing.assert_close(output.returned, returned)
    weights = [*model.parameters()]
    wanted = torch.autograd.grad(
        swap_loss(output._replace(latents=output.latents.detach(), returned=returned)), weights
    )
    torch.testing.assert_close(torch.autograd.grad(swap_loss(output), weights, retain_graph=True), wanted)
    assert all(g.abs().max() > 0 for w, g in zip(weights, wanted) if w.ndim > 1)  # all of both halves learn
    terms = koopman_losses(output, frames, config)
    torch.testing.assert_close(terms["swap"], 3 * swap_loss(output))
    torch.testing.assert_close(terms["between"], 2 * between_loss(output, config.w_reconstruction, 5.0))
    torch.manual_seed(2)
    without = model(frames, 2, SwapPlan(4, channels))
    torch.testing.assert_close(without.returned, output.returned)
    assert "between" not in koopman_losses(without, frames, config)
    plain = model(frames, 2)
    torch.testing.assert_close(plain.reconstruction, output.reconstruction)
    assert "swap" not in koopman_losses(plain, frames, config)
    for films, wrong in ((frames, 7), (frames, -1), (frames[:1], 1)):
        with pytest.raises(ValueError, match=f"swaps: .*, got {wrong}"):
            model(films, swaps=SwapPlan(wrong))


@pytest.mark.parametrize("method", ["ssm-skd", "skd"])
def test_looks_are_decoded_with_the_motion_of_mirror_images(method):
    config = dataclasses.replace(small(method), w_mirror=2.0, w_absolute=5.0)
    torch.manual_seed(1)
    model = KoopmanAutoencoder(config.model()).double().eval()
    frames = torch.rand(6, 8, 3, 64, 64, dtype=torch.float64)
    which = torch.tensor([1, 4, 5])
    images = torch.rand(3, 8, 3, 64, 64, dtype=torch.float64)
    output = model(frames, 2, mirrored=which, mirror_images=images)
    torch.testing.assert_close(output.mirror_images, images)
    parts = model.split(torch.cat([frames, images]))
    torch.testing.assert_close(output.mirrored, model.decode(parts.static[which] + parts.dynamic[6:]))
    off = output.mirrored - images
    wanted = config.w_reconstruction * off.square().mean() + 5 * off.abs().mean()
    torch.testing.assert_close(koopman_losses(output, frames, config)["mirror"], 2 * wanted)
    both = koopman.split(model.encode(torch.cat([frames, images])), config.model().scope, config.static_size)
    again = output._replace(mirrored=model.decode(both.static[which] + both.dynamic[6:].detach()))
    weights = [*model.parameters()]
    gradients = [torch.autograd.grad(likeness_loss(o.mirrored, images, 3.0, 5.0), weights) for o in (output, again)]
    torch.testing.assert_close(*gradients)  # it reaches the encoder through the looks alone
    assert all(g.abs().max() > 0 for w, g in zip(weights, gradients[0]) if w.ndim > 1)


@pytest.mark.parametrize("method", ["ssm-skd", "skd"])
def test_films_borrow_the_motion_of_others_that_move_alike(method, monkeypatch):
    from kpm.models import similar_motion

    config = dataclasses.replace(small(method), w_borrowed=2.0, w_absolute=5.0)
    torch.manual_seed(1)
    model = KoopmanAutoencoder(config.model()).double().eval()
    frames = torch.rand(6, 8, 3, 64, 64, dtype=torch.float64)
    which, images = torch.tensor([1, 4]), torch.rand(2, 8, 3, 64, 64, dtype=torch.float64)
    alike = torch.tensor([3, -1, 7, 0, -1, -1, 2, -1])
    monkeypatch.setattr(similar_motion, "nearest_motion", lambda dynamic: alike[: len(dynamic)])
    parts = model.split(torch.cat([frames, images]))
    output = model(frames, 2, borrowing=4, mirrored=which, mirror_images=images)
    assert output.borrowers.tolist() == [0, 2, 3]
    borrowed = model.decode(parts.static[[0, 2, 3]] + parts.dynamic[[3, 7, 0]])
    torch.testing.assert_close(output.borrowed, borrowed)
    torch.testing.assert_close(output.mirrored, model.decode(parts.static[which] + parts.dynamic[[2, 7]]))
    off = borrowed - frames[[0, 2, 3]]
    wanted = config.w_reconstruction * off.square().mean() + 5 * off.abs().mean()
    torch.testing.assert_close(koopman_losses(output, frames, config)["borrowed"], 2 * wanted)
    assert model(frames, 2, borrowing=0).borrowed is None


def test_mirror_images_change_nothing_else():
    config = small("skd")
    torch.manual_seed(1)
    model = KoopmanAutoencoder(config.model()).double().eval()
    frames = torch.rand(8, 8, 3, 64, 64, dtype=torch.float64)
    outputs = []
    for mirrored in ({}, {"mirrored": torch.tensor([0, 3]), "mirror_images": frames[6:]}):
        torch.manual_seed(2)
        outputs.append(model(frames[:6], 2, SwapPlan(4, between=True), **mirrored)._asdict())
    assert outputs[0].pop("mirrored") is outputs[0].pop("mirror_images") is None
    assert len(outputs[1].pop("mirrored")) == len(outputs[1].pop("mirror_images")) == 2
    torch.testing.assert_close(*outputs)


def test_a_film_between_two_is_held_against_the_closer_one():
    draw = torch.Generator().manual_seed(1)
    between, a, b = torch.rand(3, 5, 8, 3, 4, 4, generator=draw, dtype=torch.float64)
    a[:2], b[2:] = between[:2] + 0.01, between[2:] - 0.02
    between.requires_grad_()
    none = torch.zeros(1, dtype=torch.float64)
    output = Output(none, none, none, none, none, between=between, ends=torch.stack([a, b]))
    loss = between_loss(output, 3.0, 5.0)
    assert loss.item() == pytest.approx((2 * (3 * 0.01**2 + 5 * 0.01) + 3 * (3 * 0.02**2 + 5 * 0.02)) / 5)
    loss.backward()
    assert (between.grad[:2] < 0).all() and (between.grad[2:] > 0).all()  # down this, each moves to its closer one


def test_a_pixel_between_two_is_held_against_the_closer_one():
    torch.manual_seed(1)
    ends = torch.rand(2, 3, 4, 3, 5, 5, dtype=torch.float64)
    first = torch.rand(3, 4, 1, 5, 5) < 0.5  # pixels, in every channel, that a picture takes from the first end
    mixed = torch.where(first, *ends)
    model = KoopmanAutoencoder(small().model()).double().eval()
    output = model(torch.rand(2, 8, 3, 64, 64, dtype=torch.float64))._replace(ends=ends, between=mixed)
    assert between_loss(output, 3.0, 5.0, 1.0) == 0 < between_loss(output, 3.0, 5.0)
    off = output._replace(between=mixed + 1e-3)  # nearer to this end still, but where the ends are alike
    assert between_loss(off, 0.0, 5.0, 1.0) == pytest.approx(5e-3, rel=0.02)
    halves = [between_loss(off, 3.0, 5.0, share) for share in (0.0, 0.25, 1.0)]
    assert halves[1] == pytest.approx(0.75 * halves[0] + 0.25 * halves[2])


def test_without_a_prediction_loss_the_absolute_error_is_that_of_the_reconstruction():
    torch.manual_seed(1)
    model = KoopmanAutoencoder(small().model()).double()
    frames = torch.rand(4, 8, 3, 64, 64, dtype=torch.float64)
    output = model(frames)
    errors = [float((x - frames).abs().mean().detach()) for x in (output.reconstruction, output.prediction)]
    for weight, wanted in ((1.0, sum(errors) / 2), (0.0, errors[0])):
        terms = koopman_losses(output, frames, small(w_absolute=5.0, w_prediction=weight))
        assert terms["absolute"].item() == pytest.approx(5 * wanted)
    assert errors[0] != pytest.approx(errors[1])  # dropout


def test_the_swap_loss_is_in_units_of_the_spread_over_films():
    draw = torch.Generator().manual_seed(1)
    z, swapped, returned = (torch.randn(n, 7, 4, generator=draw, dtype=torch.float64) for n in (6, 3, 3))
    z = z + 3 * torch.randn(6, 1, 4, generator=draw, dtype=torch.float64)
    none = torch.zeros(1)
    found = swap_loss(Output(z, none, none, none, none, swapped, returned)).item()
    a, e = z.numpy(), (returned - swapped).numpy()
    still, moving = a.mean(1), a - a.mean(1, keepdims=True)
    expected = (e.mean(1) ** 2).mean() / still.var(0).mean()
    expected += ((e - e.mean(1, keepdims=True)) ** 2).mean() / moving.var(0).mean()
    assert found == pytest.approx(expected)
    again = swap_loss(Output(5 * z, none, none, none, none, 5 * swapped, 5 * returned)).item()
    assert again == pytest.approx(expected)
    assert swap_loss(Output(z, none, none, none, none, swapped, swapped)) == 0

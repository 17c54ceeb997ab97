"""Training of the deep spectral encoder: what each loss trains, both readings step by step, and what comes out."""

import dataclasses

import numpy as np
import pytest
import torch

from kpm.errors import UserError
from kpm.models.dse import DSE
from kpm.models.dse_networks import DSEConfig
from kpm.solvers.cross_fitting import contiguous_folds, ridge
from kpm.solvers.identification import identify
from kpm.training import dse, dse_published
from kpm.training.dse import DSETrainConfig, train

OMEGA = 0.3
SMALL = {"delays": 3, "encoder_hidden": (16,), "code": 8, "window": 4, "head_hidden": 4, "rank": 2, "element": (2,)}
SMALL |= {"state_features": 6, "observation_features": 4, "state_hidden": (8,), "observation_hidden": (8,)}
QUICK = {"stage_one": 2, "stage_two": 2, "readout_steps": 3, "segment": 100}


def rotation(time=200, noise=0.1, seed=0):
    t = torch.arange(time, dtype=torch.float64)
    y = torch.stack([torch.cos(OMEGA * t), torch.sin(OMEGA * t)], -1)
    return y + noise * torch.randn(time, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sizes(**changes):
    return DSEConfig(**(SMALL | changes))


def ready(y, **changes):
    torch.manual_seed(0)
    return dse.prepared(y, sizes(**changes)).double()


def lstsq(x, y, penalty):
    x, y = x.detach().numpy(), y.detach().numpy()
    more = np.sqrt(penalty) * np.eye(x.shape[1])
    return np.linalg.lstsq(np.vstack([x, more]), np.vstack([y, np.zeros((x.shape[1], y.shape[1]))]), rcond=None)[0]


def test_learns_a_harmonic_that_is_not_in_the_signal():
    """The position of a rotation has one frequency; squares of it have the second one, and a constant."""
    y = rotation(600, 0.05)[:, :1]
    config = DSETrainConfig(
        stage_one=10, stage_two=10, segment=300, readout_steps=50, encoder_rate=3e-3, learning_rate=3e-3
    )
    trained = train(y, sizes(element=(1,), delays=10, rank=4, state_features=8), config)
    values = trained.model.eigenvalues()
    for m, bound in ((0, 1e-9), (1, 0.005), (2, 0.02)):
        for sign in (1, -1):
            assert (values - np.exp(1j * sign * m * OMEGA)).abs().min() < bound
    first, last = trained.history[10], trained.history[-1]
    assert all(last[name] < first[name] for name in ("transition", "output", "reconstruction"))
    assert trained.history[9].keys() == {"epoch", "correlation"}
    new = rotation(300, 0.0)[:, :1]
    filtered = trained.model.filter(new + 0.05 * torch.randn(new.shape, generator=torch.Generator().manual_seed(1)))
    assert (filtered.predictions[50:] - new[59:]).square().mean() < 0.1 * new.var()
    ahead = trained.model.predict(new[:200], 20)
    assert (ahead.predictions - new[200:220]).square().mean() < 0.2 * new.var()


@pytest.mark.parametrize("reading", ["clean", "published"])
def test_same_seed_same_model(reading):
    state = torch.random.get_rng_state()
    config = DSETrainConfig(**QUICK)
    one, two, other = (
        train(rotation(), sizes(reading=reading, dropout=0.1), c).model.state_dict()
        for c in (config, config, dataclasses.replace(config, seed=1))
    )
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["transition"], other["transition"])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(torch.isnan(value).any() for value in one.values())


@pytest.mark.parametrize("schedule", ["staged", "joint"])
def test_what_each_loss_trains(schedule):
    y = rotation()
    model = ready(y)
    terms, _ = dse.losses(model, y[None], DSETrainConfig(schedule=schedule, folds=3))
    parts = {name: list(getattr(model, name).parameters()) for name in ("encoder", "heads", "dictionary", "decoder")}
    parts |= {"observe": list(model.observation_dictionary.parameters())}
    parts |= {"read_state": list(model.state_readout.parameters())}
    parts |= {"read_code": list(model.observation_readout.parameters())}
    trained = {}
    for name, term in terms.items():
        found = {}
        for part, weights in parts.items():
            gradients = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
            found[part] = any(g is not None and (g != 0).any() for g in gradients)
        trained[name] = {part for part, does in found.items() if does}
    both = {"encoder", "heads"}
    more = both if schedule == "joint" else set()
    code = {"encoder"} if schedule == "joint" else set()
    assert trained == {
        "correlation": both,
        "transition": {"dictionary"} | more,
        "output": {"dictionary", "observe"} | more,
        "state_readout": {"dictionary", "read_state"} | more,
        "observation_readout": {"dictionary", "observe", "read_code"} | more | code,
        "reconstruction": both | {"dictionary", "read_code", "decoder"},
    }


def test_losses_are_those_of_operators_that_have_not_seen_the_block():
    """Against numpy, fold by fold with explicit rows; also the pairs: state t with the code at t."""
    y = rotation()
    model, config = ready(y), DSETrainConfig(folds=3)
    terms, found = dse.losses(model, y[None], config)
    start = 4 + 2  # window and gap
    codes = model.encode(y[None])
    x = model.states(model.blocks(codes)[0], found)[0]
    z = model.dictionary(x).detach().numpy()
    rows = len(z) - 1
    code = codes[0, start + 1 : start + 1 + rows].detach()
    seen = model.observe(code).detach().numpy()
    ahead, shown, here = np.empty_like(z[1:]), np.empty_like(seen), np.empty_like(seen)
    penalty = np.array([0.0] + 5 * [model.config.ridge_transition])
    for block in np.array_split(np.arange(rows), 3):
        near = np.arange(block[0] - model.purge, block[-1] + model.purge + 1)
        kept = np.setdiff1d(np.arange(rows), near)
        a = np.linalg.solve(z[kept].T @ z[kept] + np.diag(penalty), z[kept].T @ z[kept + 1])
        b = np.linalg.solve(z[kept + 1].T @ z[kept + 1] + 1e-3 * np.eye(6), z[kept + 1].T @ seen[kept])
        ahead[block], here[block] = z[block] @ a, z[block + 1] @ b
        shown[block] = ahead[block] @ b

    def share(residual, target):
        covariance = np.cov(target.T, bias=True)
        covariance += 1e-4 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        return np.mean(residual @ np.linalg.inv(covariance) * residual) * 1.0

    def squared(estimate, target):
        return np.mean((estimate - target) ** 2) / target.var(0).mean()

    with torch.no_grad():
        read = model.state_readout(torch.from_numpy(ahead)).numpy()
        back = model.observation_readout(torch.from_numpy(shown))
        frames = model.decoder(back).numpy()
    windows = np.stack([model.inputs(y[None])[0, start + 1 + i].numpy() for i in range(rows)])
    expected = {
        "correlation": -found.correlations[:2].mean().item(),
        "transition": share((ahead - z[1:])[:, 1:], z[1:, 1:]),
        "output": share(here - seen, seen),
        "state_readout": squared(read, x[1:].detach().numpy()),
        "observation_readout": squared(back.numpy(), code.numpy()),
        "reconstruction": 0.1 * squared(frames, windows),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name].item(), value, rtol=1e-8, err_msg=name)


def test_learned_operators_take_the_place_of_the_closed_form():
    y = rotation()
    model, config = ready(y), DSETrainConfig(folds=3, closed_form=False)
    free = dse.FreeOperators(model)
    with torch.no_grad():
        free.output.normal_(generator=torch.Generator().manual_seed(4))
    terms, found = dse.losses(model, y[None], config, free=free)
    z = model.dictionary(model.states(model.blocks(model.encode(y[None]))[0], found))[0].detach()
    here, target = z[1:] @ free.output, model.observe(model.present(model.encode(y[None])))[0, 1:].detach()
    covariance = torch.cov(target.mT, correction=0)
    covariance += 1e-4 * covariance.trace() / len(covariance) * torch.eye(len(covariance))
    residual = here - target
    share = ((residual @ torch.linalg.inv(covariance)) * residual).mean()
    torch.testing.assert_close(terms["output"], share, rtol=1e-8, atol=1e-10)
    both = {"transition": (True, False), "output": (False, True), "reconstruction": (False, False)}
    for name, wanted in (both | {"state_readout": (True, False)}).items():
        grads = torch.autograd.grad(terms[name], list(free.parameters()), retain_graph=True, allow_unused=True)
        assert tuple(g is not None and bool((g != 0).any()) for g in grads) == wanted


def test_a_model_with_learned_operators_keeps_them(monkeypatch):
    made, init = [], dse.FreeOperators.__init__
    monkeypatch.setattr(dse.FreeOperators, "__init__", lambda self, model: made.append(self) or init(self, model))
    config = DSETrainConfig(**(QUICK | {"stage_two": 5}), closed_form=False)
    model = train(rotation(), sizes(), config).model
    (free,) = made
    assert torch.equal(model.transition, free.transition) and torch.equal(model.output, free.output)
    eye = torch.eye(6, dtype=torch.float64)
    assert torch.equal(model.transition[:, 0], eye[0]) and not torch.equal(model.transition, eye)
    assert model.filter(rotation(seed=5)).predictions.isfinite().all()


def test_codes_as_states():
    changes = {"realized": False, "window": 1, "heads": 1, "delays": 1, "code": 8, "rank": 3, "state_features": 6}
    y, config = rotation(), DSETrainConfig(**(QUICK | {"stage_one": 0}))
    trained = train(y, sizes(**changes), config)
    assert "correlation" not in trained.history[-1]
    model = trained.model
    codes = model.encode(y[None]).detach()
    states = model.states(model.blocks(codes)[0])
    before = codes[0, : states.shape[1], :3].double()  # the state of a time is the code of the frame before
    torch.testing.assert_close(states[0], (before - model.past_mean[:3]) * model.past_directions.diagonal())
    assert states[0].std(0, correction=0).sub(1).abs().max() < 0.05
    same = model.realization.transform_future(model.blocks(codes)[1])[0, :-1]
    torch.testing.assert_close(same, states[0, 1:])
    with pytest.raises(UserError, match="stage_one: without a realization there is nothing to train first, got 2"):
        train(y, sizes(**changes), DSETrainConfig(**QUICK))
    with pytest.raises(ValueError, match="with window and heads 1"):
        sizes(realized=False)
    with pytest.raises(UserError, match="closed_form: the published reading has no other"):
        train(y, sizes(reading="published"), DSETrainConfig.published(closed_form=False))


def test_segments():
    torch.manual_seed(0)
    long = torch.arange(250.0).reshape(1, 250, 1).expand(2, 250, 1)
    pieces = list(dse.segments(long, 100, 20))
    assert len(pieces) == 6 and all(p.shape == (1, 100, 1) for p in pieces)
    assert all((p.diff(dim=1) == 1).all() for p in pieces)
    assert len({float(p[0, 0, 0]) for p in pieces}) > 3
    short = torch.arange(7.0).reshape(7, 1, 1).expand(7, 30, 1)
    pieces = list(dse.segments(short, 100, 20))
    assert [p.shape[0] for p in pieces] == [3, 3, 1]
    assert sorted(torch.cat(pieces)[:, 0, 0].tolist()) == list(range(7))
    assert [p.shape for p in dse.segments(long[:1], 10, 240)] == [(1, 240, 1)] * 2


@pytest.mark.parametrize("schedule", ["staged", "joint"])
def test_memory_of_a_step_does_not_grow_with_the_record(schedule, monkeypatch):
    """Bytes that autograd keeps for the losses of a step: those of one segment, however long the record is."""
    real, kept = dse.losses, []

    def counted(*args):
        kept.append(0)

        def pack(x):
            kept[-1] += x.nbytes
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            return real(*args)

    monkeypatch.setattr(dse, "losses", counted)
    config = DSETrainConfig(**(QUICK | {"stage_one": 1, "stage_two": 1, "schedule": schedule}))
    most = []
    for time in (100, 400):
        kept.clear()
        train(rotation(time), sizes(), config)
        assert len(kept) == 2 * time // 100
        most.append(max(kept))
    assert most[1] == most[0]
    counted(ready(rotation(400)).float(), rotation(400)[None], config)
    assert kept[-1] > 3 * most[0]  # all frames at once would have shown


def test_many_sequences():
    y = torch.stack([rotation(60, seed=k) for k in range(4)])
    trained = train(y, sizes(), DSETrainConfig(**QUICK, folds=2))
    assert trained.model.filter(y).predictions.shape == (4, 58, 2)


def test_published_steps_pair_as_published(monkeypatch):
    """With steps too small to change anything, the operators are those of index pairs written out."""
    y = rotation()
    model = ready(y, reading="published")
    config = DSETrainConfig.published(stage_one=1, stage_two=1, learning_rate=1e-300, encoder_rate=1e-300)
    run = dse_published._Run(model, y[None], dataclasses.replace(config, readout_steps=0))
    terms = run.stage_one(fold=2)
    codes, x = run.codes, run.states
    np.testing.assert_array_equal(codes.numpy(), model.encode(y[None])[0, 4 : 4 + len(x)].detach().numpy())
    z = model.dictionary(x)
    a = lstsq(z[:-1], z[1:], 1e-2)
    np.testing.assert_allclose(run.transition.numpy(), a, atol=1e-9)
    guess = model.state_readout(z[:-1] @ torch.from_numpy(a))  # entry i is about time i + 1
    zb, seen = model.dictionary(guess), model.observe(codes)
    np.testing.assert_allclose(run.output.numpy(), lstsq(zb[:-1], seen[2:], 1e-3), atol=1e-9)

    block = np.array_split(np.arange(len(z) - 1), 5)[2]
    rest = np.setdiff1d(np.arange(len(z) - 1), block)
    v = lstsq(z[rest], z[rest + 1], 1e-2)
    error = ((z[block].detach().numpy() @ v - z[block + 1].detach().numpy()) ** 2).sum(1).mean() + 1e-2 * (v**2).sum()
    np.testing.assert_allclose(terms["transition"].item(), error, rtol=1e-9)

    b = torch.from_numpy(lstsq(zb[:-1], seen[2:], 1e-3))
    frames = model.decoder(model.observation_readout(zb @ b))
    expected = (frames - model.inputs(y[None])[0, 5 : 5 + len(frames)]).square().mean()
    terms = run.stage_two()
    np.testing.assert_allclose(terms["reconstruction"].item(), expected.item(), rtol=1e-9)
    np.testing.assert_allclose(terms["correlation"].item(), -1e-3 * model.correlations[:2].sum().item(), rtol=1e-9)

    read = []
    monkeypatch.setattr(dse_published, "fit_readout", lambda net, x, target, _: read.append((net, x, target)))
    run.finish()
    folds = contiguous_folds(1, len(z) - 1, 5)
    transitions = torch.stack([ridge(z[:-1], z[1:], 1e-2, keep) for keep in folds.keep])
    np.testing.assert_allclose(model.transition.numpy(), transitions.mean(0).detach().numpy(), atol=1e-9)
    guess = model.state_readout(z[:-1] @ model.transition)
    zb = model.dictionary(guess)
    outputs = torch.stack([ridge(zb, seen[:-1], 1e-3, keep) for keep in folds.keep])
    np.testing.assert_allclose(model.output.numpy(), outputs.mean(0).detach().numpy(), atol=1e-9)
    # What the read-outs learn last: predictions of each block by the operators of the others.
    ahead, shown = np.empty_like(z[1:].detach()), np.empty_like(seen[:-1].detach())
    for block in np.array_split(np.arange(len(z) - 1), 5):
        rest = np.setdiff1d(np.arange(len(z) - 1), block)
        ahead[block] = z[block].detach().numpy() @ lstsq(z[rest], z[rest + 1], 1e-2)
        shown[block] = zb[block].detach().numpy() @ lstsq(zb[rest], seen[rest], 1e-3)
    assert [net for net, _, _ in read] == [model.state_readout, model.observation_readout]
    for (_, found, target), expected, aim in zip(read, (ahead, shown), (x[1:], codes[:-1])):
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)
        np.testing.assert_array_equal(target.numpy(), aim.numpy())


def test_what_the_published_reading_leaves_alone(monkeypatch):
    """Block features are never trained, dropout ends with the first epoch of stage two; the spectrum is a stale one."""
    real, dropout, cached, epochs = dse_published._Run.stage_one, [], [], []

    def watched(run, fold):
        dropout.append([part.training for part in (run.model.dictionary, run.model.observation_dictionary)])
        terms = real(run, fold)
        cached.append(run.transition.clone())
        return terms

    monkeypatch.setattr(dse_published._Run, "stage_one", watched)
    published = sizes(reading="published", dropout=0.1)
    torch.manual_seed(DSETrainConfig().seed)
    fresh = dict(DSE(published).named_parameters())
    config = DSETrainConfig.published(**QUICK)
    trained = train(rotation(), published, config, after_epoch=lambda epoch, _: epochs.append(epoch)).model
    same = {name: torch.equal(value, fresh[name]) for name, value in trained.named_parameters()}
    heads = {name for name in same if name.startswith("heads.")}
    assert len(heads) == 4 and {name for name, equal in same.items() if equal} == heads
    assert epochs == [0, 1, 2, 3] and dropout == [[True, True]] * 3 + [[False, False]]
    assert torch.equal(trained.spectral_transition, cached[-1])
    assert not torch.equal(trained.spectral_transition, trained.transition)


def test_spectra_of_the_readings():
    """The clean one has the constant, and of the folds an operator of its own; the published one has neither."""
    clean = train(rotation(), sizes(), DSETrainConfig(**QUICK)).model
    published = train(rotation(), sizes(reading="published"), DSETrainConfig.published(**QUICK)).model
    assert not torch.equal(clean.fold_transition, clean.spectral_transition)
    assert torch.equal(published.fold_transition, published.transition)
    assert (clean.eigenvalues() - 1).abs().min() < 1e-9
    assert (published.eigenvalues() - 1).abs().min() > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "stage"}, "unknown schedule 'stage'; did you mean 'staged'"),
        ({"folds": 0}, "folds must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"reconstruction_weight": -1.0}, "reconstruction_weight must not be negative"),
    ],
)
def test_bad_config(change, message):
    with pytest.raises(UserError, match=message):
        DSETrainConfig(**change)


@pytest.mark.parametrize("reading", ["clean", "published"])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (rotation()[:10], "y: at least 1. frames are needed, got shape"),
        (torch.ones(200, 2), "y: a channel is constant"),
        (rotation().where(rotation() < 1, torch.nan), r"y\[0, .*\] is not finite but NaN"),
        (torch.tensor([1.0, -1.0]).repeat(100)[:, None].expand(200, 2), "rank: 4 asked for, but past has fewer"),
    ],
)
def test_bad_data(reading, y, message):
    with pytest.raises(ValueError, match=message):
        train(y, sizes(reading=reading, rank=4, state_features=8), DSETrainConfig(**QUICK))


def test_published_takes_one_sequence():
    with pytest.raises(ValueError, match="the published reading takes one sequence, got 2"):
        train(rotation()[None].repeat(2, 1, 1), sizes(reading="published"))


def test_films_are_predicted_as_well_as_their_components_can_show_them():
    """A blob that goes round, before any training: what the components make of a film is there."""
    time = torch.arange(240.0)
    place = torch.stack([24 + 10 * torch.cos(0.3 * time), 24 + 10 * torch.sin(0.3 * time)], -1)
    grid = torch.stack(torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij"), -1)
    films = (-(grid - place[:, None, None]).square().sum(-1) / 30).exp()[:, None]
    sizes = {"code": 16, "components": 8, "rank": 8, "window": 6, "state_features": 16, "observation_features": 16}
    config = DSETrainConfig.images(stage_one=0, stage_two=0, readout_steps=0)
    model = train(films[:200], DSEConfig.quad_link(**sizes), config).model
    shown = model.encoder.components
    guesses = {"filter": model.filter(films).predictions, "shown": shown.decode(shown.encode(films))}
    guesses["last frame"] = films.roll(1, 0)
    errors = {name: float((guess - films)[200:].square().mean()) for name, guess in guesses.items()}
    assert errors["filter"] < 1.2 * errors["shown"] < 0.2 * errors["last frame"]


def test_a_linear_model_keeps_every_observation_and_filters_as_classical_identification_does():
    """Seed 7253 draws a dictionary whose rows are nearly opposite; from there training gives up one of two channels."""
    clean = rotation(1000, 0.0)
    y = clean + 0.3 * torch.randn(1000, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    system = identify(y, 5, 2).system
    state, means = y.new_zeros(2), []
    for frame in y:  # the innovation form, step by step
        means.append(state @ system.output + system.observation_mean)
        state = state @ system.transition + (frame - means[-1]) @ system.gain
    means = torch.stack(means)
    best = float((means - clean)[50:].square().mean().sqrt())
    for seed in (7253, 0):
        config = DSETrainConfig(stage_one=5, stage_two=10, readout_steps=50, seed=seed)
        model = train(y.float(), DSEConfig.linear(2, 5, 2), config).model
        sizes = torch.linalg.svdvals(model.observation_dictionary[0].weight.detach())
        assert sizes[-1] > 0.5 * sizes[0]
        found = model.filter(y.float()).predictions
        assert float((found - clean)[50:].square().mean().sqrt()) < 1.25 * best


def test_models_with_hidden_layers_start_from_their_draws():
    """Also what is linear in part: stored results were trained from these."""
    y = rotation()
    for changes in ({}, {"observation_hidden": ()}, {"observation_hidden": (), "encoder_hidden": ()}):
        started = ready(y, **changes)
        torch.manual_seed(0)
        drawn = DSE(sizes(**changes)).double().state_dict()
        kept = {k: v for k, v in started.state_dict().items() if k not in ("centre", "scale")}
        assert all(torch.equal(v.nan_to_num(), drawn[k].nan_to_num()) for k, v in kept.items())


def test_data_with_a_graph_behind_them_are_learnt_from_like_others():
    y, small = rotation(), sizes()
    asked = (y.clone().requires_grad_() * 1.0).square().sqrt() * y.sign()
    plain, other = (train(data, small, DSETrainConfig(**QUICK)) for data in (y, asked))
    for key, value in plain.history[-1].items():
        assert other.history[-1][key] == pytest.approx(value, rel=1e-6)

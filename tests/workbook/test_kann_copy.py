"""The copy chapter: the operator of the delay and its baselines, on networks whose memory is known by construction."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from kpm import cli, paths
from kpm.errors import UserError
from kpm.models.copy_memory import CopyMemoryConfig, CopyMemoryNet, sequences
from kpm.training import checkpoint
from kpm.training.copy_memory import CopyTrainConfig, copy_scores, held_out
from kpm.workbook import copy_plots, kann_copy, results

TINY = CopyTrainConfig(hidden=12, length=2, delay=5, validation_sequences=60, activation="tanh")


def made(activation: str = "modrelu", cell: str = "orthogonal", seed: int = 0) -> CopyMemoryNet:
    torch.manual_seed(seed)
    return CopyMemoryNet(CopyMemoryConfig(cell, 12, 8, activation)).eval()


def drawn(count: int, seed: int) -> torch.Tensor:
    return torch.randint(8, (count, 2), generator=torch.Generator().manual_seed(seed))


def test_the_delay_is_from_the_last_symbol_to_the_last_blank():
    net, symbols = made(), drawn(7, 1)
    states = kann_copy.delay_states(net, symbols, 5, size=3)
    ids, _ = sequences(symbols, 5, net.config)
    with torch.no_grad():
        torch.testing.assert_close(states, net.states(ids)[:, 1:7])
        answers = net(ids)[:, -2:].argmax(-1)
    assert torch.equal(kann_copy.said(net, states[:, -1], 2), answers)


def test_a_linear_memory_is_found_exactly():
    """modReLU with offset 0 is the identity: the operator, the linear part and the network are one map."""
    net = made()
    with torch.no_grad():
        net.recurrent.inputs.bias.zero_()
        net.recurrent.inputs.weight[:, net.config.blank] = 0
    found = kann_copy.analyse(net, drawn(200, 1), drawn(50, 2), 5, seed=0)
    for name in (kann_copy.OPERATOR, kann_copy.LINEAR):
        part = found.fidelity[name]
        assert part.one_step < 1e-10 and float(part.errors.max()) < 1e-10 and part.agreement == 1
        np.testing.assert_allclose(part.last, found.states[:, -1].double(), atol=1e-4)
    expected = np.linalg.eigvals(net.recurrent.recurrent.weight.detach().double().numpy())
    values = found.eigenvalues()[kann_copy.LINEAR].numpy()
    np.testing.assert_allclose(sorted(values, key=np.angle), sorted(expected, key=np.angle), atol=1e-6)
    np.testing.assert_allclose(np.abs(values), 1, atol=1e-5)
    recall = float((found.own == found.symbols).double().mean())
    assert found.fidelity[kann_copy.OPERATOR].recall == pytest.approx(recall)
    assert float(kann_copy.recall_by_modes(net, found, [len(values)])[0]) == pytest.approx(recall)


def test_errors_of_a_rollout_are_those_of_its_definition():
    net = made("tanh")
    found = kann_copy.analyse(net, drawn(200, 1), drawn(30, 2), 5, seed=0, linearise=False)
    part, h = found.fidelity[kann_copy.OPERATOR], found.states.double()
    last = torch.as_tensor(found.kann.predict(h[:, 0], 5))
    torch.testing.assert_close(part.last, last)
    error = ((last - h[:, -1]).norm(dim=-1) / h[:, -1].norm(dim=-1)).square().mean()
    assert len(part.errors) == 5 and float(part.errors[-1]) == pytest.approx(float(error))
    assert part.one_step == pytest.approx(found.kann.relative_error(h))
    assert set(found.eigenvalues()) == {kann_copy.OPERATOR} and "fixed_points" not in kann_copy.metrics(found)


def test_a_leaking_memory_has_a_fixed_point_and_one_that_jumps_has_slow_ones():
    leaking = made("tanh")
    with torch.no_grad():
        leaking.recurrent.inputs.bias.fill_(0.3)
    states = kann_copy.delay_states(leaking, drawn(80, 1), 5)
    base = kann_copy.baselines(leaking, states, seed=0, starts=16)
    assert len(base.points.fixed) == 1 and base.step_size < 1e-6
    assert base.methods[kann_copy.LINEARISED].points is base.points.fixed
    jumping = made()
    with torch.no_grad():
        jumping.recurrent.offset.fill_(0.2)
        jumping.recurrent.inputs.bias.fill_(0.3)
    states = kann_copy.delay_states(jumping, drawn(80, 1), 5)
    base = kann_copy.baselines(jumping, states, seed=0, starts=16)
    best = base.methods[kann_copy.LINEARISED].points
    assert len(base.points.fixed) == 0 and base.step_size > 1e-6
    assert 1 <= len(best) <= len(base.points.slow) and float(best.speed.max()) <= 10 * float(best.speed.min())
    assert set(base.methods) == {kann_copy.LINEARISED, kann_copy.ENDS, kann_copy.LINEAR}
    held = kann_copy.baselines(made(cell="gru"), torch.rand(8, 3, 12), seed=0, starts=8)
    assert set(held.methods) == {kann_copy.LINEARISED, kann_copy.ENDS}


def test_modes_that_outlast_a_delay_are_counted():
    values = torch.tensor([1.01, 1.0, 0.96, 0.9, 0.1], dtype=torch.complex128)
    assert [kann_copy.covering(values, delay) for delay in (1, 40, 100, 200)] == [5, 4, 3, 2]


def test_splits_are_drawn_apart_and_always_the_same():
    parts = {split: held_out(TINY, split) for split in ("train", "validation", "test")}
    assert torch.equal(parts["validation"], held_out(TINY))
    assert all(torch.equal(parts[s], held_out(TINY, s)) for s in parts)
    assert not torch.equal(parts["train"], parts["test"]) and not torch.equal(parts["test"], parts["validation"])
    with pytest.raises(UserError, match="split"):
        held_out(TINY, "dev")


@pytest.mark.parametrize("name", kann_copy.NETWORKS)
def test_what_is_shipped_was_trained_as_it_says(name):
    model, config = kann_copy.network(name)
    meta = checkpoint.read(paths.checkpoints() / f"{name}.safetensors")[1]
    assert CopyTrainConfig(**meta["train"]) == config and model.config == config.model()
    assert next(iter(model.parameters())).dtype == torch.float32
    score = copy_scores(model, held_out(config, "test")[:50], config.delay)
    stored = results.load(f"kann_{name}")
    assert score["accuracy"] == pytest.approx(stored.metrics["accuracy_test"], abs=0.02)
    assert score["loss"] < 0.2 * score["memoryless"] and stored.paper == {}


def test_a_network_trained_anew_is_kept_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setitem(kann_copy.NETWORKS, "copy", dataclasses.replace(TINY, epochs=1, sequences=64))
    first, config = kann_copy.network("copy", tmp_path / "run")
    again, _ = kann_copy.network("copy", tmp_path / "run")
    assert config.hidden == 12 and torch.equal(first.readout.weight, again.readout.weight)
    with pytest.raises(UserError, match="unknown network 'cop'"):
        kann_copy.network("cop")


def test_networks_for_several_delays(tmp_path):
    config = dataclasses.replace(TINY, epochs=1, sequences=64)
    rows = kann_copy.by_delay([2, 4], tmp_path, config)
    assert [r["delay"] for r in rows] == [2, 4] and json.dumps(rows)
    for row in rows:
        assert len(row["moduli"]) <= 12 and row["covering"] <= len(row["moduli"])
        assert row["moduli"] == sorted(row["moduli"], reverse=True)
    again = kann_copy.by_delay([2, 4], tmp_path, config, resume=True)
    assert [r["moduli"] for r in again] == [r["moduli"] for r in rows]


def test_train_publish_and_analyse(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    flags = "--epochs 1 --sequences 128 --hidden 12 --length 2 --delay 3 --cell gru --validation-sequences 40"
    assert cli.main(["train", "copy", *flags.split(), "--no-progress", "--device", "cpu"]) == 0
    assert cli.main(["publish", str(tmp_path / "runs" / "copy")]) == 0
    result = results.load("kann_copy_gru")
    kinds = {f"{k}_{split}" for k in ("accuracy", "whole", "loss") for split in ("val", "test")}
    assert set(result.metrics) == kinds | {"memoryless"} and result.paper == {}
    assert result.source == "synthetic" and "--cell gru" in result.command and "--delay 3" in result.command
    argv = ["kann", "copy", "--checkpoint-file", "copy_gru", "--save"]
    assert cli.main(argv) == 0
    assert "agreement" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "kann_copy_gru.json").read_text())
    saved = results.load("kann_copy_gru")
    assert saved.metrics["linearised_agreement"] == written["metrics"]["linearised_agreement"]
    assert saved.metrics["accuracy_test"] == result.metrics["accuracy_test"]
    assert len(saved.details["errors"]["operator"]) == 3 and "delays" not in saved.details
    assert results.results_command(("kann_copy_gru",), check=True) == 0
    assert "covering_modes" in capsys.readouterr().out
    assert cli.main(["kann", "ecg", "--delays", "5"]) == 2
    monkeypatch.setattr(kann_copy, "analyse", None)  # what follows is found before any work
    capsys.readouterr()
    (tmp_path / "file").write_text("")
    for out, message in (
        ("/proc/x.json", "out: cannot write /proc/x.json"),
        (str(tmp_path), f"out: {tmp_path} is a folder, expected a file"),
        (str(tmp_path / "file" / "x.json"), "out: cannot write"),
    ):
        assert cli.main(["kann", "copy", "--checkpoint-file", "copy_gru", "--out", out]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and "Error" not in error
    assert cli.main(["kann", "copy", "--split", "dev", "--checkpoint-file", "copy_gru"]) == 2


def test_figures_show_what_they_are_given():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 8, (5, 3))
    wrong = truth.copy()
    wrong[2, 1] += 1
    figure = copy_plots.plot_recall(truth, {"a": truth, "b": wrong})
    assert [ax.get_title() for ax in figure.axes] == ["a\n100% right", "b\n93% right"]
    framed = [sum(p.get_linewidth() > 0 for p in ax.patches) for ax in figure.axes]
    assert framed == [0, 1] and len(figure.axes[0].texts) == 15
    values = np.exp(1j * rng.uniform(0, 6, 20)) * np.linspace(1.01, 0.2, 20)
    figure = copy_plots.plot_planes({"n": {"operator": values, "linearised": values / 2}})
    assert len(figure.axes[0].lines) == 2
    figure = copy_plots.plot_errors({"n": {"a": np.arange(1, 6), "b": np.arange(2, 7)}, "m": {"a": np.ones(3)}})
    assert [len(ax.lines) for ax in figure.axes] == [2, 1]
    figure = copy_plots.plot_horizons([10, 50], {"operator": [np.abs(values), np.array([1.0, 0.5])]})
    assert [t.get_text() for t in figure.axes[0].texts] == [str(kann_copy.covering(torch.tensor(values), 10)), "1"]
    figure = copy_plots.plot_kept_modes(values, 8, [0, 8, 20], np.array([0.1, 0.5, 1.0]), 0.125, 10)
    assert figure.axes[1].get_title() == "50% right after 10 steps"
    assert len(figure.axes[0].lines[1].get_xdata()) == 8

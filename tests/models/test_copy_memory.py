"""Networks of the copy problem: sequences, the orthogonal matrix, recall from a given state."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kpm.analysis import record_states
from kpm.analysis.fixed_points import cell_step, find_fixed_points
from kpm.models.copy_memory import (
    CopyMemoryConfig,
    CopyMemoryNet,
    OrthogonalRNN,
    memoryless_loss,
    sequences,
)
from kpm.training import checkpoint

KINDS = [CopyMemoryConfig("gru", 12), CopyMemoryConfig("orthogonal", 13), CopyMemoryConfig("orthogonal", 12, 4, "tanh")]


@pytest.fixture(params=KINDS, ids=["gru", "modrelu", "tanh"])
def net(request) -> CopyMemoryNet:
    torch.manual_seed(0)
    return CopyMemoryNet(request.param)


def test_sequences_are_symbols_blanks_a_cue_and_blanks():
    symbols = torch.tensor([[3, 0, 2], [1, 1, 3]])
    ids, answers = sequences(symbols, 2, CopyMemoryConfig(symbols=4))
    assert ids.tolist() == [[3, 0, 2, 4, 4, 5, 4, 4, 4], [1, 1, 3, 4, 4, 5, 4, 4, 4]]
    assert answers.tolist() == [[4, 4, 4, 4, 4, 4, 3, 0, 2], [4, 4, 4, 4, 4, 4, 1, 1, 3]]
    assert sequences(symbols, 0, CopyMemoryConfig(symbols=4))[0][0].tolist() == [3, 0, 2, 5, 4, 4, 4]


def test_guessing_after_the_cue_costs_what_is_said():
    """With a delay of 99 blanks before the cue it is 10 ln 8 / (T + 20) for T = 101 steps apart."""
    assert memoryless_loss(10, 100) == pytest.approx(10 * math.log(8) / 121)
    ids, answers = sequences(torch.randint(8, (500, 3)), 4, CopyMemoryConfig())
    logits = torch.full((*ids.shape, 9), -30.0)
    logits[:, :-3, 8] = 0
    logits[:, -3:, :8] = 0
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), answers.flatten())
    assert float(loss) == pytest.approx(memoryless_loss(3, 4), rel=1e-5)


def test_the_recurrent_matrix_is_orthogonal_and_stays_so():
    torch.manual_seed(0)
    layer = OrthogonalRNN(3, 13)
    angles = np.angle(np.linalg.eigvals(layer.recurrent.weight.detach().numpy()))
    assert np.std(angles) > 1  # spread over the circle, not near 1
    optimizer = torch.optim.SGD(layer.parameters(), 1.0)
    for _ in range(3):
        states, _ = layer(torch.randn(4, 6, 3))
        states.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    weight = layer.recurrent.weight.detach().double()
    torch.testing.assert_close(weight @ weight.T, torch.eye(13, dtype=torch.float64), atol=1e-5, rtol=0)


def test_states_are_what_the_equations_say(net):
    ids = torch.randint(net.config.symbols + 2, (5, 7))
    states = net.states(ids)
    assert states.shape == (5, 7, net.config.hidden) and net(ids).shape == (5, 7, net.config.symbols + 1)
    if net.config.cell == "gru":
        step = cell_step(net.recurrent)
    else:
        step = net.recurrent.step
        with torch.no_grad():
            net.recurrent.inputs.bias.normal_()
            if net.recurrent.offset is not None:
                net.recurrent.offset.uniform_(-0.2, 0.2)
        states = net.states(ids)
    h = torch.zeros(5, net.config.hidden, dtype=torch.float64)
    for t in range(7):
        h = step(h, net.embed(ids[:, t]).double())
        torch.testing.assert_close(h, states[:, t].double(), atol=1e-5, rtol=1e-5)


def test_modrelu_keeps_signs_and_moves_moduli():
    layer = OrthogonalRNN(2, 4)
    with torch.no_grad():
        layer.offset.copy_(torch.tensor([-0.5, 0.5, -0.5, 0.0]))
    got = layer._activate(torch.tensor([[0.3, -0.3, -2.0, 1.0]]))
    torch.testing.assert_close(got, torch.tensor([[0.0, -0.8, -1.5, 1.0]]))


def test_recall_from_true_states_is_what_is_said(net):
    symbols = torch.randint(net.config.symbols, (6, 3))
    ids, _ = sequences(symbols, 4, net.config)
    before_cue = net.states(ids)[:, 3 + 4 - 1]
    torch.testing.assert_close(net.recall(before_cue.double(), 3), net(ids)[:, -3:])


def test_states_can_be_recorded_and_fixed_points_found(net):
    ids, _ = sequences(torch.randint(net.config.symbols, (6, 3)), 4, net.config)
    batch = next(record_states(net, ids, layer="recurrent"))
    torch.testing.assert_close(batch.states, net.states(ids).detach())
    if net.config.activation == "tanh":
        blank = net.embed(torch.tensor(net.config.blank)).double()
        found = find_fixed_points(net.recurrent.step, batch.states.flatten(0, 1), blank, steps=50)
        assert len(found.slow) >= 1


def test_a_checkpoint_gives_the_same_network(net, tmp_path):
    path = checkpoint.save_model(tmp_path / "net.safetensors", net, {})
    again, meta = checkpoint.load_as(CopyMemoryNet, path)
    ids = torch.randint(net.config.symbols + 2, (2, 5))
    torch.testing.assert_close(again(ids), net(ids), atol=1e-6, rtol=1e-6)
    assert meta["model"] == "CopyMemoryNet" and again.config == net.config


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="cell: expected one of"):
        CopyMemoryNet(CopyMemoryConfig("lstm"))
    with pytest.raises(ValueError, match="activation: expected one of"):
        OrthogonalRNN(2, 3, "relu")
    with pytest.raises(ValueError, match="ids: expected 0 to 9, got 0 to 10"):
        CopyMemoryNet()(torch.tensor([[0, 10]]))
    with pytest.raises(ValueError, match="symbols, delay"):
        sequences(torch.zeros(3, dtype=torch.int64), 2, CopyMemoryConfig())

"""Recorded states against states worked out by hand, and what recording leaves behind: nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence
from torch.utils.data import DataLoader, TensorDataset

from kpm.analysis.kann import KANN
from kpm.analysis.record_states import collect, record_states
from kpm.errors import UserError

N, TIME, WIDTH, HIDDEN = 7, 9, 3, 5
LENGTHS = torch.tensor([4, 9, 1, 6, 9, 2, 5])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Tagger(nn.Module):
    """A recurrent network with a read-out, over whole or packed sequences."""

    def __init__(self, kind: type[nn.RNNBase] = nn.GRU, batch_first: bool = True, **options) -> None:
        super().__init__()
        self.rnn = kind(WIDTH, HIDDEN, batch_first=batch_first, **options)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        if lengths is not None:
            x = pack_padded_sequence(x, lengths.cpu(), self.rnn.batch_first, enforce_sorted=False)
        last = self.rnn(x)[1]
        last = last[0] if isinstance(last, tuple) else last
        return self.head(self.drop(last[-1]))


class Unrolled(nn.Module):
    """A cell in a Python loop."""

    def __init__(self, kind: type[nn.RNNCellBase]) -> None:
        super().__init__()
        self.cell = kind(WIDTH, HIDDEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return state


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(inplace=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.3 * self.inner(x)


class Residual(nn.Module):
    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def inputs(n: int = N) -> torch.Tensor:
    return torch.randn(n, TIME, WIDTH)


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def masked(states: torch.Tensor, lengths: torch.Tensor = LENGTHS) -> torch.Tensor:
    return torch.where((torch.arange(states.shape[1]) < lengths[:, None])[..., None], states, 0)


@torch.no_grad()
def lstm_by_hand(lstm: nn.LSTM, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden and cell states ``(n, time, hidden)`` of the last layer, gate by gate."""
    for layer in range(lstm.num_layers):
        weights = [getattr(lstm, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        h = c = torch.zeros(len(x), lstm.hidden_size)
        hs, cs = [], []
        for t in range(x.shape[1]):
            i, f, g, o = (x[:, t] @ weights[0].T + h @ weights[1].T + weights[2] + weights[3]).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            hs.append(h)
            cs.append(c)
        x = torch.stack(hs, 1)
    return x, torch.stack(cs, 1)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers(kind, batch_first):
    model, x = Tagger(kind, batch_first), inputs()
    batch = x if batch_first else x.transpose(0, 1)
    (found,) = record_states(model, [batch], output=lambda y: y)
    whole = nn.Module.__call__(model.rnn, batch)[0]
    expected = whole if batch_first else whole.transpose(0, 1)
    torch.testing.assert_close(found.states, expected)
    assert found.lengths is None and not found.states.requires_grad
    torch.testing.assert_close(found.output, model.eval()(batch))  # without dropout


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_packed_sequences_bring_their_lengths(kind, batch_first):
    model, x = Tagger(kind, batch_first), inputs()
    pairs = [(x[:4], LENGTHS[:4]), (x[4:], LENGTHS[4:])]
    if not batch_first:
        pairs = [(x.transpose(0, 1), lengths) for x, lengths in pairs]
    batches = list(record_states(model, pairs, "rnn", call=lambda m, batch: m(*batch)))
    whole = [model.rnn(one[:k][:, None] if not batch_first else one[None, :k])[0] for one, k in zip(x, LENGTHS)]
    assert torch.cat([batch.lengths for batch in batches]).tolist() == LENGTHS.tolist()
    found = collect(batches)
    assert found.states.shape == (N, TIME, HIDDEN)
    for states, length, expected in zip(found.states, found.lengths, whole):
        torch.testing.assert_close(states[:length], expected.reshape(length, HIDDEN))
        assert (states[length:] == 0).all()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", [{}, {"batch_first": False}, {"num_layers": 2}])
def test_cell_states_of_an_lstm(options, packed):
    model, x = Tagger(nn.LSTM, **options), inputs()
    hidden, cells = lstm_by_hand(model.rnn, x)
    batch = x if model.rnn.batch_first else x.transpose(0, 1)
    data = [(batch, LENGTHS if packed else None)]
    for state, expected in (("h", hidden), ("c", cells)):
        (found,) = record_states(model, data, state=state, call=lambda m, b: m(*b))
        torch.testing.assert_close(found.states, masked(expected) if packed else expected)
        assert (found.lengths is not None) == packed


def test_cell_states_start_from_the_given_ones():
    lstm, x = nn.LSTM(WIDTH, HIDDEN), inputs(TIME).transpose(0, 1)
    start = (torch.randn(1, TIME, HIDDEN), torch.randn(1, TIME, HIDDEN))
    (found,) = record_states(lstm, [x], state="c", call=lambda m, b: m(b, hx=start))
    torch.testing.assert_close(found.states[:, -1], lstm(x, start)[1][1][0])
    (found,) = record_states(lstm, [x], state="c", call=lambda m, b: m(b, start))
    torch.testing.assert_close(found.states[:, -1], lstm(x, start)[1][1][0])
    (one,) = record_states(lstm, [x[:, 0]], state="c")  # a single sequence without a batch axis
    torch.testing.assert_close(one.states[0, -1], lstm(x[:, 0])[1][1][0])


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_a_cell_in_a_loop(kind):
    model, x = Unrolled(kind), inputs()
    whole = {nn.RNNCell: nn.RNN, nn.GRUCell: nn.GRU, nn.LSTMCell: nn.LSTM}[kind](WIDTH, HIDDEN, batch_first=True)
    whole.load_state_dict({f"{name}_l0": value for name, value in model.cell.state_dict().items()})
    (found,) = record_states(model, [x], "cell")
    torch.testing.assert_close(found.states, whole(x)[0])
    if kind is nn.LSTMCell:
        (found,) = record_states(model, [x], state="c")
        torch.testing.assert_close(found.states, lstm_by_hand(whole, x)[1])


def test_a_recurrent_layer_called_step_by_step():
    gru, x = nn.GRU(WIDTH, HIDDEN, batch_first=True), inputs()

    def step_by_step(model, x):
        h = None
        for t in range(TIME):
            _, h = model(x[:, t : t + 1], h)

    (found,) = record_states(gru, [x], call=step_by_step)
    torch.testing.assert_close(found.states, gru(x)[0])


@pytest.mark.parametrize("batch_first", [True, False])
def test_transformer_layers(batch_first):
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=batch_first)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=batch_first)
    for parameter in model.parameters():  # layers start as copies of one another
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(N, TIME, 4)
    batch = x if batch_first else x.transpose(0, 1)
    padding = torch.arange(TIME) >= LENGTHS[:, None]
    data = {"src": batch, "src_key_padding_mask": padding}
    found = [next(record_states(model, [data], f"layers.{i}", lengths=lambda _: LENGTHS)) for i in range(3)]
    attention = next(record_states(model, [data], "layers.1.self_attn")).states
    model.eval()
    expected = batch
    for i in range(3):
        if i == 1:
            by_hand = model.layers[1].self_attn(expected, expected, expected, key_padding_mask=padding)[0]
        expected = model.layers[i](expected, src_key_padding_mask=padding)
        states = expected if batch_first else expected.transpose(0, 1)
        torch.testing.assert_close(masked(found[i].states), masked(states))
        assert found[i].lengths.tolist() == LENGTHS.tolist()
    torch.testing.assert_close(masked(attention), masked(by_hand if batch_first else by_hand.transpose(0, 1)))
    (one,) = record_states(model, [x[0]], "layers.2")
    torch.testing.assert_close(one.states[0], model(x[:1] if batch_first else x[:1].transpose(0, 1)).reshape(TIME, 4))
    assert torch.backends.mha.get_fastpath_enabled()


def test_depth_as_time_of_a_residual_network():
    model, x = Residual(), torch.randn(N, HIDDEN)
    names = [f"blocks.{i}" for i in range(4)]
    expected = [x]
    for block in model.blocks:
        expected.append(block(expected[-1]))
    found = collect(record_states(model, x, layers=names, batch_size=3))
    torch.testing.assert_close(found.states, torch.stack(expected[1:], 1))
    (backwards,) = record_states(model, x, layers=[model.blocks[2], "blocks.0"])
    torch.testing.assert_close(backwards.states, torch.stack([expected[3], expected[1]], 1))


def test_pixels_are_flattened_or_selected():
    model = nn.Sequential(*(nn.Conv2d(2, 2, 3, padding=1) for _ in range(3)))
    x = torch.randn(N, 2, 4, 4)
    first, second = model[0](x), model[1](model[0](x))
    (found,) = record_states(model, x, layers=["0", "1"])
    torch.testing.assert_close(found.states, torch.stack([first.flatten(1), second.flatten(1)], 1))
    (found,) = record_states(model, x, layers=["0", "1"], select=lambda y: y.mean((2, 3)))
    torch.testing.assert_close(found.states, torch.stack([first.mean((2, 3)), second.mean((2, 3))], 1))


def test_one_block_called_many_times():
    block, x = Block(), torch.randn(N, HIDDEN)
    tied = nn.Sequential(block, block, block)
    (found,) = record_states(tied, x, block)
    torch.testing.assert_close(found.states, torch.stack([block(x), block(block(x)), tied(x)], 1))


def test_plain_layers_keep_their_output_before_changes_in_place():
    model, x = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(inplace=True), nn.Linear(HIDDEN, 2)), inputs()
    (found,) = record_states(model, x, "0")
    torch.testing.assert_close(found.states, model[0](x))
    assert (found.states < 0).any()
    (found,) = record_states(model, x)  # no recurrent layer: the model itself
    torch.testing.assert_close(found.states, model(x))


def test_forms_of_data():
    model, x = Tagger(), inputs()
    expected = model.rnn(x)[0]
    loader = DataLoader(TensorDataset(x, torch.zeros(N)), batch_size=3)
    for data in (x, x.numpy(), x.double().numpy(), loader, [[x[:3]], [x[3:]]], [{"x": x}]):
        torch.testing.assert_close(collect(record_states(model, data, batch_size=2)).states, expected)
    batches = list(record_states(model, x, batch_size=3, lengths=LENGTHS))
    assert [len(batch.states) for batch in batches] == [3, 3, 1]
    assert collect(batches).lengths.tolist() == LENGTHS.tolist()
    (found,) = record_states(model.rnn, pack_sequence([x[0], x[1, :4]]))
    assert found.lengths.tolist() == [9, 4]
    torch.testing.assert_close(found.states[1, :4], expected[1, :4])


@pytest.mark.parametrize("options", [{}, {"batch_first": False}])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_an_array_with_time_first_is_cut_between_sequences_not_in_time(kind, options):
    layer, x = kind(WIDTH, HIDDEN), inputs(N).repeat(1, 8, 1).transpose(0, 1)  # (72, 7, 3)
    expected = layer(x)[0].transpose(0, 1)
    batches = list(record_states(layer, x, batch_size=3, lengths=[72, 5, 3, 72, 1, 2, 70], **options))
    assert [len(batch.states) for batch in batches] == [3, 3, 1]
    found = collect(batches)
    torch.testing.assert_close(found.states, expected)
    assert found.lengths.tolist() == [72, 5, 3, 72, 1, 2, 70]
    torch.testing.assert_close(collect(record_states(layer, x.numpy(), batch_size=4)).states, expected)
    (one,) = record_states(layer, x[:, 0], batch_size=5)  # a single sequence
    torch.testing.assert_close(one.states, expected[:1])


def test_an_encoder_with_time_first_is_cut_between_sequences():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 2, enable_nested_tensor=False)
    x = torch.randn(TIME, N, 4)
    expected = model.eval()(x).transpose(0, 1)
    torch.testing.assert_close(collect(record_states(model, x, "layers.1", batch_size=2)).states, expected)


def test_an_inner_layer_does_not_tell_how_the_input_of_the_model_lies():
    class Turns(nn.Module):
        """Takes the batch first, though its layer does not."""

        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(WIDTH, HIDDEN)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x.transpose(0, 1))[0]

    model, x = Turns(), inputs()
    torch.testing.assert_close(
        collect(record_states(model, x, batch_size=2)).states, model.rnn(x.transpose(0, 1))[0].transpose(0, 1)
    )
    same, x = Tagger(batch_first=False), inputs().transpose(0, 1)
    told = collect(record_states(same, x, batch_size=2, batch_first=False)).states
    torch.testing.assert_close(told, same.rnn(x)[0].transpose(0, 1))
    with pytest.raises(ValueError, match=r"axis 0 of shape \(9, 7, 3\) is time .* give .* batch_first=False"):
        list(record_states(same, x, batch_size=4))
    with pytest.raises(ValueError, match=r"axis 1 of shape \(7, 9, 3\) is time .* give batches of your own$"):
        list(record_states(model, x.transpose(0, 1), batch_size=4, batch_first=False))


def test_batches_of_different_lengths_are_padded():
    model, x = Tagger(), inputs()
    found = collect(record_states(model, [x[:4, :6], x[4:]]))
    assert found.states.shape == (N, TIME, HIDDEN) and found.lengths.tolist() == [6] * 4 + [9] * 3
    torch.testing.assert_close(found.states[:4, :6], model.rnn(x[:4, :6])[0])
    assert (found.states[:4, 6:] == 0).all()


def test_nothing_is_left_behind():
    model, x = Tagger(), inputs()
    model.drop.eval()
    flags = [module.training for module in model.modules()]
    recording = record_states(model, x, "rnn", batch_size=2)
    for _ in range(2):
        next(recording)  # between batches, too
        assert hooks_of(model) == 0 and [module.training for module in model.modules()] == flags
        assert torch.is_grad_enabled()
    recording.close()

    def fails(_: torch.Tensor) -> None:
        assert hooks_of(model) == 1 and not model.training and not torch.is_grad_enabled()
        raise RuntimeError("on purpose")

    for run in (
        lambda: record_states(model, x, output=fails),
        lambda: record_states(model, x, select=fails),
        lambda: record_states(model, x, call=lambda m, batch: fails(batch)),
    ):
        with pytest.raises(RuntimeError, match="on purpose"):
            list(run())
        assert hooks_of(model) == 0 and [module.training for module in model.modules()] == flags
        assert torch.is_grad_enabled() and torch.backends.mha.get_fastpath_enabled()


def test_five_lines_find_the_eigenvalues_of_a_linear_network():
    model = Tagger(nn.RNN, nonlinearity="relu", bias=False)
    true = [0.95, 0.8, 0.6, 0.4, 0.2]
    with torch.no_grad():  # positive weights, positive states: ReLU does nothing
        model.rnn.weight_hh_l0.copy_(torch.diag(torch.tensor(true)) + 0.3 * torch.rand(HIDDEN, HIDDEN).triu(1))
        model.rnn.weight_ih_l0.copy_(torch.rand(HIDDEN, WIDTH))
    x = torch.zeros(40, TIME, WIDTH).double()
    x[:, 0] = torch.rand(40, WIDTH)
    x[:, 1] = torch.rand(40, WIDTH)
    lengths = torch.randint(4, TIME + 1, (40,))
    loader = DataLoader(TensorDataset(x, lengths), batch_size=8)
    kann = KANN()
    for batch in record_states(model.double(), loader, "rnn", call=lambda m, b: m(*b)):
        kann.partial_fit(batch.states[:, 1:], batch.lengths - 1)  # after the last input
    np.testing.assert_allclose(kann.eigenvalues_.real, true, atol=1e-6)


def test_mistakes_are_named():
    model, x = Tagger(), inputs()
    two = nn.Sequential(nn.GRU(3, 3), nn.GRU(3, 3))
    unused = nn.ModuleDict({"used": nn.Linear(WIDTH, 2), "unused": nn.Linear(WIDTH, 2)})
    unused.forward = lambda x: unused["used"](x)
    for run, error, message in [
        (lambda: record_states(model, x, "rn"), UserError, "unknown layer 'rn'; did you mean 'rnn'"),
        (lambda: record_states(model.rnn, x, "foo"), UserError, "'foo'; this GRU is itself the only one"),
        (lambda: record_states(model, x, "foo"), UserError, "unknown layer 'foo'; choose one of drop, head, rnn$"),
        (lambda: record_states(model, x, 3), ValueError, "layer: expected a name or a module, got int"),
        (lambda: record_states(model, x, nn.Linear(2, 2)), ValueError, "this Linear is no part of the model"),
        (lambda: record_states(two, x), ValueError, "several recurrent layers, give one of 0, 1"),
        (lambda: record_states(unused, x, "unused"), ValueError, "'unused': the model did not call it"),
        (lambda: record_states(model, x, "head"), ValueError, r"'head': called 1 times .*\(7, 2\).* give select"),
        (lambda: record_states(model, x, "rnn", layers=["head"]), ValueError, "give one of them"),
        (lambda: record_states(model, x, layers=["head"]), ValueError, "two or more layers"),
        (lambda: record_states(model, x, layers="head"), ValueError, "two or more layers"),
        (lambda: record_states(model, x, layers=["head", "head"]), ValueError, "same layer twice"),
        (lambda: record_states(model, x, layers=["rnn", "head"]), ValueError, r"outputs of one shape, got rnn \(7, 9"),
        (lambda: record_states(model, x, state="c"), ValueError, "'c' needs an LSTM in one direction"),
        (lambda: record_states(model, x, state="z"), ValueError, "state: expected 'h' or 'c'"),
        (lambda: record_states(model, x, select=lambda y: y), ValueError, "got tuple; give select"),
        (lambda: record_states(model, x, lengths=[1, 2]), ValueError, "2 numbers for 7 sequences"),
        (lambda: record_states(model, x, lengths=[10] * N), ValueError, "7 whole numbers from 0 to 9"),
        (lambda: record_states(model, [x], lengths=[9] * N), ValueError, "expected a callable of a batch"),
        (lambda: record_states(model, x, lengths=len), ValueError, "expected numbers for an array"),
        (lambda: record_states(model, {"x": x}), ValueError, "data: expected an array or an iterable"),
        (lambda: record_states(model, 3), ValueError, "data: expected an array or an iterable"),
        (lambda: record_states(model, x, batch_size=0), ValueError, "batch_size: expected"),
    ]:
        with pytest.raises(error, match=message):
            list(run())
        assert hooks_of(model) == 0
    with pytest.raises(UserError):
        record_states(model, x, "rn")  # at once, not with the first batch
    with pytest.raises(ValueError, match="there are none"):
        collect([])

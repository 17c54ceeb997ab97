"""Recurrent networks that repeat what they have read after a long wait (the copy problem, [KANN] app. D).

A sequence is a few symbols, a delay of blanks, a cue, and blanks while the symbols are to be said in order.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

CELLS = ("gru", "orthogonal")
ACTIVATIONS = ("modrelu", "tanh")


@dataclasses.dataclass(frozen=True)
class CopyMemoryConfig:
    """Sizes and kind of network.

    Attributes
    ----------
    cell : {"orthogonal", "gru"}
        Plain network with an orthogonal recurrent matrix, or gated recurrent units.
    hidden : int
        Size of the state.
    symbols : int
        Of the alphabet. Number `symbols` is the blank, the next one the cue.
    activation : {"modrelu", "tanh"}
        Of the orthogonal network.
    """

    cell: Literal["orthogonal", "gru"] = "orthogonal"
    hidden: int = 128
    symbols: int = 8
    activation: Literal["modrelu", "tanh"] = "modrelu"

    @property
    def blank(self) -> int:
        """Number of the blank among inputs and answers."""
        return self.symbols

    @property
    def cue(self) -> int:
        """Number of the cue among inputs."""
        return self.symbols + 1


class OrthogonalRNN(nn.Module):
    """``h[t+1] = f(h[t] W + x[t] U + b)`` with an orthogonal `W`, the matrix exponential of a skew one.

    Parameters
    ----------
    inputs, hidden : int
    activation : {"modrelu", "tanh"}
        ``sign(z) max(|z| + c, 0)`` with a learnt `c` per unit (Arjovsky, Shah, Bengio, ICML 2016, eq. 8), or tanh.

    Notes
    -----
    At first `W` turns planes by angles spread evenly over the circle (Helfrich, Willmott, Ye, ICML 2018).
    modReLU with ``c = 0`` is the identity, and with ``c > 0`` it jumps where z changes its sign: such a network is
    linear in pieces and need not have fixed points.
    """

    def __init__(self, inputs: int, hidden: int, activation: str = "modrelu"):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {ACTIVATIONS}, got {activation!r}")
        self.hidden_size, self.activation = hidden, activation
        self.inputs = nn.Linear(inputs, hidden)
        self.recurrent = nn.Linear(hidden, hidden, bias=False)
        parametrizations.orthogonal(self.recurrent, orthogonal_map="matrix_exp")
        self.recurrent.weight = _rotations(hidden)
        self.offset = nn.Parameter(torch.zeros(hidden)) if activation == "modrelu" else None

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """States ``(n, t, hidden)`` of inputs ``(n, t, inputs)`` from `h` ``(n, hidden)``, and the last ones."""
        h = x.new_zeros(len(x), self.hidden_size) if h is None else h
        driven, states = self.inputs(x), []
        with parametrize.cached():  # the exponential is taken once, not at every step
            weight = self.recurrent.weight
            for step in driven.unbind(1):
                h = self._activate(torch.addmm(step, h, weight.T))
                states.append(h)
        return torch.stack(states, 1), h

    def step(self, h: Tensor, x: Tensor) -> Tensor:
        """One step: ``(n, hidden)`` and ``(n, inputs)`` to ``(n, hidden)``, in the dtype of `h`."""
        weight, into, bias = (part.to(h) for part in (self.recurrent.weight, self.inputs.weight, self.inputs.bias))
        return self._activate(h @ weight.T + x.to(h) @ into.T + bias)

    def _activate(self, z: Tensor) -> Tensor:
        return z.tanh() if self.offset is None else z.sign() * F.relu(z.abs() + self.offset.to(z))


class CopyMemoryNet(nn.Module):
    """One-hot symbols, a recurrent layer, and a linear read-out at every step."""

    def __init__(self, config: CopyMemoryConfig | None = None):
        super().__init__()
        self.config = config = config or CopyMemoryConfig()
        inputs = config.symbols + 2
        if config.cell not in CELLS:
            raise ValueError(f"cell: expected one of {CELLS}, got {config.cell!r}")
        if config.cell == "gru":
            self.recurrent = nn.GRU(inputs, config.hidden, batch_first=True)
        else:
            self.recurrent = OrthogonalRNN(inputs, config.hidden, config.activation)
        self.readout = nn.Linear(config.hidden, config.symbols + 1)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits ``(n, t, symbols + 1)`` of numbers ``(n, t)``; the last class is the blank."""
        return self.read(self.states(ids))

    def states(self, ids: Tensor) -> Tensor:
        """State after each step, ``(n, t, hidden)``."""
        return self.recurrent(self.embed(ids))[0]

    def recall(self, states: Tensor, length: int) -> Tensor:
        """What the network says after the cue if it comes in these states ``(n, hidden)``: logits ``(n, length, ...)``.

        From the true states at the end of the delay these are the last `length` of `forward`; from predicted ones they
        show what a model of the delay has kept.
        """
        ids = torch.full((len(states), length + 1), self.config.blank, device=states.device)
        ids[:, 0] = self.config.cue
        h = states.to(self.readout.weight.dtype)
        after = self.recurrent(self.embed(ids), h.unsqueeze(0) if self.config.cell == "gru" else h)[0]
        return self.read(after[:, 1:])

    def read(self, states: Tensor) -> Tensor:
        """Logits ``(..., symbols + 1)`` of states ``(..., hidden)``."""
        return self.readout(states.to(self.readout.weight.dtype))

    def embed(self, ids: Tensor) -> Tensor:
        """One-hot inputs ``(..., symbols + 2)``."""
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) <= self.config.cue:
            raise ValueError(f"ids: expected 0 to {self.config.cue}, got {int(ids.min())} to {int(ids.max())}")
        return F.one_hot(ids, self.config.symbols + 2).to(self.readout.weight.dtype)


def sequences(symbols: Tensor, delay: int, config: CopyMemoryConfig) -> tuple[Tensor, Tensor]:
    """Inputs and right answers, int64 ``(n, 2 s + delay + 1)`` each.

    Parameters
    ----------
    symbols : Tensor
        What is to be remembered, ``(n, s)``.
    delay : int
        Blanks between the last symbol and the cue. The answer is blank up to the cue and the symbols after it.
    """
    if symbols.ndim != 2 or 0 in symbols.shape or delay < 0:
        raise ValueError(f"symbols, delay: expected (n, s) and 0 or more, got {tuple(symbols.shape)}, {delay}")
    n, s = symbols.shape
    ids = symbols.new_full((n, 2 * s + delay + 1), config.blank)
    ids[:, :s], ids[:, s + delay] = symbols, config.cue
    answers = torch.full_like(ids, config.blank)
    answers[:, -s:] = symbols
    return ids, answers


def memoryless_loss(length: int, delay: int, symbols: int = 8) -> float:
    """Mean cross-entropy per step of guessing after the cue: ``s ln(symbols) / (2 s + delay + 1)``."""
    return length * math.log(symbols) / (2 * length + delay + 1)


def _rotations(hidden: int) -> Tensor:
    """An orthogonal matrix whose blocks turn by angles spread over the circle at random."""
    angles = torch.rand(hidden // 2) * 2 * math.pi
    turns = torch.stack([angles.cos(), angles.sin(), -angles.sin(), angles.cos()], -1).view(-1, 2, 2)
    return torch.block_diag(*turns, *[torch.ones(1, 1)] * (hidden % 2))

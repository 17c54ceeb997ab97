"""What words do to the modes of a network that reads ([KANN] sec. 4.1): along one text, and on average per word.

A mode has the amplitude ``a_t = h_t B V_j`` after word t. Left alone it would be multiplied by its eigenvalue, so
``a_t - lambda_j a_{t-1}`` is what the word itself added: its *jump*. For any direction `d` of states the same is
``(h_t - predict(h_{t-1})) d``, which for ``d = B V_j`` is that jump. It is linear in the states, so sums of the states
before and after each word of a vocabulary give the mean jumps of all modes and directions, in flat memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kpm.analysis.kann_analysis import mode_numbers
from kpm.solvers import checks

if TYPE_CHECKING:
    from kpm.analysis.kann import KANN


@dataclass(frozen=True)
class Trace:
    """Texts as seen by some modes or directions, all ``(*batch, time, m)``.

    Attributes
    ----------
    amplitude : complex128
        ``a_t = (h_t - mean) d``.
    added : complex128
        The jump ``a_t - lambda a_{t-1}``: what the word added to what the operator makes of the state before.
    change : float64
        ``|a_t| - |a_{t-1}|``, the plain difference of magnitudes.
    """

    amplitude: Tensor
    added: Tensor
    change: Tensor

    @property
    def magnitude(self) -> Tensor:
        """``|h_t B V_j|`` ([KANN] eq. 10), float64."""
        return self.amplitude.abs()

    def signed(self, phase: Tensor) -> Tensor:
        """Jumps along one axis of the complex plane, ``Re(exp(-i phase) added)``, float64; `phase` is ``(m,)``."""
        return turned(self.added, phase)


@dataclass(frozen=True)
class WordTally:
    """Sums of a quantity per word of a vocabulary; tallies add up, and so does ``sum`` of a list of them.

    Attributes
    ----------
    total : Tensor
        float64 or complex128 ``(vocabulary, *quantity)``.
    count : Tensor
        int64 ``(vocabulary,)``.
    """

    total: Tensor
    count: Tensor

    @property
    def mean(self) -> Tensor:
        """``total / count``; zero for words that were not seen."""
        seen = self.count.clamp_min(1)
        return self.total / seen.view(-1, *[1] * (self.total.ndim - 1))

    def __add__(self, other: WordTally) -> WordTally:
        return WordTally(self.total + other.total, self.count + other.count)

    def __radd__(self, other: Any) -> WordTally:
        """So that ``sum(tallies)``, which begins with 0, works."""
        return self if isinstance(other, int) and other == 0 else NotImplemented


@dataclass(frozen=True)
class PairEffects:
    """Sums over the second words of pairs: index 0 with the first word before it, 1 without. They add up.

    Attributes
    ----------
    count : Tensor
        int64 ``(pairs, 2)``.
    total, square : Tensor
        float64 ``(pairs, 2, m)``: sums of the values and of their squares.
    """

    count: Tensor
    total: Tensor
    square: Tensor

    @property
    def mean(self) -> Tensor:
        """``(pairs, 2, m)``; zero where nothing was counted."""
        return self.total / self.count.clamp_min(1).unsqueeze(-1)

    @property
    def error(self) -> Tensor:
        """Standard errors of the means, ``(pairs, 2, m)``; infinite for fewer than two."""
        n = self.count.unsqueeze(-1)
        variance = (self.square / n.clamp_min(1) - self.mean.square()).clamp_min(0) / (n - 1).clamp_min(1)
        return torch.where(n > 1, variance.sqrt(), torch.inf)

    @property
    def difference(self) -> tuple[Tensor, Tensor]:
        """Mean with less mean without the first word, and its standard error, ``(pairs, m)`` each."""
        return self.mean[:, 0] - self.mean[:, 1], self.error.square().sum(1).sqrt()

    def __add__(self, other: PairEffects) -> PairEffects:
        return PairEffects(self.count + other.count, self.total + other.total, self.square + other.square)

    def __radd__(self, other: Any) -> PairEffects:
        """So that ``sum(tallies)``, which begins with 0, works."""
        return self if isinstance(other, int) and other == 0 else NotImplemented


def trace(
    kann: KANN, states: Tensor, modes: Any = None, directions: Tensor | None = None, start: Tensor | None = None
) -> Trace:
    """Amplitudes, jumps and changes of magnitude of texts.

    Parameters
    ----------
    kann : KANN
        Fitted.
    states : Tensor
        ``(*batch, time, hidden)``: after each word.
    modes : sequence of int or tuple, optional
        As for `choose`; all by default.
    directions : Tensor, optional
        Columns ``(hidden, m)``, real or complex, instead of modes.
    start : Tensor, optional
        State before the first word, ``(hidden,)`` or ``(*batch, hidden)``; zero by default.

    Raises
    ------
    ValueError
        For a shape that does not fit, numbers that are not finite, or modes that do not exist.
    """
    if directions is None:
        columns, factor = _modes(kann, choose(kann, modes)[0])
        after, before = passage(kann, states, columns, start)
        added = after - factor.to(after.device) * before
    else:
        after, before = passage(kann, states, directions, start)
        # What the operator makes of the state before is measured in a direction as that state is in another one.
        operator = torch.as_tensor(kann.basis_) @ torch.as_tensor(kann.operator_) @ torch.as_tensor(kann.dual_)
        columns = torch.as_tensor(directions).to(torch.complex128)
        added = after - passage(kann, states, operator.to(columns) @ columns, start)[1]
    return Trace(after, added, after.abs() - before.abs())


def passage(kann: KANN, states: Tensor, columns: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Amplitudes after and before each word, ``(h - mean) @ columns``: complex128 ``(*batch, time, m)`` each.

    `columns` are ``(hidden, m)``; other parameters are those of `trace`.
    """
    h = _states(kann, states)
    columns = torch.as_tensor(columns).to(h.device, torch.complex128)
    if columns.ndim != 2 or len(columns) != h.shape[-1]:
        raise ValueError(f"directions: expected ({h.shape[-1]}, m), got {tuple(columns.shape)}")
    shift = project(torch.as_tensor(kann.mean_).to(h), columns)
    after = project(h, columns) - shift
    first = -shift if start is None else project(start.to(h), columns) - shift
    first = first.expand(*after.shape[:-2], after.shape[-1]).unsqueeze(-2)
    return after, torch.cat([first, after[..., :-1, :]], -2)


def choose(kann: KANN, modes: Any = None) -> tuple[list[int], Tensor]:
    """One mode number for each entry of `modes`, and which of them are complex, bool ``(m,)``.

    An entry is a mode number or a conjugate pair; a pair (an entry of ``pairs_``) is told by the member of positive
    imaginary part. All groups of ``pairs_`` by default.
    """
    values = torch.as_tensor(kann.eigenvalues_)
    entries = kann.pairs_ if modes is None else ([modes] if isinstance(modes, int) else modes)
    chosen = []
    for entry in entries:
        numbers = mode_numbers(entry, len(values))
        if len(numbers) > 1 and tuple(sorted(numbers)) not in {tuple(sorted(pair)) for pair in kann.pairs_}:
            raise ValueError(f"modes: {entry!r} is no conjugate pair")
        chosen.append(max(numbers, key=lambda j: float(values[j].imag)))
    if not chosen:
        raise ValueError("modes: there are none")
    return chosen, values[chosen].imag != 0


def tally_words(values: Tensor, ids: Tensor, lengths: Tensor, vocabulary: int, first: bool = False) -> WordTally:
    """Sum a quantity over all occurrences of each word.

    Parameters
    ----------
    values : Tensor
        Real or complex ``(n, time, *quantity)``, for example ``trace(...).change``.
    ids : Tensor
        Word numbers ``(n, time)``.
    lengths : Tensor
        Words of each text ``(n,)``; what stands behind them does not count.
    vocabulary : int
    first : bool
        Whether the first word of a text counts. The state before it is none the network got to by reading.
    """
    index, (rows,) = _occurrences(ids, lengths, vocabulary, first, values)
    rows = rows.to(torch.complex128 if rows.is_complex() else torch.float64)
    return WordTally(_sums(rows, index, vocabulary), torch.bincount(index, minlength=vocabulary))


def tally_states(states: Tensor, ids: Tensor, lengths: Tensor, vocabulary: int, first: bool = False) -> WordTally:
    """Sums of the states before and after each word, ``(vocabulary, 2, hidden)``; parameters as for `tally_words`.

    No analysis is needed yet: `word_innovations` takes any. The state before the first word of a text is zero.
    """
    if states.ndim != 3:
        raise ValueError(f"states: expected (n, time, hidden), got {tuple(states.shape)}")
    before = torch.nn.functional.pad(states[:, :-1], (0, 0, 1, 0))
    index, parts = _occurrences(ids, lengths, vocabulary, first, before, states)
    total = torch.stack([_sums(part.double(), index, vocabulary) for part in parts], 1)
    return WordTally(total, torch.bincount(index, minlength=vocabulary))


def word_innovations(tally: WordTally, kann: KANN) -> Tensor:
    """Mean of what the operator does not foresee of the state after each word, ``(vocabulary, hidden)``, float64.

    ``h_t - predict(h_{t-1})``, averaged over the occurrences of a word; zero for words that were not seen.
    """
    before, after = tally.mean.unbind(1)
    return torch.where((tally.count > 0).unsqueeze(-1), after - torch.as_tensor(kann.predict(before)).to(after), 0)


def word_jumps(tally: WordTally, kann: KANN, modes: Any = None) -> Tensor:
    """Mean jump of each mode at each word, complex128 ``(vocabulary, m)``; `modes` as for `choose`."""
    columns, _ = _modes(kann, choose(kann, modes)[0])
    return project(word_innovations(tally, kann), columns.to(tally.total.device))


def readout_effect(tally: WordTally, weight: Tensor) -> Tensor:
    """Mean change of a linear read-out's logit at each word, ``(vocabulary,)``; `weight` is ``(hidden,)``."""
    before, after = tally.mean.unbind(1)
    return (after - before) @ weight.detach().to(after).reshape(-1)


def pair_effects(
    values: Tensor,
    ids: Tensor,
    lengths: Tensor,
    pairs: Sequence[tuple[int | Sequence[int], int | Sequence[int]]],
    within: int = 1,
) -> PairEffects:
    """Values at a word with and without another one before it: "not good" and "good" elsewhere.

    Parameters
    ----------
    values : Tensor
        Real ``(n, time, m)``, for example ``trace(...).signed(phase)`` or changes of the logit.
    ids, lengths : Tensor
        As for `tally_words`. The first word of a text never counts.
    pairs : sequence of (first, second)
        Word numbers, or sequences of them that stand for each other (``{not, n't}``, ``{good, great}``).
    within : int
        The first word is among so many words before the second.
    """
    checks.count(within, "within", 1, 10**6)
    if values.ndim != 3 or values.is_complex():
        raise ValueError(f"values: expected real (n, time, m), got {values.dtype} of shape {tuple(values.shape)}")
    valid = _valid(ids, lengths, False, values)
    counts, totals, squares = [], [], []
    for first, second in pairs:
        there, here = (torch.isin(ids, torch.as_tensor(words, device=ids.device)) for words in (first, second))
        near = torch.nn.functional.pad(there, (within, 0))[:, :-1].unfold(1, within, 1).any(-1)
        for group in (here & near & valid, here & ~near & valid):
            rows = values[group].double()
            counts.append(len(rows))
            totals.append(rows.sum(0))
            squares.append(rows.square().sum(0))
    if not counts:
        raise ValueError("pairs: there are none")
    shape = (-1, 2, values.shape[-1])
    count = torch.tensor(counts, device=values.device).view(-1, 2)
    return PairEffects(count, torch.stack(totals).view(shape), torch.stack(squares).view(shape))


def project(rows: Tensor, columns: Tensor) -> Tensor:
    """Real rows ``(*batch, hidden)`` on complex columns ``(hidden, m)``: complex128 ``(*batch, m)``."""
    return torch.complex(rows @ columns.real, rows @ columns.imag)


def turned(values: Tensor, phase: Tensor) -> Tensor:
    """``Re(exp(-i phase) values)`` of ``(*batch, m)`` and ``(m,)``."""
    phase = phase.to(values.device, torch.float64)
    return values.real * phase.cos() + values.imag * phase.sin()


def _states(kann: KANN, states: Tensor) -> Tensor:
    states = torch.as_tensor(states)
    if states.ndim < 2 or states.is_complex() or states.shape[-1] != kann.n_features_in_:
        have = f"{states.dtype} of shape {tuple(states.shape)}"
        raise ValueError(f"states: expected real (*batch, time, {kann.n_features_in_}), got {have}")
    states = states.double()
    checks.finite(states, "states")
    return states


def _modes(kann: KANN, chosen: list[int]) -> tuple[Tensor, Tensor]:
    """Eigenvectors ``(hidden, m)`` and eigenvalues ``(m,)``."""
    return torch.as_tensor(kann.eigenvectors_)[:, chosen], torch.as_tensor(kann.eigenvalues_)[chosen]


def _valid(ids: Tensor, lengths: Tensor, first: bool, *values: Tensor) -> Tensor:
    """Which words count, ``(n, time)``, of arguments that fit one another."""
    for part in values:
        if ids.ndim != 2 or part.shape[:2] != ids.shape or lengths.shape != ids.shape[:1]:
            shapes = ", ".join(str(tuple(x.shape)) for x in (part, ids, lengths))
            raise ValueError(f"values, ids, lengths: expected (n, time, ...), (n, time), (n,), got {shapes}")
    bad = (lengths < 0) | (lengths > ids.shape[1])
    if bad.any():
        raise ValueError(f"lengths{checks.where(bad)}: not from 0 to {ids.shape[1]}")
    place = torch.arange(ids.shape[1], device=ids.device)
    return (place < lengths.to(ids.device).unsqueeze(1)) & (place >= (0 if first else 1))


def _occurrences(
    ids: Tensor, lengths: Tensor, vocabulary: int, first: bool, *values: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Word numbers of all words that count, and their rows of some quantities."""
    valid = _valid(ids, lengths, first, *values)
    index = ids[valid]
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < vocabulary:
        raise ValueError(f"ids: expected 0 to {vocabulary - 1}, got {int(index.min())} to {int(index.max())}")
    rows = [part[valid.to(part.device)] for part in values]
    for part in rows:
        checks.finite(torch.view_as_real(part) if part.is_complex() else part, "values")
    return index.to(rows[0].device), rows


def _sums(rows: Tensor, index: Tensor, vocabulary: int) -> Tensor:
    return rows.new_zeros(vocabulary, *rows.shape[1:]).index_add_(0, index, rows)

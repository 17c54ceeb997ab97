"""Figures of a Koopman analysis of hidden states, as sums that add up over batches of any size.

Each function looks at one batch and gives a `Tally`; ``sum(tallies).mean`` is the figure of all batches together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from kpm.solvers import blocks, checks

if TYPE_CHECKING:
    from kpm.analysis.kann import KANN

_ENTRIES = 2**22  # numbers turned to float64 at a time: 32 MB


@dataclass(frozen=True)
class Tally:
    """A sum and how many things were summed; tallies add up, and so does ``sum`` of a list of them."""

    total: Any
    count: int

    @property
    def mean(self) -> Any:
        """``total / count``; `ValueError` if nothing was counted."""
        if self.count == 0:
            raise ValueError("Tally: nothing was counted, so there is no mean")
        return self.total / self.count

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.total + other.total, self.count + other.count)

    def __radd__(self, other: Any) -> Tally:
        """So that ``sum(tallies)``, which begins with 0, works."""
        return self if isinstance(other, int) and other == 0 else NotImplemented


@dataclass(frozen=True)
class Comparison:
    """Two analyses, eigenvalue by eigenvalue.

    Attributes
    ----------
    index : (n,)
        int64: mode j of the first has this partner in the second.
    distance : (n,)
        How far apart the two eigenvalues are.
    alignment : (n,)
        Cosine between the two eigenvectors in the space of hidden states, 0 to 1; 1 where both measure the same.
        Of no meaning where eigenvalues coincide.
    """

    index: Any
    distance: Any
    alignment: Any


def relative_errors(kann: KANN, states: Any, steps: int = 1, lengths: Any = None, mask: Any = None) -> Tally:
    """Sum of ``|prediction - h|^2 / |h|^2`` over frames that have a true state `steps` frames earlier ([KANN] eq. 12).

    Parameters
    ----------
    kann : KANN
        Fitted.
    states : (*batch, time, hidden)
        Numpy or torch, memory maps too; turned to float64 block by block.
    steps : int
        How far each prediction reaches.
    lengths, mask
        As for `KANN.fit`. A frame counts if it and the `steps` frames before it do.

    Notes
    -----
    Each prediction starts from the true state; one step at a time is the published reading, as far as it is known.
    Frames whose true state is exactly zero have no relative error and are left out.

    Raises
    ------
    ValueError
        For a shape that does not fit, NaN, or fewer than ``steps + 1`` frames.
    """
    total, count = 0.0, 0
    for x, valid in read(states, lengths, mask, kann.n_features_in_, least=steps + 1):
        ready = valid.unfold(1, steps + 1, 1).all(-1)
        truth = x[:, steps:][ready]
        error = (kann.predict(x[:, :-steps][ready], steps) - truth).square().sum(-1)
        size = truth.square().sum(-1)
        total += float((error / size)[size > 0].sum())
        count += int((size > 0).sum())
    return Tally(total, count)


def agreements(
    kann: KANN,
    readout: Callable[[Any], Any],
    states: Any,
    *,
    steps: int | None = None,
    modes: Any = None,
    pair: Literal["real", "abs"] | None = None,
    at: Literal["last", "all", "sequence"] = "last",
    threshold: float = 0.0,
    lengths: Any = None,
    mask: Any = None,
) -> Tally:
    """How many decisions of a read-out are the same on true states and on states of the analysis ([KANN] sec. 4.3).

    Parameters
    ----------
    kann : KANN
        Fitted.
    readout : callable
        From states, in the kind and dtype of `states`, to one row each: integer or bool classes; or logits, of which
        the largest of the last axis counts, or `threshold` where that axis has length 1 (or rows are scalars).
    states : (*batch, time, hidden)
        One batch.
    steps : int, optional
        The read-out sees states predicted so many frames ahead; 1 by default.
    modes, pair : optional
        Instead of `steps`: the read-out sees states reconstructed from these modes, as `KANN.reconstruct` does.
    at : {"last", "all", "sequence"}
        What the read-out is given: the last frame of each sequence ``(n, hidden)``, all frames of all sequences
        ``(frames, hidden)``, or whole sequences ``(n, time, hidden)`` (zeros in frames that do not count; the first
        `steps` frames are the true ones).
    threshold : float
        Of a single logit; give 0.5 if the read-out gives probabilities.
    lengths, mask
        As for `KANN.fit`. Frames, and for ``"last"`` sequences, with no prediction are left out.

    Raises
    ------
    ValueError
        For a shape that does not fit, NaN (of the read-out, too), or `steps` and `modes` together.
    """
    if at not in ("last", "all", "sequence"):
        raise ValueError(f"at: expected 'last', 'all' or 'sequence', got {at!r}")
    if modes is not None and steps is not None:
        raise ValueError("steps, modes: give one of them")
    lag = 0 if modes is not None else checks.count(1 if steps is None else steps, "steps", 1, 10**6)
    x, valid = next(read(states, lengths, mask, kann.n_features_in_, lag + 1, entries=None))

    def approximate(h: Tensor) -> Tensor:
        return kann.predict(h, lag) if modes is None else kann.reconstruct(h, modes, pair)

    ready = valid.unfold(1, lag + 1, 1).all(-1)
    early = x[:, : x.shape[1] - lag]
    if at == "all":
        truth, ours = x[:, lag:][ready], approximate(early[ready])
    elif at == "last":
        final = (valid * torch.arange(x.shape[1], device=x.device)).amax(1)
        row = (ready.gather(1, (final - lag).clamp_min(0)[:, None])[:, 0] & (final >= lag)).nonzero()[:, 0]
        truth, ours = x[row, final[row]], approximate(early[row, final[row] - lag])
    else:
        truth, ours = x, x.clone()
        ours[:, lag:][ready] = approximate(early[ready])
    if not len(truth):
        return Tally(0, 0)
    a, b = (_decide(readout, h, states, threshold) for h in (truth, ours))
    return Tally(int((a == b).sum()), a.numel())


def mean_magnitudes(kann: KANN, states: Any, lengths: Any = None, mask: Any = None) -> Tally:
    """Sum over sequences of ``sum_t |h_t B V|``, one number per mode ``(m,)``: how dominant each mode is in data."""
    total, count = 0.0, 0
    for x, valid in read(states, lengths, mask, kann.n_features_in_):
        total = total + torch.where(valid.unsqueeze(-1), kann.amplitudes(x).abs(), 0).sum((0, 1)).cpu()
        count += len(x)
    return Tally(total, count)


def read(
    states: Any, lengths: Any, mask: Any, hidden: int, least: int = 1, entries: int | None = _ENTRIES
) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of sequences ``(b, time, hidden)`` in float64, zero where masked, and which frames count, ``(b, time)``.

    `least` is the fewest frames a batch may have; `entries` how many numbers a block has about, None for all in one.
    """
    states = as_array(states)
    shape = tuple(states.shape)
    if len(shape) < 2 or 0 in shape or shape[-1] != hidden or shape[-2] < least:
        raise ValueError(f"states: expected (*batch, time >= {least}, {hidden}) without empty axes, got shape {shape}")
    pair, end = blocks.roles(shape, mask, lengths, None, False)
    valid, states = pair | end, states.reshape(-1, *shape[-2:])
    many = len(states) if entries is None else max(1, entries // (shape[-2] * hidden))
    for b in range(0, len(states), many):
        x = states[b : b + many]
        x = (x if isinstance(x, Tensor) else torch.from_numpy(np.array(x))).double()
        seen = valid[b : b + many].to(x.device)
        x = torch.where(seen.unsqueeze(-1), x, 0)
        checks.finite(x, "states")
        yield x, seen


def as_array(states: Any, name: str = "states") -> Any:
    """A tensor, or a numpy array (memory maps too), of real numbers."""
    if not isinstance(states, Tensor):
        try:
            states = np.asanyarray(states)
        except ValueError as error:
            raise ValueError(f"{name}: expected one array; pad sequences of other lengths and give lengths") from error
    if states.is_complex() if isinstance(states, Tensor) else states.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected real numbers, got {states.dtype} of shape {tuple(states.shape)}")
    return states


@torch.no_grad()
def _decide(readout: Callable[[Any], Any], h: Tensor, like: Any, threshold: float) -> Tensor:
    """Decisions on states, which the read-out gets as `like` is."""
    if isinstance(like, Tensor):
        given = h.to(like.dtype) if like.is_floating_point() else h
    else:
        dtype = np.asarray(like).dtype
        given = h.numpy().astype(dtype) if dtype.kind == "f" else h.numpy()
    answer = torch.as_tensor(readout(given))
    if answer.ndim < 1 or len(answer) != len(h):
        raise ValueError(f"readout: expected {len(h)} rows for states {tuple(h.shape)}, got {tuple(answer.shape)}")
    if not answer.is_floating_point():
        return answer
    checks.finite(answer, "readout")
    if answer.ndim > 1 and answer.shape[-1] > 1:
        return answer.argmax(-1)
    return answer > threshold

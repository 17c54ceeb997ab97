"""Second moments of states that many workers read: each reads its parts, and what they found is added up.

For the Koopman analysis of a network on a cluster: only ``dim x dim`` matrices travel, whatever the parts hold. ::

    moments = spread_moments(read, files, scheduler="tcp://HOST:8786")
    kann = KANN().fit_moments(moments)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar

from kpm.solvers.streaming import Moments
from kpm.workbook.fan_out import fan_out

Part = TypeVar("Part")
Batches = Iterable[tuple[Any, Any]]


def spread_moments(
    read: Callable[[Part], Batches],
    parts: Iterable[Part],
    method: Literal["gram", "qr"] = "gram",
    workers: int = 1,
    scheduler: str = "",
) -> Moments:
    """Moments of all parts, as if one process had read them all.

    Parameters
    ----------
    read : callable
        A function of a module: the batches of a part, pairs of states ``(*batch, time, dim)`` and lengths ``(*batch,)``
        or None. No pair of frames crosses the border of a sequence, nor that of a part.
    parts : iterable
        What `read` is given: names of files, ranges of sequences. A few for each worker.
    method
        How moments are summed, see `Moments`.
    workers, scheduler
        See `fan_out`. A part whose worker dies is read again by another one, and counts once.

    Notes
    -----
    Parts are added in their order, so the result does not depend on the number of workers.

    Raises
    ------
    ValueError
        What `Moments.partial_fit` says of a batch; states of parts that differ in size.
    """
    parts = list(parts)
    total, waiting, upto = Moments(method), {}, 0
    for number, found in fan_out(functools.partial(_read, read, method), enumerate(parts), workers, scheduler):
        waiting[number] = found
        while upto in waiting:
            total, upto = total.merge(waiting.pop(upto)), upto + 1
    return total


def _read(read: Callable[[Part], Batches], method: Literal["gram", "qr"], task: tuple[int, Part]) -> Any:
    number, part = task
    moments = Moments(method)
    for states, lengths in read(part):
        moments.partial_fit(states, lengths=lengths)
    return number, moments

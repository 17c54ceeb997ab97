"""Factorial swaps on demand: keep a set of components, swap all else; each set is measured once.

`D_mf` is a mean over the factors of how well each one's own set does, whatever the other sets are. So a search through
partitions needs a new measurement only for sets it has not met, and two partitions that differ in one component differ
in two sets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from kpm.analysis.greedy_exploration import Exploration, assign, explore
from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError, pick
from kpm.metrics.disentanglement import d_mf
from kpm.metrics.swaps import Keep, SwapConfig, check_judge, measure
from kpm.models.judge import Judge
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.models.parts import Parts, take_apart

Components = tuple[int, ...]


class FactorialSwaps:
    """Accuracies of sets of components, measured when asked for and remembered.

    Parameters
    ----------
    measured : callable
        Maps `Keep`s to accuracies ``(keeps, factors, repeats)``, with the same partners at every call.
    classes : dict of str to int
        Number of classes of each factor, in the order of the accuracies.
    explored : sequence of str
        The factors components are sought for.
    components : int
        Number of components there are.

    Attributes
    ----------
    evaluations : int
        Sets measured so far.
    """

    def __init__(
        self,
        measured: Callable[[list[Keep]], np.ndarray],
        classes: Mapping[str, int],
        explored: Sequence[str],
        components: int,
    ) -> None:
        self.factors, self.explored, self.components = tuple(classes), tuple(explored), components
        if not self.explored:
            raise UserError("there is no factor to explore")
        self._measured, self.classes = measured, dict(classes)
        self._known: dict[Keep, np.ndarray] = {}

    @classmethod
    def of(
        cls,
        model: KoopmanAutoencoder,
        judge: Judge,
        data: SequenceDataset,
        config: SwapConfig | None = None,
        parts: Parts | None = None,
        role: Literal["static", "dynamic"] = "static",
        progress: bool = False,
    ) -> FactorialSwaps:
        """Swaps between the films of `data`, as `kpm.metrics.swaps.measure` does them.

        Parameters
        ----------
        config : SwapConfig, optional
            A search looks at many sets: take fewer repeats or films than for the scores that are reported, and another
            seed, as what is found fits the draws it was found with.
        parts : Parts, optional
            What `take_apart` gives for `model` and `data`.
        role : {"static", "dynamic"}
            Which part's components are kept or swapped, and which factors are explored; the other part is always
            swapped.

        Raises
        ------
        UserError
            As `measure` does, and if `data` has no factor of that role.
        """
        pick("role", role, ("static", "dynamic"))
        check_judge(judge, data)  # before anything that takes time
        parts = take_apart(model, data) if parts is None else parts
        if role == "dynamic":
            data, parts = exchanged(data, parts)
        data = data.to(next(model.parameters()).device)
        classes = {f: data.factor_sizes[f] for f in (*data.static, *data.dynamic)}

        def measured(keeps: list[Keep]) -> np.ndarray:
            return measure(model, judge, data, keeps, config, parts, progress).accuracy

        return cls(measured, classes, data.static, parts.components)

    @property
    def evaluations(self) -> int:
        return len(self._known)

    def accuracy(self, sets: Iterable[Components]) -> np.ndarray:
        """Accuracies ``(sets, factors, repeats)`` with each of `sets` kept and all else swapped."""
        keeps = [Keep(tuple(sorted(s)), False) for s in sets]
        new = [k for k in dict.fromkeys(keeps) if k not in self._known]
        if new:
            self._known.update(zip(new, self._measured(new), strict=True))
        return np.stack([self._known[k] for k in keeps])

    def scores(self, sets: Iterable[Components]) -> np.ndarray:
        """How well each set does as each explored factor's own, ``(sets, explored)``.

        One minus the mean distance of the accuracies from 1 for that factor and chance for all others: a row of `D_mf`,
        which is the mean of these over the factors ([SSM-SKD] eq. 7).
        """
        pooled = dict(zip(self.factors, self.accuracy(sets).mean(-1).T))
        others = {f: [g for g in self.factors if g != f] for f in self.explored}
        return np.stack([d_mf({f: pooled}, self.classes, (f,), others[f]) for f in self.explored], 1)

    def d_mf(self, owners: np.ndarray) -> np.ndarray:
        """`D_mf` ``(n,)`` of partitions ``(n, components)``: the position of each one's factor, or -1 for none."""
        sets = [self.sets(o) for o in owners]
        place = {s: i for i, s in enumerate(dict.fromkeys(s for row in sets for s in row))}
        scores = self.scores(place)
        return np.array([np.mean([scores[place[s], f] for f, s in enumerate(row)]) for row in sets])

    def sets(self, owners: Sequence[int]) -> list[Components]:
        """The components of each explored factor."""
        return [tuple(c for c, o in enumerate(owners) if o == f) for f in range(len(self.explored))]

    def owners(self, partition: Mapping[str, Iterable[int]]) -> np.ndarray:
        """The position of each component's factor, ``(components,)``, -1 for none.

        Raises
        ------
        ValueError
            For a factor that is not explored, a component that does not exist or is given twice.
        """
        owners = np.full(self.components, -1)
        for f, chosen in partition.items():
            if f not in self.explored:
                raise ValueError(f"partition: {f!r} is no explored factor, only {', '.join(self.explored)}")
            for c in chosen:
                if not 0 <= c < self.components:
                    raise ValueError(f"partition[{f!r}]: component {c} of {self.components}")
                if owners[c] != -1:
                    raise ValueError(f"partition[{f!r}]: component {c} is given twice")
                owners[c] = self.explored.index(f)
        return owners


def greedy(swaps: FactorialSwaps) -> Exploration:
    """What `kpm.analysis.greedy_exploration.explore` finds, from the swaps at hand."""
    scores = swaps.accuracy([(), *((c,) for c in range(swaps.components))])
    own = scores[:, [swaps.factors.index(f) for f in swaps.explored]]
    return assign(swaps.explored, own[0], own[1:])


def exchanged(data: SequenceDataset, parts: Parts) -> tuple[SequenceDataset, Parts]:
    """Films and their parts with static and dynamic in each other's place: what explores one then explores the other.

    The components are then the K channels of the dynamic part, for SKD too, as `Parts` does not hold its modes.

    Raises
    ------
    UserError
        If `data` has no dynamic factor.
    """
    if not data.dynamic:
        raise UserError(f"{data.name!r} has no dynamic factor to explore")
    parts = Parts(static=parts.dynamic, dynamic=parts.static, eigenvalues=parts.eigenvalues[..., :0])
    return dataclasses.replace(data, static=data.dynamic, dynamic=data.static), parts


def explore_dynamic(
    model: KoopmanAutoencoder,
    judge: Judge,
    data: SequenceDataset,
    config: SwapConfig | None = None,
    parts: Parts | None = None,
    progress: bool = False,
) -> Exploration:
    """Assign each channel of the dynamic part to the dynamic factor that gains most from keeping it.

    A single dynamic channel is kept; all others and the static part are swapped. [SSM-SKD] sec. 8.1 leaves this open.

    Raises
    ------
    UserError
        As `kpm.metrics.swaps.measure` does, and if `data` has no dynamic factor.
    """
    data, parts = exchanged(data, take_apart(model, data) if parts is None else parts)
    return explore(model, judge, data, config, parts=parts, progress=progress)

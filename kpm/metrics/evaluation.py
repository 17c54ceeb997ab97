"""A disentangling autoencoder judged: static and dynamic swaps, exploration, factorial swaps, D_sd and D_mf."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import torch

from kpm.analysis.greedy_exploration import Exploration, explore
from kpm.datasets.base import SequenceDataset
from kpm.metrics.disentanglement import d_mf, d_sd, mean_se
from kpm.metrics.swaps import DYNAMIC_SWAP, NOTHING, STATIC_SWAP, Keep, SwapConfig, SwapScores, measure
from kpm.models.channel_basis import ChannelBasis
from kpm.models.inference import for_inference
from kpm.models.judge import Judge
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.models.parts import Parts, take_apart
from kpm.models.resplit import Resplit

_AS_IT_IS = "reconstruction"  # nothing swapped: what judge and decoder do by themselves


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes
    ----------
    static, dynamic : tuple of str
        Factors.
    classes : dict of str to int
    rows : dict of str to dict of str to float
        Accuracy of each factor after each swap: rows ``"static swap"``, ``"dynamic swap"``, ``"retain nothing"``,
        ``"retain FACTOR"``, and ``"reconstruction"``, where nothing is swapped.
    rows_se : same
        Standard errors over repeats. Of the reconstruction 0, unless each repeat has films of its own.
    frames : same
        Of the static factors after the static and the dynamic swap, and of the reconstruction: accuracy of the judge of
        single frames.
    consistency : same
        In the same rows, the share of a film's frames on which that judge agrees with itself. It says how much a factor
        flickers and nothing of whether it is right.
    d_sd, d_sd_se, d_mf, d_mf_se : float
        [SSM-SKD] eqs. 6 and 7, from the accuracies of all repeats together, and the standard error of a repeat's.
    partition : dict of str to tuple of int
        Static components of each factor.
    explored_on : str
        Split on which they were found.
    exploration : Exploration, optional
        How, if they were not given.
    films, repeats : int
    wall_s : float
    """

    static: tuple[str, ...]
    dynamic: tuple[str, ...]
    classes: dict[str, int]
    rows: dict[str, dict[str, float]]
    rows_se: dict[str, dict[str, float]]
    frames: dict[str, dict[str, float]]
    consistency: dict[str, dict[str, float]]
    d_sd: float
    d_sd_se: float
    d_mf: float
    d_mf_se: float
    partition: dict[str, tuple[int, ...]]
    explored_on: str
    exploration: Exploration | None
    films: int
    repeats: int
    wall_s: float


def targets(classes: dict[str, int], static: tuple[str, ...], dynamic: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """What the accuracies of `Evaluation.rows` should be: 1 for what a swap keeps, chance for what it changes."""
    kept = {"static swap": dynamic, "dynamic swap": static, "retain nothing": ()}
    kept |= {f"retain {f}": (f,) for f in static} | {_AS_IT_IS: tuple(classes)}
    return {row: {f: 1.0 if f in keeps else 1 / c for f, c in classes.items()} for row, keeps in kept.items()}


def evaluate(
    model: KoopmanAutoencoder,
    judge: Judge,
    data: SequenceDataset,
    explore_on: SequenceDataset | None = None,
    config: SwapConfig | None = None,
    partition: dict[str, tuple[int, ...]] | None = None,
    exploration_repeats: int | None = None,
    dtype: torch.dtype = torch.float32,
    components: str = "auto",
    basis: ChannelBasis | None = None,
    progress: bool = False,
    resplit: Resplit | None = None,
) -> Evaluation:
    """Measure everything on `data`.

    Parameters
    ----------
    explore_on : SequenceDataset, optional
        Films the partition of static components is found on; `data` itself by default, as published. With one operator
        for all films the components are those of the films at hand, so they are found on `data` in any case.
    config : SwapConfig, optional
    partition : dict, optional
        Components of each factor, if they are known.
    exploration_repeats : int, optional
        Passes of the exploration; as many as of the evaluation by default.
    dtype : torch.dtype
        Of the decoder's and the judge's convolutions.
    components : {"auto", "modes", "channels"}
        What the static components are, see `kpm.models.parts.take_apart`.
    basis : ChannelBasis, optional
        Axes whose coordinates the static components are, instead of the channels themselves.
    resplit : Resplit, optional
        Splits static and dynamic parts again, by kinds of motion.

    Raises
    ------
    UserError
        As `kpm.metrics.swaps.measure` does.
    """
    config, began = config or SwapConfig(), time.monotonic()

    def components_of(films: SequenceDataset) -> Parts:
        parts = take_apart(model, films, components)
        parts = parts if resplit is None else resplit.apply(parts)
        return parts if basis is None else basis.apply(parts)

    parts = components_of(data)
    fast, fast_judge = for_inference(model, dtype), for_inference(judge, dtype)
    found, explored_on = None, "given"
    if partition is None:
        where, its_parts = data, parts
        if explore_on is not None and (parts.modes is None or basis is not None):
            where, its_parts = explore_on, components_of(explore_on)
        # Draws of its own: on the same films the partition must not be judged by the draws that chose it.
        repeats = config.repeats if exploration_repeats is None else exploration_repeats
        asked = dataclasses.replace(config, repeats=repeats, seed=config.seed + 1)
        found = explore(fast, fast_judge, where, asked, parts=its_parts, progress=progress)
        partition, explored_on = found.partition, where.split
    _check_partition(partition, data.static)
    keeps = {"static swap": STATIC_SWAP, "dynamic swap": DYNAMIC_SWAP, "retain nothing": NOTHING}
    keeps |= {f"retain {f}": Keep(tuple(partition[f]), False) for f in data.static} | {_AS_IT_IS: Keep(None, True)}
    scores = measure(fast, fast_judge, data, list(keeps.values()), config, parts, progress)
    names = list(keeps)
    return _summary(data, names, scores, partition, explored_on, found, config, time.monotonic() - began)


def _summary(
    data: SequenceDataset,
    names: list[str],
    scores: SwapScores,
    partition: dict[str, tuple[int, ...]],
    explored_on: str,
    found: Exploration | None,
    config: SwapConfig,
    wall_s: float,
) -> Evaluation:
    classes = {f: data.factor_sizes[f] for f in scores.factors}

    def rows(values: np.ndarray) -> dict[str, dict]:
        return {name: dict(zip(scores.factors, row)) for name, row in zip(names, values)}

    pooled, spread = scores.accuracy.mean(-1), scores.accuracy.std(-1, ddof=1) / config.repeats**0.5
    kinds = dict(classes=classes, static=data.static, dynamic=data.dynamic)

    def still(values: np.ndarray) -> dict[str, dict[str, float]]:
        table = rows(values.mean(-1))
        return {r: {f: float(table[r][f]) for f in data.static} for r in ("static swap", "dynamic swap", _AS_IT_IS)}

    def both(table: dict[str, dict]) -> tuple:
        factorial = {f: table[f"retain {f}"] for f in data.static}
        return d_sd(table["static swap"], table["dynamic swap"], **kinds), d_mf(factorial, **kinds)

    together, each = both(rows(pooled)), both(rows(scores.accuracy))
    errors = [mean_se(values)[1] for values in each]
    return Evaluation(
        static=data.static,
        dynamic=data.dynamic,
        classes=classes,
        rows=_plain(rows(pooled)),
        rows_se=_plain(rows(spread)),
        frames=still(scores.frame_accuracy),
        consistency=still(scores.consistency),
        d_sd=float(together[0]),
        d_sd_se=errors[0],
        d_mf=float(together[1]),
        d_mf_se=errors[1],
        partition={f: tuple(c) for f, c in partition.items()},
        explored_on=explored_on,
        exploration=found,
        films=scores.films,
        repeats=config.repeats,
        wall_s=wall_s,
    )


def _check_partition(partition: dict[str, tuple[int, ...]], static: tuple[str, ...]) -> None:
    if set(partition) != set(static):
        raise ValueError(f"partition: expected the factors {', '.join(static)}, got {', '.join(partition) or 'none'}")
    taken = [c for part in partition.values() for c in part]
    if twice := {c for c in taken if taken.count(c) > 1}:
        raise ValueError(f"partition: component {min(twice)} belongs to more than one factor")


def _plain(table: dict[str, dict]) -> dict[str, dict[str, float]]:
    return {name: {f: float(v) for f, v in row.items()} for name, row in table.items()}

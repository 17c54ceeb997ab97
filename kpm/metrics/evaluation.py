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
from kpm.models.inference import for_inference
from kpm.models.judge import Judge
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.models.parts import take_apart


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes
    ----------
    static, dynamic : tuple of str
        Factors.
    classes : dict of str to int
    rows : dict of str to dict of str to float
        Accuracy of each factor after each swap: rows ``"static swap"``, ``"dynamic swap"``, ``"retain nothing"`` and
        ``"retain FACTOR"``.
    rows_se : same
        Standard errors over repeats.
    consistency : same
        Share of frames on which the frame judge agrees with itself, for the static and the dynamic swap.
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
    kept |= {f"retain {f}": (f,) for f in static}
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
    progress: bool = False,
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

    Raises
    ------
    UserError
        As `kpm.metrics.swaps.measure` does.
    """
    config, began = config or SwapConfig(), time.monotonic()
    parts = take_apart(model, data, components)
    fast, fast_judge = for_inference(model, dtype), for_inference(judge, dtype)
    found, explored_on = None, "given"
    if partition is None:
        where, its_parts = data, parts
        if explore_on is not None and parts.modes is None:
            where, its_parts = explore_on, take_apart(model, explore_on, components)
        asked = dataclasses.replace(config, repeats=exploration_repeats or config.repeats)
        found = explore(fast, fast_judge, where, asked, parts=its_parts, progress=progress)
        partition, explored_on = found.partition, where.split
    keeps = [STATIC_SWAP, DYNAMIC_SWAP, NOTHING, *(Keep(tuple(partition[f]), False) for f in data.static)]
    scores = measure(fast, fast_judge, data, keeps, config, parts, progress)
    names = ["static swap", "dynamic swap", "retain nothing", *(f"retain {f}" for f in data.static)]
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
        consistency=_plain(dict(list(rows(scores.consistency.mean(-1)).items())[:2])),
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


def _plain(table: dict[str, dict]) -> dict[str, dict[str, float]]:
    return {name: {f: float(v) for f, v in row.items()} for name, row in table.items()}

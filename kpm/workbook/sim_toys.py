"""``kpm sim toys``: limits with known answers, and the rank that a projector onto them needs.

What is learnt is the limit of *observables*: frozen random features of a start are mapped to those of the attractor it
tends to. Features of N attractors span N dimensions, so a limit of rank N can be right everywhere and one of rank N - 1
cannot, by the theorem of Eckart and Young, which says how wrong it is at the least.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kpm import environment, files, paths
from kpm.datasets import limit_sets
from kpm.datasets.limit_sets import LimitSet
from kpm.errors import UserError
from kpm.models import bases
from kpm.models.sim import SIM, LowRankLimit, SIMConfig, diagnose
from kpm.workbook import results, sim_cycle

TOYS = {"bistable": 2, "ring3": 3, "ring5": 5}
FEATURES, SIGMA = 128, 0.5
MODES = ("free", "oblique")


@dataclasses.dataclass(frozen=True)
class RankError:
    """How well a limit of some rank does on fresh starts.

    Attributes
    ----------
    toy, mode : str
    rank, seed : int
    error : float
        ``|prediction - limit|^2 / |limit|^2`` of the observables.
    bound : float
        No matrix of this rank has an error below.
    hits : float
        Share of starts whose prediction is nearest to the right attractor's observables.
    idempotency : float
        ``|P^2 - P| / |P|`` of the limit.
    """

    toy: str
    mode: str
    rank: int
    seed: int
    error: float
    bound: float
    hits: float
    idempotency: float


def toy(name: str, count: int, seed: int) -> LimitSet:
    """The starts of a toy of `TOYS`, those of another seed for the test."""
    if name not in TOYS:
        raise UserError(f"toy: expected one of {', '.join(TOYS)}, got {name!r}")
    if name == "bistable":
        return limit_sets.bistable(count, seed)
    return limit_sets.ring(count, TOYS[name], seed)


def features(seed: int, count: int = FEATURES, sigma: float = SIGMA) -> bases.FourierFeatures:
    """Frozen observables of the plane, float64."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return bases.FourierFeatures(2, count, sigma).double()


def bound(limits: Tensor, rank: int) -> float:
    """Least ``|F A - F|^2 / |F|^2`` of any map A of a rank, for observables F ``(n, size)`` of the attractors reached.

    It holds for whatever a limit of that rank is fed with: its outputs lie in so many dimensions (Eckart, Young).
    """
    squares = torch.linalg.svdvals(limits) ** 2
    return float(squares[rank:].sum() / squares.sum())


def learn_limit(before: Tensor, after: Tensor, rank: int, mode: str, seed: int, steps: int = 300) -> LowRankLimit:
    """A limit that maps observables of starts to those of their attractors, both ``(n, size)`` float64.

    Adam on all samples at once, with a cosine schedule from 0.02.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        limit = LowRankLimit(before.shape[1], rank, mode).double()
    optimizer = torch.optim.Adam(limit.parameters(), 2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        ((limit(before) - after) ** 2).sum(1).mean().backward()
        optimizer.step()
        schedule.step()
    return limit


def learn(name: str, mode: str, rank: int, seed: int, count: int = 1000, steps: int = 300) -> LowRankLimit:
    """A limit of a rank for a toy, of the observables of `seed`."""
    observe, train = features(seed), toy(name, count, 2 * seed)
    return learn_limit(observe(train.start), observe(train.limit), rank, mode, seed, steps)


@torch.no_grad()
def judge(name: str, limit: LowRankLimit, seed: int, count: int = 1000) -> RankError:
    """How well a limit does on fresh starts of a toy."""
    observe, test = features(seed), toy(name, count, 2 * seed + 1)
    guess, truth = limit(observe(test.start)), observe(test.limit)
    error = float((guess - truth).square().sum() / truth.square().sum())
    nearest = torch.cdist(guess, observe(test.attractors)).argmin(1)
    hits = float((nearest == test.basin).double().mean())
    least, idempotency = bound(truth, limit.rank), diagnose(limit).idempotency
    return RankError(name, limit.mode, limit.rank, seed, error, least, hits, idempotency)


@torch.no_grad()
def basin_map(name: str, limit: LowRankLimit, seed: int, side: int = 121, reach: float = 1.6) -> tuple[Tensor, Tensor]:
    """What a limit makes of every start of the square from ``-reach`` to ``reach``.

    Returns
    -------
    Tensor
        int64 ``(side, side)``, the attractor whose observables are nearest; the second coordinate grows with the row.
    Tensor
        ``(side, side)``, relative squared error of the observables.
    """
    line = torch.linspace(-reach, reach, side, dtype=torch.float64)
    y, x = torch.meshgrid(line, line, indexing="ij")
    starts = torch.stack([x.flatten(), y.flatten()], 1)
    observe, attractors = features(seed), toy(name, 10, seed).attractors
    guess, known = limit(observe(starts)), observe(attractors)
    truth = known[limit_sets.basins(starts, attractors)]
    error = (guess - truth).square().sum(1) / truth.square().sum(1)
    return torch.cdist(guess, known).argmin(1).view(side, side), error.view(side, side)


def rank_error(name: str, mode: str, rank: int, seed: int, count: int = 1000, steps: int = 300) -> RankError:
    """Learn a limit of a rank and judge it on fresh starts."""
    return judge(name, learn(name, mode, rank, seed, count, steps), seed, count)


def end_to_end(name: str, rank: int, seed: int, mode: str = "oblique", steps: int = 600) -> float:
    """Root-mean-square error of the attractor's position by a SIM whose basis and inverse network are learnt too."""
    train, test = toy(name, 1000, 2 * seed), toy(name, 1000, 2 * seed + 1)
    config = SIMConfig("deep", (2,), 64, 16, size=16, rank=rank, mode=mode, inverse=32, outputs=2)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = SIM(config)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    x, y = train.start.float(), train.limit.float()
    for _ in range(steps):
        optimizer.zero_grad()
        ((model(x) - y) ** 2).sum(1).mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float((model(test.start.float()) - test.limit).square().sum(1).mean().sqrt())


def sweep(names: Sequence[str], seeds: Sequence[int], modes: Sequence[str] = MODES, **sizes: int) -> list[RankError]:
    """Ranks from 1 to two more than there are attractors."""
    return [
        rank_error(name, mode, rank, seed, **sizes)
        for name in names
        for rank in range(1, TOYS[name] + 3)
        for mode in modes
        for seed in seeds
    ]


def toys_command(
    seeds: tuple[int, ...] = (1, 2, 3), folder: Path | None = None, save: bool = False, run: bool = True
) -> int:
    """Limit sets with known answers: the rank a limit needs, and averages and phases of a limit cycle.

    A seed that is in the folder already is not run again.

    Args:
        seeds: Of features, starts and weights.
        folder: Where a file for each seed is kept; runs/sim_toys by default.
        save: Write what the folder holds to the results file sim_toys.
        run: With --no-run, only the tables.
    """
    place = Path(folder or paths.runs() / "sim_toys")
    for seed in seeds if run else ():
        if not (place / f"{seed}.json").is_file():
            files.write_json(place / f"{seed}.json", measure(seed))
            print(f"seed {seed} done", flush=True)
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(place.glob("*.json"))]
    if not records:
        raise UserError(f"{place.name}: no seed is there yet")
    found = [RankError(**one) for record in records for one in record["ranks"]]
    print(table(found))
    for name, value in (_means(records, "cycle") | _means(records, "end_to_end")).items():
        print(f"{name:<36}{value:.3g}")
    if save:
        print(f"saved to {results.save(result(records)).name}")
    return 0


def measure(seed: int) -> dict[str, Any]:
    """Everything for one seed: errors by rank, a SIM that learns all of itself, the limit cycle."""
    began = time.monotonic()
    ranks = [dataclasses.asdict(one) for one in sweep(tuple(TOYS), (seed,))]
    whole = {f"end_to_end_rmse_ring5_rank{rank}": end_to_end("ring5", rank, seed) for rank in (1, 2, 5)}
    cycle = sim_cycle.measure(seed)
    return {
        "seed": seed, "ranks": ranks, "end_to_end": whole, "cycle": cycle, "wall_s": round(time.monotonic() - began, 1)
    }  # fmt: skip


def _means(records: Sequence[dict[str, Any]], part: str) -> dict[str, float]:
    return {name: statistics.mean(r[part][name] for r in records) for name in records[0][part]}


def mean_errors(found: Sequence[RankError]) -> dict[tuple[str, str, int], tuple[float, float, float]]:
    """Mean error, bound and share of hits over seeds, by toy, mode and rank."""
    groups: dict[tuple[str, str, int], list[RankError]] = {}
    for one in found:
        groups.setdefault((one.toy, one.mode, one.rank), []).append(one)
    return {
        key: tuple(statistics.mean(getattr(one, name) for one in group) for name in ("error", "bound", "hits"))
        for key, group in groups.items()
    }


def table(found: Sequence[RankError]) -> str:
    """Errors by rank as text."""
    lines = [f"{'toy':<10}{'limit':<10}{'rank':>4}{'error':>9}{'at least':>10}{'nearest right':>15}"]
    for (name, mode, rank), (error, least, hits) in mean_errors(found).items():
        mark = " <- as many as attractors" if rank == TOYS[name] else ""
        lines.append(f"{name:<10}{mode:<10}{rank:>4}{error:>9.4f}{least:>10.4f}{hits:>15.3f}{mark}")
    return "\n".join(lines)


def result(records: Sequence[dict[str, Any]]) -> results.Result:
    """What was measured, as a results file."""
    found = [RankError(**one) for record in records for one in record["ranks"]]
    metrics: dict[str, float] = {}
    means = mean_errors(found)
    for name, attractors in TOYS.items():
        for mode in MODES:
            for label, rank in (("short", attractors - 1), ("enough", attractors), ("more", attractors + 1)):
                metrics[f"limit_error_{name}_{mode}_{label}"] = means[name, mode, rank][0]
        metrics[f"limit_error_{name}_short_bound"] = means[name, MODES[0], attractors - 1][1]
    metrics |= _means(records, "end_to_end") | _means(records, "cycle")
    seeds = [record["seed"] for record in records]
    machine = environment.report()
    return results.Result(
        name="sim_toys",
        dataset="limit_sets",
        source="synthetic",
        split="test",
        metrics=metrics,
        paper={},
        seeds=seeds,
        steps=None,
        wall_s=round(sum(record["wall_s"] for record in records), 1),
        hardware=machine.hardware,
        checkpoint=None,
        command=f"kpm sim toys --seeds {' '.join(map(str, seeds))} --save",
        commit=machine.commit,
        environment=machine,
        notes="short, enough, more: rank one below, equal to and one above the number of attractors. The errors are of "
        "the limits of observables, relative and squared. The paper has no such figures.",
        details={"ranks": [dataclasses.asdict(one) for one in found]},
    )

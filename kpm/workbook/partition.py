"""``kpm partition``: which static components carry which factor, by every search there is, and what each one costs."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from kpm import environment, files, paths
from kpm.analysis.exhaustive_exploration import exhaustive, power_set
from kpm.analysis.factorial_swaps import FactorialSwaps, greedy
from kpm.analysis.greedy_exploration import Exploration, explore
from kpm.analysis.partition_search import beam, refine
from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError
from kpm.metrics.disentanglement import mean_se
from kpm.metrics.swaps import SwapConfig
from kpm.models.channel_basis import independent_basis
from kpm.models.inference import for_inference
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.models.parts import Parts, take_apart
from kpm.training import checkpoint, hardware
from kpm.workbook import results
from kpm.workbook.evaluate import METHODS, check_counts, films, find_judge, thesis_scores
from kpm.workbook.results import Result

_EXHAUSTIVE = 12  # components a search through all subsets can take


@dataclasses.dataclass(frozen=True)
class Found:
    """A partition, where it comes from and what it is worth.

    Attributes
    ----------
    search : str
    partition : dict of str to tuple of int
    rest : tuple of int
    sets : int
        Sets of components decoded and judged to find it.
    wall_s : float
    d_mf_search : float
        On the films and draws it was found with.
    d_mf, d_mf_se : float
        On the films that are judged, and its standard error over repeats.
    """

    search: str
    partition: dict[str, tuple[int, ...]]
    rest: tuple[int, ...]
    sets: int
    wall_s: float
    d_mf_search: float
    d_mf: float = float("nan")
    d_mf_se: float = float("nan")


def partition_command(
    checkpoint_file: tyro.conf.Positional[str],
    split: str = "test",
    search_split: str = "validation",
    components: Literal["auto", "channels", "independent"] = "auto",
    repeats: int = 25,
    search_repeats: int = 5,
    width: int = 4,
    exhaustive_components: int = 8,
    batch_size: int = 256,
    films_per_repeat: int | None = None,
    seed: int = 7253,
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto",
    device: str = "auto",
    out: Path | None = None,
    save: bool = False,
    progress: bool = True,
) -> int:
    """Assign static components to factors by greedy, hill-climbing, beam and exhaustive search; print what each finds.

    Args:
        checkpoint_file: A name in data/checkpoints or a file.
        split: Films the partitions are judged on.
        search_split: Films they are found on; with one operator for all films (SKD) those that are judged.
        components: Modes (SKD) or channels (SSM-SKD); channels also for SKD; independent axes of either.
        repeats: Passes over the judged films, each with new partners.
        search_repeats: The same for the search.
        width: Of the beam.
        exhaustive_components: So many components, the strongest, are also searched through all their subsets.
        batch_size: Films that exchange parts.
        films_per_repeat: Only so many films in each pass; all by default.
        seed: Of partners and weights.
        precision: Of decoder and judge; auto probes whether bf16 is faster here.
        device: auto, cpu or cuda.
        out: The JSON file, out/partition_NAME.json by default.
        save: Keep it as the result partition_NAME of a shipped checkpoint; of its own components (auto) only.
        progress: Show a progress bar.
    """
    command = _command(locals())
    check_counts(batch_size, films_per_repeat, repeats=repeats, search_repeats=search_repeats)
    if width < 1:
        raise UserError(f"width: expected at least 1, got {width}")
    if exhaustive_components < 1:
        raise UserError(f"exhaustive-components: expected at least 1, got {exhaustive_components}")
    where = hardware.device(device)
    path = checkpoint.find(checkpoint_file, KoopmanAutoencoder)
    if save and path.parent.resolve() != paths.checkpoints().resolve():
        raise UserError("save: only what a shipped checkpoint does goes into a results file")
    if save and components != "auto":
        raise UserError(f"save: only of the components that a method has by itself (auto), not of {components!r}")
    model, meta = checkpoint.load_model(path, where)
    data = films(meta, split)
    if len(data) < batch_size:
        raise UserError(f"batch-size: {batch_size} films are more than the {len(data)} of {data.name} ({split})")
    judge, about = find_judge(data, "", where)
    precision = hardware.faster_precision(where) if precision == "auto" else precision
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    if where.type == "cpu":
        hardware.keep_freed_memory()
    basis = independent_basis(model, films(meta, "train"), seed) if components == "independent" else None
    fast, referee = for_inference(model, dtype), for_inference(judge, dtype)

    def parts_of(chosen: SequenceDataset) -> Parts:
        parts = take_apart(model, chosen, "auto" if basis else components)
        return parts if basis is None else basis.apply(parts)

    parts = parts_of(data)
    if min(exhaustive_components, parts.components) > _EXHAUSTIVE:
        raise UserError(f"exhaustive-components: expected at most {_EXHAUSTIVE}, got {exhaustive_components}")
    own_modes = parts.modes is not None and basis is None
    search_data, search_parts = (data, parts) if own_modes else (films(meta, search_split), None)
    search_parts = search_parts or parts_of(search_data)
    # Draws of its own: a partition must not be judged by the draws that chose it.
    looked = SwapConfig(search_repeats, batch_size, seed=seed + 1, films=films_per_repeat)
    searched = FactorialSwaps.of(fast, referee, search_data, looked, search_parts, progress=progress)
    found = searches(searched, width)
    text_config = dataclasses.replace(looked, partner="instance")
    found.insert(1, _text_reading(searched, fast, referee, search_data, text_config, search_parts, progress))
    config = SwapConfig(repeats, batch_size, seed=seed, films=films_per_repeat)
    judged = FactorialSwaps.of(fast, referee, data, config, parts, progress=progress)
    found = [_worth(judged, f) for f in found]
    whole = _exhaustive(searched, exhaustive_components)
    print(f"{path.stem} on {data.name} ({data.source}), {split}: {parts.components} components, {repeats} repeats")
    print(table(found, parts.components, len(data.static)))
    print(describe(whole))
    plain = {
        "checkpoint": path.stem,
        "dataset": data.name,
        "source": data.source,
        "split": split,
        "search_split": search_data.split,
        "components": parts.components,
        "config": dataclasses.asdict(config),
        "search_config": dataclasses.asdict(looked),
        "how": {"components": components, "precision": precision, "device": str(where), "judge": about},
        "found": [dataclasses.asdict(f) for f in found],
        "exhaustive": whole,
    }
    target = out or paths.root() / "out" / f"partition_{path.stem}.json"
    files.write_json(target, plain)
    print(f"written to {target.name}")
    if save:
        _save(path, METHODS[model.config.scope], data, plain, command)
    return 0


def _command(asked: Mapping[str, Any]) -> str:
    """What asks for the same: the checkpoint, and all options that decide what is found and are not the defaults."""
    parameters = inspect.signature(partition_command).parameters
    words = ["kpm partition", asked["checkpoint_file"]]
    for name, parameter in parameters.items():
        decides = name not in ("checkpoint_file", "device", "out", "save", "progress")
        if decides and asked[name] != parameter.default:
            words += [f"--{name.replace('_', '-')}", str(asked[name])]
    return " ".join([*words, "--save"])


def searches(swaps: FactorialSwaps, width: int = 4) -> list[Found]:
    """What the greedy partition, its refinement, a beam and, of few components, the power set find, in this order.

    Sets measured by an earlier search cost a later one nothing; `Found.sets` counts what is new.
    """

    def timed(name: str, search: Callable[[], Any]) -> Found:
        before, began = swaps.evaluations, time.monotonic()
        result = search()
        wall, sets = time.monotonic() - began, swaps.evaluations - before
        value = result.d_mf if hasattr(result, "d_mf") else float(swaps.d_mf(swaps.owners(result.partition)[None])[0])
        partition = getattr(result, "partition", None) or result.sets
        return Found(name, partition, getattr(result, "rest", ()), sets, wall, value)

    found = [timed("greedy", lambda: greedy(swaps)), timed("refined", lambda: refine(swaps))]
    found.append(timed(f"beam of {width}", lambda: beam(swaps, width)))
    if swaps.components <= _EXHAUSTIVE:
        found.append(timed("power set", lambda: power_set(swaps)))
    return found


def _text_reading(swaps: FactorialSwaps, model, judge, data, config: SwapConfig, parts: Parts, progress: bool) -> Found:
    """The greedy partition as the thesis's text has it: one partner, and each film keeps its dynamics."""
    began = time.monotonic()
    result: Exploration = explore(model, judge, data, config, "kept", parts, progress)
    wall = time.monotonic() - began
    value = float(swaps.d_mf(swaps.owners(result.partition)[None])[0])
    return Found("greedy, as the text has it", result.partition, result.rest, parts.components + 1, wall, value)


def _worth(swaps: FactorialSwaps, found: Found) -> Found:
    """`found` judged: `D_mf` of the accuracies of all repeats together and its standard error."""
    rows = [tuple(found.partition[f]) for f in swaps.explored]
    accuracy = swaps.accuracy(rows)  # (explored, factors, repeats)
    target = np.array([[1.0 if f == g else 1 / swaps.classes[g] for g in swaps.factors] for f in swaps.explored])
    each = 1 - np.abs(accuracy - target[..., None]).mean((0, 1))
    pooled = 1 - np.abs(accuracy.mean(-1) - target).mean()
    return dataclasses.replace(found, d_mf=float(pooled), d_mf_se=mean_se(each)[1])


def _exhaustive(swaps: FactorialSwaps, count: int) -> dict[str, Any]:
    """All subsets of the strongest components: the best partition beside the greedy one, as plain values."""
    singles = swaps.accuracy([(), *((c,) for c in range(swaps.components))]).mean(-1)
    own = [swaps.factors.index(f) for f in swaps.explored]
    gain = (singles[1:, own] - singles[0, own]).max(1)
    count = min(count, swaps.components)
    strongest = tuple(sorted(np.argsort(-gain)[:count].tolist()))
    before, began = swaps.evaluations, time.monotonic()
    result = exhaustive(swaps, strongest)
    plain = dataclasses.asdict(result)
    del plain["accuracy"]
    return plain | {"measured": swaps.evaluations - before, "wall_s": time.monotonic() - began}


def table(found: list[Found], components: int, factors: int) -> str:
    """A line for each search."""
    lines = [["search", "sets", "seconds", "D_mf found", "D_mf judged", "partition"]]
    for f in found:
        parts = ", ".join(f"{name} {list(c)}" for name, c in f.partition.items())
        judged = f"{f.d_mf:.4f} (se {f.d_mf_se:.4f})"
        lines.append([f.search, str(f.sets), f"{f.wall_s:.0f}", f"{f.d_mf_search:.4f}", judged, parts])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in lines]
    every = f"all subsets of {components} components: 2^{components} = {2**components} sets"
    return "\n".join([*text, f"{every}, {2**components / (components + 1):.0f} times the greedy search's"])


def describe(whole: dict[str, Any]) -> str:
    """What the search through all subsets says of the greedy partition, in one line."""
    best, chosen = whole["best"], whole["greedy"]
    return (
        f"components {list(whole['components'])} through all {whole['evaluations']} subsets: sum of accuracies "
        f"{best['accuracy']:.4f} at best, {chosen['accuracy']:.4f} greedily, gap {whole['gap']:.4f} "
        f"(se {whole['gap_se']:.4f}); a set's gain differs from the sum of its components' by up to "
        f"{whole['additivity_max']:.3f}; D_mf {whole['best_d_mf']['d_mf']:.4f} at best, {chosen['d_mf']:.4f} greedily"
    )


def _save(path: Path, method: str, data: SequenceDataset, plain: dict[str, Any], command: str) -> None:
    name, seed = f"partition_{path.stem}", plain["config"]["seed"]
    machine = environment.report({"swaps": seed})
    by_search = {f["search"]: f for f in plain["found"]}
    metrics = {"D_mf": by_search["greedy"]["d_mf"], "D_mf_se": by_search["greedy"]["d_mf_se"]}
    metrics |= {"D_mf_refined": by_search["refined"]["d_mf"], "D_mf_refined_se": by_search["refined"]["d_mf_se"]}
    metrics |= {"gap": plain["exhaustive"]["gap"], "gap_se": plain["exhaustive"]["gap_se"]}
    metrics |= {"greedy_s": by_search["greedy"]["wall_s"], "sets": by_search["greedy"]["sets"]}
    metrics |= {"ratio_sets": 2 ** plain["components"] / by_search["greedy"]["sets"]}
    paper = {k: v for k, v in thesis_scores(data.name, method).items() if k == "D_mf"}
    results.save(
        Result(
            name=name,
            dataset=data.name,
            source=data.source,
            split=plain["split"],
            metrics={k: round(float(v), 6) for k, v in metrics.items()},
            paper=paper,
            seeds=(seed,),
            steps=None,
            wall_s=sum(f["wall_s"] for f in plain["found"]) + plain["exhaustive"]["wall_s"],
            hardware=machine.hardware,
            checkpoint=results.Checkpoint.of(path),
            command=command,
            commit=machine.commit,
            environment=machine,
            details={k: plain[k] for k in ("found", "exhaustive", "config", "search_config", "how", "search_split")},
        )
    )
    print(f"{name}.json has it; kpm results --readme renews the table")

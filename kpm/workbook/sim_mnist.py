"""``kpm sim mnist``: stable invariant models beside equilibrium and feed-forward ones of the same size."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from kpm import datasets, environment, files, paths
from kpm.datasets.images import Images
from kpm.errors import UserError, pick
from kpm.models import sim
from kpm.models.equal_sizes import MODELS
from kpm.training import checkpoint
from kpm.training import sim as training
from kpm.training.fit import fit
from kpm.training.run_folder import check_kind
from kpm.training.sim import SIMTask, SIMTrainConfig
from kpm.workbook import results

BATCH = 400  # images at a time in the test, as published
_TIMED = 15  # training steps that are timed


def mnist_command(
    models: tuple[str, ...] = MODELS,
    seeds: tuple[int, ...] = (1, 2, 3),
    stem: Literal["dense", "conv"] = "dense",
    epochs: int = 15,
    images: int = 0,
    learning_rate: float = 5e-3,
    dataset: str = "mnist",
    source: Literal["auto", "real", "synthetic"] = "auto",
    folder: Path | None = None,
    save: bool = False,
    run: bool = True,
    again: bool = False,
) -> int:
    """Classify images with stable invariant, equilibrium and feed-forward models of about 81000 parameters.

    A model and seed that is in the folder already is not run again, and one that was stopped goes on.

    Args:
        models: Which.
        seeds: Of weights and order.
        stem: dense for fully connected networks, conv for the published convolutions (1 to 2 minutes of a core per
            pass).
        epochs: Passes over the training images.
        images: Learn from only so many; 0 for all.
        learning_rate: Of Adam, at its highest, for all models.
        dataset: Images of digits.
        source: auto, real or synthetic.
        folder: Where runs are kept; runs/sim_DATASET by default.
        save: Write what the folder holds to the results file sim_mnist.
        run: With --no-run, only the tables.
        again: Judge and time the kept models of all runs once more, with the weights they have.
    """
    for model in models:
        pick("model", model, MODELS)
    data = {}
    for split in ("train", "validation", "test"):
        data[split] = datasets.load(dataset, split, source)
        check_kind(Images, "images", data[split])
    name = data["test"].name
    place = Path(folder or paths.runs() / f"sim_{name}")
    for seed in seeds if run else ():
        for model in models:
            config = SIMTrainConfig(
                model=model, stem=stem, dataset=dataset, source=source, images=images, epochs=epochs, seed=seed,
                learning_rate=learning_rate,
            )  # fmt: skip
            if _done(_path(place, stem, model, seed), config):
                continue
            record = learn(config, data, place / f"{stem}_{model}_{seed}")
            files.write_json(_path(place, stem, model, seed), record)
            print(f"{stem} {model} seed {seed}: accuracy {record['accuracy_test']:.4f}", flush=True)
    if again:
        for record in read(place):
            name = f"{record['stem']}_{record['model']}_{record['seed']}"
            config = SIMTrainConfig(
                **record["settings"], model=record["model"], stem=record["stem"], seed=record["seed"]
            )
            files.write_json(place / f"{name}.json", record | judge(config, data, place / name))
    records = read(place)
    if not records:
        raise UserError(f"{place.name}: no run is there yet")
    for each in dict.fromkeys(r["stem"] for r in records):
        print(table([r for r in records if r["stem"] == each]))
    if save:
        print(f"saved to {results.save(result(records, data['test'])).name}")
    return 0


def learn(config: SIMTrainConfig, data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train one model, take its best weights, judge them on the test images, and time a step and the answers."""
    task = SIMTask(config, data["train"], data["validation"], torch.device("cpu"))
    done = fit(task, config, folder, resume=True, progress_bar=False)
    if not done.finished:
        raise UserError(f"stopped after {done.steps} steps; the same command goes on")
    record = {
        "model": config.model,
        "stem": config.stem,
        "seed": config.seed,
        "settings": _settings(config),
        "parameters": sim.parameters(task.model),
        "accuracy_validation": done.best["accuracy"],
        "steps": done.steps,
        "wall_s": round(done.wall_s, 1),
    }
    if getattr(task.model, "report", None) is not None:
        # Of this process: where a run was stopped, what was lost before is in its log.
        record |= {"lost": task.model.lost, "lost_backward": task.model.lost_backward}
    return record | judge(config, data, folder)


def judge(config: SIMTrainConfig, data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a folder's best weights make of the test images, and what a training step and the answers take.

    A step is timed with fresh weights and with the learnt ones, since a solver's steps depend on them; of a deep
    equilibrium model also with plain iteration in the place of its solver.
    """
    task = SIMTask(config, data["train"], data["validation"], torch.device("cpu"))
    fresh = {k: v.clone() for k, v in task.model.state_dict().items()}
    learnt, _ = checkpoint.read(folder / "best.safetensors")

    def measured() -> dict[str, float]:
        task.model.load_state_dict(fresh)
        first = _step_seconds(task, config)
        task.model.load_state_dict(learnt)
        return {
            **{f"{key}_test": value for key, value in training.scores(task, data["test"], BATCH).items()},
            "step_ms_fresh": round(1e3 * first, 3),
            "step_ms": round(1e3 * _step_seconds(task, config), 3),
            "answer_ms": round(1e3 * _answer_seconds(task, data["test"].values[:BATCH]), 3),
        }

    found: dict[str, Any] = measured()
    if isinstance(task.model, sim.SIM):
        limit = sim.diagnose(task.model, task.inputs(data["test"].values[:BATCH]))
        found["limit"] = {
            "idempotency": limit.idempotency,
            "effective_rank": limit.effective_rank,
            "condition": limit.condition,
            "drift": limit.drift,
            "largest_eigenvalue": float(limit.eigenvalues.abs().max()),
        }
    if config.model == "deq":
        task.model.config = dataclasses.replace(task.model.config, method="plain")
        found["plain"] = measured()
    return found


def _step_seconds(task: SIMTask, config: SIMTrainConfig) -> float:
    """Processor seconds of a training step with the weights there are, the median of a few; nothing is changed."""
    index = task.batches(config.batch_size, torch.Generator().manual_seed(0))[0]
    before = {k: v.clone() for k, v in task.model.state_dict().items()}  # statistics of batches are among them
    task.model.train()

    def step() -> None:
        sum(task.loss(index).values()).backward()
        task.model.zero_grad()

    seconds = _median_seconds(step)
    task.model.load_state_dict(before)
    return seconds


def _answer_seconds(task: SIMTask, images: torch.Tensor) -> float:
    """Processor seconds for the answers to a batch of images."""
    task.model.eval()
    with torch.inference_mode():
        return _median_seconds(lambda: task.model(task.inputs(images)))


def _median_seconds(work: Callable[[], object]) -> float:
    # Of the processor, not the wall: other programs that share the machine do not count.
    spent = []
    for _ in range(_TIMED):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return statistics.median(spent[2:])


def _path(folder: Path, stem: str, model: str, seed: int) -> Path:
    return folder / f"{stem}_{model}_{seed}.json"


def _settings(config: SIMTrainConfig) -> dict[str, Any]:
    keys = ("epochs", "images", "learning_rate", "batch_size", "sigma", "dataset", "source")
    return {key: getattr(config, key) for key in keys}


def _done(path: Path, config: SIMTrainConfig) -> bool:
    """Whether the run is there; `UserError` if it is one of other settings."""
    if not path.is_file():
        return False
    kept = json.loads(path.read_text(encoding="utf-8"))["settings"]
    # Runs of before did not keep their source.
    if kept != {key: value for key, value in _settings(config).items() if key in kept}:
        raise UserError(f"{path.name}: was run with other settings; give another --folder, or those")
    return True


def read(folder: Path) -> list[dict[str, Any]]:
    """The records of a folder: dense before conv, models in the order of `MODELS`, then seeds."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda r: (r["stem"] != "dense", MODELS.index(r["model"]), r["seed"]))


def summary(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per model: means over seeds and the standard deviation of the accuracy (of the sample)."""
    rows = []
    for model in dict.fromkeys(r["model"] for r in records):
        mine = [r for r in records if r["model"] == model]

        def mean(key: str, mine: list[dict[str, Any]] = mine) -> float:
            return statistics.mean(r[key] for r in mine)

        accuracy = [r["accuracy_test"] for r in mine]
        row = {
            "model": model,
            "stem": mine[0]["stem"],
            "parameters": mine[0]["parameters"],
            "seeds": [r["seed"] for r in mine],
            "accuracy_test": statistics.mean(accuracy),
            "accuracy_test_std": statistics.stdev(accuracy) if len(mine) > 1 else None,
            "step_ms_fresh": mean("step_ms_fresh"),
            "step_ms": mean("step_ms"),
            "train_s_estimate": (mean("step_ms_fresh") + mean("step_ms")) / 2 * mine[0]["steps"] / 1e3,
            "answer_ms": mean("answer_ms"),
        }
        if "unconverged_test" in mine[0]:
            row |= {"unconverged": mean("unconverged_test"), "solver_steps": mean("solver_steps_test")}
        if all("lost" in r for r in mine):
            row |= {key: mean(key) for key in ("lost", "lost_backward")}
        if "plain" in mine[0]:
            row["plain"] = {key: statistics.mean(r["plain"][key] for r in mine) for key in mine[0]["plain"]}
        if "limit" in mine[0]:
            row |= {key: statistics.mean(r["limit"][key] for r in mine) for key in ("idempotency", "drift")}
        rows.append(row)
    return rows


def table(records: list[dict[str, Any]]) -> str:
    """The summary as text; times are of one processor core, and of a step with fresh weights and with learnt ones."""
    name = f"model ({records[0]['stem']})"
    head = f"{name:<22}{'parameters':>11}{'test accuracy':>22}{'step, fresh, learnt':>23}"
    lines = [f"{head}{'400 answers':>13}"]
    for row in summary(records):
        spread = "" if row["accuracy_test_std"] is None else f" ± {100 * row['accuracy_test_std']:.2f}"
        lines.append(
            f"{row['model']:<22}{row['parameters']:>11}{100 * row['accuracy_test']:>15.2f}{spread:>7}"
            f"{row['step_ms_fresh']:>12.1f}{row['step_ms']:>8.1f} ms{row['answer_ms']:>10.1f} ms"
        )
        if "plain" in row:
            plain = row["plain"]
            lines.append(
                f"{'  by plain iteration':<22}{'':>11}{100 * plain['accuracy_test']:>15.2f}{'':>7}"
                f"{plain['step_ms_fresh']:>12.1f}{plain['step_ms']:>8.1f} ms{plain['answer_ms']:>10.1f} ms"
            )
    return "\n".join(lines)


def comparison(rows: list[dict[str, Any]]) -> list[str]:
    """How the SIMs of one stem stand beside the others: rows of `summary`, with several seeds each, to lines of text.

    Gaps are in points, and told from chance if they are more than the two standard deviations over seeds together.
    Times are ratios, of a step with learnt weights and of answers.
    """
    of = {row["model"]: row for row in rows}
    sims = [name for name in of if name.startswith("sim")]
    stem = rows[0]["stem"]
    lines = [f"{stem} stems: " + ", ".join(f"{name} {100 * of[name]['accuracy_test']:.2f} %" for name in sims)]
    for other in (name for name in ("feed-forward", "mondeq", "deq") if name in of):
        said: dict[str, list[str]] = {"above": [], "below": [], "not distinguishable": []}
        for name in sims:
            gap = of[name]["accuracy_test"] - of[other]["accuracy_test"]
            noise = (of[name]["accuracy_test_std"] or 0) + (of[other]["accuracy_test_std"] or 0)
            how = "not distinguishable" if abs(gap) <= noise else "above" if gap > 0 else "below"
            said[how].append(f"{name} ({100 * gap:+.2f} ± {100 * noise:.2f})")
        lines.append(f"  beside {other}: " + "; ".join(f"{how}: {', '.join(m)}" for how, m in said.items() if m))
    times = {name: of[name] for name in ("deq", "mondeq") if name in of}
    times |= {"deq, plain iteration": of["deq"]["plain"]} if "plain" in of.get("deq", {}) else {}
    pairs = [(name, row, "sim-one-oblique") for name, row in times.items()]
    pairs += [(name, of[name], "feed-forward") for name in sims]
    for name, row, unit in ((n, r, u) for n, r, u in pairs if u in of):
        step, answer = (row[key] / of[unit][key] for key in ("step_ms", "answer_ms"))
        lines.append(f"  {name}, times of {unit}'s: {step:.2f} a step, {answer:.2f} to answer")
    return lines


def result(records: list[dict[str, Any]], test: Any) -> results.Result:
    """What was measured, as a results file."""
    if not records:
        raise UserError("save: no run is there yet")
    metrics: dict[str, float] = {}
    rows = []
    for stem in dict.fromkeys(r["stem"] for r in records):
        of_stem = summary([r for r in records if r["stem"] == stem])
        rows += of_stem
        for row in of_stem:
            tag = f"{stem}_{row['model'].replace('-', '_')}"
            metrics[f"accuracy_test_{tag}"] = row["accuracy_test"]
            if row["accuracy_test_std"] is not None:
                metrics[f"accuracy_test_{tag}_std"] = row["accuracy_test_std"]
            for key in ("step_ms_fresh", "step_ms", "train_s_estimate", "answer_ms"):
                metrics[f"{key}_{tag}"] = round(row[key], 3)
            for key in ("accuracy_test", "step_ms_fresh", "step_ms", "answer_ms") if "plain" in row else ():
                metrics[f"{key}_{tag}_plain_iteration"] = round(row["plain"][key], 5)
    most = max(len(row["seeds"]) for row in rows)
    fewer = [
        f"{row['model']} ({row['stem']}) seed {', '.join(map(str, row['seeds']))} only"
        for row in rows
        if len(row["seeds"]) < most
    ]
    machine = environment.report()
    settings = {r["stem"]: r["settings"] for r in records}
    commands = [_command([r for r in records if r["stem"] == stem]) for stem in settings]
    return results.Result(
        name="sim_mnist",
        dataset=test.name,
        source=test.source,
        split="test",
        metrics=metrics,
        paper={},
        seeds=sorted({r["seed"] for r in records}),
        steps=max(r["steps"] for r in records),
        wall_s=round(sum(r["wall_s"] for r in records), 1),
        hardware=machine.hardware,
        checkpoint=None,
        command="; ".join(commands) + " --save",
        commit=machine.commit,
        environment=machine,
        notes="The paper's figures could not be read. Times are of one processor core: of a training step with fresh "
        f"weights and with learnt ones, and of {BATCH} answers. train_s_estimate is the mean of the two, times "
        "the steps: no training was timed. plain_iteration: the same weights, without Anderson's mixing."
        + "".join(f" {text}." for text in fewer),
        details={"rows": rows, "settings": settings},
    )


def _command(records: list[dict[str, Any]]) -> str:
    """The command that makes the records of one stem, with what is not its default."""
    settings = records[0]["settings"]
    models, seeds = (list(dict.fromkeys(r[key] for r in records)) for key in ("model", "seed"))
    parts = [f"kpm sim mnist --stem {records[0]['stem']} --epochs {settings['epochs']}"]
    parts.append(f"--learning-rate {settings['learning_rate']:g}")
    if settings["images"]:
        parts.append(f"--images {settings['images']}")
    if tuple(models) != MODELS:
        parts.append(f"--models {' '.join(models)}")
    if sorted(seeds) != [1, 2, 3]:
        parts.append(f"--seeds {' '.join(map(str, sorted(seeds)))}")
    if settings["dataset"] != "mnist":
        parts.append(f"--dataset {settings['dataset']}")
    if settings.get("source", "auto") != "auto":
        parts.append(f"--source {settings['source']}")
    return " ".join(parts)

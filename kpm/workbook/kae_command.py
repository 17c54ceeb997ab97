"""``kpm kae``: a network's layers as a linear system, and what forgetting a class by an edit of its operator does."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kpm import datasets, files, paths
from kpm.analysis.unlearning import TARGETS, Edit, Unlearning, rows_of
from kpm.errors import UserError
from kpm.models.surrogate import Surrogate
from kpm.training import checkpoint
from kpm.training.kae import KAETrainConfig
from kpm.workbook import kae_experiment as experiment
from kpm.workbook import kae_seeds, results
from kpm.workbook.kae_experiment import EXPERIMENTS, RHO, RHOS, Experiment
from kpm.workbook.output_path import check_writable

# Of the paper's public notebook on the test images, five seeds, accuracies as means over classes; forget_accuracy is of
# the paper's summary. We could not read its text. The nine other classes after the edit are not in the public code.
PAPER = {
    "mnist": {
        "network_accuracy_test": 0.9903,
        "accuracy_test": 0.9853,
        "forget_before": 0.9829,
        "forget_accuracy": 0.0,
    },
    "yinyang": {},  # the public code measures on training points
}
SPLITS = ("train", "validation", "test")
_SEED = KAETrainConfig().seed
_NOT_SHIPPED = ("mnist_wide",)  # 9.3 million parameters would be a file of 37 MB
PIECES_OF = 2000  # test samples whose clouds are looked at
NOTES = {
    "mnist": "Layers a sixth as wide as published, other optimiser and fewer epochs. Edits come from the published "
    "training file in its order, which we assume the public notebook keeps; 'shuffled' is from our own order.",
    "mnist_wide": "Layers as wide as published, other optimiser and fewer epochs. Edits come from the published "
    "training file in its order, which we assume the public notebook keeps; 'shuffled' is from our own order. The "
    "surrogates are too large to be shipped.",
    "yinyang": "Test points are the published test draw; figures of the public notebook are of training points. "
    "Optimiser, schedule and epochs of the autoencoder are not the published ones: Adam, 150 epochs, at most 1e-2, no "
    "weight decay; published are AdamW, 1000 epochs, 0.1, weight decay 5e-4.",
}


def mnist_command(
    classes: tuple[int, ...] = (),
    checkpoint_file: str = "",
    wide: bool = False,
    seeds: tuple[int, ...] = (_SEED,),
    retrain: bool = True,
    out: Path | None = None,
    save: bool = False,
    progress: bool = True,
) -> int:
    """Digits: train a classifier and a Koopman autoencoder of its layers, forget each class, compare.

    Args:
        classes: Classes to forget; all by default.
        checkpoint_file: A surrogate to look at instead of training one: a name in data/checkpoints, or a file.
        wide: Layers as wide as published (784, lifted to 800) instead of a sixth of that; half an hour of a core and
            more for each seed. Nothing is shipped then, only the results file kae_mnist_wide.
        seeds: Of weights and order; of several, means and deviations are shown and saved.
        retrain: Also train a classifier without the class that is looked at closely.
        out: Folder of the runs, runs/kae_mnist by default; what is done there is not done again. Of a checkpoint,
            the folder of the JSON file only, out by default.
        save: Ship the surrogate and write the results file kae_mnist.
        progress: Show progress bars.
    """
    return _command("mnist_wide" if wide else "mnist", classes, checkpoint_file, seeds, retrain, out, save, progress)


def yinyang_command(
    classes: tuple[int, ...] = (),
    checkpoint_file: str = "",
    retrain: bool = True,
    out: Path | None = None,
    save: bool = False,
    progress: bool = True,
) -> int:
    """Yin-Yang: the same on points of a plane, and what the loss of distances does.

    Args:
        classes: Classes to forget; all by default.
        checkpoint_file: A surrogate to look at instead of training one: a name in data/checkpoints, or a file.
        retrain: Also train a classifier without the class that is looked at closely.
        out: Folder of the runs, runs/kae_yinyang by default; what is done there is not done again. Of a checkpoint,
            the folder of the JSON file only, out by default.
        save: Ship the surrogate and write the results file kae_yinyang.
        progress: Show progress bars.
    """
    return _command("yinyang", classes, checkpoint_file, (_SEED,), retrain, out, save, progress)


def _command(
    name: str,
    classes: tuple[int, ...],
    checkpoint_file: str,
    seeds: tuple[int, ...],
    retrain: bool,
    out: Path | None,
    save: bool,
    progress: bool,
) -> int:
    plan = EXPERIMENTS[name]
    folder = out or (paths.root() / "out" if checkpoint_file else paths.runs() / f"kae_{name}")
    if checkpoint_file and name in _NOT_SHIPPED:
        raise UserError("wide: the layers of a checkpoint are as wide as they are; leave out wide")
    if save and checkpoint_file:
        raise UserError("save: a surrogate that is shipped is trained here; leave out checkpoint_file")
    if save and classes:
        raise UserError("save: means of the results file are over all classes; leave out classes")
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: expected at least one and none twice, got {list(seeds)}")
    if checkpoint_file and len(seeds) > 1:
        raise UserError("seeds: a checkpoint has one already")
    if save and len(seeds) > 1 and name not in _NOT_SHIPPED:
        raise UserError("save: one surrogate is shipped; give one seed")
    data = [datasets.load(plan.dataset, split) for split in SPLITS]
    if wrong := [c for c in classes if not 0 <= c < len(data[0].class_names)]:
        raise UserError(f"classes: {wrong[0]} is no class, expected 0 to {len(data[0].class_names) - 1}")
    check_writable(folder / f"kae_{name}.json", "out")
    print(f"{data[0].name} ({data[0].source})")
    found = []
    for seed in seeds:
        place = folder if seed == _SEED else folder / f"seed_{seed}"
        found.append(_one(name, plan.with_seed(seed), data, place, classes, checkpoint_file, retrain, progress))
    if len(found) > 1:
        print(f"{len(found)} seeds:")
        for key, value in kae_seeds.means([f.metrics for f in found]).items():
            print(f"{key:<40}{value:.6g}")
    if save:
        _save(name, data[0], found, retrain)
    return 0


def _one(
    name: str,
    plan: Experiment,
    data: Sequence[Any],
    folder: Path,
    classes: Sequence[int],
    checkpoint_file: str,
    retrain: bool,
    progress: bool,
) -> kae_seeds.Found:
    """Train and measure with one seed; what is found is kept in the folder and shown."""
    began = time.monotonic()
    path = _given(checkpoint_file, data) if checkpoint_file else _trained(plan, data, folder, progress)
    retrained = _retrained(plan, data, folder, progress) if retrain and not checkpoint_file else None
    variants = {} if checkpoint_file else _variants(plan, data, folder, progress)
    model, meta = checkpoint.load_as(Surrogate, path)
    rows = None if plan.rows == "train" else datasets.load(plan.dataset, plan.rows)
    metrics, details = measure(plan, model, data, classes, retrained, progress, rows)
    details["variants"] = {
        v: looked_at(experiment.load_surrogate(p)[0], data, plan.forgotten) for v, p in variants.items()
    }
    print(as_text(name, metrics, details))
    target = folder / f"kae_{name}.json"
    files.write_json(target, {"metrics": metrics, "details": details})
    print(f"written to {target}", flush=True)
    return kae_seeds.Found(path, meta, metrics, details, time.monotonic() - began)


def _given(name: str, data: Sequence[Any]) -> Path:
    """A surrogate's file by its name; `UserError` if it is of other data than `data`."""
    path = checkpoint.find(name, Surrogate)
    learnt = checkpoint.load_as(Surrogate, path)[1]["data"]["train"]["name"]
    if learnt != data[0].name:
        raise UserError(f"checkpoint_file: {path.stem} was trained on {learnt!r}, found {data[0].name!r}")
    return path


def _trained(plan: Experiment, data: Sequence[Any], folder: Path, progress: bool) -> Path:
    experiment.train_network(plan.network, data, folder / "network", progress)
    experiment.train_kae(experiment.kae_config(plan, folder), data, folder / "kae", progress)
    return folder / "kae" / "best.safetensors"


def _retrained(plan: Experiment, data: Sequence[Any], folder: Path, progress: bool):
    config = dataclasses.replace(plan.network, without=(plan.forgotten,))
    experiment.train_network(config, data, folder / "without", progress)
    return experiment.load_network(folder / "without")


def _variants(plan: Experiment, data: Sequence[Any], folder: Path, progress: bool) -> dict[str, Path]:
    for variant in plan.variants:
        experiment.train_kae(experiment.kae_config(plan, folder, variant), data, folder / variant, progress)
    return {variant: folder / variant / "best.safetensors" for variant in plan.variants}


def measure(
    plan: Experiment,
    model: Surrogate,
    data: Sequence[Any],
    classes: Sequence[int] = (),
    retrained: Any = None,
    progress: bool = False,
    rows: Any = None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and tables of a surrogate: fidelity, unlearning of each class, baselines, probes, pieces.

    The headline figures are those of one target for all rows of a class and rho = 0.1, as in the public notebook.
    Edits come from `rows` in their order; ``shuffled`` is the same edit from the training samples in theirs.
    """
    train, test = (_observed(model, d) for d in (data[0] if rows is None else rows, data[-1]))
    x = data[-1].to_float()
    classes = tuple(classes) or tuple(range(model.config.classes))
    metrics = experiment.fidelity(model, x, test[1])
    found = experiment.unlearn_each(model, train, test, classes, TARGETS, RHOS, progress)
    for target in TARGETS:
        chosen = [u for edit, u in found if edit.target == target and edit.rho == RHO]
        prefix = "" if target == "shared" else f"{target}_"
        metrics |= {
            f"{prefix}forget_accuracy_mean": statistics.fmean(u.forget_after for u in chosen),
            f"{prefix}forget_accuracy_worst": max(u.forget_after for u in chosen),
            f"{prefix}retain_accuracy_mean": statistics.fmean(u.retain_after for u in chosen),
            f"{prefix}retain_accuracy_worst": min(u.retain_after for u in chosen),
        }
    details: dict[str, Any] = {"edits": [_row(*pair) for pair in found]}
    close = [p for p in found if (p[0].forgotten, p[0].rho) == (plan.forgotten, RHO)]
    if close:
        for edit, one in close:
            prefix = "" if edit.target == "shared" else f"{edit.target}_"
            metrics |= {f"{prefix}forget_accuracy": one.forget_after, f"{prefix}retain_accuracy": one.retain_after}
        before = close[0][1]
        metrics |= {"forgotten": plan.forgotten, "forget_before": before.forget_before}
        metrics["retain_before"] = before.retain_before
        details["by_row"], spread = shared_rows(model, train, test, plan.forgotten)
        metrics |= spread
        others = experiment.baselines(model, data, plan.forgotten, retrained)
        details["baselines"] = [_shares(u) for u in (*(u for _, u in close), *others)]
        probes = experiment.probes(model, data, [edit for edit, _ in close], retrained)
        details["probes"] = {name: [dataclasses.asdict(p) for p in every] for name, every in probes.items()}
        metrics["centroid_probe_forgotten"] = probes["centroid"][-1].forgotten
        metrics["centroid_probe_retained"] = probes["centroid"][-1].retained
        if rows is not None:
            other_order = _observed(model, data[0])
            pair = experiment.unlearn_each(model, other_order, test, [plan.forgotten], ["shared"])[0]
            details["shuffled"] = _row(*pair)
            metrics |= {
                "shuffled_forget_accuracy": pair[1].forget_after,
                "shuffled_retain_accuracy": pair[1].retain_after,
            }
    shape = experiment.pieces(model, x[:PIECES_OF])
    details["pieces"] = {
        "scale": shape.scale,
        "points": shape.points,
        "network": shape.network.tolist(),
        "surrogate": shape.surrogate.tolist(),
        "scales": shape.scales.tolist(),
        "curves": {name: curve[[0, len(curve) // 2, -1]].tolist() for name, curve in shape.curves.items()},
    }
    return metrics, details


def shared_rows(model: Surrogate, train: Any, test: Any, forgotten: int) -> tuple[list[Any], dict[str, float]]:
    """`kae_experiment.by_row`, its medians, and two shares.

    They are of the rows whose choice leaves at most 1 % of the class, and of those whose target is read as the class.
    """
    found = experiment.by_row(model, rows_of(*train, forgotten), test)
    left, others, inside = zip(*found, strict=True)
    return [list(f) for f in found], {
        "forget_accuracy_median_row": statistics.median(left),
        "retain_accuracy_median_row": statistics.median(others),
        "rows_that_forget": sum(v <= 0.01 for v in left) / len(left),
        "rows_read_as_the_class": sum(inside) / len(inside),
    }


def looked_at(model: Surrogate, data: Sequence[Any], forgotten: int) -> dict[str, Any]:
    """Of a variant: accuracy, distances, and what is left of a class, for each kind of target."""
    train, test = (_observed(model, d) for d in (data[0], data[-1]))
    x = data[-1].to_float()
    found = experiment.unlearn_each(model, train, test, range(model.config.classes), rhos=RHOS)
    fidelity = experiment.fidelity(model, x, test[1])
    kept = ("accuracy_test", "distance_r_first", "distance_ratio_first", "fvu_state")
    return {name: fidelity[name] for name in kept} | {"edits": [_row(*pair) for pair in found]}


def _observed(model: Surrogate, data: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return experiment.observe(model, data.to_float()), data.labels


def _row(edit: Edit, found: Unlearning) -> dict[str, Any]:
    kept = {k: v for k, v in dataclasses.asdict(edit).items() if k != "operator"}
    return kept | _shares(found)


def _shares(found: Unlearning) -> dict[str, Any]:
    names = ("forget_before", "forget_after", "retain_before", "retain_after")
    return dataclasses.asdict(found) | {name: getattr(found, name) for name in names}


def as_text(name: str, metrics: dict[str, float], details: dict[str, Any]) -> str:
    """Figures beside the paper's, then a line for each edit and each baseline."""
    lines, paper = [], PAPER[name.removesuffix("_wide")]
    for key, value in metrics.items():
        beside = f" (paper {paper[key]})" if key in paper else ""
        lines.append(f"{key:<32}{value:.6g}{beside}")
    lines.append(f"{'method':<22}{'class':>6}{'rho':>7}{'forgotten':>22}{'others':>22}")
    for row in [*details["edits"], *details.get("baselines", [])[len(TARGETS) :]]:
        cells = (f"{100 * row[f'{k}_before']:.2f} -> {100 * row[f'{k}_after']:.2f} %" for k in ("forget", "retain"))
        rho = f"{row['rho']:g}" if "rho" in row else ""
        lines.append(f"{row['method']:<22}{row['forgotten']:>6}{rho:>7}" + "".join(f"{c:>22}" for c in cells))
    return "\n".join(lines)


def _save(name: str, data: Any, found: Sequence[kae_seeds.Found], retrain: bool) -> None:
    """Ship the surrogate as it is, unless it is too large, and write the results file."""
    if data.source != "real":
        raise UserError(f"save: {data.name} is a stand-in, and kae_{name} is a result on the real data")
    target = None
    if name not in _NOT_SHIPPED:
        tensors, _ = checkpoint.read(found[0].path)
        target = checkpoint.save(paths.checkpoints() / f"kae_{name}.safetensors", tensors, found[0].meta)
    dataset, _, wide = name.partition("_")
    seeds = [f.meta["train"]["seed"] for f in found]
    options = ["--wide"] * bool(wide) + [f"--seeds {' '.join(map(str, seeds))}"] * (seeds != [_SEED])
    command = " ".join([f"kpm kae {dataset}", *options, *["--no-retrain"] * (not retrain), "--save"])
    result = kae_seeds.result(f"kae_{name}", data, found, PAPER[dataset], NOTES[name], command, target)
    print(f"saved to {results.save(result).name}; kpm results --readme renews the table")

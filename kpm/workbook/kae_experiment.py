"""What `kpm kae` trains and measures: a classifier, a Koopman autoencoder of its layers, and what unlearning does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from kpm import paths
from kpm.analysis import topology
from kpm.analysis.representations import class_accuracy, distance_correlation, layer_states, unexplained
from kpm.analysis.unlearning import TARGETS, Edit, Rows, Unlearning, forget, rows_of, targets, unlearning_report
from kpm.analysis.unlearning_baselines import Probe, direction_projection, masking, probe, report
from kpm.models.res_mlp import ResMLP
from kpm.models.surrogate import Surrogate
from kpm.training import checkpoint
from kpm.training.classifier import ClassifierTask, ClassifierTrainConfig
from kpm.training.fit import FitResult, fit
from kpm.training.kae import KAETask, KAETrainConfig

RHOS = (0.01, 0.1, 1.0)
RHO = 0.1  # the published one


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A dataset, what is trained on it, and the class whose unlearning is looked at closely.

    Edits come from the samples of the split `rows`, in their order. `variants` are further autoencoders of the same
    classifier, by name.
    """

    dataset: str
    network: ClassifierTrainConfig
    kae: KAETrainConfig
    forgotten: int
    rows: str = "train"
    variants: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def with_seed(self, seed: int) -> Experiment:
        """The same with another seed of weights and order."""
        network, kae = (dataclasses.replace(config, seed=seed) for config in (self.network, self.kae))
        return dataclasses.replace(self, network=network, kae=kae)


# Yin-Yang: sizes, steps and weight of the distances as published; MNIST: all layers a sixth as wide as published.
_YINYANG = KAETrainConfig(
    hidden=30, lifted=20, steps=100, distance_weight=1.0, epochs=150, batch_size=500, learning_rate=1e-2
)
EXPERIMENTS = {
    # The published training file as it is, 5842 rows of digit 4: which of them is the first one matters.
    "mnist": Experiment(
        "mnist",
        ClassifierTrainConfig(),
        KAETrainConfig(),
        forgotten=4,
        rows="paper-train",
        variants={"distance_1e-1": {"distance_weight": 0.1}, "distance_1": {"distance_weight": 1.0}},
    ),
    "mnist_wide": Experiment(
        "mnist",
        ClassifierTrainConfig(width=784, learning_rate=1e-3),
        KAETrainConfig(hidden=1000, lifted=800, learning_rate=2e-3),
        forgotten=4,
        rows="paper-train",
    ),
    "yinyang": Experiment(
        "yinyang",
        ClassifierTrainConfig(
            dataset="yinyang", width=10, blocks=5, epochs=200, batch_size=500, learning_rate=1e-2, weight_decay=1e-3
        ),
        _YINYANG,
        forgotten=2,
        variants={
            "distance_1e-3": {"distance_weight": 1e-3},
            "distance_0": {"distance_weight": 0.0},
            "lifted_80": {"hidden": 120, "lifted": 80},
        },
    ),
}


def relative(path: Path) -> str:
    """A path as it may stand in a checkpoint: from the workbook's folder, or as it is outside of it."""
    path = path.resolve()
    return path.relative_to(paths.root()).as_posix() if path.is_relative_to(paths.root()) else str(path)


def train_network(config: ClassifierTrainConfig, data: Sequence[Any], folder: Path, progress: bool = True) -> FitResult:
    """Train a classifier in a folder, or go on there."""
    task = ClassifierTask(config, *data[:2], torch.device("cpu"))
    return _finished(fit(task, config, folder, resume=True, progress_bar=progress, title=folder.name))


def train_kae(config: KAETrainConfig, data: Sequence[Any], folder: Path, progress: bool = True) -> FitResult:
    """Train a Koopman autoencoder of the classifier that its config names, or go on there."""
    task = KAETask(config, *data[:2], torch.device("cpu"))
    return _finished(fit(task, config, folder, resume=True, progress_bar=progress, title=folder.name))


def _finished(result: FitResult) -> FitResult:
    if not result.finished:
        raise KeyboardInterrupt  # a signal came and all is saved: nothing is measured on half a training
    return result


def kae_config(experiment: Experiment, folder: Path, variant: str = "", **changes: Any) -> KAETrainConfig:
    """The autoencoder's run whose classifier lies in ``folder/network``."""
    network = relative(folder / "network" / "best.safetensors")
    return dataclasses.replace(experiment.kae, network=network, **experiment.variants.get(variant, {}), **changes)


@torch.no_grad()
def observe(model: Surrogate, x: Tensor) -> Tensor:
    """Observables of the first layer, ``(n, lifted)``, in batches."""
    return torch.cat([model.observe(part) for part in x.split(5000)])


def ends(network: ResMLP) -> tuple[str, str]:
    """Names of the first and the last layer."""
    return network.layers[0], network.layers[-1]


@torch.no_grad()
def fidelity(model: Surrogate, x: Tensor, labels: Tensor) -> dict[str, float]:
    """How well the surrogate stands in for the network on samples `x`: accuracies, agreement, variance left, distances.

    Accuracies are means over classes. Distance correlations are those of the first and of the last layer.
    """
    own, ours = model.network(x), model(x)
    states = model.alignment(layer_states(model.network, x, ends(model.network)))
    classes, found = model.config.classes, {}
    for name, logits in (("network_accuracy_test", own), ("accuracy_test", ours)):
        found[name] = float(class_accuracy(logits, labels, classes).mean())
    found["agreement"] = float((own.argmax(1) == ours.argmax(1)).double().mean())
    found |= {f"fvu_{name}": value for name, value in unexplained(model.kae, states).items()}
    for name, layer in (("first", states[:, 0]), ("last", states[:, -1])):
        r, ratio = distance_correlation(layer, model.kae.encode(layer))
        found |= {f"distance_r_{name}": r, f"distance_ratio_{name}": ratio}
    return found


@torch.no_grad()
def unlearn_each(
    model: Surrogate,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: Sequence[int],
    kinds: Sequence[str] = TARGETS,
    rhos: Sequence[float] = (RHO,),
    progress: bool = False,
) -> list[tuple[Edit, Unlearning]]:
    """Forget each class in turn, with each kind of target and each rho.

    Parameters
    ----------
    train, test : (Tensor, Tensor)
        Observables of the first layer and labels: edits come from the first pair and are judged on the second.
    """
    operator, found = model.kae.power(), []
    for c in tqdm(classes, desc="unlearning", disable=not progress):
        rows = rows_of(*train, c)
        for kind in kinds:
            wanted = targets(operator, rows.clean, rows.labels, rows.harmful, kind)
            for rho in rhos:
                edit = forget(rows, operator, kind, rho, wanted)
                found.append((edit, unlearning_report(model, *test, edit)))
    return found


@torch.no_grad()
def by_row(
    model: Surrogate, rows: Rows, test: tuple[Tensor, Tensor], count: int = 20, rho: float = RHO
) -> list[tuple[float, float, bool]]:
    """What is left of a class and of the others, for `count` choices of the row whose neighbour is the shared target.

    Published is the first row; which one that is, is chance. The third value: is the target itself read as the class?
    """
    operator, found = model.kae.power(), []
    chosen = torch.linspace(0, len(rows.harmful) - 1, count).round().long().unique()
    wanted = targets(operator, rows.clean, rows.labels, rows.harmful[chosen], "nearest")
    inside = (model.read(wanted).argmax(1) == rows.forgotten).tolist()
    for one_place, is_inside in zip(wanted.split(1), inside, strict=True):
        one = unlearning_report(model, *test, forget(rows, operator, "shared", rho, one_place))
        found.append((one.forget_after, one.retain_after, is_inside))
    return found


@torch.no_grad()
def baselines(
    model: Surrogate, data: Sequence[Any], forgotten: int, retrained: ResMLP | None = None
) -> list[Unlearning]:
    """Other ways to lose a class, on the network itself: masking, projection, and training without it."""
    train, test = data[0], data[-1]
    x, network = test.to_float(), model.network
    logits = network(x)
    found = [masking(logits, test.labels, forgotten)]
    last, held_out = (layer_states(network, v, ends(network))[:, -1] for v in (train.to_float(), x))
    found.append(direction_projection(last, train.labels, forgotten, held_out, test.labels, network.read))
    if retrained is not None:
        found.append(report("trained without it", logits, retrained(x), test.labels, forgotten))
    return found


@torch.no_grad()
def probes(
    model: Surrogate, data: Sequence[Any], edits: Sequence[Edit], retrained: ResMLP | None = None
) -> dict[str, list[Probe]]:
    """Linear read-outs learnt anew from observables of the last layer: before any edit, and after each, by target.

    Two controls say what a read-out finds where the class was never learnt: ``"without"``, from the last layer of the
    network `retrained` without it, and ``"pixels"``, from the samples as they are.
    """
    x, x_test = data[0].to_float(), data[-1].to_float()
    z, z_test = (observe(model, v).double() for v in (x, x_test))
    operators = {"before": model.kae.power().double()} | {edit.target: edit.operator for edit in edits}
    pairs = {name: (z @ k, z_test @ k) for name, k in operators.items()}
    if retrained is not None:
        pairs["without"] = tuple(layer_states(retrained, v, ends(retrained))[:, -1] for v in (x, x_test))
    pairs["pixels"] = (x.flatten(1), x_test.flatten(1))
    return {
        name: probe(ours, data[0].labels, held_out, data[-1].labels, edits[0].forgotten)
        for name, (ours, held_out) in pairs.items()
    }


@dataclasses.dataclass(frozen=True)
class Topology:
    """Numbers of pieces of the network's layers and of the surrogate's way, at one scale for both and at many.

    Attributes
    ----------
    scale : float
        In units of a cloud's root-mean-square radius: where the network's last layer has as many pieces as classes.
    network, surrogate : int array ``(layers,)`` and ``(steps + 1,)``
        Pieces at `scale`.
    scales : array ``(s,)``
    curves : dict of str to int array ``(..., s)``
        Pieces of ``"network"`` and ``"surrogate"`` at each of `scales`.
    points : int
    """

    scale: float
    network: np.ndarray
    surrogate: np.ndarray
    scales: np.ndarray
    curves: dict[str, np.ndarray]
    points: int


@torch.no_grad()
def pieces(model: Surrogate, x: Tensor, largest: float = 1.2) -> Topology:
    """Pieces of the point clouds of each layer of the network, and of each step of the surrogate, for samples `x`.

    Every cloud is centred and has a root-mean-square radius of 1, so that one scale means the same in all of them.
    """
    layers = layer_states(model.network, x, model.network.layers)
    path = model.kae.path(model.alignment.apply_to(layers[:, 0], 0))
    edges = {
        name: [topology.tree_edges(cloud) for cloud in unit(states).movedim(1, 0).numpy()]
        for name, states in (("network", layers), ("surrogate", path))
    }
    scale = topology.scale_of(edges["network"][-1], model.config.classes)
    scales = np.linspace(0, largest, 61)
    curves = {name: np.stack([topology.betti_0(e, scales) for e in every]) for name, every in edges.items()}
    at = {name: np.array([int(topology.betti_0(e, [scale])[0]) for e in every]) for name, every in edges.items()}
    return Topology(scale, at["network"], at["surrogate"], scales, curves, len(x))


def unit(states: Tensor) -> Tensor:
    """Clouds ``(n, layers, d)``, each centred and of root-mean-square radius 1, float64."""
    x = states.double() - states.double().mean(0)
    return x / x.square().sum(-1).mean(0).sqrt().unsqueeze(-1)


def load_network(folder: Path) -> ResMLP:
    """The best classifier of a run."""
    return checkpoint.load_as(ResMLP, folder / "best.safetensors")[0]


def load_surrogate(path: Path) -> tuple[Surrogate, dict[str, Any]]:
    """The surrogate of a checkpoint and its meta."""
    return checkpoint.load_as(Surrogate, path)

"""Training of a Koopman autoencoder on the layers of a trained classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kpm import datasets
from kpm.analysis.representations import layer_states
from kpm.errors import UserError, pick
from kpm.models.kae import OPERATORS, TERMS, kae_terms
from kpm.models.res_mlp import ResMLP
from kpm.models.surrogate import Surrogate, SurrogateConfig
from kpm.training import checkpoint
from kpm.training.fit import FitConfig
from kpm.training.run_folder import about


@dataclasses.dataclass(frozen=True)
class KAETrainConfig(FitConfig):
    """A run; steps and weights of the loss as published for MNIST."""

    network: str = "runs/classifier_mnist/best.safetensors"
    """Checkpoint of the classifier (`kpm train classifier`), from here or from the workbook's folder; it also says on
    which data."""
    hidden: int = 160
    """Width of the hidden layer of encoder and decoder."""
    lifted: int = 144
    """Observables; more than a layer is wide, since lifting is the point."""
    components: int = 0
    """Principal axes of each layer that are kept; 0 for all, as published."""
    steps: int = 10
    """Applications of the operator from the first to the last layer."""
    operator: Literal["exp", "full", "low-rank"] = "exp"
    """exp(X / steps) with a free X, a free matrix, or one of rank `rank`."""
    rank: int = 0
    """Of the low-rank operator."""
    all_layers: bool = False
    """Learn from every pair of layers; as published, from the first and the last only."""
    reconstruction_weight: float = 1.0
    """Of the loss of decoding what was encoded."""
    state_weight: float = 1.0
    """Of the loss of the predicted last state."""
    linear_weight: float = 1.0
    """Of the loss of its predicted observables."""
    distance_weight: float = 1e-3
    """Of the loss of changed distances; published are 1e-3 for MNIST, 1 for Yin-Yang."""
    epochs: int = 12
    """Passes over the training data."""
    batch_size: int = 512
    """Samples per step."""
    learning_rate: float = 5e-3
    """Of Adam, at its highest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        pick("operator", self.operator, OPERATORS)
        for name in TERMS:
            if not getattr(self, f"{name}_weight") >= 0:
                raise UserError(f"{name}_weight must not be negative, got {getattr(self, f'{name}_weight')}")

    @property
    def weights(self) -> dict[str, float]:
        """Of the terms of the loss, by their names."""
        return {name: getattr(self, f"{name}_weight") for name in TERMS}

    def quick(self) -> KAETrainConfig:
        """A minute on two cores."""
        return dataclasses.replace(self, epochs=2, hidden=128, lifted=96, components=64)


def _find(config: KAETrainConfig) -> Path:
    return checkpoint.find(config.network, ResMLP, "network")


def data(config: KAETrainConfig) -> tuple[Any, Any]:
    """The splits that the network of a config was trained and validated on."""
    known = checkpoint.read(_find(config))[1]["data"]
    found = tuple(datasets.load(d["name"], d["split"]) for d in (known["train"], known["validation"]))
    if found[0].name != known["train"]["name"]:
        raise UserError(f"the network was trained on {known['train']['name']!r}, found {found[0].name!r}")
    return found


class KAETask:
    """States of the first and the last layer of a classifier; a task of `kpm.training.fit`.

    The model is a `Surrogate`: it holds the classifier, which stays as it is.
    """

    def __init__(self, config: KAETrainConfig, train, validation, device: torch.device):
        self.config, self.about = config, about(train, validation)
        network = checkpoint.load_as(ResMLP, _find(config), device)[0]
        sizes = dataclasses.asdict(network.config)
        components = config.components or network.config.width
        if components > network.config.width:
            raise UserError(f"components: {components} of a layer of width {network.config.width}")
        torch.manual_seed(config.seed)
        kae = {name: getattr(config, name) for name in ("hidden", "lifted", "steps", "operator", "rank")}
        self.model = Surrogate(SurrogateConfig(**sizes, components=components, **kae)).to(device)
        self.model.network.load_state_dict(network.state_dict())
        layers = network.layers if config.all_layers else (network.layers[0], network.layers[-1])
        states, held_out = (layer_states(network, d.to_float().to(device), layers) for d in (train, validation))
        self.model.alignment.fit(states[:, [0, -1]])
        self.states, self.held_out = (_aligned(self.model, s, states) for s in (states, held_out))
        self.x, self.labels = validation.to_float().to(device), validation.labels.to(device)

    def batches(self, size: int, draw: torch.Generator) -> Sequence[Tensor]:
        return torch.randperm(len(self.states), generator=draw).to(self.states.device).split(size)

    def loss(self, index: Tensor) -> dict[str, Tensor]:
        return self._weighted(self.states[index])

    def validate(self) -> dict[str, float]:
        parts = self.held_out.split(1000)
        found = [{name: float(v) for name, v in self._weighted(part).items()} for part in parts]
        terms = {
            name: sum(f[name] * len(p) for f, p in zip(found, parts, strict=True)) / len(self.held_out)
            for name in found[0]
        }
        right = torch.cat([self.model(x).argmax(-1) for x in self.x.split(2000)]) == self.labels
        return {"loss": sum(terms.values()), **terms, "accuracy": float(right.double().mean())}

    def _weighted(self, states: Tensor) -> dict[str, Tensor]:
        return {k: self.config.weights[k] * v for k, v in kae_terms(self.model.kae, states).items()}


def _aligned(model: Surrogate, states: Tensor, fitted: Tensor) -> Tensor:
    """States ``(n, layers, width)`` in common coordinates; layers between the two ends by an alignment of their own."""
    if states.shape[1] == 2:
        return model.alignment(states)
    from kpm.models.alignment import LayerAlignment

    every = LayerAlignment(fitted.shape[1], *model.alignment.maps.shape[1:]).to(fitted.device).fit(fitted)
    return every(states)

"""The methods of the quad-link comparison: how each is fitted to films."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kpm.datasets.quad_link_images import QuadLinkFilms
from kpm.errors import UserError
from kpm.models.baselines.dse_films import DSEPredictor
from kpm.models.baselines.linear_films import KernelConfig, KernelPredictor, LinearConfig, LinearPredictor
from kpm.models.baselines.lstm import LSTMConfig, LSTMPredictor
from kpm.models.baselines.ncdssm import NCDSSM, NCDSSMConfig
from kpm.models.baselines.predictor import FilmPredictor
from kpm.models.baselines.rkn import RKN, RKNConfig
from kpm.models.dse_networks import DSEConfig
from kpm.training import checkpoint
from kpm.training.dse import DSETrainConfig
from kpm.training.dse import train as train_dse
from kpm.training.films import FilmsTask, FilmsTrainConfig
from kpm.training.fit import fit

# DSE with one component changed: in its sizes, and in its training.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dse_plain": ({"components": 0, "heads": 1}, {}),  # as published: codes of the network alone
    "dse_joint": ({}, {"schedule": "joint"}),
    "dse_learned": ({}, {"closed_form": False}),
    # There is no realization that could be trained first.
    "dse_codes": ({"realized": False, "window": 1, "heads": 1}, {"stage_one": 0}),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of all methods, as published, and how long those are trained that are trained."""

    linear: LinearConfig = dataclasses.field(default_factory=LinearConfig)
    kernel: KernelConfig = dataclasses.field(default_factory=KernelConfig)
    rkn: RKNConfig = dataclasses.field(default_factory=RKNConfig)
    lstm: LSTMConfig = dataclasses.field(default_factory=LSTMConfig)
    ncdssm: NCDSSMConfig = dataclasses.field(default_factory=NCDSSMConfig)
    dse: DSEConfig = dataclasses.field(default_factory=DSEConfig.quad_link)
    films: FilmsTrainConfig = dataclasses.field(default_factory=FilmsTrainConfig)
    dse_train: DSETrainConfig = dataclasses.field(default_factory=DSETrainConfig.images)

    def quick(self) -> Settings:
        """Small networks and seconds of training, to see that all of it works."""
        return Settings(
            linear=LinearConfig.quick(),
            kernel=KernelConfig.quick(),
            rkn=RKNConfig.quick(),
            lstm=LSTMConfig.quick(),
            ncdssm=NCDSSMConfig.quick(),
            dse=DSEConfig.quad_link(
                code=20, components=8, rank=6, window=8, state_features=12, observation_features=12
            ),
            films=self.films.quick(),
            dse_train=dataclasses.replace(self.dse_train, stage_one=1, stage_two=2, readout_steps=10, segment=200),
        )

    def trained(self, epochs: int = 0, dse_epochs: int = 0) -> Settings:
        """With other numbers of epochs; of those of DSE, a twenty-fifth belongs to the first stage."""
        films, dse_train = self.films, self.dse_train
        if epochs:
            films = dataclasses.replace(films, epochs=epochs)
        if dse_epochs:
            first = dse_epochs // 25
            dse_train = dataclasses.replace(dse_train, stage_one=first, stage_two=dse_epochs - first)
        return dataclasses.replace(self, films=films, dse_train=dse_train)

    def variant(self, method: str) -> Settings:
        """These, with the changes of a variant of DSE."""
        sizes, training = VARIANTS.get(method, ({}, {}))
        if training.get("stage_one") == 0:  # as many epochs as the others
            training = training | {"stage_two": self.dse_train.epochs}
        dse, dse_train = dataclasses.replace(self.dse, **sizes), dataclasses.replace(self.dse_train, **training)
        return dataclasses.replace(self, dse=dse, dse_train=dse_train)

    def of(self, method: str) -> dict[str, Any]:
        """What says how one method is fitted, as plain values."""
        names = {"linear": ("linear",), "elto": ("kernel",), **dict.fromkeys(("dse", *VARIANTS), ("dse", "dse_train"))}
        chosen = self.variant(method)
        return {name: dataclasses.asdict(getattr(chosen, name)) for name in names.get(method, (method, "films"))}


@dataclasses.dataclass(frozen=True)
class Job:
    """Films to learn from, films that choose among what was learnt, a folder for a run, and a seed."""

    train: QuadLinkFilms
    validation: QuadLinkFilms
    folder: Path
    seed: int
    settings: Settings


def linear(job: Job) -> FilmPredictor:
    return LinearPredictor.fit(job.train.frames, job.settings.linear)


def elto(job: Job) -> FilmPredictor:
    return KernelPredictor.fit(job.train.frames, job.validation.frames, job.settings.kernel)


def deep_spectral_encoder(variant: str) -> Callable[[Job], FilmPredictor]:
    def learn(job: Job) -> FilmPredictor:
        settings = job.settings.variant(variant)
        config = dataclasses.replace(settings.dse_train, seed=job.seed)
        found = train_dse(job.train.frames, settings.dse, config)
        about = {"trial": job.seed, "size": job.train.size, "corrupted": job.train.corrupted is not None}
        about |= {"train": dataclasses.asdict(config), "wall_s": round(found.wall_s, 1)}
        checkpoint.save_model(job.folder / "best.safetensors", found.model, about)
        return DSEPredictor(found.model)

    return learn


def network(make: Callable[[Settings], nn.Module]) -> Callable[[Job], FilmPredictor]:
    """A method that is trained by `kpm.training.fit`; it is resumed where it was stopped."""

    def learn(job: Job) -> FilmPredictor:
        config = dataclasses.replace(job.settings.films, seed=job.seed)
        torch.manual_seed(job.seed)
        about = {
            part: {"name": "quad_link", "source": "synthetic", "split": films.split, "sequences": len(films)}
            | {"seed": films.seed, "corrupted": films.corrupted is not None}
            for part, films in (("train", job.train), ("validation", job.validation))
        }
        task = FilmsTask(make(job.settings), job.train.frames, job.validation.frames, config, about)
        result = fit(task, config, job.folder, resume=True, progress_bar=False)
        if not result.finished:
            raise UserError(f"{job.folder.name}: stopped by signal {result.signal}; run again to go on")
        weights, _ = checkpoint.read(job.folder / "best.safetensors")
        task.model.load_state_dict(weights)
        return task.model.eval()

    return learn


METHODS: dict[str, Callable[[Job], FilmPredictor]] = {
    "linear": linear,
    "elto": elto,
    "rkn": network(lambda s: RKN(s.rkn)),
    "lstm": network(lambda s: LSTMPredictor(s.lstm)),
    "ncdssm": network(lambda s: NCDSSM(s.ncdssm)),
    **{variant: deep_spectral_encoder(variant) for variant in ("dse", *VARIANTS)},
}

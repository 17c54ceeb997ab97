"""What ``kpm train`` can fit besides Koopman autoencoders and judges: a config and a task for each name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kpm import datasets
from kpm.training import copy_memory, kae
from kpm.training.beats import BeatsTask, BeatsTrainConfig
from kpm.training.classifier import ClassifierTask, ClassifierTrainConfig
from kpm.training.copy_memory import CopyTask, CopyTrainConfig
from kpm.training.fit import FitConfig
from kpm.training.kae import KAETask, KAETrainConfig
from kpm.training.sentiment import SentimentTask, SentimentTrainConfig
from kpm.training.sim import SIMTask, SIMTrainConfig


def load(config: Any) -> tuple[Any, Any]:
    """Training and held-out split of the dataset a config names."""
    train, validation = (
        datasets.load(config.dataset, split, config.source) for split in (config.train_split, config.validation_split)
    )
    return train, validation


class Entry(NamedTuple):
    """The defaults of a run, what makes its task of two datasets, what is learnt, in words, and where data comes from.

    `data` makes the training and the held-out data of a config.
    """

    config: type[FitConfig]
    task: type
    text: str
    data: Callable[[Any], tuple[Any, Any]] = load


TASKS = {
    "sentiment": Entry(SentimentTrainConfig, SentimentTask, "a recurrent network to judge reviews"),
    "ecg": Entry(BeatsTrainConfig, BeatsTask, "a recurrent autoencoder of normal heartbeats"),
    "copy": Entry(CopyTrainConfig, CopyTask, "a recurrent network to repeat symbols after a delay", copy_memory.data),
    "classifier": Entry(ClassifierTrainConfig, ClassifierTask, "a classifier whose layers all have one width"),
    "sim": Entry(SIMTrainConfig, SIMTask, "a stable invariant or an equilibrium model to classify images"),
    "kae": Entry(KAETrainConfig, KAETask, "a Koopman autoencoder of a classifier's layers", kae.data),
}

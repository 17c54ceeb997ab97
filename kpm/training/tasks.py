"""What ``kpm train`` can fit besides Koopman autoencoders and judges: a config and a task for each name."""

from __future__ import annotations

from typing import NamedTuple

from kpm.training.beats import BeatsTask, BeatsTrainConfig
from kpm.training.fit import FitConfig
from kpm.training.sentiment import SentimentTask, SentimentTrainConfig


class Entry(NamedTuple):
    """The defaults of a run, what makes its task of two datasets, and what is learnt, in words."""

    config: type[FitConfig]
    task: type
    text: str


TASKS = {
    "sentiment": Entry(SentimentTrainConfig, SentimentTask, "a recurrent network to judge reviews"),
    "ecg": Entry(BeatsTrainConfig, BeatsTask, "a recurrent autoencoder of normal heartbeats"),
}

"""The same trainings by one process or, under torchrun, by several: ``-m tests.training.team_runs FOLDER``."""

import dataclasses
import sys
from pathlib import Path

import torch

from kpm.training.fit import FitConfig, fit
from kpm.training.loop import train
from kpm.training.team import Team
from tests.training.conftest import moving_squares, small
from tests.training.test_fit import Regression

FIT = FitConfig(epochs=8, batch_size=8, learning_rate=0.1)


def films(split: str, n: int):
    """Squares of four frames."""
    data = moving_squares(split, n)
    return dataclasses.replace(data, shape=(4, 3, 64, 64), compose=lambda chosen: data.compose(chosen)[:, 1::2])


def config(method: str, **changes):
    return small(method, **({"steps": 50, "precision": "64-true", "width": 2, "static_noise": 0.1} | changes))


def learn(folder: Path, team: Team, **changes):
    options = {"data": (films("train", 21), films("validation", 5)), "team": team, "progress_bar": False}
    return train(config(**changes), folder, resume=True, **options)


def regression() -> Regression:
    task = Regression()
    task.model.drop = torch.nn.Identity()  # each process would draw its own mask
    task.model.double()
    task.x, task.y = task.x.double(), task.y.double()
    return task


def main(folder: Path) -> None:
    team = Team(torch.device("cpu"))
    learn(folder / "skd", team, method="skd", batch_size=2)
    learn(folder / "ssm-skd", team, method="ssm-skd", accumulate=2, steps=12)
    learn(folder / "shrunk", team, method="ssm-skd", steps=4)
    learn(folder / "grown", team, method="ssm-skd", steps=6)
    fit(regression(), FIT, folder / "fit", team=team, progress_bar=False)
    fit(regression(), FIT, folder / "parts", team=team, accumulate=3, progress_bar=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Searches with real workers on tiny trainings: one of them is killed, all are stopped, a journal is damaged."""

import dataclasses
import json
import os
import signal

import optuna
import psutil
import pytest

from kpm.training import search
from kpm.workbook import search_run
from kpm.workbook.search_worker import Job
from tests.training.conftest import moving_squares, small

STEPS = 16


def squares(config):
    return moving_squares("train", 21), moving_squares("validation", 5)


def job(folder, trials=4, **changes):
    config = small(steps=STEPS)
    ranges = {"w_eigenvalues": search.Range(0.25, 4, log=True), "latent_dim": search.Range(8, 12, whole=True)}
    plain = Job(config, trials, str(folder / "journal.log"), "squares", folder, ranges, data=squares, save_every_s=0.2)
    return dataclasses.replace(plain, **changes)


def check(found, wanted):
    """Every place has exactly one finished trial."""
    assert [place.number for place in found.places] == list(range(wanted)) and found.finished
    for place in found.places:
        assert place.state == "complete"
        assert all(t.state == optuna.trial.TrialState.FAIL for t in place.attempts[:-1])


def children():
    return [p for p in psutil.Process().children(recursive=True) if "resource_tracker" not in " ".join(p.cmdline())]


class KillOne:
    """Kills the worker of the first trial that is in the middle of its training."""

    def __init__(self, job):
        self.job, self.killed = job, None

    def look(self):
        study, _ = search_run.open_study(self.job)
        for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            if self.killed is None and "report" in trial.user_attrs:
                self.killed = trial.number
                os.kill(trial.user_attrs["worker"]["pid"], signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(tmp_path, monkeypatch):
    plan = job(tmp_path)
    killer = KillOne(plan)
    real = search_run.search.repair
    monkeypatch.setattr(
        search_run.search, "repair", lambda *args: (killer.look() if not killer.killed else 0, real(*args))[1]
    )
    found = search_run.run(plan, workers=2)
    check(found, 4)
    assert found.died == 1 and killer.killed is not None
    assert sum(len(place.attempts) for place in found.places) == 5
    assert not children()
    weights = sorted(path.parent.name for path in tmp_path.glob("trials/*/*.safetensors"))
    assert weights == [f"{found.best.number:05d}"]
    kept = json.loads((tmp_path / "trials" / weights[0] / "trial.json").read_text())
    assert kept["metrics"] == found.best.last.user_attrs["metrics"] and kept["metrics"]["mse"] == found.best.last.value
    assert kept["config"]["w_eigenvalues"] == found.best.last.params["w_eigenvalues"]
    assert kept["config"]["seed"] == found.best.last.user_attrs["seed"] and "torch" in kept["environment"]
    study, _ = search_run.open_study(plan)
    assert found.best.last.user_attrs["report"] in study.user_attrs

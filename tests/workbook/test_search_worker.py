"""What a worker does with its trials, in this process: some are stopped at a rung, some diverge."""

import dataclasses
import json

import pytest

from kpm.training import search
from kpm.workbook import search_run, search_worker
from tests.training.conftest import moving_squares, small


def squares(config):
    return moving_squares("train", 8), moving_squares("validation", 2)


def worked(folder, ranges, **changes):
    job = search_worker.Job(small(steps=9), 5, str(folder / "journal.log"), "s", folder, ranges, data=squares)
    job = dataclasses.replace(job, **changes)
    study, storage = search_run.open_study(job)
    search_worker._work(job, study, storage, search_worker._Stop())
    return job, search.places(study.get_trials(), job.trials)


def test_asha_stops_trials_and_only_the_best_keeps_its_weights(tmp_path):
    ranges = {"learning_rate": search.Range(1e-5, 1e-2, log=True)}
    job, found = worked(tmp_path, ranges, sampler="tpe", pruner="asha")
    states = [place.state for place in found]
    assert states[0] == "complete" and "pruned" in states and set(states) == {"complete", "pruned"}
    for place in found:
        steps = list(place.last.intermediate_values)
        assert steps == [1, 3] if place.state == "complete" else steps in ([1], [1, 3])
    best = search.best(found)
    kept = [path.parent.name for path in tmp_path.glob("trials/*/*.safetensors")]
    assert kept == [f"{best.number:05d}"]
    said = json.loads((job.trial_folder(best.number) / "trial.json").read_text())
    assert said["config"]["learning_rate"] == best.last.params["learning_rate"]


def test_settings_that_diverge_are_a_result(tmp_path):
    job, found = worked(tmp_path, {"learning_rate": search.Range(1e30, 1e31)}, trials=2)
    assert [(place.state, len(place.attempts)) for place in found] == [("failed", 1)] * 2
    assert all(place.last.user_attrs["error"].startswith("NonFiniteLoss: ") for place in found)
    assert search.best(found) is None and not list(tmp_path.glob("trials/*/*.safetensors"))
    with pytest.raises(search_worker.UserError, match="trials that study 'other' does not know"):
        search_run.open_study(dataclasses.replace(job, study="other"))

"""What a worker does with its trials, in this process: some are stopped at a rung, some diverge."""

import dataclasses
import fcntl
import json
import signal
import threading
import time

import numpy as np
import optuna
import pytest

from kpm.training import search, search_trial
from kpm.workbook import search_run, search_worker
from tests.training.conftest import moving_squares, small


def squares(config):
    return moving_squares("train", 8), moving_squares("validation", 2)


def plan(folder, ranges, **changes):
    job = search_worker.Job(small(steps=9), 5, str(folder / "journal.log"), "s", folder, ranges, data=squares)
    return dataclasses.replace(job, **changes)


def worked(folder, ranges, **changes):
    return work(plan(folder, ranges, **changes))


def work(job, stop=None):
    """What a worker process does once it has opened the study, as it opens it."""
    _, storage = search_run.open_study(job)
    study = optuna.load_study(study_name=job.study, storage=storage)
    search_worker._work(job, study, storage, stop or search_worker._Stop())
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


RATES = {"learning_rate": search.Range(1e-5, 1e-2, log=True), "threshold": search.Range(0.1, 0.9)}


@pytest.fixture
def trained(monkeypatch):
    """Trainings that take no time and give the learning rate for their error; a list of what to raise instead."""
    raised = []

    def run(config, folder, data, rungs, **how):
        if raised:
            raise raised.pop(0)
        return {"mse": config.learning_rate, "step": 9, "steps": 9}

    monkeypatch.setattr(search_trial, "run", run)
    monkeypatch.setattr(search_worker, "_kept_report", lambda study, seed: ("report", {}))
    return raised


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_a_place_is_drawn_by_its_own_sampler_however_many_trials_are_finished(tmp_path, trained, kind):
    job, found = worked(tmp_path, RATES, trials=12, sampler=kind)
    assert all(place.state == "complete" for place in found)
    _, found = work(dataclasses.replace(job, trials=13))  # by a worker that is new
    study = optuna.create_study(sampler=search.sampler(kind, job.config.seed, 12))
    if kind == "tpe":  # which looks at the trials before
        study.add_trials([place.last for place in found[:12]])
    trial = study.ask()
    search.suggest(trial, job.config, RATES)
    assert found[12].last.params == trial.params


def test_signals_do_not_use_up_the_attempts_of_a_trial(tmp_path, trained):
    job = plan(tmp_path, RATES, trials=1)
    for _ in range(search.RETRIES + 2):
        trained.append(search_trial.Interrupted(signal.SIGTERM))
        stop = search_worker._Stop()
        _, (place,) = work(job, stop)
        assert place.state == "lost" and stop.signal == signal.SIGTERM
        study, _ = search_run.open_study(job)
        search.repair(study, 1, lambda trial: False)
    _, (place,) = work(job)
    assert place.state == "complete" and len(place.attempts) == search.RETRIES + 3


def test_a_mistake_of_the_user_ends_the_worker_and_is_no_attempt(tmp_path, trained):
    job = plan(tmp_path, RATES, trials=2)
    for _ in range(search.RETRIES + 2):
        trained.append(search_worker.UserError("no such device"))
        with pytest.raises(search_worker.UserError, match="place 0: no such device"):
            work(job)
        study, _ = search_run.open_study(job)
        search.repair(study, 2, lambda trial: False)
    assert [place.state for place in work(job)[1]] == ["complete", "complete"]


def test_settings_that_a_training_cannot_be_done_with_are_a_result(tmp_path, monkeypatch):
    errors = [np.linalg.LinAlgError("singular\nmatrix"), RuntimeError("cusolver"), ValueError("bad")]
    monkeypatch.setattr(search_trial, "train", lambda *args, **how: (_ for _ in ()).throw(errors.pop(0)))
    _, found = worked(tmp_path, RATES, trials=3)
    said = [place.last.user_attrs["error"] for place in found]
    assert said == ["LinAlgError: singular matrix", "RuntimeError: cusolver", "ValueError: bad"]
    assert [(place.state, len(place.attempts)) for place in found] == [("failed", 1)] * 3
    errors.append(OSError("No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        worked(tmp_path, RATES, trials=4)


def test_a_host_that_finds_other_data_is_refused(tmp_path, trained):
    job, _ = worked(tmp_path, RATES, trials=1)
    other = dataclasses.replace(job, trials=2, data=lambda config: (moving_squares("train", 9), squares(config)[1]))
    with pytest.raises(search_worker.UserError, match=r"searched on other data .*'sequences': 8.*'sequences': 9"):
        work(other)
    assert [place.state for place in work(dataclasses.replace(job, trials=2))[1]] == ["complete", "complete"]


def test_a_folder_in_use_is_waited_for_and_not_emptied(tmp_path, monkeypatch):
    monkeypatch.setattr(search_trial, "_POLL_S", 0.01)
    folder = search_trial.folder_of(tmp_path, 0)
    folder.mkdir(parents=True)
    (folder / "best.safetensors").write_bytes(b"of who works here")
    began = []
    monkeypatch.setattr(search_trial, "train", lambda *args, **how: began.append(1) or (_ for _ in ()).throw(OSError()))
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(search_trial.Interrupted, match="signal 15"):  # a signal ends the waiting
            search_trial.run(small(), folder, squares(None), [9], asked=lambda: signal.SIGTERM)
        worker = threading.Thread(target=_suppressed, args=(folder,))
        worker.start()
        time.sleep(0.1)
        assert not began and (folder / "best.safetensors").is_file()
    worker.join()
    assert began and not (folder / "best.safetensors").exists()


def _suppressed(folder):
    with pytest.raises(OSError):
        search_trial.run(small(), folder, squares(None), [9])


def test_a_signal_before_a_rung_is_heard(tmp_path):
    with pytest.raises(search_trial.Interrupted, match="signal 15"):
        search_trial.run(small(steps=3), tmp_path / "a", squares(None), [1, 3], asked=lambda: signal.SIGTERM)
    assert not (tmp_path / "a").exists()

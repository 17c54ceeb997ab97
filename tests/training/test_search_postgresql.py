"""A search whose trials are kept in PostgreSQL, by workers that share nothing but the database."""

import concurrent.futures
import time

import optuna
import pytest
from optuna.trial import TrialState

from kpm.training import search, search_storage
from tests import postgresql

pytestmark = pytest.mark.slow
GRACE_S = 2.0


@pytest.fixture(scope="module")
def url():
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install 'kpm[postgresql]')")
    try:
        with postgresql.server("fsync=off") as found:
            yield found
    except postgresql.NoServer as why:
        pytest.skip(str(why))


def connect(url, name):
    storage = search_storage.connect(url, GRACE_S)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(study_name=name, storage=storage, load_if_exists=True), storage


def test_many_workers_do_as_many_trials_as_are_owed(url):
    wanted = 10

    def work(seed):
        study, _ = connect(url, "many")

        def objective(trial):
            if search.place_of(trial.number, study.get_trials(deepcopy=False), wanted) is None:
                raise ArithmeticError
            return trial.suggest_float("x", 0, 1)

        while not all(p.finished for p in search.places(study.get_trials(deepcopy=False), wanted)):
            study.optimize(objective, n_trials=1, catch=(ArithmeticError,))

    connect(url, "many")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    study, _ = connect(url, "many")
    found = search.places(study.get_trials(), wanted)
    assert [(p.number, p.state, len(p.attempts)) for p in found] == [(n, "complete", 1) for n in range(wanted)]
    assert sum(t.state == TrialState.COMPLETE for t in study.get_trials()) == wanted


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed:UserWarning")
def test_a_silent_worker_of_another_host_loses_its_trial_once(url):
    study, storage = connect(url, "silent")
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr("worker", search_storage.worker() | {"machine": "another"})
    storage.record_heartbeat(trial._trial_id)

    def look(_):
        mine, here = connect(url, "silent")
        watch = search_storage.Watch(here, GRACE_S)
        search_storage.fail_silent(mine)
        search.repair(mine, 1, watch.dead)

    look(0)
    assert study.trials[0].state == TrialState.RUNNING
    time.sleep(GRACE_S + 0.5)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(look, range(3)))
    assert [p.state for p in search.places(study.get_trials(), 1)] == ["waiting"]
    with pytest.raises((optuna.exceptions.UpdateFinishedTrialError, ValueError)):
        study.tell(trial, 1.0)  # too late

    def objective(retry):
        assert search.place_of(retry.number, study.get_trials(), 1) in (0, None)
        return retry.suggest_float("x", 0, 1)

    study.optimize(objective, n_trials=1)
    (place,) = search.places(study.get_trials(), 1)
    assert place.state == "complete" and place.last.params == place.attempts[0].params

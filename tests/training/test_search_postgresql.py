"""A search whose trials are kept in PostgreSQL, by workers that share nothing but the database."""

import concurrent.futures
import threading
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


def connect(url, name, grace_s=GRACE_S):
    storage = search_storage.connect(url, grace_s)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(study_name=name, storage=storage, load_if_exists=True), storage


def test_several_hosts_open_an_empty_database_at_once(url):
    """Before any other test of this file: whoever comes first makes the tables, the others run into that."""
    together = threading.Barrier(4)

    def host(_):
        together.wait()
        return connect(url, "first")[0].study_name

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(host, range(4))) == ["first"] * 4


def test_many_workers_do_as_many_trials_as_are_owed(url):
    wanted = 10

    def work(seed):
        study, _ = connect(url, "many", grace_s=10.0)  # on a busy machine a beat may be late

        def objective(trial):
            if search.place_of(trial.number, study.get_trials(deepcopy=False), wanted) is None:
                raise ArithmeticError
            return trial.suggest_float("x", 0, 1)

        while not all(p.finished for p in search.places(study.get_trials(deepcopy=False), wanted)):
            study.optimize(objective, n_trials=1, catch=(ArithmeticError,))

    connect(url, "many", grace_s=10.0)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    study, _ = connect(url, "many", grace_s=10.0)
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
    watchers = [connect(url, "silent") for _ in range(3)]

    def look(watcher):
        mine, here = watcher
        watch = search_storage.Watch(here, GRACE_S)
        search_storage.fail_silent(mine)
        search.repair(mine, 1, watch.dead)

    storage.record_heartbeat(trial._trial_id)
    look(watchers[0])
    assert study.trials[0].state == TrialState.RUNNING
    time.sleep(GRACE_S + 0.5)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(look, watchers))
    assert [p.state for p in search.places(study.get_trials(), 1)] == ["waiting"]
    with pytest.raises((optuna.exceptions.UpdateFinishedTrialError, ValueError)):
        study.tell(trial, 1.0)  # too late

    def objective(retry):
        assert search.place_of(retry.number, study.get_trials(), 1) in (0, None)
        return retry.suggest_float("x", 0, 1)

    study.optimize(objective, n_trials=1)
    (place,) = search.places(study.get_trials(), 1)
    assert place.state == "complete" and place.last.params == place.attempts[0].params


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed:UserWarning")
def test_a_silent_worker_that_is_alive_on_this_machine_keeps_its_trial(url):
    study, storage = connect(url, "alive")
    here, gone = study.ask(), study.ask()
    here.set_user_attr("worker", search_storage.worker())
    gone.set_user_attr("worker", search_storage.worker() | {"machine": "another"})
    for trial in (here, gone):
        storage.record_heartbeat(trial._trial_id)
    time.sleep(GRACE_S + 0.5)
    search_storage.fail_silent(study)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.FAIL]

"""Which trials a search owes, whatever its workers do; storages that are damaged or not there."""

import dataclasses
import json
import math

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from kpm.errors import UserError
from kpm.training import search, search_storage, search_trial
from kpm.training.config import preset
from tests.training.conftest import moving_squares, small

optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_the_ranges_of_the_thesis():
    ranges = search.thesis_ranges(preset("ssm-skd", "sprites"))
    ends = {name: (span.low, span.high) for name, span in ranges.items()}
    assert ends == {
        "latent_dim": (8, 40),
        "hidden_dim": (80, 200),
        "w_prediction": (0.25, 4),
        "w_eigenvalues": (0.25, 4),
        "threshold": (0.125, 0.875),
    }
    assert search.thesis_ranges(preset("skd"))["latent_dim"].low == preset("skd").static_size + 1


def test_settings_of_a_place_depend_on_seed_and_place_alone():
    base = preset("ssm-skd", "sprites")
    ranges = search.thesis_ranges(base)

    def draw(place, seed=1):
        study = optuna.create_study(sampler=search.sampler("random", seed, place))
        return search.suggest(study.ask(), base, ranges)

    found = [draw(place) for place in range(200)]
    assert found[7] == draw(7) != draw(7, seed=2) and len(set(found)) == 200
    assert all(config.w_prediction == config.w_predicted_latents for config in found)
    assert {type(config.latent_dim) for config in found} == {int}
    # Half of the weights drawn by factors lie below one, the middle of [1/4, 4].
    assert 70 < sum(config.w_eigenvalues < 1 for config in found) < 130
    assert min(c.latent_dim for c in found) < 11 and max(c.latent_dim for c in found) > 37


def test_rungs():
    assert search.rungs(90, "none") == [90]
    assert search.rungs(90, "asha") == [10, 30, 90]
    assert search.rungs(100, "asha") == [11, 33, 100]
    assert search.rungs(2, "asha") == [1, 2] and search.rungs(1, "asha") == [1]


class Team:
    """Workers and watchers of a search without processes: every step of theirs is one call, in any order."""

    def __init__(self, wanted):
        self.study, self.wanted, self.dead, self.gone = optuna.create_study(), wanted, set(), 0

    @property
    def places(self):
        return search.places(self.study.get_trials(deepcopy=False), self.wanted)

    def running(self):
        return self.study.get_trials(states=(TrialState.RUNNING,))

    def step(self, what, which):
        held = [trial for trial in self.running() if trial.number not in self.dead]
        trial = held[which % len(held)] if held else None
        if what == "ask":
            new = self.study.ask()
            new.suggest_float("x", 0, 1)
            if search.place_of(new.number, self.study.get_trials(), self.wanted) is None:
                self.study.tell(new.number, state=TrialState.FAIL)
        elif what == "repair":
            search.repair(self.study, self.wanted, lambda t: t.number in self.dead)
        elif what == "retry twice":  # two watchers that saw the same lost trial
            for place in self.places:
                if place.state == "lost":
                    for _ in range(2):
                        retry = {"retry_of": place.last.number}
                        self.study.add_trial(optuna.create_trial(state=TrialState.WAITING, user_attrs=retry))
        elif trial is not None and what == "finish":
            self.study.tell(trial.number, 1.0)
        elif trial is not None and what == "diverge":
            self.study._storage.set_trial_user_attr(trial._trial_id, "error", "inf")
            self.study.tell(trial.number, state=TrialState.FAIL)
        elif trial is not None and what == "die" and self.gone < search.RETRIES:
            self.dead.add(trial.number)
            self.gone += 1


STEPS = st.tuples(st.sampled_from(["ask", "finish", "die", "repair", "retry twice", "diverge"]), st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=40), st.integers(1, 4))
def test_every_place_ends_with_one_finished_trial(steps, wanted):
    team = Team(wanted)
    settled = {}
    for what, which in steps:
        team.step(what, which)
        for place in team.places:
            if place.finished:  # what is finished stays so, with the same trial
                assert settled.setdefault(place.number, place.last.number) == place.last.number
    for _ in range(60):  # whoever is left goes on
        if all(place.finished for place in team.places):
            break
        for what in ("repair", "ask", "finish"):
            team.step(what, 0)
    found = team.places
    assert [place.number for place in found] == list(range(wanted))
    assert all(place.state in ("complete", "failed") for place in found)
    for place in found:
        assert all(t.state == TrialState.FAIL and "error" not in t.user_attrs for t in place.attempts[:-1])
    # A further search of the same study takes up what was one too many.
    team.wanted += 2
    for _ in range(10):
        for what in ("repair", "ask", "finish"):
            team.step(what, 0)
    assert all(place.finished for place in team.places) and len(team.places) == wanted + 2


def test_a_trial_that_kills_every_worker_is_given_up():
    team = Team(1)
    for _ in range(search.RETRIES + 1):
        team.step("ask", 0)
        search.repair(team.study, 1, lambda trial: True)
    assert [(p.state, len(p.attempts)) for p in team.places] == [("given up", search.RETRIES + 1)]
    assert not team.study.get_trials(states=(TrialState.WAITING,)) and search.best(team.places) is None


def test_two_searches_of_one_name():
    base, ranges = preset(), search.thesis_ranges(preset())
    kept = json.loads(json.dumps(search.describe(base, ranges, sampler="random")))
    assert search.restore(kept) == (base, ranges)
    other = dataclasses.replace(base, latent_dim=12)  # searched: what it is before does not matter
    search.check_same(kept, json.loads(json.dumps(search.describe(other, ranges, sampler="random"))), "s")
    del ranges["threshold"]
    with pytest.raises(UserError, match=r"batch_size 32 -> 8, .*range of threshold \[0.125, 0.875\] -> None"):
        search.check_same(kept, search.describe(dataclasses.replace(base, batch_size=8), ranges, sampler="random"), "s")
    with pytest.raises(UserError, match="no search of this package"):
        search.restore({})


def journal(tmp_path, trials=3):
    path = tmp_path / "journal.log"
    study = optuna.create_study(study_name="s", storage=search_storage.connect(str(path), 60))
    for _ in range(trials):
        study.tell(study.ask(), 1.0)
    return path


@pytest.mark.faults
def test_half_a_line_at_the_end_of_a_journal_is_cut_off(tmp_path):
    path = journal(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 9].splitlines()[0][:-5])
    study = optuna.load_study(study_name="s", storage=search_storage.connect(str(path), 60))
    assert path.read_bytes() == whole and len(study.trials) == 3
    assert not search_storage.mend(path) and not list(tmp_path.glob("*.lock"))


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["flip", "cut", "word"])
def test_a_journal_that_is_damaged_elsewhere_is_refused(tmp_path, damage):
    path = journal(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = {"flip": b"\xfb" + lines[2][1:], "cut": lines[2][:9] + b"\n", "word": b"3\n"}[damage]
    path.write_bytes(b"".join(lines))
    with pytest.raises(UserError, match=r"journal journal.log: line 3 is damaged"):
        search_storage.connect(str(path), 60)


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("postgresql://me:secret@127.0.0.1:1/none", r"storage postgresql://me@127.0.0.1:1/none"),
        ("mysql+nodriver://me:secret@x/y", r"storage mysql\+nodriver://me@x/y"),
        ("mysql+nodriver://x:1/y?user=a&password=me:secret", r"storage mysql\+nodriver://x:1/y: "),
    ],
)
def test_a_database_that_is_not_there(storage, words):
    with pytest.raises(UserError, match=words) as caught:
        search_storage.connect(storage, 60)
    assert "\n" not in str(caught.value) and "me:secret" not in str(caught.value)


def test_who_is_dead(tmp_path, monkeypatch):
    storage = search_storage.connect(str(tmp_path / "journal.log"), 60)
    study = optuna.create_study(storage=storage)
    here, gone, far, _ = (study.ask() for _ in range(4))
    here.set_user_attr("worker", search_storage.worker())
    gone.set_user_attr("worker", search_storage.worker() | {"started": 1.0})
    far.set_user_attr("worker", search_storage.worker() | {"machine": "another"})
    clock = [0.0]
    monkeypatch.setattr(search_storage.time, "monotonic", lambda: clock[0])
    watch = search_storage.Watch(storage, grace_s=10)
    dead = lambda: [watch.dead(trial) for trial in study.get_trials()]  # noqa: E731
    assert dead() == [False, True, False, False]
    clock[0] = 9.0
    far.set_user_attr("beat", 1)
    assert dead() == [False, True, False, False]
    clock[0] = 11.0
    assert dead() == [False, True, False, True]  # the fourth never said who works at it
    clock[0] = 20.0
    assert dead() == [False, True, True, True]


def test_a_beating_trial(tmp_path):
    storage = search_storage.connect(str(tmp_path / "journal.log"), 0.2)
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    with search_storage.beating(trial, storage, grace_s=0.2):
        for _ in range(200):
            if study.trials[0].user_attrs.get("beat", 0) >= 2:
                break
            search_storage.time.sleep(0.02)
    beats = study.trials[0].user_attrs["beat"]
    search_storage.time.sleep(0.15)
    assert beats >= 2 and study.trials[0].user_attrs["beat"] == beats


def test_a_training_by_rungs_is_the_training_without(tmp_path):
    config, data = small(steps=15), (moving_squares("train", 21), moving_squares("validation", 5))
    reports = []
    whole = search_trial.run(config, tmp_path / "a", data, [15])
    parts = search_trial.run(
        config, tmp_path / "b", data, [5, 15], report=lambda step, mse: reports.append((step, mse))
    )
    assert parts["mse"] == whole["mse"] and parts["loss"] == whole["loss"]
    assert [step for step, _ in reports] == [5] and reports[0][1] > 0 and math.isfinite(reports[0][1])
    with pytest.raises(optuna.TrialPruned, match="after 5 steps"):
        search_trial.run(config, tmp_path / "c", data, [5, 15], stop=lambda: True)
    search_trial.tidy(tmp_path / "b", keep=True)
    assert [p.name for p in (tmp_path / "b").glob("*.safetensors")] == ["best.safetensors"]
    search_trial.run(config, tmp_path / "b", data, [5])  # nothing to resume from: anew

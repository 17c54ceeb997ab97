"""Searches by real workers on tiny trainings: one is killed, all are asked to end, the rest is done later."""

import dataclasses
import json
import os
import signal
import sys
import time

import optuna
import psutil
import pytest

from kpm import cli, paths
from kpm.errors import UserError
from kpm.training import search
from kpm.workbook import search_run, search_show
from kpm.workbook.search_worker import Job
from tests.training.conftest import moving_squares, small


def squares(config):
    return moving_squares("train", 21), moving_squares("validation", 5)


def plan(folder, **changes):
    ranges = {"w_eigenvalues": search.Range(0.25, 4, log=True), "latent_dim": search.Range(8, 12, whole=True)}
    storage = str(folder / "journal.log")
    job = Job(small(steps=16), 4, storage, "squares", folder, ranges, data=squares, save_every_s=0.2)
    return dataclasses.replace(job, **changes)


def children():
    return [p for p in psutil.Process().children(recursive=True) if "resource_tracker" not in " ".join(p.cmdline())]


def trains(job, place):
    """Whether the trial of a place has made a few steps: before, its worker may be anywhere."""
    log = job.trial_folder(-1 if place is None else place) / "log.jsonl"
    return log.is_file() and len(log.read_text().splitlines()) >= 3


@pytest.mark.slow
@pytest.mark.faults
def test_a_killed_worker_and_a_stopped_search_cost_nothing(tmp_path, monkeypatch, capsys):
    job, killed = plan(tmp_path), []
    repair = search.repair

    def meddle(study, wanted, dead):
        """Kill the first worker that trains; once that trial was found lost and a place is finished, send SIGTERM."""
        failed = repair(study, wanted, dead)
        running = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
        at_work = [t for t in running if trains(job, search.place_of(t.number, study.get_trials(), wanted))]
        if not killed and at_work:
            killed.append(at_work[0].number)
            os.kill(at_work[0].user_attrs["worker"]["pid"], signal.SIGKILL)
        elif killed and any(place.finished for place in search.places(study.get_trials(), wanted)):
            os.kill(os.getpid(), signal.SIGTERM)
            monkeypatch.setattr(search, "repair", repair)
        return failed

    monkeypatch.setattr(search, "repair", meddle)
    stopped = search_run.run(job, workers=2)
    assert stopped.signal == signal.SIGTERM and stopped.died == 1 and not children()
    assert {place.state for place in stopped.places} <= {"complete", "waiting", "open"}  # no trial is left running
    done = {place.number: place.last.number for place in stopped.places if place.finished}
    assert done

    found = search_run.run(job, workers=1)
    assert found.finished and found.signal is None and found.died == 0 and not children()
    assert [(place.number, place.state) for place in found.places] == [(n, "complete") for n in range(4)]
    assert done.items() <= {place.number: place.last.number for place in found.places}.items()  # none done twice
    attempts = {trial.number: len(place.attempts) for place in found.places for trial in place.attempts}
    assert attempts[killed[0]] >= 2

    weights = sorted(path.parent.name for path in tmp_path.glob("trials/*/*.safetensors"))
    assert weights == [f"{found.best.number:05d}"]
    best = found.best.last
    kept = json.loads((tmp_path / "trials" / weights[0] / "trial.json").read_text())
    assert kept["metrics"] == best.user_attrs["metrics"] and kept["metrics"]["mse"] == best.value
    assert kept["config"]["w_eigenvalues"] == best.params["w_eigenvalues"] and "torch" in kept["environment"]
    assert kept["config"]["seed"] == best.user_attrs["seed"]
    study, _ = search_run.open_study(job)
    assert study.user_attrs[best.user_attrs["report"]] == kept["environment"]

    capsys.readouterr()
    show = ["search", "ssm-skd", "sprites", "--show", "--study", "squares", "--out", str(tmp_path), "--top", "2"]
    assert cli.main(show) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split()[0] == str(found.best.number) and printed[3] == "4 trials: 4 complete"
    assert {path.name for path in tmp_path.glob("*.png")} == {"importance.png", "parallel.png"}
    with pytest.raises(UserError, match="holds another search"):
        search_run.run(plan(tmp_path, sampler="tpe"), workers=1)


@pytest.mark.slow
@pytest.mark.faults
def test_workers_of_a_search_that_is_killed_save_and_end(tmp_path):
    begin = f"t.search_run.run(t.plan(pathlib.Path({str(tmp_path)!r}), trials=2), workers=1)"
    begin = f"import pathlib; from tests.workbook import test_search as t; {begin}"
    parent = psutil.Popen([sys.executable, "-c", begin], cwd=paths.root())
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("trials/*/last.safetensors")):
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    workers = parent.children(recursive=True)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert workers and not alive
    study, _ = search_run.open_study(plan(tmp_path, trials=2))
    attempts = study.get_trials()
    assert attempts and all(trial.state.is_finished() for trial in attempts)  # it told the study; none is left running


def place(number, value, **params):
    spans = {"a": search.Range(1, 9, whole=True), "b": search.Range(0.1, 10, log=True)}
    drawn = {name: span.distribution() for name, span in spans.items()}
    attrs = {"metrics": {"step": 3, "steps": 3}}
    trial = optuna.create_trial(params=params, distributions=drawn, value=value, user_attrs=attrs)
    return search.Place(number, (trial,)), spans


def test_what_a_search_shows():
    made = [place(n, 0.1 + (n % 5) ** 2, a=1 + n % 5, b=0.1 * 10 ** (n / 20)) for n in range(40)]
    found, spans = [p for p, _ in made], made[0][1]
    lines = search_show.table(found, spans, top=3)
    assert [line.split()[0] for line in lines[1:4]] == ["0", "5", "10"] and lines[4] == "40 trials: 40 complete"
    shares = search_show.importance(found, spans)  # the value depends on a alone
    assert shares["a"] > 0.9 and sum(shares.values()) == pytest.approx(1)
    bars = search_show.plot_importance(shares, 40).axes[0].patches
    assert [bar.get_width() for bar in bars] == sorted(shares.values())
    (drawn,) = search_show.plot_parallel(found, spans).axes[0].collections
    last = drawn.get_segments()[-1]  # the best, on top: from the bottom of a to the bottom of the error
    assert len(drawn.get_segments()) == 40 and last[0][1] == 0 and last[-1][1] == 0


def test_fewer_than_two_values_make_no_figure(tmp_path):
    one, spans = place(0, 0.1, a=1, b=1.0)
    assert search_show.figures([one, dataclasses.replace(one, number=1)], spans, tmp_path) == []
    assert search_show.table([], spans, 3)[-1] == "0 trials: "


ALL_FIXED = [
    "--latent-dim",
    "9",
    "--hidden-dim=80",
    "--w-prediction",
    "1",
    "--w-eigenvalues",
    "1",
    "--threshold",
    "0.5",
]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "needs a model"),
        (["ssm-skd"], "needs a dataset"),
        (["ssmskd", "sprites"], "did you mean 'ssm-skd'"),
        (["ssm-skd", "sprits"], "did you mean 'sprites'"),
        (["ssm-skd", "sprites", "--trials", "0"], "trials must be at least 1"),
        (["ssm-skd", "sprites", "--grace-s", "0"], "grace-s must be positive"),
        (["ssm-skd", "sprites", "--dataset", "x"], "model and dataset come first"),
        (["ssm-skd", "sprites", "--show", "--out", "nowhere"], "no search in"),
        (["ssm-skd", "sprites", *ALL_FIXED], "nothing to search"),
    ],
)
def test_mistakes(capsys, tmp_path, monkeypatch, argv, words):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["search", *argv]) == 2
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())

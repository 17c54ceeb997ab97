"""``kpm dse vdp | sl``: trials kept one by one, gone on with, and summed up as the metric does by itself."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from kpm import files, paths
from kpm.cli import main
from kpm.datasets import stuart_landau, van_der_pol
from kpm.errors import UserError
from kpm.metrics.spectral_error import readings
from kpm.models.baselines.spectra import SPECTRAL_METHODS
from kpm.workbook import dse_spectra, dse_table, dse_trials, results
from kpm.workbook.dse_trials import Found, Task

FAST = ("subspace_dmd_fourier", "realization_fourier")


def ask(folder, *more):
    return ["dse", "sl", "--levels", "0.01", "0.05", "--methods", *FAST, "--out", str(folder), *more]


def test_trials_are_those_of_the_paper():
    """One alone is the same record as among fifty."""
    alone = dse_trials.SYSTEMS["vdp"].trial(0.1, 3)
    together = van_der_pol.simulate(van_der_pol.VanDerPol(noise=0.1, trials=4))
    assert torch.equal(alone.observations[0], together.observations[2])
    alone = dse_trials.SYSTEMS["sl"].trial(0.09, 2)
    together = stuart_landau.simulate(stuart_landau.StuartLandau(noise=0.09, trials=2))
    assert torch.equal(alone.observations[0], together.observations[1])


def test_table_is_the_mean_over_trials(tmp_path, capsys):
    assert main(ask(tmp_path, "--trials", "2", "--no-progress")) == 0
    text = capsys.readouterr().out
    assert "paper: DSE 0.035 ± 0.025" in text and "0.05  realization_fourier" in text
    assert len(list(tmp_path.rglob("*.json"))) == 8
    kept = dse_table.collect(dse_trials.plan("sl", FAST, (0.01, 0.05), 2, tmp_path))
    rows = dse_table.table("sl", kept)
    assert [(row.level, row.method) for row in rows] == [(n, m) for n in ("0.01", "0.05", "all") for m in FAST]
    records = [dse_trials.SYSTEMS["sl"].trial(0.05, k) for k in (1, 2)]
    values = torch.stack([SPECTRAL_METHODS[FAST[0]](r.train[0]) for r in records])
    harmonics, config = records[0].harmonics, stuart_landau.StuartLandau(noise=0.05)
    exact, weak = ((0.1 * stuart_landau.rates(harmonics, config, kind)).exp() for kind in ("exact", "weak"))
    assert (exact - weak).abs().max() > 1e-3
    expected = {k: v.numpy() for k, v in readings(exact, values, harmonics).items()}
    expected["weak_mean13"] = readings(weak, values, harmonics)["mean13"].numpy()
    assert set(rows[2].errors) == set(expected) and "matched_m6" in expected
    for form, each in expected.items():
        assert rows[2].errors[form] == pytest.approx(each.mean(), abs=1e-12)
        assert rows[2].stds[form] == pytest.approx(each.std(ddof=1), abs=1e-12)
        pooled = (rows[0].stds[form] ** 2 + rows[2].stds[form] ** 2) / 2
        assert rows[4].stds[form] == pytest.approx(pooled**0.5, abs=1e-12)
        assert rows[4].errors[form] == pytest.approx((rows[0].errors[form] + rows[2].errors[form]) / 2)
    assert rows[2].eigenvalues == 13 and rows[2].trials == 2 and rows[4].trials == 4


def shifted(by):
    """A trial whose mean error against the reference of Van der Pol is nearly `by`."""
    reference = dse_trials.SYSTEMS["vdp"].trial(0.1, 1).reference
    return Found(reference * (1 - by), 1.0)


def made(method, errors, level=0.1):
    return {Task("vdp", method, level, k, None): shifted(by) for k, by in errors.items()}


def test_differences_are_paired():
    """Trials that differ much among themselves, but little from method to method."""
    found = made("dse", {1: 0.01, 2: 0.05, 3: 0.02}) | made("edmd_monomials", {1: 0.012, 2: 0.053, 3: 0.021})
    found |= made("dse_published", {1: 0.03}) | made("dse", {1: 0.01, 2: 0.03}, 0.2)
    found |= made("edmd_monomials", {1: 0.02, 2: 0.05}, 0.2)
    rows = {(row.level, row.method): row for row in dse_table.table("vdp", found)}
    less = np.array([-0.002, -0.003, -0.001])
    row = rows["0.10", "edmd_monomials"]
    assert (row.pairs, row.trials) == (3, 3) and row.less == pytest.approx(less.mean())
    assert row.less_se == pytest.approx(less.std(ddof=1) / 3**0.5)
    assert rows["0.10", "dse"].less is rows["0.10", "dse_published"].less is None
    assert rows["0.10", "dse_published"].pairs == 1
    row = rows["all", "edmd_monomials"]
    other = np.array([-0.01, -0.02])
    assert row.less == pytest.approx((less.mean() + other.mean()) / 2) and row.pairs == 5
    assert row.less_se == pytest.approx((less.var(ddof=1) / 3 + other.var(ddof=1) / 2) ** 0.5 / 2)
    assert rows["0.10", "dse_published"].stds["mean13"] == 0  # a single trial
    many, few = (rows[level, "edmd_monomials"].stds["mean13"] for level in ("0.10", "0.20"))
    assert row.stds["mean13"] == pytest.approx(((2 * many**2 + few**2) / 3) ** 0.5)
    text = dse_table.as_text("vdp", list(rows.values()))
    assert f"{less.mean():+.5f} ± {less.std(ddof=1) / 3**0.5:.5f}" in text


def test_methods_are_compared_on_the_same_trials():
    found = made("dse", dict.fromkeys((1, 2, 3, 5), 0.1)) | made("edmd_monomials", dict.fromkeys((1, 2, 3, 4, 5), 0.1))
    found |= made("dse_published", {1: 0.1, 2: 0.1}) | made("hankel_dmd_30", {2: 0.1})
    kept = dse_table.comparable(found)
    trials = {m: sorted(task.trial for task in kept if task.method == m) for m in {task.method for task in found}}
    assert trials == {"dse": [1, 2, 3], "edmd_monomials": [1, 2, 3], "dse_published": [1, 2], "hankel_dmd_30": []}
    assert dse_table.comparable({}) == {}


def test_command_regenerates_the_rows():
    def told(found):
        return dse_spectra.command("vdp", dse_table.table("vdp", dse_table.comparable(found)))

    found = {}
    for level in dse_trials.SYSTEMS["vdp"].levels:
        for method in dse_trials.methods("vdp"):
            found |= made(method, dict.fromkeys((1, 2) if method == "dse_published" else (1, 2, 3), 0.1), level)
    assert told(found) == "kpm dse vdp --trials 3 --published-trials 2 --save"
    some = made("dse", {1: 0.1}) | made("edmd_monomials", {1: 0.1})
    assert told(some) == "kpm dse vdp --trials 1 --levels 0.10 --methods dse edmd_monomials --save"


def test_a_run_goes_on_where_it_stopped(tmp_path, capsys, monkeypatch):
    assert main(ask(tmp_path, "--trials", "1", "--no-progress")) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    done = []
    real = dse_trials.run
    monkeypatch.setattr(dse_trials, "run", lambda task: done.append(task) or real(task))
    assert main(ask(tmp_path, "--trials", "2", "--no-progress")) == 0
    assert "4 of 8 are there already" in capsys.readouterr().out
    assert [task.trial for task in done] == [2] * 4
    assert main(ask(tmp_path, "--trials", "3", "--no-run")) == 0
    assert "8 of 12 are there already" in capsys.readouterr().out and len(done) == 4
    assert main(ask(tmp_path / "none", "--no-run")) == 2
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())


def test_any_prefix_is_balanced(tmp_path):
    plan = dse_trials.plan("vdp", (), dse_trials.SYSTEMS["vdp"].levels, 3, tmp_path)
    names = dse_trials.methods("vdp")
    assert {"dse", "dse_published", "hankel_dmd_100"} <= set(names)
    assert len({task.path for task in plan}) == len(plan) == 3 * 4 * len(names)
    assert {task.trial for task in plan[: 4 * len(names)]} == {1}


@pytest.mark.slow
def test_processes_find_the_same(tmp_path):
    for workers in ("1", "2"):
        assert main(ask(tmp_path / workers, "--trials", "1", "--workers", workers, "--no-progress")) == 0
    one, two = (sorted((tmp_path / w).rglob("*.json")) for w in "12")
    for a, b in zip(one, two, strict=True):
        a, b = (json.loads(path.read_text())["eigenvalues"] for path in (a, b))
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "results", lambda: tmp_path / "results")
    monkeypatch.setitem(
        dse_trials.READINGS,
        "dse",
        dse_trials.Reading({"reading": "clean"}, lambda: dse_trials.DSETrainConfig(stage_one=1, stage_two=1)),
    )
    more = ["--methods", "dse", FAST[0], "--trials", "1", "--save", "--no-progress", "--out", str(tmp_path / "t")]
    assert main(["dse", "sl", "--levels", "0.01", *more]) == 0
    saved = results.load("dse_sl", tmp_path / "results")
    assert saved.paper == {"eig_error_unnamed": 0.041, "eig_error_unnamed_std": 0.032}
    rows = {row["method"]: row for row in saved.details["rows"]}
    assert saved.metrics["eig_error_mean13"] == rows["dse"]["errors"]["mean13"]
    assert saved.metrics["best_baseline_eig_error_mean13"] == rows[FAST[0]]["errors"]["mean13"]
    assert saved.metrics["trials_per_level"] == 1
    assert len(saved.details["clouds"]["0.01"][FAST[0]]) == 7  # seven of thirteen are not below the real axis
    assert saved.command == f"kpm dse sl --trials 1 --levels 0.01 --methods dse {FAST[0]} --save"
    assert saved.metrics["eig_error_weak_mean13"] == rows["dse"]["errors"]["weak_mean13"]
    assert sum(saved.details["trials_by_commit"].values()) == 2
    kept = dse_table.collect(dse_trials.plan("sl", FAST[:1], (0.01,), 1, tmp_path / "t"))
    with pytest.raises(UserError, match="no trial of dse"):
        dse_spectra.to_result("sl", kept, dse_table.table("sl", kept))


def test_form_of_the_papers_figures():
    row = dse_table.Row("0.05", "dse_published", 1, 30, {"total": 0.43, "mean13": 0.043}, {}, 1.0)
    assert dse_table.form_of_paper("sl", [row]) == {"0.05": {"total": pytest.approx(10), "mean13": pytest.approx(1)}}


def test_kept_trials_are_checked(tmp_path, monkeypatch):
    task = dse_trials.Task("sl", "dse", 0.05, 1, tmp_path)
    task.path.parent.mkdir()
    task.path.write_text('{"eigenvalues": [[1, 0')
    with pytest.raises(UserError, match=r"0\.05_001\.json of dse is not a trial"):
        dse_trials.load(task)
    task.path.write_text('{"eigenvalues": [[1, 0]], "wall_s": 1, "settings": [{"rank": 3}]}')
    assert dse_trials.load(task) is None


def load_with(task, change):
    """What is loaded of a trial whose settings are the present ones but for a change."""
    settings = dse_trials.settings_of(task)
    change(settings)
    kept = {"eigenvalues": [[0.5, 0.25]], "wall_s": 1.0, "commit": "abc", "settings": settings}
    files.write_json(task.path, kept)
    return dse_trials.load(task)


@pytest.mark.parametrize(
    ("method", "path", "value"),
    [
        ("dse", ("record", "seed"), 1),
        ("dse", ("method", "sizes", "rank"), 9),
        ("dse", ("method", "training", "folds"), 1),
        ("dse", ("method", "operator"), "transition"),
        ("elto_angle", ("method", "config", "window"), 11),
        ("edmd_polynomial", ("method", "degree"), 4),
        ("edmd_polynomial", ("method", "function"), "edmd_fourier"),
        ("edmd_polynomial", ("record", "observation_noise"), 0.02),
    ],
)
def test_found_with_other_settings_is_not_there(tmp_path, method, path, value):
    def change(settings):
        for name in path[:-1]:
            settings = settings[name]
        assert settings[path[-1]] != value
        settings[path[-1]] = value

    task = Task("sl", method, 0.05, 1, tmp_path)
    found = load_with(task, lambda settings: None)
    assert found.eigenvalues.tolist() == [0.5 + 0.25j] and found.commit == "abc"
    assert load_with(task, change) is None


def test_a_setting_that_came_later_was_its_default_before(tmp_path):
    dse, polynomial = (Task("sl", method, 0.05, 1, tmp_path) for method in ("dse", "edmd_polynomial"))
    assert load_with(dse, lambda settings: settings["method"]["sizes"].pop("jitter")) is not None
    assert load_with(dse, lambda settings: settings["method"]["sizes"].pop("rank")) is None  # 2 here, 9 by default
    assert load_with(polynomial, lambda settings: settings["method"].pop("degree")) is None  # has no default
    assert load_with(dse, lambda settings: settings["method"].update(more=1)) is None
    assert load_with(dse, lambda settings: settings.clear()) is None


def test_what_other_settings_gave_is_found_again(tmp_path):
    task = Task("sl", "edmd_polynomial", 0.05, 1, tmp_path)
    before = {"settings": None, "eigenvalues": [[0.0, 0.0]], "wall_s": 1.0}
    files.write_json(task.path, before)
    found = dse_trials.load(dse_trials.run(task))
    record = dse_trials.SYSTEMS["sl"].trial(0.05, 1).train[0]
    np.testing.assert_array_equal(found.eigenvalues, SPECTRAL_METHODS["edmd_polynomial"](record))
    kept = json.loads(task.path.read_text())
    assert kept["settings"]["method"] == {"function": "edmd_polynomial", "degree": 5}
    assert kept["settings"]["record"]["seed"] == 42 and kept["settings"]["record"]["noise"] == 0.05


@pytest.mark.parametrize("system", ["vdp", "sl"])
def test_help_names_every_method(system, capsys):
    with pytest.raises(SystemExit):
        main(["dse", system, "--help"])
    words = set(re.findall(r"\w+", capsys.readouterr().out))
    ranks = {f"dse_rank_{rank}" for rank in dse_trials.RANKS}
    assert {*dse_trials.methods(system), *dse_trials.VARIANTS[system]} - ranks <= words
    assert system == "sl" or {"dse_rank_N", *map(str, dse_trials.RANKS)} <= words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vdp", "--methods", "hankel_dmd"], "unknown method 'hankel_dmd'; did you mean 'hankel_dmd_"),
        (["vdp", "--methods", "subspace_dmd_fourier"], "unknown method 'subspace_dmd_fourier'"),
        (["sl", "--levels", "0.055"], "levels are variances from 0.01 to 0.99 in hundredths, got 0.055"),
        (["sl", "--trials", "0"], "trials must be at least 1, got 0"),
        (["sl", "--workers", "0"], "workers must be at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message, capsys, tmp_path):
    assert main(["dse", *arguments, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err

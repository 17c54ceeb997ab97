"""``kpm dse vdp | sl``: trials kept one by one, gone on with, and summed up as the metric does by itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from kpm import paths
from kpm.cli import main
from kpm.datasets import stuart_landau, van_der_pol
from kpm.errors import UserError
from kpm.metrics.spectral_error import summary
from kpm.models.baselines.spectra import SPECTRAL_METHODS
from kpm.workbook import dse_spectra, dse_trials, results

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
    plan = dse_trials.plan("sl", FAST, (0.01, 0.05), 2, tmp_path)
    rows = dse_spectra.table("sl", plan)
    assert [(row.level, row.method) for row in rows] == [(n, m) for n in ("0.01", "0.05", "all") for m in FAST]
    records = [dse_trials.SYSTEMS["sl"].trial(0.05, k) for k in (1, 2)]
    values = torch.stack([SPECTRAL_METHODS[FAST[0]](r.train[0]) for r in records])
    expected = summary(records[0].reference, values, records[0].harmonics)
    for form in ("total", "mean13", "mean9", "matched", "m0", "m6"):
        assert rows[2].errors[form] == pytest.approx(expected[f"eig_error_{form}"], abs=1e-12)
        assert rows[2].stds[form] == pytest.approx(expected[f"eig_error_{form}_std"], abs=1e-12)
        assert rows[4].errors[form] == pytest.approx((rows[0].errors[form] + rows[2].errors[form]) / 2)
    assert rows[2].eigenvalues == 13 and rows[2].trials == 2 and rows[4].trials == 4


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
    names = list(dse_trials.methods("vdp"))
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
        dse_trials.READINGS, "dse", ("clean", lambda: dse_trials.DSETrainConfig(stage_one=1, stage_two=1))
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
    with pytest.raises(UserError, match="no trial of dse"):
        dse_spectra.to_result(
            "sl", (plan := dse_trials.plan("sl", FAST[:1], (0.01,), 1, tmp_path / "t")), dse_spectra.table("sl", plan)
        )


def test_form_of_the_papers_figures():
    row = dse_spectra.Row("0.05", "dse_published", 1, 30, {"total": 0.43, "mean13": 0.043}, {}, 1.0)
    assert dse_spectra.form_of_paper("sl", [row]) == {"0.05": {"total": pytest.approx(10), "mean13": pytest.approx(1)}}


def test_kept_trials_are_checked(tmp_path, monkeypatch):
    task = dse_trials.Task("sl", "dse", 0.05, 1, tmp_path)
    task.path.parent.mkdir()
    task.path.write_text('{"eigenvalues": [[1, 0')
    with pytest.raises(UserError, match=r"0\.05_001\.json of dse is not a trial"):
        dse_trials.load(task)
    task.path.write_text('{"eigenvalues": [[1, 0]], "wall_s": 1, "settings": [{"rank": 3}]}')
    with pytest.raises(UserError, match="was found with other settings; name another folder"):
        dse_trials.load(task)


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

"""The rank that limits need, averages and phases of a cycle: small versions of what ``kpm sim toys`` measures."""

from __future__ import annotations

import json

import pytest
import torch

from kpm import cli
from kpm.datasets import limit_sets
from kpm.errors import UserError
from kpm.models.sim import LowRankLimit
from kpm.workbook import results, sim_cycle, sim_toys


@pytest.mark.parametrize("mode", sim_toys.MODES)
@pytest.mark.parametrize(("name", "attractors"), [("bistable", 2), ("ring3", 3)])
def test_a_rank_for_each_attractor_is_enough_and_one_less_is_not(name, attractors, mode):
    short, enough, more = (
        sim_toys.rank_error(name, mode, rank, 1, 300, 120) for rank in (attractors - 1, attractors, attractors + 1)
    )
    assert short.error >= short.bound > 0.25 and enough.bound < 1e-12
    assert enough.error < 0.08 < short.error / 3 and more.error > enough.error / 2
    assert enough.hits > 0.99 and (mode == "free") is (more.idempotency > 1e-6)


def test_the_bound_is_reached_by_the_best_matrix_and_by_no_other():
    draw = torch.Generator().manual_seed(0)
    limits = torch.randn(40, 3, generator=draw).double() @ torch.randn(3, 6, generator=draw).double()
    v = torch.linalg.svd(limits, full_matrices=False).Vh[:2]
    best = float((limits @ v.T @ v - limits).square().sum() / limits.square().sum())
    assert sim_toys.bound(limits, 2) == pytest.approx(best, rel=1e-9) and sim_toys.bound(limits, 3) < 1e-20
    other = torch.linalg.qr(torch.randn(6, 2, generator=draw).double()).Q
    assert float((limits @ other @ other.T - limits).square().sum() / limits.square().sum()) > best


def test_maps_of_basins_are_right_away_from_the_borders():
    limit = sim_toys.learn("bistable", "oblique", 2, 1, 300, 120)
    nearest, error = sim_toys.basin_map("bistable", limit, 1, side=31)
    columns = torch.linspace(-1.6, 1.6, 31)
    inside = columns.abs() > 0.2
    assert torch.equal(nearest[:, inside], (columns[inside] < 0).long().expand(31, -1))
    assert error[:, inside].mean() < 0.1 < error[:, ~inside].mean()


def test_no_solver_finds_the_limit_of_a_cycle_and_the_failure_is_told():
    starts = limit_sets.cycle_starts(20, 3)
    plain = sim_cycle.iterate(starts, "plain", 80)
    assert not plain.converged.any() and (plain.trace[-1] > 0.2).all()
    assert "no fixed point for 20 of 20 samples after 80 evaluations" in plain.failure
    anderson = sim_cycle.iterate(starts, "anderson", 80)
    # What it finds is the unstable point, and it says "converged": it is a fixed point, but no limit.
    assert anderson.converged.double().mean() > 0.8 and anderson.z[anderson.converged].norm(dim=1).max() < 1e-6


def test_average_frequency_and_phase_of_the_cycle_are_the_analytic_ones():
    starts = limit_sets.cycle_starts(100, 5)
    known = sim_cycle.operator(500, 4)
    mean = sim_cycle.averages(LowRankLimit.from_operator(known, 1), starts)
    assert (mean - torch.tensor([0.0, 0.0, 1.0])).abs().max() < 1e-3
    turning = LowRankLimit.from_operator(known, 3, 1)
    assert abs(float(turning.angles.detach()[0])) / sim_cycle.DT == pytest.approx(sim_cycle.OMEGA, abs=1e-3)
    for steps in (0, 20):
        angle = sim_cycle.phase_after(turning, starts, steps)
        assert sim_cycle.phase_errors(angle, starts, steps * sim_cycle.DT).max() < 0.02


def test_more_observables_are_nearer_to_an_invariant_span():
    starts, truth = limit_sets.cycle_starts(100, 5), torch.tensor([0.0, 0.0, 1.0])

    def error(degree: int) -> float:
        known = sim_cycle.operator(500, 4, degree=degree)
        return float((sim_cycle.averages(LowRankLimit.from_operator(known, 1), starts) - truth).abs().max())

    assert error(3) > 4 * error(6) > 16 * error(12)


def test_a_learnt_rotation_finds_the_frequency_from_another():
    model = sim_cycle.learn_rotation(1, steps=250)
    assert abs(float(model.limit.angles.detach()[0])) / sim_cycle.DT == pytest.approx(sim_cycle.OMEGA, rel=0.02)


def test_the_command_keeps_each_seed_and_saves(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    monkeypatch.setattr(sim_toys, "TOYS", {"bistable": 2})
    for name, small in (
        ("sweep", lambda names, seeds: [sim_toys.RankError("bistable", m, r, seeds[0], 0.5 / r, 0.1, 1.0, 0.0)
                                        for m in sim_toys.MODES for r in (1, 2, 3, 4)]),
        ("end_to_end", lambda name, rank, seed: 0.01 * rank),
    ):  # fmt: skip
        monkeypatch.setattr(sim_toys, name, small)
    monkeypatch.setattr(sim_toys.sim_cycle, "measure", lambda seed: {"cycle_omega_error": 0.1 * seed})
    assert cli.main(["sim", "toys", "--seeds", "1", "3", "--save"]) == 0
    assert cli.main(["sim", "toys", "--no-run"]) == 0
    assert "as many as attractors" in capsys.readouterr().out
    saved = results.load("sim_toys")
    assert saved.metrics["cycle_omega_error"] == pytest.approx(0.2) and saved.seeds == (1, 3)
    assert saved.metrics["limit_error_bistable_free_short"] == 0.5
    kept = tmp_path / "runs" / "sim_toys" / "1.json"
    before = kept.stat().st_mtime_ns
    assert cli.main(["sim", "toys", "--seeds", "1"]) == 0 and kept.stat().st_mtime_ns == before
    assert json.loads(kept.read_text())["seed"] == 1


def test_bad_input_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="toy: expected one of bistable, ring3, ring5, got 'ring'"):
        sim_toys.toy("ring", 3, 1)
    with pytest.raises(UserError, match="empty: no seed is there yet"):
        sim_toys.toys_command((), tmp_path / "empty")

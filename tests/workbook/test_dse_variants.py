"""Variants of DSE beside its preset, and the choice of a rank by frames that no training has seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kpm.models.dse import DSE
from kpm.models.dse_networks import DSEConfig
from kpm.models.dse_operators import fit_operators
from kpm.workbook import dse_spectra, dse_table, dse_trials, dse_variants, results
from kpm.workbook.dse_trials import Found, Task


def found(by, held_out=None):
    """A trial whose mean error against the reference of Van der Pol is nearly `by`."""
    return Found(dse_trials.SYSTEMS["vdp"].trial(0.1, 1).reference * (1 - by), 2.0, held_out=held_out)


@pytest.fixture
def kept():
    errors = {  # trial: error, and held-out error
        "dse": {1: (0.010, 0.5), 2: (0.020, 0.5), 3: (0.030, 0.5)},
        "dse_rank_9": {1: (0.040, 0.3), 2: (0.050, 0.1)},
        "dse_rank_16": {1: (0.010, 0.2), 2: (0.020, 0.2), 3: (0.030, 0.2)},
        "dse_joint": {1: (0.011, 0.5), 3: (0.033, 0.5), 4: (0.5, 0.5)},
    }
    return {Task("vdp", m, 0.1, k, None): found(*pair) for m, trials in errors.items() for k, pair in trials.items()}


def test_variants_stand_beside_the_preset_on_the_same_trials(kept):
    rows = {row.method: row for row in dse_variants.rows("vdp", kept)}
    assert set(rows) == {"dse_rank_9", "dse_rank_16", "dse_joint"}
    row = rows["dse_joint"]
    assert row.trials == [1, 3] and row.rank is None and row.level == "0.10" and row.wall_s == 2.0
    np.testing.assert_allclose(row.mean13, [0.011, 0.033], rtol=1e-9)
    np.testing.assert_allclose(row.preset, [0.010, 0.030], rtol=1e-9)
    np.testing.assert_allclose(row.more, [0.002, 0.001], rtol=1e-9)
    assert rows["dse_rank_9"].rank == 9 and rows["dse_rank_9"].held_out == [0.3, 0.1]


def test_the_rank_is_chosen_without_the_reference(kept):
    """By the held-out error alone, also where that takes the worse spectrum; of trials that all ranks have."""
    choices = dse_variants.chosen(dse_variants.rows("vdp", kept))
    assert [(c.trial, c.rank) for c in choices] == [(1, 16), (2, 9)]
    assert [c.mean13 for c in choices] == pytest.approx([0.010, 0.050])
    assert [c.preset for c in choices] == pytest.approx([0.010, 0.020])
    assert [c.least for c in choices] == pytest.approx([0.010, 0.020])


def test_held_out_error_is_that_of_powers_written_out():
    torch.manual_seed(1)
    angle = 0.3 * torch.arange(400, dtype=torch.float64)
    y = torch.stack([angle.cos(), angle.sin()], -1) + 0.02 * torch.randn(400, 2, dtype=torch.float64)
    model = DSE(DSEConfig.linear(2, window=3, rank=2)).double()
    model.set_scale(y[:300])
    fit_operators(model, y[:300])
    held_out = y[300:]
    error = dse_trials.held_out_error(model, held_out, horizon=20)
    codes = model.encode(held_out[None])[0].detach()
    errors = [[] for _ in range(20)]
    for first in range(len(held_out) - 5):  # blocks of three codes before and after
        past, _ = model.blocks(codes[None, first : first + 6])
        z = model.dictionary(model.states(past))[0, 0].detach().numpy()
        for step in range(min(20, len(held_out) - 3 - first - 2)):
            guess = z @ np.linalg.matrix_power(model.spectral_transition.numpy(), step) @ model.frame_map.numpy()
            errors[step].append(np.mean((guess - held_out[first + 3 + step].numpy()) ** 2))
    assert error == pytest.approx(np.mean([np.mean(e) for e in errors]), rel=1e-9)
    assert 4e-4 < error < 0.02  # noise has 4e-4, frames have 0.5
    by_regression = dse_trials.held_out_error(model, held_out, "transition", horizon=20)
    assert by_regression != pytest.approx(error, rel=1e-6)
    with pytest.raises(ValueError, match="frames are needed"):
        dse_trials.held_out_error(model, held_out[:20], horizon=20)


@pytest.mark.parametrize("system", ["vdp", "sl"])
def test_a_variant_differs_from_the_preset(system, tmp_path):
    preset = dse_trials.settings_of(Task(system, "dse", 0.05, 1, tmp_path))
    names = list(dse_trials.VARIANTS[system])
    assert {"dse_joint", "dse_one_fold", "dse_regression"} < set(names)
    assert not set(names) & set(dse_trials.methods(system))
    changed = []
    for name in names:
        here = dse_trials.settings_of(Task(system, name, 0.05, 1, tmp_path))
        assert here["record"] == preset["record"]
        changed.append(here["method"] != preset["method"])
    assert changed == [name != "dse_rank_16" for name in names]  # that is the preset's own


def test_variants_are_saved_with_the_table(tmp_path, monkeypatch, kept):
    saved = []
    monkeypatch.setattr(results, "save", saved.append)
    folder = tmp_path / "trials"
    for task, one in kept.items():
        path = Task("vdp", task.method, 0.1, task.trial, folder)
        settings = dse_trials.settings_of(path)
        values = torch.view_as_real(one.eigenvalues).tolist()
        content = {"settings": settings, "wall_s": 2.0, "eigenvalues": values, "held_out": one.held_out}
        dse_trials.files.write_json(path.path, content)
    table = dse_table.collect(dse_trials.plan("vdp", ("dse",), (0.1,), 3, folder))
    dse_spectra.to_result("vdp", table, dse_table.table("vdp", table))
    rows = [dse_variants.VariantRow(**row) for row in saved[0].details["variants"]]
    assert [row.method for row in rows] == ["dse_rank_9", "dse_rank_16", "dse_joint"]
    assert rows[2].more == pytest.approx((0.002, 0.001))
    told = "kpm dse vdp --trials 3 --levels 0.10 --methods dse dse_joint dse_rank_16 dse_rank_9"
    assert saved[0].details["variants_command"] == told

"""Scores beside their two ends."""

from __future__ import annotations

import dataclasses

import pytest

from kpm.metrics import thesis_tables
from kpm.workbook import results
from kpm.workbook.score_table import HEADER, score_rows

SPRITES = (thesis_tables.CLASSES["sprites"], thesis_tables.STATIC["sprites"], ("action",))


def test_scores_stand_between_nothing_and_what_a_perfect_model_would_get():
    metrics = {"D_sd": 0.97, "D_sd_se": 0.001, "D_mf": 0.93, "D_mf_se": 0.002}
    metrics |= {"D_mf_channels": 0.9, "D_mf_channels_se": 0.01}
    details = {"films": 128, "repeats": 5, "channels": {"films": 64, "repeats": 2}}
    result = dataclasses.replace(
        results.load("ssm_skd_sprites"), metrics=metrics, paper={"D_sd": 0.9872}, details=details
    )
    rows = score_rows(result, *SPRITES)
    assert list(rows) == ["D_sd", "D_mf"] and all(len(row) == len(HEADER) for row in rows.values())
    ours, error, paper, least, most, count = rows["D_sd"]
    assert (ours, error, paper, count) == (0.97, 0.001, 0.9872, "5 x 128")
    assert least == pytest.approx(0.5778, abs=5e-5) and ours < most < 1
    beside = score_rows(result, *SPRITES, key="channels")
    assert list(beside) == ["D_mf"] and beside["D_mf"][0] == 0.9 and beside["D_mf"][-1] == "2 x 64"
    assert beside["D_mf"][4] < rows["D_mf"][4]  # fewer films
    assert score_rows(dataclasses.replace(result, details=None), *SPRITES) == {}

"""D_sd and D_mf of a results file with what they have to be read beside: both ends, the thesis, films and repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kpm.metrics.disentanglement import no_skill, within_reach
from kpm.workbook.results import Result

HEADER = ["ours", "standard error", "thesis", "everything destroyed", "a perfect model", "repeats x films"]


def score_rows(
    result: Result, classes: Mapping[str, int], static: Sequence[str], dynamic: Sequence[str], key: str = ""
) -> dict[str, list[float | str | None]]:
    """Cells of `HEADER` for each score the result has, ``"D_sd"`` and ``"D_mf"``.

    Parameters
    ----------
    result : Result
        With the scores in its metrics and the count of films and repeats in its details.
    classes, static, dynamic
        As for `kpm.metrics.disentanglement.d_sd`.
    key : str
        Of scores that stand beside the published procedure's: ``"channels"``, ``"independent"``, ``"resplit"``.
    """
    about = (result.details or {}).get(key, {}) if key else result.details or {}
    if "films" not in about:
        return {}
    kinds, tail = (classes, static, dynamic), f"_{key}" if key else ""
    least, most = no_skill(*kinds), within_reach(*kinds, about["films"] * about["repeats"])
    rows = {}
    for score in ("D_sd", "D_mf"):
        name = f"{score}{tail}"
        if name in result.metrics:
            ours, error = result.metrics[name], result.metrics[f"{name}_se"]
            paper = None if key else result.paper.get(score)
            rows[score] = [ours, error, paper, least[score], most[score], f"{about['repeats']} x {about['films']}"]
    return rows

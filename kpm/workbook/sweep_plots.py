"""Pictures of a sweep: a result over a parameter, the runs as points and their mean as a line."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from kpm.workbook import plots
from kpm.workbook.sweep import ABOUT

_REPEATS = ("seed", "trial")  # parameters over which runs are averaged rather than compared
_LINES = 6


def axes_of(table: pd.DataFrame, parameters: Sequence[str]) -> tuple[str | None, str | None]:
    """The varied parameter of a sweep that goes along the axis, and the one that colours; None if there is none.

    Along the axis goes the number with the most values; seeds and trials are taken only if nothing else varies.
    """
    varied = [name for name in parameters if table[name].astype(str).nunique() > 1]
    varied.sort(key=lambda n: (n in _REPEATS, not _is_number(table[n]), -table[n].astype(str).nunique()))
    others = [name for name in varied[1:] if name not in _REPEATS and table[name].astype(str).nunique() <= _LINES]
    return (varied[0] if varied else None), (others[0] if others else None)


def results_of(table: pd.DataFrame, parameters: Sequence[str]) -> list[str]:
    """Columns that hold numbers found by the notebook, with wall seconds at the end; those that never vary are out."""
    found = [c for c in table if c not in (*parameters, *ABOUT) and _is_number(table[c]) and table[c].nunique() > 1]
    return [*found, "wall_s"]


def plot_sweep(table: pd.DataFrame, result: str, along: str, colour: str | None = None) -> Figure:
    """A result over a parameter: a point for each run, and the mean of runs that differ in other parameters only.

    Parameters
    ----------
    table : DataFrame
        One row per run; rows without the result are left out.
    result, along : str
        Columns on the vertical and the horizontal axis.
    colour : str, optional
        Column whose values, at most six, get a line each.
    """
    rows = table.dropna(subset=[result])
    number = _is_number(rows[along])
    figure, axes = plots._figure(6.4, 3.8)
    ax = axes[0, 0]
    with plots.style():
        for shade, (value, group) in zip(plots.COLOURS, _groups(rows, colour)):
            x = group[along] if number else group[along].astype(str)
            mean = group.groupby(x, sort=number)[result].mean()
            ax.plot(x, group[result], "o", ms=4.5, mew=0, alpha=0.45, color=shade)
            ax.plot(mean.index, mean.to_numpy(), color=shade, label=None if colour is None else f"{colour} = {value}")
        ax.set(xlabel=along, ylabel=result)
        if colour is not None:
            ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _groups(rows: pd.DataFrame, colour: str | None) -> list[tuple[object, pd.DataFrame]]:
    if colour is None:
        return [("", rows)]
    return [(value, rows[rows[colour] == value]) for value in sorted(rows[colour].unique(), key=str)]


def _is_number(column: pd.Series) -> bool:
    return is_numeric_dtype(column) and not is_bool_dtype(column)

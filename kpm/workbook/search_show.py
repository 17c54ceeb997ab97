"""What a search has found: a table of its trials, and two pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import optuna
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from kpm import files
from kpm.training.search import Place, Range
from kpm.workbook import plots, session
from kpm.workbook.runner_table import duration, layout

_WIDTH = 160
_NAMES = {
    "latent_dim": "K",
    "hidden_dim": "H",
    "w_prediction": "w_pred",
    "w_eigenvalues": "w_eig",
    "threshold": "α",
}


def line(place: Place) -> str:
    """One place in words, for a log."""
    last = place.last
    value = "" if last.value is None else f"held-out MSE {last.value:.4e}"
    settings = " ".join(f"{_NAMES.get(name, name)}={_short(v)}" for name, v in last.params.items())
    again = f"attempt {len(place.attempts)}" if len(place.attempts) > 1 else ""
    why = last.user_attrs.get("error", last.user_attrs.get("interrupted", ""))
    took = duration(last.duration.total_seconds()) if last.duration else ""
    return "  ".join(filter(None, (f"place {place.number}", place.state, value, settings, took, again, why)))


def table(found: Sequence[Place], ranges: Mapping[str, Range], top: int) -> list[str]:
    """Lines: the `top` best complete trials, how many there are in each other state, what failed and why."""
    complete = sorted((p for p in found if p.state == "complete"), key=lambda p: (p.last.value, p.number))
    head = ["place", "held-out MSE", *(_NAMES.get(name, name) for name in ranges), "best step", "time", "attempts"]
    rows = [head]
    for place in complete[:top]:
        last = place.last
        cells = [str(place.number), f"{last.value:.4e}", *(_short(last.params[name]) for name in ranges)]
        took = duration(last.duration.total_seconds())
        rows.append([*cells, str(last.user_attrs["metrics"]["step"]), took, str(len(place.attempts))])
    states = [place.state for place in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    failed = [line(place) for place in found if place.state in ("failed", "given up")]
    return [*layout(rows, _WIDTH), f"{len(found)} trials: {counts}", *failed[:top]]


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def figures(found: Sequence[Place], ranges: Mapping[str, Range], folder: Path) -> list[Path]:
    """Write ``importance.png`` and ``parallel.png``; neither says anything of fewer than two different values."""
    done = [place for place in found if place.state == "complete"]
    if len({place.last.value for place in done}) < 2:
        return []
    pictures = {
        "importance": plot_importance(importance(done, ranges), len(done)),
        "parallel": plot_parallel(done, ranges),
    }
    written = []
    for name, figure in pictures.items():
        with files.atomic(folder / f"{name}.png") as part:
            part.write_bytes(session.render(figure))
        written.append(folder / f"{name}.png")
    return written


def importance(done: Sequence[Place], ranges: Mapping[str, Range]) -> dict[str, float]:
    """Share of the variance of the logarithm of the error that each setting explains by itself or with others.

    That is functional ANOVA of a random forest (Hutter et al., ICML 2014), as Optuna has it; few trials say little.
    """
    study = optuna.create_study()
    spans = {name: span.distribution() for name, span in ranges.items()}
    study.add_trials(
        optuna.create_trial(params=p.last.params, distributions=spans, value=float(np.log(p.last.value))) for p in done
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def plot_importance(shares: Mapping[str, float], trials: int) -> Figure:
    """A bar for each setting: the share of the variance that it explains."""
    figure, axes = plots._figure(6.0, 0.9 + 0.42 * len(shares))
    ax = axes[0, 0]
    names = sorted(shares, key=shares.__getitem__)
    with plots.style():
        ax.barh([_NAMES.get(n, n) for n in names], [shares[n] for n in names], color=plots.BLUE, height=0.6)
        ax.set(xlabel="share of the variance of log held-out MSE", xlim=(0, 1), title=f"{trials} trials")
        ax.grid(axis="y", visible=False)
    return figure


def plot_parallel(done: Sequence[Place], ranges: Mapping[str, Range]) -> Figure:
    """Parallel coordinates: a line for each trial through its settings to its error, dark for small errors."""
    figure, axes = plots._figure(8.0, 4.2)
    ax = axes[0, 0]
    errors = np.array([place.last.value for place in done])
    low, high = float(errors.min()), float(errors.max())
    columns = [[_where(place.last.params[name], span) for place in done] for name, span in ranges.items()]
    columns.append(list(np.log(errors / low) / np.log(high / low)))
    heights = np.array(columns).T
    order = np.argsort(-errors)  # the best are drawn last, on top
    x = np.arange(len(columns))
    with plots.style():
        lines = LineCollection(
            [np.column_stack([x, row]) for row in heights[order]], cmap="viridis", linewidths=1.3, alpha=0.85
        )
        lines.set_array(heights[order, -1])
        ax.add_collection(lines)
        for i, (bottom, top) in enumerate([*((s.low, s.high) for s in ranges.values()), (low, high)]):
            ax.axvline(i, color=plots.GREY, lw=1)
            for value, y, side in ((bottom, -0.02, "top"), (top, 1.02, "bottom")):
                ax.annotate(f"{value:.3g}", (i, y), ha="center", va=side, fontsize=10, annotation_clip=False)
        names = [_NAMES.get(name, name) for name in ranges]
        ax.set(xlim=(-0.2, len(columns) - 0.8), ylim=(0, 1), yticks=[])
        ax.set_xticks(x, [*names, "held-out MSE"])
        ax.tick_params(axis="x", pad=16, length=0)
        ax.grid(False)
        for spine in ax.spines.values():
            spine.set_visible(False)
        logs = [_NAMES.get(name, name) for name, span in ranges.items() if span.log]
        ax.set_title(f"{len(done)} trials; logarithmic: {', '.join([*logs, 'held-out MSE'])}", pad=22)
    return figure


def _where(value: float, span: Range) -> float:
    """How far up its range a value lies, from 0 to 1."""
    if span.log:
        return float(np.log(value / span.low) / np.log(span.high / span.low))
    return (value - span.low) / (span.high - span.low)

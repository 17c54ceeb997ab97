"""The progress of a run on a terminal (a table that updates in place) or in a log (one line per change)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import TextIO

from kpm.workbook.runner_plan import NotebookRun

_EVERY_S = 0.5
_HEAD = ("notebook", "state", "cell", "time", "memory", "")


def duration(seconds: float) -> str:
    """
    >>> duration(7.25), duration(75), duration(3723)
    ('7.2 s', '1:15 min', '1:02 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def memory(size: int) -> str:
    """
    >>> memory(0), memory(250_000_000), memory(3_210_000_000)
    ('', '250 MB', '3.21 GB')
    """
    if not size:
        return ""
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def row(run: NotebookRun) -> tuple[str, ...]:
    cells = f"{run.cells_done}/{run.cells}" if run.cells else ""
    elapsed = duration(run.wall_s) if run.wall_s else ""
    if run.state == "running" and run.expected_s:
        elapsed += f" of ~{duration(run.expected_s)}"
    return run.name, run.state, cells, elapsed, memory(run.peak_bytes), run.reason


def layout(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Columns as wide as their widest entry, each line cut to `width` characters."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(w) for text, w in zip(r, widths)).rstrip() for r in rows]
    return [line if len(line) <= width else line[: width - 1] + "…" for line in lines]


class Table:
    """Shows the notebooks of a run on `stream`; call it as often as you like."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._live = stream.isatty()
        self._lines = 0
        self._drawn = float("-inf")
        self._states: dict[str, str] = {}

    def __call__(self, runs: Sequence[NotebookRun]) -> None:
        changed = [run for run in runs if self._states.get(run.name, "waiting") != run.state]
        self._states = {run.name: run.state for run in runs}
        if not self._live:
            for run in changed:
                facts = row(run)[:2] if run.state == "running" else row(run)
                self._stream.write("  ".join(filter(None, facts)) + "\n")
        elif changed or time.monotonic() - self._drawn > _EVERY_S:
            self._draw(runs)
        self._stream.flush()

    def _draw(self, runs: Sequence[NotebookRun]) -> None:
        size = shutil.get_terminal_size()
        room = max(size.lines - 2, 3)
        shown = list(runs)
        if len(shown) > room:  # what does not fit stays above the screen and could not be drawn over
            shown = [r for r in runs if r.state in ("running", "failed")][: room - 1]
        lines = layout([_HEAD, *map(row, shown)], size.columns)
        if len(shown) < len(runs):
            waiting = sum(r.state == "waiting" for r in runs)
            lines.append(f"{len(runs)} notebooks, {waiting} waiting")
        up = f"\x1b[{self._lines}F" if self._lines else ""
        self._stream.write(up + "\x1b[J" + "\n".join(lines) + "\n")
        self._lines = len(lines)
        self._drawn = time.monotonic()

"""How long a move of each explorer takes: from the new value of a control to the bytes of the new picture."""

from __future__ import annotations

import statistics
import time
from typing import NamedTuple

import ipywidgets

from kpm.workbook import explorers
from kpm.workbook.gallery import Gallery


class Move(NamedTuple):
    """One kind of move: milliseconds over its repeats, and of the processor's time, which a busy machine stretches."""

    explorer: str
    control: str
    median: float
    worst: float
    processor: float


def time_moves(gallery: Gallery, repeats: int = 30) -> list[Move]:
    """Move one control after another, each `repeats` times, on explorers like those of the page.

    The kernel's share of a move: decoding, judging, drawing and the widgets' own work; a browser adds the way of some
    50 kB and their display.
    """
    swap, channel = explorers.swap_explorer(gallery), explorers.channel_explorer(gallery)
    hull, mode = explorers.hull_explorer(gallery), explorers.eigenvalue_explorer(gallery)
    low, high = (control(channel, "value").min, control(channel, "value").max)
    modes = [k for _, k in control(mode, "eigenvalue").options]
    plans = [
        ("swap", swap, "second", list(range(len(gallery)))),
        ("swap", swap, "exchange", list(gallery.exchanges)),
        ("channel", channel, "value", [low + (high - low) * k / repeats for k in range(repeats + 1)]),
        ("channel", channel, "component", [c for _, c in control(channel, "component").options]),
        ("hull", hull, "share of A", [k / repeats for k in range(repeats + 1)]),
        ("hull", hull, "B", list(range(len(gallery)))),
        ("eigenvalue", mode, "eigenvalue", modes),
        ("eigenvalue", mode, "film", list(range(len(gallery)))),
    ]
    found = []
    for name, box, label, values in plans:
        widget = control(box, label)
        times, processor = [], []
        for k in range(repeats + 1):  # the first is to warm up
            value = values[k % len(values)]
            if value == widget.value:
                value = values[(k + 1) % len(values)]
            began, used = time.perf_counter(), time.process_time()
            widget.value = value
            times.append(1e3 * (time.perf_counter() - began))
            processor.append(1e3 * (time.process_time() - used))
        found.append(Move(name, label, statistics.median(times[1:]), max(times[1:]), statistics.median(processor[1:])))
    return found


def control(box: ipywidgets.VBox, description: str) -> ipywidgets.Widget:
    """The control of an explorer with this description."""
    return next(w for w in box.children[0].children if w.description == description)

"""The one face datasets of labelled points of a plane or a space have."""

from __future__ import annotations

import dataclasses

from kpm.datasets.labelled import Labelled


@dataclasses.dataclass(frozen=True, eq=False)
class Points(Labelled):
    """Points, floating point ``(n, dimensions)``, with a class each; see `Labelled`.

    Your own are a dataset once they stand in here.
    """

    axes, kind = ("n", "dimensions"), "points"

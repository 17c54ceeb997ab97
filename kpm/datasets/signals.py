"""The one face datasets of labelled time series have."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from kpm.datasets.labelled import Labelled


@dataclasses.dataclass(frozen=True, eq=False)
class Signals(Labelled):
    """Time series of one length, floating point ``(n, time, channels)``, with a class each; see `Labelled`.

    Your own are a dataset once they stand in here. Class 0 is the normal one where there is a normal one.
    """

    class_names: tuple[str, ...] = ("normal", "anomalous")

    axes, kind = ("n", "time", "channels"), "series"

    @property
    def anomalous(self) -> Tensor:
        """Whether a series is of any class but the first, bool ``(n,)``."""
        return self.labels != 0

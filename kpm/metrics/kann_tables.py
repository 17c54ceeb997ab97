"""The numbers printed in the KANN paper, as data, to stand beside ours. Nothing here is measured by `kpm`.

Keys are the tasks of ``kpm kann``, and for accuracies the splits of `kpm.datasets`.

- `ACCURACY`: right verdicts on reviews (sec. 4.1); for heartbeats the share of normal ones found normal (sec. 4.2)
- `AGREEMENT`: the share of verdicts that stay when the last state is predicted (sec. 4.3). The paper says "more than".
- `E_REL`: relative error of states predicted one step ahead, eq. 12 (sec. 4.3)

For sentiment, the last two are of one batch of 64 reviews, fitted and judged on padding too: the public code masks
nothing. They go beside figures of ours that are taken the same way, not beside those of real words alone.
"""

from __future__ import annotations

ACCURACY: dict[str, dict[str, float]] = {
    "sentiment": {"train": 0.92, "validation": 0.87, "test": 0.87},
    "ecg": {"train": 0.971, "validation": 0.976, "test": 0.986},
}
AGREEMENT: dict[str, float] = {"sentiment": 0.99, "ecg": 0.97}
E_REL: dict[str, float] = {"sentiment": 0.095, "ecg": 0.0056}

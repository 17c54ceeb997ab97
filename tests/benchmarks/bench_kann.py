"""The whole Koopman analysis of (64, 1000, 256) hidden states, and how much memory it takes beside the states.

Ours is `KANN` with the published rank: basis, operator, eigenvalues, modes and their duals. The reference is what the
published code does for the same answers: TruncatedSVD, coordinates of all states, `numpy.linalg.lstsq` on them,
`numpy.linalg.eig` and the inverse of the eigenvectors; in float64, where both are equally exact, and in float32, as
published.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import psutil
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import TruncatedSVD

from kpm.analysis.kann import KANN
from kpm.workbook.bench import Benchmark, Case, sibling

moments = sibling("moments")
states, RANK = moments.states, moments.RANK


def ours(x: np.ndarray) -> np.ndarray:
    return KANN(rank="published").fit(x).eigenvalues_


def published(x: np.ndarray) -> np.ndarray:
    """Eigenvalues, largest modulus first, with everything the notebooks of the published code compute on the way."""
    flat = x.reshape(-1, x.shape[-1])
    basis = TruncatedSVD(RANK, random_state=0).fit(flat)
    z = basis.transform(flat).reshape(*x.shape[:-1], RANK)
    past, future = z[:, :-1].reshape(-1, RANK), z[:, 1:].reshape(-1, RANK)
    values, right = np.linalg.eig(np.linalg.lstsq(past, future, rcond=None)[0])
    np.linalg.inv(right)
    return values[np.argsort(-np.abs(values))]


def same(tolerance: float):
    def check(a: np.ndarray, b: np.ndarray) -> None:
        distance = np.abs(np.asarray(a)[:, None] - b)
        error = distance[linear_sum_assignment(distance)].max()
        assert error < tolerance, f"eigenvalues differ by {error:.1e}"

    return check


def peak_mib(function: Callable[[], object]) -> float:
    """How far the memory of this process rises above what it is before `function`, looked at every millisecond."""
    process, peak, done = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def look() -> None:
        while not done.is_set():
            peak.append(process.memory_info().rss)
            time.sleep(1e-3)

    watch = threading.Thread(target=look)
    watch.start()
    try:
        function()
    finally:
        done.set()
        watch.join()
    return (max(peak) - before) / 2**20


def benchmark() -> Benchmark:
    x = states()
    x64 = x.astype(np.float64)
    name = "TruncatedSVD + lstsq + eig"
    ours(x[:2]), published(x[:2])  # libraries loaded, threads started
    memory = {
        "ours": peak_mib(lambda: ours(x)),
        "the reference in float64": peak_mib(lambda: published(x64)),
        "the reference in float32": peak_mib(lambda: published(x)),
    }
    cases = (
        Case("float64", lambda: ours(x), lambda: published(x64), name, check=same(1e-8), minimum=10.0),
        Case("published", lambda: ours(x), lambda: published(x), name, check=same(1e-2), minimum=5.0),
    )
    notes = "Peak memory beyond the states: " + ", ".join(f"{k} {v:.0f} MiB" for k, v in memory.items()) + "."
    return Benchmark("kann", cases, notes)

"""Koopman operators of sequences ``(*batch, time, dim)``, in row convention: ``z[t+1] ~ z[t] @ K``.

Shared or one per sequence, with their spectra, projectors, predictions and an estimator. Float64 inside,
and the same on CPU and GPU.

Differentiable once: what is fitted to data or found by iteration has a first derivative that is exact, and a second one
raises `NotImplementedError`. Only `predict`, `eigenvalues` of a matrix that is given, the Kalman recursions and
`continuous` go through autograd's own operations, and can be differentiated again.
"""

from __future__ import annotations

from typing import Any

from kpm.solvers.identification import identify
from kpm.solvers.inverse_iteration import Eigenpair, nearest_eigenpair
from kpm.solvers.kalman import forecast, kalman_filter, kalman_smoother, steady_state
from kpm.solvers.linear_gaussian import LinearGaussian
from kpm.solvers.matching import Matching
from kpm.solvers.operators import Operator, from_pairs, per_sequence, shared
from kpm.solvers.prediction import predict
from kpm.solvers.projectors import projector
from kpm.solvers.realization import hankel_blocks, realize
from kpm.solvers.sequences import sequence_eigenvalues, static_part
from kpm.solvers.spectra import (
    ContinuousSpectrum,
    Spectrum,
    Split,
    continuous,
    decompose,
    eigenvalues,
    memory_horizon,
    nearest_to_one,
    split,
)
from kpm.solvers.streaming import Moments
from kpm.solvers.subspace_dmd import subspace

__all__ = [
    "DMD",
    "ContinuousSpectrum",
    "Eigenpair",
    "LinearGaussian",
    "Matching",
    "Moments",
    "Operator",
    "Spectrum",
    "Split",
    "continuous",
    "decompose",
    "eigenvalues",
    "forecast",
    "from_pairs",
    "hankel_blocks",
    "identify",
    "kalman_filter",
    "kalman_smoother",
    "memory_horizon",
    "nearest_eigenpair",
    "nearest_to_one",
    "per_sequence",
    "predict",
    "projector",
    "realize",
    "sequence_eigenvalues",
    "shared",
    "split",
    "static_part",
    "steady_state",
    "subspace",
]


def __getattr__(name: str) -> Any:
    """Import the estimator when it is asked for: scikit-learn takes a second that the solvers do not need."""
    if name == "DMD":
        from kpm.solvers.dmd import DMD

        return DMD
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Koopman operators of sequences ``(*batch, time, dim)``, in row convention: ``z[t+1] ~ z[t] @ K``.

Shared or one per sequence, with their spectra, projectors, predictions and an estimator. Float64 inside,
differentiable, and the same on CPU and GPU.
"""

from __future__ import annotations

from typing import Any

from kpm.solvers.inverse_iteration import Eigenpair, nearest_eigenpair
from kpm.solvers.matching import Matching
from kpm.solvers.operators import Operator, from_pairs, per_sequence, shared
from kpm.solvers.prediction import predict
from kpm.solvers.projectors import projector
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
from kpm.solvers.subspace_dmd import subspace

__all__ = [
    "DMD",
    "ContinuousSpectrum",
    "Eigenpair",
    "Matching",
    "Operator",
    "Spectrum",
    "Split",
    "continuous",
    "decompose",
    "eigenvalues",
    "from_pairs",
    "memory_horizon",
    "nearest_eigenpair",
    "nearest_to_one",
    "per_sequence",
    "predict",
    "projector",
    "sequence_eigenvalues",
    "shared",
    "split",
    "static_part",
    "subspace",
]


def __getattr__(name: str) -> Any:
    """Import the estimator when it is asked for: scikit-learn takes a second that the solvers do not need."""
    if name == "DMD":
        from kpm.solvers.dmd import DMD

        return DMD
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

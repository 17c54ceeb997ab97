"""Operator and basis of (64, 1000, 256) hidden states: streaming moments against TruncatedSVD + numpy.linalg.lstsq."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import TruncatedSVD

from kpm.solvers.streaming import Moments

SHAPE, RANK = (64, 1000, 256), 255


def states() -> np.ndarray:
    """Noisy linear dynamics, float32; spectrum of the states over two decades, as hidden states have."""
    rng = np.random.default_rng(0)
    n, time, dim = SHAPE
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    scale = np.geomspace(1, 1e-2, dim)
    operator = 0.98 * turn @ np.diag(np.exp(-np.linspace(0, 1, dim))) @ np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    x, h = np.empty(SHAPE, np.float32), rng.normal(size=(n, dim))
    for t in range(time):
        x[:, t] = (h * scale) @ turn
        h = h @ operator + rng.normal(size=(n, dim))
    return x


def streamed(x: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Basis of all states and the operator of their coordinates, as an operator on states and as a projector."""
    moments = Moments(method).partial_fit(x)
    basis = moments.basis(RANK)
    return on_states(moments.project(basis).operator().matrix.numpy(), basis.vectors.numpy())


def published(x: np.ndarray, **options: object) -> tuple[np.ndarray, np.ndarray]:
    """How the published KANN code does it: randomised SVD of all states, coordinates, least squares, in float32."""
    flat = x.reshape(-1, x.shape[-1])
    basis = TruncatedSVD(RANK, random_state=0, **options).fit(flat)
    z = basis.transform(flat).reshape(*x.shape[:-1], RANK)
    past, future = z[:, :-1].reshape(-1, RANK), z[:, 1:].reshape(-1, RANK)
    return on_states(np.linalg.lstsq(past, future, rcond=None)[0], basis.components_.T)


def on_states(operator: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two answers that do not depend on the signs of basis vectors."""
    return vectors @ operator @ vectors.T, vectors @ vectors.T

"""Stochastic realization against textbook subspace identification, plain numpy CCA and known systems."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kpm.solvers.identification import fit_system, identify
from kpm.solvers.realization import hankel_blocks, realize

POLES = np.array([0.95 * np.exp(0.5j), 0.95 * np.exp(-0.5j), 0.8 * np.exp(1.6j), 0.8 * np.exp(-1.6j)])


def simulate(seed, time=4000, sensors=2, process=1.0, sensor=0.5, batch=()):
    """Observations of a linear system with known poles; columns as in the textbooks, not as in the package."""
    rng = np.random.default_rng(seed)
    a = scipy.linalg.block_diag(*(abs(z) * np.array([[z.real, z.imag], [-z.imag, z.real]]) / abs(z) for z in POLES[::2]))
    c = np.random.default_rng(99).normal(size=(sensors, 4))
    x, ys = rng.normal(size=(*batch, 4)), []
    for _ in range(time):
        x = x @ a.T + process * rng.normal(size=(*batch, 4))
        ys.append(x @ c.T + sensor * rng.normal(size=(*batch, sensors)))
    return np.stack(ys, -2)


def n4sid_poles(y, window, rank, weighted):
    """Van Overschee and De Moor, stochastic subspace identification, algorithm 1 (with CVA weights if `weighted`)."""
    y = (y - y.mean(0)).T
    sensors, time = y.shape
    n = time - 2 * window + 1
    hankel = np.concatenate([y[:, k : k + n] for k in range(2 * window)]) / np.sqrt(n)

    def projected(split):
        past, future = hankel[: split * sensors], hankel[split * sensors :]
        return future, future @ np.linalg.lstsq(past.T, future.T, rcond=None)[0].T.__class__(past.shape)

    def project(split):
        past, future = hankel[: split * sensors], hankel[split * sensors :]
        coefficients = np.linalg.lstsq(past.T, future.T, rcond=None)[0]
        return future, coefficients.T @ past

    future, ahead = project(window)
    weight = np.linalg.inv(scipy.linalg.sqrtm(future @ future.T).real) if weighted else np.eye(len(future))
    u, s, _ = np.linalg.svd(weight @ ahead, full_matrices=False)
    gamma = np.linalg.inv(weight) @ u[:, :rank] * np.sqrt(s[:rank])
    _, later = project(window + 1)
    states, next_states = np.linalg.pinv(gamma) @ ahead, np.linalg.pinv(gamma[:-sensors]) @ later
    return np.linalg.eigvals(np.linalg.lstsq(states.T, next_states.T, rcond=None)[0])


def pole_error(poles):
    from scipy.optimize import linear_sum_assignment

    distance = np.abs(np.asarray(poles)[:, None] - POLES)
    return distance[linear_sum_assignment(distance)].mean()


def test_poles_as_good_as_subspace_identification():
    ours, plain, cva = [], [], []
    for seed in range(10):
        y = simulate(seed)
        found = identify(torch.from_numpy(y), 10, 4)
        ours.append(pole_error(torch.linalg.eigvals(found.system.transition).numpy()))
        plain.append(pole_error(n4sid_poles(y, 10, 4, False)))
        cva.append(pole_error(n4sid_poles(y, 10, 4, True)))
    print(np.mean(ours), np.mean(plain), np.mean(cva))
    assert np.mean(ours) < 0.01
    assert np.mean(ours) < 1.1 * min(np.mean(plain), np.mean(cva))

from __future__ import annotations

import cmath

import numpy as np
import pytest
import torch

from kpm.solvers import eigenvalues, matching, shared, subspace
from tests.solvers.case import OperatorCase, noisy_system, pairs


def windows(sequences):
    """Pasts ``[z0 z1]`` and futures ``[z2 z3]``, as rows."""
    past = np.concatenate([np.hstack([s[:-3], s[1:-2]]) for s in sequences])
    return past, np.concatenate([np.hstack([s[2:-1], s[3:]]) for s in sequences])


class TestSubspace(OperatorCase):
    """Against the formulas of the paper, with projections and singular vectors written out."""

    digits = 1e-9

    def solve(self, z, mask=None):
        return subspace(z, mask)

    def dense(self, past, future):
        raise AssertionError("needs windows of four frames, see `expected`")

    def expected(self, sequences):
        past, future = windows(sequences)
        dim = future.shape[1] // 2
        _, _, vp = np.linalg.svd(past.T, full_matrices=False)
        projected = future.T @ vp.T @ vp
        uq = np.linalg.svd(projected, full_matrices=False)[0][:, :dim]
        u, s, vh = np.linalg.svd(uq[:dim], full_matrices=False)
        return (uq[dim:] @ vh.T @ np.diag(1 / s) @ u.T).T

    def test_any_batch_shape(self):
        z = self.sample(6)
        assert torch.equal(subspace(z.reshape(2, 3, self.time, self.dim)).matrix, subspace(z).matrix)

    def test_no_pair_across_a_border(self):
        z = torch.cat([self.sample(1, seed=3)[0], self.sample(1, seed=4)[0]])
        mask = torch.ones(len(z), dtype=torch.bool)
        mask[self.time] = False
        self.same(subspace(z, mask).matrix, self.expected([z[: self.time].numpy(), z[self.time + 1 :].numpy()]))

    def test_bad_masks(self):
        mask = torch.ones(3, self.time, dtype=torch.bool)
        mask[:, ::4] = False
        with pytest.raises(ValueError, match="mask: no four frames in a row"):
            subspace(self.sample(), mask)


def test_too_few_frames():
    with pytest.raises(ValueError, match=r"z: at least 4 frames are needed, got shape \(2, 3, 5\)"):
        subspace(torch.zeros(2, 3, 5))


def test_exact_data_gives_the_exact_operator():
    z = noisy_system(8, time=6, dim=4, noise=0.0)
    past, future = pairs(list(z.numpy()))
    np.testing.assert_allclose(subspace(z).matrix.numpy(), np.linalg.lstsq(past, future, rcond=None)[0], atol=1e-10)


@pytest.mark.parametrize("rank", [None, 3])
def test_against_pydmd(rank):
    pytest.importorskip("pydmd")
    from pydmd.subspacedmd import SubspaceDMD

    z = noisy_system(1, time=60, dim=5, seed=2)[0]
    theirs = SubspaceDMD(svd_rank=rank or -1).fit(z.numpy().T.copy())
    ours = eigenvalues(subspace(z, rank=rank))
    found = matching.optimal(torch.from_numpy(theirs.eigs).to(torch.complex128), ours)
    assert len(theirs.eigs) == (rank or 5) and found.distance.max() < 1e-8


def stuart_landau(noise, steps, seed, mu=1.0, gamma=0.9, beta=0.3, dt=0.1):
    """Phases of ``dz = ((mu + i gamma) z - (1 + i beta) |z|^2 z) dt + sqrt(noise) dW``; Re dW, Im dW of variance dt."""
    rng = np.random.default_rng(seed)
    kicks = np.sqrt(noise * dt) * (rng.normal(size=steps) + 1j * rng.normal(size=steps))

    def drift(z):
        return (mu + 1j * gamma) * z - (1 + 1j * beta) * abs(z) ** 2 * z

    z, phases = 1 + 0j, []
    for kick in kicks:
        a = drift(z)
        b = drift(z + dt / 2 * a)
        c = drift(z + dt / 2 * b)
        d = drift(z + dt * c)
        z = z + dt / 6 * (a + 2 * b + 2 * c + d) + complex(kick)
        phases.append(cmath.phase(z))
    return np.array(phases), rng


def test_stuart_landau_with_process_and_observation_noise():
    """Nine harmonics of the phase, with noise: plain DMD is drawn inwards, subspace DMD is 5 times closer or more."""
    noise, m = 0.05, np.arange(1, 5)
    phase, rng = stuart_landau(noise, 6000, seed=0)
    harmonics = np.hstack([np.ones((6000, 1)), np.cos(phase[:, None] * m), np.sin(phase[:, None] * m)])
    z = torch.from_numpy(harmonics + 0.1 * rng.normal(size=harmonics.shape))
    # Weak-noise eigenvalues (Bagheri 2014): omega = gamma - beta mu, decay noise / 2 (1 + beta^2) / mu per m^2.
    m = torch.arange(-4, 5)
    reference = torch.exp(0.1 * torch.complex(-noise / 2 * 1.09 * m.double() ** 2, 0.6 * m.double()))
    error = {f: float(matching.optimal(reference, eigenvalues(f(z))).mean) for f in (shared, subspace)}
    assert error[subspace] < 0.004
    assert error[shared] > 5 * error[subspace]

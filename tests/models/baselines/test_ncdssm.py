from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from scipy.integrate import quad_vec

from kpm.models.baselines.ncdssm import NCDSSM, NCDSSMConfig, discretise
from kpm.models.baselines.settled_filter import settled_filter
from kpm.solvers import kalman_filter


def model():
    torch.manual_seed(0)
    return NCDSSM(NCDSSMConfig.quick()).eval()


def test_discretisation_is_exact():
    rng = np.random.default_rng(0)
    drift, root = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    density, dt = root @ root.T, 0.3
    transition, noise = discretise(torch.from_numpy(drift), torch.from_numpy(density), dt)
    np.testing.assert_allclose(transition.numpy(), scipy.linalg.expm(drift * dt), atol=1e-12)

    def spread(s):
        return scipy.linalg.expm(drift.T * s) @ density @ scipy.linalg.expm(drift * s)

    np.testing.assert_allclose(noise.numpy(), quad_vec(spread, 0, dt)[0], atol=1e-10)


def test_two_half_steps_are_one_step():
    drift, density = torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).double(), torch.eye(4).double()
    whole, noise = discretise(drift, density, 0.2)
    half, part = discretise(drift, density, 0.1)
    assert torch.allclose(half @ half, whole) and torch.allclose(half.mT @ part @ half + part, noise)


def test_settled_filter_is_the_kalman_filter():
    system = model().system()
    z = torch.randn(2, 90, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = kalman_filter(system, z).predicted_means
    assert torch.allclose(settled_filter(system, 90).predicted(z)[:, :-1], wanted, atol=1e-10)
    assert torch.allclose(settled_filter(system, 60).predicted(z)[:, :-1], wanted, atol=1e-3)


def test_the_bound_has_its_three_terms():
    net = model()
    frames = torch.rand(2, 6, 1, 48, 48, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(4)
    terms = net.loss(frames)
    torch.manual_seed(4)
    mean, variance = net.encoder(frames)
    normal = torch.distributions.Normal(mean, (variance + 1e-6).sqrt())
    codes = normal.mean + normal.stddev * torch.randn_like(mean)
    shown = net.decoder(codes.flatten(0, 1)).unflatten(0, (2, 6))
    pixels = frames * shown.log() + (1 - frames) * (1 - shown).log()
    assert torch.allclose(terms["pixels"], -pixels.mean(), atol=1e-5)
    assert torch.allclose(terms["entropy"], -normal.entropy().sum() / frames.numel(), atol=1e-6)
    assert torch.allclose(terms["codes"].double(), -kalman_filter(net.system(), codes).log_likelihood.sum() / 27648)
    sum(terms.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())

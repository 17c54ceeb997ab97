from __future__ import annotations

import numpy as np
import pytest
import torch

from kpm.models.baselines.image_networks import positive, set_brightness
from kpm.models.baselines.rkn import RKN, RKNCell, RKNConfig
from kpm.models.dse_image_networks import ImageDecoder
from kpm.solvers import LinearGaussian, kalman_filter


def cell(code=6, bandwidth=2, bases=3):
    torch.manual_seed(1)
    made = RKNCell(RKNConfig(code=code, bandwidth=bandwidth, bases=bases, transition_hidden=(8,))).double()
    torch.nn.init.normal_(made.bands, std=0.3)
    return made


def state(code=6, batch=2):
    """Means and positive definite pairs of covariances."""
    draw = torch.Generator().manual_seed(2)
    mean = torch.randn(batch, 2, code, generator=draw, dtype=torch.float64)
    root = torch.randn(batch, code, 2, 2, generator=draw, dtype=torch.float64)
    covariance = (root @ root.mT + 0.1 * torch.eye(2)).permute(0, 2, 3, 1)
    return mean, covariance


def dense(bands, width):
    """``(to, from, row, diagonal)`` bands as one matrix, written out entry by entry."""
    n = bands.shape[2]
    whole = np.zeros((2 * n, 2 * n))
    for o in range(2):
        for i in range(2):
            for row in range(n):
                for d in range(2 * width + 1):
                    column = row + d - width
                    if 0 <= column < n:
                        whole[o * n + row, i * n + column] = bands[o, i, row, d]
    return whole


def full(covariance):
    """Pairs of diagonals as one covariance matrix."""
    return np.block([[np.diag(covariance[i, j]) for j in range(2)] for i in range(2)])


def test_update_by_the_papers_formulas():
    """[RKN] eq. 6 to 9, with the three diagonals named as there."""
    mean, covariance = state()
    seen = torch.randn(2, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    variance = torch.rand(2, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64) + 0.1
    found_mean, found = (x.numpy() for x in RKNCell.update(cell(), mean, covariance, seen, variance))
    u, l, s = covariance[:, 0, 0].numpy(), covariance[:, 1, 1].numpy(), covariance[:, 0, 1].numpy()
    qu, ql = u / (u + variance.numpy()), s / (u + variance.numpy())
    residual = seen.numpy() - mean[:, 0].numpy()
    np.testing.assert_allclose(found_mean[:, 0], mean[:, 0].numpy() + qu * residual, atol=1e-12)
    np.testing.assert_allclose(found_mean[:, 1], mean[:, 1].numpy() + ql * residual, atol=1e-12)
    np.testing.assert_allclose(found[:, 0, 0], (1 - qu) * u, atol=1e-12)
    np.testing.assert_allclose(found[:, 0, 1], (1 - qu) * s, atol=1e-12)
    np.testing.assert_allclose(found[:, 1, 0], (1 - qu) * s, atol=1e-12)
    np.testing.assert_allclose(found[:, 1, 1], l - ql * s, atol=1e-12)


def test_prediction_is_that_of_dense_matrices_with_the_diagonals_kept():
    made, (mean, covariance) = cell(), state()
    found_mean, found = (x.detach().numpy() for x in made.predict(mean, covariance))
    weights = made.weights(mean.flatten(1)).softmax(-1).detach().numpy()
    noise = positive(made.noise).detach().numpy()
    for b in range(2):
        a = dense(np.tensordot(weights[b], made.bands.detach().numpy(), 1), 2)
        np.testing.assert_allclose(found_mean[b].reshape(-1), a @ mean[b].reshape(-1).numpy(), atol=1e-12)
        whole = a @ full(covariance[b].numpy()) @ a.T + np.diag(noise.reshape(-1))
        blocks = whole.reshape(2, 6, 2, 6)
        for i in range(2):
            for j in range(2):
                np.testing.assert_allclose(found[b, i, j], np.diag(blocks[i, :, j]), atol=1e-12)


def test_without_neighbours_it_is_a_kalman_filter_of_each_coordinate():
    made = cell(code=4, bandwidth=0, bases=1)
    y = torch.randn(12, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    mean, covariance = torch.zeros(1, 2, 4).double(), 10 * torch.eye(2).double()[..., None].expand(1, 2, 2, 4)
    found = []
    for seen in y:
        mean, covariance = made.predict(*made.update(mean, covariance, seen[None], torch.full((1, 4), 0.3).double()))
        found.append(mean[0, 0])
    noise = positive(made.noise).detach()
    for k in range(4):
        model = LinearGaussian(
            transition=made.bands[0, :, :, k, 0].detach().mT,
            output=torch.tensor([[1.0], [0.0]]),
            process_noise=torch.diag(noise[:, k]),
            observation_noise=torch.tensor([[0.3]]),
            initial_mean=torch.zeros(2),
            initial_covariance=10 * torch.eye(2),
        )
        wanted = kalman_filter(model, torch.cat([y[:, k : k + 1], y[:1, k : k + 1]])).predicted_means[1:, 0]
        assert torch.allclose(torch.stack(found)[:, k], wanted, atol=1e-10)


def test_published_sizes():
    model = RKN()
    assert model.cell.bands.shape == (15, 2, 2, 100, 7)
    assert torch.allclose(positive(model.cell.noise), torch.tensor(0.1))
    codes, variances = model.encoder(torch.zeros(1, 2, 1, 48, 48))
    assert torch.allclose(codes.norm(dim=-1), torch.ones(1, 2)) and (variances > 0).all()


def test_every_pixel_depends_on_the_code():
    codes = torch.randn(300, 10, generator=torch.Generator().manual_seed(1))
    constant = {}
    for published in (False, True):
        torch.manual_seed(0)
        with torch.no_grad():
            constant[published] = int((ImageDecoder(10, published)(codes).std(0) < 1e-9).sum())
    assert constant == {False: 0, True: 1008}


def test_brightness_at_the_start():
    torch.manual_seed(0)
    decoder = ImageDecoder(10)
    set_brightness(decoder, 0.02)
    assert 0.005 < decoder(torch.zeros(1, 10)).mean().item() < 0.06
    with pytest.raises(ValueError, match="mean: expected"):
        set_brightness(decoder, 1.0)


@pytest.mark.parametrize("change", [{"code": 0}, {"bandwidth": 100}, {"bases": 0}])
def test_bad_sizes(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        RKNConfig(**change)

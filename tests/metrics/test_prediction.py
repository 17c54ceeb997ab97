"""Prediction errors against a loop over films with numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kpm.metrics.prediction import prediction
from kpm.metrics.reconstruction import reconstruction
from kpm.models import koopman
from tests.metrics.toys import autoencoder, films


@pytest.mark.parametrize(("scope", "dim"), [("batch", 5), ("sequence", 5)])
def test_errors_are_those_of_the_definition(scope, dim):
    model, data = autoencoder(scope, latent_dim=dim), films(12)
    frames = data.to_float(data[:])
    z = model.encode(frames).double().numpy()
    if scope == "batch":
        shared = np.linalg.lstsq(z[:, :-1].reshape(-1, dim), z[:, 1:].reshape(-1, dim), rcond=None)[0]
    one, rollout = z.copy(), z.copy()
    for i, film in enumerate(z):
        operator = shared if scope == "batch" else np.linalg.lstsq(film[:-1], film[1:], rcond=None)[0]
        for t in range(1, 8):
            one[i, t] = film[t - 1] @ operator
            rollout[i, t] = film[0] @ np.linalg.matrix_power(operator, t)
    found = prediction(model, data, batch_size=12)
    assert found.latent_one_step == pytest.approx(((one - z) ** 2).mean(), rel=1e-6)
    # Latents are float32, with normalisation folded into convolutions or not; seven steps make more of the difference.
    assert found.latent_rollout == pytest.approx(((rollout - z) ** 2).mean(), rel=1e-4)
    assert found.latent_scale == pytest.approx(z.reshape(-1, dim).var(0).mean(), rel=1e-6)
    for latents, error in ((one, found.ambient_one_step), (rollout, found.ambient_rollout)):
        drawn = model.decode(torch.from_numpy(latents).float())
        assert error == pytest.approx(((drawn - frames) ** 2).mean().item(), rel=1e-4)


def test_an_operator_per_film_that_can_fit_it_gives_the_reconstruction_back():
    model, data = autoencoder("sequence", latent_dim=9), films(6)
    found, drawn = prediction(model, data), reconstruction(model, data)
    assert found.latent_rollout < 1e-12 and found.ambient_rollout == pytest.approx(drawn.mse, rel=1e-5)


def test_films_that_come_class_by_class_share_their_operators_with_other_classes():
    model, mixed = autoencoder("batch", latent_dim=5), films(96)
    by_class = mixed.subset(mixed.factors["colour"].argsort(stable=True))
    alike, different = (reconstruction(model, by_class, batch_size=n).static_distance for n in (32, 96))
    sorted_order = torch.arange(96).split(32)  # as they come
    z = model.encode(by_class.to_float(by_class[:]))
    apart = [(koopman.split(z[i], "batch", 1).eigenvalues[..., :1] - 1).abs().mean().item() for i in sorted_order]
    assert abs(alike - different) < abs(np.mean(apart) - different)
    assert prediction(model, by_class).latent_one_step > 0

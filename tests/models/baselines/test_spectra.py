from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from kpm.datasets import stuart_landau, van_der_pol
from kpm.datasets.trials import windows
from kpm.metrics.spectral_error import spectral_error
from kpm.models.baselines import spectra
from kpm.models.baselines.elto import ELTOConfig
from kpm.solvers import matching
from kpm.solvers.operators import shared


def position(frames=600, noise=0.05):
    config = van_der_pol.VanDerPol(frames=frames, train_size=frames, noise=noise, trials=1)
    return van_der_pol.simulate(config)


def angle(frames=800):
    return stuart_landau.simulate(stuart_landau.StuartLandau(frames=frames, train_size=frames, trials=1))


def apart(found, theirs):
    """Largest distance of partners in two spectra of the same size."""
    theirs = torch.from_numpy(np.asarray(theirs)).to(torch.complex128)
    assert len(found) == len(theirs)
    return float(matching.optimal(theirs, found).distance.max())


@pytest.mark.parametrize(("method", "delays", "rank"), [("hankel_dmd_30", 30, 9), ("hankel_dmd_100", 100, 13)])
def test_hankel_dmd_against_pydmd(method, delays, rank):
    pydmd = pytest.importorskip("pydmd")
    y = position().train[0]
    theirs = pydmd.HankelDMD(svd_rank=rank, d=delays).fit((y - y.mean(0)).numpy().T.copy())
    assert apart(spectra.SPECTRAL_METHODS[method](y), np.append(theirs.eigs, 1)) < 1e-8


def test_subspace_dmd_against_pydmd():
    pytest.importorskip("pydmd")
    from pydmd.subspacedmd import SubspaceDMD

    y, z = position(frames=200).train[0], angle(frames=200).train[0]
    delays = SubspaceDMD(svd_rank=9).fit(windows(y - y.mean(0), 30).numpy().T.copy())
    assert apart(spectra.SPECTRAL_METHODS["subspace_dmd_delays"](y), np.append(delays.eigs, 1)) < 1e-8
    fourier = SubspaceDMD(svd_rank=-1).fit(spectra.angle_harmonics(z).numpy().T.copy())
    assert apart(spectra.SPECTRAL_METHODS["subspace_dmd_fourier"](z), fourier.eigs) < 1e-8


def test_extended_dmd_against_the_kernel_one_of_pydmd():
    """Inner products of weighted monomials are ``(1 + x . y)^3``, and the weights change no eigenvalue."""
    pydmd = pytest.importorskip("pydmd")
    x = spectra.principal(windows(position(frames=150).train[0], 30), 2)
    gamma = 0.5  # the kernel is (gamma x . y + 1)^3
    theirs = pydmd.EDMD(
        svd_rank=10, kernel_metric="poly", kernel_params={"degree": 3, "gamma": gamma, "coef0": 1.0}
    ).fit(x.numpy().T.copy())
    assert apart(spectra.largest(shared(spectra.monomials(x, 3)), 10), theirs.eigs) < 1e-6


def test_monomials():
    x = torch.tensor([[2.0, 3.0]], dtype=torch.float64)
    assert spectra.monomials(x, 2).tolist() == [[1, 2, 3, 4, 6, 9]]


def test_harmonics_span_the_complex_exponentials():
    z = angle(frames=50).train[0]
    theta = torch.atan2(z[:, 1], z[:, 0])
    wanted = torch.exp(1j * theta[:, None] * torch.arange(-6, 7))
    basis = spectra.angle_harmonics(z).to(wanted.dtype)
    assert basis.shape == (50, 13)
    assert (basis @ torch.linalg.lstsq(basis, wanted).solution - wanted).abs().max() < 1e-10
    with pytest.raises(ValueError, match=r"y: expected \(\*batch, time, 2\)"):
        spectra.angle_harmonics(position(frames=50).train[0])


def errors(trials, methods):
    y = trials.train[0]
    found = {name: spectra.SPECTRAL_METHODS[name](y) for name in methods}
    assert all(v.dtype == torch.complex128 and torch.isfinite(v.abs()).all() for v in found.values())
    return {name: spectral_error(trials.reference, v, trials.harmonics).per_harmonic for name, v in found.items()}


@pytest.fixture
def brief(monkeypatch):
    """ELTO with one setting and next to no learning."""
    for name, preset in (("elto_position", ELTOConfig.van_der_pol), ("elto_angle", ELTOConfig.stuart_landau)):
        method = partial(spectra.elto.spectrum, config=preset(candidates=1, epochs=2))
        monkeypatch.setitem(spectra.SPECTRAL_METHODS, name, method)


def test_linear_methods_miss_the_even_harmonics_of_the_position(brief):
    trials = position(frames=1500, noise=0.02)
    error = errors(trials, spectra.METHODS_OF["van_der_pol"])
    even = (trials.harmonics % 2 == 0) & (trials.harmonics.abs() <= 4) & (trials.harmonics != 0)
    for name in ("hankel_dmd_30", "hankel_dmd_100", "subspace_dmd_delays", "realization_delays"):
        assert error[name][even].min() > 0.06
        assert error[name][trials.harmonics == 0] < 1e-12
        assert error[name][trials.harmonics.abs() == 1].max() < 0.01
    for name in ("edmd_monomials", "elto_position"):
        assert error[name][trials.harmonics.abs() <= 4].mean() < 0.01


def test_noise_draws_least_squares_inwards_and_not_subspace_dmd(brief):
    trials = angle(frames=3000)
    error = {k: float(v.mean()) for k, v in errors(trials, spectra.METHODS_OF["stuart_landau"]).items()}
    assert error["subspace_dmd_fourier"] < 0.01
    assert error["realization_fourier"] < 0.02
    assert error["elto_angle"] < 0.04
    assert min(error["edmd_fourier"], error["edmd_polynomial"]) > 5 * error["subspace_dmd_fourier"]


def test_a_constant_among_delays_is_the_eigenvalue_one():
    """Least squares with a column of ones, written out, on a record with a mean that is not zero."""
    y = position(frames=3000).train[0] + 3.0
    x = windows(y, 30)
    x = torch.cat([torch.ones_like(x[:, :1]), x - x.mean(0)], -1).numpy()
    whole = np.linalg.eigvals(np.linalg.lstsq(x[:-1], x[1:], rcond=None)[0])
    found = spectra.hankel_dmd(y, 30, 30)
    assert found[0] == 1 and apart(found, whole) < 1e-3  # the mean of all frames is not quite that of each column


def test_every_method_is_for_some_record():
    assert {name for names in spectra.METHODS_OF.values() for name in names} == set(spectra.SPECTRAL_METHODS)


@pytest.mark.parametrize("name", spectra.SPECTRAL_METHODS)
def test_bad_records_are_refused(name):
    channels = 1 if name in spectra.METHODS_OF["van_der_pol"] else 2
    y = torch.randn(400, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y[7] = torch.nan
    with pytest.raises(ValueError, match=r"\[7, 0\]"):
        spectra.SPECTRAL_METHODS[name](y)

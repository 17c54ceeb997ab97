"""Independent axes: they find sources that were mixed, keep the static part as it is, and refuse too little."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from kpm.models.channel_basis import ChannelBasis, independent_channels, turn
from kpm.models.koopman_autoencoder import KoopmanAutoencoder, KoopmanAutoencoderConfig
from kpm.models.parts import Parts


def parts_of(vectors: torch.Tensor) -> Parts:
    static = vectors.float()[:, None].expand(-1, 8, -1).contiguous()
    return Parts(static, torch.randn(static.shape), torch.ones(len(vectors), 1))


@pytest.fixture
def mixed() -> tuple[torch.Tensor, torch.Tensor]:
    """Four independent sources of six values each, and what a random matrix makes of them."""
    rng = np.random.default_rng(3)
    sources = rng.integers(0, 6, (3000, 4)) - 2.5
    return torch.tensor(sources), torch.tensor(sources @ rng.normal(size=(4, 4)) + rng.normal(size=4))


def test_each_axis_is_one_source(mixed):
    sources, vectors = mixed
    basis = independent_channels(parts_of(vectors))
    found = vectors @ basis.analysis.double()
    correlation = np.abs(np.corrcoef(sources.T, found.T)[:4, 4:])
    np.testing.assert_allclose(np.sort(correlation, 1)[:, -1], 1, atol=5e-3)
    assert sorted(correlation.argmax(1).tolist()) == [0, 1, 2, 3]
    # the channels as they are mix them: this is no test that anything passes
    assert np.abs(np.corrcoef(sources.T, vectors.T)[:4, 4:]).max(1).min() < 0.95


def test_components_sum_to_the_static_part_and_keep_or_swap_one_by_one(mixed):
    _, vectors = mixed
    parts = parts_of(vectors[:1000])
    basis = independent_channels(parts)
    turned = basis.apply(parts)
    assert turned.components == 4
    torch.testing.assert_close(turned.modes.sum(2), parts.static, rtol=1e-4, atol=1e-4)
    a, b = turned.take(torch.tensor([0])), turned.take(torch.tensor([1]))
    swapped = a.combine(b, torch.tensor([True, False, False, False]), dynamic=False) - b.dynamic
    coordinates = swapped @ basis.analysis
    theirs, mine = b.static @ basis.analysis, a.static @ basis.analysis
    torch.testing.assert_close(coordinates[..., 0], mine[..., 0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(coordinates[..., 1:], theirs[..., 1:], rtol=1e-3, atol=1e-3)


@pytest.fixture
def spanned(mixed) -> tuple[torch.Tensor, Parts]:
    """The sources, and static parts of seven channels as one real mode and a complex pair span them; no more than that.

    The operator's eigenvectors mix the first three sources; the fourth source is motion.
    """
    sources = mixed[0]
    rng = np.random.default_rng(4)
    turned = sources[:, :3].double() @ torch.tensor(rng.normal(size=(3, 3)))  # coordinates along the eigenvectors
    into = torch.tensor(rng.normal(size=(3, 7)))
    modes = torch.stack([turned[:, :1] @ into[:1], turned[:, 1:] @ into[1:]], 1)  # the pair is one component
    modes = modes.float()[:, None].expand(-1, 8, -1, -1).contiguous()
    values = torch.tensor([1, 1 + 0.01j], dtype=torch.complex128)
    return sources[:, :3], Parts(modes.sum(2), torch.randn(3000, 8, 7), values, modes)


def test_the_space_of_static_modes_has_an_axis_for_each_dimension_and_each_is_one_source(spanned):
    sources, parts = spanned
    basis = independent_channels(parts)
    assert basis.analysis.shape == (7, 3) and basis.synthesis.shape == (3, 7)
    found = parts.static.mean(1) @ basis.analysis
    correlation = np.abs(np.corrcoef(sources.T, found.T)[:3, 3:])
    np.testing.assert_allclose(np.sort(correlation, 1)[:, -1], 1, atol=5e-3)
    assert sorted(correlation.argmax(1).tolist()) == [0, 1, 2]
    turned = basis.apply(parts)
    assert turned.components == 3  # in place of the two modes
    torch.testing.assert_close(turned.modes.sum(2), parts.static, rtol=1e-4, atol=1e-4)


def test_what_lies_off_the_axes_is_always_swapped(spanned):
    _, parts = spanned
    basis = independent_channels(parts)
    off = torch.eye(7) - basis.analysis @ basis.synthesis  # no axis sees it
    torch.testing.assert_close(off @ basis.analysis, torch.zeros(7, 3), rtol=0, atol=1e-4)
    more = dataclasses.replace(parts, static=parts.static + torch.randn(parts.static.shape) @ off)
    turned = basis.apply(more)
    a, b = turned.take(torch.tensor([0])), turned.take(torch.tensor([1]))
    kept = a.combine(b, torch.tensor([True] * 3), dynamic=False) - b.dynamic
    torch.testing.assert_close(kept @ basis.analysis, a.static @ basis.analysis, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(kept @ off, b.static @ off, rtol=1e-3, atol=1e-3)


def test_the_same_seed_gives_the_same_axes(mixed):
    parts = parts_of(mixed[1])
    assert torch.equal(independent_channels(parts, 1).analysis, independent_channels(parts, 1).analysis)


def test_too_few_films_or_dimensions_are_refused(mixed):
    _, vectors = mixed
    with pytest.raises(ValueError, match="15 films are too few for 4 x 4 axes"):
        independent_channels(parts_of(vectors[:15]))
    with pytest.raises(ValueError, match="span fewer than 5 dimensions"):
        independent_channels(parts_of(torch.cat([vectors, vectors[:, :1] + vectors[:, 1:2]], 1)))
    basis = independent_channels(parts_of(vectors))
    with pytest.raises(ValueError, match="expected 4 channels, got 3"):
        basis.apply(parts_of(vectors[:, :3]))
    with pytest.raises(ValueError, match=r"got \(4, 4\) and \(3, 3\)"):
        ChannelBasis(torch.eye(4), torch.eye(3))
    with pytest.raises(ValueError, match=r"r <= K; got \(3, 4\) and \(4, 3\)"):
        ChannelBasis(torch.ones(3, 4), torch.ones(4, 3))


def small(axes: bool, recurrent: bool = True) -> KoopmanAutoencoder:
    torch.manual_seed(0)
    config = KoopmanAutoencoderConfig(latent_dim=6, hidden_dim=8, width=4, axes=axes, recurrent=recurrent)
    return KoopmanAutoencoder(config).eval()


@pytest.mark.parametrize("recurrent", [True, False])
def test_a_turned_model_decodes_the_same_from_channels_that_are_the_coordinates(recurrent):
    model, frames = small(True, recurrent), torch.rand(2, 8, 3, 64, 64)
    plain = small(False, recurrent)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "encoder.axes.weight"})
    with torch.no_grad():
        before = model.encode(frames)
        assert torch.equal(before, plain.encode(frames))  # it begins as the identity
        films = model.decode(before)
        analysis = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
        for _ in range(2):  # a second turn goes on from the first
            turn(model, ChannelBasis.of(analysis))
        after = model.encode(frames)
        torch.testing.assert_close(after, before @ analysis @ analysis, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.decode(after), films, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(after, before, atol=0.1)


def test_turning_needs_axes_of_the_same_size():
    with pytest.raises(ValueError, match="its encoder ends without axes"):
        turn(small(False), ChannelBasis.of(torch.eye(6)))
    for analysis in (torch.eye(5), torch.eye(6)[:, :5]):
        with pytest.raises(ValueError, match="basis: expected axes of all 6 channels, got analysis"):
            turn(small(True), ChannelBasis.of(analysis))

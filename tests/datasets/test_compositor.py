"""The batched compositor against PIL, picture by picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from kpm.datasets.layers import LAYERS, Compositor, over


def random_artwork(rng: np.random.Generator, actions: int = 2, frames: int = 3, size: int = 16):
    """Artwork with half-transparent pixels in skin, pants and top, and an empty border."""
    layers = {}
    for variants, name in zip((3, 4, 2, 5), LAYERS):
        art = rng.integers(0, 256, (variants, actions, frames, size, size, 4), dtype=np.uint8)
        art[..., 3] = np.where(rng.random(art.shape[:-1]) < 0.5, art[..., 3], rng.choice([0, 255], art.shape[:-1]))
        layers[name] = art
    shoes = rng.integers(0, 256, (actions, frames, size, size, 4), dtype=np.uint8)
    for art in (layers["hair"], shoes):
        art[..., 3] = np.where(art[..., 3] > 128, 255, 0)
    for art in (*layers.values(), shoes):
        art[..., :3, :, 3] = art[..., -2:, :, 3] = art[..., :4, 3] = 0
    return layers, shoes


def random_labels(rng: np.random.Generator, n: int, sizes: dict[str, int]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(rng.integers(0, size, n)) for name, size in sizes.items()}


def with_pil(layers, shoes, labels) -> np.ndarray:
    """Frames ``(b, time, 3, height, width)`` from a plain loop over pictures."""
    batch = []
    for i, action in enumerate(labels["action"].tolist()):
        frames = []
        for t in range(shoes.shape[1]):
            stack = [layers[name][int(labels[name][i]), action, t] for name in LAYERS] + [shoes[action, t]]
            canvas = Image.new("RGBA", stack[0].shape[1::-1], (0, 0, 0, 255))
            for picture in stack:
                canvas = Image.alpha_composite(canvas, Image.fromarray(picture))
            frames.append(np.asarray(canvas)[..., :3].transpose(2, 0, 1))
        batch.append(np.stack(frames))
    return np.stack(batch)


def test_over_rounds_as_pil_does():
    rng = np.random.default_rng(0)
    top, bottom = (rng.integers(0, 256, (512, 512, 4), dtype=np.uint8) for _ in range(2))
    bottom[..., 3] = 255
    # Every opacity with every colour, over whatever there is.
    top[:256, :256, 3], top[:256, :256, 0] = np.mgrid[:256, :256]
    expected = np.asarray(Image.alpha_composite(Image.fromarray(bottom), Image.fromarray(top)))[..., :3]
    t, b = torch.from_numpy(top), torch.from_numpy(bottom)
    assert np.array_equal(over(t[..., :3], t[..., 3:], b[..., :3]).numpy(), expected)


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_loop_over_pictures(seed):
    rng = np.random.default_rng(seed)
    layers, shoes = random_artwork(rng)
    labels = random_labels(rng, 20, {"skin": 3, "pants": 4, "top": 2, "hair": 5, "action": 2})
    frames = Compositor(layers, shoes)(labels)
    assert frames.dtype == torch.uint8
    assert np.array_equal(frames.numpy(), with_pil(layers, shoes, labels))


def test_frames_are_stored_channels_last():
    layers, shoes = random_artwork(np.random.default_rng(0))
    frames = Compositor(layers, shoes)({name: torch.tensor([0, 1]) for name in (*LAYERS, "action")})
    assert frames.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["hair", "shoes"])
def test_half_transparent_hair_or_shoes_are_refused(name):
    layers, shoes = random_artwork(np.random.default_rng(0))
    (shoes if name == "shoes" else layers["hair"]).reshape(-1, 4)[7, 3] = 128
    with pytest.raises(ValueError, match=f"'{name}' has half-transparent pixels"):
        Compositor(layers, shoes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_equals_cpu():
    rng = np.random.default_rng(1)
    layers, shoes = random_artwork(rng)
    labels = random_labels(rng, 20, {"skin": 3, "pants": 4, "top": 2, "hair": 5, "action": 2})
    compose = Compositor(layers, shoes)
    on_gpu = compose({name: values.cuda() for name, values in labels.items()})
    assert on_gpu.is_cuda and torch.equal(on_gpu.cpu(), compose(labels))

"""Films and small untrained networks to measure swaps with."""

from __future__ import annotations

import torch

from kpm.datasets.base import SequenceDataset
from kpm.models.judge import Judge, JudgeConfig
from kpm.models.koopman_autoencoder import KoopmanAutoencoder, KoopmanAutoencoderConfig


def films(n: int = 12, split: str = "test") -> SequenceDataset:
    """Noise of a level per colour, brighter over time (up) or darker (down); every film of its own noise."""
    noise = torch.randint(0, 100, (n, 8, 3, 64, 64), generator=torch.Generator().manual_seed(n), dtype=torch.uint8)

    def compose(labels):
        device = labels["number"].device
        level = 30 * labels["colour"].to(torch.uint8)
        time = torch.arange(8, device=device)
        ramp = torch.where(labels["way"][:, None] == 0, time, 7 - time).to(torch.uint8) * 8
        return noise.to(device)[labels["number"]] + (level[:, None] + ramp)[:, :, None, None, None]

    number = torch.arange(n)
    return SequenceDataset(
        name="noise",
        source="synthetic",
        split=split,
        factors={"colour": number % 3, "way": number // 3 % 2, "number": number},
        factor_sizes={"colour": 3, "way": 2, "number": n},
        static=("colour",),
        dynamic=("way",),
        shape=(8, 3, 64, 64),
        compose=compose,
    )


def autoencoder(
    scope: str = "sequence", latent_dim: int = 9, static_size: int = 1, seed: int = 0
) -> KoopmanAutoencoder:
    """Untrained."""
    torch.manual_seed(seed)
    config = KoopmanAutoencoderConfig(scope, latent_dim, hidden_dim=10, static_size=static_size, width=4)
    return stirred(KoopmanAutoencoder(config))


class Binning(torch.nn.Module):
    """Reads a class off a random projection of each frame, finely enough that any swap changes some answers."""

    def __init__(self, classes: dict[str, int]):
        super().__init__()
        self.config = JudgeConfig(classes, width=1)
        self.cnn = torch.nn.Sequential()
        draw = torch.Generator().manual_seed(7)
        self.patterns = {f: torch.randn(3 * 64 * 64, generator=draw).double() for f in classes}

    def decide(self, frames):
        film, frame = {}, {}
        for f, pattern in self.patterns.items():
            values = 40 * frames.double().flatten(2) @ pattern
            frame[f] = values.floor().long() % self.config.classes[f]
            film[f] = values.mean(1).floor().long() % self.config.classes[f]
        return film, frame


def judge(classes=None, seed: int = 1) -> Judge:
    """Untrained; its answers depend on the film in no simple way."""
    torch.manual_seed(seed)
    return stirred(Judge(JudgeConfig(classes or {"colour": 3, "way": 2}, width=4, features=8, memory=4)))


def stirred(model):
    """With the normalisation statistics of some films, without which an untrained network hardly tells them apart."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            module.weight.data.uniform_(0.5, 1.5)
    data = films()
    model.train()(data.to_float(data[:]))
    return model.eval().requires_grad_(False)

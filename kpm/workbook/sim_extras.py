"""Two more of the published tasks, small: copying after a delay, and an image as a function of its place."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from kpm.models.sim import SIM, SIMConfig
from kpm.solvers import checks

SYMBOLS, LENGTH = 8, 10
CUE = SYMBOLS + 1


def copy_sequences(count: int, delay: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs ``(count, delay + 20, 1)`` and answers ``(count, delay + 20)`` of the copy problem.

    Ten tokens from 1 to 8, ``delay - 1`` zeros, eleven 9s, as one real channel; the answer is zeros, then the tokens.
    """
    checks.count(count, "count", 1, 10**7)
    checks.count(delay, "delay", 1, 10**6)
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, SYMBOLS + 1, (count, LENGTH), generator=draw)
    x = torch.zeros(count, delay + 2 * LENGTH, dtype=torch.int64)
    x[:, :LENGTH], x[:, LENGTH + delay - 1 :] = tokens, CUE
    answers = torch.zeros_like(x)
    answers[:, -LENGTH:] = tokens
    return x.float().unsqueeze(-1), answers


@dataclasses.dataclass(frozen=True)
class CopyScores:
    """Cross-entropy per step, that of a guess without memory, and the shares of right answers: all and the last ten."""

    loss: float
    memoryless: float
    accuracy: float
    accuracy_last: float


def copy_memory(
    delay: int = 30, mode: str = "free", steps: int = 300, batch: int = 20, seed: int = 1, rate: float = 5e-3
) -> CopyScores:
    """Train the published causal SIM to copy, on fresh sequences at every step, and judge it on 200 others."""
    torch.manual_seed(seed)
    model = SIM(SIMConfig("causal", (1,), 10, 32, size=32, mode=mode, outputs=SYMBOLS + 2))
    optimizer = torch.optim.Adam(model.parameters(), rate, eps=1e-5)
    for step in range(steps):
        x, answers = copy_sequences(batch, delay, 10**6 * seed + step)
        optimizer.zero_grad()
        F.cross_entropy(model(x).flatten(0, 1), answers.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    x, answers = copy_sequences(200, delay, 10**6 * seed - 1)
    with torch.no_grad():
        logits = model.eval()(x)
    right = (logits.argmax(-1) == answers).double()
    return CopyScores(
        loss=float(F.cross_entropy(logits.flatten(0, 1), answers.flatten())),
        memoryless=float(LENGTH * torch.log(torch.tensor(float(SYMBOLS))) / (delay + 2 * LENGTH)),
        accuracy=float(right.mean()),
        accuracy_last=float(right[:, -LENGTH:].mean()),
    )


def photograph(side: int = 64) -> Tensor:
    """A photograph that comes with scikit-learn, ``(side, side, 3)`` in [0, 1]."""
    from sklearn.datasets import load_sample_image

    checks.count(side, "side", 2, 427)
    whole = torch.from_numpy(load_sample_image("china.jpg").copy()).double()[:, 100:527] / 255
    return F.adaptive_avg_pool2d(whole.permute(2, 0, 1)[None], side)[0].permute(1, 2, 0).float()


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFit:
    """A SIM's picture ``(height, width, 3)`` and its peak signal-to-noise ratios, dB, on three quarters of the pixels.

    `psnr_neighbours` is the ratio, on those of the test, of the mean of the four nearest pixels seen.
    """

    image: Tensor
    psnr_train: float
    psnr_validation: float
    psnr_test: float
    psnr_neighbours: float


def image_regression(
    image: Tensor, mode: str = "free", sigma: float = 0.05, size: int = 256, steps: int = 400, seed: int = 1
) -> ImageFit:
    """Learn an image as a function of the place of a pixel, from every other row and column of it.

    The model has no basis but random Fourier features of the place. It is trained on pixels of even rows and columns;
    those of even rows and odd columns are for validation, of odd ones of both for the test.

    Parameters
    ----------
    image : Tensor
        ``(height, width, 3)`` in [0, 1].
    sigma : float
        Width of the features' kernel, where the image is one wide.
    size : int
        Features.
    """
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape) < 2 or not image.is_floating_point():
        raise ValueError(f"image: expected floats (height, width, 3), got {image.dtype} {tuple(image.shape)}")
    height, width = image.shape[:2]
    rows, columns = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    places = torch.stack([rows, columns], -1)
    torch.manual_seed(seed)
    model = SIM(SIMConfig("identity", (2,), 0, 2, "fourier", size, 0, mode, 0, sigma, 256, 3))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    x, y = places[::2, ::2].flatten(0, 1), image[::2, ::2].flatten(0, 1)
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        drawn = model.eval()(places.flatten(0, 1)).view_as(image)

    def psnr(rows: slice, columns: slice, guess: Tensor) -> float:
        return float(-10 * F.mse_loss(guess, image[rows, columns]).log10())

    even, odd = slice(0, None, 2), slice(1, None, 2)
    ratios = [psnr(*where, drawn[where]) for where in ((even, even), (even, odd), (odd, odd))]
    return ImageFit(drawn.clamp(0, 1), *ratios, psnr(odd, odd, _neighbours(image)))


def _neighbours(image: Tensor) -> Tensor:
    """Pixels of odd rows and columns as the mean of the four of even ones around; at an edge, the last is repeated."""
    seen = F.pad(image[::2, ::2].permute(2, 0, 1), (0, 1, 0, 1), mode="replicate")
    mean = F.avg_pool2d(seen, 2, 1).permute(1, 2, 0)
    return mean[: image.shape[0] // 2, : image.shape[1] // 2]

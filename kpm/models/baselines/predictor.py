"""The one face of all predictors of films: beliefs about a frame, made from the frames before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kpm.solvers import checks

ELEMENT = (1, 48, 48)


class FilmPredictor(ABC):
    """Subclasses say what a belief is, how it goes on without a new frame, and which frame it stands for.

    Frames are uint8, or floats in [0, 1], ``(n, time, 1, 48, 48)``; predictions are float32 in [0, 1].
    """

    @abstractmethod
    def beliefs(self, frames: Tensor) -> Tensor:
        """What is believed of each frame, and of the one after the last, from those before it: ``(n, time + 1, d)``."""

    @abstractmethod
    def advance(self, beliefs: Tensor) -> Tensor:
        """Beliefs ``(n, t, d)`` about the frame that follows each, which is not seen."""

    @abstractmethod
    def decode(self, beliefs: Tensor) -> Tensor:
        """The frames ``(n, t, 1, 48, 48)`` that beliefs ``(n, t, d)`` stand for."""

    @torch.no_grad()
    def one_step(self, frames: Tensor) -> Tensor:
        """Each frame, predicted from those before it: like `frames`, float32."""
        return self._show(self.beliefs(pixels(frames))[:, :-1])

    @torch.no_grad()
    def predict(self, frames: Tensor, steps: int) -> Tensor:
        """The frames 1 to `steps` steps after the last, ``(n, steps, 1, 48, 48)``."""
        checks.count(steps, "steps", 1, 10**6)
        ahead = [self.beliefs(pixels(frames))[:, -1:]]
        for _ in range(steps - 1):
            ahead.append(self.advance(ahead[-1]))
        return self._show(torch.cat(ahead, 1))

    @torch.no_grad()
    def horizons(self, frames: Tensor, steps: tuple[int, ...]) -> Iterator[tuple[int, Tensor]]:
        """Predictions of every frame from those at least h steps before it, for each h of `steps`.

        Yields
        ------
        tuple
            h and ``(n, time - h + 1, 1, 48, 48)``, the first of frame number ``h - 1``.
        """
        if not steps or list(steps) != sorted(set(steps)) or not 1 <= steps[0] <= steps[-1] <= frames.shape[1]:
            raise ValueError(f"steps: expected ascending numbers from 1 to {frames.shape[1]}, got {steps}")
        beliefs, done = self.beliefs(pixels(frames))[:, :-1], 1
        for h in steps:
            for _ in range(h - done):
                beliefs = self.advance(beliefs[:, :-1])
            done = h
            yield h, self._show(beliefs)

    def _show(self, beliefs: Tensor, chunk: int = 256) -> Tensor:
        return torch.cat([self.decode(part).float().clamp(0, 1) for part in beliefs.split(chunk, 1)], 1)


def in_pieces(run: Callable[[Tensor], Tensor], frames: Tensor, memory: int) -> Tensor:
    """Beliefs of films by a network that was trained on short ones: it starts anew every `memory` frames.

    Each belief, but for those about the first frames, comes from a run over the last `memory` to ``2 memory`` frames.
    The runs of one film lie side by side in a batch.

    Parameters
    ----------
    run : callable
        ``(n, t, 1, 48, 48) -> (n, t + 1, d)``.
    frames : Tensor
        ``(n, time, 1, 48, 48)``.
    memory : int

    Returns
    -------
    Tensor
        ``(n, time + 1, d)``.
    """
    n, time = frames.shape[:2]
    if time <= 2 * memory:
        return run(frames)
    pieces = -(-time // memory) - 1
    missing = (pieces + 1) * memory - time
    padded = torch.cat([frames, frames.new_zeros(n, missing, *frames.shape[2:])], 1)
    cut = padded.unfold(1, 2 * memory, memory).movedim(-1, 2)  # (n, pieces, 2 memory, ...)
    beliefs = run(cut.flatten(0, 1)).unflatten(0, (n, pieces))
    return torch.cat([beliefs[:, 0, : memory + 1], beliefs[:, :, memory + 1 :].flatten(1, 2)], 1)[:, : time + 1]


def pixels(frames: Tensor) -> Tensor:
    """Checked frames as float32 in [0, 1]."""
    if not isinstance(frames, Tensor) or frames.ndim != 5 or tuple(frames.shape[2:]) != ELEMENT or 0 in frames.shape:
        shape = tuple(frames.shape) if isinstance(frames, Tensor) else type(frames).__name__
        raise ValueError(f"frames: expected (n, time, 1, 48, 48), got {shape}")
    if frames.dtype == torch.uint8:
        return frames.float() / 255
    checks.finite(frames, "frames")
    return frames.float()

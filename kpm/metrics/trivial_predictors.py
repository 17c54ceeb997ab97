"""What image predictors reach that know next to nothing: black, the mean image, the last frame; and what none can beat.

Errors are means of squares per pixel with pixels in [0, 1]. The error of a model says little without these beside it.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from kpm.solvers import checks


@dataclasses.dataclass(frozen=True)
class TrivialErrors:
    """Mean squared errors per pixel, pixels in [0, 1], all over the same frames.

    Attributes
    ----------
    black : float
        All zeros: the mean square of the signal.
    mean_image : float
        Always the same image.
    last_frame : float
        The frame `horizon` steps before.
    noise_floor : float or None
        The clean frame and its visibility are known, only the pixel noise is not: the least error there is on average.
        None if they are not given.
    """

    black: float
    mean_image: float
    last_frame: float
    noise_floor: float | None


def trivial_errors(
    target: Tensor,
    *,
    observed: Tensor | None = None,
    mean: Tensor | None = None,
    clean: Tensor | None = None,
    visibility: Tensor | None = None,
    horizon: int = 1,
    warmup: int = 0,
) -> TrivialErrors:
    """Errors of the trivial predictors of frames ([DSE] tables 1 and 2 are to be read beside them).

    Parameters
    ----------
    target : Tensor
        uint8 ``(n, time, *image)``: the frames to predict, with noise or without.
    observed : Tensor, optional
        Frames like `target` that the last one is taken from; `target` by default.
    mean : Tensor, optional
        ``image``-shaped, in [0, 1], for instance the mean of the training frames. By default each sequence's own mean
        over the frames that count, which is hindsight: no constant image has a smaller error.
    clean, visibility : Tensor, optional
        uint8 like `target`, the frames without noise, and ``(n, time)``, how much of them is left in `target`, the
        rest being uniform noise (see `kpm.datasets.quad_link_images.corrupt`). Both or none.
    horizon : int
        Steps from the last frame seen to the one predicted.
    warmup : int
        Frames at the start that count for none of the errors; the first `horizon` never do.

    Raises
    ------
    ValueError
        For types or shapes that do not fit, or if no frame is left.
    """
    _check(target, observed, mean, clean, visibility)
    checks.count(horizon, "horizon", 1, target.shape[1] - 1)
    checks.count(warmup, "warmup", 0, target.shape[1] - 1)
    observed = target if observed is None else observed
    first = max(horizon, warmup)
    sums = torch.zeros(4, dtype=torch.float64, device=target.device)
    for k in range(len(target)):  # a sequence at a time, as floats are eight times as large
        truth = _pixels(target[k, first:])
        sums[0] += truth.square().sum()
        sums[1] += (truth - (truth.mean(0) if mean is None else mean)).square().sum()
        sums[2] += (truth - _pixels(observed[k, first - horizon : -horizon])).square().sum()
        if clean is not None:
            seen = visibility[k, first:].double().reshape(-1, *[1] * (truth.ndim - 1))
            sums[3] += (truth - seen * _pixels(clean[k, first:]) - (1 - seen) / 2).square().sum()
    black, mean_image, last_frame, floor = (sums / target[:, first:].numel()).tolist()
    return TrivialErrors(black, mean_image, last_frame, None if clean is None else floor)


def _pixels(frames: Tensor) -> Tensor:
    return frames.double() / 255


def _check(target: Tensor, observed: Tensor | None, mean: Tensor | None, clean: Tensor | None, visibility) -> None:
    shape = tuple(target.shape)
    if target.ndim < 3 or 0 in shape or shape[1] < 2 or target.dtype != torch.uint8:
        raise ValueError(f"target: expected uint8 (n, time >= 2, *image), got {target.dtype} of shape {shape}")
    for name, frames in (("observed", observed), ("clean", clean)):
        if frames is not None and (tuple(frames.shape) != shape or frames.dtype != torch.uint8):
            raise ValueError(f"{name}: expected uint8 {shape}, got {frames.dtype} of shape {tuple(frames.shape)}")
    if mean is not None and tuple(mean.shape) != shape[2:]:
        raise ValueError(f"mean: expected shape {shape[2:]}, got {tuple(mean.shape)}")
    if (clean is None) != (visibility is None):
        raise ValueError("clean, visibility: expected both or none")
    if visibility is not None and tuple(visibility.shape) != shape[:2]:
        raise ValueError(f"visibility: expected shape {shape[:2]}, got {tuple(visibility.shape)}")

"""Swaps of static and dynamic parts between films, decoded and judged: the measurements behind `D_sd` and `D_mf`.

Every measurement here is of one form. Each film is mixed with two others of its batch, drawn at random, by a point of
the segment between them ([SSM-SKD] sec. 4.3); it keeps some of its own static components, perhaps its own dynamics, and
takes the rest from the mixture. A judge looks at what that decodes to. Films are encoded and taken apart once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError, pick
from kpm.models.judge import Judge
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.models.parts import Parts, take_apart

# Films decoded at a time: on a processor their feature maps then stay in its cache, an accelerator wants many.
_CHUNK = {"cpu": 16}
_CHUNK_ELSEWHERE = 256


@dataclasses.dataclass(frozen=True)
class Keep:
    """What a film keeps of its own: static components by number (`None`: all of them) and its dynamics or not."""

    static: tuple[int, ...] | None
    dynamic: bool


STATIC_SWAP = Keep(static=(), dynamic=True)
DYNAMIC_SWAP = Keep(static=None, dynamic=False)
NOTHING = Keep(static=(), dynamic=False)


@dataclasses.dataclass(frozen=True)
class SwapConfig:
    """How swaps are measured; the defaults are the thesis's ([SSM-SKD] sec. 4.3), but for one thing.

    The thesis goes through a shuffled split in the same batches every time; here batches are drawn anew in each repeat.

    Attributes
    ----------
    repeats : int
        Passes over the split, each with new partners.
    batch_size : int
        Films that exchange parts, drawn from the whole split; those of an incomplete last batch are left out.
    partner : {"mixture", "instance"}
        Take from a convex combination of two films or from a single one.
    reference : {"label", "judge"}
        An answer is right if it is the film's label, or what the judge says of the film as it was.
    seed : int
        Of partners and weights.
    films : int, optional
        Only so many films of the split in each repeat, drawn at random, for splits that are very large.
    """

    repeats: int = 25
    batch_size: int = 256
    partner: Literal["mixture", "instance"] = "mixture"
    reference: Literal["label", "judge"] = "label"
    seed: int = 7253
    films: int | None = None

    def __post_init__(self) -> None:
        pick("partner", self.partner, ("mixture", "instance"))
        pick("reference", self.reference, ("label", "judge"))
        if self.repeats < 2:
            raise UserError(f"repeats must be at least 2, one has no standard error; got {self.repeats}")
        if self.films is not None and self.films < self.batch_size:
            raise UserError(f"films: expected at least the {self.batch_size} of a batch, got {self.films}")
        if self.batch_size < 2:
            raise UserError(f"batch_size must be at least 2, a film needs a partner; got {self.batch_size}")


@dataclasses.dataclass(frozen=True)
class SwapScores:
    """What the judge found after each swap.

    Attributes
    ----------
    factors : tuple of str
    accuracy : ndarray
        ``(swaps, factors, repeats)``, share of films whose factor the sequence judge reads as it was.
    frame_accuracy : ndarray
        ``(swaps, factors, repeats)``, the same for the frame judge, over all frames.
    consistency : ndarray
        ``(swaps, factors, repeats)``, share of a film's frames on which the frame judge agrees with the class it reads
        most often in that film: 1 for a factor that does not flicker, whatever its value.
    films : int
        Films per repeat.
    """

    factors: tuple[str, ...]
    accuracy: np.ndarray
    frame_accuracy: np.ndarray
    consistency: np.ndarray
    films: int


def check_judge(judge: Judge, data: SequenceDataset) -> tuple[str, ...]:
    """Names of the factors the judge is asked for; `UserError` if it does not know them all by the same classes."""
    wanted = (*data.static, *data.dynamic)
    for f in wanted:
        known = judge.config.classes.get(f)
        if known is None:
            raise UserError(
                f"the judge does not know factor {f!r} of {data.name!r}, only {', '.join(judge.config.classes)}"
            )
        if known != data.factor_sizes[f]:
            raise UserError(
                f"the judge knows {known} classes of factor {f!r}, {data.name!r} has {data.factor_sizes[f]}"
            )
    return wanted


@torch.inference_mode()
def measure(
    model: KoopmanAutoencoder,
    judge: Judge,
    data: SequenceDataset,
    keeps: Sequence[Keep],
    config: SwapConfig | None = None,
    parts: Parts | None = None,
    progress: bool = False,
) -> SwapScores:
    """Swap, decode and judge: one row of scores for each of `keeps`, all with the same partners.

    Parameters
    ----------
    model, judge
        On the device that shall do the work.
    data : SequenceDataset
        The films. Each repeat takes them in an order of its own, in whole batches, and leaves out the rest.
    parts : Parts, optional
        What `take_apart` gives for `model` and `data`, to save it being done again.

    Raises
    ------
    UserError
        If the split is smaller than a batch or the judge is another dataset's.
    """
    config = config or SwapConfig()
    factors = check_judge(judge, data)
    size = config.batch_size
    batches = min(len(data), config.films or len(data)) // size
    if not batches:
        raise UserError(f"batch_size: swaps need {size} films at a time, {data.name!r} ({data.split}) has {len(data)}")
    device = next(model.parameters()).device
    data = data.to(device)
    if parts is None:
        parts = take_apart(model, data)
    for i, keep in enumerate(keeps):
        if bad := [c for c in keep.static or () if not 0 <= c < parts.components]:
            raise ValueError(f"keeps[{i}].static: no component {bad[0]}, there are {parts.components}")
    films = batches * size
    truth = _truth(judge, data, factors, config.reference)
    mask = torch.tensor([[k.static is None or c in k.static for c in range(parts.components)] for k in keeps])
    mask = mask.to(device)
    # Where all films keep everything there is nothing to draw: once is enough.
    whole = [i for i, k in enumerate(keeps) if k.dynamic and bool(mask[i].all()) and config.films is None]
    found = np.zeros((3, len(keeps), len(factors), config.repeats))
    bar = tqdm(
        total=config.repeats * batches * len(keeps), unit="swap", disable=not progress, desc="swaps", leave=False
    )
    for repeat in range(config.repeats):
        draw = torch.Generator().manual_seed(config.seed + 1_000_003 * repeat)
        # A split may come class by class; partners of the same class would keep what they exchange.
        for index in torch.randperm(len(data), generator=draw)[:films].to(device).split(size):
            own = parts.take(index)
            first, second = (torch.randperm(size, generator=draw).to(device) for _ in range(2))
            weight = torch.rand(2, size, generator=draw).to(device, parts.static.dtype)
            if config.partner == "instance":
                mixed = own.take(first)
            else:
                mixed = own.mix(first, second, weight[0] / weight.sum(0))
            target = truth[:, index]
            for i, keep in enumerate(keeps):
                if not (repeat and i in whole):
                    latents = own.combine(mixed, mask[i], keep.dynamic)
                    found[:, i, :, repeat] += _judged(model, judge, latents, target, factors)
                bar.update()
        found[:, whole, :, repeat] = found[:, whole, :, 0]
    bar.close()
    return SwapScores(factors, *(found / films), films)


def _truth(judge: Judge, data: SequenceDataset, factors: Sequence[str], reference: str) -> Tensor:
    """Right answers ``(factors, n)``."""
    if reference == "label":
        return torch.stack([data.factors[f] for f in factors])
    answers = []
    device = data.factors[factors[0]].device
    for index in torch.arange(len(data), device=device).split(_chunk(device)):
        said, _ = judge.decide(data.to_float(data[index]))
        answers.append(torch.stack([said[f] for f in factors]))
    return torch.cat(answers, 1)


def _judged(
    model: KoopmanAutoencoder, judge: Judge, latents: Tensor, target: Tensor, factors: Sequence[str]
) -> np.ndarray:
    """Sums over films of right answers, of the share of right frames, and of consistency, ``(3, factors)``."""
    sums = torch.zeros(3, len(factors), device=latents.device)
    size = _chunk(latents.device)
    for z, t in zip(latents.split(size), target.split(size, 1), strict=True):
        film, frame = judge.decide(model.decode(z))
        for i, f in enumerate(factors):
            sums[0, i] += (film[f] == t[i]).sum()
            sums[1, i] += (frame[f] == t[i][:, None]).float().mean(1).sum()
            counts = torch.nn.functional.one_hot(frame[f], judge.config.classes[f]).sum(1)
            sums[2, i] += (counts.amax(-1) / frame[f].shape[1]).sum()
    return sums.cpu().numpy()


def _chunk(device: torch.device) -> int:
    return _CHUNK.get(device.type, _CHUNK_ELSEWHERE)

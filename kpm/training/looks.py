"""Learn what is the same in all frames of a film, without labels, and hold swaps to it.

Nothing in the losses of the thesis says that what never changes belongs in the static part. If the dynamic part tells
it, too, a film that takes the motion of another takes its shape along, and the latents of that swap come back as they
were. A network that was taught by contrast (van den Oord et al., "Representation learning with contrastive predictive
coding", 2018; Chen et al., "A simple framework for contrastive learning", ICML 2020) to tell frames of one film from
those of others sees the difference.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError
from kpm.models.koopman_autoencoder import Output
from kpm.models.looks import Looks

_FILMS = 96  # per step
_RATE, _TEMPERATURE = 1e-3, 0.1
_SHIFT, _ZOOM = 0.4, 0.35  # of half a side, and of a logarithm
_CONTRAST, _NOISE = 0.3, 0.25


def learn_looks(
    data: SequenceDataset,
    steps: int,
    seed: int,
    colour_blind: float = 0.0,
    strength: float = 1.0,
    bf16: bool = False,
    progress_bar: bool = False,
) -> Looks:
    """A `Looks` for films, in eval mode and without gradients.

    Each step takes a frame each of many films, and another frame of each: by its vector every frame shall find the one
    of the same film among all. The frames are shifted, zoomed, blurred, changed in contrast and noisy, so that neither
    where something is nor how large tells one film from another, and no fine pattern does that a decoder could add.

    Parameters
    ----------
    data : SequenceDataset
        At least two films of at least two frames.
    steps : int
        2000 are four minutes on one core.
    seed : int
        Of weights, films and what is done to frames; the state of the random generators is left as it was.
    colour_blind : float
        Such a share of the films is shown without its colours, and told apart by itself: where colours say all, nothing
        else would be learnt.
    strength : float
        How much frames are spoilt, see `spoil`.
    bf16 : bool
        Whether convolutions may be in bf16.
    progress_bar : bool

    Raises
    ------
    UserError
        For too few films or frames, and for grey films that are to be seen without colours.
    """
    n, t = min(_FILMS, len(data)), data.shape[0]
    if n < 2 or t < 2:
        raise UserError(f"w_looks: needs two films of two frames each, {data.name!r} has {len(data)} of {t}")
    where = data.device
    if colour_blind and data.shape[1] == 1:
        raise UserError(f"looks_colour_blind: the films of {data.name!r} have no colours")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        looks = Looks(data.shape[1]).to(where)
        optimizer = torch.optim.Adam(looks.parameters(), _RATE, fused=True)
        own = torch.arange(n, device=where)
        blind = own < math.ceil(colour_blind * n)
        for step in tqdm(range(steps), desc="looks", unit="step", disable=not progress_bar):
            for group in optimizer.param_groups:  # falls to zero over the last third
                group["lr"] = _RATE * min(1.0, 3 * (steps - step) / steps)
            # Of few films none is drawn twice: it would have to be told from itself.
            few = len(data) == n
            index = torch.randperm(n, device=where) if few else torch.randint(len(data), (n,), device=where)
            films = data.to_float(data[index])
            first = torch.randint(t, (n,), device=where)
            second = (first + torch.randint(1, t, (n,), device=where)) % t
            pair = torch.cat([films[own, first], films[own, second]])
            frames = spoil(without_colours(pair, blind.repeat(2)) if colour_blind else pair, strength)
            with torch.autocast(where.type, torch.bfloat16, enabled=bf16):
                one, other = looks(frames).chunk(2)
            likeness = (one @ other.T / _TEMPERATURE).masked_fill(blind != blind[:, None], -torch.inf)
            loss = F.cross_entropy(likeness, own) + F.cross_entropy(likeness.T, own)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return looks.eval().requires_grad_(False)


def without_colours(frames: Tensor, which: Tensor) -> Tensor:
    """Frames ``(m, c, h, w)``, those `which` ``(m,)`` in grey: each a random mixture of its colours."""
    weights = F.normalize(torch.randn_like(frames[:, :, :1, :1]), dim=1)
    grey = 0.5 + ((frames - 0.5) * weights).sum(1, keepdim=True)
    return torch.where(which.view(-1, 1, 1, 1), grey, frames)


def spoil(frames: Tensor, strength: float = 1.0) -> Tensor:
    """Frames ``(m, c, h, w)`` in [0, 1], each shifted, zoomed, and with its own blur, contrast and noise, at random.

    With a `strength` of 1 by up to a fifth of a side, by up to 1.4, and with noise of up to 0.25. Small forms in a
    large scene may be lost in so much.
    """
    m = len(frames)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * frames.new_empty(m, 1, 1, 1).uniform_()

    where = frames.new_zeros(m, 2, 3)
    where[:, 0, 0] = where[:, 1, 1] = draw(-strength * _ZOOM, strength * _ZOOM).exp().flatten()
    where[:, :, 2] = frames.new_empty(m, 2).uniform_(-strength * _SHIFT, strength * _SHIFT)
    grid = F.affine_grid(where, list(frames.shape), align_corners=False)
    frames = F.grid_sample(frames, grid, padding_mode="border", align_corners=False)
    frames = torch.where(draw(0, 1) < 1 - 0.5 * strength, frames, F.avg_pool2d(frames, 3, 1, 1))
    frames = 0.5 + (frames - 0.5) * draw(1 - strength * _CONTRAST, 1 + strength * _CONTRAST)
    frames = frames + torch.randn_like(frames) * draw(0, strength * _NOISE)
    return frames.contiguous(memory_format=torch.channels_last)


def looks_loss(
    output: Output, frames: Tensor, looks: Looks, colour_blind: float = 0.0, strength: float = 1.0
) -> Tensor:
    """How unlike the films that they should look like swaps are: 1 less the cosine, mean over their frames.

    A swap should look like the film whose static part it has, whatever its motion.

    Parameters
    ----------
    output : Output
        Of `KoopmanAutoencoder` on `frames`, with `drawn` and `looks_like`.
    frames : Tensor
        ``(n, t, c, 64, 64)`` in [0, 1].
    looks : Looks
        In eval mode.
    colour_blind : float
        Such a share of the swaps is looked at without colours, and so is the film that each should look like.
    strength : float
        How much the swaps are spoilt, see `spoil`.
    """
    assert output.drawn is not None and output.looks_like is not None
    some = (output.looks_like >= 0).nonzero().flatten()
    drawn, wanted = output.drawn[some].float(), frames[output.looks_like[some]].float()
    if colour_blind:
        blind = torch.randperm(len(some), device=some.device) < round(colour_blind * len(some))
        blind = blind.repeat_interleave(frames.shape[1])
        drawn, wanted = (without_colours(x.flatten(0, 1), blind).unflatten(0, x.shape[:2]) for x in (drawn, wanted))
    with torch.autocast(frames.device.type, enabled=False):  # places of pixels need more digits than bf16 has
        shown = spoil(drawn.flatten(0, 1), strength)
    with torch.autocast(frames.device.type, torch.bfloat16, enabled=output.drawn.dtype == torch.bfloat16):
        seen = looks(shown).unflatten(0, drawn.shape[:2])
        return 1 - (seen * looks.of_films(wanted)[:, None]).sum(-1).mean()

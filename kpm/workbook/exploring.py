"""What one wants to ask of a few films: exchange a part, change a component, mix, single out a mode.

Pure functions from a `Gallery` and plain values to latents; `kpm.workbook.gallery.look` decodes and judges them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from kpm import solvers
from kpm.errors import pick
from kpm.workbook.gallery import REST, Aim, Gallery

BASES = ("static", "mean", "nothing")
MIXED = ("static", "dynamic", "both")


@dataclasses.dataclass(frozen=True)
class Modes:
    """A film as a sum of modes; a conjugate pair is one, named by its upper value.

    Attributes
    ----------
    eigenvalues : Tensor
        complex128 ``(m,)``, nearest to 1 first.
    contributions : Tensor
        float32 ``(m, t, K)``. Their sum is the film but for what an operator's zero eigenvalues hold (of its first
        frame only).
    static : Tensor
        bool ``(m,)``: which make the static part.
    """

    eigenvalues: Tensor
    contributions: Tensor
    static: Tensor


def exchanged_factors(gallery: Gallery, what: str) -> tuple[str, ...]:
    """Factors that should go with what is exchanged."""
    pick("exchange", what, gallery.exchanges)
    return {"static": gallery.data.static, "dynamic": gallery.data.dynamic, REST: ()}.get(what, (what,))


def swapped(gallery: Gallery, i: int, j: int, what: str = "static") -> tuple[Tensor, Aim]:
    """Film `i` with one thing of film `j`: latents ``(1, t, K)``, and what each factor should then be.

    Parameters
    ----------
    i, j : int
        Places in the gallery.
    what : str
        One of ``gallery.exchanges``: the static or the dynamic part, or only the static components of one factor.
    """
    theirs = exchanged_factors(gallery, what)
    own, other = gallery.parts.take(torch.tensor([i])), gallery.parts.take(torch.tensor([j]))
    keep = torch.ones(gallery.parts.components, dtype=torch.bool, device=own.static.device)
    if what == "static":
        keep[:] = False
    elif what != "dynamic":
        keep[list(gallery.rest if what == REST else gallery.partition[what])] = False
    mine, labels = gallery.labels(i), gallery.labels(j)
    aim = {f: (labels[f] if f in theirs else mine[f],) for f in mine}
    return own.combine(other, keep, dynamic=what != "dynamic"), aim


def value_range(gallery: Gallery, component: int) -> tuple[float, float]:
    """Smallest and largest value of a static component among the films."""
    values = gallery.values[:, component]
    return float(values.min()), float(values.max())


def changed(gallery: Gallery, i: int, component: int, value: float) -> tuple[Tensor, Aim]:
    """Film `i` with a static component moved to `value`: latents ``(1, t, K)``, and what should stay as it was.

    The component is shifted by the same amount in every frame, so at its own value the film is as it was. Whatever the
    component's factor becomes is right.
    """
    if not 0 <= component < gallery.parts.components:
        raise ValueError(f"component: expected 0 to {gallery.parts.components - 1}, got {component}")
    shift = (value - gallery.values[i, component]) * gallery.axes[component]
    free = gallery.owner(component)
    return gallery.latents[i : i + 1] + shift, {f: (k,) for f, k in gallery.labels(i).items() if f != free}


def hull_weights(first: float, second: float) -> tuple[float, float, float]:
    """Weights of three corners from the share of the first and the second's share of what is left."""
    for name, share in (("first", first), ("second", second)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: expected a share between 0 and 1, got {share}")
    return first, (1 - first) * second, (1 - first) * (1 - second)


def mixed(
    gallery: Gallery, corners: Sequence[int], weights: Sequence[float], what: str = "static"
) -> tuple[Tensor, Aim]:
    """A convex combination of films, latents ``(1, t, K)``; what is not mixed is the first film's.

    A factor that is mixed should be that of a corner with a weight above 0.
    """
    pick("mixture", what, MIXED)
    if len(corners) != len(weights) or min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
        raise ValueError(f"weights: expected {len(corners)} that are not negative and sum to 1, got {tuple(weights)}")
    places = torch.tensor(corners)
    share = torch.tensor(weights, dtype=torch.float32, device=gallery.parts.static.device)

    def part(x: Tensor, mix: bool) -> Tensor:
        return torch.einsum("c,ctk->tk", share, x[places]) if mix else x[corners[0]]

    latents = part(gallery.parts.static, what != "dynamic") + part(gallery.parts.dynamic, what != "static")
    used = [gallery.labels(i) for i, w in zip(corners, weights) if w > 0]
    kinds = {"static": gallery.data.static, "dynamic": gallery.data.dynamic, "both": gallery.factors}[what]
    first = gallery.labels(corners[0])
    aim = {f: tuple(sorted({x[f] for x in used})) if f in kinds else (first[f],) for f in gallery.factors}
    return latents.unsqueeze(0), aim


@functools.lru_cache(maxsize=4)  # one move asks several times
def modes(gallery: Gallery, i: int) -> Modes:
    """Film `i` as a sum of modes, of its own operator or of the one of all films.

    Raises
    ------
    ValueError
        Where the eigenvectors of the film's operator are linearly dependent.
    """
    z = gallery.latents[i].double().cpu()
    spectrum = gallery.spectrum or solvers.decompose(solvers.per_sequence(z).matrix)
    values, size = spectrum.eigenvalues, gallery.model.config.static_size
    order = (values - 1).abs().argsort(stable=True).tolist()
    near = {int((values - values[k].conj()).abs().argmin()) for k in order[:size]} | set(order[:size])
    upper = [k for k in order if values[k].imag >= 0 and values[k] != 0]
    terms = spectrum.amplitudes(z).T[upper, :, None] * spectrum.left[upper, None]
    pairs = torch.where(values[upper].imag > 0, 2.0, 1.0)
    contributions = (pairs[:, None, None] * terms.real).float().to(gallery.latents.device)
    return Modes(values[upper], contributions, torch.tensor([k in near for k in upper]))


def single_mode(gallery: Gallery, i: int, mode: int, base: str = "static") -> Tensor:
    """What a mode of film `i` adds to a base, latents ``(1, t, K)``.

    Parameters
    ----------
    base : {"static", "mean", "nothing"}
        The film's static part (which a static mode is already in), the mean of all films and frames, or zero.
    """
    pick("base", base, BASES)
    found = modes(gallery, i)
    if not 0 <= mode < len(found.eigenvalues):
        raise ValueError(f"mode: {gallery.name(i)} has modes 0 to {len(found.eigenvalues) - 1}, got {mode}")
    static = gallery.parts.static[i : i + 1]
    if base == "static" and found.static[mode]:
        return static
    ground = {"static": static, "mean": gallery.latents.mean((0, 1)), "nothing": torch.zeros_like(static)}[base]
    return ground + found.contributions[mode : mode + 1]


def without_mode(gallery: Gallery, i: int, mode: int) -> Tensor:
    """Film `i` without one of its modes, latents ``(1, t, K)``."""
    found = modes(gallery, i)
    if not 0 <= mode < len(found.eigenvalues):
        raise ValueError(f"mode: {gallery.name(i)} has modes 0 to {len(found.eigenvalues) - 1}, got {mode}")
    return gallery.latents[i : i + 1] - found.contributions[mode : mode + 1]

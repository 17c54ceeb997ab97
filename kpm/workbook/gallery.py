"""A few films of a dataset, taken apart once, and the look of whatever they are put together to: decoded and judged."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from kpm import solvers
from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError
from kpm.metrics.swaps import check_judge
from kpm.models.channel_basis import ChannelBasis
from kpm.models.inference import for_inference
from kpm.models.judge import Judge
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.models.parts import Parts, take_apart

REST = "rest"  # the static components that no factor has

# What each factor should be: labels that are right, none if anything goes.
Aim = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the judge says of one factor of a film.

    Attributes
    ----------
    name : str
        The class it finds most likely, by name.
    confidence : float
        Its probability, in [0, 1].
    aims : tuple of str
        Names of the classes that would be right; empty if any would.
    right : bool or None
        `None` if any would.
    """

    name: str
    confidence: float
    aims: tuple[str, ...]
    right: bool | None


@dataclasses.dataclass(frozen=True)
class View:
    """A decoded film, ``(time, channels, height, width)`` in [0, 1], and the judge's reading of each factor."""

    frames: np.ndarray
    readings: Mapping[str, Reading]


@dataclasses.dataclass(frozen=True, eq=False)
class Gallery:
    """A few films, encoded, taken apart and redrawn; see `gather`.

    Attributes
    ----------
    model, judge
        Copies for inference; the judge may be `None`.
    data : SequenceDataset
        The films shown.
    numbers : tuple of int
        Their numbers in the dataset they were chosen from.
    parts : Parts
        Their static and dynamic parts.
    kind : {"channel", "mode", "axis"}
        What a static component is.
    partition : dict of str to tuple of int
        Static components of each factor.
    axes : Tensor
        ``(components, K)``, unit vectors: where dragging a component moves the static part. A mode moves along its own
        vector; a conjugate pair, which has two, along the direction in which films differ most.
    values : Tensor
        ``(n, components)``, coordinates of each film's time-averaged components along `axes`.
    spectrum : Spectrum or None
        Of the one operator of all films; `None` if each film has its own.
    redrawn : tuple of View
        What the decoder makes of each film as it is, and what the judge makes of that.
    """

    model: KoopmanAutoencoder
    judge: Judge | None
    data: SequenceDataset
    numbers: tuple[int, ...]
    parts: Parts
    kind: str
    partition: Mapping[str, tuple[int, ...]]
    axes: Tensor
    values: Tensor
    spectrum: solvers.Spectrum | None
    redrawn: tuple[View, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def latents(self) -> Tensor:
        return self.parts.static + self.parts.dynamic

    @property
    def factors(self) -> tuple[str, ...]:
        return (*self.data.static, *self.data.dynamic)

    @property
    def rest(self) -> tuple[int, ...]:
        """Static components of no factor."""
        taken = {c for components in self.partition.values() for c in components}
        return tuple(c for c in range(self.parts.components) if c not in taken)

    @property
    def exchanges(self) -> tuple[str, ...]:
        """What `swapped` can exchange."""
        shared = tuple(f for f in self.data.static if self.partition.get(f))
        return ("static", "dynamic", *shared, *((REST,) if shared and self.rest else ()))

    def owner(self, component: int) -> str:
        """The factor that a static component belongs to, `REST` if to none."""
        return next((f for f, components in self.partition.items() if component in components), REST)

    def name(self, i: int) -> str:
        return f"film {self.numbers[i]}"

    def labels(self, i: int) -> dict[str, int]:
        return {f: int(self.data.factors[f][i]) for f in self.factors}

    def describe(self, i: int) -> str:
        """Number and classes of a film, in a line."""
        return f"{self.numbers[i]}: {' · '.join(class_name(self.data, f, k) for f, k in self.labels(i).items())}"


def class_name(data: SequenceDataset, factor: str, label: int) -> str:
    """What a label means, or the label where it has no name."""
    names = data.class_names.get(factor)
    return str(names[label]) if names else str(label)


@torch.inference_mode()
def gather(
    model: KoopmanAutoencoder,
    data: SequenceDataset,
    judge: Judge | None = None,
    partition: Mapping[str, Sequence[int]] | None = None,
    films: int | Sequence[int] = 24,
    seed: int = 7253,
    basis: ChannelBasis | None = None,
) -> Gallery:
    """Choose a few films of `data`, take them apart and redraw them.

    Parameters
    ----------
    model, judge
        On one device. Without a judge there are pictures only.
    data : SequenceDataset
        With one operator for all films (SKD) it is fitted to all of these, since a partition counts the modes of that
        one; else only the chosen films are encoded.
    partition : dict, optional
        Static components of each static factor, as `kpm.analysis.greedy_exploration.explore` finds them.
    films : int or sequence of int
        How many, drawn with `seed`, or which.
    basis : ChannelBasis, optional
        Axes whose coordinates the static components are, instead of channels or modes.

    Raises
    ------
    UserError
        For a judge of other factors, fewer than three films, or a film that is not there.
    ValueError
        For a partition of other factors or components.
    """
    numbers = _choose(len(data), films, seed)
    if judge is not None:
        check_judge(judge, data)
    device = next(model.parameters()).device
    chosen = torch.tensor(numbers)
    shown = data.subset(chosen.to(data.factors[next(iter(data.factors))].device)).to(device)
    fast = (for_inference(model), None if judge is None else for_inference(judge))
    shared = model.config.scope == "batch"
    parts = take_apart(fast[0], data if shared else shown)
    spectrum = None
    if shared:
        spectrum = solvers.decompose(solvers.shared((parts.static + parts.dynamic).double()).matrix.cpu())
        parts = parts.take(chosen.to(device))
    if basis is not None:
        parts = basis.apply(parts)
    kind = "axis" if basis is not None else "channel" if parts.modes is None else "mode"
    axes, values = _coordinates(parts)
    known = _checked(partition or {}, data, parts.components)
    gallery = Gallery(*fast, shown, numbers, parts, kind, known, axes, values, spectrum)
    every = [{f: (k,) for f, k in gallery.labels(i).items()} for i in range(len(numbers))]
    redrawn = [look(gallery, gallery.latents[i : i + 1], every[i : i + 1])[0] for i in range(len(numbers))]
    return dataclasses.replace(gallery, redrawn=tuple(redrawn))


def _choose(total: int, films: int | Sequence[int], seed: int) -> tuple[int, ...]:
    if isinstance(films, int):
        numbers = tuple(torch.randperm(total, generator=torch.Generator().manual_seed(seed))[: max(films, 0)].tolist())
    else:
        numbers = tuple(int(i) for i in films)
    if len(numbers) < 3:
        raise UserError(f"films: expected at least 3, got {len(numbers)}")
    if bad := [i for i in numbers if not 0 <= i < total]:
        raise UserError(f"films: there is no film {bad[0]}, only 0 to {total - 1}")
    return numbers


def _checked(
    partition: Mapping[str, Sequence[int]], data: SequenceDataset, components: int
) -> dict[str, tuple[int, ...]]:
    if other := [f for f in partition if f not in data.static]:
        raise ValueError(f"partition: {other[0]!r} is no static factor of {data.name!r} ({', '.join(data.static)})")
    taken = [int(c) for part in partition.values() for c in part]
    if bad := [c for c in taken if not 0 <= c < components]:
        raise ValueError(f"partition: no component {bad[0]}, there are {components}")
    if len(set(taken)) < len(taken):
        raise ValueError("partition: a component belongs to more than one factor")
    return {f: tuple(int(c) for c in part) for f, part in partition.items()}


def _coordinates(parts: Parts) -> tuple[Tensor, Tensor]:
    if parts.modes is None:
        mean = parts.static.mean(1)
        return torch.eye(mean.shape[-1], device=mean.device), mean
    mean = parts.modes.double().mean(1)
    axes = torch.linalg.svd((mean - mean.mean(0)).transpose(0, 1), full_matrices=False).Vh[:, 0]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    return axes.float(), torch.einsum("nmk,mk->nm", mean, axes).float()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Without the others: a film is too little work to share, and on a busy machine they are waited for."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def look(gallery: Gallery, latents: Tensor, aims: Sequence[Aim]) -> list[View]:
    """Decode latents ``(n, t, K)`` and ask the judge; `aims` says for each film what its factors should be."""
    if len(aims) != len(latents):
        raise ValueError(f"aims: expected {len(latents)}, got {len(aims)}")
    with _one_thread():
        films = gallery.model.decode(latents)
        opinions = gallery.judge(films).sequence if gallery.judge is not None else {}
        best = {f: torch.softmax(opinions[f], -1).max(-1) for f in gallery.factors if f in opinions}
        pictures = films.clamp(0, 1).cpu().numpy()
    views = []
    for i, (film, aim) in enumerate(zip(pictures, aims)):
        readings = {}
        for f, (confidence, label) in best.items():
            wanted = aim.get(f, ())
            readings[f] = Reading(
                name=class_name(gallery.data, f, int(label[i])),
                confidence=float(confidence[i]),
                aims=tuple(class_name(gallery.data, f, k) for k in wanted),
                right=int(label[i]) in wanted if wanted else None,
            )
        views.append(View(film, readings))
    return views

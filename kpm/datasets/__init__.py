"""Datasets by name: films (`SequenceDataset`), series (`Signals`), `Images`, `Points` or texts (`Reviews`)."""

from __future__ import annotations

import functools
import importlib
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from kpm.errors import UserError, pick

if TYPE_CHECKING:
    from kpm.datasets.base import SequenceDataset
    from kpm.datasets.images import Images
    from kpm.datasets.points import Points
    from kpm.datasets.signals import Signals
    from kpm.datasets.texts import Reviews

    Dataset = SequenceDataset | Signals | Images | Points | Reviews

__all__ = ["Images", "Points", "Reviews", "SequenceDataset", "Signals", "entries", "load", "names"]


class _Loader(NamedTuple):
    """Where a dataset comes from: ``module:function``, the registry entries it can be read from, its stand-in.

    Real data that need no registry, for they come with a package that is here in any case, name it in `comes_with`.
    """

    function: str
    entries: tuple[str, ...] = ()
    stand_in: str = ""
    comes_with: str = ""


_DSPRITES = ("dsprites-hdf5", "dsprites")  # the hdf5 form is read faster and its sha256 is published
# What can be loaded, and how. Without entries it needs no files: drawn by our own code, or part of a package.
_LOADERS = {
    "sprites": _Loader("kpm.datasets.sprites:load", ("sprites",), "puppets"),
    "puppets": _Loader("kpm.datasets.puppets:load"),
    "sprites_extended": _Loader("kpm.datasets.sprites_extended:load", ("sprites",), "puppets_extended"),
    "puppets_extended": _Loader("kpm.datasets.sprites_extended:load_puppets"),
    "dsprites": _Loader("kpm.datasets.dsprites:load", _DSPRITES, "dsprites_rerender"),
    "dsprites_rerender": _Loader("kpm.datasets.dsprites:load_rerender"),
    "moving_dsprites": _Loader("kpm.datasets.moving_dsprites:load", _DSPRITES, "moving_dsprites_rerender"),
    "moving_dsprites_rerender": _Loader("kpm.datasets.moving_dsprites:load_rerender"),
    "shapes3d": _Loader("kpm.datasets.shapes3d:load", ("shapes3d",), "shapes3d_rerender"),
    "shapes3d_rerender": _Loader("kpm.datasets.shapes3d:load_rerender"),
    "imdb": _Loader("kpm.datasets.imdb:load", ("imdb",), "reviews_synthetic"),
    "reviews_synthetic": _Loader("kpm.datasets.reviews:load"),
    "ecg5000": _Loader("kpm.datasets.ecg5000:load", ("ecg5000",), "beats"),
    "beats": _Loader("kpm.datasets.beats:load"),
    "mnist": _Loader("kpm.datasets.mnist:load", ("mnist",), "drawn_digits"),
    "drawn_digits": _Loader("kpm.datasets.drawn_digits:load"),
    "cifar10": _Loader("kpm.datasets.cifar10:load", ("cifar10",), "tinted_digits"),
    "tinted_digits": _Loader("kpm.datasets.cifar10:load_tinted"),
    "small_digits": _Loader("kpm.datasets.small_digits:load", comes_with="scikit-learn"),
    "yinyang": _Loader("kpm.datasets.yin_yang:load", ("yinyang",), "yinyang_drawn"),
    "yinyang_drawn": _Loader("kpm.datasets.yin_yang:load_drawn"),
}
# The faces, each in a module of its own that is imported when a dataset is.
_FACES = {
    "SequenceDataset": "kpm.datasets.base",
    "Signals": "kpm.datasets.signals",
    "Images": "kpm.datasets.images",
    "Points": "kpm.datasets.points",
    "Reviews": "kpm.datasets.texts",
}
_SOURCES = ("auto", "real", "synthetic")
log = logging.getLogger("kpm")


def names() -> list[str]:
    """Names that `load` knows."""
    return sorted(_LOADERS)


def entries(name: str) -> tuple[str, ...]:
    """Registry entries a dataset can be read from, any of them; none if it is drawn."""
    return _LOADERS[pick("dataset", name, names())].entries


def comes_with(name: str) -> str:
    """The package whose data a dataset is; empty for all others."""
    return _LOADERS[pick("dataset", name, names())].comes_with


def load(name: str, split: str = "train", source: str = "auto", root: str | os.PathLike | None = None) -> Dataset:
    """Load one split of a dataset.

    Parameters
    ----------
    name : str
        One of `names`.
    split : str
        ``"train"``, ``"validation"``, ``"test"``, or a split of the paper's by its own name (``"paper-train"``, ...).
    source : {"auto", "real", "synthetic"}
        ``"real"`` takes the published files from the cache, a mirror or the network; ``"synthetic"`` a stand-in drawn
        by our own code, which comes under its own name; ``"auto"`` the real files if they can be had, else the
        stand-in, and says so. The result's ``name`` and ``source`` tell which it is.
    root : path, optional
        Folder for downloads in place of the usual cache.

    Returns
    -------
    SequenceDataset, Signals, Images, Points or Reviews
        For films, time series, images, points of a plane and texts.

    Raises
    ------
    UserError
        For unknown names, a corrupt file, or real data that cannot be had.
    """
    loader = _LOADERS[pick("dataset", name, names())]
    pick("source", source, _SOURCES)
    if not loader.entries:
        if loader.comes_with and source == "synthetic":
            raise UserError(f"dataset {name!r} comes with {loader.comes_with} and has no stand-in; use source='real'")
        if source == "real" and not loader.comes_with:
            raise UserError(f"dataset {name!r} is made by kpm and has no real source; use source='synthetic'")
        return _function(loader)(split)
    if source == "synthetic" or (source == "auto" and not _can_be_had(name, root)):
        return _function(_LOADERS[loader.stand_in])(split)
    return _function(loader)(split, root)


def _function(loader: _Loader) -> Callable[..., Dataset]:
    module, _, function = loader.function.partition(":")
    return getattr(importlib.import_module(module), function)


def _can_be_had(name: str, root: str | os.PathLike | None) -> bool:
    """Whether the real files can be had; fetches them, and says what is taken instead if not."""
    from kpm.datasets import registry

    # Asked again, with its wait for the network, only when there is new hope.
    entries = _LOADERS[name].entries
    hopes = [registry.is_cached(e, root) for e in entries] + [registry.is_mirrored(e) for e in entries]
    return _fetched(name, root, *hopes, registry.offline())


@functools.lru_cache(maxsize=64)
def _fetched(name: str, root: str | os.PathLike | None, *hopes: bool) -> bool:
    from kpm.datasets import registry

    try:
        registry.fetch_any(_LOADERS[name].entries, root)
    except registry.Unavailable as error:
        log.warning("taking the synthetic stand-in %r: %s", _LOADERS[name].stand_in, error)
        return False
    log.info("taking the real dataset %r", name)
    return True


def __getattr__(name: str) -> Any:
    # Torch is imported when a dataset is, not with the package.
    if name in _FACES:
        return getattr(importlib.import_module(_FACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

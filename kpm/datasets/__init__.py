"""Datasets with one face: `load` a split by name and get a `SequenceDataset`."""

from __future__ import annotations

import functools
import importlib
import logging
import os
from typing import TYPE_CHECKING, Any

from kpm.errors import UserError, pick

if TYPE_CHECKING:
    from kpm.datasets.base import SequenceDataset

__all__ = ["SequenceDataset", "load", "names"]

# What can be loaded, and where: real datasets are in the registry, the others are drawn by our own code.
_MODULES = {"sprites": "kpm.datasets.sprites", "puppets": "kpm.datasets.puppets"}
_SOURCES = ("auto", "real", "synthetic")
log = logging.getLogger("kpm")


def names() -> list[str]:
    """Names that `load` knows."""
    return sorted(_MODULES)


def load(
    name: str, split: str = "train", source: str = "auto", root: str | os.PathLike | None = None
) -> SequenceDataset:
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

    Raises
    ------
    UserError
        For unknown names, a corrupt file, or real data that cannot be had.
    """
    from kpm.datasets.catalogue import ENTRIES

    module = _MODULES[pick("dataset", name, names())]
    pick("source", source, _SOURCES)
    if name not in ENTRIES:
        if source == "real":
            raise UserError(f"dataset {name!r} is drawn by kpm and has no real source; use source='synthetic'")
        return importlib.import_module(module).load(split)
    stand_in = ENTRIES[name].stand_in
    if source == "synthetic" and not stand_in:
        raise UserError(f"dataset {name!r} has no synthetic stand-in; use source='real'")
    if source == "synthetic" or (source == "auto" and stand_in and not _can_be_had(name, root)):
        return importlib.import_module(_MODULES[stand_in]).load(split)
    return importlib.import_module(module).load(split, root)


def _can_be_had(name: str, root: str | os.PathLike | None) -> bool:
    """Whether the real files can be had; fetches them, and says what is taken instead if not."""
    from kpm.datasets import registry

    # Asked again, with its wait for the network, only when there is new hope.
    return _fetched(name, root, registry.is_cached(name, root), registry.is_mirrored(name), registry.offline())


@functools.lru_cache(maxsize=64)
def _fetched(name: str, root: str | os.PathLike | None, *hopes: bool) -> bool:
    from kpm.datasets import registry
    from kpm.datasets.catalogue import ENTRIES

    try:
        registry.fetch(name, root)
    except registry.Unavailable as error:
        log.warning("taking the synthetic stand-in %r: %s", ENTRIES[name].stand_in, error)
        return False
    log.info("taking the real dataset %r", name)
    return True


def __getattr__(name: str) -> Any:
    # Torch is imported when a dataset is, not with the package.
    if name == "SequenceDataset":
        from kpm.datasets.base import SequenceDataset

        return SequenceDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

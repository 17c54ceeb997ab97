"""Where things live. Notebooks and code ask here, never the working directory."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """The folder that holds ``notebooks``, ``data`` and ``figures``.

    ``KPM_HOME`` if set, else the checkout the package is imported from, else ``~/.kpm`` (installed as a wheel).
    """
    if home := os.environ.get("KPM_HOME"):
        return Path(home).expanduser().resolve()
    checkout = _PACKAGE.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path.home() / ".kpm"


def notebooks() -> Path:
    return root() / "notebooks"


def figures() -> Path:
    return root() / "figures"


def results() -> Path:
    return root() / "data" / "results"


def checkpoints() -> Path:
    return root() / "data" / "checkpoints"


def runs() -> Path:
    return root() / "runs"


def cache() -> Path:
    """Downloaded files: ``KPM_CACHE`` if set, else ``data/cache`` (git ignores it)."""
    if folder := os.environ.get("KPM_CACHE"):
        return Path(folder).expanduser().resolve()
    return root() / "data" / "cache"


def mirror() -> Path | None:
    """The folder of local copies of upstream files, from ``KPM_MIRROR``; `None` if unset or absent.

    A relative path is taken from the working directory first, then from `root`.
    """
    folder = os.environ.get("KPM_MIRROR")
    if not folder:
        return None
    candidates = [Path(folder).expanduser(), root() / folder]
    return next((p.resolve() for p in candidates if p.is_dir()), None)

"""What all tests share: an empty cache, no mirror and no network, unless a test asks for the real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kpm import paths
from kpm.datasets import registry

_MIRROR = os.environ.get("KPM_MIRROR")


@pytest.fixture(autouse=True)
def _secluded(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test depends on, or touches, the data of the machine it runs on."""
    monkeypatch.setenv("KPM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("KPM_OFFLINE", "1")
    monkeypatch.delenv("KPM_MIRROR", raising=False)


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Folder of local copies of published files: ``KPM_MIRROR``, or ``shared/data`` beside the checkout."""
    candidates = [Path(_MIRROR).expanduser(), paths.root() / _MIRROR] if _MIRROR else []
    candidates.append(paths.root().parent / "shared" / "data")
    found = next((c.resolve() for c in candidates if c.is_dir()), None)
    if found is None:
        pytest.skip("no mirror of the real data (set KPM_MIRROR)")
    return found


@pytest.fixture(scope="session")
def sprites_folder(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the real Sprites sheets, fetched once per session."""
    if not (mirror / "sprites").is_dir():
        pytest.skip(f"the mirror {mirror} has no sprites")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KPM_MIRROR", str(mirror))
        patch.setenv("KPM_OFFLINE", "1")
        return registry.fetch("sprites", tmp_path_factory.mktemp("real"))


@pytest.fixture
def real_sprites(sprites_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes ``load("sprites", source="real")`` work in a test."""
    monkeypatch.setenv("KPM_CACHE", str(sprites_folder.parent))
    return sprites_folder

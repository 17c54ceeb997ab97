"""Machine code where it cannot be kept."""

from __future__ import annotations

import numpy as np
import pytest
from numba.core import config

from kpm.solvers import machine


def doubled(x):
    return 2 * x


def test_without_a_folder_for_the_cache_code_is_made_anew(monkeypatch, tmp_path):
    """A file stands where the folder should be, so that not even an administrator could write there."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(config, "CACHE_LOCATOR_CLASSES", "UserProvidedCacheLocator")
    function = machine.compiled(doubled)
    assert np.array_equal(function(np.arange(3.0)), [0, 2, 4])
    assert function.stats.cache_path is None


def test_code_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    function = machine.compiled(doubled)
    assert np.array_equal(function(np.arange(3.0)), [0, 2, 4])
    assert list(tmp_path.rglob("*.nbc"))


def test_other_errors_are_not_hidden(monkeypatch):
    monkeypatch.setattr(config, "CACHE_LOCATOR_CLASSES", "NoSuchLocator")
    with pytest.raises(RuntimeError, match="Unknown cache locator class"):
        machine.compiled(doubled)

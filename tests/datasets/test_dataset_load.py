"""`load` takes what it says it takes."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from kpm import datasets
from kpm.datasets import registry
from kpm.errors import UserError


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("KPM_CACHE", str(tmp_path / "cache"))
    datasets._fetched.cache_clear()


def test_names():
    names = datasets.names()
    assert names == sorted(names) and {"sprites", "puppets", "dsprites", "moving_dsprites", "shapes3d"} < set(names)
    for name in names:  # every name leads to a function, and what is read from files has a stand-in that is drawn
        assert callable(datasets._function(datasets._LOADERS[name]))
        if datasets.entries(name):
            assert not datasets.entries(datasets._LOADERS[name].stand_in)


def test_auto_without_the_real_data_takes_the_stand_in_and_says_so_once(caplog):
    with caplog.at_level(logging.WARNING, "kpm"):
        found = [datasets.load("sprites", split) for split in ("train", "test")]
    assert {(d.name, d.source) for d in found} == {("puppets", "synthetic")}
    assert len(caplog.records) == 1 and "'puppets'" in caplog.text and "'sprites'" in caplog.text


def test_the_message_is_seen_without_any_set_up(tmp_path):
    code = "from kpm import datasets; print(datasets.load('sprites').name)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "puppets"
    assert "taking the synthetic stand-in 'puppets'" in run.stderr and len(run.stderr.splitlines()) == 1


def test_real_or_nothing():
    with pytest.raises(registry.Unavailable, match="source='synthetic'"):
        datasets.load("sprites", source="real")


def test_synthetic_never_bears_the_real_name():
    for name in ("sprites", "puppets"):
        dataset = datasets.load(name, source="synthetic")
        assert (dataset.name, dataset.source, len(dataset)) == ("puppets", "synthetic", 8100)
    with pytest.raises(UserError, match="no real source"):
        datasets.load("puppets", source="real")


def test_corrupt_mirror_is_no_reason_for_the_stand_in(tmp_path, monkeypatch):
    bad = tmp_path / "mirror" / "sprites" / "sprites-lpc.tar.gz"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"rotten")
    monkeypatch.setenv("KPM_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(UserError, match=r"sprites-lpc\.tar\.gz: expected sha256:0f5309c2.*found sha256:"):
        datasets.load("sprites")
    assert not any((tmp_path / "cache").iterdir())


@pytest.mark.real
def test_auto_takes_the_real_data_as_soon_as_it_is_there(mirror, monkeypatch, sprites_folder):
    assert datasets.load("sprites").source == "synthetic"
    monkeypatch.setenv("KPM_MIRROR", str(mirror))
    assert datasets.load("sprites").source == "real"


def test_unknown_names():
    with pytest.raises(UserError, match="unknown dataset 'puppet'; did you mean 'puppets'"):
        datasets.load("puppet")
    with pytest.raises(UserError, match="unknown source 'reel'; did you mean 'real'"):
        datasets.load("sprites", source="reel")


def test_importing_the_package_is_light():
    code = "import sys, kpm.datasets; print(sorted({'torch', 'PIL', 'matplotlib', 'pooch'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    from kpm.datasets.base import SequenceDataset

    assert datasets.SequenceDataset is SequenceDataset

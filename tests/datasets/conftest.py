"""Caches, mirrors and servers for the tests of the registry."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kpm.datasets import registry
from kpm.datasets.catalogue import Entry
from tests.datasets.toys import CONTENTS, Server


@pytest.fixture
def register(monkeypatch):
    def add(entry: Entry) -> Entry:
        monkeypatch.setitem(registry.ENTRIES, entry.name, entry)
        return entry

    return add


@pytest.fixture
def base(tmp_path, monkeypatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("KPM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def toy_mirror(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "mirror"
    for path, content in CONTENTS.items():
        (folder / "toy" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "toy" / path).write_bytes(content)
    monkeypatch.setenv("KPM_MIRROR", str(folder))
    return folder


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KPM_OFFLINE", "0")
    running = Server()
    thread = threading.Thread(target=running.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.http.shutdown()
    running.http.server_close()
    thread.join()

"""Downloads: several addresses, hashes checked, and quick to see that there is no network."""

from __future__ import annotations

import hashlib
import socket
import time
import zipfile

import pytest

from kpm.datasets import download, registry
from kpm.datasets.catalogue import Archive, File
from kpm.errors import UserError
from tests.datasets.toys import CONTENTS, assert_nothing_in, assert_whole, pin, toy


def test_downloads_and_tries_the_next_address(register, base, server):
    server.pages = {f"/good/{path}": content for path, content in CONTENTS.items()}
    server.pages["/bad/one.bin"] = b"<html>please log in</html>"
    files = tuple(
        File(path, len(c), (pin(c),), (f"{server.url}/bad/{path}", f"{server.url}/good/{path}"))
        for path, c in CONTENTS.items()
    )
    register(toy(files))
    assert_whole(registry.fetch("toy"))
    assert sorted(p.name for p in base.iterdir()) == ["toy"]


def test_corrupt_download(register, base, server):
    server.pages = {"/one.bin": b"rotten", "/deep/two.bin": CONTENTS["deep/two.bin"]}
    register(toy(base=server.url))
    with pytest.raises(UserError) as caught:
        registry.fetch("toy", progress=False)
    message = str(caught.value)
    assert f"{server.url}/one.bin" in message and "\n" not in message
    assert pin(CONTENTS["one.bin"]) in message and hashlib.sha256(b"rotten").hexdigest() in message
    assert_nothing_in(base)


def test_archive_from_the_network_whose_hash_nobody_publishes(register, base, server, tmp_path):
    with zipfile.ZipFile(tmp_path / "toy.zip", "w") as z:
        for path, content in CONTENTS.items():
            z.writestr(path, content)
        z.writestr("README", "not asked for")
    server.pages = {"/toy.zip": (tmp_path / "toy.zip").read_bytes()}
    register(toy(archives=(Archive(urls=(f"{server.url}/toy.zip",)),)))
    folder = registry.fetch("toy", progress=False)
    assert_whole(folder)
    assert not (folder / "README").exists()
    assert sorted(p.name for p in base.iterdir()) == ["toy"]


def test_nobody_listens(register, base, server):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    register(toy(base=f"http://127.0.0.1:{port}", stand_in="puppets"))
    started = time.monotonic()
    with pytest.raises(registry.Unavailable) as caught:
        registry.fetch("toy")
    message = str(caught.value)
    assert time.monotonic() - started < 10
    assert "\n" not in message
    for part in ("'toy'", "cache", "KPM_MIRROR", f"127.0.0.1:{port}", "source='synthetic'", "'puppets'"):
        assert part in message
    assert_nothing_in(base)


def test_a_host_that_is_silent_is_waited_for_once_and_not_long(register, base, server, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        port = silent.getsockname()[1]
        urls = tuple(f"http://127.0.0.1:{port}/{i}" for i in range(20))
        register(toy((File("one.bin", 10, (pin(CONTENTS["one.bin"]),), urls),)))
        started = time.monotonic()
        with pytest.raises(registry.Unavailable, match=r"no answer within 0\.3 s"):
            registry.fetch("toy")
        assert time.monotonic() - started < 5


def test_offline_asks_nobody(register, base, server, monkeypatch):
    server.pages = {f"/{path}": content for path, content in CONTENTS.items()}
    register(toy(base=server.url))
    monkeypatch.setenv("KPM_OFFLINE", "1")
    with pytest.raises(registry.Unavailable, match="KPM_OFFLINE"):
        registry.fetch("toy")
    assert server.asked == []
    monkeypatch.setenv("KPM_OFFLINE", "0")
    assert_whole(registry.fetch("toy"))


def test_unpublished_files_say_so(register, base, server):
    register(toy())
    with pytest.raises(registry.Unavailable, match="only a mirror"):
        registry.fetch("toy")

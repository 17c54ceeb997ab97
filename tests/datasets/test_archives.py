"""Archives that need not be trusted: only what is listed comes out, only where it should go."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from kpm.datasets import archives
from kpm.errors import UserError


def make_tar(path: Path, *members: tuple[str, bytes], extra: tarfile.TarInfo | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if extra is not None:
            tar.addfile(extra)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def everything_below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def test_takes_out_what_is_listed_and_nothing_else(tmp_path):
    content = bytes(range(256)) * 5
    source = make_tar(tmp_path / "a.tar.gz", ("top/a.bin", content), ("top/other", b"x"))
    out = tmp_path / "out"
    out.mkdir()
    archives.extract(source, {"top/a.bin": out / "renamed"}, {"top/a.bin": len(content)})
    assert everything_below(out) == {"renamed"}
    assert (out / "renamed").read_bytes() == content


def test_zip_and_gz(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.writestr("a.txt", "hello")
        z.writestr("b.txt", "no")
    archives.extract(tmp_path / "a.zip", {"a.txt": tmp_path / "z"}, {"a.txt": 5})
    assert (tmp_path / "z").read_text() == "hello"
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"hello"))
    archives.extract(tmp_path / "a.txt.gz", {"a.txt": tmp_path / "g"}, {"a.txt": 5})
    assert (tmp_path / "g").read_text() == "hello"


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a\\..\\..\\evil"])
def test_a_member_that_points_outside_spoils_the_tar(tmp_path, name):
    inner = tmp_path / "inner"
    inner.mkdir()
    source = make_tar(inner / "a.tar.gz", ("good", b"1"), (name, b"2"))
    with pytest.raises(UserError, match=r"unsafe.*outside"):
        archives.extract(source, {"good": inner / "good"}, {"good": 1})
    assert everything_below(tmp_path) == {"inner", "inner/a.tar.gz"}


def test_a_member_that_points_outside_spoils_the_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.writestr("good", "1")
        z.writestr("../evil", "2")
    with pytest.raises(UserError, match=r"unsafe.*'\.\./evil'"):
        archives.extract(tmp_path / "a.zip", {"good": tmp_path / "good"}, {"good": 1})
    assert not (tmp_path / "good").exists()


@pytest.mark.parametrize("extra", [link("l", "/etc/passwd"), link("l", "good", tarfile.LNKTYPE), link("l", "good")])
def test_links_spoil_the_archive(tmp_path, extra):
    source = make_tar(tmp_path / "a.tar.gz", ("good", b"1"), extra=extra)
    for wanted in ("good", "l"):
        with pytest.raises(UserError, match="'l' is a link"):
            archives.extract(source, {wanted: tmp_path / "out"}, {wanted: 1})
    assert not (tmp_path / "out").exists()


def test_a_member_that_is_too_long_is_refused(tmp_path):
    source = make_tar(tmp_path / "a.tar.gz", ("big", b"0" * 1000))
    with pytest.raises(UserError, match="'big' is longer than 999 bytes"):
        archives.extract(source, {"big": tmp_path / "out"}, {"big": 999})
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"0" * 10_000_000))
    with pytest.raises(UserError, match="longer than 10 bytes"):
        archives.extract(tmp_path / "bomb.gz", {"bomb": tmp_path / "b"}, {"bomb": 10})


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LIMIT", 10_000)
    source = make_tar(tmp_path / "a.tar.gz", ("a", b"0"), ("bomb", b"0" * 20_000))
    with pytest.raises(UserError, match="more than 10000 bytes"):
        archives.extract(source, {"a": tmp_path / "out"}, {"a": 1})


def test_absent_member_and_damage_are_named(tmp_path):
    source = make_tar(tmp_path / "a.tar.gz", ("a", bytes(range(256)) * 100))
    with pytest.raises(UserError, match="no member 'b'"):
        archives.extract(source, {"b": tmp_path / "out"}, {"b": 1})
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged or truncated"):
        archives.extract(source, {"a": tmp_path / "out"}, {"a": 25600})
    source.write_bytes(b"this is not an archive")
    with pytest.raises(UserError, match="damaged or truncated"):
        archives.extract(source, {"a": tmp_path / "out"}, {"a": 25600})

"""The registry hands out whole and right files, or one clear error and nothing left behind."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kpm.datasets import catalogue, registry
from kpm.datasets.catalogue import Archive, File
from kpm.errors import UserError
from tests.datasets.toys import CONTENTS, assert_nothing_in, assert_whole, pin, toy

# The table of what is published


def test_catalogue_is_well_formed():
    for name, entry in catalogue.ENTRIES.items():
        assert entry.name == name and entry.files and entry.title and entry.licence and entry.citation
        assert len({f.path for f in entry.files}) == len(entry.files)
        for file in entry.files:
            assert not Path(file.path).is_absolute() and ".." not in Path(file.path).parts
            assert all(re.fullmatch("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", h) for h in file.hashes) and file.hashes
        assert all(u.startswith("https://") for f in (*entry.files, *entry.archives) for u in f.urls)


@pytest.mark.real
@pytest.mark.parametrize("name", ["sprites", "mnist", "ecg5000", "imdb", "yinyang", "dsprites-frames"])
def test_pinned_hashes_are_those_of_the_published_files(name, mirror, base, monkeypatch):
    monkeypatch.setenv("KPM_MIRROR", str(mirror))
    if not registry.is_mirrored(name):
        pytest.skip(f"the mirror has no {name}")
    folder = registry.fetch(name)
    for file in catalogue.ENTRIES[name].files:
        content = (folder / file.path).read_bytes()
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" in file.hashes
        assert name == "imdb" or len(content) == file.size
    assert registry.is_cached(name)
    assert sorted(p.name for p in base.iterdir()) == [name]


# The mirror


def test_copies_from_the_mirror_once(register, base, toy_mirror, monkeypatch):
    register(toy())
    assert not registry.is_cached("toy") and registry.is_mirrored("toy")
    folder = registry.fetch("toy")
    assert folder == base / "toy" and registry.is_cached("toy")
    assert_whole(folder)
    monkeypatch.delenv("KPM_MIRROR")
    assert registry.fetch("toy") == folder
    assert sorted(p.name for p in base.iterdir()) == ["toy"]


def test_root_takes_the_place_of_the_cache(register, base, toy_mirror, tmp_path):
    register(toy())
    assert registry.fetch("toy", tmp_path / "elsewhere") == tmp_path / "elsewhere" / "toy"
    assert_nothing_in(base)


def test_corrupt_mirror_file_is_an_error_even_if_the_network_has_it(register, base, toy_mirror, server):
    server.pages = {f"/{path}": content for path, content in CONTENTS.items()}
    register(toy(base=server.url))
    bad = toy_mirror / "toy" / "deep" / "two.bin"
    bad.write_bytes(b"rotten")
    with pytest.raises(UserError) as caught:
        registry.fetch("toy")
    message = str(caught.value)
    assert str(bad) in message and pin(CONTENTS["deep/two.bin"]) in message and pin(b"rotten") in message
    assert not isinstance(caught.value, registry.Unavailable) and "\n" not in message
    assert_nothing_in(base)
    assert server.asked == []


def test_what_the_mirror_lacks_comes_from_the_network(register, base, toy_mirror, server):
    (toy_mirror / "toy" / "one.bin").unlink()
    server.pages = {"/one.bin": CONTENTS["one.bin"]}
    register(toy(base=server.url))
    assert_whole(registry.fetch("toy", progress=False))
    assert [a for a in server.asked if a.startswith("GET")] == ["GET /one.bin"]


def test_any_of_several_hashes_and_md5(register, base, toy_mirror):
    (toy_mirror / "short.bin").write_bytes(b"a shorter edition")
    files = (
        File("long.bin", 100, (pin(b"the long edition"), pin(b"a shorter edition")), mirror="short.bin"),
        File("one.bin", 10, (pin(CONTENTS["one.bin"], "md5"),)),
    )
    register(toy(files))
    folder = registry.fetch("toy")
    assert (folder / "long.bin").read_bytes() == b"a shorter edition"
    (toy_mirror / "toy" / "one.bin").write_bytes(b"rotten")
    with pytest.raises(UserError, match=r"expected md5:.*found md5:"):
        registry.fetch("toy", base.parent / "again")


def mirror_tar(toy_mirror: Path, damage=lambda content: content, pinned: bool = True) -> Archive:
    """Move the mirror's files into a tar; `damage` works on its bytes after the hash was taken."""
    import tarfile

    target = toy_mirror / "toy.tar.gz"
    with tarfile.open(target, "w:gz") as tar:
        for path in CONTENTS:
            tar.add(toy_mirror / "toy" / path, f"top/{path}")
            (toy_mirror / "toy" / path).unlink()
    whole = target.read_bytes()
    target.write_bytes(damage(whole))
    return Archive(mirror="toy.tar.gz", hashes=(pin(whole),) if pinned else (), prefix="top/")


def test_extracts_from_the_mirrors_archive(register, base, toy_mirror):
    register(toy(archives=(mirror_tar(toy_mirror),)))
    assert registry.is_mirrored("toy")
    folder = registry.fetch("toy")
    assert_whole(folder)
    assert {p.name for p in folder.iterdir()} == {"one.bin", "deep", registry.MARKER}


@pytest.mark.parametrize("pinned, said", [(True, "expected sha256:.*found sha256:"), (False, "damaged or truncated")])
def test_truncated_archive(register, base, toy_mirror, pinned, said):
    register(toy(archives=(mirror_tar(toy_mirror, lambda content: content[: len(content) // 2], pinned),)))
    with pytest.raises(UserError, match=f"toy.tar.gz.*{said}"):
        registry.fetch("toy")
    assert_nothing_in(base)


def test_archive_with_a_wrong_member(register, base, toy_mirror):
    (toy_mirror / "toy" / "one.bin").write_bytes(b"10 chars!!")
    register(toy(archives=(mirror_tar(toy_mirror),)))
    with pytest.raises(UserError, match=r"top/one.bin in .*toy.tar.gz: expected"):
        registry.fetch("toy")
    assert_nothing_in(base)


def test_unknown_name():
    with pytest.raises(UserError, match="unknown dataset 'sprits'; did you mean 'sprites'"):
        registry.fetch("sprits")


# The cache


def test_marker_spares_hashing(register, base, toy_mirror, monkeypatch):
    register(toy())
    folder = registry.fetch("toy")
    marks = json.loads((folder / registry.MARKER).read_text())
    assert set(marks) == set(CONTENTS)
    hashed = []
    honest = registry.digest
    monkeypatch.setattr(registry, "digest", lambda path, known: hashed.append(path) or honest(path, known))
    registry.fetch("toy")
    assert hashed == []
    os.utime(folder / "one.bin", (1, 1))
    registry.fetch("toy")
    assert hashed == [folder / "one.bin"]
    (folder / registry.MARKER).write_text("{ not json")
    registry.fetch("toy")
    assert len(hashed) == 1 + len(CONTENTS)


def test_damaged_cache_is_mended(register, base, toy_mirror, monkeypatch, caplog):
    register(toy())
    folder = registry.fetch("toy")
    (folder / "deep" / "two.bin").write_bytes(b"someone wrote here")
    with caplog.at_level(logging.WARNING, "kpm"):
        registry.fetch("toy")
    assert_whole(folder)
    assert str(folder / "deep" / "two.bin") in caplog.text and pin(b"someone wrote here") in caplog.text
    monkeypatch.delenv("KPM_MIRROR")
    (folder / "one.bin").write_bytes(b"and again")
    with pytest.raises(registry.Unavailable):
        registry.fetch("toy")


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["cut", "flipped"])
@pytest.mark.parametrize("age", [-1e6, 0, 1e6])
def test_no_cut_or_flipped_file_of_the_cache_is_taken_for_data(register, base, toy_mirror, damage, age):
    """Whatever the clock said when it was damaged."""
    register(toy())
    file = registry.fetch("toy") / "one.bin"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    os.utime(file, ns=(before.st_mtime_ns + 1, before.st_mtime_ns + int(age * 1e9) + 1))
    assert_whole(registry.fetch("toy"))


def test_left_overs_of_a_killed_process_are_no_data_and_get_swept(register, base, toy_mirror):
    register(toy())
    old, new = base / ".toy.old.part", base / ".toy.new.part"
    for left in (old, new):
        left.mkdir(parents=True)
        (left / "one.bin").write_bytes(b"half")
    os.utime(old, (1, 1))
    assert_whole(registry.fetch("toy"))
    assert new.exists() and not old.exists()


_FULL = """
import resource, sys
from kpm.datasets import registry
from kpm.datasets.catalogue import Entry, File
registry.ENTRIES["toy"] = Entry("toy", "", "", "", "", (File("big.bin", 200000, (sys.argv[1],)),))
resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
try:
    registry.fetch("toy")
except registry.UserError as error:
    print(error)
"""


def test_no_room_leaves_nothing_half_written(base, toy_mirror):
    content = bytes(200_000)
    (toy_mirror / "toy" / "big.bin").write_bytes(content)
    run = subprocess.run([sys.executable, "-c", _FULL, pin(content)], capture_output=True, text=True, check=True)
    assert "cannot prepare dataset 'toy'" in run.stdout and "big.bin" in run.stdout
    assert_nothing_in(base)


def _fetch_in_step(folders, mirror, barrier, outcome):
    os.environ["KPM_MIRROR"] = mirror
    registry.ENTRIES["toy"] = toy()
    for folder in folders:
        barrier.wait()
        assert_whole(registry.fetch("toy", folder))
    outcome.put("fine")


def test_processes_do_not_disturb_one_another(toy_mirror, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, outcome = context.Barrier(3), context.Queue()
    folders = [str(tmp_path / f"cache{i}") for i in range(40)]
    arguments = (folders, str(toy_mirror), barrier, outcome)
    workers = [context.Process(target=_fetch_in_step, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [outcome.get(timeout=60) for _ in workers] == ["fine"] * 3
    for worker in workers:
        worker.join()
    for folder in folders:
        assert_whole(Path(folder) / "toy")
        assert os.listdir(folder) == ["toy"]

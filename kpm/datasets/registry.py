"""Get a dataset's files: from the cache, a mirror folder, or where they are published; always checked.

What comes out of here is either whole and right, or an error. Files are prepared in a hidden folder beside the cache's
and renamed into place, so two processes may do so at once and a killed one leaves nothing that looks like data.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from kpm import paths
from kpm.datasets.archives import extract
from kpm.datasets.catalogue import ENTRIES, Archive, Entry, File
from kpm.datasets.download import Downloader, Unreachable
from kpm.errors import UserError, pick
from kpm.files import write_json

MARKER = ".verified.json"
_STALE = 86400.0  # seconds after which a hidden folder of a killed process is swept away
log = logging.getLogger("kpm")


class Unavailable(UserError):
    """No source has the dataset; nothing is wrong with any of them."""


def fetch(name: str, root: str | os.PathLike | None = None, progress: bool = True) -> Path:
    """Folder that holds the verified files of a dataset.

    Parameters
    ----------
    name : str
        Name in the registry.
    root : path, optional
        Folder for downloads in place of the usual cache (`kpm.paths.cache`); files go to ``root/name``.
    progress : bool
        Show a progress bar while downloading.

    Raises
    ------
    Unavailable
        If neither cache, mirror nor network has the files; says what was tried.
    UserError
        For an unknown name, a corrupt mirror file or download, or a folder that cannot be written to.
    """
    entry = ENTRIES[pick("dataset", name, ENTRIES)]
    base = Path(root).expanduser().resolve() if root is not None else paths.cache()
    folder = base / name
    try:
        if missing := _missing(entry, folder):
            with _staging(base, name) as stage:
                missing = _from_mirror(entry, missing, stage)
                if missing:
                    _from_network(entry, missing, stage, progress)
                _move(stage, folder)
            if missing := _missing(entry, folder):
                raise UserError(f"{folder / missing[0].path} changed while it was being prepared; try again")
    except OSError as error:
        raise UserError(f"cannot prepare dataset {name!r} in {folder}: {error}") from error
    return folder


def fetch_any(names: Sequence[str], root: str | os.PathLike | None = None, progress: bool = True) -> tuple[str, Path]:
    """The first of several entries (other forms of one dataset) that can be had, and its folder.

    What is in the cache or the mirror goes before what has to be downloaded. Raises what `fetch` raises for the first
    if none can be had.
    """
    here = [name for name in names if is_cached(name, root) or is_mirrored(name)]
    first: Unavailable | None = None
    for name in dict.fromkeys([*here, *names]):
        try:
            return name, fetch(name, root, progress)
        except Unavailable as error:
            first = first or error
    assert first is not None, "names is empty"
    raise first


def is_cached(name: str, root: str | os.PathLike | None = None) -> bool:
    """Whether every file of the dataset is in the cache, judged by its presence (`fetch` looks at hashes)."""
    base = Path(root) if root is not None else paths.cache()
    return all((base / name / f.path).is_file() for f in ENTRIES[name].files)


def is_mirrored(name: str) -> bool:
    """Whether the mirror folder has every file of the dataset, by itself or in an archive."""
    mirror, entry = paths.mirror(), ENTRIES[name]
    if mirror is None:
        return False
    archived = {p for a in entry.archives if a.mirror and (mirror / a.mirror).is_file() for p in _held(a, entry)}
    return all(f.path in archived or _mirror_copy(entry, f, mirror) for f in entry.files)


def offline() -> bool:
    """Whether ``KPM_OFFLINE`` forbids the network."""
    return os.environ.get("KPM_OFFLINE", "0") not in ("", "0")


def digest(path: Path, known: str) -> str:
    """Hash of a file as ``"algorithm:hex"``, by the algorithm of the `known` one."""
    algorithm = known.partition(":")[0]
    with open(path, "rb") as f:
        return f"{algorithm}:{hashlib.file_digest(f, algorithm).hexdigest()}"


def check(path: Path, hashes: tuple[str, ...], origin: str) -> str:
    """Return the hash of `path` if it is one of `hashes`, else raise a `UserError` that names `origin` and both."""
    found = digest(path, hashes[0])
    if found not in hashes:
        raise UserError(f"corrupt file {origin}: expected {' or '.join(hashes)}, found {found}")
    return found


# The cache


def _missing(entry: Entry, folder: Path) -> list[File]:
    """The files that are not in the cache as they should be: unchanged since they were last hashed, or hashed now."""
    try:
        marks = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        marks = {}
    good = {}
    for file in entry.files:
        path = folder / file.path
        if not path.is_file():
            continue
        stat = path.stat()
        mark = [stat.st_size, stat.st_mtime_ns]
        known = marks.get(file.path) if isinstance(marks, dict) else None
        if isinstance(known, list) and known[:2] == mark and known[2:] and known[2] in file.hashes:
            good[file.path] = known
        elif (found := digest(path, file.hashes[0])) in file.hashes:
            good[file.path] = [*mark, found]
        else:
            log.warning("%s is damaged (expected %s, found %s); getting it anew", path, file.hashes[0], found)
    if good and good != marks:
        with contextlib.suppress(OSError):  # a cache that may only be read is hashed every time
            write_json(folder / MARKER, good)
    return [f for f in entry.files if f.path not in good]


@contextlib.contextmanager
def _staging(base: Path, name: str) -> Iterator[Path]:
    """A hidden folder beside the dataset's, gone at the end whatever happens."""
    base.mkdir(parents=True, exist_ok=True)
    for left in base.glob(f".{name}.*.part"):
        with contextlib.suppress(OSError):  # another process may be sweeping too
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left, ignore_errors=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".part", dir=base))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _move(stage: Path, folder: Path) -> None:
    """Rename the whole stage into place, or file by file where the folder is there already."""
    stage.chmod(0o755)  # mkdtemp makes 0700
    try:
        os.rename(stage, folder)
    except OSError:
        for path in [p for p in stage.rglob("*") if p.is_file()]:
            target = folder / path.relative_to(stage)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


def _place(stage: Path, file: File) -> Path:
    target = stage / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


# The mirror


def _mirror_copy(entry: Entry, file: File, mirror: Path) -> Path | None:
    candidates = (f"{entry.name}/{file.path}", file.mirror)
    return next((mirror / c for c in candidates if c and (mirror / c).is_file()), None)


def _held(archive: Archive, entry: Entry) -> tuple[str, ...]:
    return archive.members or tuple(f.path for f in entry.files)


def _from_mirror(entry: Entry, missing: list[File], stage: Path) -> list[File]:
    """Copy into the stage what the mirror has; returns the files it has not."""
    mirror = paths.mirror()
    if mirror is None:
        return missing
    absent = []
    for file in missing:
        if source := _mirror_copy(entry, file, mirror):
            shutil.copyfile(source, _place(stage, file))
            check(stage / file.path, file.hashes, str(source))
        else:
            absent.append(file)
    for archive in entry.archives:
        source = mirror / archive.mirror
        if archive.mirror and source.is_file():
            absent = _unpack(entry, archive, source, absent, stage)
    return absent


def _unpack(entry: Entry, archive: Archive, source: Path, wanted: list[File], stage: Path) -> list[File]:
    """Extract from `source` the wanted files it holds, each checked; returns the others."""
    mine = [f for f in wanted if f.path in _held(archive, entry)]
    if not mine:
        return wanted
    if archive.hashes:
        check(source, archive.hashes, str(source))
    members = {archive.prefix + f.path: _place(stage, f) for f in mine}
    extract(source, members, {archive.prefix + f.path: f.size for f in mine})
    for file in mine:
        check(stage / file.path, file.hashes, f"{archive.prefix}{file.path} in {source}")
    return [f for f in wanted if f not in mine]


# The network


def _from_network(entry: Entry, missing: list[File], stage: Path, progress: bool) -> None:
    """Download into the stage, every file from the first of its addresses that has it."""
    if offline():
        raise _unavailable(entry, "KPM_OFFLINE forbids the network")
    download = Downloader(progress)
    alone = [f for f in missing if f.urls]
    left = [f for f in missing if not f.urls]
    try:
        for file in tqdm(alone, desc=entry.name, unit="file", delay=1.0, disable=not progress or len(alone) < 2):
            download(file.urls, file.hashes[0], _place(stage, file), file.size)
        for archive in entry.archives:
            if left and archive.urls:
                with tempfile.TemporaryDirectory(dir=stage.parent, prefix=f".{entry.name}.", suffix=".part") as box:
                    target = Path(box) / Path(urlsplit(archive.urls[0]).path).name
                    download(archive.urls, next(iter(archive.hashes), None), target, entry.size)
                    left = _unpack(entry, archive, target, left, stage)
    except Unreachable as error:
        raise _unavailable(entry, f"the network does not give it ({error})") from error
    if left:
        raise _unavailable(entry, "nobody publishes these files, only a mirror can have them")


def _unavailable(entry: Entry, network: str) -> Unavailable:
    mirror = paths.mirror()
    local = f"the mirror {mirror} does not have it" if mirror else "KPM_MIRROR names no folder"
    stand_in = f", or use source='synthetic' for the stand-in {entry.stand_in!r}" if entry.stand_in else ""
    return Unavailable(
        f"dataset {entry.name!r} is not here: it is not in the cache, {local}, {network}; "
        f"set KPM_MIRROR to a folder that holds a copy{stand_in}"
    )

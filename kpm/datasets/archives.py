"""Take listed files out of a tar, zip or gz archive that need not be trusted."""

from __future__ import annotations

import contextlib
import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from kpm.errors import UserError

# More than any archive of the registry unpacks to; a bomb stops here.
LIMIT = 1 << 30
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, NotImplementedError)


def extract(archive: Path, members: dict[str, Path], sizes: dict[str, int]) -> None:
    """Write the listed members of `archive` to the given paths, and nothing else.

    Where a member is written is up to `members`, never to the archive; an archive with a member that would leave its
    folder, or with a link, is refused as a whole.

    Parameters
    ----------
    archive : Path
        Tar (any compression), zip, or gz of a single file; told apart by the end of the name.
    members : dict of str to Path
        Name inside the archive (for a gz, its own name less ``.gz``) to the file to be written; folders exist.
    sizes : dict of str to int
        Bytes of each member; a member that is longer is refused.

    Raises
    ------
    UserError
        If the archive cannot be read, is unsafe, or lacks a member.
    """
    found = set()
    try:
        with _opened(archive) as contents:
            for name, stream in contents:
                if name not in members:
                    continue
                with stream, open(members[name], "wb") as out:
                    if out.write(stream.read(sizes[name] + 1)) > sizes[name]:
                        raise UserError(f"{archive}: member {name!r} is longer than {sizes[name]} bytes")
                found.add(name)
    except _BROKEN as error:
        raise _damaged(archive, error) from error
    if absent := [name for name in members if name not in found]:
        raise UserError(f"{archive} has no member {absent[0]!r}")


def read(archive: Path, wanted: Callable[[str], bool], longest: int = 1 << 24) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the wanted members of a tar, in its order; nothing is written.

    What is unsafe is refused as by `extract`, but where it stands in the archive: take nothing for good before the end.

    Parameters
    ----------
    archive : Path
        Tar of any compression.
    wanted : callable
        Whether the member of a name is.
    longest : int
        Bytes of the longest member; a longer one is refused.

    Raises
    ------
    UserError
        If the archive cannot be read or is unsafe.
    """
    try:
        with tarfile.open(archive) as source:
            for member in _tar_members(archive, source):
                if wanted(member.name):
                    if member.size > longest:
                        raise UserError(f"{archive}: member {member.name!r} is longer than {longest} bytes")
                    yield member.name, source.extractfile(member).read()
            # A gz has its check sum behind the last member.
            for _ in range(LIMIT >> 20):
                if not source.fileobj.read(1 << 20):
                    break
    except _BROKEN as error:
        raise _damaged(archive, error) from error


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    """Yield the regular files of an archive as (name, stream), each checked before it is given out."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as source:
            # A zip has no links but by a Unix extension, which reading ignores.
            infos = [i for i in source.infolist() if not i.is_dir()]
            for info in infos:
                _check_name(archive, info.filename)
            yield ((info.filename, source.open(info)) for info in infos)
    elif archive.name.endswith(".gz") and not archive.name.endswith(".tar.gz"):
        with gzip.open(archive) as source:
            yield iter([(archive.name.removesuffix(".gz"), source)])
    else:
        with tarfile.open(archive) as source:
            # All headers come first: a bad member spoils the archive wherever it stands.
            yield ((m.name, source.extractfile(m)) for m in list(_tar_members(archive, source)))


def _damaged(archive: Path, error: Exception) -> UserError:
    gist = str(error).partition("\n")[0].rstrip(":") or type(error).__name__  # tarfile lists every method it tried
    return UserError(f"{archive} cannot be read as an archive ({gist}); it is damaged or truncated")


def _tar_members(archive: Path, source: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    total = 0
    for member in source:
        _check_name(archive, member.name)
        if not (member.isreg() or member.isdir()):
            raise UserError(f"{archive} is unsafe: member {member.name!r} is a link or a device")
        total += member.size
        if total > LIMIT:
            raise UserError(f"{archive} is unsafe: it unpacks to more than {LIMIT} bytes")
        if member.isreg():
            yield member


def _check_name(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{archive} is unsafe: member {name!r} points outside the archive's folder")

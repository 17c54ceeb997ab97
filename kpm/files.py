"""Files that are either whole or not there: atomic writes and hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it over `path`.

    A crash, a full disk or ``kill -9`` leaves the old `path` as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(fd)
    part = Path(name)
    try:
        yield part
        with open(part, "rb") as f:
            os.fsync(f.fileno())
        part.chmod(0o644)  # mkstemp makes 0600
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def sweep(folder: str | os.PathLike) -> None:
    """Remove what `atomic` left half written in `folder` when its process was killed; call it where no other writes."""
    for part in Path(folder).glob(".*.part"):
        part.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> Path:
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | os.PathLike, value: Any) -> Path:
    """Write `value` as indented JSON; NaN and inf are refused, since JSON has no word for them."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sha256(path: str | os.PathLike) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()

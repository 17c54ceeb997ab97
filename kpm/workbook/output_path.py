"""Where a command is to write, looked at before the work and not after it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from kpm.errors import UserError


def check_writable(path: Path, name: str) -> None:
    """Make the folder of a file that will be written.

    Raises
    ------
    UserError
        If there is a folder in the file's place, or its own folder cannot be made or written to; `name` is the
        argument that is to blame.
    """
    if path.is_dir():
        raise UserError(f"{name}: {path} is a folder, expected a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):  # permissions do not tell all: root may, and /proc may not
            pass
    except OSError as error:
        raise UserError(f"{name}: cannot write {path} ({error.strerror or error})") from None

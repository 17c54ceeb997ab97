"""A PostgreSQL server of one's own for a while: unprivileged, in a temporary folder, for this machine only."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


class NoServer(Exception):
    """Why there can be none."""


def programs() -> Path:
    """The folder of ``initdb`` and ``postgres``."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)  # Debian has them beside the PATH
    for folder in folders:
        if (folder / "postgres").is_file():
            return folder
    raise NoServer("no PostgreSQL server is installed (Debian: apt-get install postgresql)")


def _user() -> str | None:
    """Whom the server runs as: whoever asks, but root, which it refuses."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise NoServer("PostgreSQL does not run as root, and there is no user postgres or nobody")


@contextlib.contextmanager
def server(*settings: str) -> Iterator[str]:
    """The URL of an empty database of a server that runs within the block.

    Raises
    ------
    NoServer
        If there can be none here.
    """
    folder, user = programs(), _user()
    home = Path(tempfile.mkdtemp(prefix="kpm-pg-"))
    try:
        if user:
            os.chown(home, pwd.getpwnam(user).pw_uid, -1)
        how = {"user": user, "cwd": home, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        command = [folder / "initdb", "-D", home / "data", "-U", "kpm", "-A", "trust", "--no-sync", "-E", "UTF8"]
        made = subprocess.run([*command, "--locale=C"], **how)
        if made.returncode:
            raise NoServer(f"initdb: {made.stdout.strip().splitlines()[-1]}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", *settings]
        flags = [word for option in options for word in ("-c", option)]
        with (home / "log").open("w") as log:
            process = subprocess.Popen([folder / "postgres", "-D", home / "data", *flags], **how | {"stdout": log})
        try:
            _wait(process, port, home / "log")
            yield f"postgresql://kpm@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)  # closes connections and ends
            process.wait(30)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _wait(process: subprocess.Popen, port: int, log: Path) -> None:
    import psycopg

    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(host="127.0.0.1", port=port, user="kpm", dbname="postgres", connect_timeout=5).close()
            return
        time.sleep(0.1)
    raise NoServer(f"the server did not start: {log.read_text().strip().splitlines()[-1:]}")

"""A dataset of two files, and a web server on this machine: what the tests of the registry play with."""

from __future__ import annotations

import hashlib
import http.server
from pathlib import Path

from kpm.datasets.catalogue import Entry, File

CONTENTS = {"one.bin": b"first file", "deep/two.bin": bytes(range(256)) * 40}


def pin(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def toy(files: tuple[File, ...] | None = None, base: str = "", archives=(), stand_in="") -> Entry:
    if files is None:
        urls = (lambda path: (f"{base}/{path}",)) if base else (lambda path: ())
        files = tuple(File(path, len(c), (pin(c),), urls(path)) for path, c in CONTENTS.items())
    return Entry("toy", "a toy", "none", "nowhere", "nobody", files, archives, stand_in)


class Server:
    """A web server on this machine that gives out `pages` and keeps what was asked for."""

    def __init__(self):
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(f"{self.command} {self.path}")
                page = outer.pages.get(self.path)
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Length", str(len(page or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(page or b"")

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


def assert_whole(folder: Path) -> None:
    for path, content in CONTENTS.items():
        assert (folder / path).read_bytes() == content


def assert_nothing_in(base: Path) -> None:
    assert not base.exists() or list(base.iterdir()) == []

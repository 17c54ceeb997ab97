"""Download a file through pooch: hash-checked, several addresses, and quick to see that there is no network."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from kpm.errors import UserError

CONNECT, STALL, PATIENCE = 3.0, 30.0, 5.0  # seconds: to connect, without a byte, before a host counts as out of reach
_BAR_FROM = 4 << 20  # bytes: smaller files get no progress bar


class Unreachable(Exception):
    """No address answered with the file; the message says which were tried and what happened."""


class Downloader:
    """Downloads files; remembers which hosts are out of reach, so that each is waited for only once.

    Parameters
    ----------
    progress : bool
        Show a bar for files of some megabytes.
    """

    def __init__(self, progress: bool = True):
        self.progress = progress
        self._trouble: dict[str, str] = {}  # host: what is wrong with it, "" for nothing

    def __call__(self, urls: tuple[str, ...], known_hash: str | None, target: Path, size: int = 0) -> None:
        """Write the file at the first of `urls` that has it to `target`.

        Raises
        ------
        Unreachable
            If no address has it.
        UserError
            If addresses have it but with another hash; nothing is written.
        """
        import pooch
        import requests

        corrupt, tried = [], []
        for url in urls:
            host = urlsplit(url).netloc
            if host not in self._trouble:
                self._trouble[host] = _probe(url)
            if self._trouble[host]:
                tried.append(f"{host}: {self._trouble[host]}")
                continue
            getter = pooch.HTTPDownloader(self._bar(target, size), 1 << 16, timeout=(CONNECT, STALL))
            try:
                with _quiet(pooch.get_logger()):
                    pooch.retrieve(url, known_hash, fname=target.name, path=target.parent, downloader=getter)
                return
            except requests.exceptions.RequestException as error:
                tried.append(f"{url}: {_short(error)}")
            except ValueError as error:  # the hash is wrong; pooch has deleted the file
                corrupt.append(f"{url}: {str(error).split('. ')[0]}")
        if corrupt:
            raise UserError("corrupt download from " + "; ".join(corrupt))
        raise Unreachable("; ".join(tried))

    def _bar(self, target: Path, size: int):
        if not self.progress or size < _BAR_FROM:
            return False
        from tqdm.auto import tqdm

        return tqdm(desc=target.name, total=size, unit="B", unit_scale=True)


def _probe(url: str) -> str:
    """What keeps the host of `url` from answering, or "" if it does.

    The look-up of names and the addresses of a host each have their own time-outs, which add up to half a minute
    behind a firewall that drops packets: a thread is asked, and not waited for.
    """
    answer: list[str] = []
    thread = threading.Thread(target=lambda: answer.append(_ask(url)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answer[0] if answer else f"no answer within {PATIENCE:g} s"


def _ask(url: str) -> str:
    import requests

    try:
        requests.head(url, timeout=CONNECT)
    except requests.exceptions.RequestException as error:
        return _short(error)
    return ""


def _short(error: Exception) -> str:
    """The gist of an error of requests, whose own text is a paragraph."""
    response = getattr(error, "response", None)
    return f"{response.status_code} {response.reason}" if response is not None else type(error).__name__


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """pooch tells of every file at level INFO; for 25 sheets the progress bar does."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)

"""Errors meant for the person at the keyboard: one clear line, no traceback needed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what was asked for; the command line prints its message as one line."""


def pick(kind: str, name: str, options: Iterable[str]) -> str:
    """Return `name` if it is one of `options`, else raise a `UserError` naming the nearest.

    >>> pick("dataset", "sprites", ["sprites", "puppets"])
    'sprites'
    """
    options = sorted(options)
    if name in options:
        return name
    near = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    listed = f"choose one of {', '.join(options)}" if options else "there are none"
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else listed
    raise UserError(f"unknown {kind} {name!r}; {hint}")

"""Commands whose flags have other defaults than the function they call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any


def with_defaults(
    command: Callable[..., Any], defaults: Mapping[str, Any], annotations: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """The same command with other defaults and annotations, told to whoever asks for the signature."""
    signature = inspect.signature(command, eval_str=True)
    given = [
        p.replace(default=defaults.get(p.name, p.default), annotation=(annotations or {}).get(p.name, p.annotation))
        for p in signature.parameters.values()
    ]

    @functools.wraps(command)
    def same(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    same.__signature__ = signature.replace(parameters=given)  # type: ignore[attr-defined]
    return same

"""The command of a training in stages, ``kpm train ... && kpm train ...``, as a reader can run it from the checkout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_AND = " && "


def chained(stages: Sequence[str], name: str) -> str:
    """One command of stages, each into a folder of its own and from the weights of the stage before.

    Stage `k` writes into ``runs/NAME_k``. Its ``--init`` names ``last.safetensors`` there if it did, else
    ``best.safetensors``, which is what is shipped (rounded to bf16). A training of one stage keeps the default folder.

    Parameters
    ----------
    stages : sequence of str
        The lines of `kpm.training.config.command`, first to last, or the parts of a command made here.
    name : str
        Name of the result.
    """
    plain = [_without(stage, "out") for stage in stages]
    if len(plain) == 1:
        return plain[0]
    lines = []
    for number, stage in enumerate(plain, 1):
        if number > 1:
            stage = _from_before(stage, f"runs/{name}_{number - 1}")
        lines.append(f"{stage} --out runs/{name}_{number}")
    return _AND.join(lines)


def parts(command: str) -> list[str]:
    """The stages of a command."""
    return command.split(_AND)


def continued(stages: Sequence[str], steps: int, before: str, before_steps: int | None) -> list[str]:
    """The stages from the first on, where those of the weights that `stages` began with are known from elsewhere.

    Parameters
    ----------
    stages : sequence of str
        The stages on record.
    steps : int
        Steps that went into the weights, with those before `stages`.
    before, before_steps : str, int or None
        A command, and the steps of the weights it made. Its stages are put first if their steps are just those that
        `stages` lack.
    """
    lacking = steps - sum(map(_steps, stages))
    fits = lacking > 0 and before_steps == lacking and bool(flag(stages[0], "init"))
    return [*parts(before), *stages] if fits else list(stages)


def flag(stage: str, name: str) -> str:
    """The value of a flag, empty without it."""
    found = re.search(_pattern(name), stage)
    return found[1] if found else ""


def _steps(stage: str) -> int:
    return int(flag(stage, "steps") or 0)


def _from_before(stage: str, folder: str) -> str:
    which = "last" if Path(flag(stage, "init")).name == "last.safetensors" else "best"
    return re.sub(_pattern("init"), lambda _: f" --init {folder}/{which}.safetensors", stage)


def _without(stage: str, name: str) -> str:
    return re.sub(_pattern(name), "", stage)


def _pattern(name: str) -> str:
    """A flag and its value, which may hold spaces: it ends where the next flag begins."""
    return rf" --{name} (.+?)(?= --|$)"

"""A run's folder: one run of one set of parameters, written by one process at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import zlib
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from kpm import files
from kpm.errors import UserError
from kpm.training import checkpoint
from kpm.training.team import Team

# How far to train is not what a run is: it may be changed on resuming.
_MAY_CHANGE = ("epochs", "steps")


class Described(Protocol):
    """A dataset that can say what it is."""

    def describe(self) -> dict[str, Any]: ...


class Log:
    """Lines of JSON, one per event, appended and flushed at once; one that does not write (`writes`) only reads."""

    def __init__(self, path: Path, writes: bool = True):
        self.path, self.writes = path, writes

    def write(self, **event: Any) -> None:
        if not self.writes:
            return
        with self.path.open("a", encoding="utf-8") as f:
            f.write(json.dumps(event) + "\n")

    def read(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Events, of one kind if asked; a last line cut short by a crash is left out."""
        events = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    events.append(json.loads(line))
        return [e for e in events if kind is None or e["kind"] == kind]

    def truncate(self, step: int) -> None:
        """Forget what happened after `step`: a resumed run writes it again."""
        kept = [e for e in self.read() if e["step"] <= step]
        files.write_text(self.path, "".join(json.dumps(e) + "\n" for e in kept))


def check_kind(kind: type, called: str, *data: Any) -> None:
    """`UserError` if one of the datasets `data` is none of `kind`, ``"images"`` or what else it is called."""
    for d in data:
        if not isinstance(d, kind):
            raise UserError(f"dataset: expected {called}, {d.name!r} has none")


def about(train: Described, validation: Described) -> dict[str, dict[str, Any]]:
    """What a run notes of its data.

    What was asked for ("sprites, auto") may have been answered with a stand-in: what counts is what was used.
    """
    keys = ("name", "source", "split", "sequences")
    parts = {"train": train.describe(), "validation": validation.describe()}
    return {part: {k: d[k] for k in keys} for part, d in parts.items()}


class RunFolder:
    """Checks that a folder fits a config and data, holds it for this process, and knows its files.

    Of several processes that train together one holds the folder; for the others `writes` is false, and they only read.

    Raises
    ------
    UserError
        If the folder holds a run of other parameters or data (named), a run and `resume` is false, one whose checkpoint
        to resume from is gone, or is in use; if its file system has no locks.
    """

    def __init__(self, folder: Path, config: Any, about: dict[str, dict[str, Any]], resume: bool, writes: bool = True):
        self.folder, self.writes = folder, writes
        self.plain_config = dataclasses.asdict(config)
        defaults = {f.name: f.default for f in dataclasses.fields(config) if f.default is not dataclasses.MISSING}
        self._defaults = json.loads(json.dumps(defaults, default=str))
        self.data = about
        self.last, self.best = folder / "last.safetensors", folder / "best.safetensors"
        self.log = Log(folder / "log.jsonl", writes)
        self._resume = resume
        self._lock: Any = None

    def resumed(self, team: Team) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and meta of the last state, empty for a new run; `UserError` unless all of `team` read the same."""
        tensors, meta = checkpoint.read(self.last) if self._resume and self.last.is_file() else ({}, {})
        if not team.agree(zlib.crc32(json.dumps(meta).encode())):
            what = f"step {meta['progress']['step']}" if meta else "no state"
            raise UserError(
                f"run folder {self.folder}: processes see different states of it (here {what}); all nodes must share it"
            )
        return tensors, meta

    def meta(self, model: nn.Module, state: Any) -> dict[str, Any]:
        return {
            "model": type(model).__name__,
            "config": dataclasses.asdict(model.config),
            "train": self.plain_config,
            "data": self.data,
            "progress": dataclasses.asdict(state),
        }

    def begin(self, step: int) -> None:
        """Everything is in place: write what this run is, and forget events after `step`."""
        if not self.writes:
            return
        files.sweep(self.folder)  # nobody else writes here, so what is half written was left by a killed process
        files.write_json(self.folder / "config.json", {**self.plain_config, "data": self.data})
        self.log.truncate(step)

    def __enter__(self) -> RunFolder:
        if not self.writes:
            return self
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise UserError(f"run folder {self.folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            if isinstance(error, BlockingIOError):
                raise UserError(f"run folder {self.folder.name!r} is in use by another process") from None
            reason = f"its file system has no locks ({error.strerror}); choose a folder on another"
            raise UserError(f"run folder {self.folder}: {reason}") from error
        try:
            self._check()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _check(self) -> None:
        name, before = self.folder.name, self._before()
        if before is None:
            return
        new = json.loads(json.dumps({**self.plain_config, "data": self.data}))  # a tuple is a list in the file
        # A field that came after the run was written had its default then.
        before = {k: self._defaults.get(k, v) for k, v in new.items()} | before
        changed = [k for k in new if k not in _MAY_CHANGE and before[k] != new[k]]
        if changed:
            what = ", ".join(f"{k} {before[k]!r} -> {new[k]!r}" for k in changed)
            raise UserError(f"run folder {name!r} holds a run of other parameters ({what})")
        if not self._resume:
            raise UserError(f"run folder {name!r} holds this run already; use --resume to go on")
        if self.best.is_file() and not self.last.is_file():
            raise UserError(
                f"run folder {name!r}: last.safetensors is gone, and starting again would lose the best weights"
            )

    def _before(self) -> dict[str, Any] | None:
        """What the run in this folder is: by its note or, where that is gone, its weights; None without these too."""
        path = self.folder / "config.json"
        if path.is_file():
            try:
                before = json.loads(path.read_text(encoding="utf-8"))
                if not isinstance(before, dict):
                    raise ValueError("not an object")
            except ValueError as error:
                raise UserError(f"run folder {self.folder.name!r}: config.json is damaged ({error})") from error
            return before
        for path in (self.last, self.best):
            if path.is_file():
                _, meta = checkpoint.read(path)
                return {**meta.get("train", {}), "data": meta.get("data", self.data)}
        return None

    def __exit__(self, *exc: object) -> None:
        if not self.writes:
            return
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._lock.close()

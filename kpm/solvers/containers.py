"""Sequences as people hold them (one array, a batch, or a list of any lengths; numpy or torch), and back again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kpm.solvers import checks


@dataclass(frozen=True)
class Sequences:
    """Sequences in one float64 tensor, and the form they came in.

    Attributes
    ----------
    frames : Tensor
        ``(n, time, features)``, padded with zeros at the end.
    lengths : Tensor
        int64 ``(n,)``.
    form : {"one", "batch", "list"}
    numpy : bool
    """

    frames: Tensor
    lengths: Tensor
    form: Literal["one", "batch", "list"]
    numpy: bool

    @property
    def features(self) -> int:
        return self.frames.shape[-1]

    def states(self, delays: int) -> tuple[Tensor, Tensor]:
        """Windows of `delays` frames, oldest first, ``(n, time - delays + 1, delays * features)``, and their mask."""
        windows = self.frames.unfold(1, delays, 1).transpose(-1, -2).flatten(-2)
        start = torch.arange(windows.shape[1], device=windows.device)
        return windows, start + delays <= self.lengths.unsqueeze(-1)

    def give(self, x: Tensor, lengths: Tensor | None = None) -> Any:
        """`x` ``(n, time, ...)`` in the form of these sequences, each cut to its length (those of a list only)."""
        out = as_numpy if self.numpy else (lambda part: part)
        if self.form == "one":
            return out(x[0])
        if self.form == "batch":
            return out(x)
        stops = [x.shape[1]] * len(x) if lengths is None else lengths.tolist()
        return [out(part[:stop]) for part, stop in zip(x, stops, strict=True)]


def as_numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()


def read(X: Any, least: int, features: int | None = None) -> Sequences:
    """Read ``(time, features)``, ``(batch, time, features)`` or a list of ``(time, features)``.

    Parameters
    ----------
    least : int
        The fewest frames a sequence may have.
    features : int, optional
        How many features there must be.

    Raises
    ------
    ValueError
        For a shape that does not fit, too few frames, or numbers that are complex or not finite.
    """
    if isinstance(X, list | tuple) and X and all(_is_array(x, 2) for x in X):
        return _read_list(X, least, features)
    x = _tensor(X, "X")
    if x.ndim not in (2, 3):
        raise ValueError(
            "X: expected (time, features), (batch, time, features) or a list of (time, features), "
            f"got shape {tuple(x.shape)}. Reshape your data"
        )
    x = _check(x, "X", least, features)
    form = "one" if x.ndim == 2 else "batch"
    frames = x if x.ndim == 3 else x.unsqueeze(0)
    lengths = torch.full(frames.shape[:1], frames.shape[1], device=x.device)
    return Sequences(frames, lengths, form, not isinstance(X, Tensor))


def each(X: Any, what: Callable[[Tensor, int], Tensor]) -> Any:
    """Apply `what(sequence, number)` to an array or to each member of a list, as tensors; answers in kind."""
    if isinstance(X, list):
        return [each(x, lambda x, _, i=i: what(x, i)) for i, x in enumerate(X)]
    result = what(torch.as_tensor(X), 0)
    return result if isinstance(X, Tensor) else as_numpy(result)


def _read_list(X: list, least: int, features: int | None) -> Sequences:
    parts = []
    for i, x in enumerate(X):
        parts.append(_check(_tensor(x, f"X[{i}]"), f"X[{i}]", least, parts[0].shape[-1] if parts else features))
    lengths = torch.tensor([len(part) for part in parts], device=parts[0].device)
    return Sequences(torch.nn.utils.rnn.pad_sequence(parts, True), lengths, "list", not isinstance(X[0], Tensor))


def _is_array(x: Any, ndim: int) -> bool:
    return getattr(x, "ndim", None) == ndim


def _tensor(x: Any, name: str) -> Tensor:
    if isinstance(x, Tensor):
        return x
    if hasattr(x, "toarray"):
        raise ValueError(f"{name}: sparse input is not supported; give {name}.toarray()")
    array = np.asarray(x)
    if array.dtype.kind == "c":
        raise ValueError(f"{name}: Complex data not supported, got {array.dtype} of shape {array.shape}")
    return torch.from_numpy(np.array(array, dtype=np.float64))


def _check(x: Tensor, name: str, least: int, features: int | None) -> Tensor:
    """Checked sequences in float64; in the words that scikit-learn's own checks look for."""
    shape = tuple(x.shape)
    if shape[-1] == 0:
        raise ValueError(f"{name}: 0 feature(s) (shape={shape}) while a minimum of 1 is required.")
    if shape[-2] < least:
        raise ValueError(f"{name}: n_samples = {shape[-2]} frames, but at least {least} are needed (shape {shape})")
    if features is not None and shape[-1] != features:
        raise ValueError(f"{name} has {shape[-1]} features, but DMD is expecting {features} features as input {shape}")
    return checks.sequences(x, name=name, least=least)[0]

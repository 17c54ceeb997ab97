"""What the solvers ask of their input; a `ValueError` names the argument, its shape and where it is wrong."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor


def sequences(z: Tensor, mask: Any = None, name: str = "z", least: int = 2) -> tuple[Tensor, Tensor]:
    """Sequences in float64 and their mask.

    Parameters
    ----------
    z : Tensor
        ``(*batch, time, dim)``, real.
    mask : Tensor or array, optional
        bool ``(*batch, time)``, true where there is a frame; all true by default. What stands in a frame that is
        masked out, NaN included, is replaced by zeros.
    least : int
        The fewest frames allowed.

    Raises
    ------
    ValueError
        For a wrong type or shape, an empty axis, too few frames or a number that is not finite.
    """
    shape = tuple(tensor(z, name).shape)
    if z.ndim < 2 or z.is_complex():
        raise ValueError(f"{name}: expected real (*batch, time, dim), got {z.dtype} of shape {shape}")
    if 0 in z.shape:
        raise ValueError(f"{name}: nothing to work on, shape {shape}")
    if z.shape[-2] < least:
        raise ValueError(f"{name}: at least {least} frames are needed, got shape {shape}")
    z = z.double()
    if mask is None:
        mask = torch.ones(z.shape[:-1], dtype=torch.bool, device=z.device)
    else:
        mask = bools(mask, "mask", shape[:-1]).to(z.device)
        z = torch.where(mask.unsqueeze(-1), z, 0)
    finite(z, name)
    return z, mask


def tensor(x: Any, name: str) -> Tensor:
    """`x` itself; raises for what is no tensor."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: expected a torch tensor, got {type(x).__name__}")
    return x


def bools(given: Any, name: str, *shapes: tuple[int, ...]) -> Tensor:
    """Bool tensor of one of these shapes, from a tensor, an array or nested lists of bool; raises for anything else.

    Numbers 0 and 1 are refused: they may as well be indices.
    """
    wanted = " or ".join(str(tuple(shape)) for shape in shapes)
    try:
        mask = given if isinstance(given, Tensor) else torch.from_numpy(np.array(given))
    except (TypeError, ValueError):  # what numpy makes no array of, and arrays of what torch does not know
        raise ValueError(f"{name}: expected bool of shape {wanted}, got {type(given).__name__}") from None
    if mask.dtype != torch.bool or tuple(mask.shape) not in [tuple(shape) for shape in shapes]:
        raise ValueError(f"{name}: expected bool of shape {wanted}, got {mask.dtype} of shape {tuple(mask.shape)}")
    return mask


def same_frames(x: Tensor, like: Tensor, name: str, other: str) -> None:
    """Raise if `x` ``(*batch, time, any)`` has not the batch and time of `like`; what else may be wrong is not seen."""
    if isinstance(x, Tensor) and x.ndim > 1 and x.shape[:-1] != like.shape[:-1]:
        raise ValueError(
            f"{name}: expected the batch and time of {other}, {tuple(like.shape[:-1])}, got shape {tuple(x.shape)}"
        )


class NotFinite(ValueError):
    """A number is NaN or infinite; the message names the argument, the index and the shape."""


def finite(x: Tensor, name: str, why: str = "") -> None:
    """Raise if any number of `x` is NaN or infinite, with the index of the first, and `why` if that is known."""
    if torch.isfinite(x.detach().sum()):  # one NaN or infinity spoils the sum, and this is the cheaper look
        return
    bad = ~torch.isfinite(x.detach())
    if bad.any():
        value = "NaN" if x[bad][0].isnan() else "inf"
        raise NotFinite(f"{name}{where(bad)} is not finite but {value}{why} (shape {tuple(x.shape)})")


def square(matrix: Tensor, name: str = "operator") -> Tensor:
    """Square real matrices ``(*batch, dim, dim)`` in float64; raises for another shape or a number not finite."""
    shape = tuple(tensor(matrix, name).shape)
    if matrix.ndim < 2 or shape[-1] != shape[-2] or matrix.is_complex():
        raise ValueError(f"{name}: expected real (*batch, dim, dim), got {matrix.dtype} of shape {shape}")
    if 0 in shape:
        raise ValueError(f"{name}: nothing to work on, shape {shape}")
    matrix = matrix.double()
    finite(matrix, name)
    return matrix


def eigenvalues(values: Tensor, name: str = "values") -> Tensor:
    """Real or complex numbers of any shape; raises for what is no tensor, or for a number that is not finite."""
    finite(tensor(values, name), name)
    return values


def indices(index: Tensor, size: int, name: str) -> Tensor:
    """Whole numbers from ``-size`` to ``size - 1`` as int64, or bool ``(size,)``: what can index an axis of `size`."""
    index = torch.as_tensor(index)
    shape = tuple(index.shape)
    if index.dtype == torch.bool:
        if shape != (size,):
            raise ValueError(f"{name}: expected bool of shape ({size},), got shape {shape}")
        return index
    if index.numel() and (index.is_floating_point() or index.is_complex()):
        raise ValueError(f"{name}: expected whole numbers or bool, got {index.dtype} of shape {shape}")
    index = index.long()
    bad = (index < -size) | (index >= size)
    if bad.any():
        raise ValueError(f"{name}{where(bad)}: {int(index[bad][0])} is not one of {size} (shape {shape})")
    return index


def count(value: Any, name: str, least: int, most: int | None = None) -> int:
    """A whole number within bounds, as `int`: Python's, NumPy's or a tensor without axes, but no bool."""
    whole = _whole(value)
    if whole is None or whole < least or (most is not None and whole > most):
        bounds = f">= {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: expected a whole number {bounds}, got {value!r}")
    return whole


def nonnegative(value: Any, name: str) -> float:
    """A finite number that is not negative, as `float`: Python's, NumPy's or a tensor without axes, but no bool."""
    number = _number(value)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name}: expected a finite number >= 0, got {value!r}")
    return number


def _whole(value: Any) -> int | None:
    """`None` for what is no whole number."""
    if isinstance(value, bool) or (isinstance(value, Tensor) and (value.ndim > 0 or value.dtype == torch.bool)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _number(value: Any) -> float:
    """NaN for what is no real number."""
    if isinstance(value, Tensor) and value.ndim == 0 and not value.is_complex() and value.dtype != torch.bool:
        return float(value)
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan


def where(bad: Tensor) -> str:
    """Index of the first true entry, written ``[i, j]``; nothing for a scalar."""
    index = bad.nonzero()[0].tolist()
    return str(index) if index else ""

"""What the solvers ask of their input; a `ValueError` names the argument, its shape and where it is wrong."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sequences(z: Tensor, mask: Tensor | None = None, name: str = "z", least: int = 2) -> tuple[Tensor, Tensor]:
    """Sequences in float64 and their mask.

    Parameters
    ----------
    z : Tensor
        ``(*batch, time, dim)``, real.
    mask : Tensor, optional
        bool ``(*batch, time)``, true where there is a frame; all true by default. What stands in a frame that is
        masked out, NaN included, is replaced by zeros.
    least : int
        The fewest frames allowed.

    Raises
    ------
    ValueError
        For a wrong type or shape, an empty axis, too few frames or a number that is not finite.
    """
    if not isinstance(z, Tensor):
        raise ValueError(f"{name}: expected a torch tensor, got {type(z).__name__}")
    shape = tuple(z.shape)
    if z.ndim < 2 or z.is_complex():
        raise ValueError(f"{name}: expected real (*batch, time, dim), got {z.dtype} of shape {shape}")
    if 0 in z.shape:
        raise ValueError(f"{name}: nothing to work on, shape {shape}")
    if z.shape[-2] < least:
        raise ValueError(f"{name}: at least {least} frames are needed, got shape {shape}")
    z = z.double()
    if mask is None:
        mask = torch.ones(z.shape[:-1], dtype=torch.bool, device=z.device)
    elif mask.shape != z.shape[:-1] or mask.dtype != torch.bool:
        raise ValueError(f"mask: expected bool of shape {shape[:-1]}, got {mask.dtype} of shape {tuple(mask.shape)}")
    else:
        z = torch.where(mask.unsqueeze(-1), z, 0)
    finite(z, name)
    return z, mask


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
    if not isinstance(matrix, Tensor):
        raise ValueError(f"{name}: expected a torch tensor, got {type(matrix).__name__}")
    shape = tuple(matrix.shape)
    if matrix.ndim < 2 or shape[-1] != shape[-2] or matrix.is_complex():
        raise ValueError(f"{name}: expected real (*batch, dim, dim), got {matrix.dtype} of shape {shape}")
    if 0 in shape:
        raise ValueError(f"{name}: nothing to work on, shape {shape}")
    matrix = matrix.double()
    finite(matrix, name)
    return matrix


def eigenvalues(values: Tensor, name: str = "values") -> Tensor:
    """Real or complex numbers of any shape; raises for what is no tensor, or for a number that is not finite."""
    if not isinstance(values, Tensor):
        raise ValueError(f"{name}: expected a torch tensor, got {type(values).__name__}")
    finite(values, name)
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


def count(value: int, name: str, least: int, most: int) -> int:
    """A whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name}: expected a whole number from {least} to {most}, got {value!r}")
    return value


def nonnegative(value: float, name: str) -> float:
    """A finite number that is not negative."""
    if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a finite number >= 0, got {value!r}")
    return float(value)


def where(bad: Tensor) -> str:
    """Index of the first true entry, written ``[i, j]``; nothing for a scalar."""
    index = bad.nonzero()[0].tolist()
    return str(index) if index else ""

"""Spectra of one operator per sequence, for any sequences: through the companion form where there is one.

Where the first frames of a sequence are linearly dependent, or there are more steps than dimensions, the spectrum comes
from ``X1 pinv(X0)`` (or the operator itself, whichever is smaller) and the static part from the operator's projector.
How well the frames determine an operator at all is the `condition` of `kpm.solvers.per_sequence`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from kpm.solvers import checks, companion, compiled, filters
from kpm.solvers.operators import per_sequence
from kpm.solvers.projectors import projector
from kpm.solvers.spectra import Split, by_distance_to_one, nearest_to_one, split


def sequence_eigenvalues(z: Tensor) -> Tensor:
    """Eigenvalues of the minimum-norm operator of each sequence, without the zeros every such operator has.

    Parameters
    ----------
    z : Tensor
        ``(*batch, time, dim)``, at least 2 frames.

    Returns
    -------
    Tensor
        complex128 ``(*batch, min(time - 1, dim))``, nearest to 1 first; differentiable once, where they are
        simple. An operator of lower rank has further zeros, at the end.
    """
    z, _ = checks.sequences(z)
    device, z = z.device, z.cpu()
    c, dependent = _coefficients(z)
    values = z.new_zeros(*z.shape[:-2], min(z.shape[-2] - 1, z.shape[-1]), dtype=torch.complex128)
    if not dependent.all():
        values[~dependent] = companion.roots(c[~dependent])
    if dependent.any():
        values[dependent] = _eigenvalues(z[dependent])
    return values.gather(-1, by_distance_to_one(values)).to(device)


def static_part(z: Tensor, size: int = 1, pairs: bool = False, *, name: str = "size") -> Split:
    """Static and dynamic parts of each sequence under its own minimum-norm operator ([SSM-SKD] sec. 4.1.3).

    Parameters
    ----------
    z : Tensor
        ``(*batch, time, dim)``, at least 2 frames.
    size : int
        How many eigenvalues nearest to 1 make the static part; at most ``min(time - 1, dim)``.
    pairs : bool
        Keep conjugate pairs together; if not, the real part of what a single one gives counts, as published.
    name : str
        What errors call `size`.

    Returns
    -------
    Split
        With the ``min(time - 1, dim)`` eigenvalues of `sequence_eigenvalues`. With ``size=1`` and independent frames
        the static part is ``value^t p``: one vector per sequence. Differentiable once.

    Raises
    ------
    ValueError
        For input the solvers cannot use, and where the static eigenvalue coincides with one outside the set.
    """
    one = size == 1 and not isinstance(size, bool)
    parts = _plain(z, pairs) if one and isinstance(z, Tensor) else None
    if parts is None:  # something is to be said or done about these
        z, _ = checks.sequences(z)
        size = checks.count(size, name, 1, min(z.shape[-2] - 1, z.shape[-1]))
        parts = _static_part(z.cpu(), size, pairs, name)
    if z.device.type == "cpu":
        return parts
    return Split(*(getattr(parts, field.name).to(z.device) for field in fields(Split)))


def _plain(z: Tensor, pairs: bool) -> Split | None:
    """Of sequences without a gradient or any trouble, in machine code, on the CPU; nothing if these are others.

    Their numbers need no look before: one that is not finite leaves its sequence without roots.
    """
    if z.requires_grad or z.is_complex() or z.ndim < 2 or z.numel() == 0 or not 2 <= z.shape[-2] <= z.shape[-1] + 1:
        return None
    z = z.cpu().double()
    *batch, time, dim = z.shape
    *parts, fault = compiled.static_parts(z.reshape(-1, time, dim).numpy(), pairs)
    if fault.any():
        return None
    static, dynamic, values, condition = map(torch.from_numpy, parts)
    return Split(static.view(z.shape), dynamic.view(z.shape), values.view(*batch, -1), condition.view(batch))


def _static_part(z: Tensor, size: int, pairs: bool, name: str) -> Split:
    """On the CPU, where many small problems are faster than on a GPU, transfers included."""
    c, dependent = _coefficients(z)
    if not dependent.any():
        return _companion_split(z, c, size, pairs, name)
    if dependent.all():
        return _operator_split(z, size, pairs, name)
    regular = _companion_split(z[~dependent], c[~dependent], size, pairs, name)
    places = dependent.nonzero().tolist()
    special = [_named(index, _operator_split, z[tuple(index)], size, pairs, name) for index in places]

    def both(field: str) -> Tensor:
        few = torch.stack([getattr(parts, field) for parts in special])
        many = getattr(regular, field)
        whole = many.new_zeros(*dependent.shape, *many.shape[1:])
        return whole.index_put((~dependent,), many).index_put((dependent,), few)

    return Split(both("static"), both("dynamic"), both("eigenvalues"), both("condition"))


def _named(index: list[int], function: Callable[..., Split], *arguments: Any) -> Split:
    """Call `function`; an error says which sequence it was about."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise ValueError(f"z{index}: {error}") from error


def _coefficients(z: Tensor) -> tuple[Tensor, Tensor]:
    """Companion coefficients, and which sequences have none."""
    if z.shape[-2] - 1 > z.shape[-1]:
        return z[..., 0], torch.ones(z.shape[:-2], dtype=torch.bool, device=z.device)
    return companion.solve(z)


def _companion_split(z: Tensor, c: Tensor, size: int, pairs: bool, name: str) -> Split:
    """Static part ``share @ X1``: one mode in closed form, several by ``X1 P = P_C X1`` with the projector of ``C``."""
    values = companion.roots(c)
    values = values.gather(-1, by_distance_to_one(values))
    if size == 1:
        value = values[..., 0]
        weights = companion.weights(c, value)
        powers = companion.vandermonde(value.unsqueeze(-1), z.shape[-2])
        condition = _length(powers[..., 1:, 0]) * _length(weights)
        if pairs:
            weights = torch.where((value.imag != 0).unsqueeze(-1), 2 * weights, weights)
        share = powers.real * weights.real.unsqueeze(-2) - powers.imag * weights.imag.unsqueeze(-2)
    else:
        matrix = companion.matrix(c)
        projection = projector(matrix, values, nearest_to_one(values, size, pairs, name=name))
        condition = torch.linalg.matrix_norm(projection)
        # One step back from z[1], by the inverse of C on the set, gives the part of z[0].
        eye = torch.eye(c.shape[-1], dtype=projection.dtype, device=c.device)
        back, info = torch.linalg.inv_ex(matrix.to(eye.dtype) @ projection + eye - projection)
        if (info != 0).any():
            raise ValueError(
                f"{name}: {size} static modes, but an eigenvalue of z{checks.where(info != 0)} among them is 0"
            )
        share = torch.cat([projection[..., :1, :] @ back, projection], -2).real
    static = share @ z[..., 1:, :]
    return Split(static, z - static, values, condition.detach())


def _length(x: Tensor) -> Tensor:
    """Norm of complex vectors, by way of real ones, which is several times as fast."""
    return torch.view_as_real(x.detach()).flatten(-2).norm(dim=-1)


def _operator_split(z: Tensor, size: int, pairs: bool, name: str) -> Split:
    parts = split(z, per_sequence(z), size, pairs, name=name)
    values = _eigenvalues(z)
    values = values.gather(-1, by_distance_to_one(values))
    return Split(parts.static, parts.dynamic, values, parts.condition)


def _eigenvalues(z: Tensor) -> Tensor:
    """Of the smaller of ``pinv(X0) X1`` and ``X1 pinv(X0)``, with as many exact zeros as the rank falls short."""
    past, future = z[..., :-1, :], z[..., 1:, :]
    parts = filters.svd(past)
    keep = filters.above(parts)
    inverse = filters.inverse(past, parts, keep)
    small = future @ inverse if past.shape[-2] <= past.shape[-1] else inverse @ future
    values = torch.linalg.eigvals(small.cpu()).to(z.device)
    place = values.detach().abs().argsort(-1, descending=True).argsort(-1)
    return torch.where(place < keep.sum(-1, keepdim=True), values, 0)

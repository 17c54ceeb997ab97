"""Koopman part of the autoencoders: one-step prediction, the spectral loss, the static/dynamic split and swaps.

The algebra is that of `kpm.solvers`, in float64; this file says how SKD and SSM-SKD use it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kpm import solvers
from kpm.errors import pick
from kpm.solvers import Split, checks

SCOPES = ("batch", "sequence")


def predict(z: Tensor, scope: str, whole: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One-step predictions and eigenvalues, both differentiable.

    Parameters
    ----------
    z : Tensor
        Latents ``(n, t, K)``.
    scope : {"batch", "sequence"}
        One operator for the batch (SKD) or one per sequence (SSM-SKD).
    whole : Tensor, optional
        Latents of the whole batch where `z` is a share of it: one operator for the batch is fitted to these.

    Returns
    -------
    predicted : Tensor
        ``(n, t, K)`` in the precision of `z`; the first frame is that of `z`. With one operator per sequence,
        ``t - 1 <= K`` and frames that are independent (which trained latents are) the operator reproduces its own
        sequence, so this is `z` itself ([SSM-SKD] sec. 6.1.4). Dependent frames are predicted by least squares.
    eigenvalues : Tensor
        complex128, ``(n, min(t-1, K))`` or ``(K,)``.
    """
    _check(z, scope)
    if scope == "sequence" and z.shape[1] - 1 <= z.shape[2]:
        values = solvers.sequence_eigenvalues(z)
        return _reproduced(z, values), values
    operator = solvers.per_sequence(z) if scope == "sequence" else solvers.shared(z if whole is None else whole)
    return _applied(z, operator), solvers.eigenvalues(operator)


def _reproduced(z: Tensor, values: Tensor) -> Tensor:
    """Sequences ``(n, t, K)`` with ``t - 1 <= K`` as their own operators predict them; `values` are its eigenvalues.

    Dependent frames make an operator of lower rank, and so an eigenvalue that is zero: only sequences with one need a
    second look. Where the frames are independent nonetheless, that look finds the sequence itself.
    """
    lower = (values.detach() == 0).any(-1)
    if not lower.any():
        return z
    few = z[lower]
    return z.index_put((lower,), _applied(few, solvers.per_sequence(few)))


def _applied(z: Tensor, operator: solvers.Operator) -> Tensor:
    """The first frame of ``(n, t, K)``, and each other frame from the one before it."""
    return torch.cat([z[:, :1], (z[:, :-1].double() @ operator.matrix).to(z.dtype)], 1)


def spectral_loss(values: Tensor, static_size: int, threshold: float, dim: int) -> tuple[Tensor, Tensor]:
    """Static and dynamic parts of [SSM-SKD] eq. 4.

    Parameters
    ----------
    values : Tensor
        Eigenvalues ``(..., m)``; the last axis is one operator's spectrum, possibly without its zeros. Zeros left out
        are no candidates for the static set, even where all others are farther from 1 than they are.
    static_size : int
        s: the `static_size` values nearest to 1 are drawn to 1, whether or not that cuts a conjugate pair.
    threshold : float
        alpha: real parts of the others above it are penalised.
    dim : int
        K; the ``K - m`` zero eigenvalues that are left out count in the mean of the dynamic part.
    """
    distance = (values - 1).abs()
    nearest = distance.detach().argsort(-1)
    static = distance.gather(-1, nearest[..., :static_size]).square().mean()
    real = values.real.gather(-1, nearest[..., static_size:])
    excess = torch.where(real > threshold, real, torch.zeros_like(real))
    return static, excess.sum(-1).mean() / (dim - static_size)


def split(z: Tensor, scope: str, static_size: int = 1, pair: bool = False) -> Split:
    """Static and dynamic parts of latents ([SSM-SKD] sec. 4.1.3), float64, ``static + dynamic == z``.

    Parameters
    ----------
    z : Tensor
        Latents ``(n, t, K)``.
    scope : {"batch", "sequence"}
    static_size : int
        How many (non-zero) eigenvalues nearest 1 make the static part.
    pair : bool
        Keep conjugate pairs together. The published procedure does not: it takes a single one of the two and the real
        part of what it decodes, which is the default.
    """
    _check(z, scope)
    if scope == "sequence":
        return solvers.static_part(z, static_size, pair, name="static_size")
    return solvers.split(z, solvers.shared(z), static_size, pair, name="static_size")


def take(parts: Split, index: Tensor) -> Split:
    """The split of the chosen sequences.

    Parameters
    ----------
    parts : Split
        Of sequences ``(n, t, K)``.
    index : Tensor
        Whole numbers ``(b,)`` from ``-n`` to ``n - 1``, or bool ``(n,)``.

    Returns
    -------
    Split
        Of sequences ``(b, t, K)``.

    Raises
    ------
    ValueError
        For an index out of range, or of another type or shape.
    """
    index = checks.indices(index, len(parts.static), "index")
    values, condition = parts.eigenvalues, parts.condition
    if values.ndim == 2:  # one spectrum per sequence
        values, condition = values[index], condition[index]
    return Split(parts.static[index], parts.dynamic[index], values, condition)


def swap(a: Split, b: Split, what: str = "static", channels: Tensor | None = None) -> Tensor:
    """Latents of `a` with the static (or dynamic) part of `b`.

    Parameters
    ----------
    a, b : Split
        Same shapes.
    what : {"static", "dynamic"}
        Which part comes from `b`.
    channels : Tensor, optional
        Only these of the K channels of that part come from `b`, whole numbers or bool ``(K,)``; all by default.

    Returns
    -------
    Tensor
        Latents ``(n, t, K)``, float64.

    Raises
    ------
    ValueError
        For parts of different shapes, another `what`, or a channel that there is not.
    """
    if a.static.shape != b.static.shape:
        raise ValueError(f"a and b must have the same shape, got {tuple(a.static.shape)} and {tuple(b.static.shape)}")
    if what not in ("static", "dynamic"):
        raise ValueError(f"what: expected 'static' or 'dynamic', got {what!r}")
    mine, theirs = (a.static, b.static) if what == "static" else (a.dynamic, b.dynamic)
    rest = a.dynamic if what == "static" else a.static
    if channels is None:
        return theirs + rest
    channels = checks.indices(channels, mine.shape[-1], "channels")
    part = mine.clone()
    part[..., channels] = theirs[..., channels]
    return part + rest


def _check(z: Tensor, scope: str) -> None:
    pick("scope", scope, SCOPES)
    if z.ndim != 3:
        raise ValueError(f"z: expected (n, t, K), got shape {tuple(z.shape)}")

"""Koopman part of the autoencoders: operators of the latents, their spectra, the static/dynamic split and swaps.

Latent algebra is done in float64 and given back in the latents' own precision.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from kpm.solvers import companion


@dataclasses.dataclass(frozen=True)
class Split:
    """Latents taken apart, ``static + dynamic == latents``.

    Attributes
    ----------
    static, dynamic : Tensor
        ``(n, t, K)``, real.
    eigenvalues : Tensor
        complex128, nearest to 1 first: ``(n, t-1)`` for one operator per sequence (its ``K - t + 1`` zeros left out),
        ``(K,)`` for a shared one.
    """

    static: Tensor
    dynamic: Tensor
    eigenvalues: Tensor

    @property
    def latents(self) -> Tensor:
        return self.static + self.dynamic

    def take(self, index: Tensor) -> Split:
        """The split of the chosen sequences."""
        values = self.eigenvalues[index] if self.eigenvalues.ndim == 2 else self.eigenvalues
        return Split(self.static[index], self.dynamic[index], values)


def shared_operator(z: Tensor) -> Tensor:
    """Least-squares operator of all pairs ``z[:, t] -> z[:, t+1]``, float64 ``(K, K)``; or of minimum norm."""
    _check(z)
    z = z.double()
    past, future = z[:, :-1].flatten(0, 1), z[:, 1:].flatten(0, 1)
    return torch.linalg.pinv(past) @ future


def predict(z: Tensor, scope: str) -> tuple[Tensor, Tensor]:
    """One-step predictions and eigenvalues, both differentiable.

    Parameters
    ----------
    z : Tensor
        Latents ``(n, t, K)``.
    scope : {"batch", "sequence"}

    Returns
    -------
    predicted : Tensor
        ``(n, t, K)`` in the precision of `z`; the first frame is that of `z`. With one operator per sequence and
        ``t - 1 <= K`` the operator reproduces its own sequence, so this is `z` itself ([SSM-SKD] sec. 6.1.4).
    eigenvalues : Tensor
        complex128, ``(n, t-1)`` or ``(K,)``.
    """
    _check(z)
    if scope == "sequence":
        return z, companion.roots(companion.coefficients(z))
    operator = shared_operator(z)
    predicted = torch.cat([z[:, :1], (z[:, :-1].double() @ operator).to(z.dtype)], 1)
    return predicted, eigenvalues(operator)


def eigenvalues(operator: Tensor) -> Tensor:
    """Eigenvalues of a real operator; computed on the CPU, where small matrices are much faster than on a GPU."""
    return torch.linalg.eigvals(operator.cpu()).to(operator.device)


def spectral_loss(values: Tensor, static_size: int, threshold: float, dim: int) -> tuple[Tensor, Tensor]:
    """Static and dynamic parts of [SSM-SKD] eq. 4.

    Parameters
    ----------
    values : Tensor
        Eigenvalues ``(..., m)``; the last axis is one operator's spectrum, possibly without its zeros.
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
    """Static and dynamic parts of latents ([SSM-SKD] sec. 4.1.3).

    Parameters
    ----------
    z : Tensor
        Latents ``(n, t, K)``.
    scope : {"batch", "sequence"}
    static_size : int
        How many eigenvalues nearest 1 make the static part. Per-sequence operators have exactly one static mode; it
        is sought among their non-zero eigenvalues.
    pair : bool
        If the static eigenvalue of a sequence is complex, take its conjugate too. The published procedure takes the
        single complex mode and the real part of what it decodes, which is the default.
    """
    _check(z)
    if scope == "batch":
        return _split_shared(z, static_size)
    if static_size != 1:
        raise ValueError(f"static_size: one operator per sequence has one static mode, got {static_size}")
    c = companion.coefficients(z)
    values = companion.roots(c)
    values = values.gather(-1, (values - 1).abs().argsort(-1))
    value = values[..., 0]
    spatial = companion.mode(z, c, value)
    powers = companion.vandermonde(value.unsqueeze(-1), z.shape[-2]).squeeze(-1)
    static = (powers.unsqueeze(-1) * spatial.unsqueeze(-2)).real
    if pair:
        complex_pair = value.imag.abs() > 1e-9
        static = torch.where(complex_pair[:, None, None], 2 * static, static)
    return Split(static.to(z.dtype), (z.double() - static).to(z.dtype), values)


def _split_shared(z: Tensor, static_size: int) -> Split:
    values, right = torch.linalg.eig(shared_operator(z).cpu())
    order = (values - 1).abs().argsort()
    left = torch.linalg.inv(right)
    chosen = order[:static_size]
    projector = (right[:, chosen] @ left[chosen]).real.to(z.device)
    static = z.double() @ projector
    return Split(static.to(z.dtype), (z.double() - static).to(z.dtype), values[order].to(z.device))


def swap(a: Split, b: Split, what: str = "static", channels: Tensor | None = None) -> Tensor:
    """Latents of `a` with the static (or dynamic) part of `b`.

    Parameters
    ----------
    a, b : Split
        Same shapes.
    what : {"static", "dynamic"}
        Which part comes from `b`.
    channels : Tensor, optional
        Only these of the K channels of that part come from `b`; all by default.
    """
    if a.static.shape != b.static.shape:
        raise ValueError(f"a and b must have the same shape, got {tuple(a.static.shape)} and {tuple(b.static.shape)}")
    if what not in ("static", "dynamic"):
        raise ValueError(f"what: expected 'static' or 'dynamic', got {what!r}")
    mine, theirs = (a.static, b.static) if what == "static" else (a.dynamic, b.dynamic)
    rest = a.dynamic if what == "static" else a.static
    if channels is None:
        return theirs + rest
    part = mine.clone()
    part[..., channels] = theirs[..., channels]
    return part + rest


def _check(z: Tensor) -> None:
    if z.ndim != 3:
        raise ValueError(f"z: expected (n, t, K), got shape {tuple(z.shape)}")
    if z.shape[1] < 2:
        raise ValueError(f"z: an operator needs at least 2 frames, got shape {tuple(z.shape)}")
    if not torch.isfinite(z).all():
        index = (~torch.isfinite(z)).nonzero()[0].tolist()
        raise ValueError(f"z{index} is not finite (shape {tuple(z.shape)})")

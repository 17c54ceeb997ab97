"""The exponential of a matrix, for training: its gradient costs twice the forward pass.

`torch.matrix_exp` finds the gradient from the exponential of a matrix of twice the size, eight times the work of the
forward pass. Here both are a few products of matrices of the size itself, which autograd goes through backwards.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Taylor's polynomial of degree 12 is exact to rounding up to these 1-norms (Bader, Blanes, Casas 2019, table 1).
_RADIUS = {torch.float32: 1.46, torch.float64: 0.299}
_FACTORS = [1 / math.factorial(i) for i in range(13)]


def expm(x: Tensor) -> Tensor:
    """Exponential of a square matrix ``(n, n)``, float32 or float64; differentiable.

    Taylor's polynomial of degree 12 in five products, after a shift by the mean of the diagonal and scaling by a power
    of 2, which is undone by squaring. Of numbers that are not finite the answer has some, too.

    Raises
    ------
    ValueError
        For another shape or type.
    """
    if x.ndim != 2 or x.shape[0] != x.shape[1] or x.dtype not in _RADIUS:
        raise ValueError(f"x: expected (n, n) of float32 or float64, got {tuple(x.shape)} of {x.dtype}")
    eye = torch.eye(len(x), dtype=x.dtype, device=x.device)
    # exp(x) = e^c exp(x - c) for every number c, so that c may be taken for constant in the gradient.
    centre = x.detach().diagonal().mean()
    a = x - centre * eye
    norm = float(torch.linalg.matrix_norm(a.detach(), 1))
    known = math.isfinite(norm) and norm > 0
    squarings = max(0, math.ceil(math.log2(norm / _RADIUS[x.dtype]))) if known else 0
    a = a * 2.0**-squarings
    square = a @ a
    cube = square @ a
    powers = (eye, a, square)
    result = _FACTORS[12] * cube + sum(_FACTORS[9 + i] * p for i, p in enumerate(powers))
    for first in (6, 3, 0):
        result = result @ cube + sum(_FACTORS[first + i] * p for i, p in enumerate(powers))
    for _ in range(squarings):
        result = result @ result
    return centre.exp() * result

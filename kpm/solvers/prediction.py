"""Roll-outs of a linear operator."""

from __future__ import annotations

import torch
from torch import Tensor

from kpm.solvers import checks
from kpm.solvers.operators import Operator
from kpm.solvers.spectra import matrix_of


def predict(z0: Tensor, operator: Tensor | Operator, steps: int) -> Tensor:
    """The next `steps` states after `z0`: ``z0 @ A, z0 @ A^2, ...``

    By powers of the matrix, each doubling what is there: ``log2(steps)`` products instead of a loop over time, and
    right for any operator, defective ones included.

    Parameters
    ----------
    z0 : Tensor
        ``(*batch, dim)``.
    operator : Tensor or Operator
        ``(dim, dim)``, or ``(*batch, dim, dim)`` for one per state.
    steps : int
        At least 1.

    Returns
    -------
    Tensor
        float64 ``(*batch, steps, dim)``, differentiable.

    Raises
    ------
    ValueError
        For wrong shapes, and where the states grow out of float64's range (the index is named).
    """
    matrix = matrix_of(operator)
    shape = tuple(checks.tensor(z0, "z0").shape)
    if z0.ndim < 1 or 0 in shape or z0.is_complex():
        raise ValueError(f"z0: expected real (*batch, dim), got {z0.dtype} of shape {shape}")
    if matrix.shape[-1] != shape[-1] or matrix.shape[:-2] not in (torch.Size(), z0.shape[:-1]):
        raise ValueError(f"operator: shape {tuple(matrix.shape)} does not fit z0 of shape {shape}")
    steps = checks.count(steps, "steps", 1)
    z0 = z0.double()
    checks.finite(z0, "z0")
    states = z0.unsqueeze(-2) @ matrix
    power = matrix
    while (there := states.shape[-2]) < steps:
        states = torch.cat([states, states[..., : steps - there, :] @ power], -2)
        if states.shape[-2] < steps:
            power = power @ power
    checks.finite(states, "prediction", ": the operator makes it grow out of range")
    return states

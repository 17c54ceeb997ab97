"""Spectra and static parts of one operator per sequence, against dense operators and against a loop of PyDMD.

Ours is `static_part`: all non-zero eigenvalues and the static part of every sequence. The dense reference gives the
same answer by `torch.linalg.lstsq`, `torch.linalg.eig` of the ``dim x dim`` operators, the inverse of the eigenvectors,
and products. The loop does less: it fits one ``pydmd.DMD`` per sequence and reads its eigenvalues. (PyDMD's amplitudes
are a least-squares fit, not the spectral projection, so that static parts cannot be compared.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kpm.solvers import Split, matching, static_part
from kpm.workbook.bench import Benchmark, Case

# Batch, time, dim, and the least ratios claimed over the dense operators and over the loop.
SIZES = ((256, 8, 15, 5.0, 100.0), (256, 10, 28, 7.0, 100.0), (256, 8, 40, 15.0, 100.0))


def benchmark() -> Benchmark:
    cases = []
    for batch, time, dim, over_dense, over_loop in SIZES:
        z = torch.randn(batch, time, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(dim))
        label = f"{batch}x{time}x{dim}"
        cases.append(Case(label, ours(z), dense(z), "torch.linalg.lstsq + eig + inv", same, over_dense))
        cases.append(Case(f"pydmd-{label}", ours(z), loop(z), "a loop of pydmd.DMD", same_values, over_loop))
    return Benchmark("spectra", tuple(cases), notes=__doc__)


def ours(z: Tensor) -> Callable[[], Split]:
    return lambda: static_part(z)


def dense(z: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    def run() -> tuple[Tensor, Tensor]:
        operator = torch.linalg.lstsq(z[:, :-1], z[:, 1:]).solution
        values, right = torch.linalg.eig(operator)
        left = torch.linalg.inv(right)
        nearest = (values - 1).abs().argmin(-1)[:, None, None]
        column = right.gather(-1, nearest.expand(-1, right.shape[-1], 1))
        row = left.gather(-2, nearest.expand(-1, 1, left.shape[-1]))
        return values, (z.to(right.dtype) @ column @ row).real

    return run


def loop(z: Tensor) -> Callable[[], Tensor]:
    from pydmd import DMD

    def run() -> Tensor:
        values = [DMD(svd_rank=-1).fit(sequence.T).eigs for sequence in z.numpy()]
        return torch.from_numpy(np.stack(values)).to(torch.complex128)

    return run


def same(found: Split, reference: tuple[Tensor, Tensor]) -> None:
    values, static = reference
    same_values(found, values)
    error = ((found.static - static).abs().amax((1, 2)) / found.condition).max()
    assert error < 1e-8, f"static parts differ by {error:.1e} of their condition"


def same_values(found: Split, values: Tensor) -> None:
    error = matching.optimal(found.eigenvalues, values).distance.max()
    assert error < 1e-8, f"eigenvalues differ by {error:.1e}"

"""An epoch of DSE on Van der Pol's oscillator, against the published loops over windows and times.

Both do one epoch of both stages in the published reading, with the published sizes, and fit the final operators. The
reference has the loops of the published code: each block feature is a small network called on one window of one code
coordinate (2 x 50 calls per time), and states are predicted one time at a time. What is scaled: the record has 300
frames instead of 3000, so that the reference takes seconds; the loops cost in proportion to the frames, ours less than
that, so that the ratio of the whole record is larger. Dropout is off, as else the two would draw different numbers. The
published code builds the blocks five times per epoch, the reference here as often as ours.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor
from torch.nn.functional import linear

from kpm.models.dse import DSE
from kpm.models.dse_networks import BlockHeads, DSEConfig, dtype_of
from kpm.solvers import matching
from kpm.training import dse_published
from kpm.training.dse import DSETrainConfig
from kpm.workbook.bench import Benchmark, Case
from kpm.workbook.dse_trials import SYSTEMS

FRAMES = 300


def benchmark() -> Benchmark:
    y = SYSTEMS["vdp"].trial(0.1, 1).train[0, :FRAMES]
    sizes = DSEConfig.van_der_pol(reading="published", dropout=0.0)
    config = DSETrainConfig.published(stage_one=0, stage_two=1, readout_steps=0)

    def ours() -> DSE:
        return dse_published.train(y, sizes, config).model

    return Benchmark("dse_vdp", (Case("epoch", ours, looped(ours), "loops", same, 30.0),), notes=__doc__)


def looped(train: Callable[[], DSE]) -> Callable[[], DSE]:
    def run() -> DSE:
        with (
            mock.patch.object(BlockHeads, "forward", one_window_at_a_time),
            mock.patch.object(dse_published._Run, "predicted", one_time_at_a_time),
        ):
            return train()

    return run


def one_window_at_a_time(heads: BlockHeads, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Past and future features of codes ``(1, time, code)``, as `BlockHeads.forward`."""
    window = heads.weights[0].shape[1]
    parts = list(zip(heads.weights, heads.biases))

    def read(j: int, x: Tensor) -> Tensor:
        (w, b), (v, c) = parts
        return linear(linear(x, w[j].mT, b[j, 0]).relu(), v[j].mT, c[j, 0])

    past, future = [], []
    for t in range(codes.shape[1] - window + 1):
        block = codes[0, t : t + window]
        past.append(torch.cat([read(j, block[:, j].flip(0)) for j in range(codes.shape[2])]))
        future.append(torch.cat([read(j, block[:, j]) for j in range(codes.shape[2])]))
    return torch.stack(past)[None], torch.stack(future)[None]


def one_time_at_a_time(run: dse_published._Run, states: Tensor) -> Tensor:
    """States read from the features one step before, as `_Run.predicted`."""
    model = run.model
    read = []
    for state in states[:-1]:
        ahead = model.dictionary(state) @ run.transition
        read.append(model.state_readout(ahead.to(dtype_of(model.state_readout))))
    return torch.stack(read).double()


def same(ours: DSE, reference: DSE) -> None:
    error = (ours.correlations - reference.correlations).abs().max()
    assert error < 1e-4, f"correlations differ by {error:.1e}"
    error = matching.optimal(ours.eigenvalues(), reference.eigenvalues()).distance.max()
    assert error < 1e-2, f"eigenvalues differ by {error:.1e}"

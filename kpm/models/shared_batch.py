"""Layers that see the whole batch where each of several processes has a share of its rows.

What a process computes from its own rows alone (convolutions, recurrences, an operator per sequence) needs nothing.
Statistics over the batch, an operator fitted to the whole batch, and random masks do: with the layers of this file they
are those one process would find, so that the number of processes changes nothing but the rounding. All processes must
have equally many rows, in the order of their ranks.

PyTorch's own `SyncBatchNorm` does the first of these, but only on GPUs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class _Gather(torch.autograd.Function):
    """Rows of all processes; a row's gradient is the sum of what all processes say about it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return own(gradient)


def whole(rows: Tensor) -> Tensor:
    """Rows ``(n, ...)`` of all processes, ``(processes * n, ...)``; differentiable."""
    return _Gather.apply(rows)


def own(rows: Tensor) -> Tensor:
    """The rows of this process among those of all, ``(processes * n, ...)``."""
    return rows.chunk(dist.get_world_size())[dist.get_rank()]


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the mean and the variance over the rows of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
        means, variances = whole(torch.stack([mean, variance])[None]).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)  # within the shares, and between them
        with torch.no_grad():
            count = len(means) * x.numel() // x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = (self.weight * torch.rsqrt(variance + self.eps))[:, None, None]
        shift = self.bias[:, None, None] - mean[:, None, None] * scale
        return torch.addcmul(shift, wide, scale).to(x.dtype)


class SharedDropout(nn.Dropout):
    """Dropout with this process's rows of the mask that one process would draw for the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        # A mask is drawn in the order of memory, so it must lie as `x` does (of equal strides one is of a single row).
        shape = (len(x) * dist.get_world_size(), *x.shape[1:])
        order = sorted(range(x.ndim), key=lambda axis: (-x.stride(axis), -x.shape[axis]))
        ones = torch.empty_permuted(shape, order, dtype=x.dtype, device=x.device).fill_(1)
        return x * own(F.dropout(ones, self.p))


_SHARED = {nn.BatchNorm2d: SharedBatchNorm2d, nn.Dropout: SharedDropout}


def share_batch(model: nn.Module) -> None:
    """Let `model` train on a share of each batch, in place; its weights and their names stay as they are."""
    for module in model.modules():
        module.__class__ = _SHARED.get(type(module), type(module))
        if hasattr(module, "shared"):
            module.shared = True

"""Training on several devices: the processes that torchrun started, each with a share of every batch.

``torchrun --nproc-per-node 2 -m kpm.cli train ssm-skd ...`` trains with the numbers one process would have: the order
of the data is that of one process, cut into shares; gradients are averaged (DDP, by Fabric); statistics over the batch
are those of the whole (`kpm.models.shared_batch`). The first process alone writes. Batch sizes in configs are those of
all processes together.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from kpm.errors import UserError

for name in ("lightning_fabric", "lightning.fabric"):  # it announces itself at every start
    logging.getLogger(name).setLevel(logging.WARNING)

_GRACE_S = 60.0
_LEFT = "another process of this training has ended; its own message says why"


def launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


class Team:
    """The processes that train one model together: this one alone, or those of torchrun.

    Attributes
    ----------
    fabric : lightning_fabric.Fabric
    device : torch.device
        Of this process.
    size, rank : int
        How many there are, and which this is.
    first : bool
        Whether this is the one that writes, prints and decides about time.
    """

    def __init__(self, where: torch.device):
        self.size = int(os.environ["WORLD_SIZE"]) if launched() else 1
        if self.size == 1:
            devices = [where.index or 0] if where.type == "cuda" else 1
            self.fabric = Fabric(accelerator=where.type, devices=devices)
        else:
            here = int(os.environ["LOCAL_WORLD_SIZE"])
            if where.type == "cuda" and (where.index is not None or here > torch.cuda.device_count()):
                there = torch.cuda.device_count()
                raise UserError(f"device: {here} processes take cuda:0 to cuda:{here - 1}, there are {there}; say cuda")
            nodes = self.size // here
            self.fabric = Fabric(accelerator=where.type, devices=here, num_nodes=nodes, strategy="ddp")
            threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
        self.fabric.launch()
        if self.size > 1:  # its threads must be gone before the interpreter is, which they may abort
            atexit.register(_part)
        self.rank, self.device = self.fabric.global_rank, self.fabric.device
        self.first = self.rank == 0

    def shares(
        self, net: nn.Module, index: Tensor, parts: int
    ) -> Iterator[tuple[Tensor, float, AbstractContextManager]]:
        """This process's rows of each part of a batch, what its loss counts, and the context to run it in.

        A batch is cut into `parts` that are worked on one after the other (gradient accumulation), and each part into
        shares of the processes. Means over rows, times these weights, add up to the mean over the batch when averaged
        over the team. Gradients are exchanged once, in the last part.
        """
        pieces = index.tensor_split(min(parts, len(index)))
        for i, part in enumerate(pieces):
            rows = part.tensor_split(self.size)[self.rank]
            weight = len(rows) * self.size / len(index)
            later = self.fabric.no_backward_sync(net, enabled=i + 1 < len(pieces))
            yield (rows if len(rows) else part[:1]), weight, later  # without a row of its own it only takes part

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean over the processes."""
        return self._reduced(values, "mean")

    def sum(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sum over the processes."""
        return self._reduced(values, "sum")

    def _reduced(self, values: dict[str, Tensor], how: str) -> dict[str, Tensor]:
        if self.size == 1:
            return values
        together = self.fabric.all_reduce(torch.stack([v.detach() for v in values.values()]), reduce_op=how)
        return dict(zip(values, together.unbind()))

    def largest(self, *numbers: int) -> tuple[int, ...]:
        """The largest of each number over the processes: how all come to know what one of them was told."""
        if self.size == 1:
            return numbers
        found = torch.tensor(numbers, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(found.tolist())

    def agree(self, *numbers: int) -> bool:
        """Whether each number is the same in all processes; `UserError` if one has left."""
        try:
            return self.largest(*numbers) == tuple(-n for n in self.largest(*(-n for n in numbers)))
        except RuntimeError as error:  # the connection to it is closed
            raise UserError(_LEFT) from error

    def say(self, text: str) -> None:
        """Print `text` once."""
        if self.first:
            print(text, flush=True)

    def wait(self) -> None:
        """Until all are here; `UserError` if one has left."""
        try:
            self.fabric.barrier()
        except RuntimeError as error:  # the connection to it is closed
            raise UserError(_LEFT) from error


def _part() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _leave_with(parent: int, every_s: float = 0.5) -> None:
    """When torchrun dies (even by ``kill -9``), stop as by SIGTERM, that is save; if that hangs, stop all the same."""
    while os.getppid() == parent:
        time.sleep(every_s)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(1)

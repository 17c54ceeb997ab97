"""Work for other processes: in a module of its own, which is quick to import there."""

import os

import torch


def square(n):
    if n < 0:
        raise ValueError(f"{n} is negative")
    return n * n, os.getpid(), torch.get_num_threads()


def states(seed):
    """Batches of ragged sequences of a noisy rotation in eight hidden units, and their lengths."""
    draw = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    for batch in (3, 2):
        x = [torch.randn(batch, 8, generator=draw, dtype=torch.float64)]
        for _ in range(11):
            x.append(0.95 * x[-1] @ turn + 0.1 * torch.randn(batch, 8, generator=draw, dtype=torch.float64))
        yield torch.stack(x, 1), torch.randint(4, 13, (batch,), generator=draw)

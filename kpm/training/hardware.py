"""Settings that make a machine fast: thread counts, precision, memory allocator."""

from __future__ import annotations

import ctypes
import platform
import time

import torch
import torch.distributed as dist
from torch import nn

from kpm.errors import UserError


def device(name: str = "auto") -> torch.device:
    """`name` as a device; ``"auto"`` is CUDA if there is one, else the CPU. `UserError` for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(name)
    except RuntimeError:
        where = None
    if where is None or where.type not in ("cpu", "cuda"):
        raise UserError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}")
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: {name!r} is not there; this machine has {torch.cuda.device_count()} CUDA devices")
    return where


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks instead of handing them back to the system at every step.

    Training frees and takes the same large blocks thousands of times; each return to the system costs page faults.
    The setting holds for the whole process, which then keeps the memory it needed at its peak.
    Does nothing (and returns False) where the C library is another.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    m_trim_threshold, m_mmap_max = -1, -4
    libc = ctypes.CDLL("libc.so.6")
    return bool(libc.mallopt(m_mmap_max, 0)) and bool(libc.mallopt(m_trim_threshold, 2**31 - 1))


def faster_precision(where: torch.device) -> str:
    """``"bf16-mixed"`` if a short convolution probe runs at least 1.2 times faster in it, else ``"32-true"``.

    bf16 halves the time on processors with bf16 matrix units (AMX, AVX512-BF16) and on recent GPUs, and costs time on
    processors that emulate it, so it is measured rather than guessed. Takes about a second. Processes that train
    together all call it, and take bf16 if it is faster for each.
    """
    if where.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    net = nn.Sequential(nn.Conv2d(32, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.LeakyReLU(0.2), nn.Conv2d(64, 128, 4, 2, 1))
    net.to(memory_format=torch.channels_last)
    x = torch.rand(64, 32, 32, 32).to(memory_format=torch.channels_last)

    def once(bf16: bool) -> float:
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = net(x).float().square().mean()
        loss.backward()
        return time.perf_counter() - start

    with torch.random.fork_rng([]):
        times = {bf16: [once(bf16) for _ in range(6)][1:] for bf16 in (False, True)}
    faster = torch.tensor(int(min(times[True]) * 1.2 < min(times[False])))
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(faster, dist.ReduceOp.MIN)
    return "bf16-mixed" if faster else "32-true"

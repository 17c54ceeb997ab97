"""Loops in machine code over batches of small problems: how they are compiled and shared among threads.

The code is made at the first use (Numba) and kept on disk. Numba makes it anew when the file of the function that is
called from Python changes, but does not look at files of functions called inside: so these are in the same file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

_SHARE = 64  # members of a batch that are worth a thread

# Sums may be taken in any order, so that they fill vector registers, and quotients by way of reciprocals; NaN and
# infinity stay what they are.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "arcp"}}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` in machine code, kept on disk; where no folder can be written to, made anew in each process."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        return numba.njit(**_OPTIONS)(function)


def in_threads(function: Callable[..., None], *arrays: NDArray) -> None:
    """`function` of pieces of the arrays, in as many threads as PyTorch may use and the batch is worth."""
    count = min(torch.get_num_threads(), len(arrays[0]) // _SHARE)
    if count < 2:
        function(*arrays)
        return
    edges = np.linspace(0, len(arrays[0]), count + 1).astype(int)
    pieces = [[a[i:j] for a in arrays] for i, j in zip(edges, edges[1:])]
    waiting = [_pool().submit(function, *piece) for piece in pieces[1:]]
    function(*pieces[0])
    for piece in waiting:
        piece.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="kpm-companion")


if hasattr(os, "register_at_fork"):  # a forked process has the pool but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)

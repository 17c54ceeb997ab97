"""Processes that tests start to let something happen to them: copies of this one, so that nothing is imported twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import torch

_FORK = multiprocessing.get_context("fork")


def start(function: Callable[..., Any], *arguments: Any, **options: Any) -> multiprocessing.Process:
    """Call `function` in a process of its own; its exit code is what the function returns (or 1)."""

    def body() -> None:
        torch.set_num_threads(1)  # the threads of a copied process are gone
        os._exit(function(*arguments, **options) or 0)

    process = _FORK.Process(target=body)
    process.start()
    return process


def ended(process: multiprocessing.Process, seconds: float = 180) -> int:
    """Its exit code, minus the number of a signal; fails if it does not end. A slow machine needs a minute to begin."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise AssertionError("the process did not end")
    return process.exitcode


def die() -> None:
    """As by ``kill -9``."""
    os.kill(os.getpid(), signal.SIGKILL)


def as_torchrun(size: int, function: Callable[[], int]) -> Callable[[], int]:
    """A function that starts `size` processes as torchrun does and waits for them; the first code that is not 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def agent() -> int:
        common = {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        common |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "TORCHELASTIC_USE_AGENT_STORE": "False"}
        workers = []
        for rank in range(size):
            os.environ.update(common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            workers.append(start(function))
        codes = [ended(worker) for worker in workers]
        return next((code for code in codes if code), 0)

    return agent

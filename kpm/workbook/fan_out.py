"""Many independent tasks, here or on several processes: the one place that knows how work is spread."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch

from kpm.solvers import checks

Task, Answer = TypeVar("Task"), TypeVar("Answer")


def fan_out(work: Callable[[Task], Answer], tasks: Iterable[Task], workers: int = 1) -> Iterator[Answer]:
    """Answers of `work` to each task, as they come.

    Parameters
    ----------
    work : callable
        A function of a module, so that other processes find it.
    tasks : iterable
        What it is given, one at a time, in this order.
    workers : int
        Processes, of one thread each; with 1 the tasks are done in this process, as they are asked for, on one
        thread: tasks this small are slower on several, many times slower where other work has the cores.

    Raises
    ------
    ValueError
        For fewer than one worker. What `work` raises is raised here, and ends the tasks that have not begun.
    """
    checks.count(workers, "workers", 1, 10**4)
    return _here(work, tasks) if workers == 1 else _spread(work, tasks, workers)


def _here(work: Callable[[Task], Answer], tasks: Iterable[Task]) -> Iterator[Answer]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from map(work, tasks)
    finally:
        torch.set_num_threads(before)


def _spread(work: Callable[[Task], Answer], tasks: Iterable[Task], workers: int) -> Iterator[Answer]:
    # Forked processes would share the locks of torch's threads: new ones start clean.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(work, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

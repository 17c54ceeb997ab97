"""Many independent tasks, here, on several processes, or on a Dask cluster: the one place that spreads work."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch

from kpm.errors import UserError
from kpm.solvers import checks

Task, Answer = TypeVar("Task"), TypeVar("Answer")

_CONNECT_S = 15


def fan_out(
    work: Callable[[Task], Answer],
    tasks: Iterable[Task],
    workers: int = 1,
    scheduler: str = "",
    lost: Callable[[Task, BaseException], Answer] | None = None,
) -> Iterator[Answer]:
    """Answers of `work` to each task, as they come.

    Parameters
    ----------
    work : callable
        A function of a module, so that other processes find it. It runs on one thread.
    tasks : iterable
        What it is given, one at a time, in this order.
    workers : int
        Processes of a Dask cluster on this machine. With 1 the tasks are done in this process, as they are asked for,
        on one thread: tasks this small are slower on several, many times slower where other work has the cores.
    scheduler : str, optional
        Address of a running Dask scheduler (``tcp://HOST:PORT``), whose workers are used instead.
    lost : callable, optional
        The answer for a task that raised, or that was given up; without it the error is raised here.

    Notes
    -----
    A task whose worker dies is given to another one; Dask gives it up when that has happened four times. Work should
    therefore leave nothing half done behind, or find it again.

    Raises
    ------
    ValueError
        For fewer than one worker. What `work` raises is raised here, and ends the tasks that have not begun.
    UserError
        If no scheduler answers.
    """
    checks.count(workers, "workers", 1, 10**4)
    if workers == 1 and not scheduler:
        return _here(work, tasks, lost)
    return _spread(work, list(tasks), workers, scheduler, lost)


def _here(work: Callable[[Task], Answer], tasks: Iterable[Task], lost: Any) -> Iterator[Answer]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for task in tasks:
            yield _answer(task, lambda: work(task), lost)  # noqa: B023 called before the next task
    finally:
        torch.set_num_threads(before)


def _spread(
    work: Callable[[Task], Answer], tasks: list[Task], workers: int, scheduler: str, lost: Any
) -> Iterator[Answer]:
    from distributed import as_completed

    with _client(min(workers, max(1, len(tasks))), scheduler) as client:
        futures = client.map(_one_thread, [work] * len(tasks), tasks, pure=False)
        task_of = dict(zip((future.key for future in futures), tasks))
        try:
            for future in as_completed(futures, loop=client.loop):
                yield _answer(task_of[future.key], future.result, lost)
                future.release()  # the scheduler forgets the answer: it was taken
        finally:
            client.cancel(futures)


def _answer(task: Task, ask: Callable[[], Answer], lost: Any) -> Answer:
    try:
        return ask()
    except Exception as error:
        if lost is None:
            raise
        return lost(task, error)


def _one_thread(work: Callable[[Task], Answer], task: Task) -> Answer:
    torch.set_num_threads(1)
    return work(task)


@contextlib.contextmanager
def _client(workers: int, scheduler: str) -> Iterator[Any]:
    """A client of the running scheduler, or of a cluster on this machine that ends with the block."""
    from distributed import Client, LocalCluster

    if scheduler:
        try:
            client = Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(f"scheduler: no Dask scheduler answers at {scheduler!r} ({error})") from None
        with client:
            yield client
        return
    with (
        # No limit of memory: Dask's share-out would stop a worker that the machine has room for.
        LocalCluster(
            workers, threads_per_worker=1, memory_limit=0, dashboard_address=None, silence_logs=logging.ERROR
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client

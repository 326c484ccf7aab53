"""Cells of a sweep computed: here, in processes of our own, or by an executor that was given."""

import math
import multiprocessing
import pickle
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from dynmech.errors import InvalidArgument, describe

Setting = bool | int | float | str | None
Cell = Callable[..., Mapping[str, float]]
Task = tuple[tuple[Setting, ...], int]
Found = dict[str, float] | str


def named_numbers(found: object) -> Found:
    """What a cell returned, or what is wrong with it."""
    if not isinstance(found, Mapping) or not found or not all(isinstance(x, str) for x in found):
        return f"the cell must return named numbers, it returned {found!r}"[:200]
    read: dict[str, float] = {}
    for name, value in found.items():
        if np.ndim(value) != 0 or not np.isreal(value) or isinstance(value, str):
            return f"{name!r} must be one number, got {value!r}"[:200]
        read[name] = float(value)
        if not math.isfinite(read[name]):
            return f"{name!r} must be finite, got {read[name]}"
    return read


def compute(cell: Cell, settings: dict[str, Setting], seed: int) -> Found:
    """One cell; its numbers, or in words what went wrong."""
    try:
        return named_numbers(cell(seed=seed, **settings))
    except Exception as error:  # whatever a user's function raises, the other cells go on
        return f"{type(error).__name__}: {error}"


def in_process(
    cell: Cell,
    options: Sequence[str],
    waiting: Sequence[Task],
    workers: int,
    executor: Executor | Any | None,
):
    """Results one after another."""
    for setting, seed in waiting:
        settings = dict(zip(options, setting, strict=True))
        yield (setting, seed), compute(cell, settings, seed)


def elsewhere(
    cell: Cell,
    options: Sequence[str],
    waiting: Sequence[Task],
    workers: int,
    executor: Executor | Any | None,
):
    """Results as they come, from processes of our own or from an executor that was given."""
    try:
        pickle.dumps(cell)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if executor is None:
            must, do = "be importable in other processes", "define it in a module, not in a call"
            raise InvalidArgument(describe("sweep(cell=...)", must, str(error), do)) from error
    if executor is not None:
        jobs = {_submit(executor, cell, options, *task): task for task in waiting}
        while jobs:
            for job in [job for job in jobs if job.done()]:
                yield jobs.pop(job), _result(job)
            time.sleep(0.01)
        return
    due = deque(waiting)
    while due:
        lost = yield from _side_by_side(cell, options, due, workers)
        # One of them killed its process, and with it the pool of the others: each by itself.
        for task in lost:
            if (yield from _side_by_side(cell, options, deque([task]), 1)):
                yield task, "its process died twice"


def _submit(
    executor: Executor | Any,
    cell: Cell,
    options: Sequence[str],
    setting: tuple[Setting, ...],
    seed: int,
) -> Any:
    return executor.submit(compute, cell, dict(zip(options, setting, strict=True)), seed)


def _result(job: Any) -> Found:
    """What a cell found, or what the executor says became of it."""
    try:
        return job.result()
    except Exception as error:  # the executor's own: a job that was lost, say
        return f"{type(error).__name__}: {error}"


def _side_by_side(
    cell: Cell, options: Sequence[str], due: deque[Task], workers: int
) -> Generator[tuple[Task, Found], None, list[Task]]:
    """Results as they come from processes of our own, of cells taken from `due`.

    **Returns:** the cells that were under way when a process died.
    """
    context = multiprocessing.get_context("spawn")
    pool, broken = ProcessPoolExecutor(min(workers, len(due)), context), False
    jobs: dict[Future[Any], Task] = {}
    try:
        while (due or jobs) and not broken:
            try:
                while due and len(jobs) < workers:
                    jobs[_submit(pool, cell, options, *due[0])] = due[0]
                    due.popleft()
            except BrokenProcessPool:
                broken = True
            for job in wait(jobs, return_when=FIRST_COMPLETED).done:
                if isinstance(job.exception(), BrokenProcessPool):
                    broken = True
                else:
                    yield jobs.pop(job), _result(job)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return list(jobs.values())

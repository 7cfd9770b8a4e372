"""Work on many samples in several processes, in order and a few at a time."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

import cv2

Task = TypeVar("Task")
Result = TypeVar("Result")

_WAITING_PER_JOB = 4


def map_ordered(
    function: Callable[[Task], Result], tasks: Iterable[Task], jobs: int = 1
) -> Iterator[Result]:
    """Yield `function` of each task, in the tasks' order.

    Only a few tasks are under way at a time, so that memory does not grow with their number.

    Args:
        function: can be pickled where `jobs` is above 1: a function of a module, or a `partial`.
        tasks: can be pickled too.
        jobs: processes; 1 works in this one.

    Raises:
        ValueError: `jobs` is below 1.
        ChildProcessError: a process was killed.
    """
    if jobs < 1:
        raise ValueError(f"jobs: expected 1 or more, found {jobs}")
    if jobs == 1:
        yield from map(function, tasks)
        return
    left = iter(tasks)
    # Not fork: a progress bar's thread may hold a lock that the copy then waits for.
    context = multiprocessing.get_context("spawn")
    # One thread of OpenCV for each process: the processes are the parallelism.
    with ProcessPoolExecutor(
        jobs, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        waiting: deque[Future[Result]] = deque(
            pool.submit(function, task) for task in islice(left, _WAITING_PER_JOB * jobs)
        )
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, task) for task in islice(left, 1))
                yield result
        except BrokenProcessPool:
            raise ChildProcessError(
                f"one of {jobs} processes was killed, perhaps for lack of memory: try fewer --jobs"
            ) from None
        finally:
            for future in waiting:
                future.cancel()

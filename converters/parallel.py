"""Work on many samples in several processes, in order and a few at a time.

`joblib.Parallel(return_as="generator")` keeps neither promise that matters here: it goes through
all tasks, however slowly their results are used, and sends the function again with each of them.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import cv2

Task = TypeVar("Task")
Result = TypeVar("Result")

_WAITING_PER_JOB = 4


class Workers:
    """Processes that several passes share: each starts, and imports what it needs, only once.

    They start with the first pass and end with the context. What a pass's function holds is sent
    once, not with every task.
    """

    def __init__(self, jobs: int = 1) -> None:
        """Start nothing yet.

        Args:
            jobs: processes; 1 works in this one, and needs no context.

        Raises:
            ValueError: `jobs` is below 1.
        """
        if jobs < 1:
            raise ValueError(f"jobs: expected 1 or more, found {jobs}")
        self.jobs = jobs
        self._started: tuple[ProcessPoolExecutor, TemporaryDirectory[str]] | None = None
        self._numbers = count()

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield `function` of each task, in the tasks' order.

        Only a few tasks are under way at a time, so that memory does not grow with their number.

        Args:
            function: can be pickled where `jobs` is above 1: a function of a module, or a
                `partial`.
            tasks: can be pickled too.

        Raises:
            ChildProcessError: a process was killed.
        """
        if self.jobs == 1:
            yield from map(function, tasks)
            return
        pool, folder = self._start()
        file = Path(folder.name, str(next(self._numbers)))
        with file.open("wb") as stream:
            pickle.dump(function, stream, pickle.HIGHEST_PROTOCOL)
        try:
            yield from self._collect(pool, partial(_call, str(file)), tasks)
        finally:
            file.unlink(missing_ok=True)

    def _collect(
        self, pool: ProcessPoolExecutor, work: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[Result]:
        left = iter(tasks)
        waiting: deque[Future[Result]] = deque()
        _submit(pool, work, islice(left, _WAITING_PER_JOB * self.jobs), waiting)
        try:
            while waiting:
                result = waiting.popleft().result()
                _submit(pool, work, islice(left, 1), waiting)
                yield result
        except BrokenProcessPool:
            raise ChildProcessError(
                f"one of {self.jobs} processes was killed, perhaps for lack of memory: try fewer "
                "--jobs"
            ) from None
        finally:
            for future in waiting:
                future.cancel()

    def _start(self) -> tuple[ProcessPoolExecutor, TemporaryDirectory[str]]:
        if self._started is None:
            # Not fork: a progress bar's thread may hold a lock that the copy then waits for.
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(
                self.jobs, mp_context=context, initializer=_begin, initargs=(os.getpid(),)
            )
            self._started = pool, TemporaryDirectory(prefix="workers-")
        return self._started

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the processes; what has not begun is not done."""
        if self._started is not None:
            pool, folder = self._started
            self._started = None
            if kind is not None and not issubclass(kind, Exception):
                # Who interrupts does not wait for what has begun either.
                for process in multiprocessing.active_children():
                    process.terminate()
            pool.shutdown(cancel_futures=True)
            folder.cleanup()


def end_with_parent() -> None:
    """Let this process be told to end when the one that started it ends, in any way (Linux)."""
    if sys.platform == "linux":
        # prctl(2): PR_SET_PDEATHSIG is 1.
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)


def _begin(parent: int) -> None:
    """Prepare a process: it does not outlive its parent, even one that was killed."""
    end_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    # One thread of OpenCV for each process: the processes are the parallelism.
    cv2.setNumThreads(1)


def _submit(
    pool: ProcessPoolExecutor,
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    waiting: deque[Future[Result]],
) -> None:
    for task in tasks:
        # A task may start a process, which inherits that Ctrl-C is not for it.
        with interrupts_wait():
            waiting.append(pool.submit(work, task))


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Let Ctrl-C wait until the block ends; processes that start in it never get one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


IN_PROCESS = Workers()
"""Works in this process."""


def map_ordered(
    function: Callable[[Task], Result], tasks: Iterable[Task], jobs: int = 1
) -> Iterator[Result]:
    """Yield `function` of each task, in the tasks' order, by processes of its own.

    Args:
        function: see `Workers.map`.
        tasks: see `Workers.map`.
        jobs: processes; 1 works in this one.

    Raises:
        ValueError: `jobs` is below 1.
        ChildProcessError: a process was killed.
    """
    with Workers(jobs) as workers:
        yield from workers.map(function, tasks)


def _call(file: str, task: Any) -> Any:
    return _read_function(file)(task)


@lru_cache(maxsize=1)
def _read_function(file: str) -> Callable[[Any], Any]:
    """Read what this command has written for its processes, once a pass."""
    with open(file, "rb") as stream:
        return pickle.load(stream)  # type: ignore[no-any-return]

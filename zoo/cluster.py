"""The same work in this process, in many, or on a Ray cluster; the results are the same."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import cv2

from converters.errors import import_optional
from converters.parallel import map_ordered

Task = TypeVar("Task")
Result = TypeVar("Result")

LOCAL, RAY = "", "ray"
_WAITING_PER_CPU = 2


def check_place(on: str) -> None:
    """Make sure that `on` names a place where work can run.

    Raises:
        ValueError: it is neither "", nor `ray`, nor the address of a cluster.
    """
    if on not in (LOCAL, RAY) and not on.startswith("ray://"):
        raise ValueError(f"--on {on}: expected ray, or a cluster's address ray://HOST:PORT")


def map_anywhere(
    function: Callable[[Task], Result], tasks: Iterable[Task], jobs: int = 1, on: str = LOCAL
) -> Iterator[Result]:
    """Yield `function` of each task, in the tasks' order, a few at a time.

    Args:
        function: can be pickled, unless it runs in this process.
        tasks: can be pickled too.
        jobs: processes on this machine; 1 works in this one. Without meaning on a cluster.
        on: "" for this machine; `ray` for the Ray cluster that the machine belongs to, or one that
            is started on it; `ray://HOST:PORT` for another. Every machine of a cluster needs this
            package, and the files that the tasks name at the same paths.

    Raises:
        ValueError: `jobs` is below 1, or `on` is no such place.
        ChildProcessError: a process or a machine was lost.
        MissingDependency: Ray is not installed.
    """
    check_place(on)
    if on:
        return _map_on_ray(function, tasks, None if on == RAY else on)
    return map_ordered(function, tasks, jobs)


def _map_on_ray(
    function: Callable[[Task], Result], tasks: Iterable[Task], address: str | None
) -> Iterator[Result]:
    # Before the import: Ray reads it then. Nothing is to be told to its makers.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = import_optional("ray", "cluster")
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(ray, address)
    try:
        yield from _results(ray, function, tasks)
    except ray.exceptions.RayTaskError as error:
        # What went wrong there, without the trace of the machine on which it did.
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ChildProcessError(f"Ray lost a part of the work: {reason}") from None
    finally:
        if is_ours:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        ray.init(address, **quiet, **({} if address else {"include_dashboard": False}))
    except Exception as error:  # Ray raises its base class where a node does not start in time
        # What did start would stay behind.
        ray.shutdown()
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ChildProcessError(f"Ray did not start: {reason}") from None


def _results(
    ray: Any, function: Callable[[Task], Result], tasks: Iterable[Task]
) -> Iterator[Result]:
    run, shared, left = ray.remote(_run), ray.put(function), iter(tasks)
    under_way = max(1, int(_WAITING_PER_CPU * ray.cluster_resources().get("CPU", 1)))
    waiting = deque(run.remote(shared, task) for task in islice(left, under_way))
    while waiting:
        result = ray.get(waiting.popleft())
        waiting.extend(run.remote(shared, task) for task in islice(left, 1))
        yield result


def _run(function: Callable[[Task], Result], task: Task) -> Result:
    # Ray counts a task as one processor.
    cv2.setNumThreads(1)
    return function(task)

"""The same work in this process, in many, or on a Ray cluster; the results are the same."""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import cv2

from converters.errors import import_optional
from converters.parallel import map_ordered

Task = TypeVar("Task")
Result = TypeVar("Result")

LOCAL, RAY, AUTO = "", "ray", "auto"
# Ray's word for a cluster of its own.
_NEW = "local"
_ADDRESS = re.compile(r"(ray://)?[^\s/:]+:\d{1,5}")
_WAITING_PER_CPU = 2
_SECONDS_TO_ANSWER = 10.0
# Where Ray looks for a cluster's token: its guide "Ray token authentication".
_TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_TOKEN_FILE = Path(".ray", "auth_token")
_TOKENS = (
    "a cluster that asks for a token needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or "
    "RAY_AUTH_TOKEN_PATH) set here"
)


def check_place(on: str) -> None:
    """Make sure that `on` names a place where work can run.

    Raises:
        ValueError: it is neither "", nor `ray` or `auto`, nor the address of a cluster.
    """
    if on not in (LOCAL, RAY, AUTO) and not _ADDRESS.fullmatch(on):
        expected = "ray, auto, or a cluster's address HOST:PORT or ray://HOST:PORT"
        raise ValueError(f"--on {on}: expected {expected}")


def map_anywhere(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    jobs: int = 1,
    on: str = LOCAL,
    needs: Sequence[Path] = (),
    gpus: int = 0,
) -> Iterator[Result]:
    """Yield `function` of each task, in the tasks' order, a few at a time.

    Args:
        function: can be pickled, unless it runs in this process.
        tasks: can be pickled too.
        jobs: processes on this machine; 1 works in this one. Without meaning on a cluster.
        on: "" for this machine; `ray` for the Ray cluster that the machine belongs to, or one that
            is started on it; `auto` for the former alone; `HOST:PORT` for the cluster of that head,
            of which the machine has to be a node; `ray://HOST:PORT` for any, by its client server.
            Every node needs this package. A cluster that asks for a token gets the one that Ray
            finds by `RAY_AUTH_MODE=token` and `RAY_AUTH_TOKEN`.
        needs: files and folders that the tasks read: every node has to see them at the same
            absolute paths, for tasks carry paths, not contents.
        gpus: of a cluster that has any, how many a task has for itself; without them it sees none.

    Raises:
        ValueError: `jobs` is below 1, or `on` is no such place.
        ChildProcessError: a process or a machine was lost, or a node does not see what is needed.
        MissingDependency: Ray is not installed.
    """
    check_place(on)
    if on:
        return _map_on_ray(function, tasks, on, needs, gpus)
    return map_ordered(function, tasks, jobs)


def import_ray() -> Any:
    """Import Ray, which is told to keep to itself how it is used.

    Raises:
        MissingDependency: it is not installed.
    """
    # Before the import: Ray reads it then.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    return import_optional("ray", "cluster")


def _map_on_ray(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    on: str,
    needs: Sequence[Path],
    gpus: int,
) -> Iterator[Result]:
    with joined(on) as ray:
        try:
            check_nodes(ray, needs)
            yield from _results(ray, function, tasks, gpus)
        except ray.exceptions.RayTaskError as error:
            # What went wrong there, without the trace of the machine on which it did.
            raise error.cause from None
        except ray.exceptions.RayError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ChildProcessError(f"Ray lost a part of the work: {reason}") from None


@contextmanager
def joined(on: str) -> Iterator[Any]:
    """Be a part of a Ray cluster within the block, and yield the package.

    A cluster that is started here ends with the block; one that this process had joined before is
    left as it is.

    Args:
        on: as `map_anywhere` takes it.

    Raises:
        ValueError: `on` names no cluster.
        ChildProcessError: nobody answers there.
        MissingDependency: Ray is not installed.
    """
    check_place(on)
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    connect(ray, None if on == RAY else on)
    try:
        yield ray
    finally:
        ray.shutdown()


def connect(ray: Any, address: str | None) -> None:
    """Make this process a part of a Ray cluster, or start one here.

    Args:
        ray: the package.
        address: as `map_anywhere` takes it; None starts one where there is none.

    Raises:
        ChildProcessError: nobody answers there.
    """
    if address and address != AUTO:
        _check_listener(address)
    if not address:
        _give_token()
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address, **quiet)
        else:
            # None joins the cluster of this machine, where there is one.
            own = _NEW if _is_dead(_last_cluster()) else None
            ray.init(own, **quiet, include_dashboard=False)
    except Exception as error:  # Ray raises its base class where a node does not start in time
        # What did start would stay behind.
        ray.shutdown()
        reason = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
        if address or isinstance(error, ConnectionError):
            raise ChildProcessError(f"--on {address or RAY}: {reason}; {_TOKENS}") from None
        raise ChildProcessError(f"Ray did not start: {reason}") from None


def _last_cluster() -> str:
    """Return the address of the cluster that was started last on this machine; "" for none."""
    file = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    try:
        return os.environ.get("RAY_ADDRESS", "") or file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _is_dead(address: str) -> bool:
    """Tell whether nobody listens at the address of a cluster that was killed.

    Ray would try to reach it for minutes.
    """
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        return False
    try:
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError):
        return True
    return False


def _give_token() -> None:
    """Give a cluster that is started here a token that nobody knows, if the user has none.

    Ray would make one and leave it in the home folder.
    """
    has_one = any(map(os.environ.get, _TOKEN_VARIABLES)) or (Path.home() / _TOKEN_FILE).exists()
    if not has_one:
        os.environ[_TOKEN_VARIABLES[0]] = secrets.token_hex(32)


def _check_listener(address: str) -> None:
    # Ray would try for minutes, and write of each try.
    host, port = address.removeprefix("ray://").split(":")
    try:
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ChildProcessError(
            f"--on {address}: expected a Ray cluster that listens there, found none ({error})"
        ) from None


def check_nodes(ray: Any, needs: Sequence[Path]) -> None:
    """Make sure that every node that works sees the same files as this machine.

    Args:
        ray: the package, connected.
        needs: files and folders.

    Raises:
        ChildProcessError: one does not.
    """
    wanted = {os.fspath(path): _sizes(path) for path in needs}
    for where, found in ask_nodes(ray, _unlike, wanted):
        if found:
            raise ChildProcessError(
                f"{found}: expected the same files on every node of the cluster, found others or "
                f"none on {where}: put them on a disk that all nodes share, at the same path"
            )


def working_nodes(ray: Any) -> list[dict[str, Any]]:
    """Return Ray's records of the nodes that take work."""
    return [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) > 0]


def ask_nodes(
    ray: Any, question: Callable[[Task], Result], about: Task
) -> list[tuple[str, Result]]:
    """Return what each node that works answers, with its name and address.

    Args:
        ray: the package, connected.
        question: can be pickled.
        about: what it is given.
    """
    nodes = working_nodes(ray)
    pin = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    ask = ray.remote(question)
    places = [pin(node["NodeID"], soft=False) for node in nodes]
    asked = [ask.options(num_cpus=0, scheduling_strategy=p).remote(about) for p in places]
    names = [f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in nodes]
    return list(zip(names, ray.get(asked), strict=True))


def _sizes(path: Path) -> dict[str, int] | None:
    """Return the sizes of a file, or of a folder's files; None where there is neither."""
    if not path.exists():
        return None
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    return {file.name: file.stat().st_size for file in files}


def _unlike(wanted: Mapping[str, dict[str, int] | None]) -> str:
    """Return the first path that is another one here; "" where there is none."""
    return next((name for name, sizes in wanted.items() if _sizes(Path(name)) != sizes), "")


def _results(
    ray: Any, function: Callable[[Task], Result], tasks: Iterable[Task], gpus: int
) -> Iterator[Result]:
    resources = ray.cluster_resources()
    run, shared, left = ray.remote(_run), ray.put(function), iter(tasks)
    if gpus and resources.get("GPU", 0):
        run = run.options(num_gpus=gpus)
    under_way = max(1, int(_WAITING_PER_CPU * resources.get("CPU", 1)))
    waiting = deque(run.remote(shared, task) for task in islice(left, under_way))
    while waiting:
        result = ray.get(waiting.popleft())
        waiting.extend(run.remote(shared, task) for task in islice(left, 1))
        yield result


def _run(function: Callable[[Task], Result], task: Task) -> Result:
    # Ray counts a task as one processor.
    cv2.setNumThreads(1)
    return function(task)

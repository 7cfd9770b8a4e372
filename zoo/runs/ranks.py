"""The processes that train one run together, one a device: begun, watched and ended as one.

The process of the command is the first one, rank 0. It begins the others, which are given its
config and its job, train, and end; only the first writes and says something. All families share
this, whatever then brings the gradients together. Processes that a launcher has begun (Slurm,
`torchrun`, ...) are left alone.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from converters.errors import one_line
from converters.parallel import interrupts_wait
from zoo.config import RunConfig, Workload
from zoo.contract import DivergedError, TrainJob
from zoo.families import load_family
from zoo.machine.faults import chain, describe_fault
from zoo.machine.processes import ignore_ends

# What a process that was not told why finds out within, and what it is given to end by itself.
_SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_END = 15.0
_AGAIN = "the same command goes on from the last checkpoint"
# How PyTorch's backends name themselves when a process of theirs does not answer.
_LOST = re.compile(r"gloo|nccl|ProcessGroup|TCPStore", re.IGNORECASE)
# Lightning's strategies that begin processes by themselves.
_BEGIN_THEIR_OWN = ("spawn", "fork", "notebook")
# Below those that systems hand out to connections: Linux from 32768, others from 49152.
_PORTS = range(20_000, 32_000)
_KEYS = (
    *("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    "GLOO_SOCKET_IFNAME",
)


@contextmanager
def all_ranks(family: str, config: RunConfig, job: TrainJob) -> Iterator[None]:
    """Have a config's devices train, each in a process of its own, while the block trains as one.

    The others train the same; where one ends early all do, with what that one has to say.

    Args:
        family: the family's name.
        config: of the run.
        job: what is trained for.

    Raises:
        ValueError: fewer devices than the config wants; or a process was killed, or found data or
            settings that cannot be used.
        RuntimeError: a process failed in another way.
    """
    load = config.workload
    check_devices(load)
    # As multiprocessing itself tells it; each process would begin others, without end.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ValueError(
            "devices: expected a script whose call of train stands below "
            "`if __name__ == '__main__':`, as each further process reads the script, found one "
            "that trains while it is read"
        )
    if load.devices == 1 or _is_begun(getattr(config, "strategy", "")):
        yield
        return
    kept = {key: os.environ.get(key) for key in _KEYS}
    os.environ.update(_variables(load))
    followers = Followers(family, config, job)
    try:
        followers.begin()
        yield
    except BaseException as error:
        told = followers.explain(SECONDS_TO_END) if _is_lost(error) else None
        followers.kill()
        if told is not None:
            raise told from None
        raise
    else:
        followers.join()
    finally:
        followers.kill()
        _leave_group()
        for key, value in kept.items():
            os.environ.pop(key, None) if value is None else os.environ.update({key: value})


def check_devices(load: Workload) -> None:
    """Make sure that this computer has the devices that a config wants.

    Raises:
        ValueError: it has fewer, or the config names a single one.
    """
    if load.devices == 1:
        return
    if ":" in load.device:
        raise ValueError(
            f"devices: expected 1 beside device {load.device}, found {load.devices}: set "
            f"device={load.device.partition(':')[0]}; CUDA_VISIBLE_DEVICES chooses among GPUs"
        )
    # Late: most runs have one device, and their family knows it.
    import torch

    found = torch.cuda.device_count()
    is_on_gpu = load.device == "cuda" or (load.device == "auto" and found > 0)
    if is_on_gpu and load.devices > found:
        raise ValueError(f"devices: expected at most {found}, the GPUs here, found {load.devices}")


def _is_begun(strategy: str) -> bool:
    """Tell whether others begin the processes: a launcher, or Lightning in its own way."""
    from lightning.fabric.plugins import environments as known

    # Those that Lightning looks for; further ones, such as torchrun, say LOCAL_RANK.
    launchers = (known.SLURMEnvironment, known.LSFEnvironment, known.MPIEnvironment)
    return (
        strategy.endswith(_BEGIN_THEIR_OWN)
        or "LOCAL_RANK" in os.environ
        or any(launcher.detect() for launcher in launchers)
    )


def _variables(load: Workload) -> dict[str, str]:
    """Return how the processes find each other, as PyTorch's and Lightning's launchers say it."""
    found = {
        "LOCAL_RANK": "0",
        "NODE_RANK": os.environ.get("NODE_RANK", "0"),
        "WORLD_SIZE": str(load.ranks),
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": os.environ.get("MASTER_PORT") or str(_free_port()),
    }
    if load.num_nodes == 1 and sys.platform == "linux":
        # Gloo would look for this computer's address in the network.
        found["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return found


def _free_port() -> int:
    """Return a port that stays free for the seconds until it is listened at.

    One that the system hands out could be taken in between by any connection that begins.
    """
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as opened, suppress(OSError):
            opened.bind(("", port))
            return port
    raise ValueError(f"devices: expected a free port from {_PORTS[0]} to {_PORTS[-1]}, found none")


@dataclass(frozen=True)
class _Words:
    """What a process says before it fails.

    Attributes:
        text: why; "" where another one is the cause.
        is_mended: the user can mend it, so that no traceback is wanted.
    """

    text: str
    is_mended: bool


class Followers:
    """The other processes of a training on this computer."""

    def __init__(self, family: str, config: RunConfig, job: TrainJob) -> None:
        self._arguments = (family, config, replace(job, progress=_say_nothing))
        self._load = config.workload
        self._processes: list[tuple[int, BaseProcess, Connection]] = []
        self._is_over = threading.Event()

    def begin(self) -> None:
        """Begin one for each further device, and watch them."""
        context = multiprocessing.get_context("spawn")
        variables = {key: os.environ[key] for key in _KEYS if key in os.environ}
        for rank in range(1, self._load.devices):
            ear, mouth = context.Pipe(duplex=False)
            own = {**variables, "LOCAL_RANK": str(rank)}
            process = context.Process(
                target=_follow,
                args=(mouth, own, os.getpid(), *self._arguments),
                name=f"rank-{rank}",
            )
            with interrupts_wait():
                process.start()
            mouth.close()
            self._processes.append((rank, process, ear))
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()

    def explain(self, seconds: float) -> Exception:
        """Return why a process has ended that others wait for in vain.

        Args:
            seconds: how long to wait for one that has ended by its own fault.
        """
        end = time.monotonic() + seconds
        while (found := self._fault()) is None and time.monotonic() < end:
            if all(process.exitcode is not None for _, process, _ in self._processes):
                found = self._fault()
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS / 5)
        return found or ValueError(f"the processes of this training have lost each other; {_AGAIN}")

    def join(self) -> None:
        """Wait until all have ended; all is written already."""
        self._is_over.set()
        for _, process, _ in self._processes:
            process.join(SECONDS_TO_END)

    def kill(self) -> None:
        """End all at once: they write nothing."""
        self._is_over.set()
        for _, process, ear in self._processes:
            if process.exitcode is None:
                process.kill()
            process.join()
            ear.close()
        self._processes = []

    def _fault(self) -> Exception | None:
        """Return the error of one that has ended by its own fault."""
        for rank, process, ear in self._processes:
            code = process.exitcode
            if not code:
                continue
            name = f"process {rank + 1} of the {self._load.devices} that train"
            if code < 0:
                return ValueError(f"{name} was killed ({_signal_name(-code)}); {_AGAIN}")
            words = _hear(ear)
            if words is None:
                return ValueError(f"{name} ended with code {code}; {_AGAIN}")
            if words.text:
                return ValueError(words.text) if words.is_mended else RuntimeError(words.text)
        return None

    def _watch(self) -> None:
        """End this process where it waits for one that is no more and nothing wakes it, on GPUs."""
        processes = [process for _, process, _ in self._processes]
        while not any(process.exitcode for process in processes):
            if self._is_over.wait(_SECONDS_BETWEEN_LOOKS):
                return
        if self._is_over.wait(SECONDS_TO_END):
            return
        for line in str(self.explain(0)).splitlines():
            print(f"zoo: {line}", file=sys.stderr, flush=True)
        for process in processes:
            process.kill()
        os._exit(2)


def _hear(ear: Connection) -> _Words | None:
    with suppress(EOFError, OSError):
        if ear.poll():
            words: _Words = ear.recv()
            return words
    return None


def _say_nothing(done: int, total: int, note: str) -> None:
    """Move no progress bar: the first process moves it."""


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        name = signal.Signals(number).name
        return f"{name}, perhaps for lack of memory" if name == "SIGKILL" else name
    return f"signal {number}"


def _is_lost(error: BaseException) -> bool:
    """Tell whether an error says that another process does not answer."""
    import torch

    if isinstance(error, DivergedError) or not isinstance(error, Exception):
        return False
    lost = getattr(torch.distributed, "DistError", RuntimeError)
    return any(
        isinstance(found, lost) or (isinstance(found, RuntimeError) and _LOST.search(str(found)))
        for found in chain(error)
    )


def _leave_group() -> None:
    """Forget the processes that are no more: the next run has others."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


# --- in the others


def _follow(
    mouth: Connection,
    variables: Mapping[str, str],
    parent: int,
    family: str,
    config: Any,
    job: TrainJob,
) -> None:
    """Train as one of the others; what is wrong goes to the first one."""
    os.environ.update(variables)
    _fall_silent()
    threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()
    try:
        load_family(family).train(config, job)
        _leave_group()
    except Exception as error:
        mouth.send(_words(error))
        # Not in good order: what waits for others would wait for ever.
        os._exit(2)


def _words(error: Exception) -> _Words:
    if _is_lost(error) or isinstance(error, DivergedError):
        return _Words("", True)
    fault = describe_fault(error)
    if fault or isinstance(error, (ValueError, OSError, ImportError)):
        return _Words(fault or str(error) or type(error).__name__, True)
    return _Words(f"{one_line(error)}\n{''.join(traceback.format_exception(error))}", False)


def _fall_silent() -> None:
    """Write nothing, and do not hear what stops the first process: that one ends this one."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    ignore_ends()


def _end_with(parent: int) -> None:
    """End this process when the first one is no more."""
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(2)

"""The steps of a pipeline at work: as many at once as fit, each once, none for nothing."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import IO, Protocol

from zoo.pipeline.record import History, Record
from zoo.pipeline.steps import Step
from zoo.pipeline.transfers import bring_back

_PAUSE = 0.1
# What a step says at its end, that is shown where it failed.
_LAST_WORDS = 1 << 16
_PATIENCE = 20.0


@dataclass(frozen=True)
class Capacity:
    """What there is to work with at a time.

    Attributes:
        cores: of processors.
        gpus: numbers of GPUs, as `CUDA_VISIBLE_DEVICES` has them.
    """

    cores: int
    gpus: tuple[str, ...] = ()

    def cores_of(self, step: Step) -> int:
        """Return how many cores a step has for itself."""
        if step.kind == "light":
            return 1
        if gpus := self.gpus_of(step):
            return max(1, self.cores * gpus // len(self.gpus))
        return self.cores

    def gpus_of(self, step: Step) -> int:
        """Return how many GPUs a step has for itself."""
        return step.devices if step.kind == "device" and self.gpus else 0

    def check(self, step: Step) -> None:
        """Make sure that it has the GPUs that a step wants.

        Raises:
            ValueError: it has fewer.
        """
        if self.gpus_of(step) > len(self.gpus):
            raise ValueError(
                f"{step.name}: expected devices of at most {len(self.gpus)}, the GPUs of a "
                f"machine, found {step.devices}"
            )


class Work(Protocol):
    """A step that has been started."""

    def poll(self) -> int | None:
        """Return its exit code; None while it works."""

    def stop(self) -> None:
        """End it, and wait until it has."""

    def last_words(self) -> str:
        """Return the end of what it has said."""


class Place(Protocol):
    """Where steps are started.

    Attributes:
        through: the common place at which lies what they have made so far, as it was given; "" for
            the pipeline's own folder.
    """

    through: str

    def capacity(self, step: Step) -> Capacity:
        """Return what one machine has for a step."""

    def has_room(self, step: Step) -> bool:
        """Tell whether a step can be started now."""

    def start(self, step: Step, command: Sequence[str], log: Path) -> Work:
        """Start a step for which there is room."""

    def close(self) -> None:
        """Give back what was held."""


class ThisMachine:
    """Starts steps as processes here.

    Args:
        capacity: what they may take together.
    """

    through = ""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._cores, self._gpus = capacity.cores, list(capacity.gpus)

    def capacity(self, step: Step) -> Capacity:
        """Return all that this machine has."""
        return self._capacity

    def has_room(self, step: Step) -> bool:
        """Tell whether nobody else has what a step needs."""
        is_free = self._capacity.gpus_of(step) <= len(self._gpus)
        return is_free and self._capacity.cores_of(step) <= self._cores

    def start(self, step: Step, command: Sequence[str], log: Path) -> Work:
        """Start a step."""
        cores, count = self._capacity.cores_of(step), self._capacity.gpus_of(step)
        self._cores -= cores
        gpus, self._gpus = self._gpus[:count], self._gpus[count:]

        def give_back() -> None:
            self._cores += cores
            self._gpus = [*gpus, *self._gpus]

        return Process(command, log, environment(cores, gpus), give_back)

    def close(self) -> None:
        """Nothing is held."""


def environment(cores: int, gpus: Sequence[str]) -> dict[str, str]:
    """Return the environment of a step's process."""
    own = dict(os.environ)
    if gpus:
        own["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    # Libraries would take all cores each.
    own.setdefault("OMP_NUM_THREADS", str(cores))
    return own


class Process:
    """A `zoo` command in a process of its own, which ends with this one.

    Args:
        command: after `zoo`.
        log: file that what it says is added to.
        environment: of the process.
        at_end: called once when it has ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        at_end: Callable[[], None],
    ) -> None:
        self._log, self._at_end = log, at_end
        begin_log(log, command)
        self._stream: IO[bytes] = log.open("ab")
        self._process = start_process(command, self._stream, environment)

    def poll(self) -> int | None:
        """Return its exit code; None while it works."""
        code = self._process.poll()
        if code is not None:
            self._close()
        return code

    def stop(self) -> None:
        """End it as Ctrl-C does, and wait until it has."""
        stop_process(self._process)
        self._close()

    def last_words(self) -> str:
        """Return the end of what it has said."""
        return read_end(self._log)

    def _close(self) -> None:
        if not self._stream.closed:
            self._stream.close()
            self._at_end()


def start_process(
    command: Sequence[str],
    stream: IO[bytes],
    environment: Mapping[str, str],
    folder: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a step's command, which ends with this process.

    Args:
        command: after `zoo`.
        stream: takes what it says.
        environment: of the process.
        folder: that it works in; None is this process's.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "zoo.pipeline.child", *command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=stream,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        # Ctrl-C is for us: we tell each of them, once.
        start_new_session=True,
    )


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """End a step's command and what it has started, by force if it does not listen."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def begin_log(log: Path, command: Sequence[str]) -> None:
    """Write the command, before what it will say, to the end of its log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        stream.write(f"\n$ zoo {shlex.join(command)}\n".encode())


def read_end(log: Path) -> str:
    """Return the end of a log; "" where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LAST_WORDS))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


# --- the whole graph


class Watcher(Protocol):
    """Is told what becomes of steps."""

    def began(self, step: Step, work: Work) -> None:
        """A step was started."""

    def ended(self, step: Step, record: Record) -> None:
        """A step ended."""

    def kept(self, step: Step, record: Record) -> None:
        """A step was done before."""

    def brought(self, step: Step, told: str) -> None:
        """Something has to be said of what a step has made elsewhere."""

    def left_out(self, step: Step, lacking: Sequence[str]) -> None:
        """A step cannot begin, as others failed."""

    def tick(self) -> None:
        """Some time has passed."""


@dataclass
class Outcome:
    """How a pipeline ended.

    Attributes:
        done: steps that ended well, now or before -> what they made.
        ran: of these, those that were done now.
        failed: step -> its last words.
        left_out: step -> steps that it lacked.
    """

    done: dict[str, str]
    ran: list[str]
    failed: dict[str, str]
    left_out: dict[str, tuple[str, ...]]


def execute(steps: Mapping[str, Step], history: History, place: Place, watcher: Watcher) -> Outcome:
    """Do all steps that are not done; one that fails stops only those that need it.

    Args:
        steps: by name.
        history: what is done already, and where it is kept.
        place: where steps are started.
        watcher: is told what becomes of them.

    Raises:
        ValueError: a step wants more GPUs than a machine has.
    """
    order = TopologicalSorter({name: step.waits_for for name, step in steps.items()})
    order.prepare()
    outcome = Outcome({}, [], {}, {})
    rank = {name: number for number, name in enumerate(steps)}
    # Key and command, which are settled when all that a step waits for has ended.
    waiting: dict[str, tuple[str, list[str]]] = {}
    working: dict[str, tuple[Work, Record, float]] = {}
    try:
        for step in steps.values():
            place.capacity(step).check(step)
        while order.is_active():
            for name in order.get_ready():
                step = steps[name]
                if found := _settle(step, outcome, history, watcher):
                    waiting[name] = found
                else:
                    order.done(name)
            # Those of the recipe's first lines first.
            for name in sorted(waiting, key=rank.__getitem__):
                if not place.has_room(steps[name]):
                    continue
                _begin(steps[name], *waiting.pop(name), outcome, history, place, watcher, working)
                if name not in working:
                    order.done(name)
            for name in _finished(working):
                _end(steps[name], outcome, history, watcher, working)
                order.done(name)
            if working:
                watcher.tick()
                time.sleep(_PAUSE)
    finally:
        with ExitStack() as ending:
            # All of it, also where the disk is full; the last comes first.
            ending.callback(history.digests.save)
            ending.callback(place.close)
            for name, (_, begun, since) in working.items():
                spent = begun.seconds + time.monotonic() - since
                ending.callback(history.write, name, replace(begun, seconds=spent))
            for work, _, _ in working.values():
                ending.callback(work.stop)
    return outcome


def lacking(step: Step, done: Mapping[str, str]) -> tuple[str, ...]:
    """Return the steps without which this one cannot begin."""
    found = [name for name in step.needs if name not in done]
    if step.sources and step.needs_source and not any(name in done for name in step.sources):
        found += step.sources
    return tuple(found)


def _settle(
    step: Step, outcome: Outcome, history: History, watcher: Watcher
) -> tuple[str, list[str]] | None:
    """Find that a step is done or cannot begin; else return its key and its command."""
    if lacks := lacking(step, outcome.done):
        outcome.left_out[step.name] = lacks
        watcher.left_out(step, lacks)
        return None
    command = step.command(outcome.done)
    key = history.key(step, outcome.done)
    if not step.words:
        outcome.done[step.name] = key
    elif record := history.is_done(step, key):
        _keep(step, record, outcome, watcher)
    else:
        return key, command
    return None


def _keep(step: Step, record: Record, outcome: Outcome, watcher: Watcher) -> None:
    outcome.done[step.name] = record.made
    watcher.kept(step, record)


def _begin(
    step: Step,
    key: str,
    command: list[str],
    outcome: Outcome,
    history: History,
    place: Place,
    watcher: Watcher,
    working: dict[str, tuple[Work, Record, float]],
) -> None:
    """Start a step for which there is room, or take back what it made before."""
    record = history.begin(step, key, command)
    if record.state == "done":
        _keep(step, record, outcome, watcher)
        return
    if record.through not in ("", place.through):
        has_ended, told = bring_back(step, record, history.out)
        watcher.brought(step, told)
        if has_ended:
            _ended(step, history.end(step, record, 0.0, None), outcome, watcher)
            return
        record = replace(record, through="")
        history.write(step.name, record)
    work = place.start(step, command, history.log(step.name))
    record = replace(record, through=place.through)
    # After the start, which asks what was so before.
    history.write(step.name, record)
    working[step.name] = work, record, time.monotonic()
    watcher.began(step, work)


def _finished(working: Mapping[str, tuple[Work, Record, float]]) -> list[str]:
    return [name for name, (work, _, _) in working.items() if work.poll() is not None]


def _end(
    step: Step,
    outcome: Outcome,
    history: History,
    watcher: Watcher,
    working: dict[str, tuple[Work, Record, float]],
) -> None:
    work, begun, since = working.pop(step.name)
    code = work.poll()
    message = _message(work.last_words(), code) if code else None
    _ended(step, history.end(step, begun, time.monotonic() - since, message), outcome, watcher)


def _ended(step: Step, record: Record, outcome: Outcome, watcher: Watcher) -> None:
    if record.state == "done":
        outcome.done[step.name] = record.made
        outcome.ran.append(step.name)
    else:
        outcome.failed[step.name] = record.message
    watcher.ended(step, record)


def _message(said: str, code: int | None) -> str:
    """Return what a failed command said of it, in a line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    own = [line.removeprefix("zoo: ") for line in lines if line.startswith("zoo: ")]
    own = [line for line in own if not line.startswith("note: ")]
    found = own[-1:] or lines[-1:]
    return found[0] if found else f"ended with code {code}"

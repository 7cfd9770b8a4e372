"""Notices to a chat while a run goes on: it ended, it failed, its GPUs idle, its disk fills up.

The message is `{"text": ...}`, which Slack's incoming webhooks take (and Mattermost's and
Rocket.Chat's). It holds the run's name, a score, and times: nothing of images, patients or files.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from zoo.config import Event, NoticeConfig, RunConfig
from zoo.contract import TrainJob
from zoo.machine.processes import is_first_process
from zoo.run_files.metrics import best_row, read_rows

SECONDS_TO_ANSWER = 10.0
SECONDS_BETWEEN_LOOKS = 30.0
_log = logging.getLogger(__name__)


def read_address(config: NoticeConfig) -> str:
    """Return the webhook's address, from the environment where the config says so.

    Raises:
        ValueError: the variable is not set, or holds no web address; the address is not shown.
    """
    given = config.url.get_secret_value()
    if not given.startswith("env:"):
        return given
    name = given.removeprefix("env:")
    address = os.environ.get(name, "").strip()
    if not address.startswith(("https://", "http://")):
        found = "something else" if address else "none"
        raise ValueError(
            f"notice.url: expected the address of a webhook in the variable {name}, found {found}; "
            f"set it with: export {name}=https://..."
        )
    return address


class Notifier:
    """Posts the events that a config names; what goes wrong is a line in the log, no more."""

    def __init__(self, config: NoticeConfig) -> None:
        """Read the address.

        Raises:
            ValueError: there is none.
        """
        self._address, self._wanted = read_address(config), config.on

    def post(self, event: Event, text: str) -> bool:
        """Post a text; tell whether it was taken. False, too, where nobody asked for the event."""
        if event not in self._wanted:
            return False
        data = json.dumps({"text": text}).encode("utf-8")
        headers = {"Content-Type": "application/json", "User-Agent": "maskzoo"}
        try:
            # ValueError, too, has to be caught here: its message would show the address.
            request = urllib.request.Request(self._address, data, headers, method="POST")
            with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER):
                return True
        except Exception as error:
            # Only its type: messages of the libraries may hold the address, which is a secret.
            _log.warning("notice.url: a notice could not be posted: %s", type(error).__name__)
            return False


@dataclass
class IdleClock:
    """Tells when a GPU has done nothing for a while, once until it works again.

    Attributes:
        below: percent of utilisation that is nothing.
        seconds: how long a while is.
    """

    below: float
    seconds: float
    _since: dict[str, float] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def observe(self, now: float, percents: dict[str, float]) -> list[str]:
        """Take the utilisation of GPUs, and return those that have become idle.

        Args:
            now: seconds, of a clock that never goes back.
            percents: GPU -> utilisation, 0 to 100.
        """
        for name, percent in percents.items():
            if percent < self.below:
                self._since.setdefault(name, now)
            else:
                self._since.pop(name, None)
                self._told.discard(name)
        ripe = {name for name, since in self._since.items() if now - since >= self.seconds}
        new = sorted(ripe - self._told)
        self._told |= ripe
        return new


def gpus_of(device: str, count: int, visible: str | None) -> tuple[str, ...]:
    """Return the GPUs that a run uses, as `nvidia-smi -i` takes them; none where it uses none.

    Args:
        device: the config's: `auto`, `cpu`, `cuda`, `cuda:1`.
        count: how many.
        visible: CUDA_VISIBLE_DEVICES, or None.

    >>> gpus_of("auto", 2, "4,5,6"), gpus_of("cuda:1", 1, None), gpus_of("cpu", 1, "0")
    (('4', '5'), ('1',), ())
    """
    match = re.fullmatch(r"(auto|cuda)(?::(\d+))?", device)
    if not match:
        return ()
    first = int(match[2] or 0)
    if visible is None:
        return tuple(str(first + i) for i in range(count))
    return tuple(name.strip() for name in visible.split(",") if name.strip())[first : first + count]


def read_utilisation(gpus: Sequence[str]) -> dict[str, float]:
    """Ask the driver how busy GPUs are: GPU -> percent; empty where nobody can say.

    Another process asks, so that nothing here touches the CUDA context that trains.
    """
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    if not gpus:
        return {}
    try:
        done = subprocess.run(
            [*command, "-i", ",".join(gpus)], capture_output=True, text=True, timeout=20, check=True
        )
        return {g: float(v) for g, v in zip(gpus, done.stdout.split(), strict=True)}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}


class Watch:
    """A thread that looks at GPUs and disk from time to time, beside the training."""

    def __init__(
        self,
        config: NoticeConfig,
        notifier: Notifier,
        run: Path,
        gpus: Sequence[str],
        read: Callable[[Sequence[str]], dict[str, float]] = read_utilisation,
    ) -> None:
        self._config, self._notifier, self._run = config, notifier, run
        self._gpus, self._read = gpus, read
        self._clock = IdleClock(config.idle_below, 60 * config.idle_minutes)
        self._disk_told = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="zoo-watch", daemon=True)

    def start(self) -> None:
        """Begin to look, if there is something to look at."""
        if {"idle", "disk"} & set(self._config.on):
            self._thread.start()

    def stop(self) -> None:
        """Look no more; waits for a look that is under way."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(SECONDS_TO_ANSWER)

    def _loop(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_LOOKS):
            try:
                self.look(time.monotonic())
            except Exception as error:
                _log.warning("notice: the watch ended: %s", type(error).__name__)
                return

    def look(self, now: float) -> None:
        """Look once, and post what is new."""
        if "idle" in self._config.on:
            for gpu in self._clock.observe(now, self._read(self._gpus)):
                minutes = f"{self._config.idle_minutes:g} min"
                text = f"{self._run.name}: GPU {gpu} idles, below {self._config.idle_below:g} % "
                self._notifier.post("idle", f"{text}for {minutes}")
        if "disk" in self._config.on:
            self._look_at_disk()

    def _look_at_disk(self) -> None:
        free = shutil.disk_usage(self._run).free / 1e9
        is_full = free < self._config.disk_below_gb
        if is_full and not self._disk_told:
            self._notifier.post("disk", f"{self._run.name}: the disk has {free:.1f} GB left")
        self._disk_told = is_full


@contextmanager
def noticed(config: RunConfig, job: TrainJob) -> Iterator[None]:
    """Post what a run's config asks for while the block trains it; nothing by default.

    Raises:
        ValueError: the address of the webhook is missing; before the run begins.
    """
    if config.notice is None or not is_first_process():
        yield
        return
    notifier = Notifier(config.notice)
    watch = Watch(config.notice, notifier, job.out, _gpus(config))
    started, before = time.monotonic(), len(read_rows(job.out / "metrics.csv"))
    watch.start()
    try:
        yield
    except KeyboardInterrupt:
        # Whoever stopped it is there.
        raise
    except BaseException:
        notifier.post("failed", f"{job.out.name}: failed after {_elapsed(started)}")
        raise
    else:
        rows = read_rows(job.out / "metrics.csv")
        # A run that was trained already did not finish now.
        if len(rows) > before:
            best = best_row(rows, "val_dice")
            score = f"validation Dice {float(best['val_dice']):.4f}, " if best else ""
            text = f"{job.out.name}: finished, {score}{_elapsed(started)}"
            notifier.post("finished", text)
    finally:
        watch.stop()


def _gpus(config: RunConfig) -> tuple[str, ...]:
    load = config.workload
    return gpus_of(load.device, load.devices, os.environ.get("CUDA_VISIBLE_DEVICES"))


def _elapsed(started: float) -> str:
    minutes = round((time.monotonic() - started) / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"

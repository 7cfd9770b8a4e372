"""New rows of a run's `metrics.csv` while somebody writes it: what trackers and sweeps look at."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from zoo.families.base import TrainJob

Row = dict[str, str]
# Progress moves with every batch; a file system over a network should not be asked as often.
SECONDS_BETWEEN_LOOKS = 1.0


def read_rows(path: Path) -> list[Row]:
    """Read a run's `metrics.csv`, oldest row first; empty where there is none."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


class RowFeed:
    """Finds rows of later epochs than those that were seen.

    Every family leaves that file, whatever trains its networks, so that nothing in a family has to
    know who looks on. A row that a continued run computes again is not new.
    """

    def __init__(self, path: Path, after: int = 0) -> None:
        """Begin after an epoch; 0 takes all."""
        self._path, self._after = path, after
        self._seen: tuple[int, int, int] | None = None

    def poll(self) -> list[Row]:
        """Return the new rows, oldest first."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return []
        # Each row makes a new file: `metrics.csv` is replaced, not written on.
        mark = (found.st_ino, found.st_mtime_ns, found.st_size)
        if mark == self._seen:
            return []
        self._seen = mark
        rows = [row for row in read_rows(self._path) if int(row["epoch"]) > self._after]
        if rows:
            self._after = int(rows[-1]["epoch"])
        return rows


def watched(job: TrainJob, look: Callable[[], None]) -> TrainJob:
    """Return the job with a progress bar that looks for rows at most every second, then moves."""
    last = -float("inf")

    def progress(done: int, total: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LOOKS:
            last = now
            look()
        job.progress(done, total, note)

    return replace(job, progress=progress)

"""A run's `metrics.csv`, a row a scored epoch: written, read, and looked at as it grows."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from converters.errors import one_line
from converters.files.provenance import atomic_write_text
from zoo.contract import TrainJob

Row = dict[str, str]
AnyRow = TypeVar("AnyRow", bound=Mapping[str, Any])
# Progress moves with every batch; a file system over a network should not be asked as often.
SECONDS_BETWEEN_LOOKS = 1.0


# --- reading


def read_rows(path: Path) -> list[Row]:
    """Read a `metrics.csv`, oldest row first; empty where there is none.

    Raises:
        ValueError: no CSV file in UTF-8; the message names it.
    """
    return _read(path)[1]


def _read(path: Path) -> tuple[tuple[str, ...], list[Row]]:
    if not path.is_file():
        return (), []
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path}: expected a CSV file in UTF-8, found: {one_line(error)}"
        ) from None
    return tuple(reader.fieldnames or ()), rows


def best_row(rows: Sequence[AnyRow], column: str) -> AnyRow | None:
    """Return the row with the highest number of a column; None where no row has one.

    Of several that are equal it is the first, so the earliest epoch's.

    >>> rows = [{"epoch": "1", "a": "0.5"}, {"epoch": "2", "a": ""}, {"epoch": "3", "a": "0.5"}]
    >>> best_row(rows, "a"), best_row(rows, "b")
    ({'epoch': '1', 'a': '0.5'}, None)
    """
    scored = [row for row in rows if row.get(column) not in ("", None)]
    return max(scored, key=lambda row: float(row[column]), default=None)


def last_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the newest row; empty where there is none."""
    return dict(rows[-1]) if rows else {}


# --- writing


class MetricsFile:
    """A CSV file with fixed columns, the first of which is `epoch`, counted from 1.

    It is rewritten as a whole with each row, so that a killed run leaves no half of one.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Read the rows of an earlier run with the same columns; others are forgotten."""
        self.path, self.columns = path, tuple(columns)
        found, rows = _read(path)
        self.rows: list[Mapping[str, Any]] = [*rows] if found == self.columns else []

    def keep_until(self, epoch: int) -> None:
        """Drop the rows of later epochs; they will be run again."""
        kept = [row for row in self.rows if int(row["epoch"]) <= epoch]
        if len(kept) < len(self.rows):
            self.rows = kept
            self._write()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row and write the file."""
        self.rows.append(row)
        self._write()

    def last(self, column: str) -> float:
        """Return the newest number of a column; 0 where there is none."""
        return float(last_row(self.rows).get(column, 0.0))

    def best(self, column: str) -> float:
        """Return the highest number of a column; -1 where there is none."""
        row = best_row(self.rows, column)
        return -1.0 if row is None else float(row[column])

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        atomic_write_text(self.path, text.getvalue())


# --- looking on


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

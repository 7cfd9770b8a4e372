"""The table of scores that a run leaves, one row an epoch that was scored."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converters.files import atomic_write_text


class MetricsFile:
    """A CSV file with fixed columns, the first of which is `epoch`, counted from 1.

    It is rewritten as a whole with each row, so that a killed run leaves no half of one.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Read the rows of an earlier run with the same columns; others are forgotten."""
        self.path, self.columns = path, tuple(columns)
        self.rows: list[Mapping[str, Any]] = []
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as lines:
                reader = csv.DictReader(lines)
                if tuple(reader.fieldnames or ()) == self.columns:
                    self.rows = list(reader)

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
        return float(self.rows[-1][column]) if self.rows else 0.0

    def best(self, column: str) -> float:
        """Return the highest number of a column; -1 where there is none."""
        return max((float(row[column]) for row in self.rows), default=-1.0)

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        atomic_write_text(self.path, text.getvalue())

"""Files for what a fit on many images would fill the memory with: tables, and stacks of them.

They lie in the folder for temporary files (`TMPDIR`). Where there is little to hold, none is made;
the numbers are the same. Tables have a name, by which other processes find them, and are removed
when nobody needs them any more, at the latest when the process ends; stacks have none.
"""

from __future__ import annotations

import os
import tempfile
import uuid
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from fusion.arrays import Floats
from fusion.fit.counts import ClassCounts, SharedCounts
from fusion.fit.stacks import Design, Scratch, Stack, width_of
from fusion.fit.weights import Goal, Mixture

KEPT_TABLES = 96 << 20
"""Bytes of tables that are kept in memory."""
_OF_TABLE = 1 << 10  # bytes of a table without its rows, about
KEPT_STACKS = 128 << 20
"""Bytes of all classes' stacks that are kept in memory."""


# --- tables


class TableWriter:
    """Collects the tables of each class, image by image; beyond so many bytes in a file."""

    def __init__(self, names: Iterable[str]) -> None:
        """Begin with none; names: of the classes."""
        self._tables: dict[str, list[ClassCounts]] = {name: [] for name in names}
        self._filed: dict[str, list[_Filed]] = {name: [] for name in self._tables}
        self._bytes = 0
        self._file: TableFile | None = None

    def add(self, tables: Mapping[str, ClassCounts]) -> None:
        """Take an image's tables, class name -> table."""
        for name, table in tables.items():
            self._tables[name].append(table)
            self._bytes += _OF_TABLE + sum(part.nbytes for part in _parts(table))
        if self._bytes <= KEPT_TABLES:
            return
        if self._file is None:
            self._file = TableFile()
        for name, waiting in self._tables.items():
            self._filed[name] += map(self._file.write, waiting)
            waiting.clear()

    def finish(self) -> Mapping[str, Sequence[ClassCounts]]:
        """Return class name -> its tables, one an image."""
        if self._file is None:
            return self._tables
        self._file.close()
        return {name: FiledTables(self._file, tuple(each)) for name, each in self._filed.items()}


@dataclass(frozen=True, slots=True)
class _Filed:
    """A table whose rows are in a file.

    Attributes:
        start: where they begin, in bytes.
        rows: how many there are.
        missed, scores, overlaps: as in `ClassCounts`.
        shared: `SharedCounts.truth`; None where nobody asked.
    """

    start: int
    rows: int
    missed: int
    scores: Floats
    overlaps: Floats
    shared: int | None


class TableFile:
    """Rows of tables, one table after the other; can be sent to processes on the same machine."""

    def __init__(self) -> None:
        """Make the file; it is removed with this object."""
        self.path = Path(tempfile.gettempdir(), f"zoo-fit-{uuid.uuid4().hex}")
        # First, so that what ends the process just after the file is there leaves none.
        weakref.finalize(self, self.path.unlink, missing_ok=True)
        # "x", as nobody else's file or link is written to; for this user alone.
        self._stream = open(self.path, "xb", opener=_for_this_user)  # noqa: SIM115 - as above
        self._reader: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_reader": None}

    def write(self, table: ClassCounts) -> _Filed:
        """Append a table's rows."""
        start = self._stream.tell()
        for part in _parts(table):
            self._stream.write(part.tobytes())
        shared = None if table.shared is None else table.shared.truth
        rows = len(table.zones)
        return _Filed(start, rows, table.missed, table.scores, table.overlaps, shared)

    def close(self) -> None:
        """Write what has not been written yet; nothing is appended any more."""
        self._stream.close()

    def read(self, filed: _Filed) -> ClassCounts:
        """Return a table."""
        if self._reader is None:
            self._reader = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            weakref.finalize(self, os.close, self._reader)
        n, sources = filed.rows, len(filed.scores)
        numbers = 2 if filed.shared is None else 4
        os.lseek(self._reader, filed.start, os.SEEK_SET)
        content = os.read(self._reader, n * (4 * numbers + sources + 1))
        counts = np.frombuffer(content, np.int32, n * numbers).reshape(numbers, n)
        rest = np.frombuffer(content, np.uint8, offset=4 * n * numbers)
        shared = None
        if filed.shared is not None:
            shared = SharedCounts(counts[2], counts[3], filed.shared)
        return ClassCounts(
            levels=rest[: n * sources].reshape(n, sources),
            zones=rest[n * sources :],
            inside=counts[0],
            other=counts[1],
            missed=filed.missed,
            scores=filed.scores,
            overlaps=filed.overlaps,
            shared=shared,
        )


@dataclass(frozen=True)
class FiledTables(Sequence[ClassCounts]):
    """One class's tables, each read when it is asked for."""

    file: TableFile
    filed: tuple[_Filed, ...]

    def __len__(self) -> int:
        return len(self.filed)

    @overload
    def __getitem__(self, place: int) -> ClassCounts: ...

    @overload
    def __getitem__(self, place: slice) -> FiledTables: ...

    def __getitem__(self, place: int | slice) -> ClassCounts | FiledTables:
        """Read a table; of a slice none is read."""
        if isinstance(place, slice):
            return replace(self, filed=self.filed[place])
        return self.file.read(self.filed[place])


def some_of(tables: Sequence[ClassCounts], places: Sequence[int]) -> Sequence[ClassCounts]:
    """Return some of a class's tables; what lies in a file stays there."""
    if isinstance(tables, FiledTables):
        return replace(tables, filed=tuple(tables.filed[i] for i in places))
    return [tables[i] for i in places]


def count_rows(tables: Sequence[ClassCounts]) -> int:
    """Return the number of rows of all of a class's tables; none is read."""
    if isinstance(tables, FiledTables):
        return sum(each.rows for each in tables.filed)
    return sum(len(table.zones) for table in tables)


def _for_this_user(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _parts(table: ClassCounts) -> list[npt.NDArray[Any]]:
    counts = [table.inside, table.other]
    if table.shared is not None:
        counts += [table.shared.hit, table.shared.claimed]
    return [*counts, table.levels, table.zones]


# --- stacks


def are_large(tables: Iterable[Sequence[ClassCounts]], sources: int, parts: int) -> bool:
    """Tell whether all classes' stacks need more memory than they may.

    Args:
        tables: each class's.
        sources: their number.
        parts: kinds of Dice that are mixed in a goal.
    """
    of_row = 4 * (width_of(sources) + sources + 1) + 1 + 8 * parts
    return sum(map(count_rows, tables)) * of_row > KEPT_STACKS


class GoalFile:
    """The classes' goals, each read when it is asked for; at most one is in memory."""

    def __init__(self) -> None:
        """Make a file without a name: however the process ends, nothing is left."""
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with this object
        self._scratch = Scratch()
        self._last: tuple[FiledGoal, Goal] | None = None
        weakref.finalize(self, self._file.close)

    def put(self, goal: Stack | Mixture) -> FiledGoal:
        """Write a goal's rows."""
        parts = goal.parts if isinstance(goal, Mixture) else ((1.0, goal),)
        design = parts[0][1].design
        return FiledGoal(
            self,
            self._write(design.columns),
            self._write(design.zones),
            tuple(
                (weight, _bare(stack), self._write(stack.inside), self._write(stack.total))
                for weight, stack in parts
            ),
        )

    def read(self, filed: FiledGoal) -> Goal:
        """Return a goal; the one that was asked for before is read once."""
        if self._last is None or self._last[0] is not filed:
            self._last = None
            design = Design(self._read(filed.columns), self._read(filed.zones), self._scratch)
            parts = (
                (w, replace(bare, design=design, inside=self._read(hit), total=self._read(total)))
                for w, bare, hit, total in filed.parts
            )
            self._last = filed, Mixture(tuple(parts))
        return self._last[1]

    def _write(self, values: npt.NDArray[Any]) -> _Place:
        start = self._file.seek(0, os.SEEK_END)
        values.tofile(self._file)
        return _Place(start, values.shape, values.dtype)

    def _read(self, place: _Place) -> npt.NDArray[Any]:
        self._file.seek(place.start)
        size = int(np.prod(place.shape))
        return np.fromfile(self._file, place.dtype, size).reshape(place.shape)


@dataclass(frozen=True)
class _Place:
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, eq=False)
class FiledGoal:
    """A goal whose rows are in a file; a `Goal`."""

    file: GoalFile = field(repr=False)
    columns: _Place
    zones: _Place
    parts: tuple[tuple[float, Stack, _Place, _Place], ...]

    def logits(self, parameters: Floats) -> npt.NDArray[np.float32]:
        """Return the rows' pooled log odds, float32 (n,)."""
        return self.file.read(self).logits(parameters)

    def soft_loss(self, parameters: Floats) -> tuple[float, Floats]:
        """Return what is to be minimised, and its gradient."""
        return self.file.read(self).soft_loss(parameters)

    def mean_dice_above(self, logits: npt.NDArray[np.float32], threshold: float) -> float:
        """Return what is won where the rows' log odds reach a threshold."""
        return self.file.read(self).mean_dice_above(logits, threshold)


def _bare(stack: Stack) -> Stack:
    nothing = np.zeros(0, np.float32)
    design = Design(np.zeros((0, 0), np.float32), np.zeros(0, np.uint8))
    return replace(stack, design=design, inside=nothing, total=nothing)

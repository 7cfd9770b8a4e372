"""Tables about images or patients (CSV), and which of their rows are about which image."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path

from converters.errors import one_line
from converters.files.lines import delimiter_of
from converters.files.names import normal_name
from converters.tables.image_columns import PERSON, ImageNames, are_files, order_columns
from converters.types import Sample

# A longer first line names no columns.
_LONGEST = 1 << 16


class NoRowsError(ValueError):
    """A table in which neither the images nor the patients that are asked for occur."""


def tables_beside(folder: Path) -> list[Path]:
    """Return the tables in a data set's folder and in this one."""
    found = [*folder.glob("*.[ct]sv"), *Path().glob("*.[ct]sv")]
    return sorted(set(found))


def find_table(file: str, tables: Sequence[Path] = ()) -> Path:
    """Return where a table lies: at the path that is given, or else beside the data.

    Args:
        file: the path, or a name.
        tables: files beside the data: of them is a table that lies nowhere else.
    """
    path = Path(file)
    return next((t for t in tables if not path.is_file() and t.name == file), path)


def read_columns(path: Path) -> list[str]:
    """Return the columns' names of a table, of which the first line is read; [] of none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline(_LONGEST)
        return next(csv.reader([first], delimiter=delimiter_of(first)), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def read_rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Read a table: its rows, and its columns' names.

    Raises:
        ValueError: no such file, or none in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise ValueError(f"{path}: expected a table (CSV in UTF-8), found: {reason}") from None
    header, _, _ = text.partition("\n")
    # A cell may have lines of its own.
    lines = io.StringIO(text, newline="")
    reader = csv.DictReader(lines, delimiter=delimiter_of(header))
    return list(reader), list(reader.fieldnames or ())


def column_of(samples: Sequence[Sample], path: Path, column: str) -> Callable[[Sample], str]:
    """Return a function: what a table says of a sample in a column; "" where it says nothing.

    A row is of the image whose name, stem, key or path one of its columns holds. Where none has
    any, it is of the patient: of the samples' groups.

    Raises:
        NoRowsError: the table has neither these images nor their patients.
        ValueError: no table, none with this column, or one that says two things of an image or
            patient.
    """
    rows, columns = read_rows(path)
    if (times := columns.count(column)) != 1:
        found = f"{times} of that name" if times else ", ".join(columns)[:200] or "an empty line"
        raise ValueError(f"{path}: expected a column '{column}' in the first line, found {found}")
    images = ImageNames({sample.key: _names(sample) for sample in samples})
    owners = _column_of_images(rows, columns, column, images)
    groups = {normal_name(sample.group) for sample in samples if sample.group}
    # Numbers of patients may be names of images, too.
    if owners is None or (PERSON.search(owners) and _of_patients(rows, [owners], groups)):
        told = _of_patients(rows, columns, groups)
        if told is None:
            raise NoRowsError(
                f"{path}: expected a column with the images' names, such as "
                f"'{samples[0].file_name if samples else ''}'; found none among "
                f"{', '.join(columns)}"
            )
        values = _values(path, column, ((name, frozenset({name}), 1, row) for name, row in told))
        return lambda sample: values.get(normal_name(sample.group), "")
    cells = [_cell(row, owners) for row in rows]
    named = zip(cells, images.find_all(cells), rows, strict=True)
    values = _values(path, column, ((cell, *meant, row) for cell, meant, row in named))
    return lambda sample: values.get(sample.key, "")


def _column_of_images(
    rows: Sequence[Mapping[str, str]], columns: Sequence[str], asked: str, images: ImageNames
) -> str | None:
    """Return the column that names images; None where there is none.

    Of several the one is meant that names most of them, of as many the likeliest by its name and
    by its cells; but one of files goes before numbers that name a few more by chance. Never the one
    that is asked for, unless there is no other.
    """
    cells = [[_cell(row, name) for name in columns] for row in rows]
    order = order_columns(columns, cells)
    found: dict[str, int] = {}
    for place in order:
        distinct = {row[place] for row in cells}
        named = set[str]().union(*(images.find(cell)[0] for cell in distinct))
        found[columns[place]] = len(named)
    others = {name: count for name, count in found.items() if count and name != asked}
    if not others:
        return asked if found[asked] else None
    most = max(others.values())
    for name, count in others.items():
        if 2 * count >= most and are_files([cell for row in rows if (cell := _cell(row, name))]):
            return name
    return next(name for name, count in others.items() if count == most)


def _of_patients(
    rows: Sequence[Mapping[str, str]], columns: Sequence[str], groups: Set[str]
) -> list[tuple[str, Mapping[str, str]]] | None:
    """Return the rows of patients, with whose they are; None where no column names patients."""
    times = {name: sum(_cell(row, name) in groups for row in rows) for name in columns}
    owners = max(times, key=lambda name: times[name])
    return [(_cell(row, owners), row) for row in rows] if times[owners] else None


def _values(
    path: Path,
    column: str,
    named: Iterable[tuple[str, Set[str], int, Mapping[str, str]]],
) -> dict[str, str]:
    """Return what rows say of images or patients: those that name more of a path count.

    Args:
        path: of the table.
        column: that is asked for.
        named: for each row what it calls its images, which they are, by how many names of their
            paths, and the row.
    """
    values: dict[str, tuple[int, str]] = {}
    for cell, keys, level, row in named:
        value = (row[column] or "").strip()
        for key in keys:
            known = values.get(key, (0, ""))
            if known[0] == level and known[1] != value:
                raise ValueError(
                    f"{path}: expected one '{column}' of '{cell}', found '{known[1]}' and '{value}'"
                )
            values[key] = max(known, (level, value), key=lambda one: one[0])
    return {key: value for key, (_, value) in values.items()}


def _cell(row: Mapping[str, str], column: str) -> str:
    return normal_name((row.get(column) or "").strip())


def _names(sample: Sample) -> tuple[str, ...]:
    own = sample.image.absolute().as_posix() if isinstance(sample.image, Path) else ""
    return tuple(filter(None, (sample.key, sample.file_name, own)))

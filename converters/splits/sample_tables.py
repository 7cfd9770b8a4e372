"""Tables about images or patients (CSV), and which of their rows are about which image."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from converters.errors import one_line
from converters.files.lines import delimiter_of
from converters.files.names import normal_name
from converters.types import Sample

# A longer first line names no columns.
_LONGEST = 1 << 16

Names = Mapping[str, tuple[str, ...]]


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

    A row is of the image whose name, stem or key it holds in one of its columns, whichever has
    most of them. Where none has any, it is of the patient: of the samples' groups.

    Raises:
        NoRowsError: the table has neither these images nor their patients.
        ValueError: no table, none with this column, or one that says two things of an image or
            patient.
    """
    rows, columns = read_rows(path)
    if column not in columns:
        raise ValueError(f"{path}: expected a column '{column}', found {', '.join(columns):.200}")
    homes: Names = {}
    times: dict[str, int] = {}
    for of in (_names, _patient):
        homes = {sample.key: of(sample) for sample in samples}
        wanted = {name for names in homes.values() for name in names}
        times = {name: sum(_cell(row, name) in wanted for row in rows) for name in columns}
        if max(times.values()):
            break
    else:
        raise NoRowsError(
            f"{path}: expected a column with the images' names, such as "
            f"'{samples[0].file_name if samples else ''}'; found none among {', '.join(columns)}"
        )
    owners = max(times, key=lambda name: times[name])
    values: dict[str, str] = {}
    for row in rows:
        name, value = _cell(row, owners), (row[column] or "").strip()
        if values.setdefault(name, value) != value:
            raise ValueError(
                f"{path}: expected one '{column}' of '{name}', found '{values[name]}' and '{value}'"
            )
    return lambda sample: next((values[n] for n in homes[sample.key] if n in values), "")


def _cell(row: Mapping[str, str], column: str) -> str:
    return normal_name((row.get(column) or "").strip())


def _names(sample: Sample) -> tuple[str, ...]:
    key = PurePosixPath(sample.key)
    return tuple(map(normal_name, (sample.key, sample.file_name, key.name, sample.image.stem)))


def _patient(sample: Sample) -> tuple[str, ...]:
    return (normal_name(sample.group),) if sample.group else ()

"""The table of patients that comes with the hand-bone competition's tree: `meta_data.xlsx`."""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

# The first heading that contains one of the words; the real notes have no heading at all.
_HEADINGS = {
    "age": ("age", "나이", "연령"),
    "sex": ("sex", "gender", "성별"),
    "weight": ("weight", "체중", "몸무게"),
    "height": ("height", "신장", "키"),
    "note": ("unnamed", "note", "비고"),
}
_SEXES = {"남": "M", "남자": "M", "남성": "M", "여": "F", "여자": "F", "여성": "F"}
LARGEST_TABLE = 200_000_000
# Control characters, also in the way that spreadsheets spell them: _x0008_.
_CONTROL = re.compile(r"_x00[01][0-9A-Fa-f]_|[\x00-\x1f]")

# What a damaged archive raises depends on where it is cut.
_BROKEN = (
    *(zipfile.BadZipFile, OSError, EOFError, LookupError, SyntaxError, TypeError, ValueError),
    *(AttributeError, ArithmeticError, AssertionError, RuntimeError, struct.error, zlib.error),
)


def read_patients(path: Path) -> dict[str, dict[str, Any]]:
    """Read the table of patients.

    Returns:
        `IDxxx` -> age (years), sex (`M` or `F`), weight (kg), height (cm), note; only the entries
        that the table has. A row that is no patient is left out.

    Raises:
        ValueError: not a spreadsheet, one without a column `ID`, or one that says two things of a
            patient.
    """
    rows = _rows(path)
    headings = [_text(value).lower() or "unnamed" for value in rows[0]] if rows else []
    if "id" not in headings:
        raise ValueError(f"expected a column 'ID', found {headings}")
    columns = {
        name: next((i for i, h in enumerate(headings) if any(w in h for w in words)), None)
        for name, words in _HEADINGS.items()
    }
    patients: dict[str, dict[str, Any]] = {}
    for row in rows[1:]:
        patient = _patient(row[headings.index("id")])
        if patient is None:
            continue
        values = {n: _value(n, row[i]) for n, i in columns.items() if i is not None}
        known = {n: value for n, value in values.items() if value is not None}
        if patients.setdefault(patient, known) != known:
            raise ValueError(f"expected one row for {patient}, found two that differ")
    return patients


def _check_size(path: Path) -> None:
    """Make sure that a spreadsheet, which is a ZIP file, fits into memory."""
    try:
        with zipfile.ZipFile(path) as parts:
            size = sum(part.file_size for part in parts.infolist())
    except _BROKEN:
        return  # and no spreadsheet, which is found when it is read
    if size > LARGEST_TABLE:
        raise ValueError(f"expected a table of at most {LARGEST_TABLE} bytes, found {size}")


def _rows(path: Path) -> list[tuple[Any, ...]]:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    _check_size(path)
    try:
        # openpyxl warns of drop-down lists and styles, which do not matter here.
        with warnings.catch_warnings(action="ignore"):
            book = load_workbook(path, read_only=True, data_only=True)
            try:
                rows = list(book.worksheets[0].iter_rows(values_only=True))
            finally:
                book.close()
    except (*_BROKEN, InvalidFileException):
        raise ValueError("expected a spreadsheet, found a file that is not one") from None
    width = max(map(len, rows), default=0)
    return [row + (None,) * (width - len(row)) for row in rows]


def _text(value: object) -> str:
    return "" if value is None else _CONTROL.sub("", str(value)).strip()


def _patient(value: object) -> str | None:
    """The folder's name of an ID, which may be 1, 1.0, "1" or "ID001"."""
    number = re.fullmatch(r"(?:ID)?0*(\d+)(?:\.0)?", _text(value), flags=re.IGNORECASE)
    return f"ID{int(number[1]):03d}" if number else None


def _value(name: str, value: object) -> str | float | None:
    text = _text(value)
    if not text:
        return None
    if name == "note":
        return text
    if name == "sex":
        return _SEXES.get(text, text.upper())
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None

"""Tables that say of which part an image is: `train`, `val` or `test`."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from converters.files.lines import TABLE_SUFFIXES, delimiter_of
from converters.subsets.names import part_name, part_of

# A column that says of which part an image is, as in `split.csv`. One of another name whose cells
# are such words is believed where there is none of these names, and the table names most images.
_PART_COLUMN = re.compile(r"(data)?[ _-]?(split|subset|partition|phase)s?", re.IGNORECASE)
_PART = re.compile(r"train(ing)?|val(id|idation)?|dev|test(ing)?", re.IGNORECASE)
# So much of a file tells what its columns are.
_BEGINNING = 1 << 16


def tells_parts(path: Path) -> bool:
    """Tell whether a file begins as a table with a column of parts."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        return False
    try:
        with path.open("rb") as file:
            content = file.read(_BEGINNING)
    except OSError:
        return False
    is_whole = len(content) < _BEGINNING
    header, *rest = table_rows(decode_table(content))[: None if is_whole else -1] or [[]]
    columns = [{cell_of(row, i) for row in rest} for i in range(len(header))]
    return len(header) > 1 and any(
        _PART_COLUMN.fullmatch(name.strip()) or (cells and all(map(_PART.fullmatch, cells)))
        for name, cells in zip(header, columns, strict=True)
    )


def part_column(rows: Sequence[Sequence[str]]) -> tuple[int | None, bool]:
    """Return the place of the column that says of each row `train`, `val` or `test`; None without.

    Args:
        rows: the header, and what follows.

    Returns:
        The place, and whether the column is called so. One of another name is meant where it has
        nothing but such words, in every row, and is the only one.
    """
    header, *rest = rows
    columns = [{cell_of(row, i) for row in rest} for i in range(len(header))]
    named = [i for i, name in enumerate(header) if _PART_COLUMN.fullmatch(name.strip())]
    for place in named:
        cells = columns[place] - {""}
        if {"train", "test"} <= set(map(part_of, cells)) or cells == {"test"}:
            return place, True
    told = [
        place
        for place, cells in enumerate(columns)
        if all(map(_PART.fullmatch, cells)) and len(set(map(part_word, cells))) > 1
    ]
    if own := [place for place in told if place in named]:
        return own[0], True
    return (told[0], False) if len(told) == 1 else (None, False)


def part_word(cell: str) -> str:
    """Return `train`, `val` or `test` where a cell says one of them; "" otherwise."""
    return "test" if part_of(cell) == "test" else part_name(cell)


def decode_table(content: bytes) -> str:
    """Return the text of a table, as spreadsheets write them, too."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def table_rows(text: str) -> list[list[str]]:
    """Return the rows of a table, from its header on; [] where it is no table.

    Empty lines, and comments that begin with `#`, are none; the header may begin so.
    """
    lines = text.splitlines()
    header = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(header)))
    except csv.Error:
        return []
    filled = [row for row in rows if any(map(str.strip, row))]
    noted = next((i for i, row in enumerate(filled) if not row[0].startswith("#")), len(filled))
    if noted and len(filled[noted - 1]) > 1 and noted < len(filled):
        first = filled[noted - 1]
        if any(_PART_COLUMN.fullmatch(name.lstrip("# ").strip()) for name in first):
            filled[noted - 1] = [first[0].lstrip("# "), *first[1:]]
    return [row for row in filled if not row[0].startswith("#")]


def cell_of(row: Sequence[str], place: int) -> str:
    """Return a cell of a row; "" where the row is too short."""
    return row[place].strip() if place < len(row) else ""

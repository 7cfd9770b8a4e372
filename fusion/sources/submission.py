"""The submission: a CSV with one row-major RLE per image and class."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from converters.errors import one_line
from converters.files.atomic import unfinished
from converters.masks import encode_rle
from converters.types import LabelSpace
from fusion.binary import binary_masks
from fusion.sources.manifest import how_to_import
from fusion.types import Prediction

HEADER = ("image_name", "class", "rle")
# What pandas makes of an empty field, where a table is read and written again.
_EMPTY_WORDS = ("", "nan")
_OF_CODES = "0123456789 "


class RleRow(NamedTuple):
    """One line of a submission: image's base name, class name, code ("" is the empty mask)."""

    image_name: str
    label: str
    rle: str


class RowSpan(NamedTuple):
    """Where a row stands in its file.

    Attributes:
        line: number of its last line, from 1.
        start: its first byte.
        length: its bytes, line end included.
    """

    line: int
    start: int
    length: int


class Image(NamedTuple):
    """An image that a submission has to cover."""

    name: str
    size_hw: tuple[int, int]


def encode(
    prediction: Prediction,
    image_name: str,
    labels: LabelSpace | Iterable[str],
    once: bool | None = None,
) -> Iterator[RleRow]:
    """Yield one row a class, in the order of the label space or of the given names.

    Args:
        prediction: of one image.
        image_name: what the rows call it.
        labels: the classes that get a row.
        once: each class occurs once in an image, so that the best of a class's detections is its
            mask; otherwise it is all that are surer than not. None is what the label space says,
            and True where names are given.
    """
    if isinstance(labels, LabelSpace):
        masks = binary_masks(prediction, labels if once is None else replace(labels, once=once))
    else:
        masks = {label: prediction.binary(label, once=once is not False) for label in labels}
    for label, mask in masks.items():
        yield RleRow(image_name, label, encode_rle(mask, prediction.size_hw))


def write(path: Path, rows: Iterable[RleRow]) -> int:
    """Write a submission, whole or not at all, and return the number of rows."""
    count = 0
    with unfinished(path) as place, place.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for row in rows:
            writer.writerow(row)
            count += 1
    return count


def read(path: Path) -> Iterator[RleRow]:
    """Yield a submission's rows in the file's order.

    Raises:
        ValueError: no such file, not UTF-8, another header, or a row without three fields; names
            the line.
    """
    for row, _ in read_places(path):
        yield row


def read_places(path: Path) -> Iterator[tuple[RleRow, RowSpan]]:
    """Yield a submission's rows, and where each stands in the file; as `read`."""
    try:
        with path.open("rb") as file:
            yield from _rows(path, file)
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a submission file, found none") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: expected a submission file, found a folder") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected CSV in UTF-8, found: {one_line(error)}") from None


def is_submission(text: str) -> bool:
    r"""Tell whether a text is a submission throughout: its header, and a code in each row.

    >>> is_submission("image_name,class,rle\na.png,Ulna,3 2\n")
    True
    >>> is_submission("image_name,class,rle\nask about a.png,,\nme,too,soon\n")
    False
    """
    try:
        header, *rows = _reader(io.StringIO(text, newline=""))
    except (ValueError, csv.Error):
        return False
    return tuple(header) == HEADER and all(
        len(row) == len(HEADER) and row[0] and row[1] and not _row(row).rle.strip(_OF_CODES)
        for row in rows
    )


def _rows(path: Path, file: BinaryIO) -> Iterator[tuple[RleRow, RowSpan]]:
    end = 0

    def lines() -> Iterator[str]:
        nonlocal end
        for raw in file:
            end += len(raw)
            yield raw.decode("utf-8-sig" if end == len(raw) else "utf-8")

    reader = _reader(lines())
    header = next(reader, None) or []
    if tuple(header) != HEADER:
        found = f"found {header!r:.60}{how_to_import(path)}"
        raise ValueError(f"{path}: expected the header {','.join(HEADER)}, {found}")
    start = end
    # The reader takes a line when it needs one, so that `end` is the end of its row.
    for fields in reader:
        if len(fields) != len(HEADER):
            found = f"{len(fields)} fields"
            raise ValueError(f"{path} line {reader.line_num}: expected 3 fields, found {found}")
        yield _row(fields), RowSpan(reader.line_num, start, end - start)
        start = end


def _reader(lines: Iterable[str]) -> Any:
    # Codes of large masks exceed the usual limit of a field.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    return csv.reader(lines, strict=True)


def _row(fields: list[str]) -> RleRow:
    image_name, label, rle = fields
    # Of an image and a class there are many rows; one text of each is enough.
    image_name, label = sys.intern(image_name), sys.intern(label)
    return RleRow(image_name, label, "" if rle.strip().casefold() in _EMPTY_WORDS else rle)


def parse_row(text: bytes) -> RleRow | None:
    """Return the row that the bytes of a `RowSpan` hold; None where they hold none."""
    try:
        fields = next(_reader(io.StringIO(text.decode("utf-8"), newline="")), None) or []
    except (UnicodeDecodeError, csv.Error):
        return None
    return _row(fields) if len(fields) == len(HEADER) else None

"""Lines of texts and tables that others wrote."""

from __future__ import annotations

import re
from pathlib import Path

from converters.errors import one_line

TABLE_SUFFIXES = (".csv", ".tsv")
# As Excel writes tables where the comma stands in numbers, and as tab-separated values.
DELIMITERS = ",;\t"
_QUOTED = re.compile(r'"[^"]*"')


def delimiter_of(header: str) -> str:
    """Return what divides a table's cells, by its first line: a comma where nothing does."""
    return max(DELIMITERS, key=_QUOTED.sub("", header).count)


def read_lines(path: Path, what: str = "a text") -> list[str]:
    """Return the lines of a text in UTF-8.

    Args:
        path: of the text.
        what: it should be, for the message.

    Raises:
        ValueError: it is no such text; the message names the file.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"{path}: expected {what}, found: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected {what} in UTF-8, found {one_line(error)}") from None

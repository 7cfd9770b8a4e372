"""Checksums of a folder's files, as `sha256sum` writes and checks them: `sha256sum -c SHA256SUMS`.

Parquet guards neither its page headers nor its footer, JSON guards nothing, and a flipped bit in
either can give another mask or another fold. So each file as a whole has a checksum.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from converters.errors import one_line

FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    return hashlib.sha256(content).hexdigest()


def read_checksums(folder: Path) -> dict[str, str]:
    """Read name -> SHA-256 of a folder's files; of a name that comes twice the last.

    Raises:
        ValueError: no such file, or a line that is no checksum.
    """
    path = folder / FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else one_line(error)
        found = "bytes that are no text" if isinstance(error, UnicodeDecodeError) else found
        raise ValueError(
            f"{path}: expected the checksums of the folder's files, found {found}: copy the whole "
            "folder again from where it is whole, or make it anew"
        ) from None
    checksums = {}
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(
                f"{path} line {number}: expected a SHA-256 and a name, found {line!r:.80}: the "
                "file is damaged; copy it again from where it is whole"
            )
        checksums[match[2]] = match[1]
    return checksums


def write_checksums(folder: Path, checksums: Mapping[str, str]) -> None:
    """Write the checksums of a folder's files, in the given order."""
    (folder / FILE).write_text(_lines(checksums.items()), encoding="utf-8", newline="\n")


def add_checksum(folder: Path, name: str, digest: str) -> None:
    """Add the checksum of one more file."""
    with (folder / FILE).open("a", encoding="utf-8", newline="\n") as file:
        file.write(_lines([(name, digest)]))


def _lines(entries: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in entries)


def check_content(path: Path, content: bytes, expected: str, what: str) -> None:
    """Make sure that a file holds what was written.

    Args:
        path: the file.
        content: what it holds.
        expected: the SHA-256 of what was written.
        what: what the file should be, for messages.

    Raises:
        ValueError: its content has another checksum.
    """
    if digest_of(content) != expected:
        raise ValueError(
            f"{path}: expected {what}, found other bytes than were written (see {FILE}): the file "
            "is damaged or was edited; copy it again from where it is whole, or make it anew"
        )

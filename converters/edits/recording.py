"""Corrections that are made one at a time: entries added to a file of edits, and taken back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from converters.edits.edits import Edits
from converters.edits.entries import SECTIONS, VERSION, parse_entries, read_record
from converters.edits.yaml_text import add_to_text, remove_from_text
from converters.files.outputs import only_writer
from converters.files.provenance import atomic_write_text

_HEAD = "# Corrections, applied when the data set is read (--edits); its files stay as they are.\n"
_THREADS = threading.Lock()


def load_or_empty(path: Path) -> Edits:
    """Read a file of edits; without one there are no corrections.

    Raises:
        DataError: as `Edits.load`.
        ValueError: not YAML.
    """
    return Edits.load(path) if path.exists() else Edits(name=str(path))


def add_entry(path: Path, section: str, entry: Mapping[str, Any]) -> Edits:
    """Add an entry at the end of its section; the file is made if there is none.

    All else in the file stays as it is, comments too. Of a file that cannot be changed in place
    (one with anchors, or all in braces) only the comments at the top stay.

    Args:
        path: the YAML file.
        section: such as `drop`.
        entry: its fields, such as `key` and `label`.

    Returns:
        The corrections that the file holds now.

    Raises:
        DataError: an unknown section, wrong fields, or an entry that contradicts another one; the
            file stays as it was.
        ValueError: a file that holds no edits.
    """
    with _alone(path):
        record = _read(path)
        listed = record.get(section)
        record[section] = [*(listed if isinstance(listed, list) else []), dict(entry)]
        return _write(path, record, partial(add_to_text, section=section, entry=entry))


def remove_entry(path: Path, section: str, number: int) -> Edits:
    """Take an entry out of a file; a section without entries goes with it.

    Comments stay, but for one on the entry's own lines.

    Args:
        path: the YAML file.
        section: such as `drop`.
        number: the entry's place in the section.

    Returns:
        The corrections that are left.

    Raises:
        ValueError: there is no such entry.
    """
    with _alone(path):
        record = _read(path)
        listed = record.get(section) or []
        if not 0 <= number < len(listed):
            raise ValueError(
                f"{path}: {section}[{number}]: expected an entry to take back, found none: the "
                "file has changed"
            )
        left = [*listed[:number], *listed[number + 1 :]]
        record = {k: v for k, v in record.items() if k != section or left}
        if left:
            record[section] = left
        return _write(path, record, partial(remove_from_text, section=section, number=number))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    # Of one process, which may write for several people, `only_writer` lets all threads in.
    with _THREADS, only_writer(path):
        yield


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"version": VERSION}
    record = read_record(path)
    # What is not understood is refused before anything is written.
    parse_entries(record, path)
    return record


def _write(path: Path, record: Mapping[str, Any], change: Callable[[str], str | None]) -> Edits:
    edits = Edits(parse_entries(record, path), str(path))
    if path.exists() and (changed := change(path.read_text(encoding="utf-8-sig"))) is not None:
        atomic_write_text(path, changed)
        return edits
    order = ["version", *SECTIONS]
    ordered = {name: record[name] for name in order if name in record}
    text = yaml.safe_dump(
        ordered, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )
    atomic_write_text(path, _head(path) + text)
    return edits


def _head(path: Path) -> str:
    """The comments at the top of a file, or those of a new one."""
    if not path.exists():
        return _HEAD
    lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    count = next((i for i, line in enumerate(lines) if line.strip()[:1] not in ("", "#")), 0)
    return "".join(lines[:count])

"""Where a command may write: nothing is replaced but what is recognised as its own, by its content.

One rule for all results. A place where nothing is, or an empty folder, is free. A file is replaced
if it starts as the same command's files do, a folder if it is what the command wrote and nobody has
put anything into it since. A symbolic link is followed only where nothing would be replaced. And
one place is written by one command at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from converters.files.json_files import load_json

# Processes that a command starts inherit what it holds, by name.
_HELD = "MASKZOO_WRITES"
# Left by file managers, and by readers that keep what they have counted.
_CACHES = (".cache", ".DS_Store", "Thumbs.db", "desktop.ini")


def real_place(out: Path) -> Path:
    """Return where a result will be: a link's target, where there is nothing to be replaced.

    Raises:
        ValueError: `out` is a symbolic link to something that is there, or leads in a circle.
    """
    try:
        target = Path(os.path.realpath(out, strict=False))
        is_free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{out}: expected a place to write: {error}") from None
    if out.is_symlink() and (not is_free or target.is_symlink()):
        raise ValueError(
            f"{out}: expected a place to write, found a symbolic link to {target}: give that place "
            "itself, or remove the link"
        )
    return target


def _check_folder(out: Path, place: Path) -> None:
    """Make sure that a file can be made: folders that are not there are made with it."""
    above = next(folder for folder in place.parents if os.path.lexists(folder))
    if not above.is_dir():
        raise ValueError(f"{out}: expected a file in a folder, but {above} is none")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"{out}: expected a folder to write to, but {above} is write-protected")


def check_file(out: Path, what: str, is_ours: Callable[[str], bool]) -> None:
    """Make sure that a file may be written; to be called before the work as well.

    Args:
        out: the file.
        what: what the command writes, for the error.
        is_ours: tells by a file's text whether the command may have written it. An empty file is
            nobody's.

    Raises:
        ValueError: a folder, a link or a device is there, or a file that is not the command's own;
            or no file can be made there.
    """
    place = real_place(out)
    if place.is_dir():
        raise ValueError(f"{out}: expected a file to write, found a folder")
    if not place.exists():
        _check_folder(out, place)
        return
    if not place.is_file():
        # A new file would take its place, and some are read without an end.
        raise ValueError(f"{out}: expected a file to write, found a device or a pipe")
    try:
        text = place.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise ValueError(f"{out}: expected a file to write: {error.strerror}") from None
    if text and not is_ours(text):
        raise ValueError(
            f"{out}: expected nothing there, or {what} to replace, found another file: move it, or "
            "choose another place"
        )


def csv_with(header: Sequence[str]) -> Callable[[str], bool]:
    r"""Return what tells a table by the names of its first columns.

    >>> csv_with(("image_name", "class"))("image_name,class,rle\n")
    True
    """
    start = ",".join(header)

    def is_ours(text: str) -> bool:
        first = text.partition("\n")[0].strip()
        return first == start or first.startswith(f"{start},")

    return is_ours


def json_with(*keys: str) -> Callable[[str], bool]:
    """Return what tells a JSON object by keys that it must have.

    >>> json_with("folds", "seed")('{"seed": 0, "folds": []}')
    True
    """

    def is_ours(text: str) -> bool:
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            return False
        return isinstance(record, dict) and set(keys) <= set(record)

    return is_ours


# --- folders


def listing(folder: Path, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return what tells whether a folder still holds what was written there: names and sizes.

    Args:
        folder: the result.
        without: names at its top that do not count.
    """
    entries = sorted(_entries(folder, without))
    text = json.dumps(entries, ensure_ascii=True).encode()
    return {"count": len(entries), "sha256": hashlib.sha256(text).hexdigest()}


def _entries(folder: Path, without: Sequence[str]) -> Iterator[tuple[str, int]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            place = path.relative_to(folder).as_posix()
            if place not in without and not name.endswith(_CACHES):
                yield place, path.lstat().st_size


def check_result(folder: Path, kind: str, provenance: str) -> None:
    """Make sure that a folder is free, or a result of this kind as it was written.

    Args:
        folder: what would be replaced.
        kind: of the result.
        provenance: name of the file that says what a result is.

    Raises:
        ValueError: something else is there, or something was added or changed since.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    found: Any = None
    if folder.is_dir():
        try:
            found = load_json(folder / provenance)
        except ValueError:
            found = None
    record = found if isinstance(found, dict) and isinstance(found.get("versions"), dict) else {}
    if record.get("kind") != kind:
        other = record.get("kind")
        what = f"a result of '{other}'" if other else "something else"
        raise ValueError(
            f"{folder}: expected nothing there, or a result of '{kind}' to replace; found {what}: "
            "remove it or choose another place"
        )
    written = record.get("files")
    if written is not None and written != listing(folder, (provenance,)):
        raise ValueError(
            f"{folder}: expected a result of '{kind}' as it was written; found files that were "
            "added, changed or removed since: move it away, or choose another place"
        )


# --- one command at a time


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Hold a place, so that no other command writes there at the same time.

    What is held ends with the process, however that ends, and leaves no file: on Linux it is the
    name of a local socket that nobody listens to (unix(7), abstract sockets). Elsewhere only the
    work itself is locked, see `converters.files.atomic`. Processes that a command starts, and
    commands that it calls, may write where it does.

    Args:
        out: a file or a folder, there or not.

    Raises:
        ValueError: another command writes there.
    """
    name = hashlib.sha256(os.fsencode(os.path.realpath(out))).hexdigest()
    held = os.environ.get(_HELD, "")
    if sys.platform != "linux" or name in held.split(","):
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as place:
        try:
            place.bind(f"\0maskzoo-{name}")
        except OSError:
            raise ValueError(
                f"{out}: another command is writing there; wait for it, or choose another place"
            ) from None
        os.environ[_HELD] = f"{held},{name}".strip(",")
        try:
            yield
        finally:
            if held:
                os.environ[_HELD] = held
            else:
                os.environ.pop(_HELD, None)

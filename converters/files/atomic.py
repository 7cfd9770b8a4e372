"""What is being written, until it is whole: beside its place, marked as ours, and locked.

A result is written in a folder of its own, `.NAME.XXXXXXXX.partial` beside `NAME`, and moved when
it is whole. Work that a second start continues has a folder whose name is always the same. Both
hold a mark, which says that they are ours; their process locks it as long as it lives. So what a
killed process left is told from what another one is writing, and from what somebody else put there:
only the first is ever cleared away.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

MARK = ".maskzoo-unfinished"
SUFFIX = ".partial"
# Where a result waits that another one is about to replace.
_PREVIOUS = ".maskzoo-previous"
_TEXT = (
    "maskzoo writes a result here, or did when it was killed.\n"
    "If it is not running, the same command clears this folder away or continues with it.\n"
)
_RANDOM = r"\.[a-z0-9_]{8}" + re.escape(SUFFIX)


class Claim:
    """A folder that is ours, as its mark says, and that no other process may use."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        """Take a folder whose mark is open and locked; see `claim`."""
        self.folder = folder
        # Closing unlocks, also where whoever held it is forgotten; a copy of this process that
        # closes it as well unlocks nothing.
        self._close = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Let other processes continue in the folder."""
        self._close()

    def clear(self) -> None:
        """Remove all that the folder holds, but for the mark."""
        for entry in self.folder.iterdir():
            if entry.name != MARK:
                _remove(entry)

    def remove(self) -> None:
        """Remove the folder, the mark last: what a kill leaves of it is still ours."""
        if self._close.alive:
            self.clear()
            self.unmark()
            self.folder.rmdir()

    def unmark(self, folder: Path | None = None) -> None:
        """Remove the mark: the folder is a result now, perhaps at another place."""
        ((folder or self.folder) / MARK).unlink()
        self.release()


def claim(folder: Path, what: str) -> Claim:
    """Make a folder, or take over what a killed process left in it, to be continued.

    Args:
        folder: always the same for the same work.
        what: what is expected there, for the error.

    Raises:
        ValueError: something is there that is not ours, or another process is working in it.
    """
    if folder.exists() and not is_ours(folder) and not _is_empty(folder):
        raise ValueError(
            f"{folder}: expected {what}, found another thing; move it, or choose another place"
        )
    folder.mkdir(parents=True, exist_ok=True)
    found = _lock(folder)
    if found is None:
        raise ValueError(
            f"{folder}: another command is writing there; wait for it, or choose another place"
        )
    return found


def is_ours(folder: Path) -> bool:
    """Tell whether a folder has our mark."""
    try:
        # A kill may have left a part of it.
        return _TEXT.startswith((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return False


@contextmanager
def unfinished(target: Path, *, clears: bool = True) -> Iterator[Path]:
    """Give a path beside `target` that becomes `target` when the block ends without an error.

    An error leaves `target` as it was.

    Args:
        target: a file or a folder; one of the same kind is replaced as a whole.
        clears: clear away first what killed processes left beside `target`; see `clear_leftovers`.

    Yields:
        Where the block has to write a file or make a folder; nothing is there yet.

    Raises:
        ValueError: another process has put a folder at `target` just now.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if clears:
        clear_leftovers(target.parent, target.name)
    with workplace(target) as folder:
        whole = folder / target.name
        yield whole
        _publish(whole, target, folder)


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target`, which is removed when the block ends."""
    held = _make(target)
    try:
        yield held.folder
    finally:
        held.remove()


def clear_leftovers(folder: Path, name: str = "") -> None:
    """Clear away what killed processes left of results in a folder.

    A result that was whole is put in its place, if its previous one had been taken away already.

    Args:
        folder: where the results are.
        name: of one result; empty means all.
    """
    pattern = re.compile(rf"\.({re.escape(name) if name else '.+'}){_RANDOM}")
    with os.scandir(folder) as entries:
        names = [(m[1], m[0]) for e in entries if (m := pattern.fullmatch(e.name)) and e.is_dir()]
    for of, left in names:
        with contextlib.suppress(FileNotFoundError):
            _clear(folder / left, folder / of)


def _clear(left: Path, target: Path) -> None:
    if _is_empty(left):
        # Killed before the mark was there, or after it was removed.
        with contextlib.suppress(OSError):
            left.rmdir()
        return
    found = _lock(left, is_left=True) if is_ours(left) else None
    if found is None:
        return
    if (left / _PREVIOUS).exists() and not target.exists():
        whole = left / target.name
        os.replace(whole if whole.exists() else left / _PREVIOUS, target)
    found.remove()


def _make(target: Path) -> Claim:
    while True:
        made = tempfile.mkdtemp(prefix=f".{target.name}.", suffix=SUFFIX, dir=target.parent)
        # Another process may have taken it for an empty leftover.
        with contextlib.suppress(FileNotFoundError):
            if found := _lock(Path(made)):
                return found


def _lock(folder: Path, is_left: bool = False) -> Claim | None:
    """Mark and lock a folder; None where another process holds it.

    Where there are no locks nobody knows: what may be left by a killed process is then let lie,
    and what has to be written is written.
    """
    mark = folder / MARK
    descriptor = os.open(mark, os.O_RDWR | os.O_CREAT, 0o644)
    if not _is_free(descriptor, unknown=not is_left) or not _is_same(descriptor, mark):
        os.close(descriptor)
        return None
    os.write(descriptor, _TEXT.encode())
    return Claim(folder, descriptor)


def _is_free(descriptor: int, unknown: bool) -> bool:
    if sys.platform == "win32":
        return unknown
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return unknown
    return True


def _is_same(descriptor: int, mark: Path) -> bool:
    # Whoever held it before may have removed it.
    try:
        return os.path.samestat(os.fstat(descriptor), mark.stat())
    except FileNotFoundError:
        return False


def _publish(whole: Path, target: Path, folder: Path) -> None:
    if not (whole.is_dir() and target.is_dir()):
        os.replace(whole, target)
        return
    os.replace(target, folder / _PREVIOUS)
    try:
        os.replace(whole, target)
    except OSError as error:
        if not target.exists():
            os.replace(folder / _PREVIOUS, target)
            raise
        raise ValueError(f"{target}: another command wrote there just now; run again") from error


def swap(whole: Path, target: Path) -> None:
    """Put a folder at a place; what was there is taken aside first, and removed last.

    A kill in between leaves both, of which `clear_leftovers` makes one.

    Raises:
        ValueError: another process has put a folder there just now.
    """
    with workplace(target) as folder:
        _publish(whole, target, folder)


def is_leftover(path: Path) -> bool:
    """Tell whether a folder is what a killed process left, or what one is writing."""
    return path.name.startswith(".") and path.name.endswith(SUFFIX) and is_ours(path)


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)

"""Files that a node has had brought, by digest: each is brought once while there is room for it."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zoo.pipeline.storage.transfer import Tree, at_once

FOLDER, LIMIT = "MASKZOO_NODE", "MASKZOO_NODE_GB"
"""Variables of a node: its working folder, and the most that its cache keeps."""
_USUAL_FOLDER, _USUAL_GB = "~/.cache/maskzoo/node", 100.0
_FILES = "files"
_GB = 1e9
# The time of files that nobody has written to: whoever does sets another one.
_UNTOUCHED_NS = 10**18


def node_folder() -> Path:
    """Return this machine's working folder."""
    return Path(os.environ.get(FOLDER, "") or _USUAL_FOLDER).expanduser().absolute()


def cache_limit() -> float:
    """Return the bytes that this machine's cache may keep.

    Raises:
        ValueError: the variable holds no number.
    """
    text = os.environ.get(LIMIT, "") or str(_USUAL_GB)
    with suppress(ValueError):
        if float(text) >= 0:
            return _GB * float(text)
    raise ValueError(f"{LIMIT}: expected gigabytes, such as 100, found '{text}'")


class Cache:
    """A folder of files by digest, which several steps of a machine use at a time.

    Args:
        folder: of the files.
        limit: bytes that `trim` leaves.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self._folder, self._limit = folder, limit
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of_node(cls) -> Cache:
        """Return that of this machine."""
        return cls(node_folder() / _FILES, cache_limit())

    def file(self, digest: str) -> Path:
        """Return where the file with a digest lies, if it is there."""
        return self._folder / digest[:2] / digest

    def size(self) -> int:
        """Return the bytes that are kept."""
        return sum(path.stat().st_size for path in self._kept())

    def bring(self, tree: Tree, get: Callable[[str, Path], None], root: Path) -> tuple[int, int]:
        """Lay out a tree; return how many files, and bytes, had to be brought for it.

        Args:
            tree: by absolute paths.
            get: brings the file with a digest to a path, whole and checked.
            root: that stands for "/"; gets links to the files, without a copy where the disk can do
                that.
        """
        wanted = {digest: size for size, digest in tree.values()}
        # Another step brings the same just now: it is waited for.
        with self._locked():
            absent = [digest for digest in wanted if not self._is_sound(digest)]
            at_once(lambda digest: get(digest, self.file(digest)), absent)
            for path, (_, digest) in tree.items():
                self._link(digest, root / path.lstrip("/"))
        return len(absent), sum(wanted[digest] for digest in absent)

    def _link(self, digest: str, place: Path) -> None:
        file = self.file(digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, place)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(file, place)
        _mark(file)

    def _is_sound(self, digest: str) -> bool:
        """Tell whether a file is here as it was brought: a step may have written to its link."""
        with suppress(FileNotFoundError):
            return self.file(digest).stat().st_mtime_ns == _UNTOUCHED_NS
        return False

    def keep(self, file: Path, digest: str) -> None:
        """Take over a file, which later steps will need."""
        self.file(digest).parent.mkdir(exist_ok=True)
        os.replace(file, self.file(digest))
        _mark(self.file(digest))

    def trim(self) -> None:
        """Remove what was not used for longest, but for what a step has, down to the limit."""
        with self._locked():
            kept = [(path, path.stat()) for path in self._kept()]
            left = sum(about.st_size for _, about in kept)
            for path, about in sorted(kept, key=lambda one: one[1].st_atime_ns):
                if left <= self._limit:
                    return
                if about.st_nlink == 1:
                    path.unlink(missing_ok=True)
                    left -= about.st_size

    def _kept(self) -> Iterator[Path]:
        for folder in self._folder.iterdir():
            if folder.is_dir():
                yield from (path for path in folder.iterdir() if not path.name.startswith("."))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _mark(file: Path) -> None:
    """Note that a file was used just now, and that nobody has written to it."""
    os.utime(file, ns=(time.time_ns(), _UNTOUCHED_NS))

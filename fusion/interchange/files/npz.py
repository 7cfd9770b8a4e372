"""What a NPZ says of itself: its arrays, the texts in it, and which of them name a stack's images.

    numpy.savez('predictions.npz', probabilities=stack, images=names, classes=class_names)

A stack has an image along its first axis; the names are as many texts. `classes`, `class_names`,
`labels` or `categories` are those of the planes or numbers.
"""

from __future__ import annotations

import re
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

SUFFIX = ".npz"
_CLASSES = re.compile(r"(class|label|categor)[a-z]*([_ ]?names?)?", re.IGNORECASE)
# What numpy and its libraries say of a damaged file: a stream, a header, a method of compression, a
# password, a size beyond the memory, or one array in the place of several.
BROKEN = (
    *(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError),
    *(RuntimeError, MemoryError, TypeError, tokenize.TokenError, SyntaxError),
)
# Axes of the arrays of several images: these, height and width.
_STACKED = 3


@dataclass(frozen=True)
class Head:
    """What an array is.

    Attributes:
        shape: of it.
        dtype: of its values.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def is_list(self) -> bool:
        """Whether it is a list of texts."""
        return len(self.shape) == 1 and self.dtype.kind in "US"


def names_in(path: Path) -> list[str]:
    """Return the names of a NPZ's arrays; of another file, or a damaged one, none."""
    if path.suffix.lower() != SUFFIX:
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return _names_of(archive)
    except BROKEN:
        return []


def _names_of(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist()]


def heads_in(path: Path) -> dict[str, Head]:
    """Return name -> what this array of a NPZ is; of a damaged file, or another, none."""
    found: dict[str, Head] = {}
    if path.suffix.lower() != SUFFIX:
        return found
    try:
        with zipfile.ZipFile(path) as archive:
            for name in _names_of(archive):
                with archive.open(f"{name}.npy") as file:
                    found[name] = _read_head(file)
    except (*BROKEN, KeyError):
        return {}
    return found


def _read_head(file: IO[bytes]) -> Head:
    version = np.lib.format.read_magic(file)
    is_first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return Head(shape, dtype)


def texts_in(path: Path) -> dict[str, tuple[str, ...]]:
    """Return name -> the texts of it, of each list of texts in a NPZ."""
    lists = [name for name, head in heads_in(path).items() if head.is_list]
    if not lists:
        return {}
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: _decoded(content[name]) for name in lists}
    except BROKEN:
        return {}


def _decoded(values: npt.NDArray[np.generic]) -> tuple[str, ...]:
    texts = values.tolist()
    return tuple(t.decode("utf-8", "replace") if isinstance(t, bytes) else str(t) for t in texts)


def classes_in(path: Path) -> tuple[str, ...]:
    """Return the classes that a NPZ names; none where it names none."""
    texts = texts_in(path)
    return next((texts[name] for name in texts if _CLASSES.fullmatch(name)), ())


def stacks_in(path: Path, count: int) -> list[str]:
    """Return the names of a NPZ's arrays of so many images."""
    heads = heads_in(path)
    return [n for n, h in heads.items() if len(h.shape) >= _STACKED and h.shape[0] == count]


def read_stack(path: Path, name: str) -> npt.NDArray[np.generic]:
    """Return an array of a NPZ; the last one is kept, as its images are asked for one by one.

    Raises:
        ValueError: as numpy's `load`, which may raise others, too.
    """
    return _read_once(path, name, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_once(path: Path, name: str, _changed: int) -> npt.NDArray[np.generic]:
    with np.load(path, allow_pickle=False) as content:
        values: npt.NDArray[np.generic] = content[name]
    values.flags.writeable = False
    return values


def is_of_python(heads: Mapping[str, Head]) -> str:
    """Return the name of a list of Python's objects, which may be names; "" where there is none."""
    return next((n for n, h in heads.items() if h.dtype.kind == "O" and len(h.shape) == 1), "")

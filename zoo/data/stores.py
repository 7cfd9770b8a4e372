"""Samples at the size at which they are used: decoded each time, or kept in memory or on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import cv2
import numpy as np

from converters.files.atomic import clear_leftovers, unfinished
from converters.files.images import Pixels
from zoo.data.area_targets import AreaMask
from zoo.data.bits import BitMask, Part
from zoo.data.items import Items
from zoo.data.reading import read_ahead, resize_image

Cache = Literal["memory", "disk", "none"]
# Of what a file of `DiskStore` holds: another number makes all files anew.
VERSION = 2
# Numbers that every file begins with.
_HEAD = 9


@dataclass(frozen=True)
class Form:
    """What is made of a decoded sample.

    Attributes:
        size_hw: of the image.
        mask: `bits` or `shares` (of `classes`) at that size; `own`: bits at the image's own size.
        classes: how many there are.
    """

    size_hw: tuple[int, int]
    mask: Literal["bits", "shares", "own"] = "bits"
    classes: int = 0

    def reduce(self, mask: BitMask) -> BitMask | AreaMask:
        """Return a mask as this form has it."""
        if self.mask == "shares":
            return mask.shrunk(self.classes, self.size_hw)
        return mask if self.mask == "own" else mask.resized(self.size_hw)


@dataclass(frozen=True)
class StoredSample:
    """A sample in its form.

    Attributes:
        key: the sample's key.
        image: uint8 (h, w) or (h, w, 3); may be a part of a file that is read when it is looked at.
        mask: of all classes.
    """

    key: str
    image: Pixels
    mask: BitMask | AreaMask


class Store(Protocol):
    """Samples in a form, by number; from several threads at once."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int) -> StoredSample:
        """Return a sample."""


def open_store(items: Items, form: Form, cache: Cache, folder: Path | None = None) -> Store:
    """Return samples in a form.

    Args:
        items: decodes them.
        form: which.
        cache: where they are kept. In memory all are read at once, so that worker processes, which
            are forks, share them (where workers are started anew, as on macOS, each has its own
            copy: keep them on disk). On disk they are written when they are first asked for.
        folder: for files; what is in there can be deleted at any time.

    Raises:
        ValueError: no folder where one is needed, or it cannot be made.
    """
    made = Made(items, form)
    if cache == "none":
        return made
    if cache == "memory":
        return MemoryStore(made)
    if folder is None:
        raise ValueError("cache: 'disk': expected a folder for its files, found none")
    return DiskStore(made, folder)


class Made:
    """Samples that are decoded each time."""

    def __init__(self, items: Items, form: Form) -> None:
        self._items, self._form = items, form

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> StoredSample:
        item = self._items[index]
        image = resize_image(item.image, self._form.size_hw)
        return StoredSample(item.key, image, self._form.reduce(item.mask))

    def digest(self, index: int) -> str:
        """Return what tells a sample in its form from all others, and from its earlier states."""
        how = repr((VERSION, cv2.__version__, self._form)).encode()
        return hashlib.blake2b(how + self._items.stamp(index), digest_size=16).hexdigest()


class MemoryStore:
    """Samples that are decoded once: a radiograph with 29 classes takes 1.03 bytes a pixel."""

    def __init__(self, made: Store, at_once: bool = True) -> None:
        """Prepare to keep samples.

        Args:
            made: decodes them.
            at_once: all now, or each when it is first asked for.
        """
        self._made = made
        every = range(len(made)) if at_once else ()
        self._kept = dict(zip(every, read_ahead(made.__getitem__, every), strict=True))

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, index: int) -> StoredSample:
        if index not in self._kept:
            self._kept[index] = self._made[index]
        return self._kept[index]


class DiskStore:
    """Samples that are decoded once, for all processes and runs that name the same folder.

    A sample is a file, `<digest>.npy`, made when it is first asked for. It appears whole or not at
    all, so a run that is killed goes on with what there is, and processes may fill a folder
    together. The digest is of everything that decides its content: the image file's place, size
    and time, the annotation, the classes, the form, the version of OpenCV. What has changed is
    therefore made anew. Folds share files. What is no longer asked for stays until somebody deletes
    it. Files are mapped: what processes read is in memory once.
    """

    def __init__(self, made: Made, folder: Path) -> None:
        """Open a folder.

        Raises:
            ValueError: it cannot be made.
        """
        self._made, self._folder = made, folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{folder}: expected a place for the samples' files: {error.strerror}"
            ) from None
        clear_leftovers(folder)

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, index: int) -> StoredSample:
        path = self._folder / f"{self._made.digest(index)}.npy"
        # A file that something else has cut off is like none.
        with contextlib.suppress(FileNotFoundError, ValueError, EOFError):
            return _decode(np.load(path, mmap_mode="r", allow_pickle=False))
        kept = self._made[index]
        try:
            _write(path, lambda file: np.save(file, _encode(kept), allow_pickle=False))
        except OSError as error:
            raise ValueError(
                f"{self._folder}: expected room for '{kept.key}': {error.strerror}; choose another "
                "cache_dir, or another cache"
            ) from None
        return kept


def _write(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let a file appear as a whole."""
    # Leftovers went when the store was opened: there are too many files to look each time.
    with unfinished(path, clears=False) as place, place.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


# --- a sample as bytes: numbers (int32), the key, the image, the parts one after the other


def _encode(kept: StoredSample) -> Pixels:
    """Return a sample as bytes, uint8 (n,)."""
    key, mask = kept.key.encode(), kept.mask
    if isinstance(mask, BitMask):
        kind, depth = 0, mask.channels
        parts = [(bit, x, y, len(rows), width, rows) for bit, x, y, width, rows in mask.parts]
    else:
        kind, depth = 1, mask.classes
        parts = [(c, x, y, *pixels.shape, pixels) for c, x, y, pixels in mask.parts]
    channels = kept.image.shape[2] if kept.image.ndim == 3 else 1
    head = [len(key), *kept.image.shape[:2], channels, kind, *mask.size_hw, depth, len(parts)]
    numbers = np.array(head + [n for part in parts for n in part[:5]], "<i4")
    pieces = [numbers.view(np.uint8), np.frombuffer(key, np.uint8), kept.image.ravel()]
    return np.concatenate([*pieces, *(part[5].ravel() for part in parts)])


def _decode(content: Pixels) -> StoredSample:
    """Return a sample of bytes, uint8 (n,); its arrays are views of them.

    Raises:
        ValueError: not all of the bytes, or other ones.
    """
    # Of a mapped file every slice would be a mapped file again, which is slow.
    content = np.asarray(content)
    if content.dtype != np.uint8 or content.ndim != 1 or len(content) < 4 * _HEAD:
        raise ValueError("expected the bytes of a sample")
    head = content[: 4 * _HEAD].view("<i4").tolist()
    key_length, height, width, channels, kind, mask_height, mask_width, depth, count = head
    place = 4 * (_HEAD + 5 * count)
    table = content[4 * _HEAD : place].view("<i4").reshape(count, 5).tolist()

    def take(length: int) -> Pixels:
        nonlocal place
        place += length
        return content[place - length : place]

    key = bytes(take(key_length)).decode()
    shape = (height, width) if channels == 1 else (height, width, channels)
    image = take(height * width * channels).reshape(shape)
    size_hw = (mask_height, mask_width)
    if kind == 0:
        rows = [take(h * -(-w // 8)).reshape(h, -(-w // 8)) for _, _, _, h, w in table]
        parts = (Part(c, x, y, w, r) for (c, x, y, _, w), r in zip(table, rows, strict=True))
        return StoredSample(key, image, BitMask(size_hw, depth, tuple(parts)))
    shares = [(c, x, y, take(h * w).reshape(h, w)) for c, x, y, h, w in table]
    return StoredSample(key, image, AreaMask(size_hw, depth, tuple(shares)))

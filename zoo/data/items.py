"""Decoded samples by number, from image files and polygons or from rows of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import shapely

from converters.files.images import Pixels
from converters.formats.hf.dataset import decode_row
from converters.formats.hf.rows import mask_columns
from converters.masks import class_masks, paint
from converters.types import ImageFile, LabelSpace, Sample
from zoo.data.bits import BitMask
from zoo.data.reading import read_image


@dataclass(frozen=True)
class Item:
    """A decoded sample.

    Attributes:
        key: the sample's key.
        image: uint8 (H, W) in grey, or (H, W, 3) in red, green and blue.
        mask: of all classes, of the image's size.

    Raises:
        ValueError: another dtype or shape.
    """

    key: str
    image: Pixels
    mask: BitMask

    def __post_init__(self) -> None:
        shape = self.image.shape
        if self.image.dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
            found = f"{self.image.dtype} {shape}"
            raise ValueError(
                f"{self.key}: expected an image, uint8 (H, W) or (H, W, 3), found {found}"
            )
        if self.mask.size_hw != shape[:2]:
            found = f"{self.mask.size_hw}"
            raise ValueError(f"{self.key}: expected a mask {shape[:2]}, found {found}")

    @property
    def packed(self) -> Pixels:
        """Bit-packed mask, uint8 (H, W, ceil(C / 8)), as `converters.masks.pack` makes it."""
        return self.mask.planes()


class Items(Protocol):
    """A data set that gives decoded samples by number."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int) -> Item:
        """Decode a sample; from several threads at once."""

    def key(self, index: int) -> str:
        """Return a sample's key, without decoding it."""

    def stamp(self, index: int) -> bytes:
        """Return what changes whenever the sample's pixels or labels do; without decoding it."""


class SampleItems:
    """Samples, read from their image files; polygons become pixels at the image's own size."""

    def __init__(self, samples: Sequence[Sample], labels: LabelSpace, channels: int = 1) -> None:
        """Take samples.

        Args:
            samples: the samples.
            labels: the classes.
            channels: of their images, 1 or 3.
        """
        self._samples, self._labels, self._channels = samples, labels, channels

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Item:
        sample = self._samples[index]
        masks = class_masks(sample.instances, sample.size_hw, self._labels)
        mask = BitMask.of_masks(masks, self._labels, sample.size_hw)
        return Item(sample.key, read_image(sample, self._channels), mask)

    def key(self, index: int) -> str:
        """Return a sample's key."""
        return self._samples[index].key

    def stamp(self, index: int) -> bytes:
        """Return a digest of the classes, the annotation, and the image file's size and time.

        Raises:
            ValueError: no such file.
        """
        sample = self._samples[index]
        file = _file_stamp(sample.image)
        about: tuple[object, ...] = (sample.key, file, sample.size_hw, sample.frame)
        pixels = self._labels.names, self._labels.exclusive, self._labels.background
        about = (*about, *pixels, self._channels)
        digest = hashlib.blake2b(repr(about).encode(), digest_size=16)
        for instance in sample.instances:
            digest.update(instance.label.encode() + b"\0" + shapely.to_wkb(instance.geometry))
        return digest.digest()


def _file_stamp(image: ImageFile) -> tuple[object, ...]:
    """What changes with a file: place, size and time; of a row of a table its bytes."""
    try:
        if not isinstance(image, Path):
            return image.name, hashlib.blake2b(image.read_bytes()).hexdigest()
        found = image.stat()
    except OSError as error:
        raise ValueError(f"{image}: expected an image: {error.strerror}") from None
    return str(image.absolute()), found.st_size, found.st_mtime_ns


class HuggingFaceItems:
    """Rows of `converters.formats.hf.dataset.open_split`."""

    def __init__(self, rows: Any, labels: LabelSpace, channels: int = 1) -> None:
        """Take rows; `channels` of their images, 1 or 3."""
        self._rows, self._classes, self._channels = rows, len(labels), channels
        self._labels = labels
        self._bytes = -(-len(labels) // 8)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Item:
        key, image, packed = decode_row(self._rows[index], self._classes, self._channels)
        mask = BitMask.of_packed(packed[..., : self._bytes])
        if self._labels.exclusive:
            # Files hold objects only, and those of others may overlap.
            painted = paint(mask.crops(), mask.size_hw, self._labels)
            mask = BitMask.of_masks(painted, self._labels, mask.size_hw)
        return Item(key, image, mask)

    def key(self, index: int) -> str:
        """Return a row's key."""
        return str(self._rows[index]["key"])

    def stamp(self, index: int) -> bytes:
        """Return a digest of the row's bytes."""
        row = self._rows[index]
        about = f"{row['key']}\0{self._bytes}\0{self._channels}\0"
        about += f"{self._labels.exclusive}\0{self._labels.background}\0"
        digest = hashlib.blake2b(about.encode(), digest_size=16)
        for part in ("image", *mask_columns(self._classes)):
            digest.update(hashlib.blake2b(row[part]["bytes"]).digest())
        return digest.digest()

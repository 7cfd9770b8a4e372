"""Masks of all classes that are kept only where they are not empty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from converters.files.images import Pixels
from converters.masks import Box, CropMask
from converters.types import LabelSpace
from zoo.data.area_targets import AreaMask, shrink

Places = npt.NDArray[np.int64]


class Part(NamedTuple):
    """One class's box of pixels.

    Attributes:
        bit: the class.
        x: column of the box's left edge.
        y: row of its upper edge.
        width: of the box.
        rows: its pixels, uint8 (h, ceil(width / 8)), eight to a byte, the leftmost one highest.
    """

    bit: int
    x: int
    y: int
    width: int
    rows: Pixels

    def crop(self) -> CropMask:
        """Return the pixels, one to a byte."""
        return CropMask(self.x, self.y, np.unpackbits(self.rows, axis=1, count=self.width))


@dataclass(frozen=True)
class BitMask:
    """All classes of an image, a box of bits each.

    29 classes of a radiograph take .03 bytes a pixel, where a bit-packed mask takes 4; making that
    of it takes less time than copying it would.

    Attributes:
        size_hw: of the image.
        channels: bytes a pixel of the bit-packed mask.
        parts: the classes that have pixels.
    """

    size_hw: tuple[int, int]
    channels: int
    parts: tuple[Part, ...]

    @classmethod
    def of_masks(
        cls, masks: Mapping[str, CropMask], labels: LabelSpace, size_hw: tuple[int, int]
    ) -> BitMask:
        """Take the masks of an image, by label.

        Raises:
            ValueError: a label that the label space does not have.
        """
        if unknown := [label for label in masks if label not in labels.index]:
            raise ValueError(f"expected a label of '{labels.name}', found '{unknown[0]}'")
        crops = ((labels.index[label], mask) for label, mask in masks.items())
        return cls.of_crops(crops, len(labels), size_hw)

    @classmethod
    def of_crops(
        cls, crops: Iterable[tuple[int, CropMask]], bits: int, size_hw: tuple[int, int]
    ) -> BitMask:
        """Take masks by their bits, of which there are so many."""
        parts = tuple(_part(bit, mask) for bit, mask in crops if mask.area)
        return cls(size_hw, -(-bits // 8), parts)

    @classmethod
    def of_packed(cls, packed: Pixels) -> BitMask:
        """Take a bit-packed mask, uint8 (H, W, B): bit c % 8 of channel c // 8 is class c."""
        parts = []
        for channel in range(packed.shape[2]):
            # Reading along a channel of its own is ten times as fast.
            plane = np.ascontiguousarray(packed[..., channel])
            rows, columns = (np.bitwise_or.reduce(plane, axis=axis) for axis in (1, 0))
            for number in range(8):
                bit = np.uint8(1 << number)
                high, wide = np.flatnonzero(rows & bit), np.flatnonzero(columns & bit)
                if not len(high):
                    continue
                x, y = int(wide[0]), int(high[0])
                box = plane[y : high[-1] + 1, x : wide[-1] + 1]
                mask = CropMask(x, y, ((box & bit) != 0).astype(np.uint8))
                parts.append(_part(8 * channel + number, mask))
        return cls((packed.shape[0], packed.shape[1]), packed.shape[2], tuple(parts))

    @property
    def nbytes(self) -> int:
        """What the parts take in memory."""
        return sum(part.rows.nbytes for part in self.parts)

    def crops(self) -> Iterator[tuple[int, CropMask]]:
        """Yield the classes that have pixels, with their masks."""
        for part in self.parts:
            yield part.bit, part.crop()

    def planes(self) -> Pixels:
        """Return the bit-packed mask, uint8 (H, W, B)."""
        return self.window((0, 0, self.size_hw[1], self.size_hw[0]))

    def window(self, box_xywh: Box) -> Pixels:
        """Return the bit-packed mask of a box, uint8 (h, w, B); empty beyond the image."""
        x, y, width, height = box_xywh
        packed = np.zeros((height, width, self.channels), np.uint8)
        for part in self.parts:
            x0, x1 = max(x, part.x), min(x + width, part.x + part.width)
            y0, y1 = max(y, part.y), min(y + height, part.y + len(part.rows))
            if x0 < x1 and y0 < y1:
                rows = part.rows[y0 - part.y : y1 - part.y]
                pixels = np.unpackbits(rows, axis=1, count=part.width)
                target = packed[y0 - y : y1 - y, x0 - x : x1 - x, part.bit // 8]
                target |= pixels[:, x0 - part.x : x1 - part.x] << np.uint8(part.bit % 8)
        return packed

    def resized(self, size_hw: tuple[int, int]) -> BitMask:
        """Return the mask stretched to another size; the nearest pixel counts.

        The same bits as `zoo.data.reading.resize_packed` gives, without a mask of the whole image.
        """
        if size_hw == self.size_hw:
            return self
        rows, columns = (_nearest(*pair) for pair in zip(self.size_hw, size_hw, strict=True))
        parts = []
        for bit, crop in self.crops():
            height, width = crop.pixels.shape
            y0, y1 = np.searchsorted(rows, (crop.y, crop.y + height)).tolist()
            x0, x1 = np.searchsorted(columns, (crop.x, crop.x + width)).tolist()
            pixels = crop.pixels[np.ix_(rows[y0:y1] - crop.y, columns[x0:x1] - crop.x)]
            if pixels.any():
                parts.append(_part(bit, CropMask(x0, y0, pixels)))
        return BitMask(size_hw, self.channels, tuple(parts))

    def shrunk(self, classes: int, size_hw: tuple[int, int]) -> AreaMask:
        """Return which share of each pixel of another size each class covers.

        The same shares as `zoo.data.area_targets.shrink` gives.
        """
        step_y, step_x = (a // b for a, b in zip(self.size_hw, size_hw, strict=True))
        if (size_hw[0] * step_y, size_hw[1] * step_x) != self.size_hw:
            return shrink(self.planes(), classes, size_hw)
        parts = []
        for bit, crop in self.crops():
            # Whole blocks around the class, as an image of their own.
            left, top = crop.x // step_x, crop.y // step_y
            width = -(-(crop.x + crop.pixels.shape[1]) // step_x) - left
            height = -(-(crop.y + crop.pixels.shape[0]) // step_y) - top
            box = left * step_x, top * step_y, width * step_x, height * step_y
            blocks = shrink(crop.window(box)[..., None], 1, (height, width))
            if bit < classes:
                parts += [(bit, left + x, top + y, shares) for _, x, y, shares in blocks.parts]
        return AreaMask(size_hw, classes, tuple(parts))


def _part(bit: int, mask: CropMask) -> Part:
    return Part(bit, mask.x, mask.y, mask.pixels.shape[1], np.packbits(mask.pixels, axis=1))


@lru_cache(maxsize=64)
def _nearest(length: int, wanted: int) -> Places:
    """Which of `length` pixels each of `wanted` is taken from; OpenCV's own choice, rising."""
    numbers = np.arange(length, dtype=np.float32)[None]
    way = cv2.INTER_NEAREST_EXACT
    taken = np.asarray(cv2.resize(numbers, (wanted, 1), interpolation=way)[0], np.int64)
    taken.setflags(write=False)
    return taken


def window_shares(mask: AreaMask, box_xywh: Box) -> Pixels:
    """Return the covered shares in a box, uint8 (h, w, C); 0 beyond the image."""
    x, y, width, height = box_xywh
    planes = np.zeros((height, width, mask.classes), np.uint8)
    for number, left, top, part in mask.parts:
        x0, x1 = max(x, left), min(x + width, left + part.shape[1])
        y0, y1 = max(y, top), min(y + height, top + part.shape[0])
        if x0 < x1 and y0 < y1:
            inner = part[y0 - top : y1 - top, x0 - left : x1 - left]
            planes[y0 - y : y1 - y, x0 - x : x1 - x, number] = inner
    return planes

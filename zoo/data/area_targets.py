"""Targets that say how much of a pixel a class covers, for training below the images' size.

The nearest pixel's bits forget where inside a pixel an outline runs. At half the size of 2048, a
mask of nearest pixels is worth at most .989 Dice when it is enlarged again, one of covered shares
.999 (a quarter: .979 and .996), so a network that shall place outlines within a pixel needs the
shares.

How they travel. In memory a class is its box of shares, at the network's size: .3 bytes a pixel for
29 classes together, where bits take 4. When a sample is due they become planes, uint8 (h, w, C),
which are augmented by linear interpolation and go to the device as they are: C bytes a pixel
instead of C / 8, 30 MB for 29 classes at 1024. Augmentation takes about four times as long as with
bits (flip, affine, elastic and grid distortion at 1024, one core: 435 ms instead of 108). The other
way, bits at twice the size that the device pools, costs the same (481 ms), knows five shares only,
and parameters that count pixels would mean half as much.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from converters.files.images import Pixels
from converters.masks import Box, crop

FULL = 255


@dataclass(frozen=True)
class AreaMask:
    """How much of each pixel each class covers, kept where that is not 0.

    Attributes:
        size_hw: of the image.
        classes: how many there are.
        parts: class number, x, y and uint8 (h, w), 255 = all of the pixel.
    """

    size_hw: tuple[int, int]
    classes: int
    parts: tuple[tuple[int, int, int, Pixels], ...]

    @property
    def nbytes(self) -> int:
        """What the parts take in memory."""
        return sum(part.nbytes for _, _, _, part in self.parts)

    def planes(self) -> Pixels:
        """Return all classes, uint8 (h, w, C)."""
        planes = np.zeros((*self.size_hw, self.classes), np.uint8)
        for number, x, y, part in self.parts:
            planes[y : y + part.shape[0], x : x + part.shape[1], number] = part
        return planes


def shrink(packed: Pixels, classes: int, size_hw: tuple[int, int]) -> AreaMask:
    """Reduce a bit-packed mask, uint8 (H, W, B), by area; enlarging interpolates.

    Args:
        packed: bit c % 8 of channel c // 8 is class c.
        classes: how many there are.
        size_hw: height and width of the result.
    """
    rows, columns = packed.shape[0] / size_hw[0], packed.shape[1] / size_hw[1]
    is_whole = rows.is_integer() and columns.is_integer()
    parts = []
    for number in range(classes):
        mask = crop(packed[..., number // 8] & np.uint8(1 << (number % 8)))
        if not mask.area:
            continue
        # Of whole ratios only the blocks that have pixels are read.
        box = (0, 0, size_hw[1], size_hw[0])
        if is_whole:
            box = _blocks(mask.box_xywh, int(columns), int(rows))
        x, y, width, height = box
        fine = mask.window(
            (
                round(x * columns),
                round(y * rows),
                round(width * columns),
                round(height * rows),
            )
        )
        way = cv2.INTER_AREA if rows >= 1 and columns >= 1 else cv2.INTER_LINEAR
        shares = cv2.resize(fine * np.uint8(FULL), (width, height), interpolation=way)
        parts.append((number, x, y, np.asarray(shares, np.uint8)))
    return AreaMask(size_hw, classes, tuple(parts))


def _blocks(box_xywh: Box, columns: int, rows: int) -> Box:
    """The cells of some columns and rows that hold a box, in cells."""
    x, y, width, height = box_xywh
    left, top = x // columns, y // rows
    return left, top, -(-(x + width) // columns) - left, -(-(y + height) // rows) - top

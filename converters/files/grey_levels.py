"""From grey values of more than 8 bits to the 8 that networks, pages and other formats take.

A 12-bit radiograph in a 16-bit file would be black if its upper 8 bits were taken. What the file
states (DICOM's window) is used; where it states nothing, the image's own values say what is black
and what is white. Only the image decides, never others of the data set, so that it is the same
wherever it is read.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
# Percentiles that become black and white: a marker of lead, or a dead pixel, decides nothing.
LOW, HIGH = 0.005, 0.995
WHITE = 255


def percentile_range(levels: Levels, counts: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the 0.5 and the 99.5 percentile of an image, by nearest rank.

    Where they are equal, because nearly all pixels are, the least and the greatest level that
    occur.

    Args:
        levels: float64 (K,), in any order.
        counts: int64 (K,), how many pixels have each of them; at least one has any.

    >>> percentile_range(np.array([1.0, 5.0, 9.0]), np.array([1, 998, 1]))
    (1.0, 9.0)
    """
    occurs = counts > 0
    order = np.argsort(levels[occurs], kind="stable")
    values, ranks = levels[occurs][order], np.cumsum(counts[occurs][order])
    low, high = (
        float(values[np.searchsorted(ranks, math.ceil(share * int(ranks[-1])))])
        for share in (LOW, HIGH)
    )
    return (low, high) if low < high else (float(values[0]), float(values[-1]))


def to_8_bits(levels: Levels, low: float, high: float) -> Pixels:
    """Return levels as uint8 of the same shape: `low` and below 0, `high` and above 255.

    Linear between them, to the nearest whole number; 0 everywhere if there is nothing between.
    """
    if not low < high:
        return np.zeros(levels.shape, np.uint8)
    shares = np.clip((levels - low) / (high - low), 0, 1)
    return np.rint(WHITE * shares).astype(np.uint8)


def stretch(pixels: npt.NDArray[np.uint16]) -> Pixels:
    """Return a 16-bit grey image that states no window as 8 bits of grey.

    From black at the 0.5 percentile to white at the 99.5 (`percentile_range`). An image of one
    level only keeps its upper 8 bits.

    Args:
        pixels: uint16 (H, W).

    Returns:
        uint8 (H, W).
    """
    counts = np.bincount(pixels.ravel(), minlength=1 << 16)
    low, high = percentile_range(_ALL, counts)
    if low == high:
        return (pixels >> 8).astype(np.uint8)
    return to_8_bits(_ALL, low, high)[pixels]


_ALL: Levels = np.arange(1 << 16, dtype=np.float64)

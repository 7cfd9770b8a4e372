"""Where sliding windows lie on an image, and how much what they say counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TypeVar

# Of a window's side: how wide the bell is by which a window's pixels count. Isensee et al. 2021,
# "nnU-Net", Nature Methods 18, supplementary note 4; also MONAI's default.
SIGMA = 0.125
# The corners of a window still count that much, where no other window lies.
LEAST = 1e-3

Size = tuple[int, int]
Entry = TypeVar("Entry")


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Return where windows begin along a side; the last one ends with it.

    >>> window_starts(2048, 1024, 0.5), window_starts(100, 64, 0.25), window_starts(50, 64, 0.5)
    ([0, 512, 1024], [0, 36], [0])
    """
    last = max(length - window, 0)
    step = max(int(window * (1 - overlap)), 1)
    return [*range(0, last, step), last]


def window_corners(size_hw: Size, window_hw: Size, overlap: float) -> list[tuple[int, int]]:
    """Return the upper left corners (row, column) of the windows that cover an image."""
    sides = zip(size_hw, window_hw, strict=True)
    rows, columns = (window_starts(length, window, overlap) for length, window in sides)
    return list(product(rows, columns))


def images_at_a_time(size_hw: Size, window_hw: Size | None, overlap: float, batch: int) -> int:
    """Return how many images fill a batch; of large ones that are many windows only one is held."""
    if window_hw is None:
        return batch
    return max(batch // len(window_corners(size_hw, window_hw, overlap)), 1)


def even_parts(entries: Sequence[Entry], most: int) -> Iterator[Sequence[Entry]]:
    """Yield entries in parts of about the same length, at most `most`."""
    # Nine windows by four are three, three and three: a last batch of one would cost almost as much
    # as one of four.
    count = -(-len(entries) // most)
    for number in range(count):
        first, last = (len(entries) * n // count for n in (number, number + 1))
        yield entries[first:last]

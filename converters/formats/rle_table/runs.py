"""Codes `start length start length ...` of a mask, as competitions write them, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.masks import EMPTY, CropMask, from_runs, to_runs, whole_numbers

# More pixels than an image may have; sums of larger numbers would overflow.
_LARGEST = 1 << 31

Runs = npt.NDArray[np.int64]
"""Starts and lengths as they are written, (n, 2)."""


@dataclass(frozen=True)
class Coding:
    """How the pixels of a code are counted.

    Attributes:
        by_columns: from top to bottom, then left to right; else row by row.
        first: the number of the upper left pixel, 0 or 1.
        is_relative: a start counts from the end of the run before it, not from the upper left.
    """

    by_columns: bool = True
    first: int = 1
    is_relative: bool = False

    def __str__(self) -> str:
        order = "column by column" if self.by_columns else "row by row"
        relative = ", each start from the end of the run before" if self.is_relative else ""
        return f"{order}, the first pixel being {self.first}{relative}"


def parse_runs(text: str) -> Runs:
    """Return the numbers of a code; "" has none.

    Raises:
        ValueError: not pairs of a start of at least 0 and a length of at least 1, or beyond any
            image.
    """
    try:
        numbers = whole_numbers(text)
    except ValueError:
        raise ValueError(
            f"expected a code of whole numbers 'start length ...', found '{text:.40}'"
        ) from None
    if len(numbers) % 2:
        raise ValueError(f"expected pairs 'start length', found {len(numbers)} numbers")
    runs = numbers.reshape(-1, 2)
    if (runs < [0, 1]).any():
        start, length = runs[(runs < [0, 1]).any(axis=1)][0].tolist()
        raise ValueError(
            f"expected starts of at least 0 and lengths of at least 1, found '{start} {length}'"
        )
    if len(runs) and (largest := int(runs.max())) > _LARGEST:
        raise ValueError(f"expected starts and lengths inside an image, found {largest}")
    return runs


def spans(runs: Runs, coding: Coding) -> tuple[Runs, Runs]:
    """Return the starts and ends of runs, from 0, int64 (n) each."""
    starts, lengths = runs.T
    if not coding.is_relative:
        return starts - coding.first, starts - coding.first + lengths
    ends = np.cumsum(starts + lengths) - coding.first
    return ends - lengths, ends


def decode_runs(runs: Runs, size_hw: tuple[int, int], coding: Coding) -> CropMask:
    """Return the mask of a code.

    Args:
        runs: as `parse_runs` gives them.
        size_hw: the image's height and width.
        coding: how the pixels are counted.

    Raises:
        ValueError: runs that leave the image, overlap or are not sorted.
    """
    if not len(runs):
        return EMPTY
    height, width = size_hw
    starts, ends = spans(runs, coding)
    if starts[0] < 0:
        raise ValueError("expected starts of at least 1, found 0")
    if (starts[1:] < ends[:-1]).any():
        what = "expected sorted runs that do not overlap, found others"
        remedy = "mend it, or say 'relative: true' in rle_table.yaml if that is how starts count"
        raise ValueError(what if coding.is_relative else f"{what}: {remedy}")
    if ends[-1] > height * width:
        raise ValueError(
            f"expected {height * width} pixels ({height} x {width}), found a run that ends at "
            f"{int(ends[-1])}"
        )
    if not coding.by_columns:
        return from_runs(starts, ends, width)
    turned = from_runs(starts, ends, height)
    return CropMask(turned.y, turned.x, np.ascontiguousarray(turned.pixels.T))


def encode_runs(mask: CropMask, size_hw: tuple[int, int], coding: Coding) -> str:
    """Return the code of a mask, whose starts count from the upper left; "" for an empty one.

    >>> square = CropMask(1, 0, np.ones((2, 2), np.uint8))
    >>> encode_runs(square, (2, 4), Coding()), encode_runs(square, (2, 4), Coding(False, 0))
    ('3 4', '1 2 5 2')
    """
    if not mask.area:
        return ""
    if coding.by_columns:
        turned = CropMask(mask.y, mask.x, np.ascontiguousarray(mask.pixels.T))
        runs = to_runs(turned, size_hw[0])
    else:
        runs = to_runs(mask, size_hw[1])
    runs[:, 1] -= runs[:, 0]
    runs[:, 0] += coding.first
    return ("%d " * runs.size)[:-1] % tuple(runs.ravel().tolist())

"""How the pixels of a table's codes are counted, where the codes show it.

A start of 0 shows that the first pixel is 0; a run that with 0 as the first pixel would end beyond
the image shows that it is 1. Starts of which nearly all go back show that they count from the run
before. In the wrong order the codes of an image that is not square are shredded into far longer
outlines; those of a square image are only transposed, which no code shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from converters.formats.rle_table.runs import Coding, Runs, decode_runs, spans
from converters.masks import CropMask

# Objects of few runs look alike in both orders, and some hundred tell as much as all.
_FEWEST_RUNS, _MOST_OBJECTS = 4, 200
# So many starts that go back, and so large a share of all, are no broken row.
_FEWEST_STEPS, _NEARLY_ALL = 5, 0.75
# Outlines of one order are so many times as long as those of the other.
_CLEARLY = 1.5


@dataclass(frozen=True)
class Code:
    """A code in a table.

    Attributes:
        row: its line in the file.
        size_hw: of its image.
        runs: its numbers.
    """

    row: int
    size_hw: tuple[int, int]
    runs: Runs


@dataclass(frozen=True)
class Said:
    """What is known of a table's coding without its codes; None where nothing is."""

    by_columns: bool | None = None
    first: int | None = None
    is_relative: bool | None = None


def find_coding(
    codes: Sequence[Code], said: Said, usual: Coding, note: Callable[[str], object]
) -> Coding:
    """Return how the pixels of codes are counted: as is said, else as they show, else as usual.

    Args:
        codes: of one table.
        said: what need not be found.
        usual: what is taken for what the codes do not show.
        note: told of what was taken so, if anything was.

    Raises:
        ValueError: codes that contradict each other.
    """
    codes = [code for code in codes if len(code.runs)]
    is_relative = _is_relative(codes) if said.is_relative is None else said.is_relative
    first = said.first
    if first is None:
        first = 0 if is_relative else _first(codes)
    found = Coding(usual.by_columns, usual.first if first is None else first, is_relative)
    by_columns = _by_columns(codes, found) if said.by_columns is None else said.by_columns
    found = Coding(usual.by_columns if by_columns is None else by_columns, found.first, is_relative)
    unclear = [
        what for what, value in (("order", by_columns), ("first_pixel", first)) if value is None
    ]
    if codes and unclear:
        note(
            f"codes are read {found}: nothing shows {' and '.join(unclear)}; if it is not so, say "
            "it in rle_table.yaml"
        )
    elif is_relative and said.is_relative is None:
        note(f"codes are read {found}: their starts go back")
    return found


def _is_relative(codes: Iterable[Code]) -> bool:
    """Tell whether nearly all starts go back, and all codes fit their images if they are relative.

    A few that go back are a broken row.
    """
    steps = back = going_back = several = 0
    for code in codes:
        height, width = code.size_hw
        if code.runs.sum() > height * width:
            return False
        if len(code.runs) > 1:
            starts, ends = spans(code.runs, Coding(first=0))
            goes_back = starts[1:] < ends[:-1]
            several += 1
            going_back += bool(goes_back.any())
            steps += len(goes_back)
            back += int(goes_back.sum())
    return 2 * going_back > several and back >= max(_FEWEST_STEPS, _NEARLY_ALL * steps)


def _first(codes: Iterable[Code]) -> int | None:
    zero = one = None
    for code in codes:
        height, width = code.size_hw
        starts, ends = spans(code.runs, Coding(first=0))
        if starts.min() == 0:
            zero = zero or code.row
        if ends.max() == height * width + 1:
            one = one or code.row
    if zero and one:
        raise ValueError(
            f"expected starts that count from 0 or from 1, found 0 in row {zero} and a run up to "
            f"one pixel behind the image in row {one}: mend one of them"
        )
    return 0 if zero else 1 if one else None


def _by_columns(codes: Iterable[Code], coding: Coding) -> bool | None:
    lengths = {True: 0, False: 0}
    telling = (
        code
        for code in codes
        if len(code.runs) >= _FEWEST_RUNS and code.size_hw[0] != code.size_hw[1]
    )
    for one, other in _both(islice(telling, _MOST_OBJECTS), coding):
        lengths[True] += _outline_length(one)
        lengths[False] += _outline_length(other)
    for order in lengths:
        if lengths[not order] > _CLEARLY * lengths[order]:
            return order
    return None


def _both(codes: Iterable[Code], coding: Coding) -> Iterator[tuple[CropMask, CropMask]]:
    orders = [replace(coding, by_columns=order) for order in (True, False)]
    for code in codes:
        try:
            one, other = (decode_runs(code.runs, code.size_hw, order) for order in orders)
        except ValueError:
            continue  # `read` says so
        yield one, other


def _outline_length(mask: CropMask) -> int:
    """Sides of pixels between the mask and what is none of it."""
    padded = np.pad(mask.pixels, 1)
    return int((padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum())

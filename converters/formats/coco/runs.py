"""The pixels of polygons as runs down the columns, which COCO's codes are made of.

Nothing is filled: where the edges of a polygon cross the columns of pixels (`filling.py`), runs
begin and end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.formats.coco.filling import Numbers, Points, crossings, rows_in_columns
from converters.masks import Box, encode_coco_runs

# int32, int64 where there are too many.
Places = npt.NDArray[Any]
_NOTHING: tuple[int, Box] = (0, (0, 0, 0, 0))
_LARGEST = np.iinfo(np.int32).max


@dataclass(frozen=True)
class ColumnRuns:
    """The pixels of polygons, each filled even-odd; none is joined with another.

    Attributes:
        size_hw: the image's height and width.
        counts: int64 (n), the number of each polygon's runs.
        start: int (N), where each run begins in the image, counted down the columns from 0.
        length: int (N), pixels, at least one; no run goes on in the next column.
    """

    size_hw: tuple[int, int]
    counts: Numbers
    start: Places
    length: Places

    @classmethod
    def of(cls, points: Points, lengths: Numbers, size_hw: tuple[int, int]) -> ColumnRuns:
        """Find them.

        Args:
            points: float64 (N, 2), of at least one polygon, one polygon behind the other.
            lengths: int64 (n), how many are each one's.
            size_hw: the image's height and width.
        """
        ring, column, row = crossings(points, lengths, size_hw)
        height, width = size_hw
        # No polygon ends where the next may begin.
        apart = height * width + 1
        kind: Any = np.int32 if apart * len(lengths) <= _LARGEST else np.int64
        place: Places = column.astype(kind)
        place *= height
        place += row
        place += ring.astype(kind) * kind(apart)
        # Crossings of a column come in pairs, of which two in one place enclose nothing.
        place.sort()
        start, end = place.reshape(-1, 2).T
        has_pixels = start < end
        start, end = start[has_pixels], end[has_pixels]
        firsts = np.arange(len(lengths) + 1) * apart
        counts = np.diff(np.searchsorted(start, firsts.astype(kind)))
        return cls(
            size_hw, counts, start - np.repeat(firsts[:-1].astype(kind), counts), end - start
        )

    def measure(self) -> list[tuple[int, Box]]:
        """Return the number of each polygon's pixels, and their x, y, width and height."""
        found = [_NOTHING] * len(self.counts)
        drawn = np.flatnonzero(self.counts)
        if not len(drawn):
            return found
        height = self.size_hw[0]
        ends = np.cumsum(self.counts)[drawn]
        starts = ends - self.counts[drawn]
        column = self.start // height
        row = self.start - column * height
        areas = np.add.reduceat(self.length, starts, dtype=np.int64)
        x0, x1 = column[starts], column[ends - 1] + 1
        y0 = np.minimum.reduceat(row, starts)
        y1 = np.maximum.reduceat(row + self.length, starts)
        table = np.stack([drawn, areas, x0, y0, x1 - x0, y1 - y0], axis=1)
        for number, area, x, y, wide, high in table.tolist():
            found[number] = area, (x, y, wide, high)
        return found

    def encode(self) -> list[dict[str, Any]]:
        """Return the run-length code of each polygon."""
        edges = np.stack([self.start, self.start + self.length], axis=1)
        counts = 2 * self.counts
        own = np.repeat(np.arange(len(counts)), self.counts)
        # What ends at the foot of a column may go on at the head of the next.
        goes_on = (edges[:-1, 1] == edges[1:, 0]) & (own[:-1] == own[1:])
        if goes_on.any():
            is_kept = np.stack([np.append(True, ~goes_on), np.append(~goes_on, True)], axis=1)
            counts = counts - 2 * np.bincount(own[1:][goes_on], minlength=len(counts))
            edges = edges[is_kept]
        return encode_coco_runs(edges.ravel().astype(np.int64), counts.tolist(), self.size_hw)


def are_seen_to_have_pixels(
    points: Points, lengths: Numbers, middles: Points, size_hw: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Tell which polygons have pixels in one column; the others may have them elsewhere.

    Args:
        points: as `ColumnRuns.of` takes them, like the lengths.
        lengths: of the polygons.
        middles: float64 (n), where the column is, in pixels from the image's left.
        size_hw: the image's height and width.
    """
    height, width = size_hw
    columns = np.clip(middles, 0, width - 1).astype(np.int32)
    ring, row = rows_in_columns(points, lengths, columns, height)
    start, end = np.sort(ring * (height + 1) + row).reshape(-1, 2).T
    seen = np.zeros(len(lengths), np.bool_)
    seen[start[start < end] // (height + 1)] = True
    return seen


def code_text(code: Mapping[str, Any]) -> bytes:
    """Return the JSON of a run-length code as `encode_coco_rle` makes it."""
    # Of the letters that JSON writes otherwise it has only this one.
    letters = code["counts"].replace("\\", "\\\\")
    return b'{"size":[%d,%d],"counts":"%b"}' % (*code["size"], letters.encode("ascii"))

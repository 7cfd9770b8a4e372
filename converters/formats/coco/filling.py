"""The pixels of a polygon, as pycocotools counts them.

pycocotools (`rleFrPoly` in its maskApi.c) does not ask which centres lie inside. It rounds vertices
to fifths of a pixel and walks along every edge in steps of a fifth, on whole fifths in the
direction in which the edge is longer, rounded to whole ones in the other. Where the walk passes
the middle of a column of pixels, from fifth 5 c + 2 to 5 c + 3, the column changes from outside to
inside or back, at the first pixel whose middle fifth is not above the upper end of this step. This
is even-odd filling of a polygon that is up to a fifth of a pixel away from the one that is written.

Ours has the same pixels, found by columns instead of steps: pycocotools was asked for tens of
thousands of polygons - thin, tiny, diagonal, crossing themselves, far outside - on x86-64. A
compiler that fuses products and sums, as some do for ARM, may round a tie the other way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.masks import EMPTY, CropMask, union_box

Points = npt.NDArray[np.float64]
Steps = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int32]
Numbers = npt.NDArray[np.intp]

_STEPS = 5
_MIDDLE = _STEPS // 2
_WORD = 8
_LOWEST_BITS = np.uint64(0x0101010101010101)
# Two numbers below 1e7 that are not in the ratio of a whole number to one differ more from it.
_TIE = 1e-6


def fill(polygons: Iterable[Points], size_hw: tuple[int, int]) -> CropMask:
    """Return the pixels that pycocotools gives several polygons together.

    A polygon that crosses itself is filled even-odd, several polygons are joined.

    Args:
        polygons: float64 (N, 2) each, x and y in pixels from the image's upper left corner; may
            leave the image.
        size_hw: the image's height and width.
    """
    return fill_each([list(polygons)], size_hw)[0]


def fill_each(objects: Sequence[Sequence[Points]], size_hw: tuple[int, int]) -> list[CropMask]:
    """Return the pixels of each of an image's objects, which is faster than one after the other.

    Args:
        objects: the polygons of each, as `fill` takes them.
        size_hw: the image's height and width.
    """
    filled = iter(_fill_rings([ring for rings in objects for ring in rings], size_hw))
    return [_join(list(islice(filled, len(rings)))) for rings in objects]


def _join(parts: Sequence[CropMask]) -> CropMask:
    if len(parts) == 1:
        return parts[0]
    x0, y0, width, height = union_box(parts)
    pixels = np.zeros((height, width), np.uint8)
    for part in parts:
        x, y, w, h = part.box_xywh
        pixels[y - y0 : y - y0 + h, x - x0 : x - x0 + w] |= part.pixels
    return CropMask(x0, y0, pixels)


def _fill_rings(rings: Sequence[Points], size_hw: tuple[int, int]) -> list[CropMask]:
    masks = [EMPTY] * len(rings)
    if not rings:
        return masks
    lengths = np.array([len(ring) for ring in rings])
    ring, column, row = crossings(np.concatenate(rings), lengths, size_hw)
    counts = np.bincount(ring, minlength=len(rings))
    crossed = np.flatnonzero(counts)
    if not len(crossed):
        return masks
    counts = counts[crossed]
    starts = np.cumsum(counts) - counts
    x0, y0 = np.minimum.reduceat(column, starts), np.minimum.reduceat(row, starts)
    x1, y1 = np.maximum.reduceat(column, starts), np.maximum.reduceat(row, starts)
    # Whole words a row: they are added up eight pixels at a time.
    stride = ((x1 - x0) // _WORD + 1) * _WORD
    place = (row - np.repeat(y0, counts)) * np.repeat(stride, counts) + column
    place -= np.repeat(x0, counts)
    boxes = np.stack([x0, y0, stride, y1 - y0], axis=1).tolist()
    for number, start, count, box in zip(
        crossed.tolist(), starts.tolist(), counts.tolist(), boxes, strict=True
    ):
        masks[number] = _between(place[start : start + count], *box)
    return masks


def _between(place: Numbers, x0: int, y0: int, stride: int, height: int) -> CropMask:
    """The pixels below an odd number of crossings, in a box whose place in the image is given."""
    if not height:
        return EMPTY
    # Two crossings in one place take each other away. All others come in pairs in a column.
    times = np.zeros((height + 1) * stride, np.uint8)
    np.add.at(times, place, np.uint8(1))
    changes = times.reshape(height + 1, stride)[:height].view(np.uint64) & _LOWEST_BITS
    return _trim(x0, y0, np.bitwise_xor.accumulate(changes, axis=0).view(np.uint8))


def crossings(
    points: Points, lengths: Numbers, size_hw: tuple[int, int]
) -> tuple[Numbers, Whole, Whole]:
    """Return ring, column and row, int (n) each, of every place where a column changes.

    A column changes from outside to inside, or back, at the upper edge of the pixel in this row,
    which may be the height. A ring's changes of a column come in pairs; rings in their order,
    columns and rows in none.

    Args:
        points: float64 (N, 2), of at least one ring, one ring behind the other.
        lengths: int64 (n), how many are each ring's.
        size_hw: the image's height and width.
    """
    height, width = size_hw
    fifths = _fifths(points)
    # How many columns have their middle left of a point: an edge passes those in between.
    passed = np.clip((fifths[0] + _MIDDLE) // _STEPS, 0, width)
    start, end, ring = _ends(passed, lengths)
    here, there = passed[start], passed[end]
    counts = np.abs(there - here)
    ends = np.cumsum(counts)
    column = np.arange(counts.sum(), dtype=np.int32)
    column += np.repeat(np.minimum(here, there) - (ends - counts).astype(np.int32), counts)
    which = np.repeat(np.arange(len(counts)), counts)
    row = _rows(_Edges.of(fifths, start, end).take(which), column, height)
    return ring[which], column, row


def rows_in_columns(
    points: Points, lengths: Numbers, columns: Whole, height: int
) -> tuple[Numbers, Whole]:
    """Return ring and row, int (n) each, of the changes of one column for each ring.

    Args:
        points: as `crossings` takes them, like the lengths.
        lengths: of the rings.
        columns: int32 (n), one a ring, inside the image.
        height: of the image.
    """
    fifths = _fifths(points)
    middles = np.repeat(columns * _STEPS + _MIDDLE, lengths)
    start, end, ring = _ends(fifths[0] <= middles, lengths)
    return ring, _rows(_Edges.of(fifths, start, end), columns[ring], height)


def _fifths(points: Points) -> Whole:
    """Points in fifths of a pixel, int32 (2, N)."""
    # Towards zero, as C does.
    scaled = np.multiply(points.T, _STEPS, order="C")
    scaled += 0.5
    return scaled.astype(np.int32)


def _ends(values: npt.NDArray[Any], lengths: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Start, end and ring of the edges between points of different values, in closed rings."""
    last = np.cumsum(lengths) - 1
    first = last + 1 - lengths
    changes = np.append(values[1:] != values[:-1], False)
    changes[last] = values[last] != values[first]
    start = np.flatnonzero(changes)
    ring = np.searchsorted(last, start)
    return start, np.where(start == last[ring], first[ring], start + 1), ring


@dataclass(frozen=True)
class _Edges:
    """Edges that pass columns, from their starts on the axis on which they are longer.

    Attributes:
        x: fifths, float64 (n), of the starts.
        y: fifths, float64 (n), of the starts.
        slope: float64 (n), fifths on the shorter axis for each on the longer one.
        is_flat: bool (n), whether x is the longer axis.
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    slope: npt.NDArray[np.float64]
    is_flat: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, fifths: Whole, edge: Numbers, ends: Numbers) -> _Edges:
        """Take those from some of the points to others."""
        (x, y), (to_x, to_y) = fifths[:, edge].astype(float), fifths[:, ends].astype(float)
        run, rise = to_x - x, to_y - y
        is_flat = np.abs(run) >= np.abs(rise)
        longer = np.where(is_flat, run, rise)
        is_back = longer < 0
        slope = np.where(is_flat, rise, run) / longer
        return cls(np.where(is_back, to_x, x), np.where(is_back, to_y, y), slope, is_flat)

    def take(self, places: Numbers) -> _Edges:
        """Return some of them, or the same ones several times."""
        return _Edges(self.x[places], self.y[places], self.slope[places], self.is_flat[places])


def _rows(edges: _Edges, column: Whole, height: int) -> Whole:
    """The rows in which edges pass the middles of columns, one each."""
    middle = (column * _STEPS + _MIDDLE).astype(float)
    flat, steep = np.flatnonzero(edges.is_flat), np.flatnonzero(~edges.is_flat)
    upper = np.empty(len(middle), np.int32)
    own = edges.take(flat)
    # The upper end of this step of the walk.
    upper[flat] = _walk(own.y, own.slope, middle[flat] + (own.slope < 0) - own.x)
    own = edges.take(steep)
    upper[steep] = own.y + _last_step(own.x, own.slope, middle[steep])
    return np.clip((upper + _MIDDLE) // _STEPS, 0, height)


def _walk(origin: Steps, slope: Steps, step: Steps) -> Steps:
    """Where a walk is after some steps, on the axis on which it advances less."""
    # Products and sums in pycocotools' order: ties are decided by their rounding.
    return np.trunc(origin + slope * step + 0.5)


def _last_step(origin: Steps, slope: Steps, x: Steps) -> Steps:
    """The last step of a walk, at most one fifth to the side each, before it passes x + .5."""
    exact = (x + 0.5 - origin) / slope
    first = np.ceil(exact)
    # Where it reaches the very middle, rounding decides: what counts is where the walk really is.
    tied = np.flatnonzero(np.abs(exact - np.rint(exact)) < _TIE)
    if len(tied):
        own = origin[tied], slope[tied], x[tied]
        step = first[tied]
        step += ~_has_passed(step, *own)
        step -= _has_passed(step - 1, *own)
        first[tied] = step
    return first - 1


def _has_passed(step: Steps, origin: Steps, slope: Steps, x: Steps) -> npt.NDArray[np.bool_]:
    is_beyond: npt.NDArray[np.bool_] = (_walk(origin, slope, step) > x) == (slope > 0)
    return is_beyond


def _trim(x0: int, y0: int, pixels: npt.NDArray[np.uint8]) -> CropMask:
    x, y, width, height = cv2.boundingRect(pixels)
    if not width:
        return EMPTY
    return CropMask(x0 + x, y0 + y, np.ascontiguousarray(pixels[y : y + height, x : x + width]))

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
from itertools import islice

import cv2
import numpy as np
import numpy.typing as npt

from converters.masks import EMPTY, CropMask, union_box

Points = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

_STEPS = 5
_MIDDLE = _STEPS // 2
_WORD = 8


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
    ring, column, row = crossings(rings, size_hw)
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


def _between(place: Whole, x0: int, y0: int, stride: int, height: int) -> CropMask:
    """The pixels below an odd number of crossings, in a box whose place in the image is given."""
    if not height:
        return EMPTY
    # Two crossings in one place take each other away. All others come in pairs in a column.
    odd = np.zeros((height + 1) * stride, np.uint8)
    np.bitwise_xor.at(odd, place, np.uint8(1))
    changes = odd.reshape(height + 1, stride)[:height].view(np.uint64)
    return _trim(x0, y0, np.bitwise_xor.accumulate(changes, axis=0).view(np.uint8))


def crossings(rings: Sequence[Points], size_hw: tuple[int, int]) -> tuple[Whole, Whole, Whole]:
    """Return ring, column and row, int64 (n) each, of every place where a column changes.

    A column changes from outside to inside, or back, at the upper edge of the pixel in this row,
    which may be the height. A ring's changes of a column come in pairs, in no order.

    Args:
        rings: at least one, float64 (N, 2).
        size_hw: the image's height and width.
    """
    height, width = size_hw
    # Towards zero, as C does.
    points = np.trunc(_STEPS * np.concatenate(rings) + 0.5).astype(np.int64)
    lengths = np.array([len(ring) for ring in rings])
    start, end = _edges(points, lengths)
    # The columns whose middle an edge passes.
    low, high = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
    first = np.clip(-((_MIDDLE - low) // _STEPS), 0, width)
    last = np.clip((high - _MIDDLE - 1) // _STEPS + 1, 0, width)
    counts = np.maximum(last - first, 0)
    edge = np.repeat(np.arange(len(points)), counts)
    column = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    depth = _upper_ends(start[edge], end[edge], column * _STEPS + _MIDDLE)
    ring = np.repeat(np.arange(len(rings)), lengths)[edge]
    return ring, column, np.clip((depth + _MIDDLE) // _STEPS, 0, height)


def _edges(points: Whole, lengths: Whole) -> tuple[Whole, Whole]:
    """Starts and ends of rings' edges, int64 (N, 2), along the axis on which each is longer."""
    last = np.cumsum(lengths) - 1
    following = np.arange(1, len(points) + 1)
    following[last] = last + 1 - lengths
    after = points[following]
    length = np.abs(after - points)
    is_flat = length[:, 0] >= length[:, 1]
    is_back = np.where(is_flat, points[:, 0] > after[:, 0], points[:, 1] > after[:, 1])[:, None]
    return np.where(is_back, after, points), np.where(is_back, points, after)


def _upper_ends(start: Whole, end: Whole, x: Whole) -> Whole:
    """The smaller y of the two points between which an edge's walk leaves fifth x for x + 1."""
    (run, rise), (x0, y0) = (end - start).T, start.T
    is_flat = np.abs(run) >= np.abs(rise)
    upper = np.empty_like(x)
    slope = rise[is_flat] / run[is_flat]
    ends = [_walk(y0[is_flat], slope, x[is_flat] + step - x0[is_flat]) for step in (0, 1)]
    upper[is_flat] = np.minimum(*ends)
    steep = ~is_flat
    step = _last_step(x0[steep], run[steep] / rise[steep], x[steep])
    upper[steep] = y0[steep] + step
    return upper


def _walk(origin: Whole, slope: npt.NDArray[np.float64], step: Whole) -> Whole:
    """Where a walk is after some steps, on the axis on which it advances less."""
    # Products and sums in pycocotools' order: ties are decided by their rounding.
    walked: Whole = np.trunc(origin + slope * step + 0.5).astype(np.int64)
    return walked


def _last_step(origin: Whole, slope: npt.NDArray[np.float64], x: Whole) -> Whole:
    """The last step of a walk, at most one fifth to the side each, before it passes x + .5."""

    def passed(step: Whole) -> npt.NDArray[np.bool_]:
        is_beyond: npt.NDArray[np.bool_] = (_walk(origin, slope, step) > x) == (slope > 0)
        return is_beyond

    first = np.ceil((x + 0.5 - origin) / slope).astype(np.int64)
    # Rounding may put it one step off: what counts is where the walk really is.
    first += ~passed(first)
    first -= passed(first - 1)
    return first - 1


def _trim(x0: int, y0: int, pixels: npt.NDArray[np.uint8]) -> CropMask:
    x, y, width, height = cv2.boundingRect(pixels)
    if not width:
        return EMPTY
    return CropMask(x0 + x, y0 + y, np.ascontiguousarray(pixels[y : y + height, x : x + width]))

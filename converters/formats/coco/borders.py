"""The line between a mask's pixels and all others, and the pixels inside such a line.

Formats such as COCO give a pixel an extent: pixel (0, 0) is the square from 0 to 1, its centre is
at .5, and a polygon holds the pixels whose centres lie inside it. Our own rings run through the
centres of boundary pixels instead (`converters.masks`); taken for such a polygon they would lose
half a pixel all around.

A border runs through the middles of the sides between a pixel of the mask and one that is none, as
marching squares do (the cubes of Lorensen and Cline, SIGGRAPH 1987, in two dimensions). It stays at
least .35 pixels away from all centres, so that programs which count in fifths of a pixel, as
pycocotools does, find the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from converters.masks import CropMask, Ring, crop

Points = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.intp]

# Counter-clockwise as one looks at the image, from the right; the way that OpenCV follows shells.
_NO_WAY = 8
_WAYS = np.array([(1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1)])
# By the signs of y and x, from -1. The ring of a single pixel steps nowhere.
_NUMBER_OF_WAY = np.array([[3, 2, 1], [4, _NO_WAY, 0], [5, 6, 7]])
_MOST_SIDES = 4


def borders(shells: Sequence[Ring]) -> list[Ring]:
    """Return the borders of parts without holes.

    Args:
        shells: as `converters.masks.rings` makes them: boundary pixels in straight and diagonal
            steps.

    Returns:
        For each int32 (N, 2), x and y in half pixels from the image's upper left corner.
    """
    if not shells:
        return []
    pixels = np.concatenate(shells)
    lengths = np.array([len(shell) for shell in shells])
    before, after = _neighbours(lengths)
    steps = np.sign(pixels[after] - pixels)
    leaving = _NUMBER_OF_WAY[steps[:, 1] + 1, steps[:, 0] + 1]
    coming = leaving[before]
    sides, counts = _open_sides()
    passed = counts[coming, leaving]
    is_open = np.arange(_MOST_SIDES) < passed[:, None]
    points = np.repeat(2 * pixels + 1, passed, axis=0) + sides[coming, leaving][is_open]
    lengths = np.add.reduceat(passed, np.cumsum(lengths) - lengths)
    turns = _turns(points, lengths)
    ends = np.cumsum(np.add.reduceat(turns, np.cumsum(lengths) - lengths, dtype=np.intp))
    return np.split(points[turns], ends[:-1])


def _neighbours(lengths: Numbers) -> tuple[Numbers, Numbers]:
    """The places before and after each one, in closed rings that lie one behind the other."""
    ends = np.cumsum(lengths)
    before, after = np.arange(ends[-1]) - 1, np.arange(ends[-1]) + 1
    before[ends - lengths], after[ends - 1] = ends - 1, ends - lengths
    return before, after


def _turns(points: Ring, lengths: Numbers) -> npt.NDArray[np.bool_]:
    """Tell which points do not lie on the straight line between their neighbours."""
    before, after = _neighbours(lengths)
    on = points[after] - points
    come = on[before]
    turns: npt.NDArray[np.bool_] = come[:, 0] * on[:, 1] != come[:, 1] * on[:, 0]
    return turns


@cache
def _open_sides() -> tuple[Ring, Numbers]:
    """The sides of a pixel that a walk passes, by the ways in which it comes and leaves.

    They lie between the way back and the way on, in the sense in which the walk turns.
    """
    sides = np.zeros((9, 9, _MOST_SIDES, 2), np.int32)
    counts = np.zeros((9, 9), np.intp)
    counts[_NO_WAY, _NO_WAY], sides[_NO_WAY, _NO_WAY] = _MOST_SIDES, _WAYS[::2]
    for coming in range(8):
        for leaving in range(8):
            back = coming + 4
            turn = (leaving - back) % 8 or 8
            passed = [way % 8 for way in range(back + 1, back + turn) if way % 2 == 0]
            counts[coming, leaving] = len(passed)
            sides[coming, leaving, : len(passed)] = _WAYS[passed]
    return sides, counts


def fill(polygons: Iterable[Points], size_hw: tuple[int, int]) -> CropMask:
    """Return the pixels whose centres lie inside one of several polygons.

    A polygon that crosses itself is filled even-odd.

    Args:
        polygons: float64 (N, 2) each, x and y in pixels from the image's upper left corner; may
            leave the image.
        size_hw: the image's height and width.
    """
    parts = [_fill(polygon, size_hw) for polygon in polygons]
    if len(parts) == 1:
        return parts[0]
    plane = np.zeros(size_hw, np.uint8)
    for part in parts:
        plane |= part.full(size_hw)
    return crop(plane)


def _fill(polygon: Points, size_hw: tuple[int, int]) -> CropMask:
    x0, y0 = np.maximum(np.floor(polygon.min(axis=0)), 0).astype(int).tolist()
    x1, y1 = np.minimum(np.ceil(polygon.max(axis=0)), size_hw[::-1]).astype(int).tolist()
    if x1 <= x0 or y1 <= y0:
        return crop(np.zeros((0, 0), np.uint8))
    width, height = x1 - x0, y1 - y0
    start = polygon - (x0, y0)
    end = np.roll(start, -1, axis=0)
    # The rows whose middle an edge crosses; its lower end belongs to the next edge.
    rows = np.clip(np.ceil(np.stack([start[:, 1], end[:, 1]]) - 0.5), 0, height).astype(int)
    first, last = rows.min(axis=0), rows.max(axis=0)
    counts = last - first
    edge = np.repeat(np.arange(len(start)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    x = start[edge, 0] + (row + 0.5 - start[edge, 1]) * slope
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
    # By columns: what runs on from one to the next is then a whole column at a time.
    crossings = np.bincount(column * height + row, minlength=(width + 1) * height)
    odd = (crossings.astype(np.uint8) & 1).reshape(width + 1, height)
    inside = np.bitwise_xor.accumulate(odd, axis=0, out=odd)
    return _trim(x0, y0, np.ascontiguousarray(inside[:width].T))


def _trim(x0: int, y0: int, pixels: npt.NDArray[np.uint8]) -> CropMask:
    x, y, width, height = cv2.boundingRect(pixels)
    tight = np.ascontiguousarray(pixels[y : y + height, x : x + width])
    return CropMask(x0 + x, y0 + y, tight)

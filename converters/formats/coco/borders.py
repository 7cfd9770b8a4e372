"""The line between a mask's pixels and all others.

Formats such as COCO give a pixel an extent: pixel (0, 0) is the square from 0 to 1, its centre is
at .5, and a polygon holds the pixels whose centres lie inside it, more or less
(`converters.formats.coco.filling`). Our own rings run through the centres of boundary pixels
instead (`converters.masks`); taken for such a polygon they would lose half a pixel all around.

A border runs through the middles of the sides between a pixel of the mask and one that is none, as
marching squares do (the cubes of Lorensen and Cline, SIGGRAPH 1987, in two dimensions). It stays at
least .35 pixels away from all centres, so that programs which count in fifths of a pixel, as
pycocotools does, find the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from converters.masks import Ring

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

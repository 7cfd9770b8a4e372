"""An image's objects as they are drawn in a COCO file, kept until someone asks for their outlines.

Most files hold nothing but polygons that are as they should be. Whether an object has pixels, how
many and where, shows where its edges cross the columns of pixels (`filling.py`), before anything is
filled; and who writes COCO again needs no more than that.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from shapely.geometry import MultiPolygon, Polygon

from converters.formats.coco.filling import Points, crossings, fill, fill_each
from converters.formats.plausible import Bounds, check_place
from converters.masks import Box, encode_coco_rle, encode_coco_runs, outlines, tight_box

_FEWEST_NUMBERS = 6
_LARGEST = np.iinfo(np.uint16).max
# Far beyond any image; what is larger would only overflow.
LARGEST_COORDINATE = 1e6
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DrawnShapes:
    """An image's objects, each drawn as polygons.

    Attributes:
        size_hw: the image's height and width.
        scale: how many parts of a pixel the points count in; 0 where they are not whole.
        points: zlib of the differences of all points x, y, from the image's upper left corner;
            uint16 in parts of a pixel, or float64 in pixels.
        counts: int32, the number of each object's polygons, then of each one's points.
        places: int32 (n, 5), each object's number of pixels, and their x, y, width, height.
    """

    size_hw: tuple[int, int]
    scale: int
    points: bytes
    counts: bytes
    places: bytes

    @classmethod
    def of(
        cls,
        size_hw: tuple[int, int],
        lengths: Sequence[Sequence[int]],
        points: Points,
        areas: Sequence[int],
        boxes: Sequence[Box],
    ) -> DrawnShapes:
        """Pack them.

        Args:
            size_hw: the image's height and width.
            lengths: numbers of points of each object's polygons.
            points: of all polygons, float64 (N, 2).
            areas: numbers of pixels, at least one each.
            boxes: x, y, width, height of the pixels.
        """
        scale, content = _pack(points)
        counts = [len(own) for own in lengths] + list(chain.from_iterable(lengths))
        places = [(area, *box) for area, box in zip(areas, boxes, strict=True)]
        packed = [np.array(own, np.int32).tobytes() for own in (counts, places)]
        return cls(size_hw, scale, content, *packed)

    @property
    def areas(self) -> list[int]:
        """Number of each object's pixels."""
        return [area for area, *_ in self._places()]

    @property
    def boxes(self) -> list[Box]:
        """x, y, width, height of each object's pixels."""
        return [(x, y, width, height) for _, x, y, width, height in self._places()]

    def _places(self) -> list[list[int]]:
        return np.frombuffer(self.places, np.int32).reshape(-1, 5).tolist()

    def polygons(self) -> list[list[Points]]:
        """Return the polygons of each object, float64 (N, 2)."""
        points = _unpack(self.scale, self.points)
        counts = np.frombuffer(self.counts, np.int32)
        objects = len(self.places) // (5 * 4)
        rings = iter(np.split(points, np.cumsum(counts[objects:])[:-1]))
        return [[next(rings) for _ in range(own)] for own in counts[:objects].tolist()]

    def unpack(self) -> list[Polygon | MultiPolygon]:
        """Return the outlines of each object's pixels."""
        return outlines(fill_each(self.polygons(), self.size_hw))

    def texts(self, layout: str) -> list[bytes]:
        """Return the JSON of each object's polygons, or of its run-length code.

        Args:
            layout: `polygons`, as they were read, or `rle`.
        """
        if layout == "polygons":
            return self._written()
        polygons = self.polygons()
        codes = iter(_encode([own[0] for own in polygons if len(own) == 1], self.size_hw))
        found = [
            next(codes) if len(own) == 1 else encode_coco_rle(fill(own, self.size_hw), self.size_hw)
            for own in polygons
        ]
        return [json.dumps(code, separators=(",", ":")).encode("ascii") for code in found]

    def _written(self) -> list[bytes]:
        side = max(self.size_hw)
        lines = []
        for own in self.polygons():
            doubled = [2 * ring for ring in own]
            if all((ring == np.rint(ring)).all() for ring in doubled) and _are_in(doubled, side):
                # As most programs write them, and we do: there is a table of these.
                rings = [half_pixels(ring.astype(np.int64), side) for ring in doubled]
                lines.append(b"[%b]" % b",".join(rings))
            else:
                numbers = [ring.ravel().tolist() for ring in own]
                lines.append(json.dumps(numbers, separators=(",", ":")).encode("ascii"))
        return lines


# Half pixels, and decimals.
_SCALES = (1, 2, 10, 100, 1000)


def _pack(points: Points) -> tuple[int, bytes]:
    """Points in a fraction of the memory, the same to the last bit; and their scale."""
    # Minus zero is less than nothing, too.
    for scale in () if np.signbit(points).any() else _SCALES:
        whole = np.rint(points * scale)
        # The nearest number to a decimal is what a file's text is read as.
        if (whole / scale == points).all() and whole.max() <= _LARGEST:
            steps = np.diff(whole.astype(np.uint16), axis=0, prepend=np.zeros((1, 2), np.uint16))
            return scale, zlib.compress(steps.T.tobytes(), level=1)
    return 0, zlib.compress(points.tobytes(), level=1)


def _unpack(scale: int, content: bytes) -> Points:
    found = zlib.decompress(content)
    if not scale:
        return np.frombuffer(found).reshape(-1, 2)
    steps = np.frombuffer(found, np.uint16).reshape(2, -1).T
    points: Points = np.cumsum(steps, axis=0, dtype=np.uint16) / scale
    return points


def _are_in(doubled: Sequence[Points], side: int) -> bool:
    return all(ring.min() >= 0 and ring.max() <= 2 * side for ring in doubled)


def half_pixels(ring: npt.NDArray[np.integer[Any]], side: int) -> bytes:
    """Return points as COCO's JSON has them.

    Args:
        ring: (N, 2) in half pixels, from 0 on.
        side: of the image, the longer one, in pixels.

    >>> half_pixels(np.array([[0, 1], [4, 3]]), 2)
    b'[0,0.5,2,1.5]'
    """
    return b"[%b]" % _words(side)[ring].tobytes().replace(b"\0", b"")[:-1]


@lru_cache(maxsize=8)
def _words(side: int) -> npt.NDArray[np.bytes_]:
    """What is written for each half pixel of a side; shorter ones are filled up with zeros."""
    return np.array([f"{i / 2:.10g}," for i in range(2 * side + 1)], dtype=np.bytes_)


def draw(
    segmentations: Sequence[Any], size_hw: tuple[int, int]
) -> tuple[DrawnShapes, list[Bounds]] | None:
    """Return an image's objects and where they are written to be.

    Args:
        segmentations: of each object.
        size_hw: the image's height and width.

    Returns:
        None unless each is a list of polygons without any fault, in or near the image, and has
        pixels: whoever looks at them one by one can say what is wrong.
    """
    if not all(isinstance(own, list) and own for own in segmentations):
        return None
    parts = list(chain.from_iterable(segmentations))
    if not all(isinstance(part, list) and len(part) >= _FEWEST_NUMBERS for part in parts):
        return None
    numbers = list(chain.from_iterable(parts))
    if not {*map(type, numbers)} <= {int, float} or any(len(part) % 2 for part in parts):
        return None
    try:
        points = np.array(numbers, np.float64).reshape(-1, 2)
    except OverflowError:
        return None
    if not parts or not (np.abs(points) < LARGEST_COORDINATE).all():
        return None
    lengths = tuple(tuple(len(part) // 2 for part in own) for own in segmentations)
    bounds = _bounds(points, np.array([sum(own) for own in lengths]))
    try:
        for own in bounds:
            check_place(own, size_hw)
    except ValueError:
        return None
    found = _pixels(points, lengths, size_hw)
    if found is None:
        return None
    return DrawnShapes.of(size_hw, lengths, points, *found), bounds


def _bounds(points: Points, lengths: npt.NDArray[np.int64]) -> list[Bounds]:
    starts = np.cumsum(lengths) - lengths
    low = np.minimum.reduceat(points, starts)
    high = np.maximum.reduceat(points, starts)
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in np.hstack([low, high]).tolist()]


def _pixels(
    points: Points, lengths: Sequence[Sequence[int]], size_hw: tuple[int, int]
) -> tuple[tuple[int, ...], tuple[Box, ...]] | None:
    """Number and box of each object's pixels; None where one has none."""
    rings = np.split(points, np.cumsum(list(chain.from_iterable(lengths)))[:-1])
    firsts = np.cumsum([0, *map(len, lengths)]).tolist()
    areas, boxes = [0] * len(lengths), [(0, 0, 0, 0)] * len(lengths)
    alone = [number for number, own in enumerate(lengths) if len(own) == 1]
    runs = _runs([rings[firsts[number]] for number in alone], size_hw)
    for number, (area, box) in zip(alone, _sizes(len(alone), *runs), strict=True):
        areas[number], boxes[number] = area, box
    for number, own in enumerate(lengths):
        if len(own) > 1:
            mask = fill(rings[firsts[number] : firsts[number + 1]], size_hw)
            areas[number], boxes[number] = mask.area, tight_box(mask) if mask.area else (0, 0, 0, 0)
    return (tuple(areas), tuple(boxes)) if all(areas) else None


def _encode(rings: Sequence[Points], size_hw: tuple[int, int]) -> list[dict[str, Any]]:
    """The run-length codes of rings, each an object."""
    if not rings:
        return []
    ring, column, first, after = _runs(rings, size_hw)
    start, end = column * size_hw[0] + first, column * size_hw[0] + after
    # What ends at the foot of a column may go on at the head of the next.
    goes_on = (end[:-1] == start[1:]) & (ring[:-1] == ring[1:])
    is_kept = np.stack([np.append(True, ~goes_on), np.append(~goes_on, True)], axis=1)
    edges = np.stack([start, end], axis=1)[is_kept]
    owners = np.stack([ring, ring], axis=1)[is_kept]
    return encode_coco_runs(edges, np.bincount(owners, minlength=len(rings)).tolist(), size_hw)


def _runs(rings: Sequence[Points], size_hw: tuple[int, int]) -> tuple[Whole, Whole, Whole, Whole]:
    """Ring, column, first row and the row after the last, int64 (n), of all vertical runs."""
    if not rings:
        none = np.zeros(0, np.int64)
        return none, none, none, none
    height, width = size_hw
    ring, column, row = crossings(rings, size_hw)
    # Crossings of a column come in pairs, of which two in one place enclose nothing.
    place = np.sort((ring * (width + 1) + column) * (height + 1) + row).reshape(-1, 2)
    start, end = place[place[:, 0] < place[:, 1]].T
    lane, first = np.divmod(start, height + 1)
    ring, column = np.divmod(lane, width + 1)
    return ring, column, first, first + end - start


def _sizes(
    rings: int, ring: Whole, column: Whole, first: Whole, after: Whole
) -> list[tuple[int, Box]]:
    """Number and box of each ring's pixels."""
    found = [(0, (0, 0, 0, 0))] * rings
    if not len(ring):
        return found
    starts = np.flatnonzero(np.diff(ring, prepend=-1))
    areas = np.add.reduceat(after - first, starts)
    x0, x1 = np.minimum.reduceat(column, starts), np.maximum.reduceat(column, starts) + 1
    y0, y1 = np.minimum.reduceat(first, starts), np.maximum.reduceat(after, starts)
    table = np.stack([ring[starts], areas, x0, y0, x1 - x0, y1 - y0], axis=1)
    for number, area, x, y, width, height in table.tolist():
        found[number] = area, (x, y, width, height)
    return found

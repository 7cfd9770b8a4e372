"""An image's objects as they are drawn in a COCO file, kept until someone asks for their outlines.

Most files hold nothing but polygons that are as they should be. Whether an object has pixels, how
many and where, shows where its edges cross the columns of pixels (`runs.py`), before anything is
filled; and who writes COCO again needs no more than that.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from shapely.geometry import MultiPolygon, Polygon

from converters.files.json_numbers import read_rings
from converters.formats.coco.filling import Numbers, Points, fill_each
from converters.formats.coco.runs import ColumnRuns, are_seen_to_have_pixels, code_text
from converters.formats.plausible import Bounds, check_place
from converters.masks import Box, CropMask, encode_coco_rle, outlines, tight_box
from converters.types import DrawnRings

_FEWEST_NUMBERS = 6
_LARGEST = np.iinfo(np.uint16).max
# Far beyond any image; what is larger would only overflow.
LARGEST_COORDINATE = 1e6
Result = TypeVar("Result")


@dataclass(frozen=True)
class DrawnShapes:
    """An image's objects, each drawn as polygons.

    Attributes:
        size_hw: the image's height and width.
        scale: how many parts of a pixel the points count in; 0 where they are not whole.
        points: zlib of the differences of all points x, y, from the image's upper left corner;
            uint16 in parts of a pixel, or float64 in pixels.
        counts: int32, the number of each object's polygons, then of each one's points.
        objects: how many there are.
    """

    size_hw: tuple[int, int]
    scale: int
    points: bytes
    counts: bytes
    objects: int

    @classmethod
    def of(
        cls, size_hw: tuple[int, int], points: Points, lengths: Numbers, owned: Numbers
    ) -> DrawnShapes:
        """Pack objects that have at least one pixel each.

        Args:
            size_hw: the image's height and width.
            points: of all polygons, float64 (N, 2).
            lengths: int64, how many are each polygon's.
            owned: int64, how many polygons are each object's.
        """
        counts = np.concatenate([owned, lengths]).astype(np.int32).tobytes()
        return cls(size_hw, *_pack(points), counts, len(owned))

    def _rings(self) -> tuple[Points, Numbers, Numbers]:
        """All points; how many are each polygon's; how many polygons are each object's."""
        counts = np.frombuffer(self.counts, np.int32).astype(np.intp)
        return _unpack(self.scale, self.points), counts[self.objects :], counts[: self.objects]

    @property
    def has_two_digits(self) -> bool:
        """Whether no coordinate has more than two digits behind its point."""
        if self.scale:
            return self.scale in _TWO_DIGITS
        points, *_ = self._rings()
        return bool((np.round(points, 2) == points).all())

    def polygons(self) -> list[list[Points]]:
        """Return the polygons of each object, float64 (N, 2)."""
        points, lengths, owned = self._rings()
        rings = iter(np.split(points, np.cumsum(lengths)[:-1]))
        return [[next(rings) for _ in range(own)] for own in owned.tolist()]

    def unpack(self) -> list[Polygon | MultiPolygon]:
        """Return the outlines of each object's pixels."""
        return outlines(self.masks())

    def drawn(self) -> list[DrawnRings]:
        """Return the polygons of each object, in our pixels."""
        return [tuple(ring - 0.5 for ring in own) for own in self.polygons()]

    def masks(self, places: Sequence[int] | None = None) -> list[CropMask]:
        """Return the pixels of each object, or of those in some places."""
        polygons = self.polygons()
        wanted = polygons if places is None else [polygons[place] for place in places]
        return fill_each(wanted, self.size_hw)

    def measure(self) -> list[tuple[int, Box]]:
        """Return the number of each object's pixels, and their x, y, width and height."""
        return self._each(self._rings(), ColumnRuns.measure, _measure)

    def write(self, layout: str) -> list[tuple[int, Box, bytes]]:
        """Return each object's number of pixels, their box, and the JSON of its `segmentation`.

        Args:
            layout: `polygons`, as they were read, or `rle`.
        """
        rings = self._rings()
        if layout == "polygons":
            found = self._each(rings, ColumnRuns.measure, _measure)
            return [
                (*own, b"[%b]" % b",".join(texts))
                for own, texts in zip(found, self._written(*rings), strict=True)
            ]
        return self._each(
            rings,
            _write_runs,
            lambda mask: (*_measure(mask), code_text(encode_coco_rle(mask, self.size_hw))),
        )

    def _each(
        self,
        rings: tuple[Points, Numbers, Numbers],
        of_runs: Callable[[ColumnRuns], Iterable[Result]],
        of_mask: Callable[[CropMask], Result],
    ) -> list[Result]:
        """Ask for something about each object: runs of those of one polygon, masks of others."""
        points, lengths, owned = rings
        is_alone = np.repeat(owned == 1, owned)
        if is_alone.all():
            return list(of_runs(ColumnRuns.of(points, lengths, self.size_hw)))
        alone: Iterator[Result] = iter(())
        if is_alone.any():
            own = points[np.repeat(is_alone, lengths)]
            alone = iter(of_runs(ColumnRuns.of(own, lengths[is_alone], self.size_hw)))
        split = iter(np.split(points, np.cumsum(lengths)[:-1]))
        objects = [list(islice(split, number)) for number in owned.tolist()]
        masks = iter(fill_each([own for own in objects if len(own) > 1], self.size_hw))
        return [next(alone) if len(own) == 1 else of_mask(next(masks)) for own in objects]

    def write_rings(self) -> list[tuple[list[bytes], Bounds]]:
        """Return the JSON of each object's polygons, `[x1,y1,...]` each, and the box around them.

        Boxes are x and y, least and largest, of the vertices in the polygons' pixels.
        """
        points, lengths, owned = self._rings()
        texts = self._written(points, lengths, owned)
        return list(zip(texts, _bounds(*_ranges(points, lengths), owned), strict=True))

    def with_empty_parts(self) -> set[int]:
        """Return the places of objects of several polygons of which one alone has no pixels."""
        points, lengths, owned = self._rings()
        is_part = np.repeat(owned > 1, owned)
        if not is_part.any():
            return set()
        own = points[np.repeat(is_part, lengths)]
        areas = ColumnRuns.of(own, lengths[is_part], self.size_hw).measure()
        places = np.repeat(np.arange(len(owned)), owned)[is_part].tolist()
        return {place for place, (area, _) in zip(places, areas, strict=True) if not area}

    def _written(self, points: Points, lengths: Numbers, owned: Numbers) -> list[list[bytes]]:
        texts = ring_texts(points, lengths, max(self.size_hw))
        return [list(islice(texts, number)) for number in owned.tolist()]


def _measure(mask: CropMask) -> tuple[int, Box]:
    return mask.area, tight_box(mask)


def _write_runs(runs: ColumnRuns) -> Iterator[tuple[int, Box, bytes]]:
    for own, code in zip(runs.measure(), runs.encode(), strict=True):
        yield *own, code_text(code)


# Half pixels, and decimals.
_SCALES = (1, 2, 10, 100, 1000)
_TWO_DIGITS = (1, 2, 10, 100)


def _pack(points: Points) -> tuple[int, bytes]:
    """Points in a fraction of the memory, the same to the last bit; and their scale."""
    # Minus zero is less than nothing, too.
    for scale in () if np.signbit(points).any() else _SCALES:
        whole = np.rint(points * scale)
        # The nearest number to a decimal is what a file's text is read as.
        if (whole / scale == points).all() and whole.max() <= _LARGEST:
            places = whole.T.astype(np.uint16, order="C")
            steps = np.diff(places, prepend=np.zeros((2, 1), np.uint16))
            # Steps are small, to both sides: signs go to the lowest bit, so that nearly all second
            # bytes are zero, and those lie behind the first ones.
            signed = steps.view(np.int16)
            folded = ((signed << 1) ^ (signed >> 15)).view(np.uint8).reshape(-1, 2)
            return scale, zlib.compress(folded.T.tobytes(), level=1)
    return 0, zlib.compress(points.tobytes(), level=1)


def _unpack(scale: int, content: bytes) -> Points:
    found = zlib.decompress(content)
    if not scale:
        return np.frombuffer(found).reshape(-1, 2)
    low, high = np.frombuffer(found, np.uint8).reshape(2, -1).astype(np.uint16)
    folded = low | (high << 8)
    steps = ((folded >> 1) ^ -(folded & 1)).reshape(2, -1)
    points: Points = np.cumsum(steps, axis=1, dtype=np.uint16).T / scale
    return points


def ring_texts(points: Points, lengths: Numbers, side: int) -> Iterator[bytes]:
    """Yield rings as COCO's JSON has them, `[x1,y1,...]` each.

    Args:
        points: float64 (N, 2) in pixels; one ring behind the other.
        lengths: int64 (n), how many are each ring's, at least one.
        side: of the image, the longer one, in pixels.
    """
    if not len(lengths):
        return
    doubled = 2 * points
    is_half = ((doubled == np.rint(doubled)) & (doubled >= 0) & (doubled <= 2 * side)).all(1)
    if is_half.all():
        # As most programs write them, and we do: there is a table of these.
        yield from half_pixels(doubled.astype(np.intp), lengths, side)
        return
    ends = np.cumsum(lengths)
    are_half = np.logical_and.reduceat(is_half, ends - lengths)
    own = doubled[np.repeat(are_half, lengths)].astype(np.intp)
    halves = iter(half_pixels(own, lengths[are_half], side))
    for is_own, ring in zip(are_half.tolist(), np.split(points, ends[:-1]), strict=True):
        if is_own:
            yield next(halves)
        else:
            yield json.dumps(ring.ravel().tolist(), separators=(",", ":")).encode("ascii")


def half_pixels(points: npt.NDArray[np.integer[Any]], lengths: Numbers, side: int) -> list[bytes]:
    """Return rings as COCO's JSON has them.

    Args:
        points: (N, 2) in half pixels, from 0 on; one ring behind the other.
        lengths: int64 (n), how many are each ring's, at least one.
        side: of the image, the longer one, in pixels.

    >>> half_pixels(np.array([[0, 1], [4, 3], [2, 2]]), np.array([2, 1]), 2)
    [b'[0,0.5,2,1.5]', b'[1,1]']
    """
    if not len(lengths):
        return []
    words, letters = _words(side)
    text = words[points].tobytes().translate(None, b"\0")
    ends = np.cumsum(letters[points].sum(axis=1, dtype=np.intp))[np.cumsum(lengths) - 1].tolist()
    # Without the comma behind each ring.
    return [b"[%b]" % text[start : end - 1] for start, end in zip([0, *ends], ends, strict=False)]


@lru_cache(maxsize=8)
def _words(side: int) -> tuple[npt.NDArray[np.bytes_], npt.NDArray[np.uint8]]:
    """What is written for each half pixel of a side, filled up with zeros; and its length."""
    words = [f"{i / 2:.10g},".encode() for i in range(2 * side + 1)]
    return np.array(words, dtype=np.bytes_), np.array([len(word) for word in words], np.uint8)


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
    rings = np.array([len(part) // 2 for part in parts])
    return _draw(points, rings, np.array([len(own) for own in segmentations]), size_hw)


def draw_written(
    segmentations: Sequence[Any], size_hw: tuple[int, int]
) -> tuple[DrawnShapes, list[Bounds]] | None:
    """Return what `draw` does, of the JSON of each object, as bytes or a buffer.

    None also where coordinates are written in many digits.
    """
    found = read_rings(segmentations)
    if found is None:
        return None
    numbers, lengths, owned = found
    if (lengths % 2).any() or lengths.min() < _FEWEST_NUMBERS:
        return None
    points = numbers.reshape(-1, 2)
    if not (points < LARGEST_COORDINATE).all():
        return None
    return _draw(points, lengths // 2, owned, size_hw)


def _draw(
    points: Points, rings: Numbers, owned: Numbers, size_hw: tuple[int, int]
) -> tuple[DrawnShapes, list[Bounds]] | None:
    low, high = _ranges(points, rings)
    bounds = _bounds(low, high, owned)
    try:
        for own in bounds:
            check_place(own, size_hw)
    except ValueError:
        return None
    shapes = DrawnShapes.of(size_hw, points, rings, owned)
    middles = (low[:, 0] + high[:, 0]) / 2
    seen = are_seen_to_have_pixels(points, rings, middles, size_hw)
    firsts = np.cumsum(owned) - owned
    if not np.logical_or.reduceat(seen, firsts).all() and not all(a for a, _ in shapes.measure()):
        return None
    return shapes, bounds


def _ranges(points: Points, lengths: Numbers) -> tuple[Points, Points]:
    """The least and the largest x and y of rings, float64 (n, 2) each."""
    firsts = np.cumsum(lengths) - lengths
    axes = np.ascontiguousarray(points.T)
    low = [np.minimum.reduceat(axis, firsts) for axis in axes]
    high = [np.maximum.reduceat(axis, firsts) for axis in axes]
    return np.stack(low, axis=1), np.stack(high, axis=1)


def _bounds(low: Points, high: Points, owned: Numbers) -> list[Bounds]:
    """The box around each object's rings, of which the least and largest x and y are given."""
    firsts = np.cumsum(owned) - owned
    least, largest = np.minimum.reduceat(low, firsts), np.maximum.reduceat(high, firsts)
    return [
        (x0, y0, x1, y1)
        for (x0, y0), (x1, y1) in zip(least.tolist(), largest.tolist(), strict=True)
    ]

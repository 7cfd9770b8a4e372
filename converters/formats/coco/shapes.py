"""An object's pixels as COCO's `segmentation`, and back; `coco.py` says why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon

from converters.files.json_files import are_numbers
from converters.formats.coco.borders import borders
from converters.formats.coco.drawn import LARGEST_COORDINATE, half_pixels
from converters.formats.coco.filling import Points, fill_each
from converters.formats.coco.runs import code_text
from converters.formats.plausible import Bounds, check_place
from converters.masks import (
    CropMask,
    Ring,
    decode_coco_rle,
    encode_coco_rle,
    outline,
    rasterize,
    rings,
    tight_box,
)
from converters.types import DrawnRings, Instance

_FEWEST_POINTS = 3


def encode_segmentations(
    masks: Sequence[CropMask], size_hw: tuple[int, int], layout: str
) -> list[bytes]:
    """Return the JSON of each mask's polygons, or of its run-length code.

    Args:
        masks: at least one pixel each.
        size_hw: the image's height and width.
        layout: `polygons`, where a mask has no holes, or `rle`.
    """
    shells = [_shells(mask) if layout == "polygons" else [] for mask in masks]
    lines = _lines([shell for own in shells for shell in own], size_hw)
    return [
        b"[%b]" % b",".join(islice(lines, len(own)))
        if own
        else code_text(encode_coco_rle(mask, size_hw))
        for mask, own in zip(masks, shells, strict=True)
    ]


def _shells(mask: CropMask) -> list[Ring]:
    """The parts of a mask without holes; none where it has one."""
    parts = rings(mask)
    return [] if any(holes for _, holes in parts) else [shell for shell, _ in parts]


def _lines(shells: Sequence[Ring], size_hw: tuple[int, int]) -> Iterator[bytes]:
    lines = borders(shells)
    if lines:
        lengths = np.array([len(line) for line in lines])
        yield from half_pixels(np.concatenate(lines), lengths, max(size_hw))


@dataclass(frozen=True)
class Shape:
    """What an annotation's `segmentation` says.

    Attributes:
        mask: at least one pixel.
        bounds: where it is written to be, in COCO's pixels; of all points, and of those of parts
            with pixels.
        specks: parts of one point or two, which have no pixels.
        drawn: the polygons, in our pixels; none of a run-length code.
    """

    mask: CropMask
    bounds: tuple[Bounds, ...]
    specks: int = 0
    drawn: DrawnRings = ()

    @property
    def parts(self) -> list[ShapePart]:
        """The polygons of its pixels, and of its file."""
        return pixel_parts(self.mask, self.drawn)


@dataclass(frozen=True)
class ShapePart:
    """A part of an object: the outline of its pixels, and what its file draws in their place.

    Attributes:
        outline: in our pixels.
        drawn: polygons in our pixels; None where the outline is drawn itself. Of several parts of
            one shape the first has them all, the others have none.
    """

    outline: Polygon
    drawn: DrawnRings | None = None


def pixel_parts(mask: CropMask, drawn: DrawnRings = ()) -> list[ShapePart]:
    """Return the parts of a mask, with what its file draws.

    Raises:
        ValueError: the mask is empty.
    """
    geometry = outline(mask)
    found = [geometry] if isinstance(geometry, Polygon) else list(geometry.geoms)
    if not drawn:
        return [ShapePart(own) for own in found]
    return [ShapePart(own, () if number else drawn) for number, own in enumerate(found)]


def joined(label: str, parts: Sequence[ShapePart]) -> Instance:
    """Return the object of which these are the parts."""
    outlines = [part.outline for part in parts]
    geometry = outlines[0] if len(outlines) == 1 else MultiPolygon(outlines)
    if all(part.drawn is None for part in parts):
        return Instance(label, geometry)
    rings = ((_shell(p.outline),) if p.drawn is None else p.drawn for p in parts)
    return Instance(label, geometry, tuple(chain.from_iterable(rings)))


def _shell(polygon: Polygon) -> Points:
    points: Points = shapely.get_coordinates(polygon.exterior)
    return points


class NoPixelsError(ValueError):
    """An object that has no pixel in the image."""


def decode_segmentation(segmentation: Any, size_hw: tuple[int, int]) -> Shape:
    """Return the pixels of an annotation's `segmentation`.

    Args:
        segmentation: polygons, or a run-length code, compressed or not.
        size_hw: the image's height and width.

    Raises:
        ValueError: neither, or one that is broken, lies elsewhere or has no pixel in the image.
    """
    (shape,) = decode_segmentations([segmentation], size_hw)
    if isinstance(shape, ValueError):
        raise shape
    return shape


def decode_segmentations(
    segmentations: Sequence[Any], size_hw: tuple[int, int]
) -> list[Shape | ValueError]:
    """Return the pixels of each of an image's objects, or what is wrong with it.

    Args:
        segmentations: as `decode_segmentation` takes them.
        size_hw: the image's height and width.
    """
    drawn = [_draw(segmentation, size_hw) for segmentation in segmentations]
    filled = fill_each([one.polygons for one in drawn if isinstance(one, _Drawn)], size_hw)
    masks = iter(filled)
    return [
        _with_pixels(one.shape(next(masks), size_hw) if isinstance(one, _Drawn) else one)
        for one in drawn
    ]


@dataclass(frozen=True)
class _Drawn:
    """An object that is drawn as polygons, and not yet filled."""

    polygons: Sequence[Points]
    bounds: tuple[Bounds, ...]
    specks: int

    def shape(self, mask: CropMask, size_hw: tuple[int, int]) -> Shape:
        """Join it with its pixels; one that has none keeps those of its outline."""
        drawn = tuple(own - 0.5 for own in self.polygons)
        if not mask.area:
            mask = rasterize(MultiPolygon([Polygon(own) for own in drawn]), size_hw)
        return Shape(mask, self.bounds, self.specks, drawn)


def _draw(segmentation: Any, size_hw: tuple[int, int]) -> Shape | _Drawn | ValueError:
    try:
        if not segmentation:
            raise ValueError("expected polygons or a run-length code, found only a box")
        if isinstance(segmentation, dict):
            return _from_code(segmentation, size_hw)
        if isinstance(segmentation, list):
            return _from_polygons(_parts(segmentation), size_hw)
        raise ValueError(f"expected polygons or a run-length code, found {segmentation!r:.40}")
    except ValueError as error:
        return error


def _with_pixels(shape: Shape | ValueError) -> Shape | ValueError:
    if isinstance(shape, ValueError) or shape.mask.area:
        return shape
    return NoPixelsError("expected an object with pixels in the image, found none")


def written_values(segmentation: Any) -> Iterator[list[float]]:
    """Yield the coordinates of polygons; those that are broken, and codes, have none."""
    for part in _parts(segmentation) if isinstance(segmentation, list) and segmentation else ():
        with suppress(ValueError):
            yield _points(part).ravel().tolist()


def _from_code(code: Mapping[str, Any], size_hw: tuple[int, int]) -> Shape:
    size, counts = code.get("size"), code.get("counts")
    if not isinstance(size, list) or tuple(size) != size_hw:
        raise ValueError(f"expected a run-length code of size {size_hw}, found {size!r:.40}")
    is_text = isinstance(counts, str) and counts.isascii()
    if not is_text and not (isinstance(counts, list) and {*map(type, counts)} <= {int}):
        raise ValueError(f"expected 'counts' to be a text or whole numbers, found {counts!r:.40}")
    mask = decode_coco_rle({"size": list(size_hw), "counts": counts})
    x, y, width, height = tight_box(mask)
    return Shape(mask, ((x, y, x + width, y + height),))


def _parts(segmentation: Sequence[Any]) -> Sequence[Any]:
    # As supervision, we take a single polygon without the list around it, too.
    return segmentation if isinstance(segmentation[0], list) else [segmentation]


def _from_polygons(parts: Sequence[Any], size_hw: tuple[int, int]) -> _Drawn:
    points = [_points(part) for part in parts]
    polygons = [own for own in points if len(own) >= _FEWEST_POINTS]
    if not polygons:
        found = max(map(len, points))
        raise ValueError(f"expected at least 3 points x, y, found {2 * found} numbers")
    specks = len(points) - len(polygons)
    bounds = (_bounds(polygons),)
    check_place(bounds[0], size_hw)
    return _Drawn(polygons, (*bounds, _bounds(points)) if specks else 2 * bounds, specks)


def _bounds(polygons: Sequence[Points]) -> Bounds:
    points = np.concatenate(polygons)
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x0, y0, x1, y1


def _points(part: Any) -> Points:
    try:
        values = np.array(part)
    except ValueError:  # ragged
        values = np.array(None)
    if values.ndim != 1 or values.dtype.kind not in "iuf" or not are_numbers(part):
        raise ValueError(f"expected a polygon x1, y1, x2, ..., found {part!r:.40}")
    if len(values) % 2:
        raise ValueError(f"expected at least 3 points x, y, found {len(values)} numbers")
    if not (np.abs(values.astype(np.float64)) < LARGEST_COORDINATE).all():
        raise ValueError("expected coordinates in pixels, found NaN, infinity or huge ones")
    return values.astype(np.float64).reshape(-1, 2)

"""Datumaro's shapes as polygons in our pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from shapely.geometry import Polygon

from converters.formats.coco.shapes import ShapePart, decode_segmentation, pixel_parts
from converters.formats.plausible import Bounds, check_box
from converters.masks import decode_coco_rle, tight_box

Shape = Mapping[str, Any]

_WITHOUT_PIXELS = frozenset({"label", "caption"})
_OUTLINES = frozenset({"polygon", "mask"})
# What a conversion of COCO puts beside an object's outline.
_BESIDE = frozenset({"bbox", "points", "skeleton"})
_DIGITS = 2
_SLACK_PX = 1.0


def shape_parts(shape: Shape, size_hw: tuple[int, int], is_ours: bool) -> list[ShapePart]:
    """Return polygons in our pixels of a shape; none where it has no pixels.

    Args:
        shape: as Datumaro writes it; a polygon's points as an array.
        size_hw: the image's height and width.
        is_ours: a polygon is of our own making: its vertices are pixels' centres. Others hold the
            pixels that pycocotools gives them.

    Raises:
        ValueError: a shape of another kind, or a broken one.
    """
    kind = shape.get("type")
    if kind == "polygon":
        ring = _points(shape["points"])
        if is_ours:
            return [ShapePart(Polygon(np.round(ring - 0.5, _DIGITS)))]
        return decode_segmentation([ring.ravel().tolist()], size_hw).parts
    if kind == "mask":
        return _mask_parts(shape["rle"], size_hw)
    if kind in _WITHOUT_PIXELS:
        return []
    raise ValueError(
        f"expected a polygon or a mask, found a shape of type '{kind}': draw it as one of them, "
        "or delete it"
    )


def _points(points: object) -> npt.NDArray[np.float64]:
    if not isinstance(points, np.ndarray) or points.ndim != 1:
        raise ValueError(f"expected points as a list of numbers x, y, found {points!r:.60}")
    if len(points) < 6 or len(points) % 2:
        raise ValueError(f"expected at least 3 points x, y, found {len(points)} numbers")
    if not np.isfinite(points).all():
        raise ValueError("expected finite coordinates, found NaN or infinity")
    return points.reshape(-1, 2)


def _mask_parts(code: Shape, size_hw: tuple[int, int]) -> list[ShapePart]:
    if isinstance(counts := code["counts"], list) and not {*map(type, counts)} <= {int}:
        raise ValueError(f"expected 'counts' to be a text or whole numbers, found {counts!r:.40}")
    if tuple(code["size"]) != size_hw:
        raise ValueError(f"expected a mask of {size_hw}, found one of {tuple(code['size'])}")
    mask = decode_coco_rle(code)
    return pixel_parts(mask) if mask.area else []


# --- boxes beside outlines


def is_beside_outline(shape: Shape, shapes: Sequence[Any], size_hw: tuple[int, int]) -> bool:
    """Tell whether a box or points only repeat an object whose outline is there.

    Points do so if they have the group of a polygon or a mask; a box, if it has its group or its
    id and lies around it, more or less, or is exactly around one of its label.

    Args:
        shape: any shape.
        shapes: all of the image.
        size_hw: the image's height and width.
    """
    kind = shape.get("type")
    if kind not in _BESIDE:
        return False
    outlines = [s for s in shapes if isinstance(s, Mapping) and s.get("type") in _OUTLINES]
    of_group = [s for s in outlines if _same(shape, s, "group")]
    if kind != "bbox":
        return bool(of_group)
    of_id = [s for s in outlines if _same(shape, s, "id")]
    partners = of_group or of_id
    if partners and _lies_around(shape, partners, size_hw):
        return True
    of_label = [s for s in outlines if s.get("label_id") == shape.get("label_id")]
    return any(_is_around(shape.get("bbox"), _bounds([s], size_hw)) for s in of_label)


def _lies_around(box: Shape, outlines: Sequence[Shape], size_hw: tuple[int, int]) -> bool:
    try:
        return check_box(box.get("bbox"), [_bounds(outlines, size_hw)], size_hw)
    except ValueError:
        return False


def _same(one: Shape, two: Shape, member: str) -> bool:
    # 0 is what programs write that have no groups, or no ids.
    return bool(one.get(member)) and one.get(member) == two.get(member)


def _bounds(shapes: Sequence[Shape], size_hw: tuple[int, int]) -> Bounds:
    """The box around all of them in Datumaro's pixels."""
    corners: list[Bounds] = []
    for shape in shapes:
        if shape["type"] == "polygon":
            points = _points(shape["points"])
            (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
            corners.append((x0, y0, x1, y1))
        else:
            x, y, width, height = tight_box(decode_coco_rle(shape["rle"]))
            corners.append((x, y, x + width, y + height))
    low, high = np.min(corners, axis=0).tolist(), np.max(corners, axis=0).tolist()
    return low[0], low[1], high[2], high[3]


def _is_around(box: object, bounds: Bounds) -> bool:
    if not isinstance(box, list) or len(box) != 4:
        return False
    x, y, width, height = box
    said = np.array([x, y, x + width, y + height], np.float64)
    return bool(np.abs(said - bounds).max() <= _SLACK_PX)

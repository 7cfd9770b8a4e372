"""CVAT's shapes as pixels; `cvat.py` says which are read."""

from __future__ import annotations

import math
from xml.etree.ElementTree import Element

import numpy as np

from converters.formats.coco.shapes import ShapePart, decode_segmentation, pixel_parts
from converters.formats.corners import Points, ellipse, rectangle, turn
from converters.masks import CropMask

OUTLINED = frozenset({"polygon", "box", "ellipse", "mask"})
WITHOUT_AREA = frozenset({"polyline", "points", "skeleton"})
# What is said of a whole image, and what is no shape.
NO_SHAPES = frozenset({"tag", "attribute"})
_LARGEST_PX = 1e6


def corners(shape: Element) -> Points | None:
    """Return the corners of a shape in CVAT's pixels, float64 (N, 2); None of a mask.

    Raises:
        ValueError: coordinates that are missing or no numbers.
    """
    if shape.tag == "mask":
        return None
    if shape.tag == "polygon":
        return _points(_text(shape, "points"))
    if shape.tag == "box":
        x0, y0, x1, y1 = (_number(shape, name) for name in ("xtl", "ytl", "xbr", "ybr"))
        points, centre = rectangle(x0, y0, x1, y1), ((x0 + x1) / 2, (y0 + y1) / 2)
    else:
        centre = (_number(shape, "cx"), _number(shape, "cy"))
        radius_x, radius_y = _number(shape, "rx"), _number(shape, "ry")
        if min(radius_x, radius_y) <= 0:
            raise ValueError(f"expected radii above 0, found {radius_x:g} and {radius_y:g}")
        points = ellipse(centre, radius_x, radius_y)
    angle = _number(shape, "rotation") if "rotation" in shape.attrib else 0.0
    return turn(points, centre, angle) if angle else points


def shape_parts(shape: Element, size_hw: tuple[int, int]) -> list[ShapePart]:
    """Return polygons, in our pixels, that hold a shape's pixels.

    Args:
        shape: of one of the kinds `OUTLINED`.
        size_hw: the image's height and width.

    Raises:
        ValueError: one that is broken, lies elsewhere, or has no pixel in the image.
    """
    points = corners(shape)
    if points is None:
        return pixel_parts(_mask(shape, size_hw))
    return decode_segmentation([points.ravel().tolist()], size_hw).parts


def _mask(shape: Element, size_hw: tuple[int, int]) -> CropMask:
    """The pixels of a run-length code: row-major in its box, the first run is not the object's."""
    left, top, width, height = (_whole(shape, n) for n in ("left", "top", "width", "height"))
    is_inside = left + width <= size_hw[1] and top + height <= size_hw[0]
    if min(left, top) < 0 or min(width, height) < 1 or not is_inside:
        raise ValueError(
            f"expected a mask inside the image {size_hw}, found left {left}, top {top}, width "
            f"{width}, height {height}"
        )
    code = _text(shape, "rle")
    try:
        runs = np.array(code.split(","), np.int64)
    except (OverflowError, ValueError):
        raise ValueError(f"expected 'rle' to be whole numbers, found '{code:.40}'") from None
    fits = ((runs >= 0) & (runs <= width * height)).all() and runs.sum() == width * height
    if not fits:
        raise ValueError(f"expected 'rle' to have runs that fill {height} x {width} pixels")
    pixels = np.repeat(np.arange(len(runs), dtype=np.int64) % 2, runs).astype(np.uint8)
    mask = CropMask(left, top, pixels.reshape(height, width))
    if not mask.area:
        raise ValueError("expected a mask with pixels, found an empty one")
    return mask


def _points(text: str) -> Points:
    try:
        pairs = [tuple(map(float, pair.split(","))) for pair in text.split(";")]
        points = np.array(pairs, np.float64)
    except ValueError:
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"expected points 'x,y;x,y;...', found '{text:.40}'")
    return points


def _text(shape: Element, name: str) -> str:
    if (text := shape.get(name)) is None:
        raise ValueError(f"expected '{name}', found none")
    return text


def _number(shape: Element, name: str) -> float:
    text = _text(shape, name)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not abs(number) < _LARGEST_PX:
        raise ValueError(f"expected '{name}' to be a number, found '{text:.40}'")
    return number


def _whole(shape: Element, name: str) -> int:
    number = _number(shape, name)
    if number != int(number):
        raise ValueError(f"expected '{name}' to be a whole number, found {number:g}")
    return int(number)

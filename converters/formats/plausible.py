"""Whether coordinates can be pixels of their image.

Polygons in parts of the image's sides (0 to 1), or in pixels of an image of another size, are read
without complaint and give objects of a pixel, or in the wrong place. What is asked here is coarse:
annotators round, boxes are drawn loosely, and polygons end some pixels beyond the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import shapely

from converters.files.json_files import are_numbers
from converters.types import Instance

Bounds = tuple[float, float, float, float]
"""x and y of the upper left, then of the lower right corner, in pixels."""

# Normalised coordinates may be a little beyond the image, too.
_NORMALISED = (-0.5, 1.5)
# By so much digits that were left out change a coordinate.
_ROUNDED = 0.005
# What is written beside an object of a pixel: a box of so many pixels at most, and so far off.
_MOST_PX, _OFF = 2, 0.01
# In a smaller image they could be pixels.
_SMALLEST_SIDE = 8
# An object further beyond the image than this share of its side is in pixels of another one; a
# large one may begin inside.
_FARTHEST = 1.0
_FAR, _LEAST_INSIDE = 0.5, 0.25
# Boxes agree if they differ by no more than this, in pixels and as a share of the longer side, or
# overlap by this much.
_SLACK_PX, _SLACK, _LEAST_IOU = 5.0, 0.25, 0.5
# Areas are counted in many ways: of pixels, of the polygon, of the box.
_AREA_FACTOR, _AREA_SLACK_PX = 10, 100


def are_normalised(values: Iterable[Sequence[float]], size_hw: tuple[int, int]) -> bool:
    """Tell whether all coordinates of an image are parts of its sides instead of pixels.

    The outline of a single pixel, in whole and half numbers, says nothing.

    Args:
        values: coordinates of its polygons; read no further than the first that is none.
        size_hw: the image's height and width.

    >>> are_normalised([[0.1, 0.2, 0.35, 0.2, 0.35, 0.45]], (480, 640))
    True
    >>> are_normalised([[0, 0, 1, 0, 1, 1]], (480, 640))
    False
    """
    if max(size_hw) < _SMALLEST_SIDE:
        return False
    has_fraction = False
    for polygon in values:
        for value in polygon:
            if not _NORMALISED[0] <= value <= _NORMALISED[1]:
                return False
        has_fraction |= any(value != int(value) for value in polygon) and not _is_pixel(polygon)
    return has_fraction


def _is_pixel(polygon: Sequence[float]) -> bool:
    """Tell whether a polygon is one that is drawn around one pixel, or only its centre."""
    is_in_halves = all(abs(value - round(2 * value) / 2) <= _ROUNDED for value in polygon)
    axes = filter(None, (list(polygon[0::2]), list(polygon[1::2])))
    spans = [max(axis) - min(axis) for axis in axes]
    return is_in_halves and any(
        all(abs(span - side) <= 2 * _ROUNDED for span in spans) for side in (0, 1)
    )


def shows_pixels(bounds: Bounds, box: object, area: object, size_hw: tuple[int, int]) -> bool:
    """Tell whether what is written beside an object between 0 and 1 shows that it is in pixels.

    That is a box in whole pixels which is not just that of the points, or an area of some pixels
    where the points are less than one, and would be far more as parts of the image's sides.

    Args:
        bounds: of its points.
        box: x, y, width and height as they are written; anything else shows nothing.
        area: as it is written; anything else shows nothing.
        size_hw: the image's height and width.
    """
    if said := _numbers(box):
        x, y, width, height = (*said, 0.0, 0.0, 0.0)[:4]
        corners = (x, y, x + width, y + height)
        is_around = min(width, height) >= 1 and all(value == int(value) for value in corners)
        off = (abs(p - q) for p, q in zip(corners, bounds, strict=True))
        if is_around and max(map(abs, corners)) <= _MOST_PX and max(off) > _OFF:
            return True
    pixels = (_numbers([area]) or (0.0,))[0]
    share = (bounds[2] - bounds[0]) * (bounds[3] - bounds[1])
    is_small = 1 <= pixels <= _MOST_PX**2 and share < 1
    return is_small and share * size_hw[0] * size_hw[1] > _AREA_FACTOR * pixels


def normalised_message(size_hw: tuple[int, int]) -> str:
    """Say what is wrong with coordinates that `are_normalised`."""
    height, width = size_hw
    return (
        f"expected points in pixels of an image of {height} x {width} (height x width), found all "
        "between 0 and 1: multiply x by the width and y by the height"
    )


def check_place(bounds: Bounds, size_hw: tuple[int, int]) -> None:
    """Make sure that an object lies in its image, more or less.

    Raises:
        ValueError: it lies beside it, or reaches so far out that its points must be pixels of
            another image.
    """
    left, top, right, bottom = bounds
    if left >= 0 and top >= 0 and right <= size_hw[1] and bottom <= size_hw[0]:
        return  # as nearly all do
    axes = [(*bounds[0::2], float(size_hw[1])), (*bounds[1::2], float(size_hw[0]))]
    is_beside = any(high < -0.5 or low > side for low, high, side in axes)
    beyond = max(max(-low, high - side) / side for low, high, side in axes)
    inside = math.prod(
        max(0.0, min(high, side) - max(low, 0.0)) / max(high - low, 1e-9)
        for low, high, side in axes
    )
    if is_beside or beyond > _FARTHEST or (beyond > _FAR and inside < _LEAST_INSIDE):
        height, width = size_hw
        raise ValueError(
            f"expected points in an image of {height} x {width} (height x width), found "
            f"{_spans(bounds)}: they may be pixels of an image of another size"
        )


def check_box(
    said: object, found: Sequence[Bounds], size_hw: tuple[int, int], what: str = "bbox"
) -> bool:
    """Make sure that a box that is written beside an object is not somewhere else.

    Args:
        said: x, y, width, height; also taken are two corners, and parts of the image's sides.
            Anything else, such as a box of no size, says nothing.
        found: where the object is; the box may be any of these.
        size_hw: the image's height and width.
        what: the box's name, for the message.

    Returns:
        Whether there was a box to compare.

    Raises:
        ValueError: they clearly do not belong together.
    """
    box = _box(said)
    if box is None:
        return False
    x, y, width, height = box
    if _are_near((x, y, x + width, y + height), found[0]):
        return True  # as nearly all are
    own = [*found, *(_cut(bounds, size_hw) for bounds in found)]
    if not any(_agree(a, b) for a in _readings(box, size_hw) for b in own):
        raise ValueError(
            f"expected points where '{what}' says, {_spans((x, y, x + width, y + height))}, found "
            f"{_spans(found[0])}: mend what is wrong, or take '{what}' away"
        )
    return True


def is_near(said: object, bounds: Bounds) -> bool:
    """Tell whether a box is written beside an object that is within some pixels of where it is."""
    box = _box(said)
    if box is None:
        return False
    x, y, width, height = box
    return _are_near((x, y, x + width, y + height), bounds)


def _box(said: object) -> tuple[float, ...] | None:
    """x, y, width and height with a size; None where there is anything else."""
    box = _numbers(said)
    return None if box is None or len(box) < 4 or min(box[2:]) <= 0 else box


def check_area(said: object, pixels: int, bounds: Bounds) -> None:
    """Make sure that an area that is written beside an object is not that of another scale.

    Args:
        said: the area; no number, or 0, says nothing.
        pixels: of the object.
        bounds: its box.

    Raises:
        ValueError: they clearly do not belong together.
    """
    area = (_numbers([said]) or (0.0,))[0]
    most = max(float(pixels), (bounds[2] - bounds[0]) * (bounds[3] - bounds[1]))
    is_larger = area > _AREA_FACTOR * most + _AREA_SLACK_PX
    is_smaller = pixels > _AREA_FACTOR * area + _AREA_SLACK_PX
    if area > 0 and (is_larger or is_smaller):
        raise ValueError(
            f"expected about {area:.6g} pixels as 'area' says, found {pixels} and "
            f"{_spans(bounds)}: mend what is wrong, or take 'area' away"
        )


def keep_plausible(
    instances: Sequence[Instance], size_hw: tuple[int, int], report: Callable[[str], object]
) -> tuple[Instance, ...]:
    """Return the objects of an image whose points can be the image's pixels.

    Args:
        instances: the image's objects.
        size_hw: its height and width.
        report: is told of each of the others; once of all where all are normalised.
    """
    points = (shapely.get_coordinates(i.geometry).ravel().tolist() for i in instances)
    if are_normalised(points, size_hw):
        report(normalised_message(size_hw))
        return ()
    kept = []
    for instance in instances:
        try:
            check_place(instance.geometry.bounds, size_hw)
            kept.append(instance)
        except ValueError as error:
            report(f"'{instance.label}': {error}")
    return tuple(kept)


def _numbers(values: object) -> tuple[float, ...] | None:
    """One number, or the four of a box; None where there is anything else."""
    if not isinstance(values, list) or len(values) not in (1, 4):
        return None
    if not are_numbers(values):
        return None
    try:
        numbers = tuple(map(float, values))
    except OverflowError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _readings(box: tuple[float, ...], size_hw: tuple[int, int]) -> list[Bounds]:
    """What four numbers may mean, x, y, width and height first."""
    x, y, a, b = box
    readings: list[Bounds] = [(x, y, x + a, y + b), (x, y, a, b)]
    if max(map(abs, box)) <= _NORMALISED[1]:
        height, width = size_hw
        readings += [(p * width, q * height, r * width, s * height) for p, q, r, s in readings]
    return [reading for reading in readings if reading[2] > reading[0] and reading[3] > reading[1]]


def _cut(bounds: Bounds, size_hw: tuple[int, int]) -> Bounds:
    height, width = map(float, size_hw)
    x0, x1 = (min(max(x, 0.0), width) for x in bounds[0::2])
    y0, y1 = (min(max(y, 0.0), height) for y in bounds[1::2])
    return x0, y0, x1, y1


def _are_near(a: Bounds, b: Bounds) -> bool:
    return max(abs(p - q) for p, q in zip(a, b, strict=True)) <= _SLACK_PX


def _agree(a: Bounds, b: Bounds) -> bool:
    longest = max(a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1])
    apart = max(abs(p - q) for p, q in zip(a, b, strict=True))
    if apart <= max(_SLACK_PX, _SLACK * longest):
        return True
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return both >= _LEAST_IOU * (areas - both)


def _spans(bounds: Bounds) -> str:
    x0, y0, x1, y1 = (f"{value:.6g}" for value in bounds)
    return f"x {x0} to {x1} and y {y0} to {y1}"

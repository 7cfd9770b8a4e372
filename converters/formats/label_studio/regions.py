"""Label Studio's regions as pixels; `label_studio.py` says which are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from converters.formats.coco.shapes import ShapePart, decode_segmentation, pixel_parts
from converters.formats.corners import Points, ellipse, read_points, rectangle, turn
from converters.formats.label_studio.brush import decode_brush

Record = Mapping[str, Any]

_OUTLINED = ("polygon", "rectangle", "ellipse", "brush")
_WITHOUT_AREA = ("keypoint", "vector")
_REFUSED = ("bitmask",)
# What is said of a region or an image beside its outline.
_NO_OUTLINES = frozenset(
    {"choices", "textarea", "taxonomy", "rating", "number", "datetime", "pairwise", "ranker"}
)
_LABELS = "labels"
_LARGEST = 1e6
_SIDES = {"rectangle": ("width", "height"), "ellipse": ("radiusX", "radiusY")}
# Which member of a `value` shows how it is drawn.
_SIGNS = {"points": "polygon", "rle": "brush", "radiusX": "ellipse", "height": "rectangle"}


@dataclass
class Region:
    """What the entries of one id say together: one has the outline, another may have the label.

    Attributes:
        number: of its first entry.
        kind: of its outline, such as `polygon`; "" where there is none.
        value: of the entry with the outline.
        labels: its classes.
        rotation: by which the image was turned when it was drawn, in degrees.
        said_hw: the image's height and width, as they are written beside the outline.
    """

    number: int
    kind: str = ""
    value: Record = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    rotation: object = None
    said_hw: tuple[object, object] = (None, None)

    @property
    def is_outlined(self) -> bool:
        """Whether it has pixels."""
        return self.kind in _OUTLINED

    @property
    def is_without_area(self) -> bool:
        """Whether it encloses nothing."""
        return self.kind in _WITHOUT_AREA


def find_regions(entries: Sequence[Any]) -> list[Region]:
    """Return the regions of an annotation's `result`; what says nothing of pixels has no kind.

    Raises:
        ValueError: an entry is none.
    """
    found: dict[object, Region] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise ValueError(f"region {number}: expected an object, found {entry!r:.40}")
        if entry.get("type") == "relation":
            continue
        value = entry.get("value")
        if not isinstance(value, Mapping):
            raise ValueError(f"region {number}: expected a 'value', found {value!r:.40}")
        own = entry.get("id")
        region = found.setdefault(own if isinstance(own, str) and own else number, Region(number))
        if (kind := _kind(entry.get("type"), value)) and not region.kind:
            region.kind, region.value = kind, value
            region.rotation = entry.get("image_rotation")
            region.said_hw = (entry.get("original_height"), entry.get("original_width"))
        if not region.labels:
            region.labels = _labels(value)
    return list(found.values())


def _kind(said: object, value: Record) -> str:
    """What a region is drawn as, by its type; that of the tag Labels does not say it.

    An unknown type of what looks drawn is a kind as well: it is refused where it is read.
    """
    kind = str(said).lower()
    shape = next((shape for sign, shape in _SIGNS.items() if sign in value), "")
    if kind == _LABELS:
        return shape
    kind = kind.removesuffix(_LABELS)
    if kind in _OUTLINED or kind in _WITHOUT_AREA or kind in _REFUSED:
        return kind
    return kind if shape and kind not in _NO_OUTLINES else ""


def _labels(value: Record) -> list[str]:
    for name, found in value.items():
        if name.endswith(_LABELS) and isinstance(found, list):
            return [label for label in found if isinstance(label, str) and label.strip()]
    return []


# --- pixels


def written_values(region: Region) -> list[float]:
    """Return the coordinates of a region as they are written; none where it has no or broken ones.

    Those of a brush are pixels.
    """
    if region.kind == "polygon":
        points = read_points(region.value.get("points"))
        return [] if points is None else points.ravel().tolist()
    places = ("x", "y", *_SIDES.get(region.kind, ()))
    with suppress(ValueError):
        return [_number(region.value, name) for name in places] if len(places) > 2 else []
    return []


def region_parts(region: Region, size_hw: tuple[int, int]) -> list[ShapePart]:
    """Return polygons, in our pixels, that hold a region's pixels.

    Args:
        region: with a kind.
        size_hw: the image's height and width.

    Raises:
        ValueError: one of another kind, or one that is broken, lies elsewhere, or has no pixel.
    """
    if not region.is_outlined:
        raise ValueError(
            f"expected {', '.join(_OUTLINED[:-1])} or {_OUTLINED[-1]}, found {region.kind}: draw "
            "it as one of them, or delete it"
        )
    if region.rotation:
        raise ValueError(
            f"expected 'image_rotation' to be 0, found {region.rotation!r:.20}: turn the image "
            "back in Label Studio, or turn its file, and draw anew"
        )
    if region.kind == "brush":
        mask = decode_brush(region.value.get("rle"), size_hw)
        if not mask.area:
            raise ValueError("expected a brush with pixels, found an empty one")
        return pixel_parts(mask)
    points = _corners(region, size_hw)
    return decode_segmentation([points.ravel().tolist()], size_hw).parts


def _corners(region: Region, size_hw: tuple[int, int]) -> Points:
    """The corners in pixels; what is turned is turned there, where angles are what one sees."""
    value, side = region.value, (size_hw[1] / 100, size_hw[0] / 100)
    if region.kind == "polygon":
        points: Points = _points(value) * side
        return points
    x, y = _number(value, "x") * side[0], _number(value, "y") * side[1]
    angle = _number(value, "rotation") if value.get("rotation") is not None else 0.0
    if region.kind == "ellipse":
        radii = _size(value, "radiusX") * side[0], _size(value, "radiusY") * side[1]
        return turn(ellipse((x, y), *radii), (x, y), angle)
    width, height = _size(value, "width") * side[0], _size(value, "height") * side[1]
    return turn(rectangle(x, y, x + width, y + height), (x, y), angle)


def _points(value: Record) -> Points:
    points = read_points(value.get("points"))
    if points is None:
        raise ValueError(f"expected points [x, y] in percent, found {value.get('points')!r:.40}")
    return points


def _number(value: Record, name: str) -> float:
    found = value.get(name)
    # NaN is not below anything.
    if isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < _LARGEST:
        return float(found)
    raise ValueError(f"expected '{name}' to be a number, found {found!r:.40}")


def _size(value: Record, name: str) -> float:
    if (found := _number(value, name)) <= 0:
        raise ValueError(f"expected '{name}' above 0, found {found:g}")
    return found

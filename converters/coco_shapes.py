"""An object's pixels as COCO's `segmentation`, and back; `converters.coco` says why so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from shapely.geometry import MultiPolygon, Polygon

from converters.borders import Points, borders, fill
from converters.masks import (
    CropMask,
    decode_coco_rle,
    encode_coco_rle,
    outline,
    rasterize,
    rings,
)

# Far beyond any image; what is larger would only overflow.
_LARGEST_COORDINATE = 1e6


def encode_segmentation(mask: CropMask, size_hw: tuple[int, int], layout: str) -> bytes:
    """Return the JSON of a mask's polygons, or of its run-length code.

    Args:
        mask: at least one pixel.
        size_hw: the image's height and width.
        layout: `polygons`, where the mask has no holes, or `rle`.
    """
    parts = rings(mask) if layout == "polygons" else []
    if not parts or any(holes for _, holes in parts):
        code = encode_coco_rle(mask, size_hw)
        return json.dumps(code, separators=(",", ":")).encode("ascii")
    words = _words(max(size_hw))
    lines = [words[line].tobytes() for line in borders([shell for shell, _ in parts])]
    return b"[%b]" % b",".join(b"[%b]" % line.replace(b"\0", b"")[:-1] for line in lines)


@lru_cache(maxsize=8)
def _words(size: int) -> npt.NDArray[np.bytes_]:
    """What is written for each half pixel of a side; shorter ones are filled up with zeros."""
    return np.array([f"{i / 2:.10g}," for i in range(2 * size + 1)], dtype=np.bytes_)


def decode_segmentation(segmentation: Any, size_hw: tuple[int, int]) -> Polygon | MultiPolygon:
    """Return the geometry of an annotation's `segmentation`.

    Args:
        segmentation: polygons, or a run-length code, compressed or not.
        size_hw: the image's height and width.

    Raises:
        ValueError: neither, or one that is broken or has no pixel in the image.
    """
    if not segmentation:
        raise ValueError("expected polygons or a run-length code, found only a box")
    if isinstance(segmentation, dict):
        mask = _decode(segmentation, size_hw)
    elif isinstance(segmentation, list):
        mask = _fill(segmentation, size_hw)
    else:
        raise ValueError(f"expected polygons or a run-length code, found {segmentation!r:.40}")
    if not mask.area:
        raise ValueError("expected an object with pixels in the image, found none")
    return outline(mask)


def _decode(code: Mapping[str, Any], size_hw: tuple[int, int]) -> CropMask:
    size, counts = code.get("size"), code.get("counts")
    if not isinstance(size, list) or tuple(size) != size_hw:
        raise ValueError(f"expected a run-length code of size {size_hw}, found {size!r:.40}")
    if not isinstance(counts, str) and not (
        isinstance(counts, list) and all(isinstance(n, int) for n in counts)
    ):
        raise ValueError(f"expected 'counts' to be a text or whole numbers, found {counts!r:.40}")
    return decode_coco_rle({"size": size, "counts": counts})


def _fill(segmentation: Sequence[Any], size_hw: tuple[int, int]) -> CropMask:
    # pycocotools takes a single polygon without the list around it, too.
    parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
    polygons = [_points(part) for part in parts]
    mask = fill(polygons, size_hw)
    if mask.area:
        return mask
    return rasterize(MultiPolygon([Polygon(points - 0.5) for points in polygons]), size_hw)


def _points(part: Any) -> Points:
    try:
        values = np.array(part)
    except ValueError:
        values = np.empty(0, object)
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise ValueError(f"expected a polygon x1, y1, x2, ..., found {part!r:.40}")
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"expected at least 3 points x, y, found {len(values)} numbers")
    if not (np.abs(values) < _LARGEST_COORDINATE).all():
        raise ValueError("expected coordinates in pixels, found NaN, infinity or huge ones")
    return values.astype(np.float64).reshape(-1, 2)

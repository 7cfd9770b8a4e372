"""One look at one image: what is wrong by itself, and what is compared with the other images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt

from converters.audit.findings import Finding
from converters.audit.geometry import check_outlines, polygons_by_label
from converters.audit.images import COARSE, FINE, check_content, fingerprint
from converters.audit.structures import Structure, measure_structure
from converters.files.images import read_pixels
from converters.masks import CropMask, Mask, rasterize, union
from converters.types import Sample

# Of the smaller one of two structures, the share of pixels in the other one, to be remembered.
_NOTED = 0.3
# Intersection over union from which two outlines are the same one, drawn twice.
SAME = 0.5


@dataclass(frozen=True)
class Look:
    """What an audit remembers of one sample; small, so that thousands fit into memory.

    Attributes:
        key: the sample's key.
        group: the sample's group.
        size_hw: the sample's height and width.
        is_crop: whether the sample shows a part of an image only.
        findings: what is wrong with the image by itself.
        structures: label -> the structure, all its parts joined, if it has a pixel.
        parts: label -> its polygons, one by one, where there are several; None has no pixel.
        overlaps: pairs of polygons of one label -> intersection over union.
        gaps: such pairs -> distance in pixels, 0 where they touch.
        inside: (inner, outer) -> the share of the inner one's pixels that the outer one has too.
        shadows: (label, number of the polygon) -> another label that has nearly the same pixels.
        prints: coarse and fine fingerprint of the image (`converters.audit.images`); None where it
            cannot be read.
    """

    key: str
    group: str
    size_hw: tuple[int, int]
    is_crop: bool
    findings: tuple[Finding, ...]
    structures: Mapping[str, Structure]
    parts: Mapping[str, tuple[Structure | None, ...]]
    overlaps: Mapping[tuple[str, int, int], float]
    gaps: Mapping[tuple[str, int, int], float]
    inside: Mapping[tuple[str, str], float]
    shadows: Mapping[tuple[str, int], str]
    prints: tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]] | None


def look(sample: Sample) -> Look:
    """Read a sample's image to its end, and measure its structures."""
    image, damage = _read_image(sample)
    masks = {
        label: [rasterize(polygon, sample.size_hw) for polygon in polygons]
        for label, polygons in polygons_by_label(sample).items()
    }
    structures = {label: _joined(parts) for label, parts in masks.items()}
    several = {label: parts for label, parts in masks.items() if len(parts) > 1}
    pairs = [
        (label, i, j)
        for label, parts in several.items()
        for i, j in combinations(range(len(parts)), 2)
    ]
    return Look(
        key=sample.key,
        group=sample.group,
        size_hw=sample.size_hw,
        is_crop=sample.frame is not None,
        findings=(*damage, *check_outlines(sample)),
        structures={
            label: measure_structure(mask, sample.size_hw, image)
            for label, mask in structures.items()
            if mask.area
        },
        parts={
            label: tuple(
                measure_structure(m, sample.size_hw, image) if m.area else None for m in parts
            )
            for label, parts in several.items()
        },
        overlaps={p: _iou(several[p[0]][p[1]], several[p[0]][p[2]]) for p in pairs},
        gaps={p: _gap(several[p[0]][p[1]], several[p[0]][p[2]]) for p in pairs},
        inside=_nested(structures),
        shadows=_shadows(several, structures),
        prints=None if image is None else (fingerprint(image, COARSE), fingerprint(image, FINE)),
    )


def _read_image(sample: Sample) -> tuple[Mask | None, list[Finding]]:
    try:
        check_content(sample.image)
        return read_pixels(sample), []
    except ValueError as error:
        what = str(error)
    edit = {"exclude_images": {"key": sample.key, "why": what}}
    return None, [Finding("unreadable", sample.key, what, 1.0, edit=edit)]


def _shadows(
    several: Mapping[str, list[CropMask]], structures: Mapping[str, CropMask]
) -> dict[tuple[str, int], str]:
    return {
        (label, i): other
        for label, parts in several.items()
        for i, part in enumerate(parts)
        for other, mask in structures.items()
        if other != label and _iou(part, mask) >= SAME
    }


def _joined(parts: list[CropMask]) -> CropMask:
    whole = parts[0]
    for part in parts[1:]:
        whole = union(whole, part)
    return whole


def _common(a: CropMask, b: CropMask) -> int:
    ax, ay, aw, ah = a.box_xywh
    bx, by, bw, bh = b.box_xywh
    if ax >= bx + bw or bx >= ax + aw or ay >= by + bh or by >= ay + ah:
        return 0
    return int(cv2.countNonZero(a.window(b.box_xywh) & b.pixels))


def _iou(a: CropMask, b: CropMask) -> float:
    common = _common(a, b)
    either = a.area + b.area - common
    return common / either if either else 0.0


def _gap(a: CropMask, b: CropMask) -> float:
    """Distance between two masks' pixels, less one: 0 where they touch or overlap."""
    if not (a.area and b.area):
        return float("inf")
    box = union(a, b).box_xywh
    far = cv2.distanceTransform(1 - a.window(box), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return max(0.0, float(far[b.window(box) > 0].min()) - 1)


def _nested(structures: Mapping[str, CropMask]) -> dict[tuple[str, str], float]:
    areas = {label: mask.area for label, mask in structures.items()}
    shares = {}
    for a, b in combinations([label for label, area in areas.items() if area], 2):
        inner, outer = (a, b) if areas[a] <= areas[b] else (b, a)
        share = _common(structures[inner], structures[outer]) / areas[inner]
        if share >= _NOTED:
            shares[inner, outer] = share
    return shares

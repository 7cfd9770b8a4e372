"""What is wrong with single outlines: they cross themselves, or leave the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon, box

from converters.audit.findings import Finding
from converters.audit.outlines import Crossing, find_crossing
from converters.masks import Box
from converters.types import Sample

# An outline is cleared of a loop without asking only where the loop is so small a share of it.
_CLEAR_LOOP = 0.05
# A loop of this share of the structure is as sure a mistake as any.
_SURE_LOOP = 0.02
# What is beyond the image is cut off without asking only where so much of the structure is left.
_CLEAR_INSIDE = 0.9
_BEYOND_PX = 0.5
_DIGITS = 2

Polygons = list[Polygon]


def polygons_by_label(sample: Sample) -> dict[str, Polygons]:
    """Return all polygons of each label, in their order."""
    found: dict[str, Polygons] = {}
    for instance in sample.instances:
        found.setdefault(instance.label, []).extend(instance.parts)
    return found


def check_outlines(sample: Sample) -> Iterator[Finding]:
    """Yield outlines that cross themselves, and those that leave the image, as they are drawn.

    A crop cuts structures: what leaves it is no mistake.
    """
    drawn: dict[str, Polygons] = {}
    # What is read as pixels is mended in its file: an edit would take our own pixels from polygons.
    without_edit: set[str] = set()
    for one, are_pixels in sample.as_drawn():
        drawn.setdefault(one.label, []).extend(one.parts)
        without_edit |= {one.label} if are_pixels else set()
    for label, polygons in drawn.items():
        found = list(_crossings(sample, label, polygons))
        if sample.frame is None:
            found += _leaving(sample, label, polygons)
        yield from (replace(f, edit=None) if label in without_edit else f for f in found)


def to_box(bounds: Sequence[float], size_hw: tuple[int, int]) -> Box | None:
    """Return the pixels x, y, w, h of x0, y0, x1, y1; None beyond the image."""
    height, width = size_hw
    x0, y0 = max(0, int(np.floor(bounds[0]))), max(0, int(np.floor(bounds[1])))
    x1, y1 = min(width - 1, int(np.ceil(bounds[2]))), min(height - 1, int(np.ceil(bounds[3])))
    return (x0, y0, x1 - x0 + 1, y1 - y0 + 1) if x0 <= x1 and y0 <= y1 else None


def replacement(key: str, label: str, polygons: Sequence[Polygon], why: str) -> dict[str, Any]:
    """Return the edit that draws a label anew; holes cannot be told."""
    rings = [
        [[round(x, _DIGITS), round(y, _DIGITS)] for x, y in polygon.exterior.coords[:-1]]
        for polygon in polygons
    ]
    return {"replace": {"key": key, "label": label, "polygons": rings, "why": why}}


# --- crossing


def _crossings(sample: Sample, label: str, polygons: Polygons) -> Iterator[Finding]:
    rings = [(i, ring) for i, p in enumerate(polygons) for ring in (p.exterior, *p.interiors)]
    found = [(i, c) for i, ring in rings if (c := find_crossing(ring)) is not None]
    if not found:
        return
    worst = max((c for _, c in found), key=lambda c: c.share)
    wrong_px = sum(c.wrong_px for _, c in found)
    yield Finding(
        "crossing",
        sample.key,
        f"{label}: expected an outline that goes around once, "
        f"found one that crosses itself, {wrong_px:.0f} px the wrong way or twice",
        0.5 + 0.5 * min(1.0, worst.share / _SURE_LOOP),
        (label,),
        to_box(worst.bounds, sample.size_hw),
        edit=_without_loops(sample.key, label, polygons, dict(found)),
    )


def _without_loops(
    key: str, label: str, polygons: Polygons, crossings: Mapping[int, Crossing]
) -> dict[str, Any] | None:
    parts: Polygons = []
    for i, polygon in enumerate(polygons):
        mended = crossings[i].mended if i in crossings else polygon
        parts += mended.geoms if isinstance(mended, MultiPolygon) else [mended]
    small = all(crossing.share <= _CLEAR_LOOP for crossing in crossings.values())
    if not small or any(part.interiors for part in parts):
        return None
    kept = [part for part in parts if part.area >= 1]
    return replacement(key, label, kept, "the outline crosses itself") if kept else None


# --- outside


def _leaving(sample: Sample, label: str, polygons: Polygons) -> Iterator[Finding]:
    height, width = sample.size_hw
    # A pixel's centre is at a whole number: the image goes from -.5 to its width - .5.
    edge = box(-0.5, -0.5, width - 0.5, height - 0.5)
    points = np.concatenate([shapely.get_coordinates(p) for p in polygons])
    low, high = -0.5 - points, points - [width - 0.5, height - 0.5]
    far = float(max(low.max(), high.max()))
    if far <= _BEYOND_PX:
        return
    bounds = shapely.MultiPolygon(polygons).bounds
    left = _share_inside(polygons, edge)
    yield Finding(
        "outside",
        sample.key,
        f"{label}: expected an outline within {width} x {height} px, "
        f"found one {far:.1f} px beyond, {100 * left:.0f} % of it inside",
        1.0 if far > 2 else 0.5 + 0.25 * far,
        (label,),
        to_box(bounds, sample.size_hw),
        edit=_cut_off(sample.key, label, polygons, edge, left),
    )


def _share_inside(polygons: Polygons, edge: Polygon) -> float:
    whole = [polygon.buffer(0) for polygon in polygons]
    area = sum(polygon.area for polygon in whole)
    return sum(p.intersection(edge).area for p in whole) / area if area else 0.0


def _cut_off(
    key: str, label: str, polygons: Polygons, edge: Polygon, left: float
) -> dict[str, Any] | None:
    if left < _CLEAR_INSIDE or any(p.interiors or not p.is_valid for p in polygons):
        return None
    inner = shapely.box(0, 0, edge.bounds[2] - 0.5, edge.bounds[3] - 0.5)
    parts = [
        part
        for polygon in polygons
        for part in shapely.get_parts(polygon.intersection(inner))
        if isinstance(part, Polygon) and part.area > 0
    ]
    return replacement(key, label, parts, "the outline leaves the image") if parts else None

"""Outlines that cross themselves: where they do it, and what they would be without."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import LinearRing, MultiPolygon, Point, Polygon

# Vertices on whole pixels make loops of less than this by rounding alone; they change no pixel.
_HARMLESS_PX = 1.0


@dataclass(frozen=True)
class Crossing:
    """A ring that crosses itself.

    Attributes:
        bounds: x0, y0, x1, y1 of what the ring encloses the wrong way or more than once.
        wrong_px: its area, square pixels.
        share: its area over that of all that the ring encloses.
        mended: what the ring encloses in its main direction.
    """

    bounds: tuple[float, float, float, float]
    wrong_px: float
    share: float
    mended: Polygon | MultiPolygon


def find_crossing(ring: LinearRing) -> Crossing | None:
    """Look for places that a ring goes around the wrong way, or more than once.

    A ring may touch itself: a vertex that comes again, a line walked there and back, a hole that
    hangs on the outline by a bridge. It winds once, or not at all, around every point then.

    Args:
        ring: closed, in pixels.

    Returns:
        None where nothing crosses.
    """
    if Polygon(ring).is_valid:
        return None
    points = shapely.get_coordinates(ring)
    faces = [face for face in shapely.polygonize([shapely.unary_union(ring)]).geoms if face.area]
    turns = [_winding(points, face.representative_point()) for face in faces]
    signed = sum(turn * face.area for turn, face in zip(turns, faces, strict=True))
    main = 1 if signed >= 0 else -1
    wrong = [face for face, turn in zip(faces, turns, strict=True) if turn not in (0, main)]
    wrong_px = sum(face.area for face in wrong)
    if wrong_px <= _HARMLESS_PX:
        return None
    right = [face for face, turn in zip(faces, turns, strict=True) if turn * main > 0]
    enclosed = sum(face.area for face, turn in zip(faces, turns, strict=True) if turn)
    bounds = shapely.GeometryCollection(wrong).bounds
    return Crossing(bounds, wrong_px, wrong_px / enclosed, shapely.union_all(right))


def _winding(points: npt.NDArray[np.float64], at: Point) -> int:
    """How many times a closed line (N, 2), its first point repeated, goes around a point."""
    offset = points - [at.x, at.y]
    angles = np.arctan2(offset[:, 1], offset[:, 0])
    steps = np.diff(angles)
    steps = (steps + np.pi) % (2 * np.pi) - np.pi
    return round(float(steps.sum()) / (2 * np.pi))

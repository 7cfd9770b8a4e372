"""One closed ring for an object with holes and parts, for formats that hold nothing else.

Holes and parts are joined into one ring by bridges of no width, walked there and back. A hole costs
no pixel, because its bridge runs inside the object; parts cost the pixels of the bridge between
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from shapely.geometry import Polygon

from converters.masks import Ring, at_least_a_triangle, rasterize, rings

if TYPE_CHECKING:
    from scipy.spatial import cKDTree


def joined_ring(parts: Sequence[tuple[Ring, Sequence[Ring]]]) -> Ring:
    """Return one ring whose even-odd filling has the parts' pixels and those of bridges.

    Holes are reached by bridges inside the object, which cost nothing; parts by the shortest
    bridges there are.

    Args:
        parts: shells and holes as `converters.masks.rings` finds them: straight and diagonal
            steps, parts that do not touch.
    """
    if len(parts) == 1 and not parts[0][1]:
        return at_least_a_triangle(parts[0][0])
    return at_least_a_triangle(_join_parts([_with_holes(shell, holes) for shell, holes in parts]))


def _with_holes(shell: Ring, inner: Sequence[Ring]) -> Ring:
    path = _every_pixel(shell)
    holes = [_every_pixel(ring) for ring in inner]
    # Straight to the left of a hole's leftmost pixel lies the shell, or a hole that reaches
    # further left: in this order it is part of the path already.
    for hole in sorted(holes, key=lambda ring: int(ring[:, 0].min())):
        start = int(hole[:, 0].argmin())
        x, y = hole[start]
        left = np.flatnonzero((path[:, 1] == y) & (path[:, 0] <= x))
        path = _attach(path, int(left[path[left, 0].argmax()]), hole, start)
    return path


def _nearest(path: Ring, point: tuple[int, int]) -> int:
    return int(np.abs(path - np.array(point)).sum(axis=1).argmin())


def _join_parts(paths: list[Ring]) -> Ring:
    """Join rings along a minimum spanning tree of their distances (Prim), in whole pixels."""
    # Late: half of what a conversion takes to start, and parts are rare.
    from scipy.spatial import cKDTree

    joined, *others = sorted(paths, key=len, reverse=True)
    tree = cKDTree(joined)
    # Of each other ring: its distance to what is joined, and the two points that are so near.
    links = [_link(tree, joined, ring) for ring in others]
    while others:
        i = min(range(len(others)), key=lambda k: links[k][0])
        ring, (_, point, start) = others.pop(i), links.pop(i)
        joined = _attach(joined, _nearest(joined, point), ring, start)
        tree = cKDTree(ring)
        links = [min(link, _link(tree, ring, o)) for link, o in zip(links, others, strict=True)]
    return _corners(joined)


def _link(tree: cKDTree, points: Ring, ring: Ring) -> tuple[float, tuple[int, int], int]:
    distances, nearest = tree.query(ring, p=np.inf)
    i = int(distances.argmin())
    x, y = points[nearest[i]].tolist()
    return float(distances[i]), (x, y), i


def _attach(path: Ring, at: int, ring: Ring, start: int) -> Ring:
    """Walk `path` to `at`, over a bridge, around `ring` from `start`, and back."""
    step = ring[start] - path[at]
    # A diagonal, then a straight piece: no rounding decides which pixels the bridge covers.
    knee = path[at] + np.sign(step) * np.abs(step).min()
    around = [knee[None], ring[start:], ring[: start + 1], knee[None]]
    return np.vstack([path[: at + 1], *around, path[at:]])


def _every_pixel(points: Ring) -> Ring:
    """Points on all pixels of a ring whose edges are straight or diagonal."""
    steps = np.roll(points, -1, axis=0) - points
    counts = np.abs(steps).max(axis=1)
    if not counts.any():
        return points[:1]
    edge = np.repeat(np.arange(len(points)), counts)
    along = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    units = steps // np.maximum(counts, 1)[:, None]
    return (points[edge] + units[edge] * along[:, None]).astype(np.int32)


def _corners(path: Ring) -> Ring:
    """Drop points that stand still or go straight on."""
    moves: npt.NDArray[np.bool_] = (path != np.roll(path, 1, axis=0)).any(axis=1)
    if not moves.any():
        return path[:1]
    path = path[moves]
    before = np.sign(path - np.roll(path, 1, axis=0))
    after = np.sign(np.roll(path, -1, axis=0) - path)
    turns: npt.NDArray[np.bool_] = (before != after).any(axis=1)
    return path[turns]


def without_holes(polygon: Polygon, size_hw: tuple[int, int]) -> list[Polygon]:
    """Return polygons without holes that have the same pixels together."""
    if not polygon.interiors:
        return [polygon]
    return [Polygon(joined_ring([part])) for part in rings(rasterize(polygon, size_hw))]

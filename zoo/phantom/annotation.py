"""Drawn polygons: what an annotator's tool would export for the outlines of a hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.phantom.anatomy import Array, Hand

IntPoints = NDArray[np.int32]

_MIN_POINTS, _MAX_POINTS = 30, 120
_CORNER_RAD = 0.6


def draw_polygons(
    hand: Hand, rng: np.random.Generator, split_share: float
) -> list[tuple[int, IntPoints]]:
    """Draw every bone as a polygon on integer pixels, in an order of no meaning.

    Args:
        hand: the outlines; what lies beyond the image is cut off.
        rng: decides the order, the starting points and which bone comes in two parts.
        split_share: chance that the hand has one bone drawn as two overlapping polygons, which
            together fill the same pixels as the one.

    Returns:
        Pairs of bone index and points (N, 2), int32, inside the image.
    """
    split = int(rng.integers(len(hand.outlines))) if rng.random() < split_share else -1
    drawn: list[tuple[int, IntPoints]] = []
    for bone, outline in enumerate(hand.outlines):
        points = draw_polygon(outline, hand.size, rng)
        parts = [points]
        if bone == split:
            parts = split_polygon(points, hand.bases[bone], hand.tips[bone])
        drawn.extend((bone, part) for part in parts)
    return [drawn[i] for i in rng.permutation(len(drawn))]


def draw_polygon(outline: Array, size: int, rng: np.random.Generator) -> IntPoints:
    """Follow a closed outline (N, 2) by 30 to 120 rounded points (M, 2) inside the image."""
    inside = clip_to_image(outline, size)
    sampled = _resample(inside, size)
    rounded = np.clip(np.rint(sampled), 0, size - 1).astype(np.int32)
    fresh = (rounded != np.roll(rounded, 1, axis=0)).any(axis=1)
    return np.roll(rounded[fresh], -int(rng.integers(fresh.sum())), axis=0)


def split_polygon(points: IntPoints, base: Array, tip: Array) -> list[IntPoints]:
    """Cut a polygon (N, 2) across its axis into two that share a strip around the cut.

    Both parts keep vertices of the whole only, so that their union fills its pixels. A polygon
    whose cuts do not lie inside it is returned whole.
    """
    along = (points - base) @ (tip - base)
    start = int(along.argmin())
    ring = np.roll(points, -start, axis=0)
    along = np.roll(along, -start)
    up = int(along.argmax())
    level = along.min() + np.ptp(along) * np.array([0.47, 0.53])
    low, high = (
        (int((along[:up] <= at).sum()), up + int((along[up:] >= at).sum())) for at in level
    )
    distal = ring[low[0] : low[1]]
    proximal = np.vstack([ring[: high[0] + 1], ring[high[1] - 1 :]])
    return [points] if min(len(distal), len(proximal)) < 4 else [distal, proximal]


def clip_to_image(outline: Array, size: int, margin: float = 0.0) -> Array:
    """Cut a closed outline (N, 2) to the pixel centres of a square image, plus a margin."""
    low, high = -margin, size - 1 + margin
    for normal, offset in (
        ((1.0, 0.0), low),
        ((-1.0, 0.0), -high),
        ((0.0, 1.0), low),
        ((0.0, -1.0), -high),
    ):
        outline = clip_halfplane(outline, np.array(normal), offset)
    return outline


def clip_halfplane(outline: Array, normal: Array, offset: float) -> Array:
    """Keep the part of a closed outline (N, 2) where ``point @ normal >= offset``.

    One step of Sutherland and Hodgman, Reentrant polygon clipping, 1974.
    """
    side = outline @ normal - offset
    if (side >= 0).all():
        return outline
    kept: list[Array] = []
    for i in range(len(outline)):
        j = (i + 1) % len(outline)
        if side[i] >= 0:
            kept.append(outline[i])
        if (side[i] >= 0) != (side[j] >= 0):
            share = side[i] / (side[i] - side[j])
            kept.append(outline[i] + share * (outline[j] - outline[i]))
    return np.array(kept).reshape(-1, 2)


def _resample(outline: Array, size: int) -> Array:
    """Points at even steps along the outline and at its corners, in order."""
    edges = np.roll(outline, -1, axis=0) - outline
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    reach = np.concatenate([[0.0], np.cumsum(lengths)])
    step_px = 2.0 * np.sqrt(size / 512) + 2.0 * size / 2048
    count = int(np.clip(reach[-1] / step_px, _MIN_POINTS, _MAX_POINTS))
    heading = np.arctan2(edges[:, 1], edges[:, 0])
    turn = np.angle(np.exp(1j * (heading - np.roll(heading, 1))))
    corners = reach[:-1][np.abs(turn) > _CORNER_RAD]
    at = np.union1d(np.linspace(0, reach[-1], count, endpoint=False), corners)
    closed = np.vstack([outline, outline[:1]])
    return np.stack([np.interp(at, reach, closed[:, axis]) for axis in (0, 1)], axis=1)

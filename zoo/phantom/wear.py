"""What a hand wears or lacks: a ring, nail polish, a fingertip, a lead letter beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from zoo.phantom.anatomy import Array, Hand
from zoo.phantom.annotation import clip_halfplane
from zoo.phantom.bone import HAND_SCALE_MM, Image
from zoo.phantom.tissue import digit_chains, finger_line

KINDS = ("ring", "polish", "cut", "marker")
_METAL_PER_MM = 3.0
_LEAD = 2.4


@dataclass(frozen=True)
class Wear:
    """What is unusual about one hand; ``kind`` is one of KINDS or empty for nothing.

    ``digit`` is 0 for the thumb to 4, ``place`` a position along the bone, 0 base to 1 tip.
    """

    kind: str = ""
    digit: int = 3
    place: float = 0.45


def draw_wear(rng: np.random.Generator, share: float) -> Wear:
    """Draw whether a hand has something, with probability ``share``, and what."""
    if rng.random() >= share:
        return Wear()
    kind = KINDS[int(rng.integers(len(KINDS)))]
    if kind == "cut":
        return Wear(kind, int(rng.integers(1, 5)), float(rng.uniform(0.3, 0.7)))
    return Wear(kind, int(rng.choice([1, 2, 3, 3, 3])), float(rng.uniform(0.35, 0.6)))


def cut_fingertip(hand: Hand, wear: Wear) -> Hand:
    """Take away the end of a digit's last phalanx; the flesh follows its new tip."""
    bone = digit_chains(hand)[wear.digit][-1]
    base, axis = hand.bases[bone], hand.tips[bone] - hand.bases[bone]
    length = float(np.linalg.norm(axis))
    limit = float(base @ axis) / length + length * wear.place
    kept = clip_halfplane(hand.outlines[bone], -axis / length, -limit)
    outlines, tips = list(hand.outlines), hand.tips.copy()
    outlines[bone], tips[bone] = kept, base + wear.place * axis
    return replace(hand, outlines=tuple(outlines), tips=tips)


def wear_attenuation(hand: Hand, wear: Wear, flesh_mm: Image, rng: np.random.Generator) -> Image:
    """Log attenuation (size, size) of what the hand wears; zero where there is nothing."""
    extra = np.zeros_like(flesh_mm)
    if wear.kind == "ring":
        _add_ring(extra, hand, wear, rng)
    elif wear.kind == "polish":
        for chain in digit_chains(hand):
            _add_polish(extra, hand, chain[-1], float(rng.uniform(0.10, 0.22)))
    elif wear.kind == "marker":
        _add_marker(extra, hand, flesh_mm, rng)
    return extra


def _around(
    hand: Hand, centre: Array, axis: Array, reach_px: float
) -> tuple[tuple[slice, slice], Array, Array]:
    """A window around a point, and its coordinates across and along an axis in mm."""
    low = np.clip(np.floor(centre - reach_px).astype(int), 0, hand.size)
    high = np.clip(np.ceil(centre + reach_px).astype(int) + 1, 0, hand.size)
    dx = np.arange(low[0], high[0])[None, :] - centre[0]
    dy = np.arange(low[1], high[1])[:, None] - centre[1]
    along = axis / np.linalg.norm(axis)
    mm = HAND_SCALE_MM / hand.scale_px
    window = (slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0])))
    return window, mm * (dx * along[1] - dy * along[0]), mm * (dx * along[0] + dy * along[1])


def _add_ring(extra: Image, hand: Hand, wear: Wear, rng: np.random.Generator) -> None:
    """A metal band seen a little from above: its near and its far half."""
    chain = digit_chains(hand)[wear.digit]
    base, axis = hand.bases[chain[1]], hand.tips[chain[1]] - hand.bases[chain[1]]
    centre = base + wear.place * axis
    line = finger_line(hand, chain)
    inner = float(line[np.linalg.norm(line[:, :2] - centre, axis=1).argmin(), 2]) - 0.2
    outer = inner + float(rng.uniform(1.0, 1.6))
    band_mm, tilt = float(rng.uniform(2.2, 5.0)), float(rng.uniform(0.02, 0.16))
    px_mm = HAND_SCALE_MM / hand.scale_px
    window, across, along = _around(hand, centre, axis, (outer + band_mm) / px_mm)
    far_side = np.sqrt(np.maximum(outer**2 - across**2, 0))
    wall = far_side - np.sqrt(np.maximum(inner**2 - across**2, 0))
    for side in (-1, 1):
        inside = (band_mm / 2 - np.abs(along - side * tilt * far_side)) / px_mm + 0.5
        extra[window] += (_METAL_PER_MM * wall * np.clip(inside, 0, 1)).astype(np.float32)


def _add_polish(extra: Image, hand: Hand, bone: int, strength: float) -> None:
    """A faint bright nail over the end of a last phalanx."""
    base, axis = hand.bases[bone], hand.tips[bone] - hand.bases[bone]
    px_mm = HAND_SCALE_MM / hand.scale_px
    window, across, along = _around(hand, base + 0.85 * axis, axis, 9 / px_mm)
    inside = 1 - (np.abs(across) / 4.3) ** 3 - (np.abs(along) / 5.5) ** 3
    extra[window] += (strength * np.clip(inside * 3, 0, 1)).astype(np.float32)


def _add_marker(extra: Image, hand: Hand, flesh_mm: Image, rng: np.random.Generator) -> None:
    """The letter of the side in a corner that the hand leaves free, if there is one."""
    letter = _draw_letter("L" if hand.mirrored else "R", round(0.06 * hand.size))
    height, width = letter.shape
    for corner in rng.permutation(4):
        left = round((0.06 if corner % 2 else 0.94) * (hand.size - width))
        top = round((0.05 if corner // 2 else 0.95) * (hand.size - height))
        window = (slice(top, top + height), slice(left, left + width))
        if flesh_mm[window].max() <= 0:
            extra[window] = _LEAD * letter
            return


def _draw_letter(letter: str, height: int) -> Image:
    """Coverage of a letter, 0 to 1, ``height`` rows high."""
    canvas = np.zeros((160, 160), np.uint8)
    cv2.putText(canvas, letter, (40, 120), cv2.FONT_HERSHEY_SIMPLEX, 4.0, 255, 14, cv2.LINE_AA)
    x, y, w, h = cv2.boundingRect(canvas)
    width = max(1, round(height * w / h))
    crop = cv2.resize(canvas[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(crop / np.float32(255), np.float32)

"""Annotators who draw the same bone in ways of their own, and guess what they cannot see.

Real outlines are not where the bone's edge is: one annotator keeps to the bright rim, another goes
a pixel or two around it with fewer points; and where a bone lies under another one, both guess.
What a network learns, and what a refinement can mend, is measured against such outlines.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.phantom.anatomy import Array, Hand

# Of the guesses: how many slow waves a closed outline is bent by.
_WAVES = 5
# A carpal's size, to the image's side.
_LONGEST = 0.07


@dataclass(frozen=True)
class Style:
    """How somebody draws; lengths in pixels of the image, but for `guess`.

    Attributes:
        name: as annotation files have it: whoever changed them last.
        margin: how far outside the bone's edge the line lies.
        wobble: how far it strays, one standard deviation.
        guess: how far it strays under other bones, to the root of the bone's area, a
            carpal's at most.
    """

    name: str
    margin: float
    wobble: float
    guess: float


STYLES = (
    Style("a1a1a1a1a1a1a1a1a1a1a1a1", margin=0.0, wobble=0.3, guess=0.04),
    Style("b2b2b2b2b2b2b2b2b2b2b2b2", margin=1.5, wobble=0.8, guess=0.07),
)


def redraw(hand: Hand, style: Style, rng: np.random.Generator) -> tuple[Array, ...]:
    """Return the outlines of a hand as somebody draws them.

    Args:
        hand: the bones as they are.
        style: of the annotator.
        rng: of the hand's strokes.

    Returns:
        Per bone a closed outline (N, 2) in pixels, with as many points.
    """
    covered = np.zeros((hand.size, hand.size), np.uint8)
    for outline in hand.outlines:
        one = np.zeros_like(covered)
        cv2.fillPoly(one, [np.rint(outline).astype(np.int32)], 1)
        covered += one
    return tuple(_redraw(outline, covered, style, rng) for outline in hand.outlines)


def _redraw(
    outline: Array, covered: NDArray[np.uint8], style: Style, rng: np.random.Generator
) -> Array:
    last = covered.shape[0] - 1
    x, y = np.clip(np.rint(outline), 0, last).astype(int).T
    ahead, behind = np.roll(outline, -1, axis=0), np.roll(outline, 1, axis=0)
    # Positive where the points go round clockwise on the screen: then left of the way is outside.
    area = 0.5 * float(np.sum(outline[:, 0] * ahead[:, 1] - ahead[:, 0] * outline[:, 1]))
    along = ahead - behind
    normals = np.stack([along[:, 1], -along[:, 0]], axis=1) * np.sign(area)
    normals /= np.maximum(np.hypot(*normals.T), 1e-9)[:, None]
    # On an edge under another bone two masks meet, the own one and the other.
    hidden = _smooth((covered[y, x] > 1).astype(float))
    # Of a long bone only the end is hidden.
    reach = min(np.sqrt(abs(area)), _LONGEST * covered.shape[0])
    guess = style.guess * reach * _waves(len(outline), rng)
    stray = style.wobble * _waves(len(outline), rng)
    shift = (1 - hidden) * (style.margin + stray) + hidden * guess
    return np.asarray(outline + shift[:, None] * normals)


def _waves(count: int, rng: np.random.Generator) -> Array:
    """Return a closed line (count,) of slow waves with a deviation of 1."""
    at = np.linspace(0, 2 * np.pi, count, endpoint=False)
    numbers = np.arange(1, _WAVES + 1)
    heights, phases = rng.standard_normal(_WAVES), rng.uniform(0, 2 * np.pi, _WAVES)
    line = (heights[:, None] * np.cos(numbers[:, None] * at + phases[:, None])).sum(axis=0)
    return np.asarray(line / np.sqrt(_WAVES / 2))


def _smooth(values: Array, reach: int = 3) -> Array:
    """Return a closed line (N,) averaged over neighbours, so that no stroke jumps."""
    kernel = np.ones(2 * reach + 1) / (2 * reach + 1)
    wrapped = np.concatenate([values[-reach:], values, values[:reach]])
    return np.convolve(wrapped, kernel, mode="valid")

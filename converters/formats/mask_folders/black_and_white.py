"""What counts as black and white where files have lost exactness, as JPEG does."""

from __future__ import annotations

import cv2
import numpy as np

from converters.formats.mask_pixels import VOID, Pixels

LOSSY = frozenset({".jpg", ".jpeg"})
# JPEG's grey is off by so much; a mask may have so many pixels between, at its edges.
NEAR, MOST_BETWEEN = 32, 0.05
# Of what is not black so much more is white than grey; numbers of objects are spread evenly. Of
# small objects less is, where what is grey is but an edge: so much of it lies inside.
_LEAST_WHITE, _OF_EDGES, _INSIDE = 2, 0.5, 0.1
# Of its border an image that is the background's has so much.
_AROUND = 0.9


def has_smoothed_edges(greys: Pixels) -> bool:
    """Tell whether grey levels, uint8 (H, W), are black and white but at a few edges."""
    between = share_between(greys)
    white = float((greys >= VOID - NEAR).mean())
    if not white or between > MOST_BETWEEN or white < _OF_EDGES * between:
        return False
    return white >= _LEAST_WHITE * between or _are_edges(greys)


def _are_edges(greys: Pixels) -> bool:
    grey = ((greys > NEAR) & (greys < VOID - NEAR)).astype(np.uint8)
    inside = cv2.erode(grey, np.ones((3, 3), np.uint8))
    return cv2.countNonZero(inside) <= _INSIDE * cv2.countNonZero(grey)


def is_mostly_black(greys: Pixels) -> bool:
    """Tell whether more than half of some grey levels, uint8, is nearly black."""
    return float((greys <= NEAR).mean()) > 0.5


def lies_around(plane: Pixels) -> bool:
    """Tell whether a mask, uint8 (H, W) of 0 and others, is most of an image and of its border."""
    border = np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])
    return bool((plane > 0).mean() > 0.5 and (border > 0).mean() > _AROUND)


def share_between(values: Pixels) -> float:
    """Return the share of values, uint8 of any shape, that are neither nearly black nor white."""
    return float(((values > NEAR) & (values < VOID - NEAR)).mean())

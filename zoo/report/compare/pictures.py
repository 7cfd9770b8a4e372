"""The pictures of a comparison: the image, both outlines, and what only one of them has."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from converters.masks import Box, CropMask, enclose, tight_box
from converters.pictures import drawing
from converters.pictures.colors import BOTH, ONLY_A, ONLY_B, TRUTH
from converters.pictures.drawing import Floats, View
from zoo.report.pictures import view_around

SIDE = 320
# Parts of the image's longer side: the narrowest view, and what counts as a small object.
NEAREST, SMALL = 0.14, 0.2
_LINE, _DASH = 2, 7


def view_of_difference(box_xywh: Box, a: CropMask, b: CropMask, size_hw: tuple[int, int]) -> View:
    """Return a square view around what differs, with room to see the place.

    It holds both masks where these are small. Of a large object it holds what differs, which could
    not be seen in a view of all.
    """
    both = enclose([tight_box(a), tight_box(b)])
    is_small = max(both[2:]) <= SMALL * max(size_hw)
    box = both if is_small or not box_xywh[2] else box_xywh
    view = view_around(box if box[2] else None, size_hw, NEAREST)
    return View(view.box_xywh, (SIDE, SIDE))


def draw_outlines(
    image: Floats, a: CropMask, b: CropMask, truth: CropMask | None, view: View
) -> Floats:
    """Draw the outlines of A and B, and the truth's as a dashed white line around it.

    Where both run over the same pixels their colours alternate.

    Args:
        image: float32 (h, w, 3) in 0..1, what the view shows.
        a: A's mask.
        b: B's mask.
        truth: the true mask, or None.
        view: what the image shows.

    Returns:
        float32 (h, w, 3) in 0..1.
    """
    out = image.copy()
    rows, columns = np.indices(view.size_hw, sparse=True)
    turn = np.asarray((rows + columns) // _DASH) % 2 == 0
    if truth is not None:
        drawing.blend(out, TRUTH, _rim(truth, view, 1) * turn * 0.9)
    lines = _edge(a, view, _LINE), _edge(b, view, _LINE)
    shared = (lines[0] > 0.3) & (lines[1] > 0.3)
    drawing.blend(out, ONLY_A, lines[0] * (turn | ~shared))
    drawing.blend(out, ONLY_B, lines[1] * (~turn | ~shared))
    return out


def _edge(mask: CropMask, view: View, width: int) -> Floats:
    """How much of each pixel of the view a line along a mask's inner border covers."""
    alpha = drawing.coverage(mask, view)
    return np.asarray(alpha - cv2.erode(alpha, _disk(width)), np.float32)


def _rim(mask: CropMask, view: View, width: int) -> Floats:
    """The same along its outer border."""
    alpha = drawing.coverage(mask, view)
    return np.asarray(cv2.dilate(alpha, _disk(width)) - alpha, np.float32)


def _disk(radius: int) -> npt.NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def draw_agreement(image: Floats, a: CropMask, b: CropMask, view: View) -> Floats:
    """Colour what both have, what A alone has, and what B alone has, on a dark image.

    Takes and returns what `draw_outlines` does.
    """
    in_a, in_b = (drawing.coverage(mask, view) >= 0.5 for mask in (a, b))
    out = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2) * np.float32(0.6)
    drawing.blend(out, BOTH, (in_a & in_b) * 0.42)
    drawing.blend(out, ONLY_A, (in_a & ~in_b) * 0.95)
    drawing.blend(out, ONLY_B, (in_b & ~in_a) * 0.95)
    return np.asarray(out, np.float32)

"""The report's pictures: the image, masks on it, and where masks differ from the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from converters.masks import EMPTY, Box, CropMask, union_box
from converters.pictures.colors import FALSE, HIT, MISSED
from converters.pictures.drawing import Floats, View, blend, layers_of, stripes
from converters.types import LabelSpace
from fusion.metrics.scores import shared_parts

WIDTH, MAX_HEIGHT = 640, 860
MARGIN = 0.10
NARROWEST, WIDEST = 0.78, 1.5  # a crop's width over its height, where the image allows it
SIDE = 400
# A view is so many times as wide as what it is about, and at least this part of the image.
ROOM, NEAREST = 1.6, 0.22


def view_of(masks: Sequence[CropMask], size_hw: tuple[int, int]) -> View:
    """Return a view of all masks with a margin; of the whole image where they are empty."""
    box = union_box([mask for mask in masks if mask.area])
    x, y, width, height = box if box[2] else (0, 0, size_hw[1], size_hw[0])
    margin = round(MARGIN * max(width, height)) if box[2] else 0
    wide, high = width + 2 * margin, height + 2 * margin
    wide, high = max(wide, round(high * NARROWEST)), max(high, round(wide / WIDEST))
    wide, high = min(wide, size_hw[1]), min(high, size_hw[0])
    left = min(max(0, x + width // 2 - wide // 2), size_hw[1] - wide)
    top = min(max(0, y + height // 2 - high // 2), size_hw[0] - high)
    scale = min(WIDTH / wide, MAX_HEIGHT / high)
    return View((left, top, wide, high), (max(1, round(high * scale)), max(1, round(wide * scale))))


def focus_group(truth: Mapping[str, CropMask], labels: LabelSpace) -> str | None:
    """Return the group whose classes have the largest part of their pixels in common with others.

    None where nothing overlaps, or where there are no groups.
    """
    shared = shared_parts(truth)
    parts = {}
    for group, names in labels.groups.items():
        area = sum(truth[name].area for name in names if name in truth)
        parts[group] = sum(shared[n].area for n in names if n in truth) / max(1, area)
    best = max(parts, key=lambda group: parts[group], default=None)
    return best if best is not None and parts[best] > 0 else None


def draw_difference(
    image: Floats,
    masks: Mapping[str, CropMask],
    truth: Mapping[str, CropMask],
    view: View,
) -> Floats:
    """Colour where any class is hit, missed, or drawn where it is not; both errors in stripes.

    Takes what `draw_masks` takes; the ground is the image in dark grey.
    """
    hit, missed, false = (np.zeros(view.size_hw, bool) for _ in range(3))
    drawn, real = dict(layers_of(masks, view)), dict(layers_of(truth, view))
    nothing = np.zeros(view.size_hw, np.float32)
    for label in {**drawn, **real}:
        found, true = drawn.get(label, nothing) >= 0.5, real.get(label, nothing) >= 0.5
        hit |= found & true
        missed |= true & ~found
        false |= found & ~true
    first = stripes(view) % 2 == 0
    out = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2) * np.float32(0.6)
    blend(out, HIT, hit * 0.34)
    blend(out, MISSED, (missed & (first | ~false)) * 0.95)
    blend(out, FALSE, (false & (~first | ~missed)) * 0.95)
    return np.asarray(out, np.float32)


def label_points(
    masks: Mapping[str, CropMask], names: Sequence[str], view: View
) -> dict[str, tuple[float, float]]:
    """Return where to write a class's number: left and top in percent of the view.

    The point lies deepest inside the part of the mask that no other one covers, or inside the
    mask where all of it is covered. Classes that the view does not show are absent.
    """
    shared = shared_parts(masks)
    points = {}
    for name in names:
        whole = masks.get(name, EMPTY).window(view.box_xywh)
        alone = whole & (1 - shared[name].window(view.box_xywh)) if name in shared else whole
        place = alone if alone.any() else whole
        if not place.any():
            continue
        depth = cv2.distanceTransform(np.pad(place, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        points[name] = (
            100 * (float(column) + 0.5) / view.box_xywh[2],
            100 * (float(row) + 0.5) / view.box_xywh[3],
        )
    return points


def view_around(box_xywh: Box | None, size_hw: tuple[int, int], nearest: float = NEAREST) -> View:
    """Return a square view around a box, with room; of the whole image where there is none.

    It leaves the image only where the box does, or where the image is narrower than the view, and
    is at least `nearest` of the image's longer side.
    """
    height, width = size_hw
    box = box_xywh or (0, 0, width, height)
    wanted = max(ROOM * max(box[2], box[3]), nearest * max(size_hw))
    beyond = max(-box[0], -box[1], box[0] + box[2] - width, box[1] + box[3] - height, 0)
    side = round(min(wanted, max(size_hw) + 2 * beyond)) if box_xywh else max(size_hw)
    left = _place(box[0], box[2], side, width)
    top = _place(box[1], box[3], side, height)
    return View((left, top, side, side), (SIDE, SIDE))


def _place(start: int, length: int, side: int, limit: int) -> int:
    middle = start + length // 2 - side // 2
    low, high = min(0, start), max(limit, start + length) - side
    return (low + high) // 2 if high < low else min(max(middle, low), high)

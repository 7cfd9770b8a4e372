"""Whether a hand is bent: the angle between the long axes of two bones."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from converters.masks import CropMask, Mask, rasterize_labels
from converters.types import LabelSpace, Sample

Axis = npt.NDArray[np.float64]

# Of a bone that the image's border cuts, the part next to the border: its end is flared and leans.
_SHAFT = 0.8
# A bone runs out of the image where it fills this much of its own width along a border.
_CUT = 0.25
# Elongation (ratio of the axes) below which a shape has no long axis worth the name.
_ROUND = 1.2


def bend_deg(sample: Sample, labels: LabelSpace) -> float | None:
    """Return the angle between the long axes of the two bones that tell the posture.

    An axis has no direction, so that the angle is 0 to 90 degrees. A bone inside the image has the
    axis of its second moments. That of a bone that the border cuts depends on where it is cut; its
    axis is the line through the middles of its sections parallel to that border.

    Args:
        sample: annotated; both bones must have pixels in it.
        labels: says which bones (`LabelSpace.posture`).

    Returns:
        Degrees; None without a posture, without one of the bones, or where one of them is round.
    """
    if labels.posture is None:
        return None
    names = (labels.posture.distal, labels.posture.proximal)
    chosen = [instance for instance in sample.instances if instance.label in names]
    return bend_of_masks(rasterize_labels(chosen, sample.size_hw), sample.size_hw, labels)


def bend_of_masks(
    masks: Mapping[str, CropMask], size_hw: tuple[int, int], labels: LabelSpace
) -> float | None:
    """Return what `bend_deg` does, of masks; those of other bones may lack."""
    if labels.posture is None:
        return None
    names = (labels.posture.distal, labels.posture.proximal)
    axes = [long_axis(masks[name], size_hw) for name in names if name in masks]
    found = [axis for axis in axes if axis is not None]
    return angle_deg(found[0], found[1]) if len(found) == len(names) else None


def is_bent(sample: Sample, labels: LabelSpace) -> bool | None:
    """Tell a bent hand from a straight one; None where `bend_deg` is None."""
    bend = bend_deg(sample, labels)
    return None if bend is None or labels.posture is None else bend > labels.posture.bent_above_deg


def angle_deg(a: Axis, b: Axis) -> float:
    """Return the angle between two undirected axes, 0 to 90 degrees.

    >>> angle_deg(np.array([0.0, 2.0]), np.array([-1.0, -1.0])).__round__(6)
    45.0
    """
    cross, dot = float(a[0] * b[1] - a[1] * b[0]), float(a @ b)
    return float(np.degrees(np.arctan2(abs(cross), abs(dot))))


def long_axis(mask: CropMask, size_hw: tuple[int, int]) -> Axis | None:
    """Return the direction x, y of a mask's long axis; None of a round or an empty one.

    Args:
        mask: of one bone.
        size_hw: height and width of the image, whose borders may cut the bone.
    """
    if not mask.area:
        return None
    x, y, width, height = mask.box_xywh
    pixels = mask.pixels
    # How much of each border the bone fills; whether that is before its first row or column.
    cuts = [
        (int(pixels[0].sum()) if y == 0 else 0, False, True),
        (int(pixels[-1].sum()) if y + height == size_hw[0] else 0, False, False),
        (int(pixels[:, 0].sum()) if x == 0 else 0, True, True),
        (int(pixels[:, -1].sum()) if x + width == size_hw[1] else 0, True, False),
    ]
    length_px, is_side, is_first = max(cuts)
    if length_px < _CUT * mask.area**0.5:
        return _moment_axis(pixels)
    axis = _middle_axis(pixels.T if is_side else pixels, is_first)
    return axis[::-1] if is_side else axis


def _moment_axis(pixels: Mask) -> Axis | None:
    moments = cv2.moments(pixels, binaryImage=True)
    mixed = moments["mu11"]
    spread = np.array([[moments["mu20"], mixed], [mixed, moments["mu02"]]])
    values, vectors = np.linalg.eigh(spread)
    is_round = values[1] < _ROUND**2 * max(values[0], 1e-9)
    return None if is_round else vectors[:, 1]


def _middle_axis(pixels: Mask, is_first: bool) -> Axis:
    """The line through the middles of the rows, from the first row on or up to the last one."""
    rows = max(2, round(_SHAFT * len(pixels)))
    shaft = pixels[:rows] if is_first else pixels[-rows:]
    widths = shaft.sum(axis=1, dtype=np.int64)
    at = np.flatnonzero(widths)
    middles = (shaft[at] @ np.arange(shaft.shape[1])) / widths[at]
    if len(at) < 2:
        return np.array([0.0, 1.0])
    slope, _ = np.polyfit(at, middles, 1)
    return np.array([slope, 1.0])

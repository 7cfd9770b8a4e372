"""Several objects of a class, kept apart: in a mask by itself, or by what detectors have found.

A fusion gives one mask a class. Of cells or grains, of which an image has many, those that touch
become one part of it. Instance sources have seen them one by one: each of their detections, the
surest first, takes its pixels of the mask that no surer one has. What is left of a part of the mask
goes to the nearest of its objects; a part that no detection explains is one object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from converters.masks import CropMask, common_part
from converters.types import LabelSpace
from fusion.binary import binary_masks
from fusion.types import Evidence, Prediction, soft_mask

# A detection that is less sure explains nothing: Ultralytics' own limit for what it shows.
_LEAST_SCORE = 0.25
# It is an object if so much of it lies in the mask, and nobody surer has that; and so much of an
# object's pixels, or of a part's, must lie in a part for the object to have a share in it.
_LEAST_SHARE = 0.5
# Of 255; what counts as inside.
_INSIDE = np.uint8(128)
_Numbers = npt.NDArray[np.int32]


def parts_of(mask: CropMask) -> list[CropMask]:
    """Return the connected parts of a mask (8 neighbours), the objects that it shows.

    >>> [part.box_xywh for part in parts_of(CropMask(4, 5, np.array([[1, 0, 1]], np.uint8)))]
    [(4, 5, 1, 1), (6, 5, 1, 1)]
    """
    if not mask.pixels.size:
        return []
    count, numbers, boxes, _ = cv2.connectedComponentsWithStats(mask.pixels, connectivity=8)
    found = []
    for number, (x, y, width, height, _) in enumerate(boxes.tolist()[1:count], start=1):
        pixels = numbers[y : y + height, x : x + width] == number
        found.append(CropMask(mask.x + x, mask.y + y, pixels.astype(np.uint8)))
    return found


def split_mask(mask: CropMask, detections: Sequence[CropMask]) -> list[CropMask]:
    """Return the objects of a mask; they share no pixel, and together have all of its pixels.

    Args:
        mask: of a class.
        detections: its objects as detectors have found them, the surest first.
    """
    parts = parts_of(mask)
    if not detections or not parts:
        return parts
    claimed = _claim(mask, detections)
    areas = np.bincount(claimed.ravel(), minlength=len(detections) + 1)
    owner = np.zeros_like(claimed)
    number = len(detections)
    for part in parts:
        window = _window(part, mask)
        inside = part.pixels.astype(bool)
        seeds = np.where(inside, claimed[window], 0)
        here = np.bincount(seeds.ravel(), minlength=len(areas))
        here[0] = 0
        enough = (here >= _LEAST_SHARE * areas) | (here >= _LEAST_SHARE * inside.sum())
        having = np.flatnonzero((here > 0) & enough)
        if not len(having):
            number += 1
            having = np.array([number])
        if len(having) == 1:
            owner[window][inside] = having[0]
        else:
            seeds[~np.isin(seeds, having)] = 0
            owner[window][inside] = _nearest(seeds)[inside]
    return _cut(owner, mask)


def _claim(mask: CropMask, detections: Sequence[CropMask]) -> _Numbers:
    """Whose pixels of a mask are, int32 (h, w): place of the detection + 1, or 0."""
    claimed = np.zeros(mask.pixels.shape, np.int32)
    for number, detection in enumerate(detections, start=1):
        both = common_part(mask, detection)
        place = claimed[_window(both, mask)] if both.pixels.size else claimed[:0, :0]
        own = both.pixels.astype(bool) & (place == 0)
        if own.any() and own.sum() >= _LEAST_SHARE * detection.area:
            place[own] = number
    return claimed


def _nearest(seeds: _Numbers) -> _Numbers:
    """The nearest seed of each pixel, int32 (h, w)."""
    is_seed = seeds > 0
    _, places = cv2.distanceTransformWithLabels(
        (~is_seed).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    numbers = np.zeros(int(places.max()) + 1, np.int32)
    numbers[places[is_seed]] = seeds[is_seed]
    return numbers[places]


def _window(part: CropMask, mask: CropMask) -> tuple[slice, slice]:
    x, y, width, height = part.box_xywh
    left, top = x - mask.x, y - mask.y
    return slice(top, top + height), slice(left, left + width)


def _cut(owner: _Numbers, mask: CropMask) -> list[CropMask]:
    """The objects of an image of numbers, by their numbers."""
    y, x = np.nonzero(owner)
    if not len(y):
        return []
    order = np.argsort(owner[y, x], kind="stable")
    y, x = y[order], x[order]
    firsts = np.flatnonzero(np.diff(owner[y, x], prepend=0))
    low, high = (
        np.stack([edge.reduceat(own, firsts) for own in (y, x)], axis=1).tolist()
        for edge in (np.minimum, np.maximum)
    )
    found = []
    for (top, left), (bottom, right), number in zip(low, high, owner[y, x][firsts], strict=True):
        own = owner[top : bottom + 1, left : right + 1] == number
        found.append(CropMask(left + mask.x, top + mask.y, own.astype(np.uint8)))
    return found


def detections_of(sources: Sequence[Prediction], label: str) -> list[CropMask]:
    """Return the objects of a class that instance sources have found, the surest first."""
    found: list[tuple[float, CropMask]] = []
    for source in sources:
        if source.kind == "instance":
            for score, mask in source.masks.get(label, ()):
                if score >= _LEAST_SCORE and (binary := mask.binary(source.size_hw)).area:
                    found.append((score, binary))
    # Of equal scores the source that comes first.
    return [mask for _, mask in sorted(found, key=lambda item: -item[0])]


def split_masks(
    masks: Mapping[str, CropMask], sources: Sequence[Prediction], labels: LabelSpace
) -> dict[str, list[CropMask]]:
    """Return the objects of each class's mask; where a class occurs once, the mask is the object.

    The class of what no object covers has none.

    Args:
        masks: class -> mask.
        sources: what was fused; the instance sources among them keep objects apart.
        labels: the classes.
    """
    return {
        name: [mask] if labels.once else split_mask(mask, detections_of(sources, name))
        for name, mask in masks.items()
        if mask.area and name != labels.background
    }


def split_prediction(
    fused: Prediction, sources: Sequence[Prediction], labels: LabelSpace
) -> Prediction:
    """Return a fused prediction as one of single objects, with the mean probability as the score.

    Where a pixel has one label, that of the likeliest class may be less than one half; it becomes
    one half, so that whoever reads the objects finds all of their pixels. Others are left out.

    Args:
        fused: one mask a class.
        sources: what was fused.
        labels: the classes.
    """
    objects = split_masks(binary_masks(fused, labels), sources, labels)
    masks = {name: _scored(fused, name, found) for name, found in objects.items()}
    return Prediction(fused.key, fused.size_hw, "instance", masks, fused.classes, fused.domain_xywh)


def _scored(fused: Prediction, label: str, objects: Sequence[CropMask]) -> tuple[Evidence, ...]:
    found: list[Evidence] = []
    for own in objects:
        prob = _probabilities(fused, label, own)
        mask = soft_mask(prob, own.box_xywh, 1)
        if mask:
            found.append((_mean(prob, own), mask))
    return tuple(sorted(found, key=lambda item: -item[0]))


def object_score(fused: Prediction, label: str, own: CropMask) -> float:
    """Return the mean probability of an object's pixels, from one half to 1.

    Args:
        fused: one mask a class.
        label: the object's class.
        own: its pixels, as `split_masks` gives them.
    """
    return _mean(_probabilities(fused, label, own), own)


def _probabilities(fused: Prediction, label: str, own: CropMask) -> npt.NDArray[np.uint8]:
    """The probabilities of an object's pixels, uint8 (h, w) of its box; 0 beside it."""
    whole = fused.best(label)
    assert whole is not None
    return np.maximum(whole[1].render(own.box_xywh), _INSIDE) * own.pixels


def _mean(prob: npt.NDArray[np.uint8], own: CropMask) -> float:
    return float(prob.sum()) / (255 * own.area)

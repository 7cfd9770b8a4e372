"""What happens where objects lie over one another: shared pixels by pairs, and mixed-up classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import cv2
import numpy as np

from converters.masks import EMPTY, CropMask, common_part
from converters.types import LabelSpace
from fusion.metrics.scores import Pair, dice, intersection
from fusion.metrics.surface import TOLERANCE_PX, surface_distances


def shared_pairs(masks: Mapping[str, CropMask], labels: LabelSpace) -> dict[Pair, CropMask]:
    """Return what each two masks share, in the label space's order; pairs that share something."""
    return {
        (a, b): part
        for a, b in combinations([n for n in labels.names if n in masks], 2)
        if (part := common_part(masks[a], masks[b])).area
    }


def score_pairs(
    predicted: Mapping[str, CropMask], truth: Mapping[str, CropMask], labels: LabelSpace
) -> dict[Pair, dict[str, float]]:
    """Score the overlap of each two classes as a mask of its own.

    These are RAM-H1200's DSC-O and its normalised surface Dice (2 px): the predicted overlap of two
    classes against their true overlap, for the pairs whose truth shares a pixel. An overlap that is
    not predicted at all scores 0.

    Returns:
        Pair, in the label space's order -> `dice` and `nsd`.
    """
    scores = {}
    for (a, b), real in shared_pairs(truth, labels).items():
        found = common_part(predicted.get(a, EMPTY), predicted.get(b, EMPTY))
        near = surface_distances(found, real).surface_dice(TOLERANCE_PX)
        scores[a, b] = {"dice": dice(found, real), "nsd": near}
    return scores


def count_confusion(
    predicted: Mapping[str, CropMask], truth: Mapping[str, CropMask]
) -> dict[Pair, tuple[int, int]]:
    """Count the pixels of each true class that are predicted as another class instead.

    Classes may overlap, so that another class on a pixel is no error in itself. A pixel of class i
    counts for (i, j) where j is predicted and i is not. Of these, j is right where its truth is
    there too: then the overlap has been given to j alone, as an index map does. The others are
    mistaken for j. With one label a pixel this is the usual confusion matrix.

    Returns:
        (true class, predicted class) -> number of pixels, and of these where the predicted class
        is right too; pairs without such a pixel are absent.
    """
    return {
        (true, other): counts
        for true in truth
        for other, counts in _taken_by(true, predicted, truth)
    }


def _taken_by(
    true: str, predicted: Mapping[str, CropMask], truth: Mapping[str, CropMask]
) -> Iterator[tuple[str, tuple[int, int]]]:
    real = truth[true]
    missed = CropMask(
        real.x, real.y, real.pixels & ~predicted.get(true, EMPTY).window(real.box_xywh)
    )
    if not missed.area:
        return
    for other, found in predicted.items():
        taken = common_part(missed, found) if other != true else EMPTY
        if taken.area:
            yield other, (taken.area, intersection(taken, truth.get(other, EMPTY)))


def parts_px(mask: CropMask) -> list[int]:
    """Return the sizes in pixels of a mask's parts, largest first; diagonal neighbours touch."""
    if not mask.pixels.size:
        return []
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.pixels, connectivity=8)
    return sorted(np.asarray(stats)[1:, cv2.CC_STAT_AREA].tolist(), reverse=True)


def is_doubled(prediction: CropMask, truth: CropMask, share: float = 0.1) -> bool:
    """Tell whether a class is predicted in more places than it has.

    Args:
        prediction: the class's mask.
        truth: the class's true mask.
        share: parts count from this share of the class's true area on (without truth, of the
            predicted area): crumbs are no second object.
    """
    least = share * (truth.area or prediction.area)
    found, real = (sum(px >= least for px in parts_px(mask)) for mask in (prediction, truth))
    return found > max(1, real)

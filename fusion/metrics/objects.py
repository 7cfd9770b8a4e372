"""Objects one by one: which are found, and how well, where a class has several in an image.

A true and a predicted object of a class are matched if their intersection over union is above one
half, each at most once, so that the sum of these is largest. From the matches follow, of a
class in all images together:

- recognition quality RQ = TP / (TP + FP/2 + FN/2), which is F1, segmentation quality SQ, the mean
  IoU of the matched, and panoptic quality PQ = SQ * RQ (Kirillov et al., "Panoptic Segmentation",
  CVPR 2019, equations 1 and 2);
- the mean over ten thresholds, IoU above .5, .55, ... .95, of TP / (TP + FP + FN) of each image
  with objects, then over images: the measure of the Data Science Bowl 2018 (Caicedo et al., Nature
  Methods 16, 2019).

Where a class occurs once in an image, its mask is its object. Elsewhere the objects of detections
are those that count as found (`fusion.types.LEAST_SCORE`), and those of a plain mask its connected
parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from converters.masks import CropMask, common_part, rasterize
from converters.types import LabelSpace, Sample
from fusion.metrics.scores import OBJECT_IOUS, ObjectMatches, intersection
from fusion.objects import parts_of
from fusion.types import LEAST_SCORE, Prediction


def match_objects(found: Sequence[CropMask], real: Sequence[CropMask]) -> ObjectMatches:
    """Match predicted objects of a class with true ones.

    Args:
        found: the predicted, at least one pixel each; they may overlap.
        real: the true.
    """
    pairs = _near(found, real)
    rows, columns = Counter(i for i, _ in pairs), Counter(j for _, j in pairs)
    # Nearly all have one partner; where objects overlap, the best pairs together are taken.
    alone = [iou for (i, j), iou in pairs.items() if rows[i] == columns[j] == 1]
    rest = {pair: iou for pair, iou in pairs.items() if rows[pair[0]] > 1 or columns[pair[1]] > 1}
    matched = sorted([*alone, *_assign(rest)], reverse=True)
    return ObjectMatches(len(real), len(found), tuple(matched))


def _near(found: Sequence[CropMask], real: Sequence[CropMask]) -> dict[tuple[int, int], float]:
    """Places of a predicted and a true object -> their IoU, where it is enough for a match."""
    if not found or not real:
        return {}
    left, top, width, height = np.array([mask.box_xywh for mask in real]).T
    areas = [mask.area for mask in real]
    pairs = {}
    for i, mask in enumerate(found):
        x, y, w, h = mask.box_xywh
        touches = (x < left + width) & (left < x + w) & (y < top + height) & (top < y + h)
        area = mask.area
        for j in np.flatnonzero(touches).tolist():
            both = intersection(mask, real[j])
            if (iou := both / (area + areas[j] - both)) > OBJECT_IOUS[0]:
                pairs[i, j] = iou
    return pairs


def _assign(pairs: Mapping[tuple[int, int], float]) -> list[float]:
    """The IoU of pairs that share no object, so that their sum is largest."""
    from scipy.optimize import linear_sum_assignment

    if not pairs:
        return []
    rows, columns = (
        {n: k for k, n in enumerate(dict.fromkeys(ends))} for ends in zip(*pairs, strict=True)
    )
    table = np.zeros((len(rows), len(columns)))
    for (i, j), iou in pairs.items():
        table[rows[i], columns[j]] = iou
    taken = table[linear_sum_assignment(table, maximize=True)]
    return [float(iou) for iou in taken if iou]


def true_objects(
    sample: Sample, labels: LabelSpace, masks: Mapping[str, CropMask]
) -> dict[str, list[CropMask]]:
    """Return the true objects of each class, those with pixels.

    Args:
        sample: with the objects.
        labels: the classes.
        masks: class -> mask, the pixels that are the class's where a pixel has one label.
    """
    drawn = (
        (instance.label, rasterize(instance.geometry, sample.size_hw))
        for instance in sample.instances
        if instance.label in masks
    )
    return _by_class(drawn, labels, masks)


def predicted_objects(
    prediction: Prediction, labels: LabelSpace, masks: Mapping[str, CropMask]
) -> dict[str, list[CropMask]]:
    """Return the objects that a prediction shows of each class, those with pixels.

    Args:
        prediction: of one image.
        labels: the classes.
        masks: class -> mask, from `fusion.binary.binary_masks`.
    """
    if prediction.kind == "semantic":
        parts = ((name, part) for name, mask in masks.items() for part in parts_of(mask))
        return _by_class(parts, labels, masks)
    drawn = (
        (label, mask.binary(prediction.size_hw))
        for label, _, score, mask in prediction.rows()
        if score >= LEAST_SCORE and label in masks
    )
    return _by_class(drawn, labels, masks)


def _by_class(
    drawn: Iterable[tuple[str, CropMask]], labels: LabelSpace, masks: Mapping[str, CropMask]
) -> dict[str, list[CropMask]]:
    """Objects by their class, those with pixels; the class's mask where it occurs once."""
    if labels.once:
        return {name: [mask] for name, mask in masks.items() if mask.area}
    found: dict[str, list[CropMask]] = {}
    for label, mask in drawn:
        part = common_part(mask, masks[label]) if labels.exclusive else mask
        if part.area:
            found.setdefault(label, []).append(part)
    return found


def match_classes(
    found: Mapping[str, Sequence[CropMask]],
    real: Mapping[str, Sequence[CropMask]],
    names: Iterable[str],
) -> dict[str, ObjectMatches]:
    """Match the objects of each class that has any."""
    return {
        name: match_objects(found.get(name, ()), real.get(name, ()))
        for name in names
        if found.get(name) or real.get(name)
    }

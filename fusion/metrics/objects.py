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

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from converters.masks import CropMask, rasterize
from converters.types import LabelSpace, Sample
from fusion.arrays import Floats
from fusion.metrics.overlaps import common_part
from fusion.metrics.scores import OBJECT_IOUS, ObjectMatches, intersection
from fusion.objects import parts_of
from fusion.types import LEAST_SCORE, Prediction


def match_objects(found: Sequence[CropMask], real: Sequence[CropMask]) -> ObjectMatches:
    """Match predicted objects of a class with true ones.

    Args:
        found: the predicted, at least one pixel each; they may overlap.
        real: the true.
    """
    from scipy.optimize import linear_sum_assignment

    table = _ious(found, real)
    table[table <= OBJECT_IOUS[0]] = 0
    rows, columns = linear_sum_assignment(table, maximize=True)
    matched = sorted(filter(None, table[rows, columns].tolist()), reverse=True)
    return ObjectMatches(len(real), len(found), tuple(matched))


def _ious(found: Sequence[CropMask], real: Sequence[CropMask]) -> Floats:
    """IoU of each two, float64 (predicted, true); those whose boxes are apart are not counted."""
    table = np.zeros((len(found), len(real)))
    if table.size:
        a, b = (np.array([m.box_xywh for m in masks])[:, None] for masks in (found, real))
        b = b.transpose(1, 0, 2)
        touch = (a[..., :2] < b[..., :2] + b[..., 2:]) & (b[..., :2] < a[..., :2] + a[..., 2:])
        areas = [[mask.area for mask in masks] for masks in (found, real)]
        for i, j in np.argwhere(touch.all(axis=2)).tolist():
            both = intersection(found[i], real[j])
            table[i, j] = both / (areas[0][i] + areas[1][j] - both)
    return table


def true_objects(
    sample: Sample, labels: LabelSpace, masks: Mapping[str, CropMask]
) -> dict[str, list[CropMask]]:
    """Return the true objects of each class, those with pixels.

    Args:
        sample: with the objects.
        labels: the classes.
        masks: class -> mask, the pixels that are the class's where a pixel has one label.
    """
    if labels.once:
        return {name: [mask] for name, mask in masks.items() if mask.area}
    drawn = (
        (instance.label, rasterize(instance.geometry, sample.size_hw))
        for instance in sample.instances
        if instance.label in masks
    )
    return group_objects(drawn, masks if labels.exclusive else None)


def predicted_objects(
    prediction: Prediction, labels: LabelSpace, masks: Mapping[str, CropMask]
) -> dict[str, list[CropMask]]:
    """Return the objects that a prediction shows of each class, those with pixels.

    Args:
        prediction: of one image.
        labels: the classes.
        masks: class -> mask, from `fusion.binary.binary_masks`.
    """
    if labels.once:
        return {name: [mask] for name, mask in masks.items() if mask.area}
    if prediction.kind == "semantic":
        return {name: parts for name, mask in masks.items() if (parts := parts_of(mask))}
    drawn = (
        (label, mask.binary(prediction.size_hw))
        for label, _, score, mask in prediction.rows()
        if score >= LEAST_SCORE and label in masks
    )
    return group_objects(drawn, masks if labels.exclusive else None)


def group_objects(
    drawn: Iterable[tuple[str, CropMask]], within: Mapping[str, CropMask] | None = None
) -> dict[str, list[CropMask]]:
    """Return objects by their class, those with pixels, all or within the class's mask alone."""
    found: dict[str, list[CropMask]] = {}
    for label, mask in drawn:
        part = common_part(mask, within[label]) if within else mask
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

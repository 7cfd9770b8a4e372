"""Which measures there are, and one image measured by those that are asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import cv2
import numpy as np

from converters.masks import EMPTY, CropMask, crop
from converters.types import LabelSpace
from fusion.metrics.overlaps import count_confusion, is_doubled, score_pairs
from fusion.metrics.scores import ImageScore, score_image
from fusion.metrics.surface import boundary_error_rate, surface_distances

MEASURES = {
    "dice": "Dice, and Dice of the pixels that classes share",
    "iou": "intersection over union; their mean is mIoU",
    "nsd": "normalised surface Dice within 2 px",
    "hd95": "Hausdorff distance in px, 95th percentile",
    "asd": "average symmetric surface distance in px",
    "ber": "wrong pixels in the band of 2 px on both sides of the true outline",
    "overlap": "Dice and surface Dice of what each two classes share",
    "confusion": "pixels of a class that are predicted as another one",
    "presence": "missing, extra and doubled classes",
    "objects": "objects one by one: panoptic quality, and the Data Science Bowl's precision",
}
FAST = ("dice", "iou", "presence")
SURFACE = ("nsd", "hd95", "asd")
IS_ERROR = frozenset({"hd95", "asd", "ber"})
"""Measures of which less is better."""


def parse_measures(text: str) -> tuple[str, ...]:
    """Return the measures of a list such as `dice,nsd`; `fast` and `all` are lists of their own.

    Raises:
        ValueError: an unknown name, or none at all.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if unknown := [word for word in words if word not in {*MEASURES, "fast", "all"}]:
        known = ", ".join([*MEASURES, "fast", "all"])
        raise ValueError(f"metric '{unknown[0]}': expected of {known}")
    if not words:
        raise ValueError(f"metrics: expected some of {', '.join(MEASURES)}, found none")
    asked = {name for word in words for name in {"fast": FAST, "all": MEASURES}.get(word, (word,))}
    return tuple(name for name in MEASURES if name in asked)


def measure_image(
    key: str,
    predicted: Mapping[str, CropMask],
    truth: Mapping[str, CropMask],
    labels: LabelSpace,
    size_hw: tuple[int, int],
    measures: Collection[str] = FAST,
    background: str | None = None,
) -> ImageScore:
    """Score one image's masks by several measures.

    Args:
        key: the image's.
        predicted: label -> mask; a label that is absent is an empty mask.
        truth: the same, true.
        labels: the classes.
        size_hw: the image's height and width.
        measures: of `MEASURES`; Dice is always there.
        background: the class of all pixels that no other class has, where the label space has
            one; nobody annotates it, and what is predicted of it follows from the others.
    """
    if background is not None:
        predicted = _with_background(predicted, background, size_hw)
        truth = _with_background(truth, background, size_hw)
    found = {n: m for n, m in predicted.items() if m.area}
    real = {n: m for n, m in truth.items() if m.area}
    score = score_image(key, found, real, labels)
    asked = found if "presence" in measures else {}
    doubled = tuple(n for n, mask in asked.items() if is_doubled(mask, real.get(n, EMPTY)))
    return replace(
        score,
        measures=_measure_classes(found, real, labels, size_hw, measures),
        pairs=score_pairs(found, real, labels) if "overlap" in measures else {},
        confusion=count_confusion(found, real) if "confusion" in measures else {},
        doubled=doubled,
    )


def _measure_classes(
    found: Mapping[str, CropMask],
    real: Mapping[str, CropMask],
    labels: LabelSpace,
    size_hw: tuple[int, int],
    measures: Collection[str],
) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, float]] = {m: {} for m in (*SURFACE, "ber") if m in measures}
    for name in labels.names if values else ():
        mask, truth = found.get(name, EMPTY), real.get(name, EMPTY)
        if "ber" in values:
            values["ber"][name] = boundary_error_rate(mask, truth, size_hw)
        if not values.keys().isdisjoint(SURFACE):
            distances = surface_distances(mask, truth)
            known = {
                "nsd": distances.surface_dice,
                "hd95": distances.hausdorff,
                "asd": distances.average,
            }
            for measure in values.keys() & known.keys():
                values[measure][name] = known[measure]()
    return values


def _with_background(
    masks: Mapping[str, CropMask], background: str, size_hw: tuple[int, int]
) -> dict[str, CropMask]:
    free = np.ones(size_hw, np.uint8)
    others = {n: m for n, m in masks.items() if n != background}
    for mask in others.values():
        x, y, width, height = mask.box_xywh
        part = free[y : y + height, x : x + width]
        cv2.bitwise_and(part, 1 - mask.pixels, dst=part)
    return {**others, background: crop(free)}

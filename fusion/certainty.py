"""How sure a prediction is of an object, and leaving out what it is not sure of."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from fusion.types import Evidence, Prediction, evidence_at_pixels

_INSIDE = 128


def certainty(prediction: Prediction, label: str) -> float:
    """Return the mean probability inside a class's mask, in 0..1; 0 where the mask is empty.

    Inside is what a submission would call the object: a probability of at least one half. The mask
    of a hard vote has certainty 1.
    """
    best = prediction.best(label)
    if best is None:
        return 0.0
    window = best[1].window(prediction.size_hw)
    prob = best[1].render(window)
    inside = prob[prob >= _INSIDE]
    return float(inside.mean()) / 255 if inside.size else 0.0


def drop_uncertain(
    prediction: Prediction, floor: float, once: bool = True
) -> tuple[Prediction, tuple[str, ...]]:
    """Return the prediction without the objects below a certainty, and their classes.

    An object whose mask is empty is none: it is neither kept nor counted.

    Args:
        prediction: of one image.
        floor: the least certainty of what is kept.
        once: each class occurs once in an image: all of its mask is one object. Otherwise each
            connected part (8 neighbours) is, and a class comes as often as parts of it are dropped.
    """
    if not once:
        return _drop_parts(prediction, floor)
    known = {label: certainty(prediction, label) for label in prediction.masks}
    kept = {n: e for n, e in prediction.masks.items() if known[n] >= floor and known[n] > 0}
    dropped = tuple(label for label, value in known.items() if 0 < value < floor)
    return replace(prediction, masks=kept), dropped


def _drop_parts(prediction: Prediction, floor: float) -> tuple[Prediction, tuple[str, ...]]:
    kept: dict[str, tuple[Evidence, ...]] = {}
    dropped: list[str] = []
    for label in prediction.masks:
        found = prediction.evidence(label, once=False)
        window = found[1].window(prediction.size_hw) if found else (0, 0, 0, 0)
        if found is None or not (window[2] and window[3]):
            continue
        prob = found[1].render(window)
        parts, number_of = cv2.connectedComponents((prob >= _INSIDE).astype(np.uint8))
        sums = np.bincount(number_of.ravel(), prob.ravel(), parts)[1:]
        means = sums / np.bincount(number_of.ravel(), minlength=parts)[1:] / 255
        unsure = 1 + np.flatnonzero(means < floor)
        dropped += [label] * len(unsure)
        if len(unsure) == parts - 1:
            continue
        # As it was, where nothing is dropped: finer or coarser than pixels.
        kept[label] = prediction.masks[label]
        if len(unsure):
            prob[np.isin(number_of, unsure)] = 0
            kept[label] = evidence_at_pixels(window, prob)
    return replace(prediction, masks=kept), tuple(dropped)

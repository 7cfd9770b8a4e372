"""From queries, or boxes, each with a class and a mask, to instances. Needs no torch.

Networks in torch take the same way, but that their masks become probabilities on their device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from converters.types import Frame, LabelSpace
from fusion.types import Evidence, Prediction, SoftMask, soft_mask
from zoo.data.reading import NetworkInput
from zoo.inference.arrays import Floats, activate, enlarge
from zoo.inference.windows import Size

InstancesByClass = dict[int, tuple[Evidence, ...]]
"""Class number -> its instances, the surest first: score, and soft mask in pixels of the input."""
# Torchvision's coordinates of boxes count pixels' centres, a soft mask's count their edges.
CENTRE = 0.5
Plane = Callable[[int], npt.NDArray[np.uint8]]
"""A query's number to the probabilities of its mask, uint8 (h, w), 255 = 1, of the input's size."""


def find_instances(scores: Floats, plane: Plane, floor: float, once: bool) -> InstancesByClass:
    """Return an image's instances.

    Of a class that occurs once the query is taken that is surest of it; otherwise each query is an
    instance of the class that it is surest of.

    Args:
        scores: how sure each query is of each class, float32 (Q, C).
        plane: gives a query's mask; asked for those that are instances alone, one after the other:
            of many queries the planes would not fit.
        floor: score that an instance has to exceed.
        once: each class occurs once in an image.
    """
    found: InstancesByClass = {}
    for query, label, score in _choose(scores, floor, once):
        prob = plane(query)
        box = (0.0, 0.0, float(prob.shape[1]), float(prob.shape[0]))
        if (mask := soft_mask(prob, box)) is not None:
            found[label] = (*found.get(label, ()), (min(score, 1.0), mask))
    return found


def _choose(scores: Floats, floor: float, once: bool) -> list[tuple[int, int, float]]:
    """Return query, class and score of what is an instance, the surest first."""
    axis = 0 if once else 1
    best, partner = scores.max(axis), scores.argmax(axis)
    order = np.argsort(-best, kind="stable")
    order = order[best[order] > floor]
    pair = (partner[order], order) if once else (order, partner[order])
    rows = (part.tolist() for part in (*pair, best[order]))
    return list(zip(*rows, strict=True))


def predict_queries(
    frame: NetworkInput, scores: Floats, masks: Floats, labels: LabelSpace, floor: float
) -> Prediction:
    """Return an image's prediction, in its own pixels, of what an exported network says.

    Args:
        frame: the image.
        scores: see `find_instances`.
        masks: logits of any size, float32 (Q, h', w').
        labels: the classes.
        floor: see `find_instances`.
    """
    height, width = frame.image.shape[:2]
    plane = partial(_plane, masks, (height, width))
    return to_prediction(frame, find_instances(scores, plane, floor, labels.once), labels)


def _plane(masks: Floats, size_hw: Size, query: int) -> npt.NDArray[np.uint8]:
    probs = activate(enlarge(masks[query], size_hw), "sigmoid")
    return np.rint(probs * np.float32(255)).astype(np.uint8)


def find_boxes(boxes: Floats, scores: Floats, labels: Floats, probs: Floats) -> InstancesByClass:
    """Return an image's instances of what a Mask R-CNN has found.

    Args:
        boxes: left, top, right and bottom as torchvision counts, float32 (D, 4).
        scores: how sure they are, float32 (D,), the surest first of a class; what has 0 is none.
        labels: classes, counted from 1, float32 (D,).
        probs: of their masks, 0..1, float32 (D, m, m).
    """
    found: InstancesByClass = {}
    for number in np.flatnonzero(scores > 0).tolist():
        label = int(labels[number]) - 1
        evidence = min(float(scores[number]), 1.0), to_soft_mask(boxes[number], probs[number])
        found[label] = (*found.get(label, ()), evidence)
    return found


def to_soft_mask(box_xyxy: Floats, prob: Floats) -> SoftMask:
    """Return a detection's soft mask.

    The mask's cells are where the masks that it learned from were read: torchvision reads those at
    even distances inside of the box, in coordinates that count pixels' centres. Around them is one
    row of zeros, as torchvision has it when it pastes.

    Args:
        box_xyxy: float (4,), as torchvision counts.
        prob: float (m, m), in 0..1.
    """
    x0, y0, x1, y1 = (box_xyxy.astype(np.float64) + CENTRE).tolist()
    raster = np.pad(np.rint(prob * np.float32(255)).astype(np.uint8), 1)
    rows, cols = prob.shape
    wide, high = (x1 - x0) / cols, (y1 - y0) / rows
    return SoftMask((x0 - wide, y0 - high, x1 - x0 + 2 * wide, y1 - y0 + 2 * high), raster)


def to_prediction(frame: NetworkInput, found: InstancesByClass, labels: LabelSpace) -> Prediction:
    """Return an image's prediction, in its own pixels."""
    masks = {labels.names[number]: evidence for number, evidence in sorted(found.items())}
    height, width = frame.image.shape[:2]
    seen = Prediction(frame.key, (height, width), "instance", masks)
    return seen.placed(Frame((0, 0, frame.size_hw[1], frame.size_hw[0]), frame.size_hw))

"""Predictions to and from `supervision.Detections`: boxes, binary masks, scores, classes.

Boxes are supervision's own by default: the last pixel is part of them (`mask_to_xyxy`). Masks are
binary there, so that probabilities other than 0 and 1 do not come back. Source: supervision 0.31,
`detection/core.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.errors import import_optional
from converters.masks import crop
from converters.types import LabelSpace
from fusion.interchange.objects import MaskObject, objects_of, predict_objects
from fusion.types import Prediction

_NAMES = "class_name"  # `supervision.config.CLASS_NAME_DATA_FIELD`


def to_detections(prediction: Prediction, labels: LabelSpace) -> Any:
    """Return a prediction as `supervision.Detections`, a detection a piece of evidence.

    Args:
        prediction: of one image.
        labels: the classes; `class_id` is a class's place in them.

    Returns:
        Detections with `xyxy` float32 (n, 4), `mask` bool (n, H, W), `confidence` float32 (n,),
        `class_id` int (n,) and the classes' names in `data["class_name"]`.

    Raises:
        ValueError: a class that the label space does not have.
        MissingDependency: supervision is not installed.
    """
    sv = import_optional("supervision", "supervision")
    found = list(objects_of(prediction, labels))
    boxes = [one.mask.box_xywh for one in found]
    corners = [(x, y, x + width - 1, y + height - 1) for x, y, width, height in boxes]
    planes = [one.mask.full(prediction.size_hw).astype(bool) for one in found]
    return sv.Detections(
        xyxy=np.array(corners, np.float32).reshape(-1, 4),
        mask=np.stack(planes) if planes else np.zeros((0, *prediction.size_hw), bool),
        confidence=np.array([one.score for one in found], np.float32),
        class_id=np.array([labels.index[one.label] for one in found], int),
        data={_NAMES: np.array([one.label for one in found], dtype=str)},
    )


def from_detections(
    key: str, detections: Any, labels: LabelSpace, size_hw: tuple[int, int]
) -> Prediction:
    """Return the prediction that `supervision.Detections` are, of kind `instance`.

    Classes are found by `data["class_name"]` where it is there, name or alias, else by `class_id`.
    Without `confidence` every score is 1.

    Args:
        key: the sample's key.
        detections: of one image, with masks.
        labels: the classes.
        size_hw: the image's height and width.

    Raises:
        ValueError: no masks, masks of another size, or an unknown class.
    """
    count = len(detections)
    if count and detections.mask is None:
        raise ValueError(f"{key}: expected detections with masks, found boxes alone")
    names = _names(key, detections, labels)
    scores = detections.confidence if detections.confidence is not None else np.ones(count)
    found = []
    for place in range(count):
        plane = np.asarray(detections.mask[place])
        if plane.shape != tuple(size_hw):
            raise ValueError(
                f"{key}: expected masks of {tuple(size_hw)} pixels (height, width), found "
                f"{plane.shape}"
            )
        mask = crop((plane != 0).astype(np.uint8))
        found.append(MaskObject(names[place], float(scores[place]), mask))
    return predict_objects(key, size_hw, found, labels)


def _names(key: str, detections: Any, labels: LabelSpace) -> list[str]:
    if (given := detections.data.get(_NAMES)) is not None:
        return [labels.canonical(str(name)) or str(name) for name in given]
    if not len(detections):
        return []
    if detections.class_id is None:
        raise ValueError(f"{key}: expected detections with 'class_id' or '{_NAMES}', found neither")
    numbers = [int(number) for number in detections.class_id]
    if beyond := [n for n in numbers if not 0 <= n < len(labels)]:
        raise ValueError(
            f"{key}: expected 'class_id' from 0 to {len(labels) - 1} ('{labels.name}'), found "
            f"{beyond[0]}"
        )
    return [labels.names[number] for number in numbers]

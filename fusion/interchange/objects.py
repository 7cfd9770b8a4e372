"""What detections of other libraries have in common: binary objects with a class and a score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.masks import CropMask, crop
from converters.types import LabelSpace
from fusion.types import Evidence, Prediction, SoftMask


@dataclass(frozen=True)
class MaskObject:
    """One object.

    Attributes:
        label: the class.
        score: 0 to 1.
        mask: its pixels.
    """

    label: str
    score: float
    mask: CropMask

    @classmethod
    def of(cls, label: str, score: float, plane: npt.NDArray[np.generic]) -> MaskObject:
        """Return the object that a plane (H, W) shows: its pixels are those that are not 0."""
        return cls(label, score, crop((np.asarray(plane) != 0).astype(np.uint8)))


def objects_of(prediction: Prediction, labels: LabelSpace) -> Iterator[MaskObject]:
    """Yield every piece of evidence of a prediction as an object, class by class, best first.

    Pixels are those from one half on; what has none is no object.

    Args:
        prediction: of one image.
        labels: the classes; others are refused.

    Raises:
        ValueError: a class that the label space does not have.
    """
    prediction.check_classes(labels)
    for name in labels.names:
        for score, soft in prediction.masks.get(name, ()):
            mask = soft.binary(prediction.size_hw)
            if mask.area:
                yield MaskObject(name, score, mask)


def predict_objects(
    key: str, size_hw: tuple[int, int], found: Iterable[MaskObject], labels: LabelSpace
) -> Prediction:
    """Return objects as a prediction of kind `instance`.

    Args:
        key: the sample's key.
        size_hw: the image's height and width.
        found: the objects, in any order; empty masks are passed over.
        labels: the classes.

    Raises:
        ValueError: a class that the label space does not have, or a score outside 0..1.
    """
    masks: dict[str, list[Evidence]] = {}
    for one in found:
        if one.label not in labels.index:
            raise ValueError(f"{key}: expected a class of {labels.listed()}, found '{one.label}'")
        if one.mask.area:
            x, y, width, height = map(float, one.mask.box_xywh)
            soft = SoftMask((x, y, width, height), one.mask.pixels * np.uint8(255))
            masks.setdefault(one.label, []).append((one.score, soft))
    ordered = {
        name: tuple(sorted(masks[name], key=lambda evidence: -evidence[0]))
        for name in labels.names
        if name in masks
    }
    return Prediction(key, size_hw, "instance", ordered)

"""Predictions and samples as FiftyOne's labels, and its detections as predictions.

A record is what `fiftyone.Detection(**record)` takes, made without FiftyOne: `label`,
`bounding_box` (left, top, width, height as shares of the image), `mask` (bool, the pixels of the
box) and `confidence`. FiftyOne's `Segmentation` has one class a pixel, so that only masks that
share no pixels can be one. Source: FiftyOne's fiftyone/core/labels.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.errors import import_optional
from converters.masks import CropMask, crop, rasterize
from converters.types import LabelSpace, Sample
from fusion.binary import binary_masks
from fusion.interchange.objects import MaskObject, objects_of, predict_objects
from fusion.types import Prediction

Record = dict[str, Any]


def detection_records(prediction: Prediction, labels: LabelSpace) -> list[Record]:
    """Return a prediction's objects as what `fiftyone.Detection` takes.

    Raises:
        ValueError: a class that the label space does not have.
    """
    return [
        {**_record(one.label, one.mask, prediction.size_hw), "confidence": float(one.score)}
        for one in objects_of(prediction, labels)
    ]


def truth_records(sample: Sample) -> list[Record]:
    """Return a sample's annotated objects as what `fiftyone.Detection` takes."""
    drawn = ((one.label, rasterize(one.geometry, sample.size_hw)) for one in sample.instances)
    return [_record(label, mask, sample.size_hw) for label, mask in drawn if mask.area]


def _record(label: str, mask: CropMask, size_hw: tuple[int, int]) -> Record:
    (x, y, width, height), (rows, cols) = mask.box_xywh, size_hw
    box = [x / cols, y / rows, width / cols, height / rows]
    return {"label": label, "bounding_box": box, "mask": mask.pixels.astype(bool)}


def segmentation_record(prediction: Prediction, labels: LabelSpace) -> Record:
    """Return a prediction as what `fiftyone.Segmentation` takes: `mask`, uint16 (H, W).

    A pixel has its class's place in the label space + 1, or 0; `mask_targets` are FiftyOne's.

    Raises:
        ValueError: two classes share a pixel.
    """
    plane = np.zeros(prediction.size_hw, np.uint16)
    for name, mask in binary_masks(prediction, labels).items():
        x, y, width, height = mask.box_xywh
        part, pixels = plane[y : y + height, x : x + width], mask.pixels > 0
        if part[pixels].any():
            other = labels.names[int(part[pixels].max()) - 1]
            raise ValueError(
                f"{prediction.key}: expected one class a pixel, found '{other}' and '{name}' on "
                "one: take detections"
            )
        part[pixels] = labels.index[name] + 1
    return {"mask": plane}


def mask_targets(labels: LabelSpace) -> dict[int, str]:
    """Return what the numbers of `segmentation_record` mean, as FiftyOne data sets keep it."""
    return dict(enumerate(labels.names, start=1))


def to_fiftyone(prediction: Prediction, labels: LabelSpace) -> Any:
    """Return a prediction as `fiftyone.Detections`.

    Raises:
        ValueError: a class that the label space does not have.
        MissingDependency: FiftyOne is not installed.
    """
    fo = import_optional("fiftyone", "fiftyone")
    records = detection_records(prediction, labels)
    return fo.Detections(detections=[fo.Detection(**record) for record in records])


def from_fiftyone(
    key: str, detections: Any, labels: LabelSpace, size_hw: tuple[int, int]
) -> Prediction:
    """Return the prediction that FiftyOne's detections are, of kind `instance`.

    Args:
        key: the sample's key.
        detections: `fiftyone.Detections`, or records as `detection_records` gives them.
        labels: the classes, found by name or alias.
        size_hw: the image's height and width.

    Raises:
        ValueError: a detection without a mask, a mask that is not as large as its box, or an
            unknown class.
    """
    listed: Iterable[Any] = getattr(detections, "detections", detections) or ()
    found = [_object(key, _fields(one), labels, size_hw) for one in listed]
    return predict_objects(key, size_hw, found, labels)


def _fields(detection: Any) -> Mapping[str, Any]:
    if isinstance(detection, Mapping):
        return detection
    names = ("label", "bounding_box", "mask", "confidence")
    return {name: getattr(detection, name, None) for name in names}


def _object(
    key: str, fields: Mapping[str, Any], labels: LabelSpace, size_hw: tuple[int, int]
) -> MaskObject:
    label = str(fields["label"])
    if fields.get("mask") is None:
        raise ValueError(f"{key}: '{label}': expected a detection with a mask, found a box alone")
    pixels: npt.NDArray[np.uint8] = (np.asarray(fields["mask"]) > 0).astype(np.uint8)
    rows, cols = size_hw
    left, top, width, height = (float(value) for value in fields["bounding_box"])
    x, y = round(left * cols), round(top * rows)
    box_hw = round(height * rows), round(width * cols)
    is_inside = min(x, y) >= 0 and x + box_hw[1] <= cols and y + box_hw[0] <= rows
    if pixels.shape != box_hw or not is_inside:
        raise ValueError(
            f"{key}: '{label}': expected a mask of its box's {box_hw} pixels (height, width) in an "
            f"image of {tuple(size_hw)}, found {pixels.shape} at x {x}, y {y}"
        )
    inner = crop(pixels)
    score = fields.get("confidence")
    mask = CropMask(inner.x + x, inner.y + y, inner.pixels) if inner.area else inner
    return MaskObject(labels.canonical(label) or label, 1.0 if score is None else score, mask)

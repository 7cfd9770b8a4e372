"""What a prediction becomes as the body of an answer: codes, COCO's objects, or pictures."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from converters.masks import CropMask, encode_coco_rle, encode_rle
from converters.types import LabelSpace
from fusion.binary import binary_masks
from fusion.interchange.objects import objects_of
from fusion.types import LEAST_SCORE, Prediction

Answer = tuple[bytes, str]
"""A body, and its media type."""
# Of scores.
_DIGITS = 4
_JSON, _ZIP = "application/json", "application/zip"
# ZIP's earliest time: the same masks are the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def as_rle(prediction: Prediction, labels: LabelSpace) -> Answer:
    """Return each class's mask as a submission has it: runs of pixels, row after row from 1.

    `{"size": [height, width], "masks": {class: {"rle", "area", "score"}}}`; a class without a pixel
    has the code "" and the area 0.
    """
    masks = {
        label: {
            "rle": encode_rle(mask, prediction.size_hw),
            "area": mask.area,
            "score": _score(prediction, label),
        }
        for label, mask in binary_masks(prediction, labels).items()
    }
    return _json({"size": list(prediction.size_hw), "labels": labels.name, "masks": masks})


def as_coco(prediction: Prediction, labels: LabelSpace) -> Answer:
    """Return a COCO file of one image: an annotation an object, as compressed RLE.

    Where a class occurs once in an image, that is its mask. Detections of a score below one half
    are none.
    """
    height, width = prediction.size_hw
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": labels.names.index(label) + 1,
            "segmentation": encode_coco_rle(mask, prediction.size_hw),
            "bbox": list(mask.box_xywh),
            "area": mask.area,
            "iscrowd": 0,
            "score": score,
        }
        for number, (label, score, mask) in enumerate(_objects(prediction, labels), start=1)
    ]
    categories = [{"id": n, "name": name} for n, name in enumerate(labels.names, start=1)]
    image = {"id": 1, "file_name": prediction.key, "height": height, "width": width}
    return _json({"images": [image], "categories": categories, "annotations": annotations})


def _objects(prediction: Prediction, labels: LabelSpace) -> Iterator[tuple[str, float, CropMask]]:
    if prediction.kind == "instance" and not labels.once:
        for one in objects_of(prediction, labels):
            if one.score >= LEAST_SCORE:
                yield one.label, round(one.score, _DIGITS), one.mask
        return
    for label, mask in _present(prediction, labels).items():
        yield label, _score(prediction, label), mask


def as_png(prediction: Prediction, labels: LabelSpace) -> Answer:
    """Return a ZIP of pictures, 0 and 255, one a class that has pixels: `NUMBER-CLASS.png`."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        for label, mask in _present(prediction, labels).items():
            plane = mask.full(prediction.size_hw).astype(np.uint8) * np.uint8(255)
            name = f"{labels.names.index(label):03d}-{_plain(label)}.png"
            archive.writestr(zipfile.ZipInfo(name, _TIME), cv2.imencode(".png", plane)[1].tobytes())
    return found.getvalue(), _ZIP


FORMATS: Mapping[str, Callable[[Prediction, LabelSpace], Answer]] = {
    "rle": as_rle,
    "coco": as_coco,
    "png": as_png,
}
OF_OBJECTS = frozenset({"coco"})
"""Formats that hold single objects."""
# What a client may say that it takes -> the format; else it is the first.
_ACCEPTED = {_ZIP: "png", "image/png": "png", "application/coco+json": "coco"}


def choose_format(asked: str | None, accept: str) -> str:
    """Return the format that a request asks for.

    Args:
        asked: the value of `format` in its address, if any.
        accept: its header `Accept`; "" where it has none.

    Raises:
        ValueError: no such format.

    >>> choose_format(None, "application/zip;q=0.9, */*"), choose_format("coco", "")
    ('png', 'coco')
    """
    if asked is not None:
        if asked not in FORMATS:
            raise ValueError(f"format: expected one of {', '.join(FORMATS)}, found '{asked:.40}'")
        return asked
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    return next((_ACCEPTED[kind] for kind in kinds if kind in _ACCEPTED), next(iter(FORMATS)))


def _present(prediction: Prediction, labels: LabelSpace) -> dict[str, CropMask]:
    return {n: mask for n, mask in binary_masks(prediction, labels).items() if mask.area}


def _score(prediction: Prediction, label: str) -> float:
    best = prediction.best(label)
    return round(best[0], _DIGITS) if best else 0.0


def _plain(label: str) -> str:
    """A class's name as a part of a file name in an archive: no folder, nothing hidden."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in label)


def _json(record: Any) -> Answer:
    return json.dumps(record, ensure_ascii=False).encode(), _JSON

"""COCO's results, as Detectron2, MMDetection, pycocotools and others have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from converters.formats.coco.results import CocoResults
from fusion.interchange.files.written import KnownImages, WrittenPredictions
from fusion.interchange.objects import MaskObject, predict_objects
from fusion.types import Prediction


def open_results(
    path: Path,
    known: KnownImages,
    root: Path,
    images: Path | None = None,
    annotations: Path | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> WrittenPredictions:
    """Open a list of results; see `converters.formats.coco.results`.

    Args:
        path: the list.
        known: the data set's images.
        root: the data set's folder.
        images: a folder with the data set's images, where they do not lie with it.
        annotations: the annotation file whose ids are meant; None finds it.
        note: told of classes that no detection is of.

    Raises:
        ValueError: no list of results, or ids of no file of the data set, or of several.
    """
    results = CocoResults.open(path, root, known.labels, images=images, annotations=annotations)
    there = [key for key in results.keys if key in known.samples]

    def predict(key: str) -> Prediction:
        size_hw = known.samples[key].size_hw
        objects = (MaskObject(*found) for found in results.detections(key, size_hw))
        return predict_objects(key, size_hw, objects, known.labels)

    form = f"COCO results with the ids of {results.annotations.name}"
    spoken = known.spoken(path, results.classes, note)
    return WrittenPredictions(form, "instance", there, True, predict, spoken)

"""COCO's results, as Detectron2, MMDetection, pycocotools and others have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from converters.formats.coco.results import CocoResults
from fusion.interchange.files.written import KnownImages, WrittenPredictions, join_files
from fusion.interchange.objects import MaskObject, predict_objects
from fusion.types import Prediction


def open_results(
    path: Path,
    files: Sequence[Path],
    known: KnownImages,
    root: Path,
    images: Path | None = None,
    annotations: Path | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> WrittenPredictions:
    """Open lists of results; see `converters.formats.coco.results`.

    Args:
        path: the list, or the folder with all of them.
        files: the lists; several have detections of other images each, as those of folds.
        known: the data set's images.
        root: the data set's folder.
        images: a folder with the data set's images, where they do not lie with it.
        annotations: the annotation file whose ids are meant; None finds it.
        note: told of classes that no detection is of.

    Raises:
        ValueError: no list of results, ids of no file of the data set, or of several, or two lists
            with detections of one image.
    """
    lists = CocoResults.open_all(files, root, known.labels, images=images, annotations=annotations)
    # In a fold nothing may be found.
    for file in sorted({*files}.difference(own.path for own in lists)):
        note(f"{file}: an empty list: nothing was found")
    named = dict.fromkeys(own.annotations.name for own in lists)
    classes = frozenset[str]().union(*(own.classes for own in lists))
    spoken = known.spoken(path, classes, note)
    return of_results(f"COCO results with the ids of {', '.join(named)}", lists, known, spoken)


def of_results(
    form: str, lists: Sequence[CocoResults], known: KnownImages, spoken: tuple[str, ...]
) -> WrittenPredictions:
    """Return the predictions that COCO's results are.

    Args:
        form: what they are, in words.
        lists: of other images each, as those of folds.
        known: the data set's images.
        spoken: the classes that are spoken of; empty means all.

    Raises:
        ValueError: two have detections of one image.
    """
    owners = join_files({own.path: (own, own.keys_found) for own in lists})
    there = {key: None for own in lists for key in own.keys if key in known.samples}

    def predict(key: str) -> Prediction:
        size_hw = known.samples[key].size_hw
        found = owners[key].detections(key, size_hw) if key in owners else []
        return predict_objects(key, size_hw, (MaskObject(*one) for one in found), known.labels)

    given = any(own.has_scores for own in lists)
    return WrittenPredictions(form, "instance", there, True, predict, spoken, gives_scores=given)

"""Predictions in the form of annotations: a data set of the same images, in any readable format.

That is what `zoo fuse --format coco` and tools that draw labels write, and a table of run-length
codes as other competitions want it. Nothing in it is more or less sure: each object's score is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import converters
from converters.errors import DataError, Problems
from converters.formats.rle_table.rle_table import read_table
from converters.masks import rasterize
from converters.types import ImageFile, Instance, Sample
from fusion.interchange.files.content import options_home
from fusion.interchange.files.written import KnownImages, WrittenPredictions, join_files
from fusion.interchange.objects import MaskObject, predict_objects
from fusion.types import Prediction


def open_data_set(
    folder: Path, data_format: str, known: KnownImages, note: Callable[[str], None]
) -> WrittenPredictions:
    """Open a data set whose annotations are predictions; its images are known by their keys.

    Args:
        folder: of the data set.
        data_format: its format.
        known: the images that it may be about.
        note: told of what has to be said, such as classes that are left out.

    Raises:
        ValueError: it is broken, or has an image that is not known, or of another size.
    """
    found = converters.read(
        folder, format=data_format, subset="all", labels=known.labels, note=note
    )
    own = {sample.key: sample for sample in found}
    if not own.keys() <= known.samples.keys():
        own = {}
        for sample in found:
            key = _key(folder, sample, known.stems)
            if key in own:
                raise ValueError(
                    f"{folder}: expected one image of '{key}', found '{own[key].key}' and "
                    f"'{sample.key}'"
                )
            own[key] = sample
    named = converters.label_space(folder, format=data_format).names
    classes = {*filter(None, map(known.labels.canonical, named)), *_classes(own.values())}
    spoken = known.spoken(folder, classes, note)
    return _of_samples(f"a data set ({data_format})", folder, own, known, spoken)


def open_tables(
    path: Path,
    files: Sequence[Path],
    images: Path,
    known: KnownImages,
    note: Callable[[str], None],
) -> WrittenPredictions:
    """Open tables of run-length codes.

    Args:
        path: the table, or the folder with all of them.
        files: the tables; several have other images each, as those of folds.
        images: the folder of the images.
        known: the images that it may be about.
        note: told of how pixels are counted, where the table does not show it.

    Raises:
        ValueError: one is broken, or has an image that is not known, or that another has, too.
    """
    places = {sample.image: key for key, sample in known.samples.items()}
    found: dict[Path, tuple[dict[str, Sample], Iterable[str]]] = {}
    for file in files:
        home = options_home(file, path) if path.is_dir() else None
        own = _of_table(file, home, images, known, places, note)
        if not own:
            note(f"{file}: no row of an image: nothing was found")
        found[file] = own, own
    owners = join_files(found)
    samples = {key: own[key] for key, own in owners.items()}
    spoken = known.spoken(path, _classes(samples.values()), note)
    return _of_samples("a table of run-length codes", path, samples, known, spoken)


def _of_table(
    path: Path,
    home: Path | None,
    images: Path,
    known: KnownImages,
    places: Mapping[ImageFile, str],
    note: Callable[[str], None],
) -> dict[str, Sample]:
    problems = Problems(path.parent)
    found = read_table(path, images, known.labels, problems, home)
    if problems.found:
        raise DataError(path.parent, sorted(map(str, problems.found)))
    for text in problems.notes:
        note(text)
    own = {}
    for sample in found:
        if sample.image not in places:
            raise ValueError(f"{path}: expected images of the data set, found '{sample.key}'")
        own[places[sample.image]] = sample
    return own


def _classes(samples: Iterable[Sample]) -> set[str]:
    return {label for sample in samples for label in sample.labels}


def _key(folder: Path, sample: Sample, stems: Mapping[str, list[str]]) -> str:
    keys = stems.get(sample.key) or stems.get(sample.image.stem) or []
    if len(keys) != 1:
        found = f"several ({' and '.join(keys[:2])})" if keys else "none of this name"
        what = f"expected it to be an image of the data set, found {found}"
        raise ValueError(f"{folder}: '{sample.key}': {what}")
    return keys[0]


def _of_samples(
    form: str, path: Path, own: dict[str, Sample], known: KnownImages, spoken: tuple[str, ...]
) -> WrittenPredictions:
    for key, sample in own.items():
        if tuple(sample.size_hw) != tuple(known.samples[key].size_hw):
            raise ValueError(
                f"{path}: '{key}': expected an image of {tuple(known.samples[key].size_hw)}, as in "
                f"the data set, found {tuple(sample.size_hw)}"
            )

    def predict(key: str) -> Prediction:
        size_hw = known.samples[key].size_hw
        objects = own[key].instances if key in own else ()
        return predict_objects(key, size_hw, _masks(objects, size_hw), known.labels)

    return WrittenPredictions(form, "instance", own, True, predict, spoken, has_scores=False)


def _masks(objects: Iterable[Instance], size_hw: tuple[int, int]) -> Iterable[MaskObject]:
    return (MaskObject(one.label, 1.0, rasterize(one.geometry, size_hw)) for one in objects)

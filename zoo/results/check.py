"""A look at a submission before it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path

from converters.types import LabelSpace
from fusion.checks.orientation import Annotations, Layouts
from fusion.checks.submission import Review, review
from fusion.sources.submission import Image, read
from zoo.results.scoring import by_file_name, fold_hint, other_subset
from zoo.source import DataSource


def review_submission(path: Path, data: DataSource, subset: str, labels_name: str | None) -> Review:
    """Compare a submission with a subset of a data set, and with all that is annotated there.

    Raises:
        ValueError: the file or the data set cannot be read, or two of its images have one name.
    """
    # What is no submission is said before any data are read.
    next(read(path), None)
    labels = _classes_of(path, data, labels_name)
    samples = data.read(labels, subset)
    there: dict[str, int] = {}
    if data.held_out is not None or subset != "test":
        # Test images have an order; others may come by folds, or by name.
        there = _images_of(path)
        samples.sort(key=lambda sample: there.get(sample.file_name, len(there)))
    names = by_file_name(samples)
    images = [Image(s.file_name, s.size_hw) for s in samples]
    annotations = Annotations.of((), samples, labels)
    # Of many images the outlines take the most memory, and are done with.
    del samples
    # Annotations that cannot be read are left out here: `zoo audit` names them.
    annotated = [] if data.has_only_images else data.scan(labels)[0]
    layouts = Layouts.learn(annotated, labels)
    annotations = replace(annotations, layouts=layouts)
    if hint := _test_hint(there.keys(), names, data, labels):
        return Review((hint,), ())
    if not names:
        return Review((other_subset(data, subset),), ())
    found = review(path, images, labels, annotations)
    if hint := _other_images(path, names, data, subset, found):
        return Review((hint,), ())
    return replace(found, problems=(*_fold_problems(there.keys(), names, data), *found.problems))


def _images_of(path: Path) -> dict[str, int]:
    """Return name -> place of the images that a submission has rows of, in its order."""
    names = dict.fromkeys(row.image_name for row in read(path))
    return {name: place for place, name in enumerate(names)}


def _classes_of(path: Path, data: DataSource, labels_name: str | None) -> LabelSpace:
    """Return the classes that are asked for; of mere images those of the submission itself."""
    if labels_name or data.chosen or not data.has_only_images:
        return data.labels(labels_name)
    names = tuple(dict.fromkeys(row.label for row in read(path)))
    if not names:
        raise ValueError(
            f"{path}: expected rows of classes, found none: name the classes by --labels, as "
            f"{data.path} has images alone"
        )
    return LabelSpace("submission", names)


def _test_hint(
    there: Set[str], names: Mapping[str, str], data: DataSource, labels: LabelSpace
) -> str:
    """Say that a submission has test images, where those that are held out are expected."""
    if data.held_out is None or not there or there & names.keys():
        return ""
    is_test = there <= {sample.file_name for sample in data.scan_test(labels)}
    return "these are test images: leave --subset val out" if is_test else ""


def _other_images(
    path: Path, names: Mapping[str, str], data: DataSource, subset: str, found: Review
) -> str:
    """Say once that a submission is of other images altogether; "" if it is not."""
    # What is wrong with each row, such as names without suffix, is one problem already.
    if len(found.problems) < 2:
        return ""
    there = _images_of(path)
    if there.keys() & names.keys():
        return ""
    others = f"found {len(there)} others, such as '{next(iter(there))}'"
    return other_subset(data, subset, f"such as '{next(iter(names))}', {others}")


def _fold_problems(there: Set[str], names: Mapping[str, str], data: DataSource) -> list[str]:
    """Say that a submission has the images of one fold, where all folds' are expected."""
    if data.held_out is None or data.held_out[1] is not None:
        return []
    hint = fold_hint(data, [names[name] for name in there & names.keys()])
    return [hint.removeprefix("; ")] if hint else []

"""A look at a submission before it is sent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import converters
from converters.types import LabelSpace
from fusion.checks.orientation import Annotations, Layouts
from fusion.checks.submission import Review, review
from fusion.sources.submission import Image
from zoo.results.scoring import by_file_name
from zoo.source import DataSource


def review_submission(path: Path, data: DataSource, subset: str, labels_name: str | None) -> Review:
    """Compare a submission with a subset of a data set, and with all that is annotated there.

    Raises:
        ValueError: the file or the data set cannot be read, or two of its images have one name.
    """
    labels = data.labels(labels_name)
    images, predicted = _images(data, subset, labels)
    # Annotations that cannot be read are left out here: `zoo audit` names them.
    known, _ = converters.scan(data.path, format=data.format, subset="all", labels=labels)
    annotations = replace(predicted, layouts=Layouts.learn(known, labels))
    # Of many images the outlines take the most memory, and are done with.
    del known
    return review(path, images, labels, annotations)


def _images(data: DataSource, subset: str, labels: LabelSpace) -> tuple[list[Image], Annotations]:
    samples = data.read(labels, subset)
    by_file_name(samples)
    return [Image(s.file_name, s.size_hw) for s in samples], Annotations.of((), samples, labels)

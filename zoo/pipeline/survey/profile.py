"""What of a data set decides a plan."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from converters.splits.grouping import group_by
from converters.tables.sample_tables import tables_beside
from zoo.pipeline.survey.closeup import Closeup, find_closeup
from zoo.pipeline.survey.facts import SPLIT, DataFacts, look_at_test
from zoo.source import DataSource

# Of objects whose size decides an image's: all but the smallest tenth; and their least side as a
# network sees it.
_SMALLEST, _LEAST_SIDE = 0.1, 10
_MULTIPLE = 64
# Largest sides that a network sees, without a GPU and with one.
_LARGEST_CPU, _LARGEST_GPU = 384, 1024
LEAST = 256
# Samples whose objects are measured.
_LOOKED_AT = 200


@dataclass(frozen=True)
class DataProfile:
    """What of a data set decides a plan.

    Attributes:
        images: to learn from.
        patients: they are of; an image of nobody known counts as its own.
        test_images: to be answered.
        side: longer side of an image in pixels, half of them are larger.
        least: side of objects, to the image's longer side, that nine of ten objects exceed.
        repeated: objects beyond the first of their class in an image, to all objects.
        objects: that can be learned from.
        classes: their number.
        exclusive: whether a pixel has one label.
        facts: which steps there are.
        unknown: images of nobody known.
        scale: how many times as many images are meant as there are.
        closeup: classes that are worth being seen larger, where there is no GPU.
    """

    images: int
    patients: int
    test_images: int
    side: int
    least: float
    repeated: float
    objects: int
    classes: int
    exclusive: bool
    facts: DataFacts
    unknown: int = 0
    scale: float = 1.0
    closeup: Closeup | None = None

    def scaled(self, images: int) -> DataProfile:
        """Return the same of a larger data set, for a plan on paper.

        Args:
            images: to learn from; 0 for those that there are.
        """
        if not images:
            return self
        scale = images / self.images
        counts = (round(scale * n) for n in (self.patients, self.test_images, self.objects))
        patients, tested, objects = counts
        return replace(
            self,
            images=images,
            patients=max(2, patients),
            test_images=tested,
            objects=objects,
            scale=scale,
        )

    def side_seen(self, has_gpu: bool) -> int:
        """Return the side of whole images that networks are shown: what small objects ask for."""
        return _side_seen(self.side, self.least, has_gpu)

    def describe(self) -> str:
        """Return it as a line."""
        repeated = f", {self.repeated:.0%} further objects of a class" if self.repeated else ""
        return (
            f"{self.images} images of {self.patients} patients, {self.test_images} to answer, "
            f"{self.side} pixels, {self.objects} objects of {self.classes} classes, small objects "
            f"{self.least:.1%} of the image's side{repeated}"
        )


def look(data: DataSource, test: Path | None = None, by: str = "") -> DataProfile:
    """Return what of a data set decides a plan.

    Args:
        data: the data set, with the classes that are asked for.
        by: whose an image is, as `zoo split --group-by` takes it.
        test: a folder whose images are to be answered instead of its own test part.

    Raises:
        ValueError: nothing to learn from.
    """
    labels = data.classes
    own = data.path / SPLIT
    # What the folds that it brings know of patients counts.
    known = data.of_split(own) if own.is_file() else data
    samples = [sample for sample in known.read(labels) if sample.instances]
    if not samples:
        raise ValueError(f"{data.path}: expected annotated images, found none")
    if by:
        samples = group_by(samples, by, tables_beside(data.path))
    facts, tested = look_at_test(data, test)
    step = max(1, len(samples) // _LOOKED_AT)
    sides: list[float] = []
    objects = further = 0
    for sample in samples[::step]:
        longest = max(sample.size_hw)
        for instance in sample.instances:
            left, top, right, bottom = instance.geometry.bounds
            sides.append(max(right - left, bottom - top, 1) / longest)
        objects += len(sample.labels)
        further += len(sample.labels) - len(set(sample.labels))
    ordered = sorted(sides)
    side = int(median(max(sample.size_hw) for sample in samples))
    least = ordered[int(_SMALLEST * len(ordered))]
    seen = _side_seen(side, least, has_gpu=False)
    return DataProfile(
        len(samples),
        len({sample.patient for sample in samples}),
        tested,
        side,
        least,
        further / objects,
        round(objects * len(samples) / len(samples[::step])),
        len(labels),
        labels.exclusive is not None,
        facts,
        sum(not sample.group for sample in samples),
        closeup=find_closeup(samples[::step], labels, seen),
    )


def _side_seen(side: int, least: float, has_gpu: bool) -> int:
    largest = _LARGEST_GPU if has_gpu else _LARGEST_CPU
    # A GPU has the time for all that the images hold.
    needed = side if has_gpu else _LEAST_SIDE / least
    wanted = max(LEAST, min(needed, side, largest))
    return min(largest, _MULTIPLE * math.ceil(wanted / _MULTIPLE))

"""Dice and IoU of overlapping masks, counted on crops: no dense planes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from converters.masks import EMPTY, CropMask, union_box
from converters.types import LabelSpace


def intersection(a: CropMask, b: CropMask) -> int:
    """Number of pixels that both masks have."""
    x0, y0 = max(a.x, b.x), max(a.y, b.y)
    x1 = min(a.x + a.pixels.shape[1], b.x + b.pixels.shape[1])
    y1 = min(a.y + a.pixels.shape[0], b.y + b.pixels.shape[0])
    if x1 <= x0 or y1 <= y0:
        return 0
    inner_a = a.pixels[y0 - a.y : y1 - a.y, x0 - a.x : x1 - a.x]
    inner_b = b.pixels[y0 - b.y : y1 - b.y, x0 - b.x : x1 - b.x]
    return int(cv2.countNonZero(inner_a & inner_b))


class Counts(NamedTuple):
    """Numbers of pixels, from which Dice and IoU follow.

    Attributes:
        both: predicted and true.
        predicted: predicted.
        true: true.
    """

    both: int
    predicted: int
    true: int

    @property
    def dice(self) -> float:
        """Dice = 2 |A and B| / (|A| + |B|); 1 where both are empty, 0 where one is."""
        total = self.predicted + self.true
        return 2 * self.both / total if total else 1.0

    @property
    def iou(self) -> float:
        """IoU = |A and B| / |A or B|; 1 where both are empty, 0 where one is."""
        total = self.predicted + self.true - self.both
        return self.both / total if total else 1.0


def count(prediction: CropMask, truth: CropMask) -> Counts:
    """Count the pixels of two masks and those that both have."""
    return Counts(intersection(prediction, truth), prediction.area, truth.area)


def dice(prediction: CropMask, truth: CropMask) -> float:
    """Dice = 2 |A and B| / (|A| + |B|); 1 where both are empty.

    >>> dice(CropMask(0, 0, np.ones((1, 2), np.uint8)), CropMask(1, 0, np.ones((1, 2), np.uint8)))
    0.5
    """
    return count(prediction, truth).dice


def iou(prediction: CropMask, truth: CropMask) -> float:
    """IoU = |A and B| / |A or B|; 1 where both are empty.

    >>> iou(CropMask(0, 0, np.ones((1, 2), np.uint8)), CropMask(1, 0, np.ones((1, 2), np.uint8)))
    0.3333333333333333
    """
    return count(prediction, truth).iou


def shared_parts(masks: Mapping[str, CropMask]) -> dict[str, CropMask]:
    """Return of every mask the pixels that at least one other mask has too."""
    box = union_box(masks.values())
    claims = np.zeros((box[3], box[2]), np.uint8)
    for mask in masks.values():
        _part(claims, mask, box)[...] += mask.pixels
    several = (claims > 1).astype(np.uint8)
    return {
        label: CropMask(mask.x, mask.y, mask.pixels & _part(several, mask, box))
        for label, mask in masks.items()
    }


def _part(
    plane: npt.NDArray[np.uint8], mask: CropMask, box: tuple[int, int, int, int]
) -> npt.NDArray[np.uint8]:
    if not mask.pixels.size:
        return np.zeros_like(mask.pixels)
    top, left = mask.y - box[1], mask.x - box[0]
    return plane[top : top + mask.pixels.shape[0], left : left + mask.pixels.shape[1]]


Pair = tuple[str, str]
"""Two class names."""

LEAST_SHARE = 0.05
"""Of a class's true area, the part that other classes must share for the class to overlap there.

Objects that merely touch share a line of accidental pixels, two pixels wide where outlines are
drawn with care. Of an object 40 pixels long that is a twentieth, of a larger one less. On phantom
hands bones that touch share at most 4.8 % (the median over images of 512 pixels; 3.3 % of 2048),
bones that overlap at least 7 %, carpals at least 26 %.
"""
LEAST_IMAGES = 0.5
"""Of the images where a class occurs, the part in which it must overlap to count as one that does.

A class that overlaps in a few unusual images says more of these images than of overlaps.
"""


OBJECT_IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""What the IoU of a found object is above; above the first it is found at all."""


@dataclass(frozen=True)
class ObjectMatches:
    """How the objects of a class on one image were found.

    Attributes:
        true: number of true objects.
        predicted: number of predicted ones.
        ious: of the matched, largest first.
    """

    true: int
    predicted: int
    ious: tuple[float, ...]

    def found(self, threshold: float) -> int:
        """Number of the matched whose IoU is above a threshold."""
        return sum(iou > threshold for iou in self.ious)

    @property
    def pq(self) -> float:
        """Panoptic quality, 0 to 1; NaN without any object."""
        total = self.true + self.predicted
        return 2 * sum(self.ious) / total if total else float("nan")

    @property
    def precision(self) -> float:
        """Mean over `OBJECT_IOUS` of TP / (TP + FP + FN); NaN without any object."""
        total = self.true + self.predicted
        if not total:
            return float("nan")
        hits = [self.found(threshold) for threshold in OBJECT_IOUS]
        return float(np.mean([found / (total - found) for found in hits]))


@dataclass(frozen=True)
class ImageScore:
    """One image's scores.

    Attributes:
        dice: label -> Dice, for every class of the label space.
        shared: label -> pixels of the part of the class that it shares with others, predicted and
            true; only classes that share a pixel in either. Overlaps that are drawn too small, too
            large or elsewhere all lose here (the idea of RAM-H1200's DSC-O).
        counts: label -> pixels, for every class; empty where Dice comes from elsewhere: then
            nobody knows which classes overlap.
        measures: name -> label -> value, such as those of `fusion.metrics.surface`; only what was
            asked.
        pairs: two classes whose truth shares a pixel -> `dice` and `nsd` of what they share.
        confusion: true class, predicted class -> pixels: see `overlaps.count_confusion`.
        doubled: classes predicted in more places than they have.
        objects: label -> how its objects were found, of the classes that have any; see
            `fusion.metrics.objects`.
        patient: whose image it is; "" where nobody knows.
        posture: `straight` or `bent`; "" where that is not known.
    """

    key: str
    dice: Mapping[str, float]
    shared: Mapping[str, Counts]
    counts: Mapping[str, Counts] = field(default_factory=dict)
    measures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pairs: Mapping[Pair, Mapping[str, float]] = field(default_factory=dict)
    confusion: Mapping[Pair, tuple[int, int]] = field(default_factory=dict)
    doubled: tuple[str, ...] = ()
    objects: Mapping[str, ObjectMatches] = field(default_factory=dict)
    patient: str = ""
    posture: str = ""

    @property
    def shared_dice(self) -> dict[str, float]:
        """Dice of the shared part of each class whose truth shares a pixel, by chance or not."""
        return {name: counts.dice for name, counts in self.shared.items() if counts.true}

    def overlaps(self, name: str) -> bool:
        """Tell whether other classes share at least `LEAST_SHARE` of a class's true area."""
        if name not in self.shared or name not in self.counts:
            return False
        return self.shared[name].true >= max(1, LEAST_SHARE * self.counts[name].true)

    @property
    def missing(self) -> tuple[str, ...]:
        """Classes that have truth but no predicted pixel."""
        return tuple(n for n, c in self.counts.items() if c.true and not c.predicted)

    @property
    def extra(self) -> tuple[str, ...]:
        """Classes that have predicted pixels but no truth."""
        return tuple(n for n, c in self.counts.items() if c.predicted and not c.true)

    @property
    def absent(self) -> frozenset[str]:
        """Classes that have neither truth nor predicted pixels."""
        return frozenset(n for n, c in self.counts.items() if not c.true and not c.predicted)

    def pq(self, names: Sequence[str] | None = None) -> float | None:
        """Return the mean panoptic quality of the classes that have objects here.

        Args:
            names: of these classes only.

        Returns:
            0 to 1; None where no objects are, or were measured.
        """
        return mean_pq(self.objects, names)


def mean_pq(
    objects: Mapping[str, ObjectMatches], names: Sequence[str] | None = None
) -> float | None:
    """Return the mean panoptic quality of classes with objects, 0 to 1; None where there are none.

    Args:
        objects: class -> how its objects were found on an image.
        names: of these classes only.
    """
    each = [found.pq for name, found in objects.items() if names is None or name in names]
    return float(np.mean(each)) if each else None


def score_image(
    key: str,
    predicted: Mapping[str, CropMask],
    truth: Mapping[str, CropMask],
    labels: LabelSpace,
) -> ImageScore:
    """Score one image's masks; a label that is absent from a mapping is an empty mask."""
    found = {n: m for n, m in predicted.items() if m.area}
    real = {n: m for n, m in truth.items() if m.area}
    counts = {n: count(found.get(n, EMPTY), real.get(n, EMPTY)) for n in labels.names}
    found_shared, real_shared = shared_parts(found), shared_parts(real)
    shared = {
        n: count(found_shared.get(n, EMPTY), real_shared.get(n, EMPTY))
        for n in labels.names
        if n in found_shared or n in real_shared
    }
    shared = {n: c for n, c in shared.items() if c.predicted or c.true}
    return ImageScore(key, {n: c.dice for n, c in counts.items()}, shared, counts)


@dataclass(frozen=True)
class Scores:
    """The scores of a data set: the competition's mean, and what lies behind it.

    Attributes:
        labels: the classes.
        images: one entry an image.
    """

    labels: LabelSpace
    images: Sequence[ImageScore]

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("scores: expected at least one image with truth, found none")

    def per_class(self) -> dict[str, float]:
        """Mean Dice of each class over the images."""
        return {n: float(np.mean([i.dice[n] for i in self.images])) for n in self.labels.names}

    def mean(self, names: Sequence[str] | None = None) -> float:
        """Mean over images, then over classes (all, or the given ones)."""
        per_class = self.per_class()
        return float(np.mean([per_class[n] for n in names or self.labels.names]))

    def per_group(self) -> dict[str, float]:
        """Mean Dice of each of the label space's groups."""
        return {group: self.mean(names) for group, names in self.labels.groups.items()}

    def pq(self, names: Sequence[str] | None = None) -> float | None:
        """Panoptic quality of all images together, the mean over classes with objects.

        Objects are there where they were measured: `fusion.score(..., "objects")`.

        Args:
            names: of these classes only.

        Returns:
            0 to 1; None where no objects were measured.
        """
        each: list[float] = []
        for name in names or self.labels.names:
            found = [image.objects[name] for image in self.images if name in image.objects]
            if total := sum(own.true + own.predicted for own in found):
                each.append(2 * sum(sum(own.ious) for own in found) / total)
        return float(np.mean(each)) if each else None

    @cached_property
    def overlapping(self) -> tuple[str, ...]:
        """The classes of which shared pixels are reported: those whose truth does overlap.

        They share at least `LEAST_SHARE` of their true area with others in at least `LEAST_IMAGES`
        of the images where they occur.
        """
        return tuple(name for name in self.labels.names if self._does_overlap(name))

    def _does_overlap(self, name: str) -> bool:
        occurs = [i for i in self.images if name in i.counts and i.counts[name].true]
        return bool(occurs) and (
            sum(image.overlaps(name) for image in occurs) >= LEAST_IMAGES * len(occurs)
        )

    def shared_per_class(self) -> dict[str, float]:
        """Mean Dice of each overlapping class's shared part, over the images where it overlaps.

        What is predicted as shared where the truth shares next to nothing counts in
        `shared_pooled` alone.
        """
        return {
            name: float(np.mean([i.shared[name].dice for i in self.images if i.overlaps(name)]))
            for name in self.overlapping
        }

    def shared(self) -> float | None:
        """Mean of `shared_per_class`; None where no class overlaps."""
        per_class = self.shared_per_class()
        return float(np.mean(list(per_class.values()))) if per_class else None

    def shared_pooled(self, names: Sequence[str] | None = None) -> float | None:
        """Dice of shared pixels over the overlapping classes and all images together.

        The pixels of the shared parts, predicted, true and both, are summed before they are
        divided: large overlaps count more, and none is left out. A pixel counts once for each of
        the classes that share it, and is right for those alone that are there.

        Args:
            names: of these classes only.

        Returns:
            0 to 1; None where none of the classes overlaps.
        """
        wanted = [n for n in self.overlapping if names is None or n in names]
        found = [i.shared[n] for i in self.images for n in wanted if n in i.shared]
        return Counts(*np.sum(found, axis=0).tolist()).dice if found else None

    def record(self) -> dict[str, Any]:
        """Return all of it as plain values for JSON."""
        return {
            "images": len(self.images),
            "dice": self.mean(),
            "dice_per_group": self.per_group(),
            "dice_shared": self.shared(),
            "dice_shared_pooled": self.shared_pooled(),
            "overlapping": {
                "least_share_of_area": LEAST_SHARE,
                "least_share_of_images": LEAST_IMAGES,
                "classes": list(self.overlapping),
            },
            "dice_per_class": self.per_class(),
            "dice_shared_per_class": self.shared_per_class(),
            "dice_per_image": {i.key: float(np.mean(list(i.dice.values()))) for i in self.images},
        }

"""From the scores of images to means with intervals: of all, of groups, postures and classes.

What is averaged: images first, then classes, as the competition does. Shared pixels are those of
the classes that do overlap (`Scores.overlapping`). Where a class is absent from the truth and the
prediction, Dice, IoU and surface Dice are 1, as the competition counts (`count_absent` says how
often), and there is no distance. Where it is absent from one of them they are 0, and the distance
is infinite; such distances are left out of the means and counted (`Summary.infinite`): a missing
object has no distance, and its Dice says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusion.arrays import Floats
from fusion.metrics.intervals import Estimate, means_over_people, ratios_over_people
from fusion.metrics.scores import (
    LEAST_IMAGES,
    LEAST_SHARE,
    Counts,
    ImageScore,
    ObjectMatches,
    Pair,
    Scores,
)

POSTURES = ("straight", "bent")
POOLED = "shared_pooled"
SHARED_MEASURES = {"shared": "shared pixels", POOLED: "shared, pooled"}
"""Measures of the pixels that classes share -> how tables call them."""
DISTANCES = ("hd95", "asd")
"""Measures that only a class with an outline has."""
QUALITIES = {"pq": "PQ", "sq": "SQ", "rq": "RQ = F1", "dsb": "DSB 2018"}
"""Measures of objects, see `fusion.metrics.objects` -> how tables call them."""


@dataclass(frozen=True)
class Summary:
    """A measure's means.

    Attributes:
        overall: of all classes; None where no image has a value.
        groups: of the label space's groups that have values.
        postures: of all classes, over the images of each of POSTURES.
        classes: of the classes that have values.
        infinite: how many values were infinite, and left out.
    """

    overall: Estimate | None
    groups: Mapping[str, Estimate]
    postures: Mapping[str, Estimate]
    classes: Mapping[str, Estimate]
    infinite: int = 0

    def record(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""

        def each(found: Mapping[str, Estimate]) -> dict[str, Any]:
            return {name: estimate.record() for name, estimate in found.items()}

        return {
            "overall": self.overall.record() if self.overall else None,
            "groups": each(self.groups),
            "postures": each(self.postures),
            "classes": each(self.classes),
            "infinite": self.infinite,
        }


def people_of(scores: Scores) -> list[str]:
    """Return whose images they are; an image of an unknown patient is one of its own."""
    return [image.patient or image.key for image in scores.images]


def count_people(scores: Scores) -> str:
    """Return in words how many images there are, and of how many patients where any is known."""
    count = len(scores.images)
    images = f"{count} image{'s' * (count != 1)}"
    if not any(image.patient for image in scores.images):
        return images
    people = len(set(people_of(scores)))
    return f"{images} of {people} patient{'s' * (people != 1)}"


def values_of(scores: Scores, measure: str) -> Floats:
    """Return a measure of every image and class, float64 (n, C); NaN where it is not defined.

    Args:
        scores: of the images.
        measure: `dice`, `iou`, `shared` (Dice of shared pixels, of the classes that overlap, where
            they do), or one of `ImageScore.measures`.

    Raises:
        ValueError: the images were not measured by it.
    """
    names = scores.labels.names
    if all(measure not in image.measures for image in scores.images) and measure not in _KNOWN:
        found = sorted({*_KNOWN, *scores.images[0].measures})
        raise ValueError(f"measure '{measure}': expected one of {found}; ask for it first")
    if measure == "shared":
        rows = [
            {n: image.shared[n].dice for n in scores.overlapping if image.overlaps(n)}
            for image in scores.images
        ]
    else:
        rows = [dict(_row(image, measure)) for image in scores.images]
    return np.array([[row.get(n, np.nan) for n in names] for row in rows], np.float64)


_KNOWN = ("dice", "iou", "shared")


def _row(image: ImageScore, measure: str) -> Mapping[str, float]:
    if measure == "iou":
        return {name: dice / (2 - dice) for name, dice in image.dice.items()}
    if measure not in DISTANCES:
        return image.dice if measure == "dice" else image.measures.get(measure, {})
    # A distance of 0 without any outline would hide, in the mean, that nothing was ever found.
    values, absent = image.measures.get(measure, {}), image.absent
    return {name: value for name, value in values.items() if name not in absent}


@dataclass(frozen=True)
class Absent:
    """Pairs of an image and a class where nothing is there and nothing was found: Dice counts 1.

    Attributes:
        pairs: how many there are.
        of: of how many.
        others: mean Dice of the others, over images, then over classes; None where there are none.
    """

    pairs: int
    of: int
    others: float | None

    def record(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {"pairs": self.pairs, "of": self.of, "dice_of_others": self.others}


def count_absent(scores: Scores) -> Absent:
    """Count how often Dice is 1 because a class is neither there nor found."""
    dice = values_of(scores, "dice")
    gone = (image.absent for image in scores.images)
    absent = np.array([[n in own for n in scores.labels.names] for own in gone])
    each = [own[~no].mean() for own, no in zip(dice.T, absent.T, strict=True) if not no.all()]
    return Absent(int(absent.sum()), absent.size, float(np.mean(each)) if each else None)


def pair_values(scores: Scores, measure: str) -> tuple[list[Pair], Floats]:
    """Return the pairs of classes that share pixels, and a measure of each, float64 (n, pairs).

    Args:
        scores: measured with `overlap`.
        measure: `dice` or `nsd`; NaN where the pair shares nothing in that image.
    """
    index = scores.labels.index
    known = {pair for image in scores.images for pair in image.pairs}
    pairs = sorted(known, key=lambda pair: (index[pair[0]], index[pair[1]]))
    rows = [
        [image.pairs[pair][measure] if pair in image.pairs else np.nan for pair in pairs]
        for image in scores.images
    ]
    return pairs, np.array(rows, np.float64).reshape(len(rows), len(pairs))


def summarize(scores: Scores, measure: str) -> Summary:
    """Average a measure over images, then over classes.

    Args:
        scores: of the images.
        measure: see `values_of`; or `POOLED`: what `Scores.shared_pooled` says, which is no mean.
    """
    if measure == POOLED:
        return _summarize_pooled(scores)
    return _summarize(values_of(scores, measure), scores)


def shared_figures(scores: Scores) -> dict[str, float]:
    """Return what each of `SHARED_MEASURES` says of all classes; empty where none overlaps."""
    found = {"shared": scores.shared(), POOLED: scores.shared_pooled()}
    return {name: value for name, value in found.items() if value is not None}


def describe_overlapping(scores: Scores) -> str:
    """Say which classes the figures of shared pixels are of."""
    rule = (
        f"at least {LEAST_SHARE:.0%} of the true area lies under others too, in at least "
        f"{LEAST_IMAGES:.0%} of the images with the class"
    )
    names = scores.overlapping
    listed = f"{len(names)} of {len(scores.labels)} classes: {', '.join(names)}"
    return f"shared pixels: of {listed if names else 'no class'} ({rule})"


def summarize_pairs(scores: Scores, measure: str) -> tuple[Estimate | None, dict[Pair, Estimate]]:
    """Average a measure of shared pixels (see `pair_values`) over images, then over pairs."""
    pairs, values = pair_values(scores, measure)
    if not pairs:
        return None, {}
    columns = [[i] for i in range(len(pairs))]
    overall, *each = means_over_people(values, people_of(scores), [range(len(pairs)), *columns])
    return overall, {pair: found for pair, found in zip(pairs, each, strict=True) if found}


@dataclass(frozen=True)
class ObjectSummary:
    """How the objects of a class were found in all images; see `fusion.metrics.objects`.

    Attributes:
        true: number of true objects.
        predicted: number of predicted ones.
        matched: number of those that were found.
        pq: panoptic quality.
        sq: segmentation quality; None where none was found.
        rq: recognition quality.
        dsb: the Data Science Bowl's precision.
    """

    true: int
    predicted: int
    matched: int
    pq: Estimate | None
    sq: Estimate | None
    rq: Estimate | None
    dsb: Estimate | None

    def record(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        estimates = {name: getattr(self, name) for name in QUALITIES}
        counts = {"true": self.true, "predicted": self.predicted, "matched": self.matched}
        return counts | {n: found.record() if found else None for n, found in estimates.items()}


def has_several(scores: Scores) -> bool:
    """Tell whether an image has several true objects of one class."""
    return any(found.true > 1 for image in scores.images for found in image.objects.values())


def summarize_objects(
    scores: Scores, classes: Collection[str] | None = None
) -> dict[str, ObjectSummary]:
    """Return how the objects of classes were found, in all images together.

    Args:
        scores: of the images.
        classes: whose objects; None is all that have any.
    """
    names = {name for image in scores.images for name in image.objects}
    names = names if classes is None else set(classes)
    found = ((name, _summarize_objects(scores, name)) for name in scores.labels.names)
    return {name: summary for name, summary in found if name in names}


def compare_objects(new: Scores, old: Scores) -> dict[str, dict[str, Estimate | None]]:
    """Return the differences new - old of `pq`, `sq`, `rq` and `dsb` of each class with objects.

    Args:
        new: the ones.
        old: the others, of the same images and classes.
    """
    place = {image.key: i for i, image in enumerate(old.images)}
    ordered = Scores(old.labels, [old.images[place[image.key]] for image in new.images])
    names = {name for scores in (new, old) for image in scores.images for name in image.objects}
    return {n: _object_estimates(n, new, ordered) for n in new.labels.names if n in names}


def _matches(scores: Scores, name: str) -> list[ObjectMatches]:
    none = ObjectMatches(0, 0, ())
    return [image.objects.get(name, none) for image in scores.images]


def _object_estimates(
    name: str, scores: Scores, less: Scores | None = None
) -> dict[str, Estimate | None]:
    """The qualities of a class's objects; minus those of other scores of the same images."""
    people = people_of(scores)
    parts: dict[str, list[tuple[Floats, Floats]]] = {"pq": [], "sq": [], "rq": []}
    precisions = []
    for own in (scores, less) if less else (scores,):
        matches = _matches(own, name)
        rows = [(m.true + m.predicted, len(m.ious), sum(m.ious)) for m in matches]
        total, hits, ious = np.array(rows, np.float64).T[..., None]
        parts["pq"].append((ious, total / 2))
        parts["sq"].append((ious, hits))
        parts["rq"].append((hits, total / 2))
        precisions.append(np.array([[m.precision] for m in matches]))
    found = {n: ratios_over_people(pairs, people, [[0]])[0] for n, pairs in parts.items()}
    precision = precisions[0] - precisions[1] if less else precisions[0]
    return found | {"dsb": means_over_people(precision, people, [[0]])[0]}


def _summarize_objects(scores: Scores, name: str) -> ObjectSummary:
    matches = _matches(scores, name)
    return ObjectSummary(
        sum(m.true for m in matches),
        sum(m.predicted for m in matches),
        sum(len(m.ious) for m in matches),
        **_object_estimates(name, scores),
    )


def compare(new: Scores, old: Scores, measure: str) -> Summary:
    """Average the differences new - old of a measure of the same images, as `summarize` does.

    Images and classes where either has no (finite) value are left out.

    Raises:
        ValueError: the scores are of other images or classes.
    """
    if new.labels.names != old.labels.names:
        raise ValueError("comparison: expected scores of the same classes, found others")
    ours, theirs = [i.key for i in new.images], [i.key for i in old.images]
    if differ := sorted(set(ours) ^ set(theirs)):
        what = f"'{differ[0]}' is in one of them only"
        raise ValueError(f"comparison: expected scores of the same images; {what}")
    place = {key: i for i, key in enumerate(theirs)}
    if measure == POOLED:
        ordered = [old.images[place[key]] for key in ours]
        return _summarize_pooled(new, Scores(old.labels, ordered))
    before = values_of(old, measure)[[place[key] for key in ours]]
    after = values_of(new, measure)
    # Infinite minus infinite is no difference.
    infinite = np.isinf(before) | np.isinf(after)
    with np.errstate(invalid="ignore"):
        return _summarize(np.where(infinite, np.inf, after - before), new)


def _summarize(values: Floats, scores: Scores) -> Summary:
    labels, people = scores.labels, people_of(scores)
    infinite = np.isinf(values)
    values = np.where(infinite, np.nan, values)
    groups = {g: [labels.index[n] for n in names] for g, names in labels.groups.items()}
    everything = range(len(labels))
    asked = [everything, *groups.values(), *([i] for i in everything)]
    overall, *rest = means_over_people(values, people, asked)
    return Summary(
        overall,
        {group: found for group, found in zip(groups, rest, strict=False) if found},
        _by_posture(values, scores),
        {n: found for n, found in zip(labels.names, rest[len(groups) :], strict=True) if found},
        int(infinite.sum()),
    )


def _summarize_pooled(scores: Scores, less: Scores | None = None) -> Summary:
    """Shared pixels summed over images; minus those of other scores of the same images."""
    labels, people, names = scores.labels, people_of(scores), scores.overlapping
    if not names:
        return Summary(None, {}, {}, {})
    column = {name: i for i, name in enumerate(names)}
    groups = {g: [column[n] for n in of if n in column] for g, of in labels.groups.items()}
    groups = {g: columns for g, columns in groups.items() if columns}
    everything = range(len(names))
    parts = [_shared_pixels(found, names) for found in (scores, less) if found]
    asked = [everything, *groups.values(), *([i] for i in everything)]
    overall, *rest = ratios_over_people(parts, people, asked)
    postures = {}
    for posture in POSTURES:
        rows = [i for i, image in enumerate(scores.images) if image.posture == posture]
        if rows:
            few = [(hits[rows], totals[rows]) for hits, totals in parts]
            (postures[posture],) = ratios_over_people(few, [people[i] for i in rows], [everything])
    return Summary(
        overall,
        {group: found for group, found in zip(groups, rest, strict=False) if found},
        {posture: found for posture, found in postures.items() if found},
        {n: found for n, found in zip(names, rest[len(groups) :], strict=True) if found},
    )


def _shared_pixels(scores: Scores, names: Sequence[str]) -> tuple[Floats, Floats]:
    """Twice the pixels shared in both, and those in either, float64 (images, classes) each."""
    none = Counts(0, 0, 0)
    found = np.array([[i.shared.get(n, none) for n in names] for i in scores.images], np.float64)
    return 2 * found[..., 0], found[..., 1] + found[..., 2]


def _by_posture(values: Floats, scores: Scores) -> dict[str, Estimate]:
    people = people_of(scores)
    found = {}
    for posture in POSTURES:
        rows = [i for i, image in enumerate(scores.images) if image.posture == posture]
        if rows:
            chosen = [people[i] for i in rows]
            (mean,) = means_over_people(values[rows], chosen, [range(values.shape[1])])
            if mean:
                found[posture] = mean
    return found


def pooled_iou(scores: Scores) -> dict[str, float]:
    """Return the IoU of each class over the pixels of all images together.

    The mean of these is the mIoU of PASCAL VOC (Everingham et al. 2010): an image in which a class
    is absent does not count for it. Classes that are nowhere, true or predicted, are left out.

    Raises:
        ValueError: the scores do not count pixels.
    """
    if any(not image.counts for image in scores.images):
        raise ValueError("mIoU: expected images with counted pixels, found scores alone")
    pooled = {}
    for name in scores.labels.names:
        both, predicted, true = np.sum([i.counts[name] for i in scores.images], axis=0).tolist()
        if union := predicted + true - both:
            pooled[name] = both / union
    return pooled


def confusion_of(scores: Scores) -> dict[Pair, tuple[int, int]]:
    """Return the pixels of each true class predicted as another, of all images, most first."""
    total: Counter[Pair] = Counter()
    right: Counter[Pair] = Counter()
    for image in scores.images:
        for pair, (pixels, both_right) in image.confusion.items():
            total[pair] += pixels
            right[pair] += both_right
    return {pair: (pixels, right[pair]) for pair, pixels in total.most_common()}


def presence_of(scores: Scores) -> dict[str, list[tuple[str, str]]]:
    """Return `missing`, `extra` and `doubled` classes, each as (image, class)."""

    def listed(field: str) -> list[tuple[str, str]]:
        return [(i.key, name) for i in scores.images for name in getattr(i, field)]

    return {field: listed(field) for field in ("missing", "extra", "doubled")}

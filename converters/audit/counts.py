"""Structures that are not annotated, or more than once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from converters.audit.arrangement import Arrangement
from converters.audit.findings import Finding
from converters.audit.look import SAME, Look
from converters.audit.structures import Structure
from converters.files.names import alike_names, tell_alike
from converters.masks import enclose
from converters.types import Sample

# Labels that fewer images have may be left out on purpose, as where only some are annotated.
_EXPECTED = 0.5
# A folder of which so many images are annotated should have no other ones.
_ANNOTATED = 0.9
_MANY = 10
# Two polygons belong together where they are nearer than this share of the structure's width.
_NEAR = 0.25
# Of the structure's usual area: below the first a click, below the second something small beside
# it that has no label; above the third two structures at once.
_CLICK, _SMALL, _TWO = 0.015, 0.12, 1.5
_TOUCHING_PX = 1.0
# Intersection over union of two objects of a class that are one, where there may be several.
_THE_SAME = 0.8
# What `Arrangement.misfit` is of a structure that is in its place.
_IN_PLACE = 2.0


def expected_labels(looks: Sequence[Look], names: Sequence[str]) -> list[str]:
    """Return the labels that most of the annotated images have."""
    annotated = [one for one in looks if one.structures]
    counts = Counter(label for one in annotated for label in one.structures)
    return [name for name in names if annotated and counts[name] >= _EXPECTED * len(annotated)]


def find_missing(
    looks: Sequence[Look], labels: Sequence[str], broken: Collection[str]
) -> Iterator[Finding]:
    """Yield structures that are not annotated; crops, and images with broken files, are left out.

    An image without any annotation is reported where nearly all others of its subset have some.

    Args:
        looks: all of them.
        labels: the expected ones.
        broken: keys of images of which not all could be read.
    """
    whole = [one for one in looks if not one.is_crop and one.key not in broken]
    annotated = _annotated_subsets(whole)
    for one in whole:
        if not one.structures and _subset(one) in annotated:
            yield Finding("missing", one.key, "expected annotations, found none", 1.0)
        lacking = (
            [label for label in labels if label not in one.structures] if one.structures else []
        )
        boxes = [structure.box_xywh for structure in one.structures.values()]
        for label in lacking:
            what = f"{label}: expected once in every image, found none"
            yield Finding("missing", one.key, what, 1.0, (label,), enclose(boxes))


def _subset(one: Look) -> str:
    return PurePosixPath(one.key).parts[0]


def _annotated_subsets(looks: Sequence[Look]) -> set[str]:
    total = Counter(map(_subset, looks))
    some = Counter(_subset(one) for one in looks if one.structures)
    return {s for s, n in total.items() if n >= _MANY and some[s] >= _ANNOTATED * n}


def find_alike(samples: Sequence[Sample]) -> Iterator[Finding]:
    """Yield classes that are called as a more frequent one, but for case or separators."""
    uses = Counter(label for sample in samples for label in sample.labels)
    for name, usual in alike_names(uses):
        first = next(sample for sample in samples if name in sample.labels)
        what = f"{tell_alike(name, usual)}; found {uses[name]} objects and {uses[usual]}"
        yield Finding("alike", first.key, what, 0.9, (name, usual))


# --- more than once


def find_same_objects(one: Look) -> Iterator[Finding]:
    """Yield objects that are annotated twice, where a class may occur several times in an image."""
    for (label, i, j), iou in one.overlaps.items():
        part = one.parts[label][j]
        if iou >= _THE_SAME and part is not None:
            what = (
                f"{label}: expected objects {i + 1} and {j + 1} to be two, found them at one place "
                f"({100 * iou:.0f} % of their pixels are of both)"
            )
            yield Finding("double", one.key, what, iou, (label,), part.box_xywh)


def find_double(
    one: Look, number: int | None, arrangement: Arrangement | None, usual_px: Mapping[str, float]
) -> Iterator[Finding]:
    """Yield polygons of one image that its structures have too many.

    Args:
        one: the image.
        number: of the image in the arrangement, if it is in it.
        arrangement: of all images, where there are enough.
        usual_px: label -> area in this image's pixels that the structure usually has.
    """
    for label, parts in one.parts.items():
        real = {i: part for i, part in enumerate(parts) if part is not None}
        if len(real) < 2:
            continue
        area_px = usual_px.get(label) or float(max(part.area_px for part in real.values()))
        places = _Places(one, number, arrangement)
        for i, reason in _surplus(one, label, real, area_px, places):
            yield _report(one, label, i, real[i], real[i].area_px / area_px, reason, places)


class _Places:
    """Whether a polygon is where a label's structure belongs; unknown without enough images."""

    def __init__(self, one: Look, number: int | None, arrangement: Arrangement | None) -> None:
        self._number, self._arrangement = number, arrangement
        known = arrangement.images.labels if arrangement is not None else ()
        self._index = {label: k for k, label in enumerate(known)}
        self.lacking = [label for label in known if label not in one.structures]

    def misfit(self, label: str, structure: Structure, doubtful: str = "") -> float | None:
        if self._arrangement is None or self._number is None or label not in self._index:
            return None
        others = [self._index[doubtful]] if doubtful in self._index else []
        return self._arrangement.misfit(self._number, self._index[label], structure, others)

    def better(self, label: str, structure: Structure) -> str | None:
        """The missing label whose place a label's polygon takes, if there is one."""
        misfits = [(self.misfit(name, structure, label), name) for name in self.lacking]
        fits = [(misfit, name) for misfit, name in misfits if misfit is not None]
        best = min(fits, default=None)
        return best[1] if best and best[0] <= _IN_PLACE else None


def _surplus(
    one: Look, label: str, parts: Mapping[int, Structure], area_px: float, places: _Places
) -> Iterator[tuple[int, str]]:
    """Numbers of the polygons that are too many, and why."""
    keep = min(parts, key=lambda i: _rank(label, parts[i], area_px, places))
    cluster = _cluster(one, label, parts, keep, area_px)
    is_two = sum(parts[i].area_px for i in cluster) > _TWO * area_px
    for i in parts:
        pair = (label, min(i, keep), max(i, keep))
        is_small = parts[i].area_px < _SMALL * area_px
        is_other = not is_small and places.better(label, parts[i]) is not None
        is_apart = all(_gap(one, label, i, j) > _TOUCHING_PX for j in parts if j != i)
        if i == keep:
            continue
        if one.overlaps[pair] >= SAME:
            yield i, "twice at nearly the same place"
        elif (label, i) in one.shadows:
            yield i, f"around {one.shadows[label, i]}"
        elif i not in cluster:
            yield i, "apart from it"
        elif is_other or (is_apart if is_small else is_two):
            yield i, "beside it"


def _gap(one: Look, label: str, i: int, j: int) -> float:
    return one.gaps[label, min(i, j), max(i, j)]


def _rank(label: str, part: Structure, area_px: float, places: _Places) -> float:
    """Orders polygons by how much they are the structure: by place if known, else by area."""
    misfit = places.misfit(label, part)
    share = min(part.area_px / area_px, area_px / part.area_px)
    return misfit if misfit is not None else -share


def _cluster(
    one: Look, label: str, parts: Mapping[int, Structure], keep: int, area_px: float
) -> set[int]:
    """The polygons that hang together with one of them."""
    near_px = _NEAR * area_px**0.5
    cluster, grown = {keep}, True
    while grown:
        left = [i for i in parts if i not in cluster]
        more = {i for i in left if any(_gap(one, label, i, j) <= near_px for j in cluster)}
        cluster, grown = cluster | more, bool(more)
    return cluster


def _report(
    one: Look,
    label: str,
    part: int,
    structure: Structure,
    share: float,
    reason: str,
    places: _Places,
) -> Finding:
    place = {"key": one.key, "label": label, "part": part}
    what = f"{label}: expected one outline, found a further one {reason}"
    box = structure.box_xywh
    if share < _CLICK:
        what = f"{label}: expected one outline, found a further one of {structure.area_px} px"
        drop = {"drop": {**place, "why": what}}
        return Finding("tiny", one.key, what, 0.95, (label,), box, edit=drop)
    if (better := places.better(label, structure)) is not None:
        what = f"{what}, where {better} is missing"
        edit = {"relabel": {**place, "to": better, "why": what}}
        return Finding("double", one.key, what, 1.0, (label, better), box, edit=edit)
    if share < _SMALL and (label, part) not in one.shadows:
        what = f"{label}: expected one outline, found a small one {reason}, perhaps without a label"
        return Finding("outlier", one.key, what, 0.8, (label,), box)
    drop = {"drop": {**place, "why": what}}
    return Finding("double", one.key, what, 1.0, (label,), box, edit=drop)

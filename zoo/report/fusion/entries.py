"""What a report compares and shows: entries, cases, and which images are worth a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from converters.masks import CropMask
from converters.types import LabelSpace, Sample
from fusion.metrics.scores import ImageScore, Scores
from fusion.metrics.summary import has_several

EntryKind = Literal["source", "rule"]


@dataclass(frozen=True)
class ReportEntry:
    """One row of the report: a source or a fusion rule, and its scores.

    Attributes:
        name: as the tables say it; unique in a report.
        kind: `source` (one model) or `rule` (a fusion of them).
        scores: of the same images for all entries of a report.
        note: what it is, in a few words.

    Raises:
        ValueError: another kind.
    """

    name: str
    kind: EntryKind
    scores: Scores
    note: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(EntryKind):
            raise ValueError(f"{self.name}: expected kind source or rule, found '{self.kind}'")


@dataclass(frozen=True)
class ReportCase:
    """One image that the report shows, with what the entries drew on it.

    Attributes:
        title: such as `Worst image`.
        key: the sample's key.
        note: why it is shown, in a few words.
        sample: the image and its truth.
        masks: entry name -> label -> mask; an entry without masks here has no picture, a label
            without a mask is empty.
        group: the label group to look at closely. None takes the group whose classes overlap
            most on this image, and all classes where none do.
    """

    title: str
    key: str
    note: str
    sample: Sample
    masks: Mapping[str, Mapping[str, CropMask]]
    group: str | None = None


def worst_and_median(scores: Scores, group: str | None) -> tuple[str, str]:
    """Return the keys of the worst and the median image by what a group's classes are worth there.

    Where an image has several objects of a class, that is their panoptic quality, else the mean
    Dice. The median is the upper one of an even number, so that two images give two keys.

    Args:
        scores: of the images to choose from.
        group: a group of the label space; None means all classes.

    Raises:
        ValueError: the label space has no such group.
    """
    names = group_names(scores.labels, group)
    by_objects = has_several(scores)

    def worth(image: ImageScore) -> tuple[float, float, str]:
        pq = image.pq(names) if by_objects else None
        return 1.0 if pq is None else pq, mean_dice(image, names), image.key

    ranked = sorted(scores.images, key=worth)
    return ranked[0].key, ranked[len(ranked) // 2].key


def mean_dice(image: ImageScore, names: Sequence[str]) -> float:
    """Return the mean Dice of some classes on one image."""
    return float(np.mean([image.dice[name] for name in names]))


def group_names(labels: LabelSpace, group: str | None) -> tuple[str, ...]:
    """Return the classes of a group; None means all.

    Raises:
        ValueError: the label space has no such group.
    """
    if group is None:
        return labels.names
    if group not in labels.groups:
        known = ", ".join(labels.groups) or "none"
        raise ValueError(f"label space '{labels.name}': expected a group of {known}: '{group}'")
    return labels.groups[group]


def check_entries(entries: Sequence[ReportEntry], labels: LabelSpace) -> None:
    """Make sure that entries can stand in one table.

    Raises:
        ValueError: none, a name that comes twice, other classes, or other images.
    """
    if not entries:
        raise ValueError("report: expected at least one entry, found none")
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"report: expected different names of the entries, twice: {twice}")
    first = _keys(entries[0])
    for entry in entries:
        if entry.scores.labels.names != labels.names:
            raise ValueError(f"report: '{entry.name}' is not scored on '{labels.name}' classes")
        if differ := sorted(first ^ _keys(entry)):
            raise ValueError(
                f"report: expected scores of the same images, found '{differ[0]}' in only one of "
                f"'{entries[0].name}' and '{entry.name}'"
            )


def _keys(entry: ReportEntry) -> set[str]:
    return {image.key for image in entry.scores.images}


def check_case(case: ReportCase, entries: Sequence[ReportEntry]) -> None:
    """Make sure that a case's pictures belong to entries.

    Raises:
        ValueError: masks of something that is no entry.
    """
    if unknown := sorted(set(case.masks) - {entry.name for entry in entries}):
        raise ValueError(f"case '{case.key}': expected masks of entries, found {unknown}")

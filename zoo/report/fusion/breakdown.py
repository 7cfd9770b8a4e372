"""Scores looked at more closely: by posture, as distributions, and which classes are mixed up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from converters.types import LabelSpace
from fusion.metrics.scores import Scores
from fusion.metrics.summary import POSTURES, Summary, compare, confusion_of
from zoo.report import intervals, plots
from zoo.report.fusion.entries import ReportEntry
from zoo.report.fusion.tables import Cell, cells_of
from zoo.report.intervals import Mark

PAIRS = 15


@dataclass(frozen=True)
class PostureRow:
    """One entry: a cell a posture and column."""

    entry: ReportEntry
    cells: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class PostureTable:
    """Scores of each posture.

    Attributes:
        postures: name and number of images, of those that occur.
        columns: all classes and each group.
        rows: the entries.
        gains: posture -> the subject minus the best source.
    """

    postures: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    rows: tuple[PostureRow, ...]
    gains: tuple[Mark | None, ...]


def posture_table(
    entries: Sequence[ReportEntry],
    labels: LabelSpace,
    subject: ReportEntry | None,
    source: ReportEntry | None,
) -> PostureTable | None:
    """Return the scores by posture; None where fewer than two postures are known."""
    found = [(p, [_images_of(entry, p) for entry in entries]) for p in POSTURES]
    found = [(posture, scores) for posture, scores in found if all(scores)]
    if len(found) < 2:
        return None
    kinds = [entry.kind for entry in entries]
    groups: list[Sequence[str] | None] = [None, *labels.groups.values()]
    by_posture = []
    for _, scores in found:
        columns = [cells_of([s.mean(names) for s in scores if s], kinds) for names in groups]
        by_posture.append(list(zip(*columns, strict=True)))
    rows = tuple(
        PostureRow(entry, tuple(tuple(cells[i]) for cells in by_posture))
        for i, entry in enumerate(entries)
    )
    gain = compare(subject.scores, source.scores, "dice") if subject and source else None
    return PostureTable(
        tuple((posture, len(scores[0].images)) for posture, scores in found if scores[0]),
        ("all", *labels.groups),
        rows,
        _gains(gain, [posture for posture, _ in found]),
    )


def _gains(gain: Summary | None, postures: Sequence[str]) -> tuple[Mark | None, ...]:
    found = [gain.postures.get(posture) if gain else None for posture in postures]
    reach = intervals.reach_of(found)
    return tuple(intervals.mark(estimate, reach) for estimate in found)


def _images_of(entry: ReportEntry, posture: str) -> Scores | None:
    images = [image for image in entry.scores.images if image.posture == posture]
    return Scores(entry.scores.labels, images) if images else None


def distribution(subject: ReportEntry, source: ReportEntry | None) -> Markup:
    """Draw every class's Dice over the images: the subject's box, and the best source's below."""
    shown = [subject, *([source] if source and source.name != subject.name else [])]
    names = subject.scores.labels.names
    rows = {n: [[i.dice[n] for i in entry.scores.images] for entry in shown] for n in names}
    return plots.plot_boxes(rows, [entry.name for entry in shown])


@dataclass(frozen=True)
class Mixed:
    """A class of which pixels were predicted as another one instead.

    Attributes:
        true: the class.
        other: what was predicted there.
        pixels: by the subject, over all images.
        share: of the class's true pixels.
        of_overlap: how much of them the other class has too, so that only the overlap was lost.
        of_source: pixels by the best source; None without one.
    """

    true: str
    other: str
    pixels: int
    share: float
    of_overlap: float
    of_source: int | None


def mixed_up(subject: ReportEntry, source: ReportEntry | None) -> tuple[Mixed, ...]:
    """Return the classes that the subject mixes up most, most pixels first."""
    theirs = confusion_of(source.scores) if source and source.name != subject.name else None
    found = []
    for (true, other), (pixels, both_right) in confusion_of(subject.scores).items():
        area = sum(image.counts[true].true for image in subject.scores.images)
        of_source = None if theirs is None else theirs.get((true, other), (0, 0))[0]
        found.append(
            Mixed(true, other, pixels, pixels / max(1, area), both_right / pixels, of_source)
        )
    return tuple(found)

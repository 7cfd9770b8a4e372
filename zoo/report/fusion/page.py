"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters.files.provenance import atomic_write_text
from converters.masks import CropMask, class_masks
from converters.pictures import drawing
from converters.pictures.colors import FALSE, HIT_ON_GREY, MISSED, MUTED, Color, class_colors, css
from converters.types import LabelSpace
from fusion.metrics.scores import ImageScore, Scores, score_image
from fusion.metrics.summary import describe_overlapping, has_several
from fusion.rules.hybrid import Hybrid
from zoo.report import pictures
from zoo.report.fusion import breakdown, tables
from zoo.report.fusion.entries import (
    ReportCase,
    ReportEntry,
    check_case,
    check_entries,
    group_names,
    mean_dice,
)
from zoo.report.fusion.gains import FusionGains, gain_table
from zoo.report.fusion.weight_table import weight_table
from zoo.report.intervals import MARK_WH
from zoo.report.templates import render


@dataclass(frozen=True)
class PictureView:
    """One picture as the template shows it."""

    uri: str
    alt: str


@dataclass(frozen=True)
class Card:
    """One entry on one case: its masks, where they differ from the truth, its Dice."""

    name: str
    kind: str
    masks: PictureView
    difference: PictureView
    scores: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class LegendItem:
    """A class of the case's legend; `left` and `top` place its number, None where not shown."""

    number: int
    name: str
    color: str
    left: float | None
    top: float | None


@dataclass(frozen=True)
class CaseView:
    """One case as the template shows it."""

    case: ReportCase
    group: str
    size_wh: tuple[int, int]
    image: PictureView
    truth: PictureView
    cards: tuple[Card, ...]
    legend: tuple[LegendItem, ...]
    others: bool
    columns: int
    narrow_columns: int


def write_report(
    out: Path,
    *,
    title: str,
    entries: Sequence[ReportEntry],
    cases: Sequence[ReportCase],
    labels: LabelSpace,
    facts: Sequence[tuple[str, str]],
    gains: FusionGains | None = None,
    hybrid: Hybrid | None = None,
) -> None:
    """Write the report: headline, scores, what fusion added, postures, cases, classes.

    The file holds its pictures and its style, loads nothing, and appears whole or not at all.

    Args:
        out: the HTML file; replaced where it exists.
        title: of the page.
        entries: rows of the tables: sources first, then rules.
        cases: images to show; their images are read here.
        labels: the classes.
        facts: name and value of what a reader wants to know: images, seed, time, versions.
        gains: what the rule that the report is about added; None leaves it out.
        hybrid: that rule, for its weights; None leaves them out.

    Raises:
        ValueError: entries or cases that do not fit together, or an image that cannot be read.
    """
    check_entries(entries, labels)
    for case in cases:
        check_case(case, entries)
    views = [_view(case, entries, labels) for case in cases]
    page = render(
        "fusion/page.html",
        title=title,
        headline=tables.headline(entries),
        remarks=tables.remarks(entries, labels),
        entries=entries,
        scores=tables.score_table(entries, labels),
        classes=tables.class_table(entries, labels),
        overlapping=describe_overlapping(entries[0].scores) if not labels.exclusive else "",
        fusion=gain_table(gains, labels) if gains else None,
        weights=weight_table(hybrid, labels) if hybrid else None,
        cases=views,
        facts=facts,
        **_closer(entries, labels),
        strip_wh=tables.STRIP_WH,
        mark_wh=MARK_WH,
        tones={
            "hit": css(HIT_ON_GREY),
            "missed": css(MISSED),
            "false_": css(FALSE),
            "muted": css(MUTED),
        },
    )
    atomic_write_text(out, page)


def _closer(entries: Sequence[ReportEntry], labels: LabelSpace) -> dict[str, Any]:
    """What looks closer at the subject, or at the best source where nothing was fused."""
    subject, source = tables.subject_of(entries), tables.best_source(entries)
    shown = subject or source or entries[0]
    several = len(shown.scores.images) > 1
    return {
        "subject": subject,
        "source": source,
        "shown": shown,
        "postures": breakdown.posture_table(entries, labels, subject, source),
        "boxes": breakdown.distribution(shown, source) if several else None,
        "mixed": breakdown.mixed_up(shown, source),
        "mixed_first": breakdown.PAIRS,
    }


def _view(case: ReportCase, entries: Sequence[ReportEntry], labels: LabelSpace) -> CaseView:
    sample = case.sample
    truth = class_masks(sample.instances, sample.size_hw, labels)
    group = case.group or pictures.focus_group(truth, labels)
    names = group_names(labels, group)
    view = pictures.view_of([truth[n] for n in names if n in truth], sample.size_hw)
    image = drawing.read_view(sample, view)
    colors = class_colors(names)
    cards = tuple(_cards(case, entries, labels, group, truth, view, image, colors))
    points = pictures.label_points(truth, names, view)
    legend = tuple(
        LegendItem(i, name, css(colors[name]), *points.get(name, (None, None)))
        for i, name in enumerate(names, 1)
    )
    drawn = drawing.draw_masks(image, truth, view, colors)
    return CaseView(
        case=case,
        group=group or "all",
        size_wh=(view.size_hw[1], view.size_hw[0]),
        image=PictureView(drawing.encode_jpeg(image), f"{case.key}: the image"),
        truth=PictureView(
            drawing.encode_jpeg(drawn), f"{case.key}: true masks of {', '.join(points)}"
        ),
        cards=cards,
        legend=legend,
        others=len(names) < len(labels),
        columns=_columns(len(cards) + 1, 4, 3),
        narrow_columns=_columns(len(cards) + 1, 3, 2),
    )


def _cards(
    case: ReportCase,
    entries: Sequence[ReportEntry],
    labels: LabelSpace,
    group: str | None,
    truth: Mapping[str, CropMask],
    view: drawing.View,
    image: drawing.Floats,
    colors: Mapping[str, Color],
) -> Iterator[Card]:
    for entry in entries:
        if entry.name not in case.masks:
            continue
        masks = case.masks[entry.name]
        score = score_image(case.key, masks, truth, labels)
        if has_several(entry.scores):
            measured = next(image for image in entry.scores.images if image.key == case.key)
            score = replace(score, objects=measured.objects)
        scores = _case_scores(score, labels, group)
        drawn = drawing.draw_masks(image, masks, view, colors)
        difference = pictures.draw_difference(image, masks, truth, view)
        of = f"{case.key}: {entry.name}"
        said = ", ".join(f"{name} {value:.4f}" for name, value in scores)
        yield Card(
            entry.name,
            entry.kind,
            PictureView(drawing.encode_jpeg(drawn), f"{of}, masks. Dice: {said}"),
            PictureView(drawing.encode_jpeg(difference), f"{of}, difference to the truth"),
            scores,
        )


def _case_scores(
    score: ImageScore, labels: LabelSpace, group: str | None
) -> tuple[tuple[str, float], ...]:
    found = [] if group is None else [(group, mean_dice(score, group_names(labels, group)))]
    if (shared := Scores(labels, [score]).shared()) is not None:
        found.append(("shared", shared))
    found.append(("all", mean_dice(score, labels.names)))
    pq = score.pq(None if group is None else group_names(labels, group))
    return (*found, *([] if pq is None else [("PQ", pq)]))


def _columns(cards: int, *choices: int) -> int:
    """Return the number of columns that leaves the fewest gaps; the first of equal ones."""
    return min(choices, key=lambda columns: -cards % columns)

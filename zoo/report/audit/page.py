"""The audit's page: what looks wrong, ranked, with a picture of each; one HTML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from converters.audit.findings import KINDS, Finding
from converters.audit.search import kinds_left_out
from converters.describe import Description
from converters.files.provenance import atomic_write_text
from converters.pictures import drawing
from converters.pictures.colors import class_colors
from converters.types import LabelSpace, Sample
from zoo.report import pictures
from zoo.report.audit import pictures as audit_pictures
from zoo.report.audit.description import sections_of
from zoo.report.audit.pictures import Tag
from zoo.report.templates import render

PICTURED = 24
QUALITY = 80
EDIT_LINES = 10
LISTED = 40


@dataclass(frozen=True)
class Figure:
    """One picture as the template shows it."""

    uri: str
    alt: str
    caption: str
    tags: tuple[Tag, ...]


@dataclass(frozen=True)
class ShownFinding:
    """One finding as the template shows it: with pictures, or as a row."""

    finding: Finding
    lines: tuple[str, ...]
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class KindView:
    """The findings of one kind, ranked: cards with pictures first, rows for the rest."""

    name: str
    meaning: str
    images: int
    cards: tuple[ShownFinding, ...]
    rows: tuple[ShownFinding, ...]
    is_left_out: bool = False

    @property
    def count(self) -> int:
        """Number of findings."""
        return len(self.cards) + len(self.rows)


def write_audit(
    out: Path,
    *,
    title: str,
    findings: Sequence[Finding],
    samples: Sequence[Sample],
    labels: LabelSpace,
    facts: Sequence[tuple[str, str]],
    description: Description | None = None,
    pictured: int = PICTURED,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the page: a table of kinds, then each kind's findings with pictures.

    The file holds its pictures and its style, loads nothing, and appears whole or not at all.

    Args:
        out: the HTML file; replaced where it exists.
        title: of the page.
        findings: in any order.
        samples: with what could be read; an image that cannot be read has no picture.
        labels: the classes.
        facts: name and value of what a reader wants to know: data set, images, versions.
        description: what the data set is like; None leaves it out.
        pictured: so many findings of a kind have a picture; the rest are rows.
        progress: called with pictures done and pictures in all.
    """
    by_key = {sample.key: sample for sample in samples}
    ranked = {kind: rank([f for f in findings if f.kind == kind]) for kind in KINDS}
    chosen = [f for found in ranked.values() for f in _pictured(found, by_key, pictured)]
    figures: dict[int, tuple[Figure, ...]] = {}
    for done, finding in enumerate(chosen, 1):
        figures[id(finding)] = _figures(finding, by_key, labels)
        if progress:
            progress(done, len(chosen))
    page = render(
        "audit/page.html",
        title=title,
        headline=headline(findings, samples),
        kinds=[
            _kind_view(kind, found, figures, kind in kinds_left_out(labels))
            for kind, found in ranked.items()
        ],
        facts=facts,
        edit_first=EDIT_LINES,
        rows_first=LISTED,
        sections=sections_of(description) if description else (),
    )
    atomic_write_text(out, page)


def rank(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings, the surest first."""
    return sorted(findings, key=lambda finding: (-finding.score, finding.key, finding.what))


def headline(findings: Sequence[Finding], samples: Sequence[Sample]) -> str:
    """Return the result in one sentence."""
    images = {sample.key for sample in samples} | {f.key for f in findings if f.key}
    if not findings:
        return f"Nothing looks wrong in {_counted(len(images), 'image')}."
    concerned = {finding.key for finding in findings if finding.key}
    return (
        f"{_counted(len(findings), 'finding')} in {len(concerned)} of "
        f"{_counted(len(images), 'image')}."
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _pictured(
    findings: Sequence[Finding], samples: Mapping[str, Sample], limit: int
) -> list[Finding]:
    return [finding for finding in findings if finding.key in samples][:limit]


def _kind_view(
    kind: str,
    findings: Sequence[Finding],
    figures: Mapping[int, tuple[Figure, ...]],
    is_left_out: bool,
) -> KindView:
    shown = [ShownFinding(f, tuple(edit_lines(f)), figures.get(id(f), ())) for f in findings]
    return KindView(
        name=kind,
        meaning=KINDS[kind],
        images=len({finding.key for finding in findings if finding.key}),
        cards=tuple(one for one in shown if one.figures),
        rows=tuple(one for one in shown if not one.figures),
        is_left_out=is_left_out and not findings,
    )


def edit_text(finding: Finding) -> str:
    """Return the first lines of the proposed correction as text; "" without one."""
    lines = edit_lines(finding)
    left = len(lines) - EDIT_LINES
    return "\n".join(lines if left <= 0 else [*lines[:EDIT_LINES], f"# and {left} more lines"])


def edit_lines(finding: Finding) -> list[str]:
    """Return the proposed correction as the lines of an edits file; none without one."""
    if not finding.edit:
        return []
    sections = {section: [dict(entry)] for section, entry in finding.edit.items()}
    text = yaml.safe_dump(
        sections, sort_keys=False, allow_unicode=True, default_flow_style=None, width=60
    )
    return text.rstrip().splitlines()


def _figures(
    finding: Finding, samples: Mapping[str, Sample], labels: LabelSpace
) -> tuple[Figure, ...]:
    """The image and, where the finding names others, the first of them that can be shown."""
    sample = samples[finding.key]
    ours = _figure(sample, finding, finding.key if finding.others else "")
    twins = [_figure(samples[key], None, key) for key in finding.others[:1] if key in samples]
    return tuple(figure for figure in (ours, *twins) if figure is not None)


def _figure(sample: Sample, finding: Finding | None, caption: str) -> Figure | None:
    """A picture of a finding's place, or of a whole image; None where it cannot be read."""
    names = finding.labels if finding else ()
    view = pictures.view_around(finding.box_xywh if finding else None, sample.size_hw)
    try:
        image = drawing.read_view(sample, view)
    except ValueError:
        return None
    colors = class_colors(names)
    drawn = audit_pictures.draw_outlines(image, sample, view, colors)
    what = f": {finding.what}" if finding else ""
    tags = audit_pictures.place_tags(sample, view, colors)
    return Figure(drawing.encode_jpeg(drawn, QUALITY), f"{sample.key}{what}", caption, tags)

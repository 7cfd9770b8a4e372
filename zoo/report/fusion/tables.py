"""What the report's tables and its headline say, as plain values for the template."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from converters.types import LabelSpace
from fusion.metrics.intervals import Estimate
from fusion.metrics.scores import ImageScore, Scores
from fusion.metrics.summary import POOLED, SHARED_MEASURES, compare, has_several
from zoo.report import intervals
from zoo.report.fusion.entries import ReportEntry, mean_dice
from zoo.report.numbers import rounded, show, signed
from zoo.report.sections import by_group

SUBJECT = "hybrid"  # the rule that the headline is about, where an entry has this name
FULL_TINT = 0.1  # a difference in Dice that is shaded fully
STRIP_WH = (150, 18)


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        value: None where there is nothing to measure.
        delta: value minus the best source, both as shown; None for that source and without one.
        best: whether no entry has more, to the digits shown.
        best_source: whether no source has more, to the digits shown.
        tint: strength of the shading, -1..1 by `delta` or 0..1 by the error.
    """

    value: float | None
    delta: float | None
    best: bool
    best_source: bool
    tint: float


@dataclass(frozen=True)
class TableRow:
    """One entry of the score table, with a mark for each image's Dice as an SVG path."""

    entry: ReportEntry
    cells: tuple[Cell, ...]
    strip: str
    strip_mean: float


@dataclass(frozen=True)
class ScoreTable:
    """Entries by columns: all classes, each group, what classes share."""

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    axis_from: float


@dataclass(frozen=True)
class ClassRow:
    """One class: a cell an entry, and what the subject gains."""

    name: str
    cells: tuple[Cell, ...]
    gain: Cell | None


@dataclass(frozen=True)
class ClassDiceTable:
    """Classes by entries, in sections of a group each; a section without a group has no title."""

    sections: tuple[tuple[str, tuple[ClassRow, ...]], ...]
    worst: float


def subject_of(entries: Sequence[ReportEntry]) -> ReportEntry | None:
    """Return the rule that the report is about: `hybrid`, else the last rule, else None."""
    rules = [entry for entry in entries if entry.kind == "rule"]
    return next((e for e in rules if e.name == SUBJECT), rules[-1] if rules else None)


def best_source(entries: Sequence[ReportEntry]) -> ReportEntry | None:
    """Return the source with the highest mean Dice, or None."""
    sources = [entry for entry in entries if entry.kind == "source"]
    return max(sources, key=lambda entry: entry.scores.mean(), default=None)


# --- the score table


def score_table(entries: Sequence[ReportEntry], labels: LabelSpace) -> ScoreTable:
    """Return the scores of all entries on all classes, each group, and shared pixels."""
    measures = score_columns(entries[0].scores)
    kinds = [entry.kind for entry in entries]
    by_column = [cells_of([value(e.scores) for e in entries], kinds) for value in measures.values()]
    keys = [[mean_dice(image, labels.names) for image in entry.scores.images] for entry in entries]
    axis_from = math.floor(min(min(values) for values in keys) * 20) / 20
    axis_from = min(axis_from, 0.95)
    rows = tuple(
        TableRow(entry, cells, *_strip(values, axis_from))
        for entry, cells, values in zip(entries, zip(*by_column, strict=True), keys, strict=True)
    )
    return ScoreTable(tuple(measures), rows, axis_from)


def score_columns(scores: Scores) -> dict[str, Callable[[Scores], float | None]]:
    """Return what tables show of scores: name of the column -> its value.

    Mean Dice of all classes and of each group; of shared pixels, where classes may share any; and
    panoptic quality, where an image has several objects of a class.
    """
    labels = scores.labels
    found: dict[str, Callable[[Scores], float | None]] = {"all": Scores.mean}
    found |= {group: _mean_of(names) for group, names in labels.groups.items()}
    if labels.may_share:
        found[SHARED_MEASURES["shared"]] = Scores.shared
        found[SHARED_MEASURES[POOLED]] = Scores.shared_pooled
    if has_several(scores):
        found["PQ"] = Scores.pq
    return found


def _mean_of(names: Sequence[str]) -> Callable[[Scores], float | None]:
    return lambda scores: scores.mean(names)


def cells_of(values: Sequence[float | None], kinds: Sequence[str]) -> tuple[Cell, ...]:
    """Return one column or row of a table: a cell an entry, beside the best source.

    Args:
        values: one an entry; None where there is nothing to measure.
        kinds: of the entries: source or rule.
    """
    known = [rounded(v) for v in values if v is not None]
    sources = [v for v, k in zip(values, kinds, strict=True) if v is not None and k == "source"]
    reference = max(sources, default=None)
    cells = []
    for value, kind in zip(values, kinds, strict=True):
        if value is None:
            cells.append(Cell(None, None, False, False, 0.0))
            continue
        top = reference is not None and rounded(value) == rounded(reference)
        is_reference = top and kind == "source"
        delta = None if reference is None or is_reference else rounded(value) - rounded(reference)
        best = rounded(value) == max(known)
        cells.append(Cell(value, delta, best, is_reference, _tint(delta)))
    return tuple(cells)


def _tint(delta: float | None) -> float:
    # The root keeps differences of a thousandth visible beside some of a tenth.
    return 0.0 if delta is None else math.copysign(min(1, abs(delta) / FULL_TINT) ** 0.5, delta)


def _strip(values: Sequence[float], axis_from: float) -> tuple[str, float]:
    width, height = STRIP_WH

    def place(value: float) -> float:
        return round(2 + (value - axis_from) / (1 - axis_from) * (width - 4), 1)

    marks = "".join(f"M{place(v):g} 4v{height - 8}" for v in values)
    return marks, place(float(np.mean(values)))


# --- the class table


def class_table(entries: Sequence[ReportEntry], labels: LabelSpace) -> ClassDiceTable:
    """Return every class's Dice by entry; shaded by how far it is from 1."""
    per_class = [entry.scores.per_class() for entry in entries]
    worst = min(min(values.values()) for values in per_class)
    rows = {n: _class_row(n, entries, [v[n] for v in per_class], worst) for n in labels.names}
    return ClassDiceTable(tuple(by_group(rows, labels)), worst)


def _class_row(
    name: str, entries: Sequence[ReportEntry], values: Sequence[float], worst: float
) -> ClassRow:
    cells = cells_of(values, [entry.kind for entry in entries])
    # At least a twentieth, so that a table of good scores stays pale.
    span = max(1 - worst, 0.05)
    shaded = [
        Cell(c.value, c.delta, c.best, c.best_source, (1 - v) / span)
        for c, v in zip(cells, values, strict=True)
    ]
    subject = subject_of(entries)
    gain = None if subject is None else cells[[e.name for e in entries].index(subject.name)]
    return ClassRow(name, tuple(shaded), gain)


# --- the headline


def headline(entries: Sequence[ReportEntry]) -> str:
    """Return the result in one sentence, which says so where the fusion is not better."""
    subject, source = subject_of(entries), best_source(entries)
    if subject is None or source is None:
        top = max(entries, key=lambda entry: entry.scores.mean())
        among = f" of {len(entries)} {top.kind}s" if len(entries) > 1 else ""
        return f"{top.name} has a mean Dice of {show(top.scores.mean())}" + (
            f", the most{among}." if among else "."
        )
    ours, theirs = rounded(subject.scores.mean()), rounded(source.scores.mean())
    apart = show(abs(ours - theirs))
    other = _best_other_rule(entries, subject)
    if ours > theirs:
        text = (
            f"{subject.name} {show(ours)} is {apart} above the best single source, "
            f"{source.name} {show(theirs)}"
        )
    elif ours == theirs:
        text = f"{subject.name} {show(ours)} only equals the best single source, {source.name}"
    else:
        text = (
            f"{subject.name} {show(ours)} is not better than the best single source: "
            f"{source.name} has {show(theirs)}, {apart} more"
        )
    return text + _about_other(other, subject) + "."


def _best_other_rule(entries: Sequence[ReportEntry], subject: ReportEntry) -> ReportEntry | None:
    others = [e for e in entries if e.kind == "rule" and e.name != subject.name]
    return max(others, key=lambda entry: entry.scores.mean(), default=None)


def _about_other(other: ReportEntry | None, subject: ReportEntry) -> str:
    if other is None:
        return ""
    value, ours = rounded(other.scores.mean()), rounded(subject.scores.mean())
    if value > ours:
        return f"; the rule {other.name} is above {subject.name}, with {show(value)}"
    if value == ours:
        return f"; the rule {other.name} has the same"
    return f"; the best other rule, {other.name}, has {show(value)}"


def remarks(entries: Sequence[ReportEntry], labels: LabelSpace) -> list[str]:
    """Return what else has to be said of the headline: where it fails, and how sure it is."""
    subject, source = subject_of(entries), best_source(entries)
    if subject is None or source is None:
        return []
    said = [_by_column(entries, labels, subject), *_about_shared(subject, source)]
    differences = _differences(subject.scores, source.scores)
    count = len(differences)
    if count == 1:
        return [*said, "This is one image: an example, not a measurement."]
    ahead, behind = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    text = f"Image by image it is above {source.name} on {ahead} of {count} and below on {behind}"
    mean = abs(float(np.mean(differences)))
    twice = 2 * float(np.std(differences, ddof=1)) / math.sqrt(count)
    if mean < twice:
        text += (
            f"; the mean difference is within two standard errors ({show(twice)}): these images "
            "do not tell the two apart"
        )
    else:
        text += f"; two standard errors of the mean difference are {show(twice)}"
    return [*said, text + "."]


def shared_gains(subject: ReportEntry, source: ReportEntry) -> dict[str, Estimate]:
    """Return a measure of shared pixels -> the subject minus a source; empty where none is."""
    found = {n: compare(subject.scores, source.scores, n).overall for n in SHARED_MEASURES}
    return {name: gain for name, gain in found.items() if gain}


def _about_shared(subject: ReportEntry, source: ReportEntry) -> list[str]:
    gains = shared_gains(subject, source)
    if not gains:
        return []
    parts = [f"{intervals.say(gain)} ({SHARED_MEASURES[name]})" for name, gain in gains.items()]
    between = f"{subject.name} minus {source.name}, with 95 % intervals over patients"
    return [f"Where classes overlap: {' and '.join(parts)}, {between}."]


def _by_column(entries: Sequence[ReportEntry], labels: LabelSpace, subject: ReportEntry) -> str:
    table = score_table(entries, labels)
    cells = next(row.cells for row in table.rows if row.entry.name == subject.name)
    sides: dict[str, list[str]] = {"above": [], "level with": [], "below": []}
    for column, cell in zip(table.columns[1:], cells[1:], strict=True):
        if cell.delta is None:
            continue
        change = rounded(cell.delta)
        side = "above" if change > 0 else "below" if change < 0 else "level with"
        sides[side].append(f"{column} ({signed(change)})" if change else column)
    parts = [f"{side} it on {_listed(names)}" for side, names in sides.items() if names]
    if not parts:
        return f"Scores are means over {len(subject.scores.images)} images."
    return f"Against each column's best source, {subject.name} is " + ", ".join(parts) + "."


def _differences(ours: Scores, theirs: Scores) -> list[float]:
    def of(image: ImageScore) -> float:
        return mean_dice(image, ours.labels.names)

    others = {image.key: of(image) for image in theirs.images}
    return [of(image) - others[image.key] for image in ours.images]


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]

"""What came of an ablation: the scores of each change beside the base's, and the difference."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from converters.files.provenance import atomic_write_text
from converters.types import LabelSpace
from fusion.metrics.intervals import Estimate, means_over_people
from zoo.run_files.metrics import best_row, read_rows
from zoo.runs.ablations.ablation import AblationRun
from zoo.runs.ablations.changes import BASE_NAME
from zoo.runs.ablations.held_out import HeldOut, read_held_out
from zoo.runs.table import format_table

Over = Literal["patients", "runs"]
ALL = "all"
TABLE, CLASSES = "changes.csv", "classes.csv"
# Fewer units than these say little, whatever their interval.
_FEW = 6


@dataclass(frozen=True)
class Outcome:
    """What came of one change.

    Attributes:
        change: its name.
        runs: that were scored.
        failed: that were not.
        score: mean of the runs' best epochs in `metrics.csv`; None without runs.
        dice: `all`, groups and classes -> mean over images that were held out, and runs.
        differences: the same -> difference to the base on the same images, folds and seeds; empty
            for the base, and where no run has the base's beside it.
        units: how many patients or runs the intervals are over.
        public: mean of the public scores that are known; None where none is.
        public_difference: to the base's of the same fold and seed.
        error: why the first one that failed did.
    """

    change: str
    runs: int
    failed: int
    score: float | None
    dice: Mapping[str, float]
    differences: Mapping[str, Estimate]
    units: int
    public: float | None
    public_difference: float | None
    error: str


@dataclass(frozen=True)
class _Scored:
    run: AblationRun
    score: float
    held_out: HeldOut


def outcomes(
    runs: Sequence[AblationRun],
    labels: LabelSpace,
    score: str = "",
    over: Over = "patients",
    public: Mapping[Path, float] | None = None,
) -> list[Outcome]:
    """Return what came of each change, the base first.

    A difference is taken image by image between runs of the same fold and seed, and averaged over
    seeds. Its interval is a bootstrap over patients (images of one go together), which says whether
    it would hold for others; or over runs, which says whether it would for other seeds and folds.

    Args:
        runs: of an ablation, with the base's.
        labels: their classes.
        score: the column of `metrics.csv` whose best epoch counts; "" is the mean IoU of label
            spaces where a pixel has one label, else the mean Dice.
        over: what the intervals are over.
        public: run's folder -> public score.

    Raises:
        ValueError: no such column.
    """
    column = score or ("val_miou" if labels.exclusive else "val_dice")
    scored: dict[str, dict[tuple[int, int], _Scored]] = {}
    for run in runs:
        of_change = scored.setdefault(run.change, {})
        found = read_held_out(run.path)
        if not run.error and found is not None:
            of_change[run.seed, run.fold] = _Scored(run, _best(run.path, column), found)
    known = {path.resolve(): value for path, value in (public or {}).items()}
    base = scored.get(BASE_NAME, {})
    return [
        _outcome(name, [r for r in runs if r.change == name], own, base, labels, over, known)
        for name, own in scored.items()
    ]


def _best(run: Path, column: str) -> float:
    rows = read_rows(run / "metrics.csv")
    if rows and column not in rows[0]:
        known = ", ".join(rows[0])
        raise ValueError(f"--score {column}: expected a column of metrics.csv: {known}")
    best = best_row(rows, column)
    if best is None:
        raise ValueError(f"{run}: expected scores in metrics.csv, found none")
    return float(best[column])


def _outcome(
    name: str,
    runs: Sequence[AblationRun],
    own: Mapping[tuple[int, int], _Scored],
    base: Mapping[tuple[int, int], _Scored],
    labels: LabelSpace,
    over: Over,
    public: Mapping[Path, float],
) -> Outcome:
    pairs = [] if name == BASE_NAME else [(own[at], base[at]) for at in own if at in base]
    differences, units = _differences(pairs, labels, over)
    scores = [found.score for found in own.values()]
    known = [public[f.run.path] for f in own.values() if f.run.path in public]
    gains = [
        public[new.run.path] - public[old.run.path]
        for new, old in pairs
        if new.run.path in public and old.run.path in public
    ]
    errors = [run.error for run in runs if run.error]
    return Outcome(
        change=name,
        runs=len(own),
        failed=len(errors),
        score=float(np.mean(scores)) if scores else None,
        dice=_means([found.held_out for found in own.values()], labels),
        differences=differences,
        units=units,
        public=float(np.mean(known)) if known else None,
        public_difference=float(np.mean(gains)) if gains else None,
        error=errors[0] if errors else "",
    )


def _selections(labels: LabelSpace) -> dict[str, list[int]]:
    """Return what is averaged: all classes, those of each group, and each class."""
    index = {name: number for number, name in enumerate(labels.names)}
    groups = {group: [index[name] for name in names] for group, names in labels.groups.items()}
    classes = {name: [number] for name, number in index.items()}
    return {ALL: [*index.values()], **groups, **classes}


def _means(found: Sequence[HeldOut], labels: LabelSpace) -> dict[str, float]:
    if not found:
        return {}
    table = np.stack([row for held_out in found for row in held_out.dice.values()])
    return {name: float(table[:, own].mean()) for name, own in _selections(labels).items()}


def _differences(
    pairs: Sequence[tuple[_Scored, _Scored]], labels: LabelSpace, over: Over
) -> tuple[dict[str, Estimate], int]:
    """Return the difference of each selection, and how many units its interval is over."""
    rows: dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]] = {}
    people: dict[str, str] = {}
    for number, (new, old) in enumerate(pairs):
        for image, dice in new.held_out.dice.items():
            # Runs of one fold, as patients of one image, are averaged; each run is one itself.
            key = image if over == "patients" else f"{number} {image}"
            rows.setdefault(key, []).append(dice - old.held_out.dice[image])
            of_patient = over == "patients"
            people[key] = new.held_out.patients[image] if of_patient else str(number)
    if not rows:
        return {}, 0
    table = np.stack([np.mean(found, axis=0) for found in rows.values()])
    chosen = _selections(labels)
    found = means_over_people(table, [people[key] for key in rows], list(chosen.values()))
    pairs_found = zip(chosen, found, strict=True)
    kept = {name: estimate for name, estimate in pairs_found if estimate is not None}
    return kept, len(set(people.values()))


# --- tables


def write_tables(found: Sequence[Outcome], labels: LabelSpace, out: Path) -> None:
    """Write `changes.csv`, a row a change, and `classes.csv`, a row a change and class or group."""
    head = ["change", "runs", "failed", "score", "dice", "difference", "low", "high", "units"]
    head += ["public", "public_difference", "error"]
    rows = []
    for one in found:
        known = [one.change, one.runs, one.failed, _plain(one.score), _plain(one.dice.get(ALL))]
        known += [*_spread(one.differences.get(ALL)), one.units or ""]
        rows.append([*known, _plain(one.public), _plain(one.public_difference), one.error])
    _write(out / TABLE, head, rows)
    classes = [
        [one.change, name, _plain(one.dice.get(name)), *_spread(one.differences.get(name))]
        for one in found
        for name in _selections(labels)
    ]
    _write(out / CLASSES, ["change", "class", "dice", "difference", "low", "high"], classes)


def _write(path: Path, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    atomic_write_text(path, text.getvalue())


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _spread(found: Estimate | None) -> list[str]:
    if found is None:
        return ["", "", ""]
    low, high = found.interval or (None, None)
    return [_plain(found.mean), _plain(low), _plain(high)]


def describe(found: Sequence[Outcome], labels: LabelSpace, out: Path, over: Over) -> str:
    """Return the table of an ablation as text, the best change first after the base."""
    shown = [one for one in found if one.change == BASE_NAME]
    shown += sorted(
        (one for one in found if one.change != BASE_NAME),
        key=lambda one: -one.differences[ALL].mean if ALL in one.differences else np.inf,
    )
    has_public = any(one.public is not None for one in found)
    groups = list(labels.groups)
    columns = ["change", "runs", "score", "Dice", "to the base [95 %]", *groups]
    columns += ["public", "to the base"] if has_public else []
    rows = [[*_cells(one, groups), *(_public(one) if has_public else ())] for one in shown]
    return "\n".join([format_table(columns, rows), *_remarks(shown, out, over)])


def _cells(one: Outcome, groups: Sequence[str]) -> Iterator[str]:
    yield one.change
    yield f"{one.runs}" + (f" ({one.failed} failed)" if one.failed else "")
    yield _short(one.score)
    yield _short(one.dice.get(ALL))
    difference = one.differences.get(ALL)
    yield "" if difference is None else _signed(difference)
    for group in groups:
        of_group = one.differences.get(group)
        yield _short(one.dice.get(group)) if of_group is None else f"{of_group.mean:+.4f}"


def _public(one: Outcome) -> Iterator[str]:
    yield _short(one.public)
    yield "" if one.public_difference is None else f"{one.public_difference:+.4f}"


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _signed(found: Estimate) -> str:
    if found.interval is None:
        return f"{found.mean:+.4f}"
    return f"{found.mean:+.4f} [{found.interval[0]:+.4f}, {found.interval[1]:+.4f}]"


def _remarks(found: Sequence[Outcome], out: Path, over: Over) -> Iterator[str]:
    units = [one.units for one in found if one.units]
    if units:
        yield (
            f"Differences on the same images, folds and seeds; in brackets: 95 % over "
            f"{min(units)} {over}."
        )
        if min(units) < _FEW:
            yield f"Fewer than {_FEW} {over} say little, whatever stands in brackets."
        if len(units) > 1:
            yield (
                f"{len(units)} changes were tried: by chance alone one in twenty such intervals "
                "leaves out 0."
            )
    yield from (f"failed: {one.change}: {one.error}" for one in found if one.error)
    yield f"all classes: {out / CLASSES}; the changes: {out / TABLE}; the runs: zoo runs {out}"

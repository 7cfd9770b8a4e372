"""What the folds of a split are like: whether they resemble each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.posture import is_bent
from converters.splits.stratify import areas_of
from converters.types import LabelSpace, Sample

if TYPE_CHECKING:
    from converters.splits.split import Split

# A class is rare in a fold that has less than this part of its share of all images.
_RARE = 0.5


@dataclass(frozen=True)
class FoldRow:
    """What one fold holds out.

    Attributes:
        name: such as `fold 0`, or `all`.
        images: number of images.
        groups: number of patients; None where none is known.
        objects: number of objects; None where each class occurs once.
        bent: share of the images that are bent; None where no posture is known.
        areas: group of classes -> mean area of its classes relative to all images'; 1 is equal.
        rare: classes in less than half as large a share of the images as in all.
        absent: classes in none of the images.
    """

    name: str
    images: int
    groups: int | None
    objects: int | None
    bent: float | None
    areas: Mapping[str, float]
    rare: tuple[str, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class SplitTable:
    """What the folds of a split hold out, the first row all of them; text for a terminal."""

    rows: tuple[FoldRow, ...]

    def __str__(self) -> str:
        parts = list(self.rows[0].areas)
        known = {"images": True, "patients": self.rows[0].groups is not None}
        known |= {"objects": self.rows[0].objects is not None}
        known |= {"bent": any(row.bent is not None for row in self.rows)}
        shown = [name for name, is_known in known.items() if is_known]
        lines = [["", *shown, *(f"area {part}" for part in parts)]]
        for row in self.rows:
            bent = "-" if row.bent is None else f"{100 * row.bent:.1f} %"
            areas = [f"{row.areas[part]:.3f}" if part in row.areas else "-" for part in parts]
            counts = {"images": row.images, "patients": row.groups, "objects": row.objects}
            numbers = {**{name: str(n) for name, n in counts.items()}, "bent": bent}
            lines.append([row.name, *(numbers[name] for name in shown), *areas])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(map(str.rjust, line, widths)).rstrip() for line in lines]
        for row in self.rows[1:]:
            text += [f"{row.name}: no {name}" for name in row.absent]
            text += [f"{row.name}: few of {name}" for name in row.rare]
        return "\n".join(text)


def describe(split: Split, samples: Iterable[Sample], labels: LabelSpace) -> SplitTable:
    """Compare what the folds hold out: images, patients, posture, areas, classes.

    Args:
        split: the folds.
        samples: the data; those that the split does not have are left out.
        labels: the classes, their groups, and how to tell the posture.
    """
    by_key = {sample.key: sample for sample in samples}
    facts = {key: _facts(by_key[key], labels) for key in split.keys if key in by_key}
    whole = _fold_row("all", facts, facts, labels)
    rows = [
        _fold_row(f"fold {fold}", {k: facts[k] for k in keys if k in facts}, facts, labels)
        for fold, keys in enumerate(split.folds)
    ]
    return SplitTable((whole, *rows))


@dataclass(frozen=True)
class _Facts:
    group: str
    is_known: bool
    is_bent: bool | None
    areas: Mapping[str, float]
    objects: int


def _facts(sample: Sample, labels: LabelSpace) -> _Facts:
    posture, areas = is_bent(sample, labels), areas_of(sample)
    return _Facts(sample.patient, bool(sample.group), posture, areas, len(sample.labels))


def _fold_row(
    name: str, chosen: Mapping[str, _Facts], whole: Mapping[str, _Facts], labels: LabelSpace
) -> FoldRow:
    has_groups = any(facts.is_known for facts in whole.values())
    postures = [facts.is_bent for facts in chosen.values() if facts.is_bent is not None]
    ours, everywhere = _areas_by_class(chosen, labels), _areas_by_class(whole, labels)
    parts = labels.groups or {"all": labels.names}
    ratios = {
        part: [np.mean(ours[n]) / np.mean(everywhere[n]) for n in names if ours[n]]
        for part, names in parts.items()
    }
    shares = {
        label: len(ours[label]) * len(whole) / max(1, len(chosen)) / len(everywhere[label])
        for label in labels.names
        if everywhere[label]
    }
    return FoldRow(
        name=name,
        images=len(chosen),
        groups=len({facts.group for facts in chosen.values()}) if has_groups else None,
        objects=None if labels.once else sum(facts.objects for facts in chosen.values()),
        bent=float(np.mean(postures)) if postures else None,
        areas={part: float(np.mean(found)) for part, found in ratios.items() if found},
        rare=tuple(label for label, share in shares.items() if 0 < share < _RARE),
        absent=tuple(label for label, share in shares.items() if share == 0),
    )


def _areas_by_class(chosen: Mapping[str, _Facts], labels: LabelSpace) -> dict[str, list[float]]:
    """Areas of a class in the images that have it; an area of 0 says nothing of the others."""
    return {
        label: [a for f in chosen.values() if (a := f.areas.get(label, 0.0)) > 0]
        for label in labels.names
    }

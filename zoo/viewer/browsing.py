"""Which images, or structures on them, a list shows, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from statistics import fmean

from zoo.viewer.collection import Collection
from zoo.viewer.measures import ImageRow, StructureRow

ORDERS: tuple[str, ...] = (
    "name",
    "image size, largest first",
    "mask size, smallest first",
    "mask size, largest first",
    "Dice, worst first",
    "disagreement, most first",
    "PQ, worst first",
)
PQ = ORDERS[-1]


@dataclass(frozen=True)
class Filter:
    """What is wanted.

    Attributes:
        text: words that must occur in an image's key, patient or file name; case does not matter.
        patients: empty for all.
        labels: classes; empty for all. An image has to have one of them.
        by_structure: a row a class of an image; otherwise a row an image.
        order: one of `ORDERS`.
        pair: two sources: Dice, panoptic quality and disagreement are between them.
        hides_excluded: leave out what corrections exclude.
        only: keys; None for all.
    """

    text: str = ""
    patients: Set[str] = frozenset()
    labels: Set[str] = frozenset()
    by_structure: bool = False
    order: str = ORDERS[0]
    pair: tuple[str, str] | None = None
    hides_excluded: bool = False
    only: Set[str] | None = None


@dataclass(frozen=True)
class Line:
    """A row of the list.

    Attributes:
        key: the image.
        label: the class; "" for all that are wanted.
        patient: whose image it is.
        image_px: pixels of the image.
        mask_px: pixels of the masks; None before they are measured.
        dice: mean against the truth, or between two sources; None where nobody knows.
        disagreement: mean between the sources.
        worst: the class of the lowest panoptic quality where there are several objects of a class,
            else of the lowest Dice, or of the most disagreement.
        pq: mean panoptic quality as `dice`; None where objects are not measured.
    """

    key: str
    label: str
    patient: str
    image_px: int
    mask_px: int | None = None
    dice: float | None = None
    disagreement: float | None = None
    worst: str = ""
    pq: float | None = None


def browse(collection: Collection, wanted: Filter, measured: Mapping[str, ImageRow]) -> list[Line]:
    """Return the rows of the list; what is not measured yet comes last.

    Args:
        collection: what is collection.
        wanted: what to show, in which order.
        measured: key -> measures, of the images that have been measured.
    """
    lines: list[Line] = []
    for key, (height, width, file_name) in collection.entries.items():
        patient = collection.patient(key)
        if not _is_wanted(collection, wanted, key, patient, file_name):
            continue
        row = measured.get(key)
        if row is None:
            # By structure there is nothing to show yet; which classes there are is known sooner.
            has_label = not wanted.labels or _has(collection, key, wanted.labels)
            if has_label and not wanted.by_structure:
                lines.append(Line(key, "", patient, height * width))
            continue
        rows = [r for r in row.rows if not wanted.labels or r.label in wanted.labels]
        if wanted.by_structure:
            lines += [_line(r.key, r.label, patient, height * width, [r], wanted) for r in rows]
        elif rows or not wanted.labels:
            lines.append(_line(key, "", patient, height * width, rows, wanted))
    return sorted(lines, key=_SORTS[wanted.order])


def _is_wanted(
    collection: Collection, wanted: Filter, key: str, patient: str, file_name: str
) -> bool:
    if wanted.only is not None and key not in wanted.only:
        return False
    if wanted.hides_excluded and collection.is_excluded(key):
        return False
    if wanted.patients and patient not in wanted.patients:
        return False
    text = f"{key} {patient} {file_name}".casefold()
    return all(word in text for word in wanted.text.casefold().split())


def _has(collection: Collection, key: str, labels: Set[str]) -> bool:
    sample = collection.samples.get(key)
    return sample is None or any(one.label in labels for one in sample.instances)


def _line(
    key: str,
    label: str,
    patient: str,
    image_px: int,
    rows: Sequence[StructureRow],
    wanted: Filter,
) -> Line:
    def dice_of(row: StructureRow) -> float | None:
        return row.between.get(wanted.pair) if wanted.pair else row.mean_dice

    def pq_of(row: StructureRow) -> float | None:
        return row.pq_between.get(wanted.pair) if wanted.pair else row.mean_pq

    def badness(row: StructureRow) -> float | None:
        pq, dice = pq_of(row), dice_of(row)
        worth = dice if pq is None else pq
        return row.disagreement if worth is None else 1 - worth

    known = {row.label: bad for row in rows if (bad := badness(row)) is not None}
    return Line(
        key=key,
        label=label,
        patient=patient,
        image_px=image_px,
        mask_px=sum(row.area_px for row in rows),
        dice=_mean([dice_of(row) for row in rows]),
        disagreement=_mean([row.disagreement for row in rows]),
        worst=max(known, key=lambda name: known[name]) if known else "",
        pq=_mean([pq_of(row) for row in rows]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


_Order = tuple[bool, float, str, str]


def _by(value: Callable[[Line], float | None], falls: bool = False) -> Callable[[Line], _Order]:
    def order(line: Line) -> _Order:
        found = value(line)
        return found is None, (-1 if falls else 1) * (found or 0.0), line.key, line.label

    return order


_SORTS: dict[str, Callable[[Line], _Order]] = {
    ORDERS[0]: _by(lambda line: 0.0),
    ORDERS[1]: _by(lambda line: line.image_px, falls=True),
    ORDERS[2]: _by(lambda line: line.mask_px),
    ORDERS[3]: _by(lambda line: line.mask_px, falls=True),
    ORDERS[4]: _by(lambda line: line.dice),
    ORDERS[5]: _by(lambda line: line.disagreement, falls=True),
    PQ: _by(lambda line: line.pq),
}

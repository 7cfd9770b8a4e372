"""What is wrong with a submission, and what is odd about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from converters.masks import decode_rle
from converters.types import LabelSpace
from fusion.arrays import Complex
from fusion.checks.orientation import Annotations, Turned, centre_of, shift_px
from fusion.sources.submission import Image, RleRow, read_places

AT_MOST_LISTED = 20
# A code of fewer runs says little about the length of the image's rows.
_RUNS_THAT_TELL = 8
_IMAGES_THAT_TELL = 8
# Of an image's codes, this share agrees so closely on the row's length where masks are whole.
_LEAST_SHARE, _NEAR = 0.5, 0.05
_OTHER_ROW_LENGTH = 0.05
_OTHER_AREA = 8.0

RowKey = tuple[str, str]
"""Image and class of a row."""


@dataclass(frozen=True)
class Review:
    """What a look at a submission found, one line each.

    Attributes:
        problems: why it would be refused, or scored as something else than it was meant to be.
        notes: what is allowed but unlikely, such as a class that is missing.
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class _Codes:
    """What the codes of a file look like, gathered row by row, without their pixels."""

    bad: list[str] = field(default_factory=list)
    empty: Counter[str] = field(default_factory=Counter)
    areas: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    steps: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ends: Counter[str] = field(default_factory=Counter)
    centres: dict[str, dict[str, complex]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, row: RleRow, line: int, size_hw: tuple[int, int]) -> None:
        """Take down one row of an image that is known."""
        if not row.rle:
            self.empty[row.label] += 1
            return
        try:
            numbers = np.array(row.rle.split(), np.int64)
            starts, lengths = numbers[0 : len(numbers) // 2 * 2].reshape(-1, 2).T
        except (OverflowError, ValueError):
            starts = lengths = np.zeros(0, np.int64)
        if len(starts):
            self.areas[row.label].append((int(lengths.sum()), row.image_name))
            end = int(starts[-1] + lengths[-1] - 1)
            self.ends[row.image_name] = max(self.ends[row.image_name], end)
        if len(starts) >= _RUNS_THAT_TELL:
            self.steps[row.image_name].append(float(np.median(np.diff(starts))))
        try:
            mask = decode_rle(row.rle, size_hw)
        except ValueError as error:
            self.bad.append(f"line {line}: {row.image_name} {row.label}: {error}")
            return
        if mask.area:
            self.centres[row.image_name][row.label] = centre_of(mask)

    def table(self, names: Iterable[str], labels: LabelSpace) -> Complex:
        """Return the centres of some images' masks, complex (n, C); NaN without the class."""
        nowhere = complex(np.nan, np.nan)
        rows = [[self.centres[n].get(label, nowhere) for label in labels.names] for n in names]
        return np.array(rows, np.complex128).reshape(len(rows), len(labels))


def review(
    path: Path,
    images: Sequence[Image],
    labels: LabelSpace,
    annotations: Annotations | None = None,
) -> Review:
    """Look at a submission: rows, order, names, codes, the size and the order of their pixels.

    Of a kind of problem the first twenty are listed.

    Args:
        path: the submission.
        images: what it has to cover, in the order it has to come.
        labels: the classes, in the order they have to come.
        annotations: where masks of such images lie; None leaves that out.

    Raises:
        ValueError: the file cannot be read as a submission.
    """
    sizes = {image.name: image.size_hw for image in images}
    expected = [(image.name, label) for image in images for label in labels.names]
    # One pair for both lists: a file may have a million rows.
    pairs = {pair: pair for pair in expected}
    found: list[RowKey] = []
    lines: list[int] = []
    codes = _Codes()
    for row, place in read_places(path):
        pair = row.image_name, row.label
        found.append(pairs.setdefault(pair, pair))
        lines.append(place.line)
        if row.image_name in sizes:
            codes.add(row, place.line, sizes[row.image_name])
    del pairs
    if mistaken := _mistaken(expected, found):
        return Review((mistaken,), ())
    problems = _pair_problems(expected, found, lines)
    written = _size_problems(codes, sizes)
    problems += written or _turn_problems(codes, sizes, labels, annotations)
    problems += _listed("other codes", codes.bad)
    if found and codes.empty.total() == len(found):
        problems.append(f"all {len(found)} masks are empty")
    notes = [*_notes(codes, sizes, labels), *_shift_notes(codes, labels, annotations)]
    return Review(tuple(problems), tuple(notes))


def _mistaken(expected: Sequence[RowKey], found: Sequence[RowKey]) -> str:
    """Say what is wrong with the file as a whole, which would else be said of each row; or ""."""
    names, _ = _unzip(expected)
    there, classes = _unzip(found)
    if not found or not names.keys().isdisjoint(there):
        return "" if found else f"expected {len(expected)} rows, found 0"
    if classes.keys() <= names.keys():
        pair = " and ".join(map(repr, found[0]))
        return f"line 2: expected an image and its class, found {pair}: columns look exchanged"
    stems = {Path(name).stem: name for name in names}
    if Path(found[0][0]).stem in stems and all(Path(name).stem in stems for name in there):
        name = found[0][0]
        want = f"expected '{stems[Path(name).stem]}', found '{name}'"
        return f"line 2: {want}: images go by their file's name, without folder, with suffix"
    return ""


def _listed(more: str, lines: Sequence[str]) -> list[str]:
    rest = len(lines) - AT_MOST_LISTED
    return [*lines[:AT_MOST_LISTED], *([f"{more}: {rest} more"] if rest > 0 else [])]


def _pair_problems(
    expected: Sequence[RowKey], found: Sequence[RowKey], lines: Sequence[int]
) -> list[str]:
    names, labels = _unzip(expected)
    there, classes = _unzip(found)
    known = set(expected)
    counts = Counter(found)
    per_class = Counter(label for _, label in found)
    absent = [n for n in names if n not in there]
    unused = [label for label in labels if label not in classes]
    missing = [
        (n, label) for n, label in expected if (n, label) not in counts
        and n in there and label in classes
    ]  # fmt: skip
    kinds = {
        "unexpected image": [n for n in there if n not in names],
        "unknown class": [f"{c} ({per_class[c]} rows)" for c in classes if c not in labels],
        "missing image": absent,
        "missing class": [", ".join(unused)] if unused else [],
        "missing": [f"{n} {label}" for n, label in missing],
        "comes twice": [f"{n} {label}" for (n, label), k in counts.items() if k > 1],
    }
    problems = []
    if len(found) != len(expected):
        problems.append(f"expected {len(expected)} rows, found {len(found)}")
    for kind, items in kinds.items():
        problems += _listed(kind, [f"{kind}: {item}" for item in items])
    if not problems and known and list(found) != list(expected):
        at = next(i for i, pair in enumerate(found) if pair != expected[i])
        want, got = " ".join(expected[at]), " ".join(found[at])
        problems.append(
            f"line {lines[at]}: expected {want}, found {got}: rows are out of order; "
            "`zoo fuse` with --data puts them in order"
        )
    return problems


def _unzip(pairs: Iterable[RowKey]) -> tuple[dict[str, None], dict[str, None]]:
    """Return the images and the classes of pairs, each once, in their order."""
    names: dict[str, None] = {}
    labels: dict[str, None] = {}
    for name, label in pairs:
        names[name] = labels[label] = None
    return names, labels


def _share_near(steps: Sequence[float], middle: float) -> float:
    return float(np.mean(np.abs(np.asarray(steps) - middle) <= _NEAR * middle))


def _size_problems(codes: _Codes, sizes: dict[str, tuple[int, int]]) -> list[str]:
    """Say at which size the codes look written, where that is not the images'.

    A code has about one run a row of the image, each a row's length behind the one before. Where
    an image's codes do not agree on that, masks are torn, and tell nothing of a size.
    """
    lengths = {
        name: middle
        for name, steps in codes.steps.items()
        if _share_near(steps, middle := float(np.median(steps))) >= _LEAST_SHARE
    }
    if not lengths:
        return []
    ratio = float(np.median([length / sizes[name][1] for name, length in lengths.items()]))
    if abs(ratio - 1) <= _OTHER_ROW_LENGTH:
        return []
    (height, width), _ = Counter(sizes[name] for name in lengths).most_common(1)[0]
    seems = round(ratio * width)
    apart = f"runs follow each other every {seems} pixels, the images are {width} wide"
    if abs(seems / height - 1) <= _OTHER_ROW_LENGTH:
        return [f"size: {apart}: the codes seem to go column by column"]
    guess = f"{round(ratio * height)} x {seems}"
    return [f"size: {apart}: the codes seem to be written at about {guess}, not {height} x {width}"]


def _turn_problems(
    codes: _Codes,
    sizes: dict[str, tuple[int, int]],
    labels: LabelSpace,
    annotations: Annotations | None,
) -> list[str]:
    """Say which way the masks look turned, beside the annotated ones."""
    if annotations is None or annotations.layouts is None:
        return []
    names = list(codes.centres)
    is_square = np.array([sizes[name][0] == sizes[name][1] for name in names], np.bool_)
    found = annotations.layouts.suspect(codes.table(names, labels), is_square)
    return [_turned(found)] if found else []


def _turned(found: Turned) -> str:
    where = f"on {found.fitting} of {found.images} images the masks look {found.turn}"
    if found.turn != "transposed":
        return f"layout: {where} beside the annotated ones; expected them as the images lie"
    return (
        f"layout: {where} beside the annotated ones: the codes seem to go column by column, as "
        "COCO's do; expected row by row, counted from 1: encode mask.ravel(), not mask.T.ravel()"
    )


def _shift_notes(codes: _Codes, labels: LabelSpace, annotations: Annotations | None) -> list[str]:
    """Say where codes look counted from another pixel than 1, where the images are annotated."""
    known = annotations.centres if annotations else {}
    names = [name for name in codes.centres if name in known]
    if not names:
        return []
    true = np.array([known[name] for name in names])
    shift = shift_px(codes.table(names, labels), true)
    if shift is None:
        return []
    where = f"{abs(shift):.1f} pixels to the {'left' if shift < 0 else 'right'} of the annotations"
    first = 0 if shift < 0 else 2
    return [f"shift: masks lie {where}: do the codes count pixels from {first}? expected from 1"]


def _notes(codes: _Codes, sizes: dict[str, tuple[int, int]], labels: LabelSpace) -> list[str]:
    notes = []
    if labels.once and codes.empty:
        listed = [f"{label} {n}" for label, n in codes.empty.most_common(AT_MOST_LISTED)]
        if rest := len(codes.empty) - len(listed):
            listed.append(f"{rest} more classes")
        notes.append(f"{codes.empty.total()} masks are empty: {', '.join(listed)}")
    filled = [end / (sizes[n][0] * sizes[n][1]) for n, end in codes.ends.items()]
    if len(filled) >= _IMAGES_THAT_TELL and max(filled) <= 0.5:
        share = f"{100 * max(filled):.0f} %"
        notes.append(f"size: no mask reaches beyond the first {share} of its image's rows")
    unusual = []
    for label, areas in codes.areas.items():
        usual = float(np.median([area for area, _ in areas]))
        for area, name in areas if len(areas) >= _IMAGES_THAT_TELL else ():
            if not usual / _OTHER_AREA <= area <= usual * _OTHER_AREA:
                unusual.append(f"area: {name} {label}: {area} pixels, usual are {usual:.0f}")
    return notes + _listed("area", unusual)

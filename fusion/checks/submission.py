"""What is wrong with a submission, and what is odd about it."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.masks import decode_rle
from converters.types import LabelSpace
from fusion.arrays import Complex, Floats
from fusion.checks.orientation import (
    FEWEST_PEOPLE,
    Annotations,
    Displaced,
    centre_of,
    displaced,
    shift_px,
)
from fusion.sources.places import Integers, Numbering, as_integers
from fusion.sources.submission import Image, RleRow, read_places

AT_MOST_LISTED = 20
# A code of fewer runs says little about the length of the image's rows.
_RUNS_THAT_TELL = 8
_IMAGES_THAT_TELL = 8
# Of an image's codes, this share agrees so closely on the row's length where masks are whole.
_LEAST_SHARE, _NEAR = 0.5, 0.05
_OTHER_ROW_LENGTH = 0.05
_OTHER_AREA = 8.0


@dataclass(frozen=True)
class Review:
    """What a look at a submission found, one line each.

    Attributes:
        problems: why it would be refused, or scored as something else than it was meant to be.
        notes: what is allowed but unlikely, such as a class that is missing.
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...]


class _Rows:
    """The rows of a file: which image and class, and what their codes look like.

    Gathered row by row, without pixels, in some 70 bytes a row: a file may have a million.
    """

    def __init__(self) -> None:
        self.images, self.labels = Numbering(), Numbering()
        self._image, self._label, self._line = array("i"), array("i"), array("q")
        self.bad: list[str] = []
        self.empty: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self._areas = _Columns("iiq")  # class, image, pixels
        self._steps = _Columns("id")  # image, pixels from run to run
        self._centres = _Columns("iidd")  # image, class, x, y

    def __len__(self) -> int:
        return len(self._image)

    def add(self, row: RleRow, line: int, size_hw: tuple[int, int] | None) -> None:
        """Take down one row; with its code where the image is known."""
        image, label = self.images(row.image_name), self.labels(row.label)
        self._image.append(image)
        self._label.append(label)
        self._line.append(line)
        if size_hw is not None:
            self._look(row, image, label, line, size_hw)

    def _look(
        self, row: RleRow, image: int, label: int, line: int, size_hw: tuple[int, int]
    ) -> None:
        if not row.rle:
            self.empty[row.label] += 1
            return
        try:
            numbers = np.array(row.rle.split(), np.int64)
            starts, lengths = numbers[0 : len(numbers) // 2 * 2].reshape(-1, 2).T
        except (OverflowError, ValueError):
            starts = lengths = np.zeros(0, np.int64)
        if len(starts):
            self._areas.add(label, image, int(lengths.sum()))
            end = int(starts[-1] + lengths[-1] - 1)
            self.ends[row.image_name] = max(self.ends[row.image_name], end)
        if len(starts) >= _RUNS_THAT_TELL:
            self._steps.add(image, float(np.median(np.diff(starts))))
        try:
            mask = decode_rle(row.rle, size_hw)
        except ValueError as error:
            self.bad.append(f"line {line}: {row.image_name} {row.label}: {error}")
            return
        if mask.area:
            centre = centre_of(mask)
            self._centres.add(image, label, centre.real, centre.imag)

    @property
    def pairs(self) -> tuple[Integers, Integers]:
        """The numbers of images and classes of the rows, int64 (rows,) each."""
        return as_integers(self._image), as_integers(self._label)

    def line(self, row: int) -> int:
        """Return the line in which a row ends, from 1."""
        return self._line[row]

    def areas(self) -> Iterator[tuple[str, Integers, Integers]]:
        """Yield each class with its images' numbers and their pixels, in the order of rows."""
        labels, images, areas = self._areas.arrays()
        names = self.labels.texts
        for label, rows in _grouped(labels):
            yield names[label], images[rows], areas[rows]

    def steps(self) -> Iterator[tuple[str, Floats]]:
        """Yield each image with how far its codes' runs are apart, one number a code."""
        images, steps = self._steps.arrays()
        names = self.images.texts
        for image, rows in _grouped(images):
            yield names[image], steps[rows]

    @property
    def centred(self) -> list[str]:
        """The images with a mask that has pixels, in their order."""
        names = self.images.texts
        return [names[image] for image, _ in _grouped(self._centres.arrays()[0])]

    def table(self, names: Sequence[str], labels: LabelSpace) -> Complex:
        """Return the centres of some images' masks, complex (n, C); NaN without the class."""
        found = np.full((len(names), len(labels)), complex(np.nan, np.nan))
        row_of = {name: row for row, name in enumerate(names)}
        column_of = [labels.index.get(label, -1) for label in self.labels.texts]
        rows = [row_of.get(name, -1) for name in self.images.texts]
        images, classes, x, y = self._centres.arrays()
        if len(images):
            at = np.array(rows)[images], np.array(column_of)[classes]
            wanted = (at[0] >= 0) & (at[1] >= 0)
            found[at[0][wanted], at[1][wanted]] = (x + 1j * y)[wanted]
        return found


class _Columns:
    """A table that grows row by row; a letter of `array` for each column."""

    def __init__(self, kinds: str) -> None:
        self._columns: list[array[Any]] = [array(kind) for kind in kinds]

    def add(self, *values: float) -> None:
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)

    def arrays(self) -> list[npt.NDArray[Any]]:
        return [np.frombuffer(column, np.dtype(column.typecode)) for column in self._columns]


def _grouped(keys: npt.NDArray[Any]) -> Iterator[tuple[int, Integers]]:
    """Yield each key, in the order of its first row, with the numbers of its rows."""
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    parts = np.split(order, starts[1:]) if len(found) else []
    yield from sorted(zip(found.tolist(), parts, strict=True), key=lambda pair: pair[1][0])


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
    rows = _Rows()
    for row, place in read_places(path):
        rows.add(row, place.line, sizes.get(row.image_name))
    if mistaken := _mistaken(list(sizes), labels, rows):
        return Review((mistaken,), ())
    problems = _pair_problems(list(sizes), labels, rows)
    written = _size_problems(rows, sizes)
    sizes_hw, centres, true = _beside_annotations(rows, sizes, labels, annotations)
    beside = displaced(centres, true, sizes_hw)
    problems += written or _turn_problems(rows, sizes, labels, annotations, beside)
    problems += _listed("other codes", rows.bad)
    if len(rows) and rows.empty.total() == len(rows):
        problems.append(f"all {len(rows)} masks are empty")
    notes = [*_notes(rows, sizes, labels), *_shift_notes(shift_px(centres, true))]
    notes += _place_notes(annotations, beside)
    return Review(tuple(problems), tuple(notes))


def _mistaken(names: Sequence[str], labels: LabelSpace, rows: _Rows) -> str:
    """Say what is wrong with the file as a whole, which would else be said of each row; or ""."""
    known, there = set(names), rows.images.texts
    if not len(rows) or not known.isdisjoint(there):
        return "" if len(rows) else f"expected {len(names) * len(labels)} rows, found 0"
    if set(rows.labels.texts) <= known:
        pair = f"{there[0]!r} and {rows.labels.texts[0]!r}"
        return f"line 2: expected an image and its class, found {pair}: columns look exchanged"
    stems = {Path(name).stem: name for name in names}
    if all(Path(name).stem in stems for name in there):
        want = f"expected '{stems[Path(there[0]).stem]}', found '{there[0]}'"
        return f"line 2: {want}: images go by their file's name, without folder, with suffix"
    return ""


def _listed(more: str, lines: Sequence[str]) -> list[str]:
    rest = len(lines) - AT_MOST_LISTED
    return [*lines[:AT_MOST_LISTED], *([f"{more}: {rest} more"] if rest > 0 else [])]


def _pair_problems(names: Sequence[str], labels: LabelSpace, rows: _Rows) -> list[str]:
    there, classes = rows.images.texts, rows.labels.texts
    images, numbers = rows.pairs
    expected_rows = len(names) * len(labels)
    per_class = np.bincount(numbers, minlength=len(classes)).tolist()
    unused = [label for label in labels.names if label not in classes]
    known, seen = set(names), set(there)
    pair = images * max(len(classes), 1) + numbers
    _, first, times = np.unique(pair, return_index=True, return_counts=True)
    twice = np.sort(first[times > 1]).tolist()
    kinds = {
        "unexpected image": [n for n in there if n not in known],
        "unknown class": [
            f"{c} ({n} rows)"
            for c, n in zip(classes, per_class, strict=True)
            if c not in labels.index
        ],
        "missing image": [n for n in names if n not in seen],
        "missing class": [_unused(unused, labels)] if unused else [],
        "missing": list(_missing(names, labels, rows)),
        "comes twice": [f"{there[images[row]]} {classes[numbers[row]]}" for row in twice],
    }
    problems = []
    if len(rows) != expected_rows:
        problems.append(f"expected {expected_rows} rows, found {len(rows)}")
    for kind, items in kinds.items():
        problems += _listed(kind, [f"{kind}: {item}" for item in items])
    return problems or _order_problems(names, labels, rows)


def _unused(unused: Sequence[str], labels: LabelSpace) -> str:
    """Say which classes have no row, and what to do where others alone are meant."""
    hint = "; where the others alone are meant, name these: --labels A,B"
    return ", ".join(unused) + (hint if len(unused) < len(labels) else "")


def _missing(names: Sequence[str], labels: LabelSpace, rows: _Rows) -> Iterator[str]:
    """Yield image and class of which there is no row, though there are rows of both."""
    column_of = np.array([labels.index.get(label, -1) for label in rows.labels.texts], np.int64)
    row_of = {name: row for row, name in enumerate(names)}
    place_of = np.array([row_of.get(name, -1) for name in rows.images.texts], np.int64)
    images, numbers = rows.pairs
    if not len(images):
        return
    at = place_of[images], column_of[numbers]
    wanted = (at[0] >= 0) & (at[1] >= 0)
    is_there = np.zeros((len(names), len(labels)), np.bool_)
    is_there[at[0][wanted], at[1][wanted]] = True
    # Of images and classes of which there is nothing at all something else is said.
    absent = ~is_there & np.isin(np.arange(len(names)), place_of)[:, None]
    absent &= np.isin(np.arange(len(labels)), column_of)[None]
    for image, label in np.argwhere(absent).tolist():
        yield f"{names[image]} {labels.names[label]}"


def _order_problems(names: Sequence[str], labels: LabelSpace, rows: _Rows) -> list[str]:
    """Say where rows that are all there are in another order."""
    row_of = {name: row for row, name in enumerate(names)}
    place_of = np.array([row_of[name] for name in rows.images.texts], np.int64)
    column_of = np.array([labels.index[label] for label in rows.labels.texts], np.int64)
    images, numbers = rows.pairs
    if not len(images):
        return []
    found = place_of[images] * len(labels) + column_of[numbers]
    others = np.flatnonzero(found != np.arange(len(found)))
    if not len(others):
        return []
    at = int(others[0])
    want = f"{names[at // len(labels)]} {labels.names[at % len(labels)]}"
    got = f"{rows.images.texts[images[at]]} {rows.labels.texts[numbers[at]]}"
    return [
        f"line {rows.line(at)}: expected {want}, found {got}: rows are out of order; "
        "`zoo fuse` with --data puts them in order"
    ]


def _share_near(steps: Floats, middle: float) -> float:
    return float(np.mean(np.abs(steps - middle) <= _NEAR * middle))


def _size_problems(rows: _Rows, sizes: dict[str, tuple[int, int]]) -> list[str]:
    """Say at which size the codes look written, where that is not the images'.

    A code has about one run a row of the image, each a row's length behind the one before. Where
    an image's codes do not agree on that, masks are torn, and tell nothing of a size.
    """
    lengths = {
        name: middle
        for name, steps in rows.steps()
        if _share_near(steps, middle := float(np.median(steps))) >= _LEAST_SHARE
    }
    if not lengths:
        return []
    ratio = float(np.median([length / sizes[name][1] for name, length in lengths.items()]))
    # Slanted edges lengthen or shorten the way from run to run; of many images it cancels out.
    is_sure = len(lengths) >= _IMAGES_THAT_TELL
    if abs(ratio - 1) <= (_OTHER_ROW_LENGTH if is_sure else 2 * _OTHER_ROW_LENGTH):
        return []
    (height, width), _ = Counter(sizes[name] for name in lengths).most_common(1)[0]
    seems = round(ratio * width)
    apart = f"runs follow each other every {seems} pixels, the images are {width} wide"
    if abs(seems / height - 1) <= _OTHER_ROW_LENGTH:
        return [f"size: {apart}: the codes seem to go column by column"]
    # Codes that end behind the pixels of that size were not written at it: their masks are specks.
    share = (ratio * (1 + _OTHER_ROW_LENGTH)) ** 2
    beyond = [n for n in lengths if rows.ends[n] > share * sizes[n][0] * sizes[n][1]]
    if 2 * len(beyond) > len(lengths):
        return []
    guess = f"{round(ratio * height)} x {seems}"
    return [f"size: {apart}: the codes seem to be written at about {guess}, not {height} x {width}"]


def _turn_problems(
    rows: _Rows,
    sizes: dict[str, tuple[int, int]],
    labels: LabelSpace,
    annotations: Annotations | None,
    beside: Displaced,
) -> list[str]:
    """Say which way the masks look turned, beside the annotated ones."""
    if turn := beside.turn:
        return [_turned(f"the masks look {turn} beside the annotations of the same images", turn)]
    if annotations is None or annotations.layouts is None:
        return []
    names = rows.centred
    is_square = np.array([sizes[name][0] == sizes[name][1] for name in names], np.bool_)
    found = annotations.layouts.suspect(rows.table(names, labels), is_square)
    if found is None:
        return []
    on = f"on {found.fitting} of {found.images} images"
    return [_turned(f"{on} the masks look {found.turn} beside the annotated ones", found.turn)]


def _beside_annotations(
    rows: _Rows,
    sizes: dict[str, tuple[int, int]],
    labels: LabelSpace,
    annotations: Annotations | None,
) -> tuple[list[tuple[int, int]], Complex, Complex]:
    """Return the sizes of the images that are annotated, the masks' centres and the true ones."""
    known = annotations.centres if annotations else {}
    names = [name for name in rows.centred if name in known]
    true = np.array([known[name] for name in names], np.complex128).reshape(-1, len(labels))
    return [sizes[name] for name in names], rows.table(names, labels), true


def _place_notes(annotations: Annotations | None, beside: Displaced) -> list[str]:
    """Say that masks lie far from the annotations, or that nobody knows which way is up."""
    if beside.is_far and not beside.turn:
        return [
            f"place: half of the masks lie more than {beside.share:.0%} of the image's side from "
            "their annotations: are they of these images, and not shifted?"
        ]
    if annotations and annotations.layouts is None and not annotations.centres:
        return [
            "layout: whether masks are turned was not looked at: expected annotated images of "
            f"{FEWEST_PEOPLE} patients or more"
        ]
    return []


def _turned(where: str, turn: str) -> str:
    if turn != "transposed":
        return f"layout: {where}; expected them as the images lie"
    return (
        f"layout: {where}: the codes seem to go column by column, as COCO's do; expected row by "
        "row, counted from 1: encode mask.ravel(), not mask.T.ravel()"
    )


def _shift_notes(shift: float | None) -> list[str]:
    """Say where codes look counted from another pixel than 1, where the images are annotated."""
    if shift is None:
        return []
    where = f"{abs(shift):.1f} pixels to the {'left' if shift < 0 else 'right'} of the annotations"
    first = 0 if shift < 0 else 2
    return [f"shift: masks lie {where}: do the codes count pixels from {first}? expected from 1"]


def _notes(rows: _Rows, sizes: dict[str, tuple[int, int]], labels: LabelSpace) -> list[str]:
    notes = []
    if labels.once and rows.empty:
        listed = [f"{label} {n}" for label, n in rows.empty.most_common(AT_MOST_LISTED)]
        if rest := len(rows.empty) - len(listed):
            listed.append(f"{rest} more classes")
        notes.append(f"{rows.empty.total()} masks are empty: {', '.join(listed)}")
    filled = [end / (sizes[n][0] * sizes[n][1]) for n, end in rows.ends.items()]
    if len(filled) >= _IMAGES_THAT_TELL and max(filled) <= 0.5:
        share = f"{100 * max(filled):.0f} %"
        notes.append(f"size: no mask reaches beyond the first {share} of its image's rows")
    unusual = []
    names = rows.images.texts
    for label, images, areas in rows.areas():
        usual = float(np.median(areas))
        is_odd = (areas < usual / _OTHER_AREA) | (areas > usual * _OTHER_AREA)
        for at in np.flatnonzero(is_odd) if len(areas) >= _IMAGES_THAT_TELL else ():
            unusual.append(
                f"area: {names[images[at]]} {label}: {areas[at]} pixels, usual are {usual:.0f}"
            )
    return notes + _listed("area", unusual)

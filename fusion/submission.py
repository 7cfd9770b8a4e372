"""The submission: a CSV with one row-major RLE per image and class."""

from __future__ import annotations

import csv
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from converters.masks import CropMask, decode_rle, encode_rle
from converters.types import LabelSpace
from fusion.types import Prediction

HEADER = ("image_name", "class", "rle")
AT_MOST_LISTED = 20


class Row(NamedTuple):
    """One line of a submission: image's base name, class name, code ("" is the empty mask)."""

    image_name: str
    label: str
    rle: str


class Image(NamedTuple):
    """An image that a submission has to cover."""

    name: str
    size_hw: tuple[int, int]


def encode(prediction: Prediction, image_name: str, labels: LabelSpace) -> Iterator[Row]:
    """Yield one row a class, in the label space's order."""
    for label in labels.names:
        mask = prediction.binary(label)
        yield Row(image_name, label, encode_rle(mask, prediction.size_hw))


def write(path: Path, rows: Iterable[Row]) -> int:
    """Write a submission, whole or not at all, and return the number of rows."""
    unfinished = path.with_name(path.name + ".partial")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            for row in rows:
                writer.writerow(row)
                count += 1
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def read(path: Path) -> Iterator[Row]:
    """Yield a submission's rows in the file's order.

    Raises:
        ValueError: no such file, not UTF-8, another header, or a row without three fields; names
            the line.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if tuple(header) != HEADER:
                raise ValueError(f"{path}: expected the header {','.join(HEADER)}, found {header}")
            for fields in reader:
                if len(fields) != len(HEADER):
                    found = f"{len(fields)} fields"
                    raise ValueError(
                        f"{path} line {reader.line_num}: expected 3 fields, found {found}"
                    )
                yield Row(*fields)
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a submission file, found none") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected CSV in UTF-8, found: {error}") from None


def read_masks(
    path: Path, images: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, dict[str, CropMask]]]:
    """Yield each image's name and masks; joined by name, whatever the order of the rows.

    Args:
        path: the submission.
        images: image name -> height, width.

    Raises:
        ValueError: an image that is not in `images`, a pair that comes twice, or a bad code.
    """
    codes: dict[str, dict[str, str]] = {}
    for row in read(path):
        if row.image_name not in images:
            raise ValueError(f"{path}: expected images of the data set, found '{row.image_name}'")
        if row.label in codes.setdefault(row.image_name, {}):
            raise ValueError(f"{path}: '{row.image_name}' '{row.label}' comes twice")
        codes[row.image_name][row.label] = row.rle
    for name, per_label in codes.items():
        masks = {}
        for label, rle in per_label.items():
            try:
                masks[label] = decode_rle(rle, images[name])
            except ValueError as error:
                raise ValueError(f"{path}: '{name}' '{label}': {error}") from None
        yield name, masks


def check(path: Path, images: Sequence[Image], labels: LabelSpace) -> list[str]:
    """Return what is wrong with a submission, one line each; an empty list means all is well.

    Args:
        path: the submission.
        images: what it has to cover, in the order it has to come.
        labels: the classes, in the order they have to come.
    """
    rows = list(read(path))
    sizes = {image.name: image.size_hw for image in images}
    expected = [(image.name, label) for image in images for label in labels.names]
    found = [(row.image_name, row.label) for row in rows]
    problems = _pair_problems(expected, found)
    for number, row in enumerate(rows, start=2):
        if row.image_name in sizes:
            try:
                decode_rle(row.rle, sizes[row.image_name])
            except ValueError as error:
                problems.append(f"line {number}: {row.image_name} {row.label}: {error}")
    empty = sum(not row.rle.strip() for row in rows)
    if rows and empty == len(rows):
        problems.append(f"all {empty} masks are empty")
    return problems


def _pair_problems(
    expected: Sequence[tuple[str, str]], found: Sequence[tuple[str, str]]
) -> list[str]:
    problems = []
    if len(found) != len(expected):
        problems.append(f"expected {len(expected)} rows, found {len(found)}")
    known = set(expected)
    twice = [pair for pair, count in Counter(found).items() if count > 1]
    foreign = [pair for pair in dict.fromkeys(found) if pair not in known]
    missing = sorted(known - set(found))
    for what, pairs in (("comes twice", twice), ("unexpected", foreign), ("missing", missing)):
        problems.extend(f"{what}: {name} {label}" for name, label in pairs[:AT_MOST_LISTED])
        if len(pairs) > AT_MOST_LISTED:
            problems.append(f"{what}: {len(pairs) - AT_MOST_LISTED} more")
    if not problems and list(found) != list(expected):
        at = next(i for i, pair in enumerate(found) if pair != expected[i])
        want, got = " ".join(expected[at]), " ".join(found[at])
        problems.append(f"line {at + 2}: expected {want}, found {got}: rows are out of order")
    return problems

"""Columns of metadata as numbers for a network: scales and categories of the training images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.files.json_files import dump_json, load_json
from converters.files.provenance import atomic_write_text
from zoo.data.reading import Row
from zoo.metadata.config import Kind

FILE = "metadata.json"
"""In a run folder: what the columns are like."""

Values = Mapping[str, object]
"""Key of a sample -> what a table or the data set says of it in a column; None: nothing."""

_MISSING = frozenset({"", "nan", "na", "n/a"})
# What has more is a name, a note or a number, and nothing that a network could learn.
_MOST_CATEGORIES = 64


@dataclass(frozen=True)
class Column:
    """A column, and how its values become numbers.

    Attributes:
        name: of the column.
        categories: its values in order; empty where they are numbers.
        mean: of the training images' numbers.
        deviation: likewise, the root of the mean square; 1 where all are the same.
    """

    name: str
    categories: tuple[str, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0

    @property
    def width(self) -> int:
        """How many numbers its value is: one, or one a category, of which one is 1."""
        return len(self.categories) or 1

    @property
    def score_name(self) -> str:
        """What a prediction of it is scored by, as `metrics.csv` calls it."""
        return f"val_{self.name}_{'accuracy' if self.categories else 'mae'}"

    def encode(self, value: object) -> list[float]:
        """Return a value as numbers, and 0, or zeros and 1 where it is missing.

        Raises:
            ValueError: a text where numbers are expected.
        """
        numbers = [0.0] * self.width
        text = as_text(value)
        if text is None or (self.categories and text not in self.categories):
            return [*numbers, 1.0]
        if self.categories:
            numbers[self.categories.index(text)] = 1.0
        elif (number := as_number(text)) is None:
            raise ValueError(f"'{self.name}': expected a number, found '{text:.40}'")
        else:
            numbers[0] = (number - self.mean) / self.deviation
        return [*numbers, 0.0]

    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        if self.categories:
            return {"name": self.name, "categories": list(self.categories)}
        return {"name": self.name, "mean": self.mean, "deviation": self.deviation}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Column:
        """Return what `record` gave.

        Raises:
            ValueError: other keys, or values of other types.
        """
        name, categories = record.get("name"), record.get("categories")
        if isinstance(name, str) and isinstance(categories, list) and categories:
            return cls(name, tuple(map(str, categories)))
        scale = record.get("mean"), record.get("deviation")
        if isinstance(name, str) and categories is None:
            match scale:
                case (int() | float() as mean, int() | float() as deviation) if deviation > 0:
                    return cls(name, (), float(mean), float(deviation))
        raise ValueError(f"expected a column's name and categories or scale, found {record!r:.80}")


def as_text(value: object) -> str | None:
    """Return a cell's text; None where it is missing.

    >>> as_text(" M "), as_text(7.0), as_text(float("nan")), as_text("N/A"), as_text(None)
    ('M', '7', None, None, None)
    """
    if value is None:
        return None
    is_whole = isinstance(value, float) and value.is_integer()
    text = str(int(value) if is_whole else value).strip()  # type: ignore[call-overload]
    return None if text.lower() in _MISSING else text


def as_number(text: str) -> float | None:
    """Return the finite number that a text is; None where it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def fit_column(name: str, kind: Kind, values: Values, keys: Collection[str], where: str) -> Column:
    """Return a column as training images have it.

    Args:
        name: of the column.
        kind: what its values are taken for.
        values: of all images.
        keys: the training images.
        where: the values come from, for messages.

    Raises:
        ValueError: no training image has a value, or there are too many categories, or numbers and
            texts.
    """
    texts = {key: text for key in keys if (text := as_text(values.get(key))) is not None}
    if not texts:
        raise ValueError(
            f"{where}: '{name}': expected values of the training images, found none of {len(keys)}"
        )
    numbers = {
        key: number for key, text in texts.items() if (number := as_number(text)) is not None
    }
    if kind == "number" or (kind == "auto" and numbers):
        if odd := next((key for key in texts if key not in numbers), None):
            hint = "" if kind == "number" else f", or columns: {{{name}: category}} for texts"
            raise ValueError(
                f"{where}: '{name}': expected numbers, found '{texts[odd]:.40}' of '{odd}'; mend "
                f"it, or leave it empty{hint}"
            )
        mean = statistics.fmean(numbers.values())
        deviation = math.sqrt(statistics.fmean((n - mean) ** 2 for n in numbers.values()))
        return Column(name, (), mean, deviation if deviation > 1e-9 * abs(mean) else 1.0)
    categories = tuple(sorted(set(texts.values())))
    if len(categories) > _MOST_CATEGORIES:
        raise ValueError(
            f"{where}: '{name}': expected at most {_MOST_CATEGORIES} categories, found "
            f"{len(categories)} of {len(texts)} training images: "
            f"{', '.join(categories):.80}; leave the column out"
        )
    return Column(name, categories)


@dataclass(frozen=True)
class Columns:
    """The columns of a run, in order.

    Attributes:
        columns: at least one.
        file: the table that they were read from; "" for the data set's own attributes.
    """

    columns: tuple[Column, ...]
    file: str = ""

    @property
    def names(self) -> list[str]:
        """Of the columns, in order."""
        return [column.name for column in self.columns]

    @property
    def widths(self) -> list[int]:
        """Of each column, how many numbers a row has of it, whether it is missing included."""
        return [column.width + 1 for column in self.columns]

    @property
    def missing(self) -> Row:
        """The row of an image of which nothing is known."""
        return self.encode({})

    def encode(self, values: Mapping[str, object]) -> Row:
        """Return the row of an image: column after column its numbers, and 1 where it is missing.

        Args:
            values: name of a column -> its value; what is not there is missing.

        Raises:
            ValueError: a text where numbers are expected.
        """
        parts = (column.encode(values.get(column.name)) for column in self.columns)
        return np.array([number for part in parts for number in part], np.float32)

    def unknown(self, values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
        """Yield columns with a category of an image that no training image has: name, category."""
        for column in self.columns:
            text = as_text(values.get(column.name))
            if column.categories and text is not None and text not in column.categories:
                yield column.name, text

    def record(self) -> dict[str, Any]:
        """Return them as plain values."""
        return {"file": self.file, "columns": [column.record() for column in self.columns]}

    @classmethod
    def of_record(cls, record: object) -> Columns:
        """Return what `record` gave.

        Raises:
            ValueError: no columns, or other ones than `Column.record` gives.
        """
        found = record if isinstance(record, dict) else {}
        columns = found.get("columns")
        if not isinstance(columns, list) or not columns:
            raise ValueError(f"expected columns of metadata, found {record!r:.80}")
        read = (Column.of_record(one if isinstance(one, dict) else {}) for one in columns)
        return cls(tuple(read), str(found.get("file") or ""))

    def save(self, run: Path) -> None:
        """Leave them in a run folder."""
        atomic_write_text(run / FILE, dump_json(self.record()))

    @classmethod
    def load(cls, run: Path) -> Columns:
        """Read what `save` left.

        Raises:
            ValueError: no such file, or it is another one.
        """
        path = run / FILE
        if not path.is_file():
            raise ValueError(f"{path}: expected the columns of the run's metadata, found no file")
        found = load_json(path)
        try:
            return cls.of_record(found)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def check_same(first: Sequence[Column], second: Sequence[Column], path: Path) -> None:
    """Make sure that a run that continues sees the metadata that it began with.

    Raises:
        ValueError: names the first column that differs.
    """
    if differ := [b for a, b in zip(first, second, strict=False) if a != b]:
        raise ValueError(
            f"{path}: expected the metadata that the run began with, found others in the column "
            f"'{differ[0].name}'; take the table of then, or choose another --out"
        )

"""Where the rows of a submission stand, in a few bytes a row: files may have a million rows."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from fusion.sources.submission import RowSpan

Integers = npt.NDArray[np.int64]


class Numbering:
    """Gives each text a number, from 0, in the order in which they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        """Return a text's number; a new one for a new text."""
        return self._numbers.setdefault(text, len(self._numbers))

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts, by number."""
        return tuple(self._numbers)


class RowTable:
    """Rows as they come: image, class and place."""

    def __init__(self) -> None:
        self._images, self._labels = Numbering(), Numbering()
        self._image, self._label = array("i"), array("i")
        self._line, self._start, self._length = array("q"), array("q"), array("q")

    def add(self, image_name: str, label: str, place: RowSpan) -> None:
        """Take down one row."""
        self._image.append(self._images(image_name))
        self._label.append(self._labels(label))
        self._line.append(place.line)
        self._start.append(place.start)
        self._length.append(place.length)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in the order in which they come."""
        return self._labels.texts

    def first_twice(self) -> tuple[str, str, int] | None:
        """Return image, class and line of the first row whose image and class came before."""
        pair = as_integers(self._image) * max(len(self._labels), 1) + as_integers(self._label)
        first = np.unique(pair, return_index=True)[1]
        if len(first) == len(pair):
            return None
        again = np.ones(len(pair), np.bool_)
        again[first] = False
        row = int(again.argmax())
        names, labels = self._images.texts, self._labels.texts
        return names[self._image[row]], labels[self._label[row]], self._line[row]

    def places(self) -> RowPlaces:
        """Return the rows by image."""
        image = as_integers(self._image)
        order = np.argsort(image, kind="stable")
        bounds = np.searchsorted(image[order], np.arange(len(self._images) + 1))
        columns = (self._label, self._line, self._start, self._length)
        rows = [as_integers(column)[order] for column in columns]
        return RowPlaces(self._images.texts, self._labels.texts, bounds, rows)


class RowPlaces(Mapping[str, Mapping[str, RowSpan]]):
    """Image name -> class -> place, made when it is asked for.

    Args:
        names: of the images.
        labels: of the classes.
        bounds: int64 (images + 1,), where each image's rows begin.
        rows: class's number, line, start and length of each row, int64 (rows,) each.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        labels: tuple[str, ...],
        bounds: Integers,
        rows: list[Integers],
    ) -> None:
        self._number = {name: number for number, name in enumerate(names)}
        self._labels, self._bounds = labels, bounds
        small = [_smallest(column) for column in rows]
        self._label, self._line, self._start, self._length = small

    def __getitem__(self, name: str) -> Mapping[str, RowSpan]:
        number = self._number[name]
        rows = slice(int(self._bounds[number]), int(self._bounds[number + 1]))
        columns = (self._label, self._line, self._start, self._length)
        found = zip(*(column[rows].tolist() for column in columns), strict=True)
        return {self._labels[label]: RowSpan(*place) for label, *place in found}

    def __iter__(self) -> Iterator[str]:
        return iter(self._number)

    def __len__(self) -> int:
        return len(self._number)


def as_integers(column: array[int]) -> Integers:
    """Return an array's numbers, int64 (n,), as a copy."""
    return np.frombuffer(column, np.dtype(column.typecode)).astype(np.int64)


def _smallest(column: Integers) -> npt.NDArray[np.integer]:
    """The same numbers in as few bytes as they need."""
    return column.astype(np.min_scalar_type(int(column.max(initial=0))))

"""The rows of a table of run-length codes, whatever its columns are called."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from converters.errors import one_line
from converters.files.images import SUFFIXES, is_image
from converters.files.lines import delimiter_of
from converters.formats.rle_table.images import ImageIndex
from converters.formats.rle_table.options import Options

# What competitions call their columns, in lower case.
_IMAGE = (
    *("image", "imageid", "image_id", "image_name", "imagename", "img", "img_id", "filename"),
    *("file_name", "file", "id"),
)
# Columns of codes; those of the other names may hold something else beside one of these.
_CODES = ("rle", "encodedpixels", "encoded_pixels", "rle_mask")
_RLE = (*_CODES, "segmentation", "annotation", "mask")
_CLASS = (
    *("class", "classid", "class_id", "class_name", "label", "category", "category_id"),
    *("categoryid", "cell_type"),
)
# One column for both, such as `0002cc93b.jpg_1`.
_BOTH = ("imageid_classid", "image_label", "image_class", "id_class", "image_id_class_id")
# Of our own submissions.
_SUBMISSION = ("image_name", "class", "rle")
NO_NAME = "object"
"""The class of all objects of a table without classes, where nobody has named it."""
_NONE = frozenset({"", "-1", "nan", "none", "null"})
_WHOLE = re.compile(r"\d+\.0")
_LINE = 1 << 12
# Of `slide.jpg_vessel_wall` the image and the class.
_ENDINGS = "|".join(re.escape(suffix) for suffix in sorted(SUFFIXES))
_AFTER_SUFFIX = re.compile(rf"(.+?(?:{_ENDINGS}))_(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        line: in the file; the header is 1.
        image: what it says of the image.
        label: what it calls the class; "" where it has no classes, or no object.
        code: run lengths; "" where nothing is in the image.
        size_hw: height and width as they are written; "" where they are not.
    """

    line: int
    image: str
    label: str
    code: str
    size_hw: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Table:
    """A CSV file with an image and a run-length code in each row.

    Attributes:
        path: the file.
        options: what is known of its columns.
        is_known: tells whether an image is called so: where a column names image and class, both
            may have the mark that divides them.
    """

    path: Path
    options: Options
    is_known: Callable[[str], bool] = field(default=lambda name: False, compare=False, repr=False)

    @cached_property
    def header(self) -> tuple[str, ...]:
        """The names of the columns; none where the file has none."""
        try:
            return tuple(map(str.strip, next(_lines(self.path, errors="replace"), ())))
        except ValueError:
            return ()

    @cached_property
    def columns(self) -> Mapping[str, int]:
        """Of `image`, `class`, `both`, `rle`, `height` and `width`, the places of those it has."""
        names = [name.lower() for name in self.header]
        wanted = {"image": _IMAGE, "rle": _RLE, "class": _CLASS, "both": _BOTH}
        wanted |= {"height": ("height",), "width": ("width",)}
        for role, name in self.options.columns.items():
            wanted[role] = (name.lower(),)
        found = {
            role: names.index(known[0])
            for role, among in wanted.items()
            if (known := [name for name in among if name in names])
        }
        if "image" in self.options.columns:
            found.pop("both", None)
        return found

    @property
    def is_one(self) -> bool:
        """Whether it has an image and a code in each row."""
        return "rle" in self.columns and bool({"image", "both"} & self.columns.keys())

    @property
    def names_masks(self) -> bool:
        """Whether its first code is a file's name, as lists of images and their masks have it."""
        lines = _lines(self.path, errors="replace")
        try:
            rows = (row for row in islice(lines, 1, None) if len(row) == len(self.header))
            codes = (row[self.columns["rle"]].strip() for row in rows)
            return is_image(Path(next(filter(None, codes), "")))
        except ValueError:
            return False

    @property
    def is_submission(self) -> bool:
        """Whether it has the columns of our submissions."""
        return tuple(map(str.lower, self.header)) == _SUBMISSION

    @property
    def has_classes(self) -> bool:
        """Whether its rows say which class an object is of."""
        return bool({"class", "both"} & self.columns.keys())

    def rows(self) -> Iterator[Row | ValueError]:
        """Yield the rows, or what is wrong with one.

        Raises:
            ValueError: no text in UTF-8, quotes that do not end, or two columns that may be meant.
        """
        self._check_columns()
        lines = _lines(self.path)
        next(lines, None)
        for line, fields in enumerate(lines, 2):
            if any(map(str.strip, fields)):
                yield self._row(line, fields)

    def _check_columns(self) -> None:
        """Make sure that no other column may be the one that is taken, and tell otherwise."""
        for role, place in self.columns.items():
            own = self.header[place]
            if role in self.options.columns:
                continue  # It was chosen.
            others = _CODES if role == "rle" else (own.lower(),)
            found = [name for name in self.header if name.lower() in others]
            if len(found) > 1:
                raise ValueError(
                    f"expected one column '{own}', found {' and '.join(map(repr, found))}: leave "
                    "one of them"
                )

    def _row(self, line: int, fields: Sequence[str]) -> Row | ValueError:
        if len(fields) != len(self.header):
            return ValueError(
                f"row {line}: expected {len(self.header)} columns, found {len(fields)}"
            )
        written = {role: fields[place] for role, place in self.columns.items()}
        value = {role: field.strip() for role, field in written.items()}
        image, label = value.get("image", ""), value.get("class", "")
        if "both" in value:
            try:
                image, label = self._divided(value["both"])
            except ValueError as error:
                return ValueError(f"row {line}: {error}")
        code = "" if value["rle"].lower() in _NONE else value["rle"]
        if not image:
            return ValueError(f"row {line}: expected the name of an image, found none")
        if code and self.has_classes and not label:
            return ValueError(f"row {line}: expected the class of its object, found none")
        if not self.has_classes:
            label = self.options.object or NO_NAME
        elif (known := self.options.names.get(written.get("class", ""))) is not None:
            label = known  # to the letter, also with blanks at its ends
        else:
            # Tables with empty fields write whole numbers as 1.0.
            label = label.removesuffix(".0") if _WHOLE.fullmatch(label) else label
            label = self.options.names.get(label, label)
        return Row(line, image, label, code, (value.get("height", ""), value.get("width", "")))

    def _divided(self, text: str) -> tuple[str, str]:
        """Return image and class of a text that has both.

        Of several ways to divide it the one counts whose class another row has for certain.

        Raises:
            ValueError: nothing divides it, or it is not known what does.
        """
        ways = self._ways(text)
        if len(ways) > 1:
            ways = [way for way in ways if way[1] in self._certain] or ways
        if not ways:
            raise ValueError(f"expected IMAGE_CLASS, found '{text:.40}'")
        if len(ways) > 1:
            either = " or ".join(f"'{label:.40}' of '{image:.40}'" for image, label in ways)
            raise ValueError(
                f"expected IMAGE_CLASS, found '{text:.80}', which may be {either}: give image and "
                "class a column each"
            )
        return ways[0]

    @cached_property
    def _certain(self) -> frozenset[str]:
        """The classes that are named, and those of rows that can be divided in one way."""
        texts = (row[self.columns["both"]].strip() for row in self._cells())
        ways = map(self._ways, dict.fromkeys(texts))
        return frozenset(self.options.names) | {own[0][1] for own in ways if len(own) == 1}

    def _cells(self) -> Iterator[list[str]]:
        lines = islice(_lines(self.path), 1, None)
        return (row for row in lines if len(row) == len(self.header) and any(map(str.strip, row)))

    def _ways(self, text: str) -> list[tuple[str, str]]:
        """Return what may be image and class in a text that has both.

        The class is what follows the image's suffix, else the end that `rle_table.yaml` knows, and
        what follows the name of an image that is there.
        """
        if found := _AFTER_SUFFIX.fullmatch(text):
            return [(found[1], found[2])]
        marks = [place.start() for place in re.finditer("_", text)]
        pairs = [(text[:mark], text[mark + 1 :]) for mark in marks]
        named = [pair for pair in pairs if pair[1] in self.options.names]
        there = [pair for pair in pairs if self.is_known(pair[0])]
        both = [pair for pair in named if pair in there]
        return both or named[:1] or there or pairs[-1:]


def find_tables(root: Path, options: Options, home: Path | None = None) -> list[Table]:
    """Return the tables of a folder, sorted.

    Samples of submissions are none; what has the form of ours is one only where no other is.

    Args:
        root: the folder.
        options: what is known of their columns.
        home: where the images are, if it is not the folder.
    """
    tables = _all_tables(root, options, home)
    return [table for table in tables if not table.is_submission] or tables


def find_submissions(root: Path, options: Options) -> list[Table]:
    """Return the tables that `find_tables` passes over because others are there."""
    taken = find_tables(root, options)
    return [table for table in _all_tables(root, options) if table not in taken]


@dataclass
class _Names:
    """The names of a folder's images, looked up when one is asked for."""

    home: Path

    @cached_property
    def _images(self) -> ImageIndex:
        return ImageIndex(self.home)

    def __contains__(self, name: object) -> bool:
        return self._images.knows(str(name))


def _all_tables(root: Path, options: Options, home: Path | None = None) -> list[Table]:
    paths = sorted(path for path in root.glob("*.[cCtT][sS][vV]") if path.is_file())
    known = _Names(home or root).__contains__
    tables = [Table(path, options, known) for path in paths if not path.name.startswith(".")]
    found = [t for t in tables if t.is_one and "submission" not in t.path.stem.lower()]
    return [table for table in found if not table.names_masks]


def _lines(path: Path, errors: str = "strict") -> Iterator[list[str]]:
    # A code may be long.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with path.open(encoding="utf-8-sig", errors=errors, newline="") as file:
            first = file.readline(_LINE)
            file.seek(0)
            yield from csv.reader(file, strict=True, delimiter=delimiter_of(first))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"expected a CSV file in UTF-8, found: {one_line(error)}") from None

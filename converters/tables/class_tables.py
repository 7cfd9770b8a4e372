"""Tables of classes beside masks, as several programs and data sets have them.

    DATA/labelmap.txt           name:r,g,b:parts:actions        (CVAT)
    DATA/class_dict.csv         a header name,r,g,b, in any order, also with ; or tabs, and with
                                a column id; or labelmap.csv, label_class_dict.csv
    DATA/label_colors.txt       r g b name                      (CamVid, SYNTHIA)
    DATA/dataset_meta.json      label_map, segmentation_colors  (Datumaro)
    DATA/class_names.txt        names of the numbers from 0 on      (labelme2voc); where nothing
                                else names them, and they fit, also codes.txt (fastai), and
                                labels.txt or classes.txt, whose first is no class, or that has
                                as many names as the highest number, from 1 on
    DATA/id2label.json          {"0": "name", ...}                  (Hugging Face)
    DATA/config_v1.2.json       {"labels": [{"name": ..., "readable": ...}]}    (Mapillary Vistas)
    DATA/class_dict.csv         also without colours: id,name; or classes.csv
    DATA/_classes.csv           a header Pixel Value, Class; also in each part's folder (Roboflow)

Where numbers have names, 0 needs none: it is no class then. Of tables with colours the first that
is there is taken. The line of a class, counted from 0, is its
number in masks of numbers.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import dropwhile
from pathlib import Path

from converters.errors import one_line
from converters.files.json_files import load_json, read_json
from converters.files.lines import DELIMITERS, delimiter_of, read_lines
from converters.types import NO_CLASS

LABELMAP, CLASS_NAMES = "labelmap.txt", "class_names.txt"
_MAPILLARY, _UNLABELLED = "config_v*.json", "void--unlabeled"
_CODES, _LISTS, _IGNORE = "codes.txt", ("labels.txt", "classes.txt"), "__ignore__"
# What number 0 may be called beside, and what is a class where 0 is called otherwise (LoveDA).
_NO_DATA = NO_CLASS | {"nodata", "no data", "no-data", "no_data", "ignore", "ignored"}
_BACKGROUND = frozenset({"background", "bg", "_background_"})
_ID2LABEL, _PIXEL_VALUES = "id2label.json", "_classes.csv"
_COLOURS, _META = "label_colors.txt", "dataset_meta.json"
_TABLES = ("class_dict.csv", "label_class_dict.csv", "class_dict_seg.csv", "labelmap.csv")
# Those that have but numbers and names.
_PLAIN_TABLES = ("classes.csv",)
# What the columns of these tables are called: of the name, and of red, green and blue.
_COLUMNS = (
    ("name", "class", "class_name", "classname", "label"),
    *(("r", "red"), ("g", "green"), ("b", "blue")),
)
# Columns that may have the numbers, the likeliest first; pandas' index has no name.
_IDS = (
    *("pixel_value", "value", "id", "class_id", "classid", "label_id", "number", "index"),
    *("trainid", "train_id", ""),
)
_VOID = 255
Colour = tuple[int, ...]


def find_class_table(root: Path) -> Path | None:
    """Return the file in a folder that names the colours of masks; None where there is none."""
    names = (LABELMAP, *_TABLES, _COLOURS, _META)
    found = (root / name for name in names if os.path.lexists(root / name))
    return next((path for path in found if path.suffix != ".csv" or _names_colours(path)), None)


def _names_colours(path: Path) -> bool:
    """Tell a table of colours by its header: classifiers have files of these names, too."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = next(dropwhile(_says_nothing, file), "")
    except (OSError, UnicodeDecodeError):
        return False
    return _places_of_columns(header) is not None


def _places_of_columns(header: str) -> tuple[str, list[int]] | None:
    """Return what divides the cells of a table of colours, and where name, r, g, b are."""
    for delimiter in DELIMITERS:
        cells = [cell.strip(' "\r\n').casefold() for cell in header.split(delimiter)]
        found = [[i for i, cell in enumerate(cells) if cell in names] for names in _COLUMNS]
        # The name may be called anything where it is the first of four.
        found[0] = found[0] or ([0] if cells[1:4] == ["r", "g", "b"] else [])
        if all(len(places) == 1 for places in found):
            return delimiter, [place for (place,) in found]
    return None


def read_class_table(root: Path) -> dict[Colour, str] | None:
    """Return the colours of a folder's table, and what they are called; None without a table.

    Raises:
        ValueError: a table that cannot be read, or a name or a colour that comes twice.
    """
    path = find_class_table(root)
    if path is None:
        return None
    if path.name == _META:
        return _distinct(path, _of_meta(path))
    lines = read_lines(path)
    if path.suffix == ".csv":
        return _distinct(path, _of_csv(path, lines))
    return _distinct(path, _of_lines(path, lines))


def read_class_ids(root: Path) -> list[dict[int, str]]:
    """Return number -> name by each column of numbers of the table that `read_class_table` reads.

    The likeliest column is the first. A column in which a number comes twice, but 255 or one below
    0, is none, and these are left out.
    """
    path = find_class_table(root)
    if path is None or path.suffix != ".csv":
        return []
    lines = read_lines(path)
    _, (name, *_) = _places_of(path, lines)
    (_, first), *rows = _rows_of_csv(path, lines)
    header = [cell.casefold().replace(" ", "_") for cell in first]
    found = []
    for column in (header.index(column) for column in _IDS if column in header):
        cells = [(row[column] if column < len(row) else "", row[name]) for _, row in rows]
        kept = [
            (cell, own) for cell, own in cells if cell != str(_VOID) and not cell.startswith("-")
        ]
        numbers = {int(cell): own for cell, own in kept if cell.isdecimal()}
        if numbers and len(numbers) == len(kept):
            found.append(numbers)
    return found


def _of_lines(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, str, Colour]]:
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        if path.name == LABELMAP:
            name, _, rest = line.partition(":")
            values, form = rest.split(":")[0].split(","), "name:r,g,b"
        else:
            *values, name = line.split(maxsplit=3)
            form = "r g b name"
        if not name.strip() or (colour := _colour(values)) is None:
            raise ValueError(f"{path}: line {number}: expected {form}, found '{line:.40}'")
        yield number, name.strip(), colour


def _of_csv(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, str, Colour]]:
    places = _places_of(path, lines)[1]
    rows = _rows_of_csv(path, lines)
    next(rows)
    for number, cells in rows:
        name, *values = (cells[i] if i < len(cells) else "" for i in places)
        if not name or (colour := _colour(values)) is None:
            raise ValueError(f"{path}: line {number}: expected name,r,g,b, found '{cells}'"[:200])
        yield number, name, colour


def _rows_of_csv(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of a line, from 1 on, and its cells; first the header, no empty ones."""
    delimiter, _ = _places_of(path, lines)
    below = list(dropwhile(_says_nothing, lines))
    first = len(lines) - len(below) + 1
    rows = enumerate(_cells(path, below, delimiter), first)
    return ((number, cells) for number, cells in rows if number == first or any(cells))


def _says_nothing(line: str) -> bool:
    """Tell whether a line before the header is empty, or a comment."""
    return not line.strip() or line.startswith("#")


def _places_of(path: Path, lines: Sequence[str]) -> tuple[str, list[int]]:
    header = next(dropwhile(_says_nothing, lines), "")
    known = _places_of_columns(header)
    if known is None:
        raise ValueError(f"{path}: expected name,r,g,b in the first line, found another header")
    return known


def _cells(path: Path, lines: Iterable[str], delimiter: str = ",") -> Iterator[list[str]]:
    try:
        for row in csv.reader(lines, delimiter=delimiter):
            yield [cell.strip() for cell in row]
    except csv.Error as error:
        raise ValueError(f"{path}: expected a table (CSV), found {one_line(error)}") from None


def _of_meta(path: Path) -> Iterator[tuple[int, str, Colour]]:
    try:
        content = load_json(path)
        names, colours = content["label_map"], content["segmentation_colors"]
        ordered = [str(names[key]) for key in sorted(names, key=int)]
        found = [tuple(int(value) for value in colour) for colour in colours]
        if len(ordered) != len(found) or any(_colour(colour) is None for colour in found):
            raise ValueError("a colour r, g, b for each class")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected 'label_map' and 'segmentation_colors', found {one_line(error)}"
        ) from None
    yield from ((number, *pair) for number, pair in enumerate(zip(ordered, found, strict=True)))


def _colour(values: Iterable[object]) -> Colour | None:
    try:
        colour = tuple(int(str(value)) for value in values)
    except ValueError:
        return None
    return colour if len(colour) == 3 and all(0 <= value <= 255 for value in colour) else None


def _distinct(path: Path, rows: Iterable[tuple[int, str, Colour]]) -> dict[Colour, str]:
    found: dict[Colour, str] = {}
    for number, name, colour in rows:
        if found.setdefault(colour, name) != name:
            raise ValueError(f"{path}: line {number}: expected a colour of its own, found {colour}")
        if list(found.values()).count(name) > 1:
            raise ValueError(
                f"{path}: line {number}: expected one colour of '{name:.80}', found another"
            )
    return found


def read_class_names(root: Path) -> dict[int, str] | None:
    """Return the names of class numbers, of the first of the files that is there; None without any.

    What is no class has the name "".

    Raises:
        ValueError: a file that cannot be read, a name that comes twice, or files of a data set's
            parts that differ.
    """
    if os.path.lexists(path := root / CLASS_NAMES):
        names = _names_of(path)
        if "" in names[1:]:
            line = names.index("", 1) + 1
            raise ValueError(f"{path}: line {line}: expected the name of a class, found none")
        return _named(path, enumerate(names[1:] if names[:1] == [_IGNORE] else names))
    if os.path.lexists(path := root / _ID2LABEL):
        content = read_json(path, "numbers with names")
        pairs = content.items() if isinstance(content, dict) else ()
        for number, name in pairs:
            if not isinstance(name, str) or not (name.strip() or number == "0"):
                what = f"expected a name of number {number:.40}, found {json.dumps(name):.40}"
                raise ValueError(f"{path}: {what}")
        return _named(path, ((number, name.strip()) for number, name in pairs))
    if (listed := _of_mapillary(root)) is not None:
        return listed
    plain = (_of_numbers(root / name) for name in (*_TABLES, *_PLAIN_TABLES))
    if (numbered := next((found for found in plain if found is not None), None)) is not None:
        return numbered
    tables = ((folder, _of_pixel_values(folder)) for folder in (root, *sorted(root.glob("*"))))
    found = {folder: table for folder, table in tables if table is not None}
    first = next(iter(found), root)
    for folder, table in found.items():
        if table != found[first]:
            where = folder / _PIXEL_VALUES
            raise ValueError(f"{where}: expected the classes of {first}, found others")
    return found.get(first)


def read_listed_names(root: Path) -> dict[int, str]:
    """Return the names of class numbers by a list that no number stands in; {} without any.

    It is fastai's `codes.txt`, one of whose lines is no class, or a `labels.txt` or `classes.txt`
    whose first line is none: other lists of these names may count from 1 on, or be of something
    else. Lists that differ, or cannot be read, are none.
    """
    found: list[dict[int, str]] = []
    for path in (root / name for name in (_CODES, *_LISTS)):
        try:
            names = _names_of(path) if path.is_file() else []
            names = names[1:] if names[:1] == [_IGNORE] else names
            none = names if path.name == _CODES else names[:1]
            if all(names) and any(name.casefold() in NO_CLASS for name in none):
                found.append(_named(path, enumerate(names)))
        except (OSError, ValueError):
            continue
    return found[0] if found and all(own == found[0] for own in found) else {}


def read_bare_list(root: Path) -> tuple[Path, tuple[str, ...]] | None:
    """Return a `labels.txt` or `classes.txt` all of whose lines are classes; None without one.

    Which number its first class has it does not say. Lists that differ, or cannot be read, are
    none.
    """
    found: dict[Path, tuple[str, ...]] = {}
    for path in (root / name for name in _LISTS):
        try:
            names = tuple(_names_of(path)) if path.is_file() else ()
        except (OSError, ValueError):
            continue
        if names and all(names) and len(set(names)) == len(names):
            found[path] = names
    path = next(iter(found), root)
    is_bare = bool(found) and len(set(found.values())) == 1
    return (path, found[path]) if is_bare and found[path][0].casefold() not in NO_CLASS else None


def _names_of(path: Path) -> list[str]:
    names = [line.strip() for line in read_lines(path)]
    while names and not names[-1]:
        names.pop()
    return names


def _of_mapillary(root: Path) -> dict[int, str] | None:
    """Read Mapillary Vistas' list of classes; None without one, or with those of two versions."""
    found = []
    for path in sorted(root.glob(_MAPILLARY)):
        try:
            content = load_json(path)
        except (OSError, ValueError):
            continue  # of something else
        labels = content.get("labels") if isinstance(content, dict) else None
        if isinstance(labels, list) and all(isinstance(own, dict) for own in labels):
            names = [own.get("name") for own in labels if "readable" in own]
            if names and len(names) == len(labels) and all(isinstance(n, str) for n in names):
                found.append((path, names))
    if len(found) != 1:
        return None
    path, names = found[0]
    return _named(path, enumerate("" if n == _UNLABELLED else n for n in names))


def _of_numbers(path: Path) -> dict[int, str] | None:
    """Read a table of numbers and names without colours; None where there is none."""
    if not path.is_file() or _names_colours(path):
        return None
    lines = read_lines(path)
    mark = delimiter_of(lines[0]) if lines else ","
    rows = [cells for cells in _cells(path, lines, mark) if any(cells)]
    header = [cell.casefold().replace(" ", "_") for cell in rows[0]] if rows else []
    number = next((header.index(name) for name in _IDS if name and name in header), None)
    name = next((header.index(name) for name in _COLUMNS[0] if name in header), None)
    if number is None or name is None or number == name:
        return None
    needed = max(number, name)
    if short := next((cells for cells in rows if len(cells) <= needed), None):
        raise ValueError(f"{path}: expected a number and a name, found '{','.join(short):.60}'")
    return _named(path, ((cells[number], cells[name]) for cells in rows[1:]))


def _of_pixel_values(folder: Path) -> dict[int, str] | None:
    """Read Roboflow's table in a folder of images and masks; None where there is none."""
    path = folder / _PIXEL_VALUES
    if not path.is_file():
        return None
    rows = list(_cells(path, read_lines(path)))
    if not rows or [cell.casefold() for cell in rows[0]] != ["pixel value", "class"]:
        return None  # of a classifier
    pairs = [(line, row) for line, row in enumerate(rows[1:], 2) if any(row)]
    if lacking := [line for line, row in pairs if len(row) < 2 or not row[1]]:
        raise ValueError(f"{path}: line {lacking[0]}: expected a number and its class, found one")
    return _named(path, ((row[0], row[1]) for _, row in pairs))


def _named(path: Path, pairs: Iterable[tuple[int | str, str]]) -> dict[int, str]:
    found: dict[int, str] = {}
    for number, name in pairs:
        if not str(number).isdecimal():
            raise ValueError(f"{path}: expected numbers with names, found {number!r:.40}")
        if int(number) in found:
            raise ValueError(f"{path}: expected each number once, found {int(number)} twice")
        found[int(number)] = name
    has_other = found.get(0, "").casefold() in _NO_DATA - _BACKGROUND
    none = NO_CLASS - _BACKGROUND if has_other else NO_CLASS
    for number, name in found.items():
        if name.casefold() in (none if number not in (0, _VOID) else _NO_DATA):
            found[number] = ""
    if twice := [name for name in found.values() if name and [*found.values()].count(name) > 1]:
        raise ValueError(f"{path}: expected each class once, found '{twice[0]:.80}' twice")
    if not found:
        raise ValueError(f"{path}: expected numbers with names, found none")
    # What nothing names is no class, as in all masks.
    return {0: "", **found}

"""Lists and tables of test images beside a data set's files: which images they name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from converters.files.lines import TABLE_SUFFIXES
from converters.files.names import ends_of, normal_name, plain_path
from converters.subsets.keys import is_test_key
from converters.subsets.names import is_test_name, part_of
from converters.subsets.tables import (
    cell_of,
    decode_table,
    part_column,
    part_word,
    table_rows,
    tells_parts,
)
from converters.tables.image_columns import PERSON, are_files, order_columns

_Image = TypeVar("_Image", str, PurePosixPath)
_LISTS = (".txt", ".lst", *TABLE_SUFFIXES)
# Lists lie beside the images, or in such a folder.
_HOMES = re.compile(
    r"(image[ _-]?sets?|splits?|partitions?|subsets?|annotations?|(data|file|image)?[ _-]?lists?)",
    re.IGNORECASE,
)
# What follows the name of a patient in that of an image.
_BEHIND = re.compile(r"[_. -]")
# So many of the lines of a list name an image.
_MOST, _NEARLY_ALL = 0.5, 0.9
# Larger files hold more than names, such as codes of masks.
_LARGEST = 1 << 25


@dataclass(frozen=True)
class Listed:
    """What lists of test images say.

    Attributes:
        keys: of the images that they name.
        notes: what is to be said of them.
        parts: key -> `train` or `val`, of images to learn from of which tables say that.
    """

    keys: frozenset[str]
    notes: tuple[str, ...]
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _List:
    """What one list or table says of images, by their places.

    Attributes:
        tests: images to be answered.
        learned: others, and their part: `train`, `val`, or "" where a table says another word.
        lost: what it calls test images, and is none.
        has_parts: whether it is a table that tells test images and others apart.
        is_named: whether the column that does so is called so.
        rows: that name an image which is no test image.
    """

    tests: set[PurePosixPath] = field(default_factory=set)
    learned: dict[PurePosixPath, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    has_parts: bool = False
    is_named: bool = True
    rows: int = 0

    @property
    def size(self) -> int:
        return len(self.tests) + len(self.learned)


def find_test_lists(root: Path) -> list[Path]:
    """Return what may be lists of test images, in a data set's folder or in one of lists there.

    They are files such as `test.txt`, and tables that have a column of parts, such as `split`.
    """
    found = []
    homes = [root]
    for folder in homes:
        is_of_lists = folder != root or bool(_HOMES.fullmatch(root.name))
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            is_home = is_of_lists or _HOMES.fullmatch(path.name)
            if is_home and path.is_dir() and len(path.relative_to(root).parts) <= 2:
                homes.append(path)
            if path.suffix.lower() not in _LISTS or not path.is_file():
                continue
            is_list = is_test_name(path.stem) and not re.search(r"\d$", path.stem)
            if (is_list or tells_parts(path)) and path.stat().st_size <= _LARGEST:
                found.append(path)
    return found


def read_test_lists(
    root: Path,
    lists: Sequence[Path],
    keys: Mapping[str, str],
    images: Mapping[str, Path],
    files: Iterable[Path],
    *,
    of_parts: bool = False,
) -> Listed:
    """Read lists of test images, by names or paths of images that have no others like them.

    A path is one from the data set's folder on, or one of another computer, which is found by its
    end; not by less of it than what says `train` or `test`. A list of which most lines name no
    image is about other things.

    Args:
        root: the data set's folder.
        lists: those of `find_test_lists`.
        keys: key -> what tells whether it is of a test image already.
        images: key -> image, of those that may be named.
        files: all images, with these.
        of_parts: the parts of other images are asked for: test images may be elsewhere.
    """
    if not lists:
        return Listed(frozenset(), ())
    places: dict[PurePosixPath, str] = {_place(root, path): "" for path in files}
    places |= {_place(root, path): key for key, path in images.items()}
    index = _Places(places, (p for p, key in places.items() if not key or is_test_key(keys[key])))
    found: set[str] = set()
    told: dict[Path, tuple[set[str], dict[str, str]]] = {}
    notes = []
    homes = {path: PurePosixPath(path.parent.relative_to(root).as_posix()) for path in lists}
    read = {path: _read_list(path, home, index) for path, home in homes.items()}
    # What is called so says it better than what only looks so.
    is_sure = any(one.is_named and one.has_parts and one.size for one in read.values())
    for path, listed in read.items():
        if not listed.is_named and is_sure:
            continue
        is_lost = len(listed.lost) > listed.size and not of_parts
        if is_lost or not listed.size:
            if listed.has_parts and listed.is_named and not listed.size:
                notes.append(
                    f"{path}: tells which images are test images, but names none of these: it is "
                    "not used"
                )
            continue
        own = {places[place] for place in listed.tests} - {""}
        learned = {places[place]: part for place, part in listed.learned.items() if places[place]}
        if is_test_name(path.stem):
            found |= own
        else:
            # The folder in which an image lies is nearer to it than a table of all.
            own = {key for key in own if part_of(key.rpartition("/")[0]) != "train"}
            told[path] = own, learned
        if listed.lost:
            notes.append(
                f"{path}: left out {len(listed.lost)} lines that name no image "
                f"({listed.lost[0]:.60})"
            )
    tests = set[str]().union(*(own for own, _ in told.values()))
    parts: dict[str, str] = {}
    if tests.isdisjoint(set[str]().union(*(learned for _, learned in told.values()))):
        found |= tests
        said_of = _parts_of(pair for _, learned in told.values() for pair in learned.items())
        parts = {key: part for key, part in said_of.items() if part}
    else:
        said = ", ".join(path.relative_to(root).as_posix() for path in told)
        notes.append(f"{root}: tables tell the parts otherwise each, and none is believed ({said})")
    return Listed(frozenset(found), tuple(notes), parts)


def _place(root: Path, path: Path) -> PurePosixPath:
    return PurePosixPath(normal_name(path.relative_to(root).with_suffix("").as_posix()))


class _Places:
    """Where images lie below the data set's folder, without suffix, and what may mean one.

    Args:
        places: of all images.
        tests: those that are test images already.
    """

    def __init__(self, places: Iterable[PurePosixPath], tests: Iterable[PurePosixPath]) -> None:
        self.by_tail: dict[str, set[PurePosixPath]] = defaultdict(set)
        self.of_person: dict[str, set[PurePosixPath]] = defaultdict(set)
        self.tests = frozenset(tests)
        self.places = frozenset(places)
        for place in self.places:
            for end in ends_of(place.as_posix()):
                self.by_tail[end].add(place)
            name = place.name
            begins = (name[: mark.start()] for mark in _BEHIND.finditer(name))
            for word in {*place.parts[:-1], *begins, name}:
                self.of_person[word].add(place)


def _read_list(path: Path, home: PurePosixPath, index: _Places) -> _List:
    """Return what a list says; nothing where it is none.

    A table of all parts names others; what it calls both, in another fold perhaps, is one of these.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return _List()
    if path.suffix.lower() not in TABLE_SUFFIXES:
        try:
            lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
        except UnicodeDecodeError:
            return _List()  # not a list
        named = [_ways(line) for line in lines if line and not line.startswith("#")]
        return _best_column([named], None, home, index)
    rows = table_rows(decode_table(content))
    part, is_named = part_column(rows) if rows else (None, False)
    if not rows or (part is None and not is_test_name(path.stem)):
        return _List()
    order = order_columns(rows[0], rows[1:])
    columns = [[_ways(cell_of(row, i)) for row in rows[1:]] for i in order]
    if part is None:
        # A list may have no header.
        return _best_column([*columns, [_ways(row[0]) for row in rows]], None, home, index)
    told = [part_word(cell_of(row, part)) for row in rows[1:]]
    found = _best_column(columns, told, home, index)
    people = _of_people(rows, part, told, index)
    if people.size > found.size and people.size >= _NEARLY_ALL * len(index.places):
        return replace(people, is_named=is_named)
    # What only looks so may be about something else, and names a few images by chance.
    others = sum(one != "test" for one in told)
    are_most = found.size >= _MOST * len(index.places) and found.rows >= _NEARLY_ALL * others
    return replace(found, is_named=is_named) if is_named or are_most else _List()


def _best_column(
    columns: Sequence[Sequence[Sequence[str]]],
    parts: Sequence[str] | None,
    home: PurePosixPath,
    index: _Places,
) -> _List:
    """Return what the column says that names most images; of several as many the first.

    One of files, by their suffixes, goes before numbers that name a few images more.

    Args:
        columns: for each cell what it may call an image; the likeliest column first.
        parts: of each row; None where all are test images.
        home: where the list lies.
        index: the images.
    """
    has_parts = parts is not None and not {*parts} <= {"", "test"}
    fitting = []
    for column in columns:
        places = [_find_any(ways, home, index) for ways in column]
        named = set(filter(None, places))
        # Lines that name one image over and over speak of something else; not of objects, or folds.
        found = sum(place is not None for place in places)
        if named and (parts is not None or len(named) >= _MOST * found):
            fitting.append((len(named), column, places))
    most = max((count for count, *_ in fitting), default=0)
    files = [
        one
        for one in fitting
        if one[0] >= _MOST * most and are_files([w[0] for w in one[1] if w[0]])
    ]
    for count, column, places in files or fitting:
        if files or count == most:
            rows = list(zip(column, places, parts or ["test"] * len(places), strict=True))
            learned = _parts_of((p, part) for _, p, part in rows if p and part != "test")
            return _List(
                {place for _, place, part in rows if place and part == "test"} - learned.keys(),
                learned,
                [ways[0] for ways, place, part in rows if place is None and part == "test"],
                has_parts,
                rows=sum(place is not None for _, place, part in rows if part != "test"),
            )
    return _List(has_parts=has_parts)


def _parts_of(told: Iterable[tuple[_Image, str]]) -> dict[_Image, str]:
    """Return the part of each image, by its key or place; "" of one of several, as in folds."""
    found: dict[_Image, str] = {}
    for image, part in told:
        found[image] = part if found.get(image, part) == part else ""
    return found


def _of_people(
    rows: Sequence[Sequence[str]], part: int, parts: Sequence[str], index: _Places
) -> _List:
    """Return what a table says that has a row for each patient, as BIDS's `participants.tsv`.

    Their images lie in folders that are called as they, or have names that begin so.
    """
    header, *rest = rows
    found = _List(has_parts=not {*parts} <= {"", "test"})
    for place in (i for i, name in enumerate(header) if i != part and PERSON.search(name)):
        whose = [index.of_person.get(normal_name(cell_of(row, place)), set()) for row in rest]
        pairs = [(image, told) for own, told in zip(whose, parts, strict=True) for image in own]
        learned = _parts_of((image, told) for image, told in pairs if told != "test")
        tests = {image for image, told in pairs if told == "test"} - learned.keys()
        if len(tests) + len(learned) > found.size:
            found = _List(tests, learned, [], found.has_parts)
    return found


def _find_any(ways: Sequence[str], home: PurePosixPath, index: _Places) -> PurePosixPath | None:
    return next(filter(None, (_find(way, home, index) for way in ways)), None)


def _ways(line: str) -> list[str]:
    """Return what a line may call an image; a name may have spaces."""
    first = re.split(r"[,;\t]", line)[0].strip(' "')
    return list(dict.fromkeys((line.strip(' "'), first, first.split(" ")[0])))


def _find(way: str, home: PurePosixPath, index: _Places) -> PurePosixPath | None:
    """Return the one image that a path ends in; None where it is none, or may be several."""
    place = PurePosixPath(plain_path(way))
    plain = place.with_suffix("") if re.fullmatch(r"\.[A-Za-z]\w{1,4}", place.suffix) else place
    parts = plain.parts
    for exact in (home.joinpath(*parts), PurePosixPath(*parts)):
        # Of a bare name in the folder itself there may be others.
        if len(exact.parts) > 1 and exact in index.by_tail.get(exact.as_posix(), ()):
            return exact
    for first in range(len(parts)):
        if first and part_of(parts[first - 1]):
            return None
        found = index.by_tail.get("/".join(parts[first:]), set())
        if len(found) > 1:
            found = found.intersection(index.tests)
        if len(found) == 1:
            return next(iter(found))
        if found:
            return None
    return None

"""Which images of folders of masks are test images: by folders, names, and lists."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from converters.errors import Problems
from converters.files.lines import TABLE_SUFFIXES, delimiter_of
from converters.files.names import ends_of, normal_name
from converters.formats.writing import (
    is_test_key,
    is_test_name,
    part_name,
    part_of,
    with_test_keys,
)
from converters.tables.image_columns import PERSON, are_files, order_columns
from converters.types import SUBSET, Sample

_Image = TypeVar("_Image", str, PurePosixPath)
_LISTS = (".txt", ".lst", *TABLE_SUFFIXES)
# Lists lie beside the images, or in such a folder.
_HOMES = re.compile(
    r"(image[ _-]?sets?|splits?|partitions?|subsets?|annotations?|(data|file|image)?[ _-]?lists?)",
    re.IGNORECASE,
)
# A column that says of which part an image is, as in `split.csv`. One of another name whose cells
# are such words is believed where there is none of these names, and the table names most images.
_PART_COLUMN = re.compile(r"(data)?[ _-]?(split|subset|partition|phase)s?", re.IGNORECASE)
_PART = re.compile(r"train(ing)?|val(id|idation)?|dev|test(ing)?", re.IGNORECASE)
# What follows the name of a patient in that of an image.
_BEHIND = re.compile(r"[_. -]")
# So many of the lines of a list name an image.
_MOST, _NEARLY_ALL = 0.5, 0.9
# Larger files hold more than names, such as codes of masks.
_LARGEST, _BEGINNING = 1 << 25, 1 << 16


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


def find_test_keys(
    root: Path, images: Mapping[str, Path], files: Iterable[Path]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return key -> key of all images, and what is to be said of lists.

    The keys of test images lie in `test/`, or a folder like it. They are told by the folders that
    they lie in; by their names, where each begins, or ends, with `train` or `test`; and by lists,
    such as `test.txt`.

    Args:
        root: the data set's folder.
        images: key -> image, of those that have masks.
        files: all images, with these.
    """
    found = with_test_keys(images)
    listed = read_test_lists(root, find_test_lists(root), found, images, files)
    tests = _named_so(images) | listed.keys
    # What is to be answered has others beside it that can be learned from.
    if not {key for key, own in found.items() if not is_test_key(own)} <= tests:
        found |= {key: f"test/{key}" for key in tests if not is_test_key(found[key])}
    return _each_its_own(root, images, found), listed.notes


def _each_its_own(
    root: Path, images: Mapping[str, Path], keys: Mapping[str, str]
) -> dict[str, str]:
    """Return keys of which no two are the same: a list may name what lies beside `test`, too."""
    kept = {own for key, own in keys.items() if key == own}
    found = {}
    for key, own in keys.items():
        if key != own and own in kept:
            own = f"test/{images[key].relative_to(root).with_suffix('').as_posix()}"
        found[key] = own
    return found


def find_copies(images: Mapping[str, Path]) -> list[str]:
    """Return the keys of images to learn from that are a test image, too: the same file again.

    None where all are, as those of several folds.

    Args:
        images: key -> image.
    """
    tests = {(normal_name(i.name), _bytes_of(i)): i for k, i in images.items() if is_test_key(k)}
    learned = {} if not tests else {k: i for k, i in images.items() if not is_test_key(k)}
    found = []
    for key, image in learned.items():
        test = tests.get((normal_name(image.name), _bytes_of(image)))
        if test is not None and image.read_bytes() == test.read_bytes():
            found.append(key)
    return found if len(found) < len(learned) else []


def _bytes_of(path: Path) -> int:
    return path.stat().st_size


def _named_so(images: Mapping[str, Path]) -> set[str]:
    """The keys of images whose names say `test`, where each name says that or `train`."""
    words = {key: re.split(r"[\W_]+", path.stem) for key, path in images.items()}
    for at in (0, -1):
        parts = {key: part_of(own[at]) for key, own in words.items()}
        if {*parts.values()} == {"train", "test"}:
            return {key for key, part in parts.items() if part == "test"}
    return set()


# --- lists


def told_by_lists(
    root: Path, lists: Sequence[Path], samples: Sequence[Sample], problems: Problems
) -> list[Sample]:
    """Return samples of which those that lists call test images have keys in `test/`.

    Args:
        root: the data set's folder.
        lists: those of `find_test_lists`.
        samples: as their own format tells them apart.
        problems: is told what has to be said of lists.
    """
    images = {s.key: i for s in samples if isinstance(i := s.image, Path) and root in i.parents}
    listed = read_test_lists(root, lists, {key: key for key in images}, images, images.values())
    learned = {key for key in images if not is_test_key(key)}
    if learned <= listed.keys:
        return list(samples)
    for note in listed.notes:
        problems.note(note)
    renamed = {key: f"test/{key}" for key in learned & listed.keys}
    keys = _each_its_own(root, images, {key: renamed.get(key, key) for key in images})
    return [replace(one, key=keys.get(one.key, one.key)) for one in samples]


def with_parts(root: Path, samples: Sequence[Sample]) -> list[Sample]:
    """Return samples with the part, `train` or `val`, that tables say of them.

    What says it already keeps it; test images have none. A table that does not say it of all others
    says it of none.

    Args:
        root: the data set's folder.
        samples: of it.
    """
    lists = [path for path in find_test_lists(root) if path.suffix.lower() in TABLE_SUFFIXES]
    images = {s.key: i for s in samples if isinstance(i := s.image, Path) and root in i.parents}
    if not lists or not images or any(SUBSET in sample.attributes for sample in samples):
        return list(samples)
    keys = {key: key for key in images}
    told = read_test_lists(root, lists, keys, images, images.values(), of_parts=True).parts
    learned = {sample.key for sample in samples if not is_test_key(sample.key)}
    if not learned <= told.keys() or len({told[key] for key in learned}) < 2:
        return list(samples)
    return [
        replace(one, attributes={**one.attributes, SUBSET: told[one.key]})
        if one.key in learned
        else one
        for one in samples
    ]


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
            if (is_list or _tells_parts(path)) and _bytes_of(path) <= _LARGEST:
                found.append(path)
    return found


def _tells_parts(path: Path) -> bool:
    """Tell whether a file begins as a table with a column of parts."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        return False
    try:
        with path.open("rb") as file:
            content = file.read(_BEGINNING)
    except OSError:
        return False
    is_whole = len(content) < _BEGINNING
    header, *rest = _rows(_decode(content))[: None if is_whole else -1] or [[]]
    columns = [{_cell(row, i) for row in rest} for i in range(len(header))]
    return len(header) > 1 and any(
        _PART_COLUMN.fullmatch(name.strip()) or (cells and all(map(_PART.fullmatch, cells)))
        for name, cells in zip(header, columns, strict=True)
    )


def _part_column(rows: Sequence[Sequence[str]]) -> tuple[int | None, bool]:
    """Return the place of the column that says of each row `train`, `val` or `test`; None without.

    Args:
        rows: the header, and what follows.

    Returns:
        The place, and whether the column is called so. One of another name is meant where it has
        nothing but such words, in every row, and is the only one.
    """
    header, *rest = rows
    columns = [{_cell(row, i) for row in rest} for i in range(len(header))]
    named = [i for i, name in enumerate(header) if _PART_COLUMN.fullmatch(name.strip())]
    for place in named:
        cells = columns[place] - {""}
        if {"train", "test"} <= set(map(part_of, cells)) or cells == {"test"}:
            return place, True
    told = [
        place
        for place, cells in enumerate(columns)
        if all(map(_PART.fullmatch, cells)) and len(set(map(_part, cells))) > 1
    ]
    if own := [place for place in told if place in named]:
        return own[0], True
    return (told[0], False) if len(told) == 1 else (None, False)


def _part(cell: str) -> str:
    """Return `train`, `val` or `test` where a cell says one of them; "" otherwise."""
    return "test" if part_of(cell) == "test" else part_name(cell)


def _decode(content: bytes) -> str:
    """Return the text of a table, as spreadsheets write them, too."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _rows(text: str) -> list[list[str]]:
    """Return the rows of a table, from its header on; [] where it is no table.

    Empty lines, and comments that begin with `#`, are none; the header may begin so.
    """
    lines = text.splitlines()
    header = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(header)))
    except csv.Error:
        return []
    filled = [row for row in rows if any(map(str.strip, row))]
    noted = next((i for i, row in enumerate(filled) if not row[0].startswith("#")), len(filled))
    if noted and len(filled[noted - 1]) > 1 and noted < len(filled):
        first = filled[noted - 1]
        if any(_PART_COLUMN.fullmatch(name.lstrip("# ").strip()) for name in first):
            filled[noted - 1] = [first[0].lstrip("# "), *first[1:]]
    return [row for row in filled if not row[0].startswith("#")]


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
    rows = _rows(_decode(content))
    part, is_named = _part_column(rows) if rows else (None, False)
    if not rows or (part is None and not is_test_name(path.stem)):
        return _List()
    order = order_columns(rows[0], rows[1:])
    columns = [[_ways(_cell(row, i)) for row in rows[1:]] for i in order]
    if part is None:
        # A list may have no header.
        return _best_column([*columns, [_ways(row[0]) for row in rows]], None, home, index)
    told = [_part(_cell(row, part)) for row in rows[1:]]
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
        whose = [index.of_person.get(normal_name(_cell(row, place)), set()) for row in rest]
        pairs = [(image, told) for own, told in zip(whose, parts, strict=True) for image in own]
        learned = _parts_of((image, told) for image, told in pairs if told != "test")
        tests = {image for image, told in pairs if told == "test"} - learned.keys()
        if len(tests) + len(learned) > found.size:
            found = _List(tests, learned, [], found.has_parts)
    return found


def _cell(row: Sequence[str], place: int) -> str:
    """Return a cell of a row; "" where the row is too short."""
    return row[place].strip() if place < len(row) else ""


def _find_any(ways: Sequence[str], home: PurePosixPath, index: _Places) -> PurePosixPath | None:
    return next(filter(None, (_find(way, home, index) for way in ways)), None)


def _ways(line: str) -> list[str]:
    """Return what a line may call an image; a name may have spaces."""
    first = re.split(r"[,;\t]", line)[0].strip(' "')
    return list(dict.fromkeys((line.strip(' "'), first, first.split(" ")[0])))


def _find(way: str, home: PurePosixPath, index: _Places) -> PurePosixPath | None:
    """Return the one image that a path ends in; None where it is none, or may be several."""
    place = PurePosixPath(normal_name(way.replace("\\", "/")))
    plain = place.with_suffix("") if re.fullmatch(r"\.[A-Za-z]\w{1,4}", place.suffix) else place
    parts = [part for part in plain.parts if part not in ("/", ".", "..")]
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

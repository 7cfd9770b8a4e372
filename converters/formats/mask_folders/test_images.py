"""Which images of folders of masks are test images: by folders, names, and lists."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from converters.errors import Problems
from converters.files.lines import TABLE_SUFFIXES, delimiter_of, read_lines
from converters.files.names import normal_name
from converters.formats.writing import is_test_key, is_test_name, part_of, with_test_keys
from converters.types import Sample

_LISTS = (".txt", ".lst", *TABLE_SUFFIXES)
# Lists lie beside the images, or in such a folder.
_HOMES = re.compile(
    r"(image[ _-]?sets?|splits?|partitions?|subsets?|annotations?|(data|file|image)?[ _-]?lists?)",
    re.IGNORECASE,
)
# A column of images is called so; others may hold numbers that are names of images, too.
_COLUMN = re.compile(
    r"(.*[ _-])?(images?|img|file|filename|path|name|id|stem|key|case|slide|scan|sample)([ _-].*)?",
    re.IGNORECASE,
)
_OTHER_COLUMN = re.compile(r".*(mask|label|annot|seg|class|patient).*", re.IGNORECASE)
# A column that says of which part an image is, as in `split.csv`.
_PART_COLUMN = re.compile(r"(data)?[ _-]?(split|subset|partition|phase)s?", re.IGNORECASE)
# So many of the lines of a list name an image.
_MOST = 0.5
# Larger files hold more than names, such as codes of masks.
_LARGEST, _LONGEST = 1 << 25, 1 << 12


@dataclass(frozen=True)
class Listed:
    """What lists of test images say.

    Attributes:
        keys: of the images that they name.
        notes: what is to be said of them.
    """

    keys: frozenset[str]
    notes: tuple[str, ...]


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


def read_test_lists(
    root: Path,
    lists: Sequence[Path],
    keys: Mapping[str, str],
    images: Mapping[str, Path],
    files: Iterable[Path],
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
    """
    if not lists:
        return Listed(frozenset(), ())
    places: dict[PurePosixPath, str] = {_place(root, path): "" for path in files}
    places |= {_place(root, path): key for key, path in images.items()}
    known = {place: key for place, key in places.items() if not key or is_test_key(keys[key])}
    by_tail: dict[str, set[PurePosixPath]] = defaultdict(set)
    for place in places:
        for first in range(len(place.parts)):
            by_tail["/".join(place.parts[first:])].add(place)
    found: set[str] = set()
    told: dict[Path, tuple[set[str], set[str]]] = {}
    notes = []
    for path in lists:
        home = PurePosixPath(path.parent.relative_to(root).as_posix())
        named, others, lost = _read_list(path, home, by_tail, known.keys())
        if not named or len(lost) > len(named):
            continue
        own, learned = ({places[place] for place in own} - {""} for own in (named, others))
        if is_test_name(path.stem):
            found |= own
        else:
            # The folder in which an image lies is nearer to it than a table of all.
            own = {key for key in own if part_of(key.rpartition("/")[0]) != "train"}
            told[path] = own, learned
        if lost:
            notes.append(f"{path}: left out {len(lost)} lines that name no image ({lost[0]:.60})")
    tests = set[str]().union(*(own for own, _ in told.values()))
    if tests.isdisjoint(set[str]().union(*(learned for _, learned in told.values()))):
        found |= tests
    else:
        listed = ", ".join(path.relative_to(root).as_posix() for path in told)
        notes.append(
            f"{root}: tables tell the parts otherwise each, and none is believed ({listed})"
        )
    return Listed(frozenset(found), tuple(notes))


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
    """Tell whether a file is a table whose first line names a column of parts."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        return False
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(_rows([file.readline(_LONGEST)]), [])
    except (OSError, ValueError):
        return False
    return len(header) > 1 and _part_column([header]) is not None


def _part_column(rows: Sequence[Sequence[str]]) -> int | None:
    """Return the place of the column that says of each row `train`, `val` or `test`; None without.

    Args:
        rows: the header, and what follows; the header alone tells whether there may be one.
    """
    header, *rest = rows
    for place in (i for i, name in enumerate(header) if _PART_COLUMN.fullmatch(name.strip())):
        cells = {_cell(row, place) for row in rest if place < len(row) and any(row)}
        if not rest or {"train", "test"} <= set(map(part_of, cells)) or cells == {"test"}:
            return place
    return None


def _rows(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield the rows of a table; none where it is no table."""
    try:
        yield from csv.reader(lines, delimiter=delimiter_of(lines[0]))
    except (csv.Error, IndexError):
        return


def _read_list(
    path: Path,
    home: PurePosixPath,
    by_tail: Mapping[str, set[PurePosixPath]],
    tests: Collection[PurePosixPath],
) -> tuple[set[PurePosixPath], set[PurePosixPath], list[str]]:
    """Return the test images that a list names, others that it names, and lines that name none.

    A table of all parts names others; what it calls both, in another fold perhaps, is one of these.
    """
    try:
        lines = read_lines(path)
    except (OSError, ValueError):
        return set(), set(), []  # not a list
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    is_table = path.suffix.lower() in TABLE_SUFFIXES
    rows = list(_rows(lines)) if is_table and lines else []
    part = _part_column(rows) if rows else None
    if part is None and is_table and not is_test_name(path.stem):
        return set(), set(), []
    columns = _columns(rows) if is_table else [[_ways(line.strip()) for line in lines]]
    if part is not None:
        columns.pop()  # It has a header.
    best: tuple[set[PurePosixPath], set[PurePosixPath], list[str]] = set(), set(), []
    most = 0
    for column in columns:
        places = [_find_any(ways, home, by_tail, tests) for ways in column]
        named = set(filter(None, places))
        # Lines that name one image over and over speak of something else; not of objects, or folds.
        found = sum(place is not None for place in places)
        if (part is None and len(named) < _MOST * found) or len(named) <= most:
            continue
        most = len(named)
        if part is None:
            lost = [ways[0] for ways, place in zip(column, places, strict=True) if place is None]
            best = named, set(), lost
            continue
        are_tests = [part_of(_cell(row, part)) == "test" for row in rows[1:] if any(row)]
        told = list(zip(column, places, are_tests, strict=False))
        others = {place for _, place, is_test in told if place and not is_test}
        best = (
            {place for _, place, is_test in told if place and is_test} - others,
            others,
            [ways[0] for ways, place, is_test in told if place is None and is_test],
        )
    return best


def _cell(row: Sequence[str], place: int) -> str:
    """Return a cell of a row; "" where the row is too short."""
    return row[place].strip() if place < len(row) else ""


def _find_any(
    ways: Sequence[str],
    home: PurePosixPath,
    by_tail: Mapping[str, set[PurePosixPath]],
    tests: Collection[PurePosixPath],
) -> PurePosixPath | None:
    return next(filter(None, (_find(way, home, by_tail, tests) for way in ways)), None)


def _columns(rows: Sequence[Sequence[str]]) -> list[list[list[str]]]:
    """Return the columns of a table, those that are called as images first, a cell a list."""
    header, *rest = rows or [[]]
    order = sorted(
        range(len(header)),
        key=lambda i: (
            bool(_OTHER_COLUMN.fullmatch(header[i])),
            not _COLUMN.fullmatch(header[i]),
            _are_running([row[i] for row in rest if i < len(row)]),
            not header[i].strip(),
        ),
    )
    filled = [row for row in rest if any(row)]
    tables = [[_ways(_cell(row, i)) for row in filled] for i in order]
    # A list may have no header.
    return [*tables, [_ways(row[0]) for row in rows if row]]


def _are_running(cells: Sequence[str]) -> bool:
    """Tell whether cells are the numbers of their rows."""
    counted = [cell.strip() for cell in cells]
    return any(counted == [str(start + n) for n in range(len(cells))] for start in (0, 1))


def _ways(line: str) -> list[str]:
    """Return what a line may call an image; a name may have spaces."""
    first = re.split(r"[,;\t]", line)[0].strip(' "')
    return list(dict.fromkeys((line.strip(' "'), first, first.split(" ")[0])))


def _find(
    way: str,
    home: PurePosixPath,
    by_tail: Mapping[str, set[PurePosixPath]],
    tests: Collection[PurePosixPath],
) -> PurePosixPath | None:
    """Return the one image that a path ends in; None where it is none, or may be several."""
    place = PurePosixPath(normal_name(way.replace("\\", "/")))
    plain = place.with_suffix("") if re.fullmatch(r"\.[A-Za-z]\w{1,4}", place.suffix) else place
    parts = [part for part in plain.parts if part not in ("/", ".", "..")]
    for exact in (home.joinpath(*parts), PurePosixPath(*parts)):
        # Of a bare name in the folder itself there may be others.
        if len(exact.parts) > 1 and exact in by_tail.get(exact.as_posix(), ()):
            return exact
    for first in range(len(parts)):
        if first and part_of(parts[first - 1]):
            return None
        found = by_tail.get("/".join(parts[first:]), set())
        if len(found) > 1:
            found = found.intersection(tests)
        if len(found) == 1:
            return next(iter(found))
        if found:
            return None
    return None

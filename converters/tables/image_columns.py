"""Which column of a table names images, and which images its cells mean."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set

from converters.files.images import SUFFIXES
from converters.files.names import ends_of, plain_path

# A column of images is called so; others may hold numbers that are names of images, too.
_IMAGE = re.compile(
    r"(.*[ _-])?(images?|img|file|filename|path|name|id|stem|key|case|slide|scan|sample)([ _-].*)?",
    re.IGNORECASE,
)
PERSON = re.compile("patient|subject|person|participant", re.IGNORECASE)
_OTHER = re.compile(rf".*(mask|label|annot|seg|class|{PERSON.pattern}).*", re.IGNORECASE)
_SUFFIXES = SUFFIXES | {".gif", ".img"}
# A column of which so many cells have an image's suffix is one of files.
_MOST = 0.5


def order_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the places of a table's columns, the likeliest to name images first.

    Args:
        header: names of the columns; "" for those without.
        rows: their cells; a row may be too short.
    """

    def rank(place: int) -> tuple[bool, ...]:
        name = header[place].strip()
        cells = [row[place].strip() for row in rows if place < len(row) and row[place].strip()]
        is_running = any(cells == [str(start + n) for n in range(len(cells))] for start in (0, 1))
        return (
            bool(_OTHER.fullmatch(name)),
            not are_files(cells),
            not _IMAGE.fullmatch(name),
            is_running,
        )

    return sorted(range(len(header)), key=lambda place: (*rank(place), not header[place].strip()))


class ImageNames:
    """Finds images by paths and names in tables, which may be those of another computer.

    Args:
        names: for each image, by its key, the paths that it is known by, with a suffix or without.
    """

    def __init__(self, names: Mapping[str, Iterable[str]]) -> None:
        self._ends: dict[str, set[str]] = defaultdict(set)
        for key, paths in names.items():
            plain = {plain_path(path) for path in paths}
            for path in plain | set(map(_without_suffix, plain)):
                for end in ends_of(path):
                    self._ends[end].add(key)

    def find(self, cell: str) -> tuple[Set[str], int]:
        """Return the keys of the images that a cell means, and by how many names of its path.

        That is those whose paths end as the cell's does, by as much of it as any does; with its
        suffix, or else without.
        """
        path = plain_path(cell)
        for known in dict.fromkeys((path, _without_suffix(path))):
            for end in ends_of(known) if known else ():
                if end in self._ends:
                    return self._ends[end], end.count("/") + 1
        return frozenset(), 0

    def find_all(self, cells: Sequence[str]) -> list[tuple[Set[str], int]]:
        """Return what each cell of a column means, as `find` does.

        Where folders tell images apart, a cell with another folder means none of these.
        """
        found = [self.find(cell) for cell in cells]
        if max((level for _, level in found), default=0) < 2:
            return found
        none: tuple[Set[str], int] = (frozenset(), 0)
        return [
            none if one[1] == 1 and "/" in plain_path(cell) else one
            for cell, one in zip(cells, found, strict=True)
        ]


def are_files(cells: Sequence[str]) -> bool:
    """Tell whether most cells have the suffix of an image."""
    return sum(_without_suffix(cell) != cell for cell in cells) > _MOST * len(cells)


def _without_suffix(path: str) -> str:
    whole, suffix = posixpath.splitext(path)
    return whole if suffix.lower() in _SUFFIXES else path

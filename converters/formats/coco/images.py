"""Where the images of COCO's annotation files are, and which images no file names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote

from converters.files.below import files_below
from converters.files.dicom import SUFFIXES
from converters.files.images import is_image
from converters.files.names import normal_name
from converters.formats.coco.documents import Record
from converters.formats.writing import record_fields

ANNOTATIONS = "annotations"
_SUBSETS = frozenset({"train", "val", "valid", "validation", "test"})
_DICOM = (*sorted(SUFFIXES), *map(str.upper, sorted(SUFFIXES)))


@dataclass(frozen=True)
class ImageFinder:
    """Finds the images of an annotation file.

    Attributes:
        root: the data set's folder; no image is looked for outside.
        path: the annotation file.
        elsewhere: a folder in which the images are instead; None for the usual places.
        masks: a folder in which no image is: PNGs in it may be called as they are.
    """

    root: Path
    path: Path
    elsewhere: Path | None = None
    masks: Path | None = None
    _listings: dict[Path, dict[str, str]] = field(default_factory=dict, compare=False)
    _named: dict[bool, dict[str, list[Path]]] = field(default_factory=dict, compare=False)

    def find(self, entry: Record) -> Path:
        r"""Return the image of an entry, by its `file_name`, or LVIS' `coco_url`.

        What another machine calls it (`/content/set/train/a.png`, `C:\set\train\a.png`,
        `../train/a.png`) is found by its end, the longest first. In the end any folder below the
        root will do, if one image alone has the name, or as much of its path as no other.

        Names are the same if they differ only in Unicode's normal form: macOS writes accents and
        Hangul as several characters. Where there is no such file, but DICOM of the same name, that
        is meant: annotation programs show DICOM as PNG, and export that name.

        Raises:
            ValueError: not a path below the folder, or no such file in any of the usual places.
        """
        places = _places(entry, self.elsewhere is not None)
        for place, folder in product(places, self.folders):
            if image := self._image(folder, place):
                return image
        for place, folder, suffix in product(places, self.folders, _DICOM):
            if image := self._image(folder, place.with_suffix(suffix)):
                return image
        name = normal_name(places[-1].name)
        # Where nothing else is called so, what a command has written is meant.
        if below := self._below(False).get(name) or self._below(True).get(name):
            below = _longest_ends(below, places[0])
            if len(below) == 1:
                return below[0]
            base = self.elsewhere or self.root
            several = ", ".join(path.relative_to(base).as_posix() for path in below[:2])
            raise ValueError(
                f"expected one image of this name, found {len(below)} ({several}, ...): "
                "--images says which folder is meant"
            )
        nearly = self._nearly(places[-1].name)
        if self.elsewhere:
            raise ValueError(f"expected an image in {self.elsewhere}, found none{nearly}")
        raise ValueError(
            f"expected an image beside this file or in images/, found none{nearly}; --images says "
            "where they are"
        )

    def _nearly(self, name: str) -> str:
        """Name, for a message, a file whose name differs in case, suffix or the web's quoting."""
        place = self._plain_names.get(_plain(name))
        return f", but {place.name}" if place else ""

    @cached_property
    def _plain_names(self) -> dict[str, Path]:
        files = (folder / n for folder in self.folders for n in self._listing(folder).values())
        return {_plain(path.name): path for path in files if is_image(path)}

    def _below(self, results: bool) -> dict[str, list[Path]]:
        """The images below the root, or `elsewhere`, by name, but for those of other subsets.

        Args:
            results: those in results of commands, too.
        """
        if results in self._named:
            return self._named[results]
        found = self._named.setdefault(results, {})
        own = _subsets(self.path.relative_to(self.root))
        base = self.elsewhere or self.root
        for path in filter(is_image, files_below(base, results=results)):
            parts = _subsets(path.relative_to(base).parent)
            # LIVECell has `train` and `val` in one folder.
            is_other = bool(own) and bool(parts) and own.isdisjoint(parts)
            if not (is_other or self.masks in path.parents):
                found.setdefault(normal_name(path.name), []).append(path)
        return found

    def guess(self, entry: Record) -> dict[str, Any]:
        """Return key and group of an entry whose image may not be there."""
        try:
            return record_fields(entry["sample"])
        except (KeyError, ValueError):
            beside = self.path.parent.relative_to(self.root).as_posix()
            path = PurePosixPath(beside, str(shown_name(entry)))
            return {"key": str(path.with_suffix("")) if path.name else "?"}

    @cached_property
    def folders(self) -> list[Path]:
        """The folders in which images are looked for, in this order."""
        if self.elsewhere:
            names = list(_subset_names(self.path.stem))
            inside = [self.elsewhere / name for name in names]
            return [folder for folder in (*inside, self.elsewhere) if folder.is_dir()]
        beside = self.path.parent
        base = beside.parent if beside.name == ANNOTATIONS and beside != self.root else beside
        # FiftyOne has labels.json and data/.
        bases = [base / "images", base, base / "data"]
        names = list(_subset_names(self.path.stem))
        exact = [folder / name for name in names for folder in bases]
        # A file of LVIS is called after the subset, its folder after subset and year.
        known = [f for folder in bases for f in folders_in(folder)]
        alike = [f for name in names for f in known if _without_year(f.name) == _without_year(name)]
        folders = dict.fromkeys([beside, *exact, *alike, *bases, self.root])
        return [folder for folder in folders if folder != self.masks and folder.is_dir()]

    def _image(self, folder: Path, place: PureWindowsPath) -> Path | None:
        image = folder.joinpath(*place.parts)
        try:
            if image.is_file():
                return image
        except OSError:  # a name that is too long
            return None
        if str(place).isascii():
            return None
        for part in place.parts:
            folder /= self._listing(folder).get(normal_name(part), part)
        return folder if folder.is_file() else None

    def _listing(self, folder: Path) -> Mapping[str, str]:
        if folder not in self._listings:
            names = os.listdir(folder) if folder.is_dir() else []
            self._listings[folder] = {normal_name(name): name for name in names}
        return self._listings[folder]


def _subsets(place: Path) -> frozenset[str]:
    """The subsets that a path speaks of."""
    return _SUBSETS.intersection(re.findall("[a-z]+", place.as_posix().lower()))


def shown_name(entry: Record) -> object:
    """What an entry calls its image, for messages and keys."""
    name = entry.get("file_name")
    return entry.get("coco_url") if name is None else name


def _plain(name: str) -> str:
    return PurePosixPath(unquote(normal_name(name))).stem.casefold()


def _places(entry: Record, is_elsewhere: bool) -> list[PureWindowsPath]:
    """What an entry may call its image below a folder, the most exact first."""
    name, url = entry.get("file_name"), entry.get("coco_url")
    if name is None and isinstance(url, str) and url.startswith("http"):
        subset, own = url.split("/")[-2:]
        return [PureWindowsPath(subset, own), PureWindowsPath(own)]
    # Files made on Windows have its separators.
    place = PureWindowsPath(name) if isinstance(name, str) else PureWindowsPath()
    parts = place.parts[1:] if place.anchor else place.parts
    if not parts or parts[-1] == "..":
        raise ValueError(f"expected 'file_name' to be a path of an image, found {name!r:.80}")
    if not place.anchor and ".." not in parts:
        return [place]
    # Of the machine on which it was made; nothing is looked for outside.
    first = max((i + 1 for i, part in enumerate(parts) if part == ".."), default=0)
    if is_elsewhere:
        first = len(parts) - 1
    return [PureWindowsPath(*parts[start:]) for start in range(first, len(parts))]


def _longest_ends(paths: Sequence[Path], place: PureWindowsPath) -> list[Path]:
    """Return those of paths that end as a place does, by most of its names."""
    wanted = [normal_name(part) for part in reversed(place.parts)]

    def count(path: Path) -> int:
        pairs = zip(reversed(path.parts), wanted, strict=False)
        return next(
            (n for n, (own, other) in enumerate(pairs) if normal_name(own) != other), len(wanted)
        )

    counts = [count(path) for path in paths]
    return [path for path, n in zip(paths, counts, strict=True) if n == max(counts)]


def _subset_names(stem: str) -> Iterator[str]:
    """What a folder may be called that has the images of a file: its name without task or suffix.

    >>> list(_subset_names("person_keypoints_val2017"))
    ['person_keypoints_val2017', 'keypoints_val2017', 'val2017', 'person_keypoints', 'person']
    """
    parts = stem.split("_")
    yield from filter(None, ("_".join(parts[i:]) for i in range(len(parts))))
    yield from filter(None, ("_".join(parts[:i]) for i in reversed(range(1, len(parts)))))


def _without_year(name: str) -> str:
    return name.rstrip("0123456789")


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted; none where there is no folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if entry.is_dir())

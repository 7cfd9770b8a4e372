"""Which label file belongs to which image, and what has no partner on either side."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from converters.errors import Problems
from converters.files.below import is_result
from converters.files.images import SUFFIXES, is_image
from converters.files.names import normal_name
from converters.formats.yolo.places import files_below, label_place, some

# What annotation tools put beside label files.
NO_LABELS = frozenset({"classes", "obj", "train", "val", "test", "readme", "notes"})
# What lies beside images and is none.
_NO_IMAGES = frozenset({".txt", ".cache", ".json", ".yaml", ".yml", ".npy", ".md", ".csv", ".xml"})
_LABELS, _LABEL_SUFFIX = "labels", ".txt"
_ORPHANS = "{} label files without an image"
# A class and the two corners of a box; the least that a line of labels can be.
_LEAST_FIELDS = 5


@dataclass(frozen=True)
class Pairing:
    """The images of a data set and the label files in its folder.

    A name's accents may be written in either way, and `.TXT` is `.txt`.

    Attributes:
        root: the data set's folder.
        images: those that are read, each with Ultralytics' subset.
        named: those that the data set's YAML file names, of all subsets; None where that is not
            known.
    """

    root: Path
    images: Mapping[Path, str]
    named: Collection[Path] | None

    def pairs(self, problems: Problems) -> dict[Path, Path | None]:
        """Return each image's label file; None where it has none, and that may be so.

        Test images need no labels. Of two images or two label files for one another only the first
        is returned, and the other one is a problem.

        Args:
            problems: takes down what has two partners; notes what is left out.

        Raises:
            ValueError: no image has a label file, or some have none while there are label files
                without an image.
        """
        pairs = self._pairs(problems)
        lacking = self._lacking(pairs)
        orphans = self._orphans([image for image, file in pairs.items() if file is None])
        without = some(map(self._short, lacking), "{} images without a label file")
        left = some(map(self._short, orphans), _ORPHANS)
        needed = [file for image, file in pairs.items() if self.images[image] != "test"]
        if needed and not any(needed):
            raise ValueError(self._describe_none(len(needed)))
        if lacking and orphans:
            raise ValueError(
                f"{self.root}: expected images and label files of the same names, found {without}, "
                f"and {left}: rename them; an image without objects has an empty label file"
            )
        if lacking:
            problems.note(f"{self.root}: {without}: taken as images without objects")
        for note in self._notes(orphans):
            problems.note(f"{self.root}: {note}: left out")
        return pairs

    def _pairs(self, problems: Problems) -> dict[Path, Path | None]:
        pairs: dict[Path, Path | None] = {}
        owners: dict[str, Path] = {}
        for image in self.images:
            place = self._places[image]
            if (other := owners.setdefault(place, image)) is not image:
                what = f"expected a name of its own, found {other.name} with the same label file"
                problems.add(image, f"{what}: rename or remove one of them")
                continue
            found = self._texts.get(place, [])
            pairs[image] = found[0] if found else None
            for other in found[1:]:
                what = f"expected one label file of an image, found {found[0].name} beside it"
                problems.add(other, f"{what}: remove one of them")
        return pairs

    def _lacking(self, pairs: Mapping[Path, Path | None]) -> list[Path]:
        """The images that should have a label file; of tests all, or those beside ones with it."""
        tests_too = any(file for image, file in pairs.items() if self.images[image] == "test")
        return [
            image
            for image, file in pairs.items()
            if file is None and (tests_too or self.images[image] != "test")
        ]

    @cached_property
    def _unowned(self) -> dict[str, Path]:
        """The label files of no image that lies there, by their place; of two for one the first."""
        owned = set(self._places.values())
        files = {place: paths[0] for place, paths in self._texts.items() if place not in owned}
        # Beside images there are other texts, too.
        folders = self._folders - set(map(self._begin, self._parents))
        usual = {
            place
            for place in files
            if os.path.dirname(place) in folders
            and os.path.basename(place).lower() not in NO_LABELS
        }
        return {p: path for p, path in files.items() if p in usual or _holds_labels(path)}

    def _orphans(self, without: Iterable[Path]) -> list[Path]:
        """Label files of no image, where they belong or of the name of one without them."""
        names = {normal_name(image.stem).casefold() for image in without}
        return sorted(
            path
            for place, path in self._unowned.items()
            if os.path.dirname(place) in self._folders
            or os.path.basename(place).casefold() in names
        )

    def _describe_none(self, count: int) -> str:
        folders = {folder.relative_to(self.root).as_posix() for folder in self._label_folders}
        looked = some(sorted(folders), "{} folders") if len(folders) > 1 else min(folders)
        texts = sorted(paths[0] for paths in self._texts.values())
        others = [path for path in texts if path.stem.lower() not in NO_LABELS]
        found = some(map(self._short, others), "{} other text files") if others else "no text file"
        return (
            f"{self.root}: expected label files (NAME.txt) in {looked}, found none for any of "
            f"{count} images, and {found}: Ultralytics replaces the folder `images` in the path "
            "of an image by `labels`; an image without objects has an empty file"
        )

    def _notes(self, orphans: Collection[Path]) -> Iterator[str]:
        """What else lies there and looks like a part of the data set."""
        unowned = self._unowned.items()
        elsewhere = (path for place, path in unowned if _LABELS in place.split("/"))
        if left := sorted({*orphans, *elsewhere}):
            yield some(map(self._short, left), _ORPHANS)
        named = self._places.keys() if self.named is None else set(self.named)
        unnamed = [i for i in self._places if i not in named and self._has_labels(i)]
        if unnamed:
            yield some(
                map(self._short, sorted(unnamed)),
                "{} images with labels that the YAML file does not name",
            )
        others = [
            path
            for path in self._files
            if path.suffix.lower() not in {*_NO_IMAGES, *SUFFIXES}
            and path.parent in self._parents
            and not is_image(path)
        ]
        if others:
            yield some(map(self._short, others), "{} files beside the images that are no images")

    # --- the folder

    @cached_property
    def _parents(self) -> set[Path]:
        return {image.parent for image in self.images}

    @cached_property
    def _label_folders(self) -> set[Path]:
        places = ((folder / "name").relative_to(self.root) for folder in self._parents)
        return {self.root / label_place(place).parent for place in places}

    @cached_property
    def _folders(self) -> set[str]:
        """The folders of labels as the places of labels begin."""
        return set(map(self._begin, self._label_folders))

    def _begin(self, folder: Path) -> str:
        return "" if folder == self.root else normal_name(self._short(folder))

    @cached_property
    def _files(self) -> list[Path]:
        """All files but hidden ones; those where labels belong under the names of these folders."""
        seen: set[str] = set()
        found: list[Path] = []
        for start in sorted(self._label_folders - {self.root}):
            own: set[str] = set()
            found += files_below(start, own, _is_other)
            seen |= own
        found += files_below(self.root, seen, _is_other)
        shown = (path for path in found if not path.name.startswith("."))
        return list(dict.fromkeys(shown))

    @cached_property
    def _texts(self) -> dict[str, list[Path]]:
        """The text files by their place below the root, as `_places` has it of their images."""
        found: dict[str, list[Path]] = {}
        for path in self._files:
            if path.suffix.lower() == _LABEL_SUFFIX:
                place = path.relative_to(self.root).with_suffix("").as_posix()
                found.setdefault(normal_name(place), []).append(path)
        # Ultralytics takes `.txt`.
        return {
            p: sorted(paths, key=lambda q: q.suffix, reverse=True) for p, paths in found.items()
        }

    @cached_property
    def _places(self) -> dict[Path, str]:
        """Where the labels belong of all images that lie there, without suffix."""
        images = dict.fromkeys([*self.images, *filter(is_image, self._files)])
        places = {image: label_place(image.relative_to(self.root)) for image in images}
        return {i: normal_name(place.with_suffix("").as_posix()) for i, place in places.items()}

    def _has_labels(self, image: Path) -> bool:
        return any(map(_holds_labels, self._texts.get(self._places[image], [])[:1]))

    def _short(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _is_other(folder: Path) -> bool:
    """Tell whether a folder is hidden, or something that we wrote there."""
    return folder.name.startswith(".") or is_result(folder)


def _holds_labels(path: Path) -> bool:
    """Tell whether a text's first line is a class and coordinates."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            line = next(filter(str.strip, file), "")
        return len(list(map(float, line.split()))) >= _LEAST_FIELDS
    except (OSError, ValueError):
        return False

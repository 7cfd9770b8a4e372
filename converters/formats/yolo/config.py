"""Ultralytics' data.yaml: the classes, and where the images are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from converters.errors import Problems
from converters.files.below import is_result
from converters.files.images import is_image
from converters.files.lines import read_lines
from converters.formats.writing import load_index
from converters.formats.yolo.places import (
    OTHER_NAMES,
    existing_place,
    files_below,
    home_of,
    is_below,
    is_there,
    is_whole,
    label_place,
    named_base,
    named_place,
    parts_of,
    some,
    test_places,
    unnamed_places,
)
from converters.strict_yaml import read_mapping, read_yaml

USUAL = ("data.yaml", "dataset.yaml")
# A line each has a class: Label Studio's, labelImg's and darknet's files.
NAMES = ("classes.txt", "obj.names", "labels/classes.txt")
_LOOKED_AT = 200
_SUBSETS = {"train": ("train", "val"), "test": ("test",), "all": ("train", "val", "test")}
_LISTS_OF_NAMES = frozenset(name.rpartition("/")[2] for name in NAMES)
# Folders of that name hold other images each; a path is not cut behind one.
_DIVIDING = frozenset({"train", "val", "valid", "validation", "test"})


# --- the file


def config_file(root: Path) -> Path | None:
    """Return a data set's YAML file: `data.yaml`, or the one that names classes and images.

    Of several `dataset.yaml` is meant, or the one that is called as the folder is.
    """
    if (root / USUAL[0]).is_file():
        return root / USUAL[0]
    found = files_naming_images(root)
    for name in (USUAL[1], f"{root.resolve().name}.yaml"):
        if len(found) > 1 and root / name in found:
            return root / name
    return found[0] if len(found) == 1 else None


def names_file(root: Path) -> Path | None:
    """Return the list of classes beside images and label files that no YAML file describes.

    None where there is no such list, a YAML file that could be meant, or no image with labels.
    """
    found = next((path for name in NAMES if (path := root / name).is_file()), None)
    if found is None or files_naming_images(root):
        return None
    images = islice(filter(is_image, files_below(root, set(), is_result)), _LOOKED_AT)
    places = (root / label_place(image.relative_to(root)) for image in images)
    return found if any(place.is_file() for place in places) else None


def named_folder(file: Path) -> Path | None:
    """Return the folder of the data set that a YAML file describes, where it is elsewhere.

    As Ultralytics has it: `path` counts if it is there, and a whole path of images does whatever
    `path` says. What is not there is another machine's.

    Returns:
        None where it is no such file, or the data set's folder is this one or below it.

    Raises:
        ValueError: the images lie below several folders.
    """
    if file.suffix not in (".yaml", ".yml") or not _names_images(file):
        return None
    record = read_mapping(file, "Ultralytics' data set")
    base = named_base(file, record) or file.parent
    there = [path for name in _image_places(record) if (path := named_place(base, name))]
    if outside := [path for path in there if not is_below(path, base)]:
        homes = sorted({home_of(path) for path in outside})
        base = Path(os.path.commonpath(homes))
        others = [path for path in there if path not in outside]
        if others or any(base not in (home, home.parent) for home in homes):
            found = " and ".join(map(str, [*others, *outside][:2]))
            raise ValueError(
                f"{file}: expected all images below the folder of one data set, found {found}: "
                "name that folder as 'path', and the images below it"
            )
    return None if is_below(base, file.parent) else base


def _image_places(record: Mapping[str, Any]) -> list[str]:
    kinds = {*_SUBSETS["all"], *(name for names in OTHER_NAMES.values() for name in names)}
    entries = [entry for name, entry in record.items() if str(name).lower() in kinds]
    listed = [own for e in entries for own in (e if isinstance(e, list) else [e])]
    return [name for name in listed if isinstance(name, str)]


def listed_names(path: Path) -> list[str]:
    """Return the classes of a file with one a line, in their order."""
    return [line.strip() for line in read_lines(path, "a list of classes") if line.strip()]


def _yaml_files(root: Path) -> list[Path]:
    found = (path for path in sorted(root.glob("*.y*ml")) if path.suffix in (".yaml", ".yml"))
    return [path for path in found if path.is_file() and not path.name.startswith(".")]


def files_naming_images(root: Path) -> list[Path]:
    """Return the YAML files in a folder that name classes and images, sorted."""
    return [path for path in _yaml_files(root) if _names_images(path)]


def _names_images(path: Path) -> bool:
    try:
        record = read_yaml(path, "YAML")
    except ValueError:
        return False
    return isinstance(record, dict) and {"names", "train"} <= set(record)


def _require_file(root: Path) -> Path:
    if (path := config_file(root)) is not None:
        return path
    expected = f"{root}: expected Ultralytics' {' or '.join(USUAL)}, with `names` and `train`"
    if several := files_naming_images(root):
        names = some((path.name for path in several), "{} files of the kind")
        raise ValueError(f"{expected}; found {names}: call the right one {USUAL[0]}")
    if (path := root / USUAL[1]).is_file():
        return path
    if others := _yaml_files(root):
        raise ValueError(f"{expected}; found neither of them in {others[0].name}")
    if below := sorted(root.glob("*/data.yaml")):
        raise ValueError(f"{expected}; found it in a folder below: give {below[0].parent}")
    raise ValueError(
        f"{expected}; found none: write one, see https://docs.ultralytics.com/datasets"
    )


@dataclass(frozen=True)
class YoloConfig:
    """What a data set's YAML file says.

    Attributes:
        root: the data set's folder; nothing is looked for outside.
        path: the file.
        record: its content.
    """

    root: Path
    path: Path
    record: Mapping[str, Any]

    @classmethod
    def load(cls, root: Path, file: Path | None = None) -> YoloConfig:
        """Find and read the file.

        Args:
            root: the data set's folder.
            file: the one of several that is meant, or one that lies elsewhere; None finds it.

        Raises:
            ValueError: no such file, or one of another task.
        """
        if file is None and config_file(root) is None and (names := names_file(root)):
            return cls(root, names, {"names": listed_names(names), **unnamed_places(root)})
        path = file or _require_file(root)
        record = read_mapping(path, "Ultralytics' data set")
        if "kpt_shape" in record:
            raise ValueError(
                f"{path}: expected labels of segments, found 'kpt_shape': these are key points "
                "(pose), which have no outlines"
            )
        return cls(root, path, record)

    def note_place(self, problems: Problems) -> None:
        """Say where the images are read if it is not where one would look for them."""
        path = self.record.get("path")
        if self.path.is_file() and not is_below(self.path, self.root):
            problems.note(f"{self.path}: its images are read from {self.root}")
        elif isinstance(path, str) and path and named_base(self.path, self.record) is None:
            what = f"'path': {path!r:.80} is not there: images are looked for in {self.root}"
            problems.note(f"{self.path}: {what}")

    def note_others(self, problems: Problems) -> None:
        """Say which file beside it gives the same numbers to other classes."""
        for path in files_naming_images(self.root):
            if path == self.path:
                continue
            try:
                others = YoloConfig(self.root, path, read_mapping(path, "YAML")).names
            except ValueError:
                continue
            for number in sorted(self.names.keys() & others.keys()):
                if self.names[number] != others[number]:
                    problems.note(
                        f"{self.path}: class {number} is {self.names[number]!r:.40}; "
                        f"{path.name}, which calls it {others[number]!r:.40}, is passed over: if "
                        f"that one is right, call it {USUAL[0]}"
                    )
                    break

    @cached_property
    def names(self) -> dict[int, str]:
        """Number of a class -> its name.

        Raises:
            ValueError: no names, one that comes twice, or not as many as `nc` says.
        """
        found = self.record.get("names")
        pairs = list(enumerate(found)) if isinstance(found, list) else []
        pairs = list(found.items()) if isinstance(found, dict) else pairs
        try:
            numbers = [int(str(number)) for number, _ in pairs]
        except ValueError:
            numbers = []
        if not numbers or min(numbers) < 0:
            raise ValueError(
                f"{self.path}: expected 'names', a list of class names or numbers with names, "
                f"found {found!r:.80}"
            )
        given = [self._class_name(name) for _, name in pairs]
        if twice := sorted({str(x) for x in [*numbers, *given] if [*numbers, *given].count(x) > 1}):
            raise ValueError(f"{self.path}: expected each class once, found '{twice[0]}' twice")
        said = self.record.get("nc")
        if said is not None and str(said) not in (str(len(given)), f"{len(given)}.0"):
            raise ValueError(
                f"{self.path}: expected as many 'names' as 'nc' says, {said!r:.20}; found "
                f"{len(given)}: correct one of them"
            )
        return dict(zip(numbers, given, strict=True))

    def _class_name(self, name: object) -> str:
        # YAML takes an unquoted yes, no, on or off for a truth value.
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise ValueError(
                f"{self.path}: 'names': expected class names, found {name!r:.40}: put it in quotes"
            )
        return str(name)

    # --- where images are

    def places(self, subset: str) -> dict[str, list[str]]:
        """Return what the file names as images, by Ultralytics' subset.

        Raises:
            ValueError: an entry that is no path or list of paths, or none at all.
        """
        found: dict[str, list[str]] = {}
        for kind in _SUBSETS[subset]:
            entry = self._entry(kind)
            if kind == "test" and not entry:
                # Ultralytics learns without them, so that many files do not name them.
                entry = test_places(self.root)
            if not entry:
                continue
            entries = entry if isinstance(entry, list) else [entry]
            if not all(isinstance(name, str) and name for name in entries):
                raise ValueError(
                    f"{self.path}: '{kind}': expected a folder, a list of images (.txt), or "
                    f"several of them, found {entry!r:.80}"
                )
            found[kind] = entries
        if not found and subset != "test":
            raise ValueError(f"{self.path}: expected 'train' with folders of images, found none")
        return found

    def _entry(self, kind: str) -> Any:
        """What is said of a subset; CVAT calls its subsets Train, Validation and Test."""
        names = (kind, *OTHER_NAMES.get(kind, ()))
        alike = {str(name).lower(): entry for name, entry in self.record.items() if entry}
        exact = [self.record.get(name) for name in names]
        return next(filter(None, [*exact, *map(alike.get, names)]), None)

    def find(self, name: str, beside: Path | None = None) -> Path | None:
        r"""Return what a path means below the data set's folder; None where nothing is there.

        What another machine calls it (`/content/set/images/train`, `C:\set\images\train`), and
        `../train/images`, as Roboflow writes it, is found by its end. That holds the last folder
        which tells a subset: `train/images` and `val/images` are never both `images`.

        Args:
            name: of a folder or a file.
            beside: a folder in which it is looked for, too; first where the name begins with `./`.
        """
        if Path(name).is_absolute() and (exact := self._exact(name)):
            return exact
        parts = parts_of(name)
        if not parts:
            return self.root if name in (".", "./") else None
        bases = self._bases
        if beside is not None:
            bases = [beside, *bases] if name.startswith("./") else [*bases, beside]
        dividing = (i for i, part in enumerate(parts) if part.lower() in _DIVIDING)
        for start in range(max(dividing, default=len(parts) - 1) + 1):
            for base in bases:
                place = existing_place(base, parts[start:])
                if place is not None:
                    return place
        return None

    def _exact(self, name: str) -> Path | None:
        """What a whole path means, if it is there and below the data set's folder."""
        path = Path(os.path.normpath(name))
        for home in (os.path.abspath(self.root), os.path.realpath(self.root)):
            if path.is_relative_to(home) and is_there(path):
                return self.root / path.relative_to(home)
        return None

    @cached_property
    def _bases(self) -> list[Path]:
        """The folders that `path` can mean, which may be another machine's, and the root."""
        path = self.record.get("path")
        parts = parts_of(path) if isinstance(path, str) else []
        folders = (self.root.joinpath(*parts[start:]) for start in range(len(parts)))
        return [*(folder for folder in folders if is_there(folder) and folder.is_dir()), self.root]

    def images(self, subset: str, problems: Problems) -> dict[Path, str]:
        """Return the images, each with Ultralytics' subset that names it first.

        Args:
            subset: `train`, `test` or `all`.
            problems: takes down lists that name images which are not there.

        Raises:
            ValueError: a folder or list that is not there, or no image at all.
        """
        found: dict[Path, str] = {}
        seen: set[tuple[str, str]] = set()
        empty: list[Path] = []
        for kind, names in self.places(subset).items():
            for name in names:
                if (place := self._find_place(kind, name, subset, problems)) is None:
                    continue
                images = self._folder(place) if place.is_dir() else self._listed(place, problems)
                listed = list(images)
                homes = {image.parent: os.path.realpath(image.parent) for image in listed}
                for image in listed:
                    # A folder may be reached by a link, too.
                    if (real := (homes[image.parent], image.name)) not in seen:
                        found[image] = kind
                    seen.add(real)
                empty += [] if listed else [place]
        for place in empty:
            # What was written of no samples has an index that says so.
            if not found and not problems.found and load_index(self.root) != {}:
                raise ValueError(f"{self.path}: {self._describe_empty(place)}")
            problems.note(f"{self.path}: {self._describe_empty(place)}")
        return found

    def _find_place(self, kind: str, name: str, subset: str, problems: Problems) -> Path | None:
        place = self.find(name)
        if place is not None and is_whole(name) and self._exact(name) is None:
            short = place.relative_to(self.root).as_posix()
            problems.note(f"{self.path}: '{kind}': {name!r:.80} is not there: {short} is read")
        if place is not None and (place.is_dir() or place.suffix.lower() == ".txt"):
            return place
        what = f"{self.path}: '{kind}': expected a folder of images below {self.root}, or a list "
        what += f"of them (.txt), found {name!r:.80}, which is "
        is_outside = place is None and is_there(self.path.parent / name)
        what += "outside" if is_outside else "not there" if place is None else "another file"
        # Roboflow names a folder of test images where it has exported none.
        if kind == "test" and subset == "all":
            problems.note(f"{what}: read without test images")
            return None
        raise ValueError(f"{what}: put the images there, or correct the path")

    def _describe_empty(self, place: Path) -> str:
        short = place.relative_to(self.root).as_posix()
        files = [path for path in sorted(place.rglob("*")) if path.is_file()]
        others = (path.relative_to(self.root).as_posix() for path in files)
        what = some(others, "{} other files") if files else "nothing"
        return f"expected images in {short}, found {what}"

    def _folder(self, folder: Path) -> list[Path]:
        # What no YAML file names are all images that are there, but not what commands have written.
        skips = is_result if self.path.name in _LISTS_OF_NAMES else lambda path: False
        return sorted(filter(is_image, files_below(folder, set(), skips)))

    def _listed(self, path: Path, problems: Problems) -> Iterator[Path]:
        gone, outside = [], []
        lines = read_lines(path, "a list of images")
        for line in filter(None, map(str.strip, lines)):
            image = self.find(line, path.parent)
            if is_whole(line) and is_there(Path(line)) and not (image and image.samefile(line)):
                outside.append(line)
            elif image is not None and image.is_file():
                yield image
            else:
                gone.append(line)
        if outside:
            what = some(outside, "{} lines that name others, which are there")
            remedy = "put the data set's images below one folder, and name it as 'path'"
            problems.add(path, f"expected images below {self.root}, found {what}: {remedy}")
        if gone:
            what = some(gone, "{} lines that name none")
            remedy = "put the images there, or correct the lines"
            problems.add(path, f"expected images below {self.root}, found {what}: {remedy}")

"""How files of COCO's annotations become samples; `coco.py` says which are read."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import configs
from converters.errors import Problems
from converters.files.images import read_size_hw
from converters.formats.coco.shapes import decode_segmentation
from converters.formats.writing import record_fields
from converters.types import Instance, LabelSpace, Sample

Record = Mapping[str, Any]

_IMAGES = re.compile(rb'"images"\s*:\s*\[')
_OBJECTS = re.compile(rb'"(?:annotations|categories)"\s*:\s*\[')


# --- files


def annotation_files(root: Path) -> list[Path]:
    """Return the JSON files in a folder and directly below it that look like COCO's, sorted.

    Beside files `instances_*` those for other tasks (captions, keypoints) are not meant.
    """
    candidates = [*root.glob("*.json"), *root.glob("*/*.json")]
    found = [path for path in sorted(candidates) if _looks_like_coco(path)]
    with_instances = {path.parent for path in found if path.name.startswith("instances_")}
    return [
        path
        for path in found
        if path.parent not in with_instances or path.name.startswith(("instances_", "image_info_"))
    ]


def _looks_like_coco(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return bool(_IMAGES.search(text) and _OBJECTS.search(text))


def is_test(root: Path, file: Path) -> bool:
    """Tell by its name or its folder's whether a file is about test images.

    >>> is_test(Path("data"), Path("data/test/_annotations.coco.json"))
    True
    >>> is_test(Path("data"), Path("data/latest/instances_train2017.json"))
    False
    """
    return "test" in re.findall("[a-z]+", file.relative_to(root).as_posix().lower())


@dataclass(frozen=True)
class Document:
    """What one file says.

    Attributes:
        path: the file.
        categories: id -> name.
        images: the entries of images.
        annotations: the entries of annotations.
    """

    path: Path
    categories: Mapping[Any, str]
    images: Sequence[Record]
    annotations: Sequence[Record]

    @classmethod
    def load(cls, path: Path) -> Document:
        """Parse a file.

        Raises:
            ValueError: not JSON, or not of COCO's form.
        """
        try:
            content = json.loads(path.read_bytes())
        except (OSError, RecursionError, ValueError) as error:
            raise ValueError(f"expected JSON, found a broken file ({error})") from None
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, found {content!r:.40}")
        tables = {name: _table(content, name) for name in ("categories", "images", "annotations")}
        categories = {_id(c, "category"): str(c.get("name")) for c in tables["categories"]}
        return cls(path, categories, tables["images"], tables["annotations"])


def _table(content: Record, name: str) -> list[Record]:
    table = content.get(name, [])
    if not isinstance(table, list) or not all(isinstance(entry, dict) for entry in table):
        raise ValueError(f"expected '{name}' to be a list of objects, found {table!r:.40}")
    return table


def _id(entry: Record, what: str, member: str = "id") -> int | str:
    number = entry.get(member)
    if not isinstance(number, int | str):
        raise ValueError(f"{what}: expected '{member}' to be a number, found {number!r:.40}")
    return number


# --- samples


@dataclass
class CocoReader:
    """Reads annotation files; goes on after a problem.

    Attributes:
        root: the data set's folder.
        labels: the classes.
        problems: takes down what is wrong.
    """

    root: Path
    labels: LabelSpace
    problems: Problems
    _found: dict[str, tuple[Path, Sample]] = field(default_factory=dict)

    def samples(self, files: Iterable[Path]) -> list[Sample]:
        """Return the samples of all files, an image once.

        Raises:
            ValueError: no file knows one of the classes.
        """
        for document in self._known(self._documents(files)):
            self._read(document)
        return [sample for _, sample in self._found.values()]

    def _documents(self, files: Iterable[Path]) -> list[Document]:
        documents: list[Document] = []
        for path in files:
            try:
                documents.append(Document.load(path))
            except ValueError as error:
                self.problems.add(path, error)
        return documents

    def _known(self, documents: Sequence[Document]) -> Sequence[Document]:
        """Leave out the files that are about other classes."""
        names = {name for document in documents for name in document.categories.values()}
        if not any(document.annotations for document in documents):
            return documents
        known = [d for d in documents if self._knows(d)]
        if not any(document.annotations for document in known):
            raise ValueError(
                f"{self.root}: expected categories of '{self.labels.name}', "
                f"found {', '.join(sorted(names)):.80}{_remedy(names)}"
            )
        return known

    def _knows(self, document: Document) -> bool:
        names = document.categories.values()
        return not document.annotations or any(map(self.labels.canonical, names))

    def _read(self, document: Document) -> None:
        labels = self._categories(document)
        by_image = self._by_image(document)
        finder = ImageFinder(self.root, document.path)
        seen: set[int | str] = set()
        for entry in document.images:
            fields = finder.guess(entry)
            try:
                number = _id(entry, "image")
                if number in seen:
                    raise ValueError(f"image {number}: expected an id of its own, found it twice")
                seen.add(number)
                image = finder.find(entry.get("file_name"))
                fields["key"] = _key(self.root, image)
                if "sample" in entry:
                    fields = record_fields(entry["sample"])
                size_hw = _checked_size(entry, image)
                own = by_image.get(number, [])
                instances = self._instances(document, own, labels, size_hw, fields)
                sample = Sample(image=image, size_hw=size_hw, instances=instances, **fields)
            except ValueError as error:
                place = f"'{entry.get('file_name')}': {error}"
                self.problems.add(document.path, place, **_owner(fields))
                continue
            self._add(document, sample)

    def _categories(self, document: Document) -> dict[int | str, str]:
        """Return the classes of those categories that are one; the others, if used, are wrong."""
        uses: dict[Any, int] = {}
        for annotation in document.annotations:
            number = annotation.get("category_id")
            if isinstance(number, int | str):
                uses[number] = uses.get(number, 0) + 1
        labels: dict[int | str, str] = {}
        for number, name in document.categories.items():
            if label := self.labels.canonical(name):
                labels[number] = label
            elif number in uses and name not in self.labels.ignored:
                self.problems.add(
                    document.path,
                    f"category '{name}': expected a class of '{self.labels.name}' or an alias, "
                    f"found another one with {uses[number]} annotations{_remedy([name])}",
                )
        return labels

    def _by_image(self, document: Document) -> dict[int | str, list[Record]]:
        images = {entry.get("id") for entry in document.images if _has_id(entry)}
        by_image: dict[int | str, list[Record]] = {}
        seen: set[int | str] = set()
        for place, annotation in enumerate(document.annotations):
            where = f"annotation {annotation.get('id', f'at place {place}')}"
            try:
                number = _id(annotation, where, "image_id")
                category = _id(annotation, where, "category_id")
                own = _id(annotation, where) if "id" in annotation else None
                if own is not None and own in seen:
                    raise ValueError(f"{where}: expected an id of its own, found it twice")
                if number not in images:
                    raise ValueError(f"{where}: expected an image of this file, found {number}")
                if category not in document.categories:
                    raise ValueError(f"{where}: expected a category of this file, found {category}")
            except ValueError as error:
                self.problems.add(document.path, error)
                continue
            if own is not None:
                seen.add(own)
            by_image.setdefault(number, []).append(annotation)
        return by_image

    def _instances(
        self,
        document: Document,
        annotations: Sequence[Record],
        labels: Mapping[int | str, str],
        size_hw: tuple[int, int],
        fields: Mapping[str, Any],
    ) -> tuple[Instance, ...]:
        instances: list[Instance] = []
        for annotation in annotations:
            label = labels.get(annotation["category_id"])
            if label is None:
                continue
            try:
                geometry = decode_segmentation(annotation.get("segmentation"), size_hw)
                instances.append(Instance(label, geometry))
            except ValueError as error:
                what = f"annotation {annotation.get('id')} ('{label}'): {error}"
                self.problems.add(document.path, what, **_owner(fields))
        return tuple(instances)

    def _add(self, document: Document, sample: Sample) -> None:
        where, other = self._found.setdefault(sample.key, (document.path, sample))
        if other is sample or (other.image, other.instances) == (sample.image, sample.instances):
            return
        name = where.relative_to(self.root).as_posix()
        self.problems.add(
            document.path,
            f"'{sample.key}': expected what {name} says of it, found another image or objects: "
            "keep one of them",
            key=sample.key,
            group=sample.group,
        )


def _has_id(entry: Record) -> bool:
    return isinstance(entry.get("id"), int | str)


def _owner(fields: Mapping[str, Any]) -> dict[str, str]:
    return {"key": fields["key"], "group": fields.get("group", "")}


def _remedy(names: Collection[str]) -> str:
    """Name the shipped label spaces that have most of these classes, if any has one."""
    spaces = [LabelSpace.load(name) for name in configs.names("labels")]
    known = {space.name: sum(map(bool, map(space.canonical, names))) for space in spaces}
    fitting = [name for name, times in known.items() if 0 < times == max(known.values())]
    return f": choose --labels {' or '.join(fitting)}" if fitting else ""


def _key(root: Path, image: Path) -> str:
    return image.relative_to(root).with_suffix("").as_posix()


def _checked_size(entry: Record, image: Path) -> tuple[int, int]:
    size_hw = read_size_hw(image)
    said = (entry.get("height", size_hw[0]), entry.get("width", size_hw[1]))
    if said != size_hw:
        raise ValueError(f"expected height and width {said} as is said here, found {size_hw}")
    return size_hw


@dataclass(frozen=True)
class ImageFinder:
    """Finds the images of an annotation file.

    Attributes:
        root: the data set's folder; no image is looked for outside.
        path: the annotation file.
    """

    root: Path
    path: Path

    def find(self, file_name: object) -> Path:
        """Return the image of a `file_name`.

        Raises:
            ValueError: not a path below the folder, or no such file in any of the usual places.
        """
        # Files made on Windows have its separators.
        place = PureWindowsPath(file_name) if isinstance(file_name, str) else PureWindowsPath("..")
        if not place.parts or place.anchor or ".." in place.parts:
            raise ValueError(
                f"expected 'file_name' to be a path below the data set, found {file_name!r:.80}"
            )
        for folder in self._folders():
            if (image := folder.joinpath(*place.parts)).is_file():
                return image
        raise ValueError("expected an image beside this file or in images/, found none")

    def guess(self, entry: Record) -> dict[str, Any]:
        """Return key and group of an entry whose image may not be there."""
        try:
            return record_fields(entry["sample"])
        except (KeyError, ValueError):
            beside = self.path.parent.relative_to(self.root)
            return {"key": (beside / str(entry.get("file_name"))).with_suffix("").as_posix()}

    def _folders(self) -> list[Path]:
        beside = self.path.parent
        base = beside.parent if beside.name == "annotations" and beside != self.root else beside
        name = self.path.stem.removeprefix("instances_").removeprefix("image_info_")
        return [beside, base / "images" / name, base / name, base / "images", self.root]

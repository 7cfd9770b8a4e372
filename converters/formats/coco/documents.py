"""What one JSON file of COCO's says: its images, its annotations and its categories."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from converters.files.json_files import read_member
from converters.files.json_lists import scan_list

Record = Mapping[str, Any]
Id = int | str

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,30}")
_FORM = "an object with 'images', 'annotations' and 'categories'"
RESULTS = (
    f"expected {_FORM}, found a list of COCO results (predictions), which is not read: move it "
    "away, or put what has a high score as 'annotations' into a copy of the file that has its "
    "'images' and 'categories'"
)
"""What is wrong with a list of results, and what to do."""


@dataclass(frozen=True)
class Document:
    """What one file says.

    Attributes:
        path: the file.
        categories: id -> name.
        images: the entries of images.
        annotations: the entries of annotations, which stay in the file.
    """

    path: Path
    categories: Mapping[Id, str]
    images: Sequence[Record]
    annotations: Annotations

    @classmethod
    def load(cls, path: Path) -> Document:
        """Parse a file.

        Raises:
            ValueError: not JSON, or not of COCO's form.
        """
        annotations = Annotations()
        content = annotations.scan(path)
        if is_results(content):
            raise ValueError(RESULTS)
        if not isinstance(content, dict):
            found = {list: "a list"}.get(type(content), repr(content)[:40])
            raise ValueError(f"expected {_FORM}, found {found}")
        if not {"images", "annotations", "categories"} & set(content):
            raise ValueError(f"expected {_FORM}, found the keys {sorted(content)!r:.80}")
        images = _table(content, "images")
        _table(content, "annotations")
        categories = _categories(_table(content, "categories"), annotations.uses)
        return cls(path, categories, images, annotations)

    @property
    def is_panoptic(self) -> bool:
        """Whether an annotation is of a whole image, with its segments in a PNG."""
        return "segments_info" in self.annotations.members

    @property
    def other_task(self) -> str:
        """What is annotated, in words, where it is not objects; else ""."""
        members = self.annotations.members
        if self.is_panoptic:
            return ""
        if "caption" in members:
            return "captions"
        if not self.annotations or self.annotations.has_shapes:
            return ""
        if "keypoints" in members:
            return "keypoints without outlines"
        if not {"segmentation", "bbox"} & members:
            return "labels of whole images"
        return ""

    @property
    def is_of_boxes(self) -> bool:
        """Whether all annotations are boxes, for detection."""
        annotations = self.annotations
        return "bbox" in annotations.members and not (annotations.has_shapes or self.is_panoptic)


class DrawnAnnotation(msgspec.Struct, forbid_unknown_fields=True):
    """An annotation with COCO's members and no others, all but one as they are in JSON.

    Attributes:
        segmentation: its text.
    """

    segmentation: msgspec.Raw
    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = None


_DRAWN = msgspec.json.Decoder(list[DrawnAnnotation])


class Annotations:
    """The annotations of a file, and what is known of them without reading them again.

    Attributes:
        members: the names of all their members.
        uses: how many objects each category has, by its id; None is no id.
        has_shapes: whether one has an outline or a code.
        images: id of each one's image; None is no id.
        categories: ids of the categories of each one's objects.
    """

    def __init__(self) -> None:
        self.members: set[str] = set()
        self.uses: Counter[Id | None] = Counter()
        self.has_shapes = False
        self.images: list[Id | None] = []
        self.categories: list[frozenset[Id | None]] = []
        self._names: tuple[str, ...] = ()
        self._ids: dict[Id | None, Id | None] = {}
        self._sets: dict[frozenset[Id | None], frozenset[Id | None]] = {}

    def scan(self, path: Path) -> Any:
        """Take what is known from a file, and return all else that it holds.

        Raises:
            ValueError: not JSON, or an annotation that is none.
        """
        content, self._entries = scan_list(path, "annotations", self._take)
        return content

    def _take(self, entry: Any) -> None:
        if not isinstance(entry, Mapping):
            raise _not_a_table("annotations", len(self.images), entry)
        # Members have the same order in nearly all.
        if (names := tuple(entry)) != self._names:
            self.members.update(names)
            self._names = names
        number = normal_id(entry.get("image_id"))
        self.images.append(self._ids.setdefault(number, number))
        numbers = [normal_id(own.get("category_id")) for own in objects_of(entry)]
        self.uses.update(numbers)
        used = frozenset(numbers)
        self.categories.append(self._sets.setdefault(used, used))
        self.has_shapes = self.has_shapes or bool(entry.get("segmentation"))

    def __len__(self) -> int:
        return len(self.images)

    def read(self, places: Sequence[int]) -> list[Record]:
        """Return annotations by their places in the file.

        Raises:
            ValueError: the file was changed since.
        """
        return self._entries.read(places)

    def read_drawn(self, places: Sequence[int]) -> list[DrawnAnnotation] | None:
        """Return annotations with their segmentations as they are written.

        None where one has none, or other members besides, or cannot be read: `read` reads it, or
        says why not.
        """
        try:
            return self._entries.read(places, _DRAWN.decode)
        # msgspec's are no ValueError before 0.20.
        except (ValueError, msgspec.MsgspecError):
            return None


def objects_of(annotation: Record) -> Sequence[Record]:
    """Return the objects that an annotation is of: itself, or a panoptic one's segments.

    Raises:
        ValueError: its segments are no list of objects.
    """
    return _table(annotation, "segments_info") if "segments_info" in annotation else [annotation]


def category_names(path: Path) -> list[str]:
    """Return the names of a file's categories, in its order, without reading its annotations.

    One that is called as the group of all others is left out: Roboflow writes it, and uses it not.
    But where one of the others has that name, too, it is a class.

    Raises:
        ValueError: not JSON, or its categories have no names.
    """
    try:
        entries = _table({"categories": read_member(path, "categories")}, "categories")
    except KeyError:
        return []
    # Whatever it is: it is only compared.
    groups = [entry.get("supercategory") for entry in entries]
    names = Counter(_name(entry, entry_id(entry, "category")) for entry in entries)
    heads = [
        entry["name"]
        for entry in entries
        if entry.get("supercategory") in ("none", None, "")
        and any(group == entry["name"] for group in groups)
        and all(group in (entry["name"], entry.get("supercategory")) for group in groups)
    ]
    return [name for name, times in names.items() if heads != [name] or times > 1]


def is_results(content: object) -> bool:
    """Tell whether a file's content is what COCO's evaluation takes: a list of detections."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(entry, dict) and "image_id" in entry for entry in content)
    )


def _table(content: Record, name: str) -> list[Record]:
    table = content.get(name, [])
    if not isinstance(table, list):
        raise ValueError(f"expected '{name}' to be a list of objects, found {table!r:.40}")
    for place, entry in enumerate(table):
        if not isinstance(entry, dict):
            raise _not_a_table(name, place, entry)
    return table


def _not_a_table(name: str, place: int, entry: object) -> ValueError:
    return ValueError(
        f"expected '{name}' to be a list of objects, found {entry!r:.40} at place {place}"
    )


def _categories(entries: Sequence[Record], used: Collection[Id | None]) -> dict[Id, str]:
    found: dict[Id, Record] = {}
    for entry in entries:
        number = entry_id(entry, "category")
        one, other = _name(found.get(number, entry), number), _name(entry, number)
        if one != other:
            raise ValueError(
                f"category {number!r}: expected one name, found {one!r} and {other!r}: give one of "
                "them another id"
            )
        found.setdefault(number, entry)
    _check_names([entry for number, entry in found.items() if number in used])
    return {number: _name(entry, number) for number, entry in found.items()}


def _check_names(categories: Sequence[Record]) -> None:
    """Make sure that a name stands for one class, such as the fingers of one hand.

    Categories without annotations do not matter: Roboflow names one like the group of the others.
    """
    groups: dict[object, object] = {}
    for entry in categories:
        name, group = entry["name"], entry.get("supercategory")
        other = groups.setdefault(name, group)
        if other != group:
            raise ValueError(
                f"category {name!r}: expected it once, found it as part of {other!r:.40} and of "
                f"{group!r:.40}: give each a name of its own"
            )


def _name(entry: Record, number: Id) -> str:
    name = entry.get("name")
    if isinstance(name, bool) or not isinstance(name, int | str):
        raise ValueError(f"category {number!r}: expected 'name' to be a text, found {name!r:.40}")
    if isinstance(name, str) and not name.strip():
        raise ValueError(
            f"category {number!r}: expected 'name' to name a class, found {name!r:.40}"
        )
    if isinstance(name, str) and name != name.encode(errors="ignore").decode():
        raise ValueError(f"category {number!r}: expected 'name' in UTF-8, found {name!r:.40}")
    return str(name)


def entry_id(entry: Record, what: str, member: str = "id") -> Id:
    """Return an entry's id; `1.0` and `"1"` are 1, as tables and programs write it.

    Args:
        entry: of an image, a category or an annotation.
        what: names the entry, for the message.
        member: the id's name in the entry.

    Raises:
        ValueError: neither a whole number nor a text.
    """
    value = entry.get(member)
    number = normal_id(value)
    if number is None:
        raise ValueError(
            f"{what}: expected '{member}' to be a whole number or a text, found {value!r:.40}"
        )
    return number


def normal_id(value: object) -> Id | None:
    """Return an id as all ways to write it are; None for what cannot be one.

    >>> normal_id(7.0), normal_id("7"), normal_id("007"), normal_id(7.5)
    (7, 7, '007', None)
    """
    if type(value) is int:  # as nearly all are
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    return value

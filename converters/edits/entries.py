"""Entries of an edits file: their fields, and which of them contradict each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from converters.errors import DataError
from converters.strict_yaml import read_mapping

VERSION = 1
# section -> the fields that an entry must have, and those that it may have.
SECTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "exclude_images": (("key",), ()),
    "exclude_groups": (("group",), ()),
    "swap_labels": (("key", "labels"), ()),
    "relabel": (("key", "label", "to"), ("part",)),
    "drop": (("key", "label"), ("part",)),
    "replace": (("key", "label", "polygons"), ()),
    "regroup": (("key", "group"), ()),
    "relabel_class": (("label", "to"), ("keys",)),
    "drop_class": (("label",), ("keys",)),
}
# Of a whole class -> what it is for each image.
OF_CLASSES = {"relabel_class": "relabel", "drop_class": "drop"}
_ALWAYS = ("why", "subset")


@dataclass(frozen=True)
class Edit:
    """One correction.

    Attributes:
        section: one of SECTIONS.
        number: its place in the section.
        fields: what the section asks for; checked.
        subset: `train`, `test`, or `all` for a class in all images.
        why: for people.
        origin: what it was made of; "" for itself.
    """

    section: str
    number: int
    fields: Mapping[str, Any]
    subset: str
    why: str = ""
    origin: str = ""

    def __str__(self) -> str:
        return self.origin or f"{self.section}[{self.number}]"

    @property
    def key(self) -> str:
        """Of the image; "" for a group or a class."""
        return str(self.fields.get("key", ""))

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels whose polygons it speaks of."""
        one = [self.fields["label"]] if "label" in self.fields else []
        return tuple(self.fields.get("labels", one))

    @property
    def part(self) -> int | None:
        """Which of the label's polygons; None for all of them."""
        part: int | None = self.fields.get("part")
        return part

    def of_image(self, key: str) -> Edit:
        """Return what an entry about a class is for one image."""
        fields = {name: value for name, value in self.fields.items() if name != "keys"}
        section = OF_CLASSES[self.section]
        return Edit(
            section, self.number, {"key": key, **fields}, self.subset_in(key), self.why, str(self)
        )

    def subset_in(self, key: str) -> str:
        """Return where it is looked for in an image of this key: `train` or `test`."""
        return subset_of(key) if self.subset == "all" else self.subset


def read_entries(path: Path) -> tuple[Edit, ...]:
    """Read the entries of a YAML file.

    Raises:
        DataError: unknown sections or fields, or values of another type, all in one error.
        ValueError: no such file, or not YAML.
    """
    return parse_entries(read_record(path), path)


def read_record(path: Path) -> dict[str, Any]:
    """Read the plain values of a YAML file of edits, unchecked.

    Raises:
        ValueError: no such file, or no YAML mapping.
    """
    return read_mapping(path, f"a file of edits ('version: {VERSION}' and sections)")


def parse_entries(record: Mapping[str, Any], name: Path | str) -> tuple[Edit, ...]:
    """Return the entries that the plain values of a file of edits mean.

    Args:
        record: `version`, and section -> entries.
        name: what errors call it, such as the file.

    Raises:
        DataError: unknown sections or fields, or values of another type, all in one error.
    """
    problems: list[str] = []
    version = record.get("version")
    if version != VERSION or isinstance(version, bool):
        problems.append(f"version: expected {VERSION}, found {version!r:.40}")
    entries: list[Edit] = []
    for section, listed in record.items():
        if section == "version":
            continue
        for number, entry in enumerate(_listed(section, listed, problems)):
            try:
                entries.append(_edit(section, number, entry))
            except ValueError as error:
                problems.append(f"{section}[{number}]: {error}")
    if problems:
        raise DataError(name, problems)
    return tuple(entries)


def _listed(section: object, listed: object, problems: list[str]) -> list[Any]:
    if section not in SECTIONS:
        problems.append(f"{section!r:.40}: expected a section of {', '.join(SECTIONS)}")
        return []
    if listed is not None and not isinstance(listed, list):
        problems.append(f"{section}: expected a list of entries, found {listed!r:.40}")
        return []
    return listed or []


def _edit(section: str, number: int, entry: object) -> Edit:
    needed, optional = SECTIONS[section]
    if not isinstance(entry, dict):
        raise ValueError(f"expected {{{', '.join(needed)}}}, found {entry!r:.40}")
    if missing := [name for name in needed if name not in entry]:
        raise ValueError(f"expected '{missing[0]}', found none")
    known = (*needed, *optional, *_ALWAYS)
    if unknown := [name for name in entry if name not in known]:
        raise ValueError(f"expected {', '.join(known)}; found {unknown[0]!r:.40}")
    fields = {name: _FIELDS[name](name, value) for name, value in entry.items()}
    if fields.get("to") == fields.get("label", ""):
        raise ValueError(f"'to': expected another label than '{fields['to']}'")
    why = fields.pop("why", "")
    usual = "all" if section in OF_CLASSES else subset_of(fields.get("key", ""))
    subset = fields.pop("subset", None) or usual
    return Edit(section, number, fields, subset, why)


def subset_of(key: str) -> str:
    """Return where an image of this key is looked for: `test` by a folder of that name."""
    return "test" if "test" in PurePosixPath(key).parts[:-1] else "train"


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"'{name}': expected text (in quotes if need be), found {value!r:.40}")
    return value


def _number(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"'{name}': expected a whole number from 0, found {value!r:.40}")
    return value


def _pair(name: str, value: object) -> list[str]:
    if not isinstance(value, list) or len(value) != 2 or value[0] == value[1]:
        raise ValueError(f"'{name}': expected two different labels, found {value!r:.40}")
    return [_text(name, label) for label in value]


def _keys(name: str, value: object) -> list[str]:
    if not isinstance(value, list) or not value or len(set(map(str, value))) < len(value):
        raise ValueError(f"'{name}': expected different images' keys, found {value!r:.40}")
    return [_text(name, key) for key in value]


def _subset(name: str, value: object) -> str:
    if value not in ("train", "test"):
        raise ValueError(f"'{name}': expected train or test, found {value!r:.40}")
    return str(value)


def _polygons(name: str, value: object) -> list[list[list[float]]]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"'{name}': expected a list of polygons, found {value!r:.40}")
    for number, polygon in enumerate(value):
        is_ring = isinstance(polygon, list) and all(map(_is_point, polygon))
        if not is_ring or len(polygon) < 3:
            raise ValueError(
                f"'{name}': polygon {number}: expected at least 3 points [x, y] of finite numbers, "
                f"found {polygon!r:.40}"
            )
    return value


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_coordinate, value))


def _is_coordinate(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _FARTHEST


# OpenCV draws on 32 bits; neither NaN nor infinity is smaller.
_FARTHEST = 1e9
_FIELDS: dict[str, Callable[[str, object], Any]] = {
    **dict.fromkeys(("key", "group", "label", "to", "why"), _text),
    **{"labels": _pair, "part": _number, "polygons": _polygons, "subset": _subset},
    "keys": _keys,
}


# --- entries that do not go together


def find_contradictions(entries: Sequence[Edit]) -> Iterator[str]:
    """Say which entries cannot both be meant; one line each."""
    excluded = {e.key: e for e in entries if e.section == "exclude_images"}
    closed = {e.fields["group"]: e for e in entries if e.section == "exclude_groups"}
    replaced = {(e.key, e.fields["label"]): e for e in entries if e.section == "replace"}
    seen: dict[tuple[str, str, str], list[Edit]] = {}
    for edit in entries:
        if edit.section != "exclude_images" and edit.key in excluded:
            yield f"{edit}: its image is excluded by {excluded[edit.key]}"
        for key in edit.fields.get("keys", ()):
            if key in excluded:
                yield f"{edit}: '{key}' is excluded by {excluded[key]}"
        if edit.section == "regroup" and edit.fields["group"] in closed:
            yield f"{edit}: its group is excluded by {closed[edit.fields['group']]}"
        if other := replaced.get((edit.key, edit.fields.get("to", ""))):
            yield f"{edit}: {other} says what '{edit.fields['to']}' is in this image"
        for what in _claims(edit):
            rivals = (e for e in seen.get(what, ()) if _meet(e.part, edit.part))
            if rival := next(rivals, None):
                yield f"{edit}: {rival} is about the same: keep one of them"
            seen.setdefault(what, []).append(edit)


def _claims(edit: Edit) -> list[tuple[str, str, str]]:
    """What only one entry may speak of, but for several parts."""
    if edit.section in OF_CLASSES:
        # Of which images it speaks is known when these are read.
        return [
            (edit.section, key, str(edit.fields["label"])) for key in edit.fields.get("keys", [""])
        ]
    if edit.labels:
        return [("label", edit.key, label) for label in edit.labels]
    return [(edit.section, edit.key, "" if edit.key else edit.fields["group"])]


def _meet(part: int | None, other: int | None) -> bool:
    return part is None or other is None or part == other

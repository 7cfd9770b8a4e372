"""What a prediction store holds, without its rasters: `manifest.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from converters.errors import expecting, one_line
from converters.files.json_files import dump_json, parse_json
from converters.files.unknown import folders_with, name_first
from converters.types import LabelSpace
from fusion.types import Kind, Window

FILE = "manifest.json"
IMAGES_PER_PART = 16
ImageEntry = tuple[int, int, str]
"""An image's height, width and file name."""
VERSION = 2
# Version 1 had neither the label space nor checksums.
READABLE = (1, VERSION)
SUBSETS = ("val", "train", "test", "all")


@dataclass(frozen=True)
class Manifest:
    """What a store holds, without its rasters.

    Attributes:
        kind: semantic or instance.
        labels: name of the label space.
        names: its class names, in order.
        images: key -> (height, width, file name), in the order of the parts.
        source: what made the predictions: family, config, run, options.
        split: digest of the split file, "" without one.
        fold: the fold that the model did not see, or None.
        subset: which images: val, train, test or all.
        images_per_part: so many images, in order, are in one part file; the last may hold fewer.
        classes: the classes that the source speaks of; empty means all.
        domains: key -> x, y, w, h of the part of the image that the source has looked at, in whole
            pixels; a key that is absent means all of it.
        groups: key -> patient, as far as the folds of the run know it.
        space: the whole label space, so that nobody has to find its file; None where only its name
            is known.
        version: of the layout.

    Raises:
        ValueError: the label space has other classes, or there is no image in a part.
    """

    kind: Kind
    labels: str
    names: tuple[str, ...]
    images: Mapping[str, ImageEntry]
    source: Mapping[str, Any] = field(default_factory=dict)
    split: str = ""
    fold: int | None = None
    subset: str = "all"
    images_per_part: int = IMAGES_PER_PART
    classes: tuple[str, ...] = ()
    domains: Mapping[str, Window] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    space: LabelSpace | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.space and self.space.names != self.names:
            raise ValueError(f"'names' are not the classes of the label space '{self.space.name}'")
        if self.images_per_part < 1:
            raise ValueError(f"'images_per_part': expected 1 or more, found {self.images_per_part}")

    def part_names(self) -> list[str]:
        """Return the names of the part files, in order."""
        count = -(-len(self.images) // self.images_per_part)
        return [f"part-{number:05d}.parquet" for number in range(count)]

    def dumps(self) -> str:
        """Return the manifest as JSON text; equal manifests give equal text."""
        images = [[key, *entry] for key, entry in self.images.items()]
        space = self.space.record() if self.space else None
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return dump_json({"version": self.version, **plain, "images": images, "space": space})

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest file.

        Raises:
            ValueError: the file is missing, cut off, or of another version.
        """
        return cls.parse(read_manifest(path), path)

    @classmethod
    def parse(cls, content: bytes, path: Path) -> Manifest:
        """Return the manifest that a file holds.

        Args:
            content: of the file.
            path: of the file, for messages.

        Raises:
            ValueError: the file is cut off, of another version, or has other keys or values.
        """
        try:
            raw = parse_json(content)
            if not isinstance(raw, dict) or raw.get("version") not in READABLE:
                raise ValueError(f"no manifest of version {VERSION} or older")
            listed = raw["images"]
            with expecting("'images': expected [key, height, width, file name] of each"):
                raw["images"] = {str(k): (int(h), int(w), str(f)) for k, h, w, f in listed}
            if len(raw["images"]) < len(listed):
                raise ValueError("an image that is listed twice")
            with expecting("'domains': expected key -> [x, y, width, height]"):
                raw["domains"] = {k: _window(box) for k, box in raw.get("domains", {}).items()}
            with expecting("'groups': expected key -> group"):
                raw["groups"] = {str(k): str(group) for k, group in raw.get("groups", {}).items()}
            raw["space"] = LabelSpace.of_record(raw["space"]) if raw.get("space") else None
            named = {key: tuple(raw.get(key, ())) for key in ("names", "classes")}
            _check_values(raw)
            return cls(**{**raw, **named})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            found = one_line(error)
            raise ValueError(f"{path}: expected a store's manifest, found: {found}") from None


def how_to_import(path: Path) -> str:
    """Say how predictions of another program become a store."""
    how = f"zoo convert {path} --to store --data DATA"
    return f"; predictions of another program become one by `{how}`"


def read_manifest(path: Path) -> bytes:
    """Read the bytes of a store's manifest.

    Raises:
        ValueError: there is no such file; says what there is instead of a store.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        found = "nothing there"
        if path.parent.exists():
            found = f"a folder without {FILE}" if path.parent.is_dir() else "a file"
        # As in a folder of runs, or in one of `zoo run`.
        if inside := folders_with(path.parent, FILE):
            found += f", and {len(inside)} stores in it: give {name_first(inside, ' ')}"
        elif path.parent.exists() and (path.parent.is_file() or any(path.parent.iterdir())):
            found += how_to_import(path.parent)
        raise ValueError(f"{path.parent}: expected a prediction store, found {found}") from None
    except OSError as error:
        raise ValueError(f"{path}: expected a store's manifest, found: {error.strerror}") from None


def _check_values(raw: Mapping[str, Any]) -> None:
    """Make sure that values are of their type; a fold of 1.0 or "1" equals no fold of a split."""
    fold, per_part = raw.get("fold"), raw.get("images_per_part", IMAGES_PER_PART)
    checks = {
        "kind": (raw.get("kind") in get_args(Kind), f"one of {', '.join(get_args(Kind))}"),
        "fold": (fold is None or (type(fold) is int and fold >= 0), "a number from 0, or null"),
        "images_per_part": (type(per_part) is int, "a whole number"),
        "split": (isinstance(raw.get("split", ""), str), "a text"),
        "subset": (raw.get("subset", "all") in SUBSETS, f"one of {', '.join(SUBSETS)}"),
        "labels": (isinstance(raw.get("labels"), str), "a text"),
        "source": (isinstance(raw.get("source", {}), dict), "a mapping"),
    }
    for key, (is_right, expected) in checks.items():
        if not is_right:
            raise ValueError(f"'{key}': expected {expected}, found {raw.get(key)!r:.80}")


def _window(box: Sequence[int]) -> Window:
    x, y, width, height = map(int, box)
    return x, y, width, height

"""What the viewer holds against the truth: stores, submissions, and their fusion."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from converters.types import LabelSpace
from fusion.rules.file import load_rule
from fusion.sources.ensemble import Ensemble
from fusion.sources.manifest import FILE as MANIFEST
from fusion.sources.manifest import ImageEntry
from fusion.sources.store import PredictionStore, source_name
from fusion.types import Prediction, Rule

# Where stores of one run or model lie beside each other, by the part of the data set.
PARTS = ("val", "oof", "test", "train", "all")
# Of a store, whose parts hold a few images each, so many images stay in memory.
KEPT = 16


class ImageSource(Protocol):
    """Something that says where objects are on images."""

    @property
    def name(self) -> str:
        """What it is called, unlike all others."""

    @property
    def kind(self) -> str:
        """`source`, or `fusion` for what is made of the sources."""

    @property
    def images(self) -> Mapping[str, ImageEntry]:
        """Key -> (height, width, file name) of the images that it knows."""

    def read(self, key: str) -> Prediction | None:
        """Return what it says of an image; None where it does not know the image."""


@dataclass
class OpenedSource:
    """A store or a submission, whose images are read in any order.

    Attributes:
        name: what it is called.
        path: where it lies.
        ensemble: the source, alone.
    """

    name: str
    path: Path
    ensemble: Ensemble
    kind: str = "source"
    _numbers: dict[str, int] = field(init=False, repr=False)
    _kept: OrderedDict[str, Prediction] = field(default_factory=OrderedDict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._numbers = {key: number for number, key in enumerate(self.ensemble.images)}

    @property
    def images(self) -> Mapping[str, ImageEntry]:
        """Key -> (height, width, file name)."""
        return self.ensemble.images

    @property
    def labels(self) -> LabelSpace:
        """The classes."""
        return self.ensemble.labels

    def read(self, key: str) -> Prediction | None:
        """Return what it says of an image; None where it does not know the image.

        Raises:
            ValueError: a damaged store or submission.
        """
        number = self._numbers.get(key)
        if number is None:
            return None
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        source = self.ensemble.sources[0]
        step = source.manifest.images_per_part if isinstance(source, PredictionStore) else 1
        # To read one image of a part takes as long as to read all of them.
        first = number - number % min(step, KEPT // 2)
        read = {one.key: one for one in source.part(first, first + min(step, KEPT // 2))}
        with self._lock:
            self._kept.update(read)
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return read[key]


@dataclass(frozen=True)
class JoinedSource:
    """Stores of one model, each of other images.

    Attributes:
        name: what it is called.
        parts: no two know the same image.
    """

    name: str
    parts: Sequence[OpenedSource]
    kind: str = "source"

    @property
    def images(self) -> Mapping[str, ImageEntry]:
        """Key -> (height, width, file name)."""
        return {key: entry for part in self.parts for key, entry in part.images.items()}

    @property
    def labels(self) -> LabelSpace:
        """The classes."""
        return self.parts[0].labels

    def read(self, key: str) -> Prediction | None:
        """Return what it says of an image; None where it does not know the image.

        Raises:
            ValueError: a damaged store.
        """
        said = (part.read(key) for part in self.parts)
        return next((one for one in said if one is not None), None)


@dataclass(frozen=True)
class FusedSource:
    """A rule's fusion of other sources, made when an image is looked at.

    Attributes:
        rule: what fuses.
        parts: the sources, in the rule's order.
        labels: the classes.
        name: what it is called.
    """

    rule: Rule
    parts: Sequence[ImageSource]
    labels: LabelSpace
    name: str = "fusion"
    kind: str = "fusion"

    @property
    def images(self) -> Mapping[str, ImageEntry]:
        """The images that all parts know."""
        first, *others = self.parts
        return {
            key: entry
            for key, entry in first.images.items()
            if all(key in other.images for other in others)
        }

    def read(self, key: str) -> Prediction | None:
        """Return the fused prediction; None where a source does not know the image."""
        found = [part.read(key) for part in self.parts]
        known = [one for one in found if one is not None]
        return self.rule(known, self.labels) if len(known) == len(found) else None


def is_store(path: Path) -> bool:
    """Tell whether a folder is a prediction store."""
    return (path / MANIFEST).is_file()


def space_of(paths: Sequence[Path], usual: LabelSpace | None) -> LabelSpace | None:
    """Return the classes of the first store, else the usual ones.

    Raises:
        ValueError: the stores have different classes; says which.
    """
    stores = [PredictionStore(path) for path in paths if path.is_dir()]
    if not stores:
        return usual
    first = stores[0].label_space(usual)
    for other in stores[1:]:
        if other.manifest.names != first.names:
            differ = sorted(set(other.manifest.names) ^ set(first.names)) or ["their order"]
            raise ValueError(
                f"{other.path}: expected the classes of {stores[0].path}, found others: "
                f"{', '.join(differ[:5])}; look at one after the other"
            )
    return first


def open_each(
    paths: Sequence[Path], entries: Mapping[str, ImageEntry] | None, labels: LabelSpace | None
) -> list[OpenedSource | JoinedSource]:
    """Open sources one by one: they may speak of different images.

    Stores of one model that have other images, such as its held-out and its test images, are one.

    Args:
        paths: prediction stores and submissions.
        entries: key -> (height, width, file name) of the data set; None without one.
        labels: the classes of submissions; None takes what they have.

    Raises:
        ValueError: a source that cannot be read, or of other classes or images.
    """
    groups = group_parts(paths)
    stores = [path for path in paths if path.is_dir()]
    if entries is None and stores:
        # Submissions name images, stores know how large these are.
        entries = {k: e for p in stores for k, e in PredictionStore(p).manifest.images.items()}
    found: list[OpenedSource | JoinedSource] = []
    for name, group in zip(names_of([group[0] for group in groups]), groups, strict=True):
        opened = [
            OpenedSource(name, path, Ensemble.open([path], entries, usual=labels)) for path in group
        ]
        found.append(opened[0] if len(opened) == 1 else JoinedSource(name, opened))
    return found


def group_parts(paths: Sequence[Path]) -> list[list[Path]]:
    """Put stores together that say of different images what one model sees there.

    Such as `run/val` and `run/test`, or `val/unet` and `test/unet`.

    Args:
        paths: prediction stores and submissions.
    """
    groups: dict[tuple[Path, int], list[Path]] = {}
    known: dict[tuple[Path, int], set[str]] = {}
    for path in paths:
        keys = set(PredictionStore(path).manifest.images) if path.is_dir() else set()
        origin, number = _origin(path), 0
        # What speaks of the same images is another source.
        while (at := (origin, number)) in groups and (not keys or keys & known[at]):
            number += 1
        groups.setdefault(at, []).append(path)
        known.setdefault(at, set()).update(keys)
    return list(groups.values())


def _origin(path: Path) -> Path:
    """Return where a store lies, without the folder that names the part of the data set."""
    place = path.absolute()
    if place.is_file():
        return place
    for at in (place, place.parent):
        if at.name in PARTS:
            return at.parent / place.relative_to(at)
    return place


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return what sources are called: as fusion configs do, with what lies above where need be.

    >>> names_of([Path("a/val.csv"), Path("b/val.csv"), Path("mean.csv")])
    ['a/val', 'b/val', 'mean']
    >>> names_of([Path("x/1/val/unet.csv"), Path("x/2/val/unet.csv")])
    ['1/val/unet', '2/val/unet']
    """
    names = [source_name(path) for path in paths]
    places = [path.absolute() for path in paths]
    depth = 2
    while doubled := {name for name, times in Counter(names).items() if times > 1}:
        if all(depth > len(place.parts) for place in places):
            return [str(path) for path in paths]
        names = [
            _with_parents(place, depth) if name in doubled else name
            for place, name in zip(places, names, strict=True)
        ]
        depth += 1
    return names


def _with_parents(place: Path, depth: int) -> str:
    last = place.name if place.is_dir() else place.stem
    return "/".join([*place.parts[-depth:-1], last])


def fused(
    method: str | None, config: Path | None, sources: Sequence[ImageSource], labels: LabelSpace
) -> FusedSource:
    """Return the fusion of sources by a rule.

    Raises:
        ValueError: no such rule, one that looks at images, or one of other sources.
    """
    rule = load_rule(method, config)
    by_name: dict[str, ImageSource] = {source.name: source for source in sources}
    wanted = rule.sources or tuple(by_name)
    if missing := [name for name in wanted if name not in by_name]:
        raise ValueError(
            f"{config or method}: expected the sources {', '.join(wanted)}, found no {missing[0]}: "
            "give the stores or submissions that the rule was fitted for"
        )
    if not wanted:
        raise ValueError("expected prediction stores or submissions to fuse, found none")
    return FusedSource(rule, [by_name[name] for name in wanted], labels)

"""Where predictions to fuse come from: prediction stores and submissions, mixed at will."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from converters.formats.label_spaces import shipped_with
from converters.masks import decode_rle
from converters.types import LabelSpace
from fusion.sources.manifest import ImageEntry
from fusion.sources.places import RowTable
from fusion.sources.store import (
    NO_COMMON_IMAGES,
    PredictionStore,
    check_distinct,
    check_match,
)
from fusion.sources.submission import RowSpan, parse_row, read_places
from fusion.types import Evidence, Prediction, SoftMask

# Where nobody knows how long an image's rows are. A submission's code counts pixels row after row,
# so that any length gives the same code again; with the right one the crops are tight.
ASSUMED_WIDTH = 2048
FARTHEST_PIXEL = 2**28

# The label space of submissions alone, whose classes no shipped one has.
UNNAMED = "submission"


class Source(Protocol):
    """One model's answer for a set of images, or what somebody fused before."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def name(self) -> str:
        """How fusion configs speak of it: the folder's or the file's name, without suffix."""

    @property
    def classes(self) -> frozenset[str]:
        """The classes that it speaks of."""

    @property
    def digest(self) -> str:
        """Changes when the source's content does."""

    def part(self, start: int, stop: int) -> Iterable[Prediction]:
        """Return the images from `start` up to `stop`; can be sent to another process, unread."""


@dataclass(frozen=True)
class SubmissionIndex:
    """Where each code of a submission stands in its file; the codes stay there.

    Attributes:
        path: the file.
        digest: of its content.
        classes: the classes that it has, in the order in which they come.
        places: image name -> class -> place; 20 bytes a row.
        ends: image name -> the farthest pixel that its codes reach, from 1; 0 where all are empty.
    """

    path: Path
    digest: str
    classes: tuple[str, ...]
    places: Mapping[str, Mapping[str, RowSpan]]
    ends: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> SubmissionIndex:
        """Go through a submission once.

        Raises:
            ValueError: not a submission, a row that comes twice, or an image without one of the
                classes that others have.
        """
        gathered = RowTable()
        ends: dict[str, int] = {}
        for row, place in read_places(path):
            gathered.add(row.image_name, row.label, place)
            ends[row.image_name] = max(ends.get(row.image_name, 0), _end(row.rle))
        if not ends:
            raise ValueError(f"{path}: expected rows, found none")
        if twice := gathered.first_twice():
            name, label, line = twice
            raise ValueError(f"{path} line {line}: '{name}' '{label}' comes twice")
        places, classes = gathered.places(), gathered.labels
        _check_whole(path, classes, places)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path, digest, classes, places, ends)


def _check_whole(
    path: Path, classes: Sequence[str], places: Mapping[str, Mapping[str, RowSpan]]
) -> None:
    """Raise ValueError where images have rows of different classes: names the odd row or image."""
    having = Counter(label for found in places.values() for label in found)
    label = min(classes, key=having.__getitem__)
    if having[label] == len(places):
        return
    if 2 * having[label] <= len(places):
        names = [name for name, found in places.items() if label in found]
        line = places[names[0]][label].line
        what = f"line {line}: '{names[0]}' has a row of '{label}', other images have no row of it"
        raise ValueError(f"{path} {what}; expected the same classes for each image")
    lacking = next(name for name, found in places.items() if label not in found)
    what = f"'{lacking}' has no row of '{label}', as others have"
    raise ValueError(f"{path}: {what}; an empty mask is a row with an empty code")


def _end(rle: str) -> int:
    try:
        start, length = rle.rsplit(None, 2)[-2:]
        return int(start) + int(length) - 1
    except ValueError:
        # Empty, or broken: whoever decodes it says so.
        return 0


@dataclass(frozen=True)
class Submission:
    """A submission as a source: masks without probabilities, at the image's own pixels.

    Attributes:
        index: where its codes are.
        images: key -> (height, width, file name), in the order in which they are read.
        sizes_known: whether the sizes are the images', so that codes can be held to them.

    Raises:
        ValueError: it has other images, or lacks some.
    """

    index: SubmissionIndex
    images: Mapping[str, ImageEntry]
    sizes_known: bool = True
    _keys: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_keys", tuple(self.images))
        path, names = self.index.path, {name: None for _, _, name in self.images.values()}
        if foreign := [name for name in self.index.places if name not in names]:
            wanted = "images of the data set or of the stores, " + (
                f"such as '{next(iter(names))}'" if names else "of which this subset has none"
            )
            other = f"{len(foreign)} that are not among them, such as '{foreign[0]}'"
            raise ValueError(f"{path}: expected {wanted}; found {other}")
        if missing := [name for name in names if name not in self.index.places]:
            count = f"{len(missing)} of {len(names)} images are missing"
            raise ValueError(f"{path}: {count}, such as '{missing[0]}'")

    @property
    def path(self) -> Path:
        """The file."""
        return self.index.path

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    @property
    def classes(self) -> frozenset[str]:
        """The classes that it has rows of."""
        return frozenset(self.index.classes)

    @property
    def digest(self) -> str:
        """Of the file's content."""
        return self.index.digest

    def part(self, start: int, stop: int) -> SubmissionPart:
        """Return the images from `start` up to `stop`; light until it is read."""
        images = {key: self.images[key] for key in self._keys[start:stop]}
        places = {key: self.index.places[entry[2]] for key, entry in images.items()}
        return SubmissionPart(self.path, images, places, self.classes, self.sizes_known)


@dataclass(frozen=True)
class SubmissionPart:
    """A few of a submission's images, which can be read without the others.

    Attributes:
        path: the file.
        images: key -> (height, width, file name).
        places: key -> class -> place.
        classes: the classes that the file speaks of.
        sizes_known: whether the sizes are the images'.
    """

    path: Path
    images: Mapping[str, ImageEntry]
    places: Mapping[str, Mapping[str, RowSpan]]
    classes: frozenset[str]
    sizes_known: bool

    def __iter__(self) -> Iterator[Prediction]:
        """Yield each image's masks, with 0 and 255 as probabilities.

        Raises:
            ValueError: a code that is none, runs that overlap or are not sorted or leave the image,
                or the file has changed since it was indexed.
        """
        with self.path.open("rb") as file:
            for key, (height, width, name) in self.images.items():
                masks: dict[str, tuple[Evidence, ...]] = {}
                for label, place in self.places[key].items():
                    file.seek(place.start)
                    mask = self._mask(file.read(place.length), name, label, place, (height, width))
                    if mask is not None:
                        masks[label] = ((1.0, mask),)
                yield Prediction(key, (height, width), "semantic", masks, self.classes)

    def _mask(
        self, text: bytes, name: str, label: str, place: RowSpan, size_hw: tuple[int, int]
    ) -> SoftMask | None:
        row = parse_row(text)
        if row is None or (row.image_name, row.label) != (name, label):
            raise ValueError(f"{self.path} line {place.line}: changed while it was read")
        limit_hw = size_hw if self.sizes_known else (FARTHEST_PIXEL // ASSUMED_WIDTH, ASSUMED_WIDTH)
        try:
            mask = decode_rle(row.rle, limit_hw)
        except ValueError as error:
            raise ValueError(f"{self.path} line {place.line}: {name} {label}: {error}") from None
        if not mask.area:
            return None
        height, width = mask.pixels.shape
        box = float(mask.x), float(mask.y), float(width), float(height)
        return SoftMask(box, mask.pixels * np.uint8(255))


@dataclass(frozen=True)
class Ensemble:
    """Sources that speak of the same images and classes, joined by name.

    Attributes:
        sources: in the order in which a rule gets their predictions.
        labels: the classes.
        images: key -> (height, width, file name), in the order in which they are read.
        sizes_known: whether the sizes are the images'. If not, every image is taken to be 2048
            pixels wide and as high as its codes need: enough for rules that look at one pixel at a
            time, and for nothing else.
    """

    sources: tuple[Source, ...]
    labels: LabelSpace
    images: Mapping[str, ImageEntry]
    sizes_known: bool = True

    @classmethod
    def open(
        cls,
        paths: Sequence[Path],
        images: Mapping[str, ImageEntry] | None = None,
        labels: LabelSpace | None = None,
        usual: LabelSpace | None = None,
        common: bool = False,
    ) -> Ensemble:
        """Open prediction stores (folders) and submissions (files) without reading a mask.

        Images, their order and sizes are the stores'; without a store those of `images` that the
        submissions name; without either those of the first submission.

        Args:
            paths: the sources, each of another name.
            images: those of a data set: key -> (height, width, file name).
            labels: the classes of submissions; a store names its own. None takes what they have.
            usual: without `labels`, the classes of submissions that have any of them, and those of
                an old store whose label space is not found.
            common: take the images that all stores have where some have others, too; such as of
                one fold and of all folds.

        Raises:
            ValueError: no source or no such one, two of the same name, or they do not speak of the
                same images and classes; says which, and the first difference.
        """
        _check_names(paths)
        opened = [PredictionStore(p) if p.is_dir() else SubmissionIndex.read(p) for p in paths]
        stores = [source for source in opened if isinstance(source, PredictionStore)]
        indices = [source for source in opened if isinstance(source, SubmissionIndex)]
        check_match(stores, common)
        space = _label_space(stores, indices, labels, usual)
        entries, known = _entries(stores, indices, images), bool(stores) or images is not None
        if stores and not entries:
            raise ValueError(
                f"{', '.join(str(store.path) for store in stores)}: expected images that all of "
                f"them have, found none: {NO_COMMON_IMAGES}"
            )
        # Those of another program are sorted, those of folds are not.
        sources = tuple(
            source.in_order(entries)
            if isinstance(source, PredictionStore)
            else Submission(source, entries, known)
            for source in opened
        )
        return cls(sources, space, entries, known)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that any source speaks of, in the label space's order."""
        known = {label for source in self.sources for label in source.classes}
        return tuple(name for name in self.labels.names if name in known)

    @property
    def silent(self) -> tuple[str, ...]:
        """The classes of which no source says anything, in the label space's order."""
        spoken = frozenset(self.classes)
        return tuple(name for name in self.labels.names if name not in spoken)

    @property
    def spoken(self) -> LabelSpace:
        """The label space of the classes that any source speaks of; all where none does."""
        return self.labels.only(self.classes) if self.classes else self.labels

    @property
    def left_out(self) -> dict[str, int]:
        """How many images stores have that are not read, as not all have them: path -> number."""
        stores = [source for source in self.sources if isinstance(source, PredictionStore)]
        counts = {str(s.path): len(s.manifest.images) - len(self.images) for s in stores}
        return {path: count for path, count in counts.items() if count}

    def ordered(self, names: Sequence[str]) -> Ensemble:
        """Return the same with the sources in another order.

        Raises:
            ValueError: the names are not those of the sources.
        """
        given = {source.name: source for source in self.sources}
        if set(given) != set(names):
            expected, found = ", ".join(names), ", ".join(given)
            raise ValueError(f"the fusion config expects the sources {expected}; given are {found}")
        return replace(self, sources=tuple(given[name] for name in names))

    def part(self, start: int, stop: int) -> tuple[Iterable[Prediction], ...]:
        """Return every source's images from `start` up to `stop`; not read yet."""
        return tuple(source.part(start, stop) for source in self.sources)

    def __iter__(self) -> Iterator[tuple[Prediction, ...]]:
        """Yield each image's predictions, one a source; one image in memory at a time."""
        yield from zip(*self.part(0, len(self.images)), strict=True)


def check_splits(ensemble: Ensemble) -> None:
    """Refuse held-out predictions of different splits: each knows of other images' truth.

    On test images models of any split may be joined.

    Raises:
        ValueError: there are such; says which.
    """
    stores = [source for source in ensemble.sources if isinstance(source, PredictionStore)]
    check_one_split([store for store in stores if store.manifest.subset == "val"])


def check_one_split(held_out: Sequence[PredictionStore]) -> None:
    """Refuse held-out predictions of different splits; see `check_splits`.

    Raises:
        ValueError: there are such; says which.
    """
    for store in held_out[1:]:
        if store.manifest.split != held_out[0].manifest.split:
            raise ValueError(
                f"{store.path}: expected held-out predictions of the split of {held_out[0].path}, "
                "found those of another; predict with the same folds"
            )


def _check_names(paths: Sequence[Path]) -> None:
    if not paths:
        raise ValueError("expected at least one prediction store or submission, found none")
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: expected a prediction store or a submission, found nothing")
    check_distinct(paths)


def _label_space(
    stores: Sequence[PredictionStore],
    indices: Sequence[SubmissionIndex],
    labels: LabelSpace | None,
    usual: LabelSpace | None,
) -> LabelSpace:
    named = dict.fromkeys(label for index in indices for label in index.classes)
    if stores:
        space = stores[0].label_space(labels or usual)
        if labels and labels.names != space.names:
            raise ValueError(f"{stores[0].path}: its classes are not those of '{labels.name}'")
    elif labels:
        space = labels
    elif usual and not usual.index.keys().isdisjoint(named):
        space = usual
    else:
        space = shipped_with(named) or LabelSpace(UNNAMED, tuple(named))
    for index in indices:
        if unknown := [label for label in index.classes if label not in space.index]:
            raise ValueError(
                f"{index.path}: expected classes of '{space.name}', found '{unknown[0]}'"
            )
    return space


def _entries(
    stores: Sequence[PredictionStore],
    indices: Sequence[SubmissionIndex],
    images: Mapping[str, ImageEntry] | None,
) -> Mapping[str, ImageEntry]:
    if not stores and images is None:
        return _assumed(indices)
    named = {name for index in indices for name in index.places}
    if stores:
        first, *others = (store.manifest.images for store in stores)
        common = (key for key in first if all(key in other for other in others))
        entries = {key: _entry(key, stores) for key in common}
    else:
        entries = {key: entry for key, entry in (images or {}).items() if entry[2] in named}
    owners: dict[str, str] = {}
    for key, (_, _, name) in entries.items() if indices else ():
        if owners.setdefault(name, key) != key:
            pair = f"'{owners[name]}' and '{key}'"
            raise ValueError(f"{pair} are both named {name}: a submission cannot tell them apart")
    return entries


def _entry(key: str, stores: Sequence[PredictionStore]) -> ImageEntry:
    """Return an image's entry in a store whose model saw all of it: a crop's file is another."""
    whole = (store for store in stores if key not in store.manifest.domains)
    return next(whole, stores[0]).manifest.images[key]


def _assumed(indices: Sequence[SubmissionIndex]) -> dict[str, ImageEntry]:
    entries = {}
    for name in indices[0].places:
        # Beyond the farthest is an error, which whoever decodes the code names by its line.
        end = min(FARTHEST_PIXEL, max(index.ends.get(name, 0) for index in indices))
        entries[name] = max(1, -(-end // ASSUMED_WIDTH)), ASSUMED_WIDTH, name
    return entries

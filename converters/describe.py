"""What a data set is like: areas, overlaps, posture, people, images; as plain tables."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from converters.masks import CropMask, rasterize, rasterize_labels, union_box
from converters.parallel import map_ordered
from converters.posture import bend_deg
from converters.types import ImageFile, LabelSpace, Sample

BEND_EDGES_DEG = tuple(range(0, 95, 5))
# Text that takes more values than this is a note, not a category.
_MOST_CATEGORIES = 12
_BINS = 12
_OF_POSTURE = ("bend_deg", "bent", "bent_above_deg")


@dataclass(frozen=True)
class Spread:
    """How numbers are spread.

    Attributes:
        count: of the numbers.
        mean: of the numbers.
        sd: standard deviation of the sample; 0 of a single number.
        quantiles: least, 5 %, 25 %, median, 75 %, 95 %, most.
    """

    count: int
    mean: float
    sd: float
    quantiles: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Describe numbers; None without any."""
        if not len(values):
            return None
        found = np.quantile(values, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)).tolist()
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return cls(len(values), float(np.mean(values)), sd, tuple(found))


@dataclass(frozen=True)
class Histogram:
    """How many numbers lie from each edge up to the next; the last one includes its end."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    spread: Spread

    @classmethod
    def of(cls, values: Sequence[float], edges: Sequence[float] | None = None) -> Histogram | None:
        """Count numbers, between given edges or in steps of their own; None without any."""
        spread = Spread.of(values)
        if spread is None:
            return None
        counts, found = np.histogram(values, _BINS if edges is None else np.asarray(edges))
        return cls(tuple(found.tolist()), tuple(counts.tolist()), spread)


@dataclass(frozen=True)
class ClassDescription:
    """One class over all images that have it.

    Attributes:
        name: of the class.
        images: number of images that have it.
        split: number of images in which it has several parts.
        holed: number of images in which it has a hole.
        vertices: per image.
        area_px: pixels per image.
        area_share: the same as a part of `Description.whole_px`.
        objects: number of objects in the images that have any; None where each class occurs once.
        object_px: pixels of single objects; None where each class occurs once.
    """

    name: str
    images: int
    split: int
    holed: int
    vertices: Spread | None
    area_px: Spread | None
    area_share: Spread | None
    objects: Spread | None = None
    object_px: Spread | None = None


@dataclass(frozen=True)
class Description:
    """What a data set is like.

    Attributes:
        images: number of images.
        annotated: number of images with at least one object.
        groups: number of patients.
        sizes: `width x height` -> number of images.
        modes: pixel mode as Pillow names it -> number of images; `unreadable` where it has none.
        whole: the classes against whose pixels areas are measured: all but those that run out of
            the image (the group of the posture's proximal class), whose visible part says little.
        whole_px: their pixels in an image.
        classes: in the label space's order.
        iou: of two classes, the mean intersection over union in the images that have both; rows
            and columns are the classes; None where no image has both.
        shared: the part of the row's pixels, over all images, that the column's class has too.
        shared_share: the part of an image's annotated pixels that carry two or more labels.
        bend_deg: see `converters.posture`; None where no posture is known.
        bent: share of the images that are bent; None where no posture is known.
        bent_above_deg: the threshold.
        numbers: attribute with numbers (age, ...) -> its histogram over patients.
        categories: attribute with few values (sex, ...) -> value -> number of patients.
    """

    images: int
    annotated: int
    groups: int
    sizes: Mapping[str, int]
    modes: Mapping[str, int]
    whole: tuple[str, ...]
    whole_px: Spread | None
    classes: tuple[ClassDescription, ...]
    iou: tuple[tuple[float | None, ...], ...]
    shared: tuple[tuple[float | None, ...], ...]
    shared_share: Spread | None
    bend_deg: Histogram | None
    bent: float | None
    bent_above_deg: float | None
    numbers: Mapping[str, Histogram]
    categories: Mapping[str, Mapping[str, int]]

    @property
    def has_several(self) -> bool:
        """Whether an image has several objects of a class."""
        return any(own.objects and own.objects.quantiles[-1] > 1 for own in self.classes)

    def record(self) -> dict[str, Any]:
        """Return everything as JSON can hold it; posture where one is known."""
        found = asdict(self)
        return (
            found
            if self.bent_above_deg is not None
            else {name: value for name, value in found.items() if name not in _OF_POSTURE}
        )


def describe(
    samples: Sequence[Sample],
    labels: LabelSpace,
    *,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Description:
    """Describe a data set in one pass; what is kept of an image is a few numbers a class.

    Args:
        samples: may hold images without annotations, and ones that cannot be read.
        labels: the classes.
        jobs: processes.
        progress: called with (done, total).

    Raises:
        ValueError: a label that the label space does not have.
    """
    totals = _Totals(labels)
    work = partial(_measure, labels=labels, whole=whole_classes(labels))
    for done, measured in enumerate(map_ordered(work, samples, jobs), 1):
        totals.add(measured)
        if progress:
            progress(done, len(samples))
    numbers, categories = _attributes(samples)
    return totals.description(samples, numbers, categories)


def whole_classes(labels: LabelSpace) -> tuple[str, ...]:
    """Return the classes of `Description.whole`; all where no posture is known."""
    if labels.posture is None:
        return labels.names
    group = labels.group_of(labels.posture.proximal)
    cut = set(labels.groups[group] if group else (labels.posture.proximal,))
    return tuple(name for name in labels.names if name not in cut)


# --- one image


@dataclass(frozen=True)
class _Measured:
    size: str
    mode: str
    whole_px: int
    annotated_px: int
    shared_px: int
    areas: Mapping[str, int]
    objects: Mapping[str, Sequence[int]]
    vertices: Mapping[str, int]
    split: frozenset[str]
    holed: frozenset[str]
    common: Mapping[tuple[str, str], int]
    bend: float | None


def _measure(sample: Sample, labels: LabelSpace, whole: Sequence[str]) -> _Measured:
    vertices: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    holed = set()
    for instance in sample.instances:
        if instance.label not in labels.index:
            raise ValueError(
                f"{sample.key}: expected a label of '{labels.name}', found '{instance.label}'"
            )
        parts[instance.label] += len(instance.parts)
        for part in instance.parts:
            rings = (part.exterior, *part.interiors)
            vertices[instance.label] += sum(len(ring.coords) - 1 for ring in rings)
            if part.interiors:
                holed.add(instance.label)
    masks = rasterize_labels(sample.instances, sample.size_hw)
    objects: dict[str, list[int]] = defaultdict(list)
    for instance in () if labels.once else sample.instances:
        objects[instance.label].append(rasterize(instance.geometry, sample.size_hw).area)
    annotated_px, shared_px = _covered(list(masks.values()))
    whole_px, _ = _covered([masks[name] for name in whole if name in masks])
    return _Measured(
        size=f"{sample.size_hw[1]} x {sample.size_hw[0]}",
        mode=_mode(sample),
        whole_px=whole_px,
        annotated_px=annotated_px,
        shared_px=shared_px,
        areas={label: mask.area for label, mask in masks.items()},
        objects=objects,
        vertices=vertices,
        split=frozenset(label for label, count in parts.items() if count > 1),
        holed=frozenset(holed),
        common=_common_px(masks, labels),
        bend=bend_deg(sample, labels),
    )


def _covered(masks: Sequence[CropMask]) -> tuple[int, int]:
    """Pixels of at least one mask, and of at least two."""
    box = union_box(masks)
    layers = np.zeros((box[3], box[2]), np.uint16)
    for mask in masks:
        x, y, width, height = mask.box_xywh
        layers[y - box[1] : y - box[1] + height, x - box[0] : x - box[0] + width] += mask.pixels
    return int((layers > 0).sum()), int((layers > 1).sum())


def _common_px(masks: Mapping[str, CropMask], labels: LabelSpace) -> dict[tuple[str, str], int]:
    """Pixels that two classes share, for pairs of classes that both occur, in their order."""
    names = sorted(masks, key=lambda name: labels.index[name])
    common = {}
    for a, b in combinations(names, 2):
        x, y, width, height = masks[a].box_xywh
        u, v, wide, high = masks[b].box_xywh
        left, top = max(x, u), max(y, v)
        box = (left, top, min(x + width, u + wide) - left, min(y + height, v + high) - top)
        meet = box[2] > 0 and box[3] > 0
        both = masks[a].window(box) & masks[b].window(box) if meet else None
        common[a, b] = cv2.countNonZero(both) if both is not None else 0
    return common


def _mode(sample: Sample) -> str:
    """Pillow's name of the kind of pixels, or DICOM or JSRT, which Pillow does not know."""
    file = sample.image
    try:
        with Image.open(
            file if isinstance(file, Path) else io.BytesIO(file.read_bytes())
        ) as header:
            return str(header.mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        is_raw = isinstance(file, Path) and file.suffix.lower() == ".img"
        return "JSRT" if is_raw else "DICOM" if _is_dicom(file) else "unreadable"


def _is_dicom(file: ImageFile) -> bool:
    """Tell by the mark behind the preamble; what lacks it says so by its name."""
    if not isinstance(file, Path) or not file.is_file():
        return False
    with file.open("rb") as stream:
        head = stream.read(132)
    return head[128:] == b"DICM" or file.suffix.lower() in (".dcm", ".dicom")


# --- all images


@dataclass
class _Totals:
    """What is kept while images pass by."""

    labels: LabelSpace
    sizes: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    split: Counter[str] = field(default_factory=Counter)
    holed: Counter[str] = field(default_factory=Counter)
    whole_px: list[int] = field(default_factory=list)
    shared_share: list[float] = field(default_factory=list)
    bends: list[float] = field(default_factory=list)
    areas: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    shares: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    vertices: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    objects: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    object_px: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    common_px: Counter[tuple[str, str]] = field(default_factory=Counter)
    ious: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, found: _Measured) -> None:
        self.sizes[found.size] += 1
        self.modes[found.mode] += 1
        self.split.update(found.split)
        self.holed.update(found.holed)
        if found.whole_px:
            self.whole_px.append(found.whole_px)
        if found.annotated_px:
            self.shared_share.append(found.shared_px / found.annotated_px)
        if found.bend is not None:
            self.bends.append(found.bend)
        for label, area in found.areas.items():
            self.areas[label].append(area)
            self.vertices[label].append(found.vertices[label])
            if found.whole_px:
                self.shares[label].append(area / found.whole_px)
        for label, areas in found.objects.items():
            self.objects[label].append(len(areas))
            self.object_px[label] += areas
        for (a, b), both in found.common.items():
            self.common_px[a, b] += both
            either = found.areas[a] + found.areas[b] - both
            if either:
                self.ious[a, b].append(both / either)

    def description(
        self,
        samples: Sequence[Sample],
        numbers: Mapping[str, Histogram],
        categories: Mapping[str, Mapping[str, int]],
    ) -> Description:
        posture = self.labels.posture
        bent = [bend > posture.bent_above_deg for bend in self.bends] if posture else []
        return Description(
            images=len(samples),
            annotated=sum(bool(sample.instances) for sample in samples),
            groups=len({sample.patient for sample in samples}),
            sizes=dict(self.sizes.most_common()),
            modes=dict(self.modes.most_common()),
            whole=whole_classes(self.labels),
            whole_px=Spread.of(self.whole_px),
            classes=tuple(self._class(name) for name in self.labels.names),
            iou=self._matrix(self._iou),
            shared=self._matrix(self._shared),
            shared_share=Spread.of(self.shared_share),
            bend_deg=Histogram.of(self.bends, BEND_EDGES_DEG),
            bent=float(np.mean(bent)) if bent else None,
            bent_above_deg=posture.bent_above_deg if posture else None,
            numbers=numbers,
            categories=categories,
        )

    def _class(self, name: str) -> ClassDescription:
        return ClassDescription(
            name=name,
            images=len(self.areas[name]),
            split=self.split[name],
            holed=self.holed[name],
            vertices=Spread.of(self.vertices[name]),
            area_px=Spread.of(self.areas[name]),
            area_share=Spread.of(self.shares[name]),
            objects=Spread.of(self.objects[name]),
            object_px=Spread.of(self.object_px[name]),
        )

    def _matrix(
        self, value: Callable[[str, str], float | None]
    ) -> tuple[tuple[float | None, ...], ...]:
        names = self.labels.names
        return tuple(tuple(None if a == b else value(a, b) for b in names) for a in names)

    def _pair(self, a: str, b: str) -> tuple[str, str]:
        return (a, b) if self.labels.index[a] < self.labels.index[b] else (b, a)

    def _iou(self, a: str, b: str) -> float | None:
        found = self.ious.get(self._pair(a, b))
        return float(np.mean(found)) if found else None

    def _shared(self, a: str, b: str) -> float | None:
        area = sum(self.areas[a])
        return self.common_px[self._pair(a, b)] / area if area else None


# --- people


def _attributes(
    samples: Sequence[Sample],
) -> tuple[dict[str, Histogram], dict[str, dict[str, int]]]:
    """Numbers and categories among the attributes, each patient counted once."""
    people: dict[str, Mapping[str, Any]] = {}
    for sample in samples:
        people.setdefault(sample.patient, sample.attributes)
    values: dict[str, list[Any]] = defaultdict(list)
    for attributes in people.values():
        for name, value in attributes.items():
            if value not in (None, ""):
                values[name].append(value)
    numbers, categories = {}, {}
    for name, found in values.items():
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in found):
            histogram = Histogram.of([float(v) for v in found if np.isfinite(v)])
            if histogram:
                numbers[name] = histogram
        elif len(counts := Counter(map(str, found))) <= _MOST_CATEGORIES:
            categories[name] = dict(counts.most_common())
    return numbers, categories

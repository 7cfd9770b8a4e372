"""Where two predictions of the same images differ, counted in pixels, by class and image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from converters.masks import EMPTY, Box, CropMask, crop, union_box
from converters.types import LabelSpace
from fusion.metrics.intervals import Estimate
from fusion.metrics.scores import Scores, count
from fusion.metrics.summary import (
    QUALITIES,
    SHARED_MEASURES,
    ObjectSummary,
    Summary,
    compare_objects,
    has_several,
    shared_figures,
    summarize_objects,
)
from fusion.metrics.summary import compare as compare_scores

NO_BOX = (0, 0, 0, 0)


@dataclass(frozen=True)
class MaskPair:
    """One class on one image, as A and as B draw it.

    Attributes:
        key: the image.
        label: the class.
        both: pixels that A and B have.
        only_a: pixels that A alone has.
        only_b: pixels that B alone has.
        box_xywh: of the pixels that only one has, in the image; all zero where there are none,
            and where nobody knows the image's size.
    """

    key: str
    label: str
    both: int
    only_a: int
    only_b: int
    box_xywh: Box = NO_BOX

    @property
    def dice(self) -> float:
        """Dice of A's mask and B's; 1 where both are empty."""
        differing = self.only_a + self.only_b
        return 2 * self.both / (2 * self.both + differing) if differing else 1.0

    @property
    def differing(self) -> int:
        """Pixels that only one of the two has."""
        return self.only_a + self.only_b

    @property
    def empty(self) -> str:
        """Who draws nothing although the other does: `A`, `B`, or "" for neither."""
        if self.both or not self.differing:
            return ""
        return "A" if not self.only_a else "B" if not self.only_b else ""

    def record(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {**asdict(self), "dice": self.dice, "empty": self.empty}


def pair_masks(key: str, label: str, a: CropMask, b: CropMask) -> MaskPair:
    """Count what two masks of a class have in common and what not."""
    counts = count(a, b)
    only_a, only_b = counts.predicted - counts.both, counts.true - counts.both
    box = difference(a, b).box_xywh if only_a or only_b else NO_BOX
    return MaskPair(key, label, counts.both, only_a, only_b, box)


def difference(a: CropMask, b: CropMask) -> CropMask:
    """Return the pixels that exactly one of two masks has, cut to their box."""
    box = union_box((a, b))
    inner = crop(a.window(box) ^ b.window(box))
    return CropMask(inner.x + box[0], inner.y + box[1], inner.pixels)


@dataclass(frozen=True)
class ClassDifference:
    """One class over all images.

    Attributes:
        label: the class.
        images: that were compared.
        differ: images on which the masks are not the same to the pixel.
        dice: mean of Dice between A and B.
        worst: the pair of the lowest Dice.
        only_a: pixels that A alone has, over all images.
        only_b: pixels that B alone has.
        empty_a: images on which A alone draws nothing.
        empty_b: images on which B alone draws nothing.
        truth: mean Dice of A and of B against the truth; None without truth.
        gain: A minus B against the truth, over the patients; None without truth.
    """

    label: str
    images: int
    differ: int
    dice: float
    worst: MaskPair
    only_a: int
    only_b: int
    empty_a: int
    empty_b: int
    truth: tuple[float, float] | None = None
    gain: Estimate | None = None

    def record(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {**asdict(self), "worst": self.worst.record()}


@dataclass(frozen=True)
class ImageDifference:
    """One image over all classes: as `ClassDifference`.

    Attributes:
        key: the image.
        dice: mean of Dice between A and B over the classes.
        differ: classes whose masks are not the same to the pixel.
        differing: pixels that only one has, over the classes.
        worst: the pair of the lowest Dice.
        truth: mean Dice of A and of B against the truth; None without truth.
        pq: panoptic quality of A's objects against B's; None where no class has several.
        truth_pq: that of A and of B against the truth, None for who has no object there; None as
            `pq`.
    """

    key: str
    dice: float
    differ: int
    differing: int
    worst: MaskPair
    truth: tuple[float, float] | None = None
    pq: float | None = None
    truth_pq: tuple[float | None, float | None] | None = None

    def record(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {**asdict(self), "worst": self.worst.record()}


@dataclass(frozen=True)
class ObjectComparison:
    """The objects of one class against the true ones.

    Attributes:
        a: A's.
        b: B's.
        gain: A minus B of each of `QUALITIES`; None where one of them has no value.
    """

    a: ObjectSummary
    b: ObjectSummary
    gain: Mapping[str, Estimate | None]

    def rows(self) -> list[tuple[str, Estimate | None, Estimate | None, Estimate | None]]:
        """Return what each quality is called, A's, B's, and A minus B."""
        return [
            (title, getattr(self.a, name), getattr(self.b, name), self.gain[name])
            for name, title in QUALITIES.items()
        ]

    def record(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        gain = {name: found.record() if found else None for name, found in self.gain.items()}
        return {"a": self.a.record(), "b": self.b.record(), "a_minus_b": gain}


@dataclass(frozen=True)
class TruthComparison:
    """Both against the truth, on the images that have one.

    Attributes:
        a: A's scores.
        b: B's, of the same images.
        gain: means and intervals of A minus B.
        shared: the same of shared pixels, mean and pooled, by `shared` and `shared_pooled`;
            empty where no class overlaps.
        objects: class -> its objects; empty where no image has several of one class.
    """

    a: Scores
    b: Scores
    gain: Summary
    shared: Mapping[str, Estimate] = field(default_factory=dict)
    objects: Mapping[str, ObjectComparison] = field(default_factory=dict)

    @classmethod
    def of(cls, a: Scores, b: Scores) -> TruthComparison:
        """Compare two scores of the same images."""
        found = {name: compare_scores(a, b, name).overall for name in SHARED_MEASURES}
        shared = {name: estimate for name, estimate in found.items() if estimate}
        gains = compare_objects(a, b) if has_several(a) else {}
        ours, theirs = summarize_objects(a, gains), summarize_objects(b, gains)
        objects = {n: ObjectComparison(ours[n], theirs[n], gain) for n, gain in gains.items()}
        return cls(a, b, compare_scores(a, b, "dice"), shared, objects)

    def record(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "images": len(self.a.images),
            "dice_a": self.a.mean(),
            "dice_b": self.b.mean(),
            "a_minus_b": self.gain.record(),
            "overlapping": list(self.a.overlapping),
            "objects": {name: own.record() for name, own in self.objects.items()},
            **{
                name: {"a": a, "b": b, "a_minus_b": gain.record()}
                for name, (a, b, gain) in self._shared().items()
            },
        }

    def _shared(self) -> dict[str, tuple[float, float, Estimate]]:
        a, b = shared_figures(self.a), shared_figures(self.b)
        return {name: (a[name], b[name], gain) for name, gain in self.shared.items()}

    def describe_shared(self) -> list[str]:
        """Return what shared pixels say, a line each; none where classes share no pixels."""
        return [
            f"{SHARED_MEASURES[name]}: A {a:.4f}, B {b:.4f}; A - B {gain}"
            for name, (a, b, gain) in self._shared().items()
        ]


@dataclass(frozen=True)
class Disagreement:
    """Two predictions beside each other.

    Attributes:
        names: of A and of B.
        labels: the classes that were compared: those of both.
        pairs: one an image and class, images in A's order.
        against_truth: who is right; None without truth.
        images_only_in: images that A alone has, and B alone.
        classes_only_in: classes that A alone speaks of, and B alone.
        objects_pq: image -> panoptic quality of A's objects against B's, None where neither has
            any; empty where no image is known to have several objects of a class.
    """

    names: tuple[str, str]
    labels: LabelSpace
    pairs: tuple[MaskPair, ...]
    against_truth: TruthComparison | None = None
    images_only_in: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    classes_only_in: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    objects_pq: Mapping[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.pairs:
            raise ValueError("compare: expected images that both have, found none")

    @property
    def images(self) -> int:
        """Number of images that were compared."""
        return len(self.pairs) // len(self.labels)

    @property
    def mean_dice(self) -> float:
        """Mean of Dice between A and B, over images and classes."""
        return float(np.mean([pair.dice for pair in self.pairs]))

    def differing(self) -> list[MaskPair]:
        """Return the pairs that are not the same to the pixel, the lowest Dice first.

        Of equal ones, such as those where one is empty, the one with more pixels comes first.
        """
        return sorted((pair for pair in self.pairs if pair.differing), key=_by_dice)

    def per_class(self) -> list[ClassDifference]:
        """Return what differs in each class, in the label space's order."""
        grouped = _grouped(self.pairs, lambda pair: pair.label)
        return [self._class(name, grouped[name]) for name in self.labels.names]

    def _class(self, name: str, pairs: Sequence[MaskPair]) -> ClassDifference:
        truth = self.against_truth
        empty = [pair.empty for pair in pairs]
        return ClassDifference(
            label=name,
            images=len(pairs),
            differ=sum(bool(pair.differing) for pair in pairs),
            dice=float(np.mean([pair.dice for pair in pairs])),
            worst=min(pairs, key=_by_dice),
            only_a=sum(pair.only_a for pair in pairs),
            only_b=sum(pair.only_b for pair in pairs),
            empty_a=empty.count("A"),
            empty_b=empty.count("B"),
            truth=(truth.a.mean([name]), truth.b.mean([name])) if truth else None,
            gain=truth.gain.classes.get(name) if truth else None,
        )

    def per_image(self) -> list[ImageDifference]:
        """Return what differs on each image, the lowest panoptic quality between A and B first.

        Where no class has several objects, it is the lowest mean Dice.
        """
        grouped = _grouped(self.pairs, lambda pair: pair.key)
        known: dict[str, tuple[float, float]] = {}
        known_pq: dict[str, tuple[float | None, float | None]] = {}
        if truth := self.against_truth:
            for a, b in zip(truth.a.images, truth.b.images, strict=True):
                known[a.key] = _mean(a.dice), _mean(b.dice)
                if truth.objects:
                    known_pq[a.key] = a.pq(), b.pq()
        rows = [
            ImageDifference(
                key=key,
                dice=float(np.mean([pair.dice for pair in pairs])),
                differ=sum(bool(pair.differing) for pair in pairs),
                differing=sum(pair.differing for pair in pairs),
                worst=min(pairs, key=_by_dice),
                truth=known.get(key),
                pq=self.objects_pq.get(key),
                truth_pq=known_pq.get(key),
            )
            for key, pairs in grouped.items()
        ]
        # Where neither has an object, they agree on them.
        return sorted(rows, key=lambda row: (1.0 if row.pq is None else row.pq, row.dice, row.key))

    def record(self) -> dict[str, Any]:
        """Return all of it as plain values for JSON; only pairs that differ are listed."""
        return {
            "a": self.names[0],
            "b": self.names[1],
            "images": self.images,
            "dice": self.mean_dice,
            "identical": sum(not pair.differing for pair in self.pairs),
            "pairs": len(self.pairs),
            "images_only_in": dict(zip("ab", map(list, self.images_only_in), strict=True)),
            "classes_only_in": dict(zip("ab", map(list, self.classes_only_in), strict=True)),
            "truth": self.against_truth.record() if self.against_truth else None,
            "per_class": [row.record() for row in self.per_class()],
            "per_image": [row.record() for row in self.per_image()],
            "differing": [pair.record() for pair in self.differing()],
        }


def pair_image(
    key: str, a: Mapping[str, CropMask], b: Mapping[str, CropMask], names: Iterable[str]
) -> list[MaskPair]:
    """Pair one image's masks; a class that is absent from a mapping is an empty mask."""
    return [pair_masks(key, n, a.get(n, EMPTY), b.get(n, EMPTY)) for n in names]


def without_boxes(pairs: Iterable[MaskPair]) -> list[MaskPair]:
    """Return pairs of masks whose image has an unknown size: their counts hold, not their boxes."""
    return [replace(pair, box_xywh=NO_BOX) for pair in pairs]


def limit_per_class(pairs: Sequence[MaskPair], limit: int, per_class: int) -> list[MaskPair]:
    """Return the first pairs, at most so many of a class: one weak class does not fill a page."""
    taken: dict[str, int] = defaultdict(int)
    chosen: list[MaskPair] = []
    for pair in pairs:
        if len(chosen) < limit and taken[pair.label] < per_class:
            taken[pair.label] += 1
            chosen.append(pair)
    return chosen


def _by_dice(pair: MaskPair) -> tuple[float, int, str]:
    return pair.dice, -pair.differing, pair.key


def _grouped(pairs: Iterable[MaskPair], by: Callable[[MaskPair], str]) -> dict[str, list[MaskPair]]:
    grouped: dict[str, list[MaskPair]] = defaultdict(list)
    for pair in pairs:
        grouped[by(pair)].append(pair)
    return dict(grouped)


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values())))

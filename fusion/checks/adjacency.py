"""Whether structures lie to each other as usual: flags on what looks exchanged, astray or missing.

Learned from true masks of images in which every class occurs once, for any label space.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from converters.audit.swaps import cycles
from converters.masks import CropMask, Mask
from converters.types import LabelSpace
from fusion.arrays import Complex, Floats
from fusion.checks.layout import (
    LEAST_IMAGES,
    Neighbourhood,
    Place,
    learn_places,
    short,
)

KINDS = ("swapped", "displaced", "fragment", "missing")
# Fewer classes do not tell how an image lies.
_LEAST_CLASSES = 4
_EXPECTED = 0.5
# A fragment lies farther from the rest than this share of the class's width, and than any true one.
_APART, _APART_SAFETY = 0.5, 1.5
VERSION = 1


@dataclass(frozen=True)
class Flag:
    """Something about one class that looks wrong; a person has to look.

    Attributes:
        label: the class.
        kind: one of KINDS.
        text: for people: what was expected, and what was found.
        distance: from the expected place, in standard deviations; of a fragment, its distance
            from the rest in widths of the class; 0 of what is missing.
    """

    label: str
    kind: str
    text: str
    distance: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind}: {self.label}: {self.text}"


@dataclass(frozen=True)
class Adjacency:
    """How the structures of a label space lie to each other.

    `fusion.rules.schema` makes plain values of it, and reads them.

    Attributes:
        labels: name of the label space.
        images: from how many images it was learned.
        places: class -> its place.
        version: of this record.
    """

    labels: str
    images: int
    places: Mapping[str, Place]
    version: int = VERSION
    _model: Neighbourhood = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"adjacency: expected version {VERSION}, found {self.version}")
        if len(self.places) < _LEAST_CLASSES:
            found = f"found {len(self.places)}"
            raise ValueError(f"adjacency: expected at least {_LEAST_CLASSES} classes, {found}")
        for label, place in self.places.items():
            if unknown := sorted(set(place.neighbours) - set(self.places)):
                raise ValueError(f"adjacency: {label}: 'neighbours': unknown class '{unknown[0]}'")
            if len(place.covariance) != 9:
                found = f"found {len(place.covariance)}"
                raise ValueError(f"adjacency: {label}: 'covariance': expected 9 numbers, {found}")
            for key, value in vars(place).items():
                if key != "neighbours" and not np.isfinite(value).all():
                    what = f"expected finite numbers, found {value}"
                    raise ValueError(f"adjacency: {label}: '{key}': {what}")
        object.__setattr__(self, "_model", Neighbourhood.of(self.places))

    @classmethod
    def learn(
        cls, images: Iterable[tuple[Mapping[str, CropMask], str]], labels: LabelSpace
    ) -> Adjacency:
        """Learn from true masks; of an image only places and areas are kept.

        Args:
            images: of each the true masks, and the patient. Classes that fewer than half of them
                have are not looked at.
            labels: the classes.

        Raises:
            ValueError: fewer than 12 images, or classes that most images have.
        """
        centres, areas, apart, people = _measure_all(images, labels)
        if len(people) < LEAST_IMAGES:
            expected = f"at least {LEAST_IMAGES} images with truth"
            raise ValueError(f"adjacency: expected {expected}, found {len(people)}")
        chosen = np.flatnonzero(np.isfinite(areas).mean(axis=0) >= _EXPECTED)
        whole = np.isfinite(areas[:, chosen]).sum(axis=1) >= _LEAST_CLASSES
        if len(chosen) < _LEAST_CLASSES or whole.sum() < LEAST_IMAGES:
            found = f"found {len(chosen)} in {int(whole.sum())} images"
            raise ValueError(f"adjacency: expected at least {_LEAST_CLASSES} classes, {found}")
        people = [
            person for person, is_whole in zip(people, whole.tolist(), strict=True) if is_whole
        ]
        names = [labels.names[k] for k in chosen.tolist()]
        places = learn_places(centres[whole][:, chosen], areas[whole][:, chosen], people, names)
        farthest = np.nanmax(np.where(np.isfinite(apart), apart, 0.0), axis=0)[chosen]
        kept = {
            n: replace(p, apart=short(far))
            for (n, p), far in zip(places.items(), farthest, strict=True)
        }
        return cls(labels.name, len(people), kept)

    def check(self, masks: Mapping[str, CropMask]) -> list[Flag]:
        """Return what looks wrong about one image's masks, class by class in each kind.

        Args:
            masks: class -> mask; an absent class is an empty mask.
        """
        found = {name: masks[name] for name in self.places if name in masks and masks[name].area}
        flags = [flag for name, mask in found.items() for flag in self._fragments(name, mask)]
        if len(found) >= max(_LEAST_CLASSES, _EXPECTED * len(self.places)):
            flags = [*self._astray(found), *flags]
        what = "expected in every image, found none"
        flags += [Flag(n, "missing", what) for n in self.places if n not in found]
        return flags

    def _fragments(self, label: str, mask: CropMask) -> Iterator[Flag]:
        main, others = _parts(mask)
        width = math.sqrt(cv2.countNonZero(main))
        least = max(_APART, _APART_SAFETY * self.places[label].apart)
        for part in others:
            far = _gap(main, part) / width
            if far > least:
                x, y = _centre(part)
                where = f"{cv2.countNonZero(part)} px at x {mask.x + x:.0f}, y {mask.y + y:.0f}"
                text = f"expected one place, found a part of {where}, {far:.1f} widths from it"
                yield Flag(label, "fragment", text, far)

    def _astray(self, found: Mapping[str, CropMask]) -> Iterator[Flag]:
        model, names = self._model, list(self.places)
        measured = np.array([_measure(found[n]) if n in found else _NOTHING for n in names])
        points, sizes = model.to_frame(measured[:, 0], measured[:, 1].real)
        order, before = model.best_order(points, sizes), model.distances(points, sizes)
        for cycle in cycles(order):
            for k in cycle:
                source, target = names[order[k]], names[k]
                text = f"expected {target} in its place; exchanged labels?"
                yield Flag(source, "swapped", text, float(before[order[k]]))
        for k, distance in model.displaced(points[order], sizes[order]):
            near = ", ".join(self.places[names[k]].neighbours[:3])
            text = f"expected elsewhere beside {near}, found {distance:.1f} standard deviations off"
            yield Flag(names[order[k]], "displaced", text, distance)


# --- masks


def _measure_all(
    images: Iterable[tuple[Mapping[str, CropMask], str]], labels: LabelSpace
) -> tuple[Complex, Floats, Floats, list[str]]:
    """Centres, areas and how far parts lie apart (N, B), NaN without the class; the patients."""
    rows, people = [], []
    for masks, person in images:
        found = [
            _measure(masks[n]) if n in masks and masks[n].area else _NOTHING for n in labels.names
        ]
        rows.append(found)
        people.append(person)
    table = np.array(rows, np.complex128).reshape(len(rows), len(labels), 3)
    return table[..., 0], table[..., 1].real, table[..., 2].real, people


_NOTHING = (complex(math.nan, math.nan), math.nan, math.nan)


def _measure(mask: CropMask) -> tuple[complex, float, float]:
    """Centre and area of the largest part, and how far the farthest one is, in its widths."""
    main, others = _parts(mask)
    area = cv2.countNonZero(main)
    x, y = _centre(main)
    apart = max((_gap(main, part) for part in others), default=0.0) / math.sqrt(area)
    return complex(mask.x + x, mask.y + y), float(area), apart


def _parts(mask: CropMask) -> tuple[Mask, list[Mask]]:
    """The largest part of a mask with pixels, and the others, in the mask's crop."""
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.pixels, connectivity=8)
    if count == 2:
        return mask.pixels, []
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    others = [n for n in range(1, count) if n != largest]
    return (numbers == largest).astype(np.uint8), [(numbers == n).astype(np.uint8) for n in others]


def _centre(part: Mask) -> tuple[float, float]:
    moments = cv2.moments(part, binaryImage=True)
    return moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]


def _gap(main: Mask, part: Mask) -> float:
    """Distance in pixels between the nearest pixels of two parts."""
    far = cv2.distanceTransform(1 - main, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(far[part > 0].min())

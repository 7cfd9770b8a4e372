"""Whether predicted masks lie as annotated ones do, or transposed, mirrored, turned or shifted.

A layout is where an image's classes lie to each other: their centres, freed of place and size. A
mask that was coded column by column fits a square image as well as one coded row by row does, but
its objects lie on their side. What turns by itself is not held against the masks: the annotations
say which layouts occur, so that mirroring is only found where all of them show one side.

A prediction that is wrong is as wrong after any turn. Therefore it is suspected only if the masks
are beyond all annotated layouts as they are, and among them after one and the same turn, on most
images. Of 11,814 submissions that were not turned none was suspected: of networks on phantoms of
two seeds and true ones of three more, of 1 to 80 images and 4 to 29 classes, with exchanged classes
and with random masks, beside 12 to 80 annotated images. Of whole images that were transposed 490 of
492 were, beside 80 annotated images, and 371 beside 12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from converters.masks import CropMask
from converters.types import LabelSpace, Sample
from fusion.arrays import Complex, Floats

FEWEST_PEOPLE, FEWEST_CLASSES = 4, 4
"""Fewer do not tell which layouts occur."""
# More annotated images would tell little more, and each is held beside each predicted one.
_MOST_IMAGES = 240
# Of the distances from an annotated layout to the nearest one of another patient.
_USUAL = 0.95
# A turned layout is farther off than usual, by so much of its own median radius, and by so many
# times what is left when it is turned back; on such a share of the images.
_BEYOND, _FAR, _FARTHER = 1.5, 0.4, 3.0
_LEAST_SHARE = 0.6

# Of complex x + iy, y down. What is the more likely mistake comes first.
TURNS: dict[str, Callable[[Complex], Complex]] = {
    "transposed": lambda z: 1j * z.conj(),
    "mirrored left to right": lambda z: -z.conj(),
    "mirrored top to bottom": lambda z: z.conj(),
    "turned by 180 degrees": lambda z: -z,
}


# Fewer images do not tell a shift. A network's own is below a quarter of a pixel to the sides.
_IMAGES_THAT_TELL = 5
_ONE, _ASIDE, _UNSURE = (0.65, 1.35), 0.5, 0.1


# The median mask lies so far from its own annotation; turned back it is so many times nearer.
_APART, _FITS_BETTER = 0.08, 4.0


class Turned(NamedTuple):
    """What a set of masks looks like.

    Attributes:
        turn: of `TURNS`.
        images: how many were looked at.
        fitting: on how many of them the masks lie among the annotated ones when turned back, and
            clearly farther off as they are.
    """

    turn: str
    images: int
    fitting: int


class Displaced(NamedTuple):
    """Where masks lie beside the annotations of the same images.

    Attributes:
        share: the median distance of their centres, as a share of the image's longer side.
        turn: how they look turned; "" where no turn fits better.
    """

    share: float
    turn: str

    @property
    def is_far(self) -> bool:
        """Whether even a poor network's masks lie nearer."""
        return bool(_APART < self.share < np.inf)


def centre_of(mask: CropMask) -> complex:
    """Return the centre of a mask with pixels, x + iy in the image's pixels."""
    moments = cv2.moments(mask.pixels, binaryImage=True)
    x, y = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    return complex(mask.x + x, mask.y + y)


def annotated_centres(samples: Iterable[Sample], labels: LabelSpace) -> Complex:
    """Return the centres of annotated classes in pixels, complex x + iy (N, C); NaN without.

    The parts of a class count together.
    """
    rows = []
    for sample in samples:
        row = np.full(len(labels), complex(np.nan, np.nan))
        weights = np.zeros(len(labels))
        for instance in sample.instances:
            k, area = labels.index.get(instance.label), instance.geometry.area
            if k is None or not area:
                continue
            middle = complex(instance.geometry.centroid.x, instance.geometry.centroid.y)
            before = row[k] * weights[k] if weights[k] else 0
            weights[k] += area
            row[k] = (before + middle * area) / weights[k]
        rows.append(row)
    return np.array(rows, np.complex128).reshape(len(rows), len(labels))


@dataclass(frozen=True)
class Layouts:
    """The layouts that annotated images show.

    Attributes:
        centres: complex (N, C) in pixels; NaN without the class.
        people: (N,) whose images they are.
    """

    centres: Complex
    people: tuple[str, ...]
    _known: dict[bytes, tuple[Complex, float]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def learn(cls, samples: Sequence[Sample], labels: LabelSpace) -> Layouts | None:
        """Learn from annotated images; None where they are of too few patients.

        Args:
            samples: those without annotations are left out; of many an even part is taken.
            labels: the classes.
        """
        known = [sample for sample in samples if sample.instances]
        known = known[:: -(-len(known) // _MOST_IMAGES) or 1]
        people = tuple(sample.patient for sample in known)
        if len(set(people)) < FEWEST_PEOPLE:
            return None
        return cls(annotated_centres(known, labels), people)

    def suspect(self, centres: Complex, is_square: npt.NDArray[np.bool_]) -> Turned | None:
        """Say what nearly all images look like, if it is not as it should be.

        Args:
            centres: of predicted masks, complex (n, C) in pixels; NaN without the class.
            is_square: (n,) of the images; others cannot be transposed.
        """
        found = np.array([self._offsets(row) for row in centres]).reshape(-1, 1 + len(TURNS))
        for k, turn in enumerate(TURNS, start=1):
            rows = found[is_square] if turn == "transposed" else found
            rows = rows[np.isfinite(rows[:, 0])]
            plain, turned = rows[:, 0], rows[:, k]
            fitting = (plain > _FAR) & (plain > _FARTHER * turned)
            if len(rows) and fitting.mean() >= _LEAST_SHARE:
                return Turned(turn, len(rows), int(fitting.sum()))
        return None

    def _offsets(self, centres: Complex) -> list[float]:
        """How far the nearest layout is, as it is and by `TURNS`; NaN where nobody knows."""
        there = np.isfinite(centres.real)
        usual = self._usual(there) if there.sum() >= FEWEST_CLASSES else None
        if usual is None:
            return [np.nan] * (1 + len(TURNS))
        layouts, limit = usual
        layout = _normalize(centres[there][None])
        turned = [layout, *(turn(layout) for turn in TURNS.values())]
        plain, *others = [float(_distances(one, layouts).min()) for one in turned]
        return [plain if plain > _BEYOND * limit else 0.0, *others]

    def _usual(self, there: npt.NDArray[np.bool_]) -> tuple[Complex, float] | None:
        """The layouts of some classes, and how far from the next person's they usually are."""
        key = there.tobytes()
        if key not in self._known:
            whole = np.isfinite(self.centres[:, there].real).all(axis=1)
            people = np.array(self.people)[whole]
            if len(set(people.tolist())) < FEWEST_PEOPLE:
                return None
            layouts = _normalize(self.centres[whole][:, there])
            nearest = [
                _distances(layouts[i : i + 1], layouts[people != people[i]]).min()
                for i in range(len(layouts))
            ]
            self._known[key] = layouts, float(np.quantile(nearest, _USUAL))
        return self._known[key]


def _normalize(centres: Complex) -> Complex:
    """Centres (N, C) around their medians, in units of their median distance to it."""
    middle = np.median(centres.real, axis=1) + 1j * np.median(centres.imag, axis=1)
    around = centres - middle[:, None]
    return around / np.maximum(np.median(np.abs(around), axis=1, keepdims=True), 1e-9)


def _distances(layout: Complex, layouts: Complex) -> Floats:
    # The median: a few classes that were found elsewhere do not count.
    found: Floats = np.median(np.abs(layouts - layout), axis=1)
    return found


@dataclass(frozen=True)
class Annotations:
    """What is known of where masks lie.

    Attributes:
        layouts: of all annotated images; None where they are too few.
        centres: image name -> complex (C,), of the predicted images that are annotated.
    """

    layouts: Layouts | None
    centres: Mapping[str, Complex]

    @classmethod
    def of(
        cls, samples: Sequence[Sample], predicted: Sequence[Sample], labels: LabelSpace
    ) -> Annotations:
        """Gather what annotated samples of a data set, and the predicted ones of them, tell."""
        known = [sample for sample in predicted if sample.instances]
        centres = annotated_centres(known, labels)
        names = (sample.file_name for sample in known)
        return cls(Layouts.learn(samples, labels), dict(zip(names, centres, strict=True)))


def displaced(found: Complex, true: Complex, sizes_hw: Sequence[tuple[int, int]]) -> Displaced:
    """Say how far masks lie from the annotations of the same images, and how they would fit better.

    Args:
        found: centres of predicted masks, complex (n, C) in pixels; NaN without the class.
        true: of the annotated ones.
        sizes_hw: of the images.
    """
    turned = {"": found}
    height, width = np.array(sizes_hw, np.float64).reshape(-1, 2).T[..., None] - 1
    x, y, square = found.real, found.imag, height == width
    turned |= {
        "transposed": np.where(square, y + 1j * x, np.nan),
        "mirrored left to right": width - x + 1j * y,
        "mirrored top to bottom": x + 1j * (height - y),
        "turned by 180 degrees": width - x + 1j * (height - y),
        "turned to the right": np.where(square, y + 1j * (width - x), np.nan),
        "turned to the left": np.where(square, height - y + 1j * x, np.nan),
    }
    longest = np.maximum(height, width) + 1
    shares = {name: _median(np.abs(centres - true) / longest) for name, centres in turned.items()}
    best = min(shares, key=lambda name: shares[name])
    is_turned = shares[""] > _APART and shares[best] * _FITS_BETTER < shares[""]
    return Displaced(shares[""], best if is_turned else "")


def _median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else np.inf


def shift_px(found: Complex, true: Complex) -> float | None:
    """Return how far right masks lie of their annotations, if that is one pixel everywhere.

    A code whose starts count from 0 moves all masks to the left by one pixel. On phantoms three
    networks moved them by -.05 to .14 pixels (medians over 40 images).

    Args:
        found: centres of predicted masks, complex (n, C) in pixels; NaN without the class.
        true: of the annotated ones.
    """
    offsets = (found - true)[np.isfinite((found - true).real)]
    if len(found) < _IMAGES_THAT_TELL or len(offsets) < _IMAGES_THAT_TELL * FEWEST_CLASSES:
        return None
    low, middle, high = np.quantile(offsets.real, (0.25, 0.5, 0.75)).tolist()
    # Of the median of values that are spread as a normal distribution is, by their quartiles.
    error = 1.253 * (high - low) / 1.349 / np.sqrt(len(offsets))
    is_one = _ONE[0] <= abs(middle) <= _ONE[1] and error <= _UNSURE
    return middle if is_one and abs(np.median(offsets.imag)) <= _ASIDE else None

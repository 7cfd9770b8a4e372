"""What the fit keeps of images: tables of counts, the patients, and how to divide them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from converters.masks import EMPTY, CropMask
from converters.types import LabelSpace
from fusion.arrays import Floats
from fusion.fit.counts import ClassCounts, OtherClasses, tabulate
from fusion.fit.spill import TableWriter, some_of
from fusion.metrics.scores import LEAST_IMAGES, LEAST_SHARE
from fusion.rules.base import ClassVotes
from fusion.rules.evidence import FAINT, ClassEvidence, gather
from fusion.types import Prediction

Seen = tuple[Sequence[Prediction], Mapping[str, CropMask], str]
"""The sources' predictions of one image, the true masks, and the patient."""
Fold = tuple[list[int], list[int]]
"""The places of the images to fit on, and of those that are held out."""
Result = TypeVar("Result")


def folds_of(patients: Sequence[str], count: int) -> list[Fold]:
    """Return the places of (train, test) images of a cross-validation by patient.

    Args:
        patients: of each image.
        count: number of folds; fewer where there are fewer patients.
    """
    # Late: its import takes a second, and who opens a fitted rule needs it not.
    from sklearn.model_selection import GroupKFold

    splitter = GroupKFold(min(count, len(set(patients))))
    split = splitter.split(np.zeros(len(patients)), groups=patients)
    return [(train.tolist(), test.tolist()) for train, test in split]


@dataclass(frozen=True)
class CountedImage:
    """One image with truth, counted.

    Attributes:
        tables: class name -> its table.
        patient: whose image it is.
        is_instance: bool (K,), which sources find instances.
    """

    tables: Mapping[str, ClassCounts]
    patient: str
    is_instance: npt.NDArray[np.bool_]


def count_evidence(
    seen: Seen, labels: LabelSpace, soft_edge: float, zones: bool = True, overlaps: bool = False
) -> CountedImage:
    """Count an image as the hybrid rule sees it.

    Args:
        seen: the image.
        labels: the classes.
        soft_edge: see `fusion.rules.evidence.fade_beyond`.
        zones: whether pixels of different zones are told apart.
        overlaps: whether the pixels that classes share are counted, too.
    """
    found = {e.label: e for e in gather(seen[0], labels, soft_edge)}
    if not zones:
        found = {n: replace(e, zones=np.zeros_like(e.zones)) for n, e in found.items()}
    others = _others(seen, found, labels) if overlaps else {}
    return _count(seen, labels, found, others)


def _others(
    seen: Seen, found: Mapping[str, ClassEvidence], labels: LabelSpace
) -> dict[str, OtherClasses]:
    """Where the classes other than each truly are."""
    predictions, truth, _ = seen
    count = np.zeros(predictions[0].size_hw, np.uint8)
    for mask in truth.values():
        count[_slices(mask.box_xywh)] += mask.pixels
    others = {}
    for n in labels.names:
        real = truth.get(n, EMPTY)
        shared = np.count_nonzero((count[_slices(real.box_xywh)] > 1) & (real.pixels > 0))
        window = found[n].window_xywh if n in found else (0, 0, 0, 0)
        true = count[_slices(window)] > real.window(window)
        others[n] = OtherClasses(true, int(shared))
    return others


def _slices(window: tuple[int, int, int, int]) -> tuple[slice, slice]:
    x, y, width, height = window
    return slice(y, y + height), slice(x, x + width)


def count_plainly(seen: Seen, labels: LabelSpace) -> CountedImage:
    """Count an image as rules see it that fuse each class by itself.

    What a source has looked for and not found is 0 there, and only who abstains is silent.
    """
    found = {
        n: _evidence(ClassVotes.of(seen[0], n, labels.once), len(seen[0])) for n in labels.names
    }
    return _count(seen, labels, {n: e for n, e in found.items() if e is not None}, {})


def _evidence(votes: ClassVotes, sources: int) -> ClassEvidence | None:
    window = votes.window(FAINT)
    if not (window[2] and window[3]):
        return None
    prob = np.zeros((sources, window[3], window[2]), np.uint8)
    for place, layer in votes.layers(window):
        prob[place] = layer
    silent = np.array([place not in votes.masks for place in range(sources)])
    ones = np.ones(sources)
    return ClassEvidence(votes.label, window, prob, silent, np.zeros_like(prob[0]), ones, ones)


def _count(
    seen: Seen,
    labels: LabelSpace,
    found: Mapping[str, ClassEvidence],
    others: Mapping[str, OtherClasses],
) -> CountedImage:
    predictions, truth, patient = seen
    tables = {
        n: tabulate(found.get(n), truth.get(n, EMPTY), len(predictions), others.get(n))
        for n in labels.names
    }
    return CountedImage(tables, patient, np.array([p.kind == "instance" for p in predictions]))


@dataclass(frozen=True)
class Counted:
    """Images with truth, counted: what the fit keeps of them.

    Attributes:
        tables: class name -> one table an image.
        patients: one an image.
        is_instance: bool (K,), which sources find instances.
        weights: float64 (images,), how much each image counts.
        overlapping: the classes that overlap in the truth, see `Scores.overlapping`; none where
            nobody asked for shared pixels.
    """

    tables: Mapping[str, Sequence[ClassCounts]]
    patients: Sequence[str]
    is_instance: npt.NDArray[np.bool_]
    weights: Floats
    overlapping: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def sources(self) -> int:
        """The number of sources."""
        return len(self.is_instance)

    @classmethod
    def of(
        cls,
        images: Iterable[CountedImage],
        labels: LabelSpace,
        sources: int,
        weights: Floats | None = None,
    ) -> Counted:
        """Put images together, one in memory at a time; see `fusion.fit.spill`.

        Args:
            images: counted.
            labels: the classes.
            sources: their number.
            weights: float64 (images,), above 0, how much each image counts; None for all alike.

        Raises:
            ValueError: images of one patient only, or another number of predictions than sources.
        """
        writer, patients, is_instance = TableWriter(labels.names), [], np.zeros(sources, np.bool_)
        for image in images:
            if len(image.is_instance) != sources:
                raise ValueError(f"fit: expected {sources} sources, found {len(image.is_instance)}")
            is_instance |= image.is_instance
            writer.add(image.tables)
            patients.append(image.patient)
        if len(set(patients)) < 2:
            found = f"{len(set(patients))} in {len(patients)} images"
            raise ValueError(f"fit: expected images of at least two patients, found {found}")
        weights = np.ones(len(patients)) if weights is None else weights
        tables = writer.finish()
        overlapping = frozenset(n for n, found in tables.items() if _does_overlap(found))
        return cls(tables, patients, is_instance, weights, overlapping)

    def only(self, places: Sequence[int]) -> Counted:
        """Return some of the images."""
        tables = {n: some_of(found, places) for n, found in self.tables.items()}
        patients = [self.patients[i] for i in places]
        return replace(self, tables=tables, patients=patients, weights=self.weights[places])

    def folds(self, count: int) -> list[Fold]:
        """Return the places of (train, test) images of a cross-validation by patient."""
        return folds_of(self.patients, count)

    def by_patient(self, folds: Sequence[Fold], fitted: Sequence[Result]) -> dict[str, Result]:
        """Return patient -> what was fitted without the patient's images; one entry a fold."""
        return {
            self.patients[i]: result
            for (_, test), result in zip(folds, fitted, strict=True)
            for i in test
        }

    def mean(self, values: Floats) -> Floats:
        """Return the mean over images, as much as they count; float64 (..., images) -> (...)."""
        return np.asarray(values @ self.weights / self.weights.sum())

    def shared_alone(self, label: str) -> Floats:
        """Return numerators and denominators of each source's Dice of shared pixels.

        Returns:
            float64 (K, 2, images).
        """
        tables = self.tables[label]
        parts = [
            [t.shared.dice_parts(t.says(k)) if t.shared else (0, 0) for t in tables]
            for k in range(self.sources)
        ]
        return np.array(parts, np.float64).transpose(0, 2, 1)

    def alone(self, label: str) -> Floats:
        """Return the Dice of each source alone, float64 (K, images)."""
        tables = self.tables[label]
        return np.array([[t.dice_alone(k) for t in tables] for k in range(self.sources)])


def _does_overlap(tables: Sequence[ClassCounts]) -> bool:
    shares = [
        t.shared is not None and t.shared.truth >= max(1, LEAST_SHARE * t.truth)
        for t in tables
        if t.truth
    ]
    return bool(shares) and sum(shares) >= LEAST_IMAGES * len(shares)

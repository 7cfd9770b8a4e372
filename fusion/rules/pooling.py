"""Soft voting: the sources' probabilities, averaged or the highest of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np

from converters.types import LabelSpace
from fusion.arrays import Bytes
from fusion.rules.base import ClassRule, ClassVotes, check_classes, check_names
from fusion.rules.evidence import FAINT, NEUTRAL
from fusion.types import Prediction, Window

# Weights become whole numbers of this sum: sums of whole numbers do not depend on their order.
# 255 times it fits into 32 bits.
_WHOLE = 1 << 23


@dataclass(frozen=True)
class Average(ClassRule):
    """What rules share that average probabilities and cut the average at a class's threshold.

    Attributes:
        thresholds: class or group -> the average from which a pixel belongs to it, between 0 and 1;
            one half where there is none. A class's entry is stronger than its group's. In the
            result the log odds are moved, so that the threshold lies at one half.

    Raises:
        ValueError: a threshold out of its range.
    """

    thresholds: Mapping[str, float] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        for name, threshold in self.thresholds.items():
            if not 0 < threshold < 1:
                expected = "expected more than 0, less than 1"
                raise ValueError(f"thresholds: {name}: {expected}, found {threshold}")

    is_pixelwise = True

    def check(self, predictions: Sequence[Prediction], labels: LabelSpace) -> None:
        """Raise ValueError where a threshold is of no class, or the rule does not fit."""
        super().check(predictions, labels)
        check_classes(type(self).__name__.lower(), list(self.thresholds), labels)

    def fuse(self, votes: ClassVotes, labels: LabelSpace) -> tuple[Window, Bytes]:
        """Return the average of the probabilities where one of them is not faint."""
        window, prob = _average(votes, self.shares(votes, labels))
        group = self.thresholds.get(labels.group_of(votes.label) or "", 0.5)
        return window, move_to_half(prob, self.thresholds.get(votes.label, group))

    @abstractmethod
    def shares(self, votes: ClassVotes, labels: LabelSpace) -> Mapping[int, float]:
        """Return the weight of each source that speaks of the class, by its place."""


@dataclass(frozen=True)
class Mean(Average):
    """Soft voting: the mean of the probabilities; all sources count the same.

    What a source has looked for and not found counts as 0; one that abstains does not count.
    Beyond the window in which a source gives a class at least a twentieth, the mean is left at 0.
    It is the linear opinion pool with equal weights (Genest and Zidek, Statistical Science 1986,
    section 3).
    """

    def shares(self, votes: ClassVotes, labels: LabelSpace) -> Mapping[int, float]:
        """Return 1 for each source that speaks of the class."""
        return dict.fromkeys(votes.masks, 1.0)


@dataclass(frozen=True)
class Weighted(Average):
    """Soft voting: the mean of the probabilities, weighted by source, such as by its score.

    Where a source abstains, or where its weight is 0, the others share its weight. Otherwise as
    the mean: the linear opinion pool (Genest and Zidek, Statistical Science 1986, section 3).

    Attributes:
        weights: source -> weight, at least 0; only their ratios count.
        classes: class or group -> source -> weight, instead of the general one. A class's entry is
            stronger than its group's; a source that it leaves out keeps its weight.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        named = [*self.weights, *(name for entry in self.classes.values() for name in entry)]
        object.__setattr__(self, "sources", check_names("weighted", self.sources, named))
        for where, entry in (("weights", self.weights), *self.classes.items()):
            if not all(w >= 0 for w in entry.values()) or not sum(entry.values()) < math.inf:
                expected = "expected finite weights >= 0"
                raise ValueError(f"weighted: {where}: {expected}, found {dict(entry)}")

    def check(self, predictions: Sequence[Prediction], labels: LabelSpace) -> None:
        """Raise ValueError where a class has no weights, or the rule does not fit."""
        super().check(predictions, labels)
        check_classes("weighted", list(self.classes), labels)
        if not self.sources:
            raise ValueError("weighted: expected a weight of each source in a fusion config")
        for label in labels.names:
            table = self._table(label, labels)
            if missing := [name for name in self.sources if name not in table]:
                expected = "expected a weight of each source"
                raise ValueError(f"weighted: {label}: {expected}, missing {', '.join(missing)}")
            if not sum(table.values()) > 0:
                raise ValueError(f"weighted: {label}: expected a weight above 0, found {table}")

    def shares(self, votes: ClassVotes, labels: LabelSpace) -> Mapping[int, float]:
        """Return the class's weights of the sources that speak of it."""
        table = self._table(votes.label, labels)
        return {place: table[self.sources[place]] for place in votes.masks}

    def _table(self, label: str, labels: LabelSpace) -> dict[str, float]:
        group = self.classes.get(labels.group_of(label) or "", {})
        return {**self.weights, **group, **self.classes.get(label, {})}


@dataclass(frozen=True)
class Max(ClassRule):
    """Soft voting: the highest of the probabilities; a pixel belongs where any source says so.

    It joins what the sources find, so that nothing is missed, and gathers all their false alarms:
    Kittler, Hatef, Duin and Matas, "On combining classifiers", PAMI 1998, section 3.
    """

    is_pixelwise = True

    def fuse(self, votes: ClassVotes, labels: LabelSpace) -> tuple[Window, Bytes]:
        """Return the highest probability where it is not faint."""
        window = votes.window(FAINT)
        highest = np.zeros((window[3], window[2]), np.uint8)
        for _, layer in votes.layers(window):
            np.maximum(highest, layer, out=highest)
        return window, highest


def _average(votes: ClassVotes, weights: Mapping[int, float]) -> tuple[Window, Bytes]:
    """Return the mean of the layers, halves rounded up; weights: one a source that speaks."""
    window = votes.window(FAINT)
    total = np.zeros((window[3], window[2]), np.uint32)
    # The exact sum, rounded once: it does not depend on the order either.
    if not (whole := math.fsum(weights.values())):
        return window, total.astype(np.uint8)
    shares = {place: round(weight / whole * _WHOLE) for place, weight in weights.items()}
    for place, layer in votes.layers(window):
        if shares[place]:
            total += np.multiply(layer, shares[place], dtype=np.uint32)
    divisor = sum(shares.values())
    return window, ((total + divisor // 2) // divisor).astype(np.uint8)


def move_to_half(prob: Bytes, threshold: float) -> Bytes:
    """Move log odds so that a threshold comes to lie at one half, to the pixel.

    Args:
        prob: uint8 of any shape, 255 = 1.
        threshold: between 0 and 1; one half changes nothing.

    Returns:
        uint8 of the same shape; at least 128 where `prob` reaches the threshold, 0 stays 0.

    >>> move_to_half(np.array([[0, 76, 77, 255]], np.uint8), 0.3).tolist()
    [[0, 127, 128, 255]]
    """
    return prob if threshold == 0.5 or not prob.size else cv2.LUT(prob, _moved(threshold))


@cache
def _moved(threshold: float) -> Bytes:
    p = np.arange(256) / 255
    scaled = p * (1 - threshold)
    odds = scaled / (scaled + (1 - p) * threshold)
    table = np.rint(255 * odds).astype(np.uint8)
    reaches = np.arange(256) >= 255 * threshold
    return np.where(reaches, np.maximum(table, NEUTRAL), np.minimum(table, NEUTRAL - 1))

"""The plain rules: the mean of the sources' probabilities, and the vote of their masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.types import LabelSpace
from fusion.evidence import FAINT, NEUTRAL, check_same_image, union_window
from fusion.types import Prediction, evidence_at_pixels


@dataclass(frozen=True)
class Mean:
    """Soft voting: the (weighted) mean of the probabilities; an absent object counts as 0.

    Beyond the window in which a source gives a class at least a twentieth, the mean is left at 0.

    Attributes:
        weights: one a source, positive; empty means equal weights.

    Raises:
        ValueError: a weight that is not a positive, finite number.
    """

    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not all(0 < w < math.inf for w in self.weights):
            raise ValueError(f"mean: expected positive weights, found {self.weights}")

    def __call__(self, predictions: Sequence[Prediction], labels: LabelSpace) -> Prediction:
        """Fuse one image's predictions."""
        check_same_image(predictions)
        weights = _source_weights(self.weights, len(predictions))
        masks = {}
        for label in labels.names:
            window = union_window(predictions, label, FAINT)
            if window[2] == 0 or window[3] == 0:
                continue
            total = np.zeros((window[3], window[2]), np.float32)
            for weight, prediction in zip(weights, predictions, strict=True):
                best = prediction.best(label)
                if best is not None:
                    total += weight * best[1].render(window)
            masks[label] = evidence_at_pixels(window, np.rint(total).astype(np.uint8))
        return Prediction(predictions[0].key, predictions[0].size_hw, "semantic", masks)


@dataclass(frozen=True)
class Vote:
    """Hard voting: a pixel belongs to a class where at least `k` sources say so.

    Attributes:
        k: votes that are needed; 0 means more than half, and a tie goes as the first source says.
    """

    k: int = 0

    def __call__(self, predictions: Sequence[Prediction], labels: LabelSpace) -> Prediction:
        """Fuse one image's predictions.

        Raises:
            ValueError: `k` exceeds the number of sources.
        """
        check_same_image(predictions)
        if not 0 <= self.k <= len(predictions):
            raise ValueError(f"vote: expected k of 0 to {len(predictions)}, found {self.k}")
        masks = {}
        for label in labels.names:
            window = union_window(predictions, label, NEUTRAL)
            if window[2] == 0 or window[3] == 0:
                continue
            ballots = np.stack([p.binary(label).window(window) for p in predictions])
            elected = self._count(ballots)
            masks[label] = evidence_at_pixels(window, elected.astype(np.uint8) * np.uint8(255))
        return Prediction(predictions[0].key, predictions[0].size_hw, "semantic", masks)

    def _count(self, ballots: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        votes = ballots.sum(axis=0, dtype=np.uint16)
        if self.k:
            return np.asarray(votes >= self.k)
        tie_break = np.where(2 * votes == len(ballots), ballots[0], 0)
        return np.asarray(2 * votes + tie_break > len(ballots))


def _source_weights(weights: Sequence[float], sources: int) -> npt.NDArray[np.float32]:
    if weights and len(weights) != sources:
        raise ValueError(f"mean: expected {sources} weights, one a source, found {len(weights)}")
    values = np.array(weights or [1.0] * sources, np.float64)
    return (values / values.sum()).astype(np.float32)

"""Images as the fit sees them: pixels counted by the sources' evidence, the zone and the truth.

A table has some thousand rows, whatever the image's size, so that Dice of any weights, and its
gradient, cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from converters.masks import CropMask
from fusion.evidence import LOGIT_LIMIT, ZONES, ClassEvidence, logit_table

LEVELS = 16
AT_MOST_SOURCES = 15  # so many sources' levels, and the zone, fit into one int64
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassTable:
    """One class of one image, counted.

    Attributes:
        logits: float32 (n, K), the sources' log odds of each row; never 0 but for a silent source.
        zones: uint8 (n,).
        bone: int64 (n,), pixels of the row that belong to the class in truth.
        other: int64 (n,), pixels of the row that do not.
        missed: true pixels outside every source's window.
    """

    logits: npt.NDArray[np.float32]
    zones: npt.NDArray[np.uint8]
    bone: npt.NDArray[np.int64]
    other: npt.NDArray[np.int64]
    missed: int

    def dice_alone(self, source: int) -> float:
        """Return the Dice of one source's mask, which is empty where the source is silent."""
        chosen = self.logits[:, source] > 0
        hit, area = int(self.bone[chosen].sum()), int((self.bone + self.other)[chosen].sum())
        both = area + int(self.bone.sum()) + self.missed
        return 2 * hit / both if both else 1.0


def _level_centres() -> npt.NDArray[np.float32]:
    step = 2 * LOGIT_LIMIT / LEVELS
    centres = (np.arange(LEVELS + 1) - LEVELS / 2 + 0.5) * step
    centres[LEVELS] = 0.0  # a silent source's
    return centres.astype(np.float32)


def _levels_of_bytes() -> npt.NDArray[np.int64]:
    share = (logit_table() + LOGIT_LIMIT) / (2 * LOGIT_LIMIT)
    return np.clip(np.floor(share * LEVELS).astype(np.int64), 0, LEVELS - 1)


_CENTRES, _LEVELS = _level_centres(), _levels_of_bytes()


def tabulate(evidence: ClassEvidence | None, truth: CropMask, sources: int) -> ClassTable:
    """Count one class of one image; `evidence` is None where no source has seen it.

    Raises:
        ValueError: more sources than a row's code can hold.
    """
    if sources > AT_MOST_SOURCES:
        raise ValueError(f"fit: expected at most {AT_MOST_SOURCES} sources, found {sources}")
    if evidence is None:
        nothing = np.zeros(0, np.int64)
        return ClassTable(
            np.zeros((0, sources), np.float32),
            nothing.astype(np.uint8),
            nothing,
            nothing,
            truth.area,
        )
    code = evidence.zones.astype(np.int64)
    for layer, silent in zip(evidence.prob, evidence.silent, strict=True):
        code = code * (LEVELS + 1) + (LEVELS if silent else _LEVELS[layer])
    real = truth.window(evidence.window_xywh)
    rows, place = np.unique(code, return_inverse=True)
    total = np.bincount(place.ravel(), minlength=len(rows))
    bone = np.bincount(place.ravel(), weights=real.ravel(), minlength=len(rows)).astype(np.int64)
    logits = np.empty((len(rows), sources), np.float32)
    for k in reversed(range(sources)):
        rows, level = np.divmod(rows, LEVELS + 1)
        logits[:, k] = _CENTRES[level]
    return ClassTable(
        logits, rows.astype(np.uint8), bone, total - bone, truth.area - int(real.sum())
    )


@dataclass(frozen=True)
class Stack:
    """Tables of several images, one below the other, as the optimiser wants them.

    Attributes:
        features: float32 (n, K * zones + 1): log odds in the columns of their zone; a last 1.
        image: int64 (n,), the row's image, 0 .. images - 1.
        bone: float64 (n,). total: float64 (n,). truth: float64 (images,), true pixels.
    """

    features: npt.NDArray[np.float32]
    image: npt.NDArray[np.int64]
    bone: Floats
    total: Floats
    truth: Floats

    @classmethod
    def of(cls, tables: Sequence[ClassTable], sources: int) -> Stack:
        """Stack one class's tables, one an image."""
        features = [_features(t, sources) for t in tables]
        image = np.repeat(np.arange(len(tables)), [len(t.bone) for t in tables])
        bone = np.concatenate([t.bone for t in tables]).astype(np.float64)
        other = np.concatenate([t.other for t in tables])
        truth = np.array([t.bone.sum() + t.missed for t in tables], np.float64)
        return cls(np.concatenate(features), image, bone, bone + other, truth)

    def dice(self, parameters: Floats) -> Floats:
        """Hard Dice of each image, float64 (images,)."""
        chosen = (self.features @ parameters.astype(np.float32)) >= 0
        hit = np.bincount(self.image, self.bone * chosen, len(self.truth))
        area = np.bincount(self.image, self.total * chosen, len(self.truth))
        both = self.truth + area
        return np.where(both > 0, 2 * hit / np.maximum(both, 1), 1.0)

    def soft_loss(self, parameters: Floats) -> tuple[float, Floats]:
        """1 - mean soft Dice over the images, and its gradient."""
        p = expit((self.features @ parameters.astype(np.float32)).astype(np.float64))
        images = len(self.truth)
        hit = np.bincount(self.image, self.bone * p, images)
        both = np.maximum(self.truth + np.bincount(self.image, self.total * p, images), 1e-9)
        value = 2 * hit / both
        slope = (2 * self.bone - value[self.image] * self.total) / both[self.image]
        gradient = (slope * p * (1 - p)) @ self.features
        return 1 - float(value.mean()), -gradient / images


def _features(table: ClassTable, sources: int) -> npt.NDArray[np.float32]:
    out = np.zeros((len(table.bone), len(ZONES) * sources + 1), np.float32)
    heard = table.logits != 0
    others = table.logits.sum(axis=1) / np.maximum(heard.sum(axis=1), 1)
    # With the others' mean in its place, a silent source's weight is spread over them.
    logits = np.where(heard, table.logits, others[:, None])
    for zone in range(len(ZONES)):
        rows = table.zones == zone
        out[rows, zone * sources : (zone + 1) * sources] = logits[rows]
    out[:, -1] = 1
    return out

"""Images as the fit sees them: pixels counted by the sources' evidence, the zone and the truth.

A table has some hundred rows to some thousand, whatever the image's size, so that Dice of any
weights, and its gradient, cost next to nothing (`fusion.fit.stacks`). It holds what the sources
said, not what that is worth: how far a source is to be relied on can be fitted on some images and
tried on others without counting again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from converters.masks import CropMask
from fusion.arrays import Floats
from fusion.rules.evidence import LOGIT_LIMIT, ZONES, ClassEvidence, logit_table

# Levels of log odds above 0, narrow where it is decided; those below are alike. Of many sources
# coarser ones do: they differ, and fine ones would make nearly every pixel a row of its own.
_FINE = (0.0, 0.2, 0.4, 0.65, 0.95, 1.3, 1.7, 2.2, 2.8, 3.4, LOGIT_LIMIT)
_COARSE = (0.0, 0.4, 0.95, 1.7, 2.8, LOGIT_LIMIT)
_FINE_UP_TO = 3
_COUNTED_AT_ONCE = 1 << 19


def _middles(edges: Sequence[float]) -> Floats:
    above = (np.array(edges[1:]) + np.array(edges[:-1])) / 2
    return np.concatenate([-above[::-1], above])


def _levels_of_bytes(edges: Sequence[float]) -> npt.NDArray[np.int64]:
    half, odds = len(edges) - 1, logit_table()
    found = np.searchsorted(np.array(edges[1:-1]), np.abs(odds), side="right")
    # Log odds of at least 0 are above, so that the neutral byte is.
    return np.where(odds >= 0, half + found, half - 1 - found)


LEVEL_ODDS = np.concatenate([_middles(_FINE), _middles(_COARSE)])
"""The log odds in the middle of each level, float64 (LEVELS,): the fine ones, the coarse ones."""
LEVELS = len(LEVEL_ODDS)
SILENT = LEVELS
AT_MOST_SOURCES = 12  # so many sources' levels, and the zone, fit into one int64
_FINE_LEVELS = _levels_of_bytes(_FINE)
_COARSE_FROM = 2 * (len(_FINE) - 1)
_COARSE_LEVELS = _COARSE_FROM + _levels_of_bytes(_COARSE)


def _middle_shares() -> Floats:
    # An average is of the probabilities themselves: sure ones are 0 and 1, and most are sure.
    both = np.concatenate([_FINE_LEVELS, _COARSE_LEVELS])
    shares = np.array([(np.flatnonzero(both == k) % 256).mean() / 255 for k in range(LEVELS)])
    return np.where(shares < 0.02, 0.0, np.where(shares > 0.98, 1.0, shares))


PROB = np.append(expit(LEVEL_ODDS), 0.5)
"""The probability in the middle of each level, float64 (LEVELS + 1,); undecided where silent."""
_SHARE = np.append(_middle_shares(), 0.0)
_SURE = expit(np.array([-LOGIT_LIMIT, LOGIT_LIMIT]))


@dataclass(frozen=True)
class OtherClasses:
    """Where an image's other classes are, in the window of one.

    Attributes:
        true: bool (h, w), where any of them truly is.
        shared: true pixels that the class shares with them, in all of the image.
    """

    true: npt.NDArray[np.bool_]
    shared: int


@dataclass(frozen=True)
class SharedCounts:
    """Pixels of a table's rows that the class shares with others, if it has the row.

    What a class shares depends on what is predicted of the others, too. While one class is fitted
    they are taken to be where they truly are: then a pixel that is predicted as shared by mistake
    is one of another class's in all but a few cases, and counts against the class.

    Attributes:
        hit: int32 (n,), pixels where the class and others truly are.
        claimed: int32 (n,), pixels where others truly are.
        truth: true pixels that the class shares, in all of the image.
    """

    hit: npt.NDArray[np.int32]
    claimed: npt.NDArray[np.int32]
    truth: int

    def dice_parts(self, chosen: npt.NDArray[np.bool_]) -> tuple[int, int]:
        """Return numerator and denominator of the Dice of some rows' shared pixels."""
        hit, claimed = int(self.hit[chosen].sum()), int(self.claimed[chosen].sum())
        return 2 * hit, claimed + self.truth


@dataclass(frozen=True)
class ClassCounts:
    """One class of one image, counted.

    Attributes:
        levels: uint8 (n, K), the level of each source's log odds; SILENT where it says nothing.
        zones: uint8 (n,).
        inside: int32 (n,), pixels of the row that belong to the class in truth.
        other: int32 (n,), pixels of the row that do not.
        missed: true pixels outside every source's window.
        scores: float64 (K,), as in `ClassEvidence`.
        overlaps: float64 (K,), as in `ClassEvidence`.
        shared: of the pixels that the class shares with others; None where nobody asked.
    """

    levels: npt.NDArray[np.uint8]
    zones: npt.NDArray[np.uint8]
    inside: npt.NDArray[np.int32]
    other: npt.NDArray[np.int32]
    missed: int
    scores: Floats
    overlaps: Floats
    shared: SharedCounts | None = None

    @cached_property
    def truth(self) -> int:
        """The class's true pixels in the image."""
        return int(self.inside.sum()) + self.missed

    def dice_alone(self, source: int) -> float:
        """Return the Dice of one source's mask, which is empty where the source is silent."""
        return self.dice_of(self.says(source))

    def dice_of_mean(self) -> float:
        """Return the Dice of the mean of the sources, about."""
        shares = (~self.silent).astype(np.float64)
        if not shares.any():
            return self.dice_of(np.zeros(len(self.inside), np.bool_))
        return self.dice_of(mean_odds(self.levels, shares) >= 0)

    def average(self, weights: Floats) -> Floats:
        """Return the rows' average probability, float64 (n,), about.

        Args:
            weights: float64 (K,), at least 0; where a source is silent the others share its weight.
        """
        shares = np.where(self.silent, 0.0, weights)
        total = shares.sum()
        return _SHARE[self.levels] @ shares / total if total else np.zeros(len(self.inside))

    def says(self, source: int) -> npt.NDArray[np.bool_]:
        """Tell in which rows a source gives at least one half, bool (n,)."""
        return np.asarray(PROB[self.levels[:, source]] > 0.5)

    @cached_property
    def silent(self) -> npt.NDArray[np.bool_]:
        """Tell which sources say nothing, bool (K,); all where there are no rows."""
        return np.asarray((self.levels == SILENT).all(axis=0))

    @cached_property
    def pixels_of_levels(self) -> npt.NDArray[np.int32]:
        """Pixels of each source's levels, int32 (2, K, LEVELS + 1): of the class, and others."""
        counts = (self.inside, self.other)
        found = [[np.bincount(k, n, SILENT + 1) for k in self.levels.T] for n in counts]
        return np.array(found, np.int32)

    def dice_of(self, chosen: npt.NDArray[np.bool_]) -> float:
        """Return the Dice of the pixels of some rows; chosen: bool (n,)."""
        hit, area = int(self.inside[chosen].sum()), int((self.inside + self.other)[chosen].sum())
        both = area + self.truth
        return 2 * hit / both if both else 1.0


def check_number(sources: int) -> None:
    """Raise ValueError where there are more sources than a row's code can hold."""
    if sources > AT_MOST_SOURCES:
        raise ValueError(f"fit: expected at most {AT_MOST_SOURCES} sources, found {sources}")


def tabulate(
    evidence: ClassEvidence | None,
    truth: CropMask,
    sources: int,
    others: OtherClasses | None = None,
) -> ClassCounts:
    """Count one class of one image.

    Args:
        evidence: None where no source has seen the class.
        truth: its true mask.
        sources: their number.
        others: the other classes, in the evidence's window; None leaves out what is shared.

    Raises:
        ValueError: more sources than a row's code can hold.
    """
    check_number(sources)
    if evidence is None:
        bytes_, counts = np.zeros(0, np.uint8), np.zeros(0, np.int32)
        none, ones = np.zeros((0, sources), np.uint8), np.ones(sources)
        nothing = None if others is None else SharedCounts(counts, counts, others.shared)
        return ClassCounts(none, bytes_, counts, counts, truth.area, ones, ones, nothing)
    # A digit a source, as few as its levels need: few codes are counted without sorting.
    level_of, levels_of_digits = _digits(sources)
    base = len(levels_of_digits)
    code = evidence.zones.astype(np.int64)
    for layer, silent in zip(evidence.prob, evidence.silent, strict=True):
        code *= base
        code += base - 1 if silent else level_of[layer]
    real = truth.window(evidence.window_xywh)
    masks: list[npt.NDArray[Any]] = [real.ravel()]
    if others is not None:
        masks += [others.true.ravel(), (others.true & (real > 0)).ravel()]
    codes = len(ZONES) * base**sources
    rows, total, (inside, *shared) = _count(code.ravel(), masks, codes)
    levels = np.empty((len(rows), sources), np.uint8)
    for k in reversed(range(sources)):
        rows, digit = np.divmod(rows, base)
        levels[:, k] = levels_of_digits[digit]
    return ClassCounts(
        levels=levels,
        zones=rows.astype(np.uint8),
        inside=inside,
        other=total - inside,
        missed=truth.area - int(real.sum()),
        scores=evidence.scores,
        overlaps=evidence.overlaps,
        shared=None if others is None else SharedCounts(shared[1], shared[0], others.shared),
    )


def _digits(sources: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Return the digit of each byte, and the level of each digit; the last one is SILENT."""
    is_fine = sources <= _FINE_UP_TO
    first, stop = (0, _COARSE_FROM) if is_fine else (_COARSE_FROM, LEVELS)
    levels = _FINE_LEVELS if is_fine else _COARSE_LEVELS
    return levels - first, np.array([*range(first, stop), SILENT], np.uint8)


def dice_above(table: ClassCounts, values: Floats, thresholds: Floats) -> Floats:
    """Return the Dice of the rows whose value reaches each threshold, float64 (m,).

    Args:
        table: one class of one image.
        values: float64 (n,), one a row.
        thresholds: float64 (m,), increasing.
    """
    place = np.searchsorted(thresholds, values, side="right")
    size = len(thresholds) + 1
    hit = np.bincount(place, table.inside, size)[::-1].cumsum()[-2::-1]
    area = np.bincount(place, table.inside + table.other, size)[::-1].cumsum()[-2::-1]
    both = area + table.truth
    return np.where(both > 0, 2 * hit / np.maximum(both, 1), 1.0)


def _count(
    code: npt.NDArray[np.int64], masks: Sequence[npt.NDArray[Any]], codes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], list[npt.NDArray[np.int32]]]:
    """Return the codes that occur, in order, how often, and how often where each mask is 1."""
    if codes <= _COUNTED_AT_ONCE:
        # No sorting: there are about as few codes as pixels.
        total = np.bincount(code, minlength=codes)
        rows = np.flatnonzero(total)
        inside = [np.bincount(code[mask > 0], minlength=codes)[rows] for mask in masks]
        return rows, total[rows].astype(np.int32), [n.astype(np.int32) for n in inside]
    rows, place, total = np.unique(code, return_inverse=True, return_counts=True)
    inside = [np.bincount(place[mask > 0], minlength=len(rows)) for mask in masks]
    return rows, total.astype(np.int32), [n.astype(np.int32) for n in inside]


def mean_odds(levels: npt.NDArray[np.uint8], worth: Floats) -> Floats:
    """Log odds of the mean of the levels' probabilities, weighted, float64 (n,)."""
    return odds_of(PROB.take(levels) @ worth / worth.sum())


def odds_of(prob: Floats) -> Floats:
    """Return the log odds of probabilities, cut at +-LOGIT_LIMIT, of any shape."""
    p = np.clip(prob, *_SURE)
    return np.log(p / (1 - p))

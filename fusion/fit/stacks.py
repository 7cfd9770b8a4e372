"""Tables of many images, one below the other, as the optimiser wants them.

Of float32 numbers a sum depends on how it is divided. Products are divided into the same blocks of
rows wherever the rows lie, in memory or in a file, so that a fit does not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fusion.arrays import Floats
from fusion.fit.counts import LEVELS, PROB, ClassCounts, odds_of
from fusion.rules.calibration import SourceReliability
from fusion.rules.evidence import OUTLINE, ZONES

BLOCK_ROWS = 1 << 17
# Rows that are made of tables at a time: float64 on the way.
_MADE_AT_ONCE = 1 << 15


@dataclass(frozen=True)
class Design:
    """The design matrix: what weights are multiplied with, float32 (n, zones * (K + 1) + 1).

    In the columns of a row's zone stand the sources' log odds, as calibrated, then those of their
    mean; those of other zones are 0; the last column is 1.

    Attributes:
        columns: float32 (n, K + 1), what stands in the columns of the row's zone.
        zones: uint8 (n,).
        scratch: where its blocks are put one after the other; None keeps them all.
    """

    columns: npt.NDArray[np.float32]
    zones: npt.NDArray[np.uint8]
    scratch: Scratch | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.zones)

    def times(self, parameters: Floats) -> npt.NDArray[np.float32]:
        """Return the rows' log odds, float32 (n,); parameters: float64 (P,)."""
        weights = parameters.astype(np.float32)
        return _joined([block @ weights for block in self.blocks()])

    def sums(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the sum of the rows, each times its value, float32 (P,); values: float32 (n,)."""
        total = np.zeros(self.width, np.float32)
        for number, block in enumerate(self.blocks()):
            start = number * BLOCK_ROWS
            total += values[start : start + len(block)] @ block
        return total

    @property
    def width(self) -> int:
        """The number of columns."""
        return width_of(self.columns.shape[1] - 1)

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the matrix, at most BLOCK_ROWS at a time, float32 (m, P)."""
        if self.scratch is None:
            yield from self._kept
            return
        for start in range(0, len(self), BLOCK_ROWS):
            yield self.scratch.block(self, start)

    @cached_property
    def _kept(self) -> list[npt.NDArray[np.float32]]:
        starts = range(0, len(self), BLOCK_ROWS)
        return [self.fill(start, np.empty(self.shape_of(start), np.float32)) for start in starts]

    def shape_of(self, start: int) -> tuple[int, int]:
        """Return the shape of the block that begins with a row."""
        return min(BLOCK_ROWS, len(self) - start), self.width

    def fill(self, start: int, out: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Write the block that begins with a row to `out`, and return it."""
        rows = slice(start, start + len(out))
        out[:] = 0
        out[:, -1] = 1
        of_zones = out[:, :-1].reshape(len(out), len(ZONES), -1)
        of_zones[np.arange(len(out)), self.zones[rows]] = self.columns[rows]
        return out


class Scratch:
    """Memory for one block of a design matrix, the last one that was asked for."""

    def __init__(self) -> None:
        """Take none yet."""
        self._memory = np.zeros((0, 0), np.float32)
        self._holds: tuple[Design | None, int] = None, 0

    def block(self, design: Design, start: int) -> npt.NDArray[np.float32]:
        """Return the block of a design matrix that begins with a row; it lasts until the next."""
        shape = design.shape_of(start)
        if self._holds[0] is not design or self._holds[1] != start:
            self._holds = None, 0
            if len(self._memory) < shape[0]:
                self._memory = np.empty(shape, np.float32)
            design.fill(start, self._memory[: shape[0]])
            self._holds = design, start
        return self._memory[: shape[0]]


def _sigmoid(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return 1 / (1 + exp(-x)); NumPy's exponential of float32 takes a quarter of SciPy's time."""
    with np.errstate(over="ignore"):  # of the far negative: 1 / inf is 0, as it should be
        return np.reciprocal(1 + np.exp(-logits))


def width_of(sources: int) -> int:
    """Return the number of columns of a design matrix."""
    return len(ZONES) * (sources + 1) + 1


def _joined(parts: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def calibrated_odds(reliability: SourceReliability, group: str | None) -> Floats:
    """Return the log odds of each source's levels, as calibrated, float64 (K, LEVELS + 1).

    Those of a silent source are 0.
    """
    calibrations = reliability.of_group(group)
    found = np.zeros((len(calibrations), LEVELS + 1))
    for k, calibration in enumerate(calibrations):
        found[k, :LEVELS] = calibration.logits(PROB[:LEVELS])
    return found


def _columns(
    tables: Sequence[ClassCounts],
    reliability: SourceReliability,
    odds: Floats,
    without: int | None,
) -> npt.NDArray[np.float32]:
    """Return `Design.columns` of some tables; odds: from `calibrated_odds`."""
    levels = np.concatenate([t.levels for t in tables])
    worth, lengths = np.empty((len(tables), len(odds))), [len(t.levels) for t in tables]
    # A source's values lie together: what is done to each of them alone takes half the time then.
    logits, prob = (np.empty(levels.T.shape).T for _ in range(2))
    for k, own in enumerate(odds):
        np.take(own, levels[:, k], out=logits[:, k], mode="clip")
        np.take(PROB, levels[:, k], out=prob[:, k], mode="clip")
    common, mean = np.zeros(len(levels)), np.zeros(len(levels))
    stop = 0
    for table, length, found in zip(tables, lengths, worth, strict=True):
        silent = table.silent.copy()
        if without is not None:
            silent[without] = True
        start, stop = stop, stop + length
        found[:] = 0.0
        if not silent.all():
            found[:] = reliability.worth(table.scores, table.overlaps, silent)
            whole = found.sum()
            common[start:stop] = logits[start:stop] @ found / whole
            mean[start:stop] = prob[start:stop] @ found / whole
    columns = np.empty((len(levels), len(odds) + 1), np.float32)
    for k in range(len(odds)):
        own = np.repeat(worth[:, k], lengths)
        # As the rule spreads weights: what a source is not worth is the others'.
        columns[:, k] = own * logits[:, k] + (1 - own) * common
    columns[:, -1] = odds_of(mean)
    # Where nobody says anything, the bias alone decides.
    columns[np.repeat(~worth.any(axis=1), lengths)] = 0.0
    return columns


def _batches(tables: Sequence[ClassCounts]) -> Iterator[list[ClassCounts]]:
    """Yield tables in order, as many at a time as have about `_MADE_AT_ONCE` rows."""
    batch, rows = list[ClassCounts](), 0
    for table in tables:
        batch.append(table)
        rows += len(table.zones)
        if rows >= _MADE_AT_ONCE:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch


@dataclass(frozen=True)
class Stack:
    """Tables of several images, one below the other, as the optimiser wants them.

    Attributes:
        design: what the weights are multiplied with, n rows.
        starts: int64 (m,), the first row of each image that has rows.
        seen: int64 (m,), the places of those images.
        inside: float32 (n,). total: float32 (n,). truth: float64 (images,), true pixels.
        weights: float64 (images,), how much each image counts; their sum is 1.
        pooled: whether Dice is that of the pixels of all images together, not the images' mean.
    """

    design: Design
    starts: npt.NDArray[np.int64]
    seen: npt.NDArray[np.int64]
    inside: npt.NDArray[np.float32]
    total: npt.NDArray[np.float32]
    truth: Floats
    weights: Floats
    pooled: bool = False

    @classmethod
    def of(
        cls,
        tables: Sequence[ClassCounts],
        reliability: SourceReliability,
        group: str | None,
        without: int | None = None,
        weights: Floats | None = None,
    ) -> Stack:
        """Stack one class's tables, one an image.

        Args:
            tables: of the class.
            reliability: what the sources' probabilities and detections are worth.
            group: of the class; its sources' calibrations are taken.
            without: the place of a source that is taken to be silent.
            weights: float64 (images,), how much each image counts; None for all alike.
        """
        odds = calibrated_odds(reliability, group)
        columns, zones, inside, other = [], [], [], []
        lengths, truth = [], []
        for batch in _batches(tables):
            columns.append(_columns(batch, reliability, odds, without))
            zones += [t.zones for t in batch]
            inside += [t.inside for t in batch]
            other += [t.other for t in batch]
            lengths += [len(t.zones) for t in batch]
            truth += [t.truth for t in batch]
        hit = np.concatenate(inside).astype(np.float32)
        rows = np.array(lengths)
        seen = np.flatnonzero(rows)
        weights = np.ones(len(rows)) if weights is None else weights
        return cls(
            Design(np.concatenate(columns), np.concatenate(zones)),
            (np.cumsum(rows) - rows)[seen],
            seen,
            hit,
            hit + np.concatenate(other).astype(np.float32),
            np.array(truth, np.float64),
            weights / weights.sum(),
        )

    def of_shared(self, tables: Sequence[ClassCounts]) -> Stack:
        """Return the same rows, of the pixels that the class shares with others, pooled.

        Args:
            tables: those of the stack, counted with other classes.
        """
        found = [t.shared for t in tables if t.shared is not None]
        inside = np.concatenate([s.hit for s in found]).astype(np.float32)
        total = np.concatenate([s.claimed for s in found]).astype(np.float32)
        truth = np.array([s.truth for s in found], np.float64)
        return replace(self, inside=inside, total=total, truth=truth, pooled=True)

    def near_outlines(self) -> Stack:
        """Return the same rows, of which those near outlines alone count."""
        near = self.design.zones == OUTLINE
        inside = self.inside * near
        return replace(self, inside=inside, total=self.total * near, truth=self._sums(inside))

    def logits(self, parameters: Floats) -> npt.NDArray[np.float32]:
        """Return the rows' pooled log odds, float32 (n,)."""
        return self.design.times(parameters)

    def dice_parts(self, parameters: Floats) -> tuple[Floats, Floats]:
        """Numerators and denominators of each image's hard Dice, float64 (images,) each."""
        chosen = self.logits(parameters) >= 0.0
        both = self.truth + self._sums(self.total * chosen)
        return 2 * self._sums(self.inside * chosen), both

    def mean_dice_above(self, logits: npt.NDArray[np.float32], threshold: float) -> float:
        """Mean of `dice_above` over the images, or their Dice together."""
        if self.pooled:
            chosen = logits >= threshold
            both = float(self.weights @ (self.truth + self._sums(self.total * chosen)))
            hit = float(self.weights @ self._sums(self.inside * chosen))
            return 2 * hit / both if both else 1.0
        return float(self.weights @ self.dice_above(logits, threshold))

    def dice(self, parameters: Floats) -> Floats:
        """Hard Dice of each image, float64 (images,)."""
        return self.dice_above(self.logits(parameters), 0.0)

    def dice_above(self, logits: npt.NDArray[np.float32], threshold: float) -> Floats:
        """Hard Dice of each image where the rows' log odds reach a threshold."""
        chosen = logits >= threshold
        both = self.truth + self._sums(self.total * chosen)
        hit = self._sums(self.inside * chosen)
        return np.where(both > 0, 2 * hit / np.maximum(both, 1), 1.0)

    def soft_loss(self, parameters: Floats) -> tuple[float, Floats]:
        """1 - mean soft Dice over the images, or their Dice together; and its gradient."""
        p = _sigmoid(self.logits(parameters))
        both = np.maximum(self.truth + self._sums(self.total * p), 1e-9)
        hit = 2 * self._sums(self.inside * p)
        if self.pooled:
            hit, both = (np.full(len(both), self.weights @ each) for each in (hit, both))
        value = hit / both
        # Of 2 hit / both with respect to a row's p: (2 inside - value * total) / both.
        shares = self.weights / both
        slope = self._of_rows(2 * shares) * self.inside - self._of_rows(value * shares) * self.total
        gradient = self.design.sums(slope * p * (1 - p))
        return 1 - float(self.weights @ value), -gradient.astype(np.float64)

    def _sums(self, values: npt.NDArray[np.float32]) -> Floats:
        """Sum over each image's rows, float64 (images,)."""
        out = np.zeros(len(self.truth))
        if len(self.starts):
            out[self.seen] = np.add.reduceat(values, self.starts)
        return out

    def _of_rows(self, values: Floats) -> npt.NDArray[np.float32]:
        """Repeat each image's value for its rows, float32 (n,)."""
        return np.repeat(values[self.seen].astype(np.float32), self._lengths)

    @cached_property
    def _lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(np.append(self.starts, len(self.inside)))

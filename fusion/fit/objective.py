"""What a fit is to win: Dice, shared pixels, surface Dice, or a weighted mean of these.

Dice and shared pixels follow from counts, so that weights can be fitted for them. Surface Dice does
not: outlines move with the pixels around them. For it, weights are fitted for several objectives
that do follow from counts, among them Dice of the pixels near outlines, and the fit that is best by
surface Dice on held-out patients is chosen (`fusion.fit.choice`).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from converters.types import LabelSpace
from fusion.arrays import Floats
from fusion.metrics.scores import LEAST_IMAGES, LEAST_SHARE, Counts, Scores
from fusion.metrics.summary import values_of

NAMED = ("dice", "shared", "nsd")


@dataclass(frozen=True)
class Objective:
    """What counts how much; the sum is 1.

    Attributes:
        dice: mean Dice over images, then classes.
        shared: Dice of shared pixels, pooled: see `Scores.shared_pooled`. In the fit of one class
            it is that of its own shared pixels; classes that do not overlap are fitted for Dice.
        nsd: mean normalised surface Dice within 2 px, over images, then classes.
        outlines: mean Dice of the pixels near outlines; stands in for `nsd` where weights are
            fitted.
    """

    dice: float = 1.0
    shared: float = 0.0
    nsd: float = 0.0
    outlines: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Return what a text means: `dice`, `shared`, `nsd`, or weights: `dice:.7,shared:.3`.

        Raises:
            ValueError: an unknown name, one that comes twice, or a weight that is not above 0.

        >>> str(Objective.parse("dice:3,shared:1"))
        'dice:0.75,shared:0.25'
        """
        parts = [part.strip() for part in text.split(",")]
        weights: dict[str, float] = {}
        for part in parts:
            name, colon, value = (word.strip() for word in part.partition(":"))
            if name not in NAMED or name in weights or (len(parts) > 1 and not colon):
                raise _bad(text)
            weights[name] = _weight(value, text) if colon else 1.0
        total = sum(weights.values())
        return cls(**{"dice": 0.0, **{name: value / total for name, value in weights.items()}})

    @property
    def is_dice(self) -> bool:
        """Whether it is nothing but Dice."""
        return self == Objective()

    @property
    def needs_overlaps(self) -> bool:
        """Whether pixels that classes share are to be counted."""
        return self.shared > 0 or self.nsd > 0

    def __str__(self) -> str:
        weights = {n: w for n in (*NAMED, "outlines") if (w := getattr(self, n))}
        if len(weights) == 1:
            return next(iter(weights))
        return ",".join(f"{name}:{weight:.4g}" for name, weight in weights.items())

    def stand_ins(self, has_overlaps: bool) -> list[Objective]:
        """Return objectives that follow from counts, of whose fits this one chooses.

        Args:
            has_overlaps: whether there are classes that overlap.
        """
        rest = self.dice + self.shared
        own = [Objective(self.dice / rest, self.shared / rest)] if rest else []
        usual = [
            Objective(),
            Objective(dice=0.5, outlines=0.5),
            Objective(dice=0.0, outlines=1.0),
            *([Objective(dice=0.5, shared=0.5)] if has_overlaps else []),
        ]
        return list(dict.fromkeys([*own, *usual]))


def _bad(text: str) -> ValueError:
    return ValueError(
        f"--objective: expected {', '.join(NAMED)}, or weights above 0 such as "
        f"dice:.7,shared:.3, found '{text}'"
    )


def _weight(value: str, text: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        raise _bad(text) from None
    if not (math.isfinite(weight) and weight > 0):
        raise _bad(text)
    return weight


def check_overlaps(objective: Objective, overlapping: Collection[str], labels: LabelSpace) -> None:
    """Make sure that there are shared pixels where these are to be won.

    Args:
        objective: what is to be won.
        overlapping: the classes that overlap in the truth, see `Scores.overlapping`.
        labels: the classes.

    Raises:
        ValueError: no class overlaps.
    """
    if objective.shared and not overlapping:
        raise ValueError(
            f"--objective {objective}: expected classes that overlap in the truth "
            f"(at least {LEAST_SHARE:.0%} of their area, in {LEAST_IMAGES:.0%} of the images), "
            f"found none in '{labels.name}'"
        )


def image_values(scores: Scores, objective: Objective, weights: Floats | None = None) -> Floats:
    """Return values whose mean over the images is the objective, float64 (images,).

    Shared pixels are pooled, which is no mean. They enter by the linear part of the ratio around
    its value (Sarndal, Swensson and Wretman, "Model Assisted Survey Sampling", 1992, section 5.5):
    the mean of that is the pooled Dice itself, and its spread over patients about that of it.

    Args:
        scores: of the images.
        objective: what counts how much.
        weights: float64 (images,), above 0, how much each image counts; None for all alike.

    Raises:
        ValueError: surface Dice counts and was not measured.
    """
    found = np.zeros(len(scores.images))
    for name in ("dice", "nsd"):
        if weight := getattr(objective, name):
            found += weight * values_of(scores, name).mean(axis=1)
    if objective.shared and scores.overlapping:
        none = Counts(0, 0, 0)
        rows = [[i.shared.get(n, none) for n in scores.overlapping] for i in scores.images]
        both, predicted, true = np.array(rows, np.float64).sum(axis=1).T
        found += objective.shared * linear_ratio(2 * both, predicted + true, weights)
    return found


def linear_ratio(parts: Floats, wholes: Floats, weights: Floats | None = None) -> Floats:
    """Return values whose weighted mean is sum(parts) / sum(wholes), float64 (n,).

    Args:
        parts: float64 (n,).
        wholes: float64 (n,), of a sum above 0; otherwise the ratio is taken to be 1.
        weights: float64 (n,), above 0; None for all alike.
    """
    weights = np.ones(len(parts)) if weights is None else weights
    whole = float(wholes @ weights)
    if not whole:
        return np.ones(len(parts))
    ratio = float(parts @ weights) / whole
    return np.asarray(ratio + (parts - ratio * wholes) * weights.sum() / whole)

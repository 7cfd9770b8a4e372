"""What a fit found out about each class, on images that it held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from converters.types import LabelSpace
from fusion.arrays import Floats
from fusion.fit.counted import Counted
from fusion.fit.gains import pool_gains
from fusion.fit.objective import Objective, linear_ratio
from fusion.metrics.intervals import Estimate, mean_over_people

FallBack = Literal["never", "worse", "unsure"]
"""Classes that keep their best source: none; those whose likely gain over it is not positive; those
whose gain's lower confidence bound is not."""


@dataclass(frozen=True)
class ClassReport:
    """What cross-validation said of one class.

    Attributes:
        single: source -> mean Dice of it alone.
        mean: mean Dice of the sources' plain mean.
        fused: mean held-out Dice of the fitted pool, whether the class takes it or not.
        reached: mean held-out Dice of what the class takes.
        gain: `fused` minus the best source, with its interval over patients; both in what the rule
            was fitted for, where that is not Dice.
        likely_gain: the same, when the gains of the group's other classes count as well; the
            lower end of its interval is a lower confidence bound at 95 %.
        worth: source -> held-out Dice that the pool loses without it.
        keeps: the source the class keeps, or "".
        is_seen: whether any image has the class; of one that none has nothing can be said: it is
            fused with what its group's other classes have taught, and keeps no source.
    """

    single: Mapping[str, float]
    mean: float
    fused: float
    reached: float
    gain: Estimate
    likely_gain: Estimate
    worth: Mapping[str, float]
    keeps: str
    is_seen: bool = True

    def note(self) -> str:
        """Return it in a line, for the rule's file."""
        if not self.is_seen:
            return "no image has it: with the weights of its group"
        single = ", ".join(f"{value:.4f} {name}" for name, value in self.single.items())
        word = "fused" if self.reached == self.fused else "fused, were it so"
        return f"held-out Dice {self.fused:.4f} {word}, {self.mean:.4f} mean, {single}"


@dataclass(frozen=True)
class HeldOutReport:
    """Dice of the fused classes on images that the weights were not fitted on.

    Attributes:
        fused: class name -> float64 (images,).
        lost: class name -> float64 (K, images), what is lost without a source.
        shared: class name -> float64 (2, images), numerators and denominators of the Dice of shared
            pixels; 0 where nobody asked.
    """

    fused: Mapping[str, Floats]
    lost: Mapping[str, Floats]
    shared: Mapping[str, Floats]

    @classmethod
    def empty(cls, counted: Counted) -> HeldOutReport:
        """Return zeros, to be filled in fold by fold."""
        shape = counted.sources, len(counted)
        return cls(
            {n: np.zeros(shape[1]) for n in counted.tables},
            {n: np.zeros(shape) for n in counted.tables},
            {n: np.zeros((2, shape[1])) for n in counted.tables},
        )

    def fill(self, places: Sequence[int], part: HeldOutReport) -> None:
        """Put in what was reached on some of the images."""
        for n, fused in part.fused.items():
            self.fused[n][places] = fused
            self.lost[n][:, places] = part.lost[n]
            self.shared[n][:, places] = part.shared[n]


def report_classes(
    counted: Counted,
    held_out: HeldOutReport,
    sources: Sequence[str],
    labels: LabelSpace,
    fall_back: FallBack,
    objective: Objective | None = None,
) -> dict[str, ClassReport]:
    """Compare each class's fusion with its best source, and decide what the class takes.

    Args:
        counted: all images.
        held_out: what the fusion reached on them.
        sources: their names.
        labels: the classes.
        fall_back: which classes keep their best source.
        objective: what the best source and the gain over it are told by; None for Dice, by which
            classes are told that do not overlap.
    """
    alone = {n: counted.alone(n) for n in labels.names}
    fused, single = dict(held_out.fused), alone
    if objective is not None and objective.shared:
        share, single = objective.shared, dict(alone)
        for n in counted.overlapping:
            parts = counted.shared_alone(n)
            ratios = np.array([linear_ratio(p[0], p[1], counted.weights) for p in parts])
            single[n] = (1 - share) * alone[n] + share * ratios
            own = held_out.shared[n]
            ratio = linear_ratio(own[0], own[1], counted.weights)
            fused[n] = (1 - share) * held_out.fused[n] + share * ratio
    best = {n: int(np.argmax(counted.mean(single[n]))) for n in labels.names}
    gains = {
        n: mean_over_people(fused[n] - single[n][best[n]], counted.patients, counted.weights)
        for n in labels.names
    }
    likely = likely_gains(gains, labels)
    seen = {n: any(t.truth for t in counted.tables[n]) for n in labels.names}
    keeps = {n: seen[n] and _falls_back(likely[n], fall_back) for n in labels.names}
    taken = {n: alone[n][best[n]] if keeps[n] else held_out.fused[n] for n in labels.names}
    return {
        n: ClassReport(
            single=_named(sources, counted.mean(alone[n])),
            mean=float(counted.mean(np.array([t.dice_of_mean() for t in counted.tables[n]]))),
            fused=float(counted.mean(held_out.fused[n])),
            reached=float(counted.mean(taken[n])),
            gain=gains[n],
            likely_gain=likely[n],
            worth=_named(sources, counted.mean(held_out.lost[n])),
            keeps=sources[best[n]] if keeps[n] else "",
            is_seen=seen[n],
        )
        for n in labels.names
    }


def _falls_back(gain: Estimate, fall_back: FallBack) -> bool:
    return {"never": False, "worse": gain.mean <= 0, "unsure": not gain.is_gain}[fall_back]


def likely_gains(gains: Mapping[str, Estimate], labels: LabelSpace) -> dict[str, Estimate]:
    """Return the classes' gains when those of their groups' other classes count as well."""
    likely: dict[str, Estimate] = {}
    for names in members(labels).values():
        likely |= zip(names, pool_gains([gains[n] for n in names]), strict=True)
    return likely


def members(labels: LabelSpace) -> dict[str, list[str]]:
    """Return group -> its classes; "" for those without one."""
    members: dict[str, list[str]] = {}
    for n in labels.names:
        members.setdefault(labels.group_of(n) or "", []).append(n)
    return members


def _named(sources: Sequence[str], values: Floats) -> dict[str, float]:
    return dict(zip(sources, values.tolist(), strict=True))

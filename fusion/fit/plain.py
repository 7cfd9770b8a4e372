"""Fits the rules that fuse each class by itself: averages, votes, the best source of each class.

What is fitted for a class is drawn toward what is best for its group: few images tell little about
one class. Every rule is fitted anew in each fold of a cross-validation by patient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from converters.parallel import IN_PROCESS, Workers
from converters.types import LabelSpace
from fusion.arrays import Floats
from fusion.fit.base import Fit, Tell, quiet
from fusion.fit.counted import Counted, CountedImage, Seen, count_plainly
from fusion.fit.counts import ClassCounts, dice_above
from fusion.fit.gains import pool_gains
from fusion.fit.report import members
from fusion.metrics.intervals import Estimate, means_over_people
from fusion.rules.classwise import Classwise
from fusion.rules.pooling import Mean, Weighted
from fusion.rules.voting import Vote, elect
from fusion.types import Rule

THRESHOLDS = np.linspace(0.3, 0.7, 21)
SHARPNESS = (0.0, 0.5, 1.0, 2.0)
LEAST_ERROR = 1e-3
LEAST_GAIN = 1e-4  # of Dice: for less, nothing is moved from where it is without a fit


@dataclass(frozen=True)
class PlainFit(ABC):
    """What the fits of rules have in common that fuse each class by itself.

    Attributes:
        folds: of the cross-validation by patient.
    """

    folds: int = 5

    def count(self, seen: Seen, labels: LabelSpace) -> CountedImage:
        """Return what the fit keeps of an image; pure, so that it can run in any process."""
        return count_plainly(seen, labels)

    def solve(
        self,
        counted: Counted,
        sources: Sequence[str],
        labels: LabelSpace,
        tell: Tell = quiet,
        workers: Workers = IN_PROCESS,
    ) -> Fit[Rule]:
        """Fit the rule to counted images; each fold by one of the workers."""
        tell("fitting")
        folds = counted.folds(self.folds)
        places = (*(train for train, _ in folds), range(len(counted)))
        rules = list(workers.map(partial(self._train_on, counted, sources, labels), places))
        held_out = counted.by_patient(folds, rules[:-1])
        name, plain = self.plain(counted, sources)
        takes = self.takes(rules[-1], labels)
        return Fit(
            rules[-1],
            name,
            plain,
            held_out,
            images=len(counted),
            patients=len(held_out),
            takes=takes,
            can_lose=not takes,
        )

    def _train_on(
        self,
        counted: Counted,
        sources: Sequence[str],
        labels: LabelSpace,
        places: Sequence[int],
    ) -> Rule:
        return self.train(counted.only(places), sources, labels)

    def takes(self, rule: Rule, labels: LabelSpace) -> Mapping[str, str]:
        """Return the source of each class, where it comes from a single one."""
        return {}

    @abstractmethod
    def train(self, counted: Counted, sources: Sequence[str], labels: LabelSpace) -> Rule:
        """Return the rule that is best on the images."""

    @abstractmethod
    def plain(self, counted: Counted, sources: Sequence[str]) -> tuple[str, Rule]:
        """Return the name of the rule without a fit, and the rule."""


@dataclass(frozen=True)
class MeanFit(PlainFit):
    """Fits a threshold for each class."""

    def train(self, counted: Counted, sources: Sequence[str], labels: LabelSpace) -> Rule:
        """Return the mean with the thresholds at which Dice is best."""
        equal = dict.fromkeys(labels.names, np.ones(counted.sources))
        curves = _curves(counted, equal)
        return Mean(tuple(sources), thresholds=_thresholds(curves, labels))

    def plain(self, counted: Counted, sources: Sequence[str]) -> tuple[str, Rule]:
        """Return the mean, cut at one half."""
        return "mean", Mean()


@dataclass(frozen=True)
class WeightedFit(PlainFit):
    """Fits a weight for each source and class, and a threshold for each class.

    A source that errs half as much as another counts 2 ** s times as much:
    weight = (1 - Dice) ** -s, with the Dice that it reaches alone where it speaks, the class and
    its group counting the same. Weights by Dice itself would hardly differ, since all sources that
    are worth fusing reach .9; with s = 2 and errors that are independent and of no direction, the
    weights are those of the smallest variance (Bates and Granger, Operational Research Quarterly
    1969). Sources err alike, which speaks for less: s is that of `SHARPNESS` with the
    best Dice, one for all classes.
    """

    def train(self, counted: Counted, sources: Sequence[str], labels: LabelSpace) -> Rule:
        """Return the weighted mean of the sharpness, and the thresholds, at which Dice is best."""
        errors = _drawn_errors(counted, labels)
        tried = []
        for s in SHARPNESS:
            weights = {n: _weights(error, s) for n, error in errors.items()}
            curves = _curves(counted, weights)
            best = np.mean([curve.max() for curve in _drawn(curves, labels).values()])
            tried.append((float(best), weights, curves))
        # Of equals the first, which is the flattest.
        _, weights, curves = max(tried, key=lambda entry: entry[0])
        overall = np.mean(list(weights.values()), axis=0)
        return Weighted(
            tuple(sources),
            _by_name(sources, overall),
            {n: _by_name(sources, w) for n, w in weights.items()},
            thresholds=_thresholds(curves, labels),
        )

    def plain(self, counted: Counted, sources: Sequence[str]) -> tuple[str, Rule]:
        """Return the mean: the same weight for all."""
        return "mean", Mean()


@dataclass(frozen=True)
class VoteFit(PlainFit):
    """Fits how many votes are needed, and whose vote decides a tie.

    Ties go to the source with the best Dice over all classes.
    """

    def train(self, counted: Counted, sources: Sequence[str], labels: LabelSpace) -> Rule:
        """Return the vote whose number of votes is best."""
        means = np.mean([counted.mean(counted.alone(n)) for n in counted.tables], axis=0)
        order = np.argsort(-means, kind="stable").tolist()
        ranks = {place: rank for rank, place in enumerate(order)}

        def score(k: int) -> float:
            rows = [[vote_dice(t, ranks, k) for t in ts] for ts in counted.tables.values()]
            return float(counted.mean(np.array(rows)).mean())

        majority, scores = score(0), [score(k) for k in range(1, counted.sources + 1)]
        best = int(np.argmax(scores))
        k = best + 1 if scores[best] > majority + LEAST_GAIN else 0
        return Vote(tuple(sources), k=k, prefer=tuple(sources[i] for i in order))

    def plain(self, counted: Counted, sources: Sequence[str]) -> tuple[str, Rule]:
        """Return the majority's vote."""
        return "majority vote", Vote()


@dataclass(frozen=True)
class ClasswiseFit(PlainFit):
    """Fits from which source each class comes.

    A class comes from the source that is best on its group, unless another one is surely better on
    it: the lower 95 % confidence bound of the gain over patients, the gains of the group's other
    classes counted in, is above 0.
    """

    def train(self, counted: Counted, sources: Sequence[str], labels: LabelSpace) -> Rule:
        """Return the choice of sources that is best."""
        rest = _best(counted, labels.names)
        classes = {}
        for group, names in members(labels).items():
            leads = _best(counted, names) if group else rest
            if group:
                classes[group] = sources[leads]
            better = _surely_better(counted, names, leads)
            classes |= {n: sources[k] for n, k in better.items()}
        return Classwise(tuple(sources), classes, sources[rest])

    def plain(self, counted: Counted, sources: Sequence[str]) -> tuple[str, Rule]:
        """Return the best source for all classes."""
        best = sources[_best(counted, tuple(counted.tables))]
        return f"{best} alone", Classwise(tuple(sources), rest=best)

    def takes(self, rule: Rule, labels: LabelSpace) -> Mapping[str, str]:
        """Return the source of each class."""
        if not isinstance(rule, Classwise):
            return {}
        choices = {n: rule.classes.get(labels.group_of(n) or "", rule.rest) for n in labels.names}
        return {n: str(rule.classes.get(n, choice)) for n, choice in choices.items()}


# --- averages


def _curves(counted: Counted, weights: Mapping[str, Floats]) -> dict[str, Floats]:
    """Mean Dice of each class at each of the thresholds, class -> float64 (THRESHOLDS,)."""
    found = {}
    for n, tables in counted.tables.items():
        rows = [dice_above(t, t.average(weights[n]), THRESHOLDS) for t in tables]
        found[n] = counted.mean(np.transpose(rows))
    return found


def _drawn(curves: Mapping[str, Floats], labels: LabelSpace) -> dict[str, Floats]:
    """The curves, drawn half the way toward those of their groups, and smoothed."""
    drawn = {}
    for names in members(labels).values():
        common = np.mean([curves[n] for n in names], axis=0)
        for n in names:
            # A single lucky threshold is noise: smooth over three neighbours.
            padded = np.pad((curves[n] + common) / 2, 1, mode="edge")
            drawn[n] = np.convolve(padded, [0.25, 0.5, 0.25], mode="valid")
    return drawn


def _thresholds(curves: Mapping[str, Floats], labels: LabelSpace) -> dict[str, float]:
    """The best threshold of each class that is better off with another one than one half."""
    half = len(THRESHOLDS) // 2
    found = {}
    for n, curve in _drawn(curves, labels).items():
        best = int(curve.argmax())
        if curve[best] > curve[half] + LEAST_GAIN:
            found[n] = round(float(THRESHOLDS[best]), 4)
    return found


def _drawn_errors(counted: Counted, labels: LabelSpace) -> dict[str, Floats]:
    """What each source lacks to a Dice of 1 where it speaks, class -> float64 (K,)."""
    lacks = {}
    for n, tables in counted.tables.items():
        speaks = np.transpose([~t.silent for t in tables])
        total = speaks @ counted.weights
        said = (counted.alone(n) * speaks) @ counted.weights
        lacks[n] = 1 - said / np.where(total > 0, total, 1)
    return {
        n: np.maximum((lacks[n] + np.mean([lacks[m] for m in names], axis=0)) / 2, LEAST_ERROR)
        for names in members(labels).values()
        for n in names
    }


def _weights(errors: Floats, sharpness: float) -> Floats:
    weights = errors**-sharpness
    return weights / weights.sum()


def _by_name(sources: Sequence[str], weights: Floats) -> dict[str, float]:
    return dict(zip(sources, weights.round(4).tolist(), strict=True))


# --- votes and choices


def vote_dice(table: ClassCounts, ranks: Mapping[int, int], k: int) -> float:
    """Return the Dice of a vote on one class of one image; see `fusion.rules.voting.elect`."""
    layers = {
        place: table.says(place) * np.uint8(255) for place in ranks if not table.silent[place]
    }
    elected = elect(range(len(ranks)), layers, ranks, k)
    return table.dice_of(np.zeros(len(table.inside), np.bool_) if elected is None else elected)


def _best(counted: Counted, names: Sequence[str]) -> int:
    return int(np.mean([counted.mean(counted.alone(n)) for n in names], axis=0).argmax())


def _surely_better(counted: Counted, names: Sequence[str], leads: int) -> dict[str, int]:
    """The classes of a group on which another source is surely better, and which."""
    alone = np.stack([counted.alone(n) for n in names], axis=-1)  # (K, images, classes)
    best: dict[str, tuple[float, int]] = {}
    for k in range(counted.sources):
        if k == leads:
            continue
        columns = [[i] for i in range(len(names))]
        gain = alone[k] - alone[leads]
        found = means_over_people(gain, counted.patients, columns, counted.weights)
        gains = pool_gains([found_gain or Estimate(0.0, None) for found_gain in found])
        for n, gain in zip(names, gains, strict=True):
            if gain.is_gain and gain.mean > best.get(n, (0.0, k))[0]:
                best[n] = gain.mean, k
    return {n: k for n, (_, k) in best.items()}
